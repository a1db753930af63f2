# %% [markdown]
# # Exercises for lesson 12: a search over ranks
#
# Complete each function, run its cell, then run the check below it.

# %%
import torch
import torch.distributed as dist

from course_lib.checks import lesson_12 as check

# %% [markdown]
# ## 12.1 · Deal out trials of known length
#
# *Difficulty 2 of 5 · 15 minutes · goal: at most 4/3 of the time that the best possible plan takes*
#
# You know what each trial costs, from a short test or from its size. The search is over when the slowest rank is
# done, so the costs of the ranks should be as equal as you can make them. The very best plan is hard to find. A simple one
# comes close: which trials are easy to place when the others lie already, the long or the short ones? Every rank
# calls your function for itself, so all must come to the same plan.


# %%
def deal(costs: list[float], ranks: int) -> list[list[int]]:
    """Deal trials to ranks so that the slowest rank is done early.

    Args:
        costs: What each trial takes, in seconds; the trials are numbered from 0.
        ranks: How many ranks there are, at least 1.

    Returns:
        One list for each rank: the numbers of its trials, in any order.
    """
    # BEGIN SOLUTION
    plan, load = [[] for _ in range(ranks)], [0.0] * ranks
    for trial in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        rank = load.index(min(load))
        plan[rank].append(trial)
        load[rank] += costs[trial]
    return plan
    # END SOLUTION


# %%
check.deal(deal)

# %% [markdown] tags=["solution"]
# The longest first, each to the rank that has least so far. Ronald Graham proved in 1969 that this never takes longer
# than 4/3 of the best plan; it mostly takes much less.

# %% [markdown]
# ## 12.2 · Only the best travels
#
# *Difficulty 3 of 5 · 15 minutes · goal: the weights of one rank travel, and those of no other*
#
# Every rank has trained networks of one and the same shape, and comes with the score and the weights of its best. All ranks
# are to end up with the best of all. Gathering everybody's weights would do, but with large networks on many ranks it moves
# far more than is needed. Scores are small; exchange those, agree, and let the winner broadcast. The smallest score wins,
# NaN never does, and of equal scores that of the lowest rank.


# %%
def share_best(score: float, weights: dict[str, torch.Tensor]) -> tuple[float, dict]:
    """Give every rank the best score and its weights. Called inside a process group.

    Args:
        score: The validation error of this rank's best network; NaN if all its trials failed.
        weights: That network's state dict. The same names, shapes and types on every rank; may be
            overwritten.

    Returns:
        The best score of all ranks and the weights that belong to it, the same on every rank.
    """
    # BEGIN SOLUTION
    scores = [None] * dist.get_world_size()
    dist.all_gather_object(scores, score)
    winner = min(range(len(scores)), key=lambda r: (scores[r] != scores[r], scores[r], r))
    for tensor in weights.values():
        dist.broadcast(tensor, src=winner)
    return scores[winner], weights
    # END SOLUTION


# %%
check.share_best(share_best)

# %% [markdown]
# ## 12.3 · A queue without a manager
#
# *Difficulty 3 of 5 · 15 minutes · goal: no rank is done while a trial waits*
#
# Mostly nobody knows the costs beforehand. Then let each rank fetch its next trial when it is free. No rank needs to hand them out: the
# store, at which all ranks met, can count. `store.add(key, 1)` raises a counter by one and returns the new value, in one
# step that no other rank can come between; a counter that nobody has touched yet is at 0. On each rank your
# function is called once, at about the same time.


# %%
def work_off(store: dist.Store, trials: int, run) -> dict[int, float]:
    """Run trials, together with the other ranks, until none is left. Called on every rank.

    Args:
        store: One store for all ranks; nothing is in it yet.
        trials: How many trials there are, numbered from 0.
        run: `run(trial)` runs one trial, here and now, and returns its score.

    Returns:
        The trials that this rank ran, each with its score.
    """
    # BEGIN SOLUTION
    scores = {}
    while (trial := store.add("next", 1) - 1) < trials:
        scores[trial] = run(trial)
    return scores
    # END SOLUTION


# %%
check.work_off(work_off)

# %% [markdown] tags=["solution"]
# The queue and the plan of 12.1 go well together: put the trials in order, the longest first, and let the ranks fetch them in that
# order. Then a long trial cannot turn up at the very end, when all others are idle.
