# %% [markdown]
# # Exercises for lesson 23: how much faster are N ranks?
#
# Complete each function, run its cell, then run the check below it.

# %%
import torch
import torch.distributed as dist

from course_lib.checks import lesson_23 as check

# %% [markdown]
# ## 23.1 · Efficiency from a heap of runs
#
# *Difficulty 2 of 5 · 15 minutes · goal: one rule for strong and weak scaling alike*
#
# A sweep has left runs on several numbers of ranks, each repeated a few times, on a machine where other programs came and went. How much of the hardware's
# promise was kept? Take the **median** speed of equal world sizes: one disturbed run must not decide, and neither must one lucky one. And compare with
# the smallest world size there is; a network that does not fit on one GPU has no run with one rank.


# %%
def efficiencies(runs: list[tuple[int, int, float]]) -> dict[int, float]:
    """The efficiency of each world size.

    Args:
        runs: For each run, in any order: the number of ranks, how many samples all ranks together
            trained, and the seconds it took.

    Returns:
        World size → its median samples a second *for each rank*, divided by that of the smallest
        world size (whose efficiency is therefore 1). The median of an even number of runs is the
        mean of the two in the middle.
    """
    # BEGIN SOLUTION
    speeds: dict[int, list[float]] = {}
    for ranks, samples, seconds in runs:
        speeds.setdefault(ranks, []).append(samples / seconds / ranks)
    middle = {ranks: torch.tensor(each).double().quantile(0.5) for ranks, each in speeds.items()}
    return {ranks: (middle[ranks] / middle[min(middle)]).item() for ranks in middle}
    # END SOLUTION


# %%
check.efficiencies(efficiencies)

# %% [markdown] tags=["solution"]
# Samples a second and rank fit both kinds: in strong scaling the samples stay and the seconds shrink, in weak scaling the samples grow and the seconds
# stay. Dividing times would have worked for the first kind only.

# %% [markdown]
# ## 23.2 · Why is it slower?
#
# *Difficulty 3 of 5 · 20 minutes · goal: one all_reduce of a single number*
#
# A step ends with a collective. It cannot move a byte before the last rank has come. So what a rank spends inside it is two things: **waiting** for the last, and **communicating** from
# then on. In a timeline you see the difference at once; a single rank, which knows only its own clock, does not. Let the ranks find out. (Ranks of one machine share
# its monotonic clock, which counts seconds since the machine was started. After two weeks that is more than a million: which type still tells milliseconds apart?)


# %%
def where_the_time_goes(began: float, arrived: float, ended: float) -> dict[str, float]:
    """Split this rank's step into three parts. Called on all ranks, after the step.

    Args:
        began: When the step began on this rank, in seconds of the machine's monotonic clock.
        arrived: When this rank called the collective.
        ended: When the collective returned on this rank.

    Returns:
        Seconds of ``"computing"`` (until this rank arrived), ``"waiting"`` (until the last rank
        arrived) and ``"communicating"`` (from then on). Their sum is ``ended - began``.
    """
    # BEGIN SOLUTION
    last = torch.tensor(arrived, dtype=torch.float64)
    dist.all_reduce(last, op=dist.ReduceOp.MAX)
    last = last.item()
    return {
        "computing": arrived - began,
        "waiting": last - arrived,
        "communicating": ended - last,
    }
    # END SOLUTION


# %%
check.where_the_time_goes(where_the_time_goes)

# %% [markdown] tags=["solution"]
# The maximum of the arrivals is all the ranks need to tell each other. Now look at a run with a speed-up below 1 through it: if `waiting` is large on all ranks but one, that one is the straggler; if it is large
# on *changing* ranks, they share too few cores; if `communicating` is large, it is the wire or the size of the message.
