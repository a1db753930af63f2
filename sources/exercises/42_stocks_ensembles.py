# %% [markdown]
# # Exercises for lesson 42: many opinions
#
# Complete each function, run its cell, then run the check below it.

# %%
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from course_lib.checks import lesson_42 as check

# %% [markdown]
# ## 42.1 · Six models on four ranks
#
# *Difficulty 3 of 5 · 25 minutes · goal: models ÷ ranks units of time, in as few rounds as possible*
#
# Training one model takes one rank one unit of time. Four ranks train four of six models in the first round, and two in the second, while two ranks look on: 2 units. A model that g ranks share, data-parallel, takes 1/g of the time (let us be generous). So in the second round two ranks might share each of the two models that are left: 1.5 units.
#
# A round is over when its slowest model is. **No plan can take less than models ÷ ranks units. Which rounds waste nothing?** One plan that takes no more is always there: all ranks share one model, and then the next. But whoever shares a model sends gradients in every step. So also make the rounds as few as you can.


# %%
def plan(models: int, ranks: int) -> list[dict[int, list[int]]]:
    """Plan who trains which model, round by round.

    Args:
        models: How many models are to be trained, numbered from 0; perhaps none.
        ranks: How many ranks there are, at least 1.

    Returns:
        The rounds, in order. A round is a dict: the number of each of its models → the ranks that
        share it. Every model is in one round, and a rank is in one group of a round at most. A
        round takes 1/g units of time, where g is the size of its smallest group. All rounds
        together take models ÷ ranks units, and no plan of that time has fewer rounds.
    """
    # BEGIN SOLUTION
    at_once = [k for k in range(1, ranks + 1) if ranks % k == 0]  # equal groups, nobody idle
    best = [[]]  # best[m]: how many models each round has, if there are m of them
    for m in range(1, models + 1):
        best.append(min(([k, *best[m - k]] for k in at_once if k <= m), key=len))
    rounds, first = [], 0
    for k in sorted(best[models], reverse=True):
        g = ranks // k
        rounds.append({first + i: list(range(i * g, (i + 1) * g)) for i in range(k)})
        first += k
    return rounds
    # END SOLUTION


# %% [markdown]
# The plan is to be carried out, too: at the beginning of each round every rank asks for its group. **For which groups does a rank have to call `new_group`?** Lesson 05 had the answer.


# %%
def my_group(groups: dict[int, list[int]]) -> tuple[int, dist.ProcessGroup]:
    """Make the process groups of one round. Called on all ranks, with the same round.

    Args:
        groups: A round of the plan: model → the ranks that share it. Every rank is in one of them.

    Returns:
        The model that this rank trains in this round, and the process group of all who share it.
    """
    # BEGIN SOLUTION
    for model, members in groups.items():
        group = dist.new_group(members)
        if dist.get_rank() in members:
            mine = model, group
    return mine
    # END SOLUTION


# %% [markdown]
# The check looks at plans for up to 20 ranks. Then it carries some of them out, on 2 to 6 real ranks, with your groups: DDP, a tiny model each.

# %%
check.plan(plan, my_group)

# %% [markdown] tags=["solution"]
# A round wastes nothing if all its groups are equally large and nobody idles: then the number of its models divides the number of ranks. Of six, four can go at once, and then two; of seven, four, two and one. To take as many as possible is mostly best, and not always: eight models on 20 ranks are 5 + 2 + 1 that way, and 4 + 4 is one round less. So `plan` works its way up: the fewest rounds for m models are one more than the fewest for those that one round leaves.
#
# Fewest rounds are also fewest bytes. An `all_reduce` in a ring of g ranks sends 2(g − 1) times the gradients, all ranks together. Summed over the models that is 2(rounds × ranks − models) for each step.
#
# Every rank calls `new_group` for every group, in the order of the dict, and keeps the one it is in.

# %% tags=["solution-only"]
who = [{f"rank {r}": model for model, g in one.items() for r in g} for one in plan(6, 4)]
pd.DataFrame(who, index=[f"round {k + 1}" for k in range(len(who))]).map("model {}".format)

# %% [markdown]
# ## 42.2 · Average opinions that lie on different ranks
#
# *Difficulty 2 of 5 · 15 minutes · goal: one `all_reduce` of 4 × samples + 1 numbers, however many members there are*
#
# In the lesson all predictions were gathered on all ranks. With eight members that is nothing. With hundreds of them, and millions of samples, it is too much, and an ensemble only needs two numbers of each answer: the mean of what the members say, and how far they are apart.
#
# Ranks have unequally many members, or none. **Which sums are enough for a mean and for a standard deviation, and which mean would weigh the members unequally?** (The exercises of lesson 41 warn of the mean of the squares less the square of the mean. Here members disagree by about a hundredth of what they say, or not at all, and float64 has 16 digits.)


# %%
def ensemble_mean(said: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Average what the members on all ranks say. Called on all ranks.

    A rank calls one all_reduce, of 4 · samples + 1 numbers at most, and nothing else.

    Args:
        said: What this rank's members say: float32 of shape (members, samples, 2). Ranks may have
            unequally many members, and some none; there is at least one in all. It must not be
            changed.

    Returns:
        Two float64 tensors of shape (samples, 2), the same on all ranks: the mean over all members
        of all ranks, and their standard deviation (population: divided by their number). Where
        all of them say the same it is 0.
    """
    # BEGIN SOLUTION
    said = said.double()
    count = torch.tensor([len(said)], dtype=torch.float64)
    sums = torch.stack([said.sum(dim=0), said.square().sum(dim=0)])
    everything = torch.cat([sums.flatten(), count])
    dist.all_reduce(everything)
    mean, square = (everything[:-1] / everything[-1]).view_as(sums)
    return mean, (square - mean.square()).clamp(min=0).sqrt()
    # END SOLUTION


# %%
check.ensemble_mean(ensemble_mean)

# %% [markdown] tags=["solution"]
# Sums can be added over ranks; means and standard deviations cannot. A rank without members adds zeros, and its count of 0. Rounding may leave a square a little below zero where all say the same, and its root would be NaN: hence the `clamp`.
#
# What is the spread good for? Where members disagree, one may doubt all of them: the paper on deep ensembles that the lesson names is about that.

# %% [markdown]
# ## 42.3 · Bags that do not ask who draws them
#
# *Difficulty 3 of 5 · 15 minutes · goal: the same bags on 1, 2, 3 and 4 ranks, and nothing is sent*
#
# On Monday you train an ensemble on four ranks, on Tuesday on two. The seed is the same, so should the forecast be. It is not, if the ranks throw dice for one member after the other: member 2 gets the third throw of rank 0 on one rank, the second on two ranks, and the first of rank 2 on four. Nor is it if all members use the dice that PyTorch draws weights from.
#
# So each member needs dice of its own, made of the seed and its number. **Why is `seed + member` not good enough, if somebody repeats the experiment with the next seed? And the lesson's `100 * seed + member`?**


# %%
def my_bags(seed: int, members: int, blocks: int) -> dict[int, torch.Tensor]:
    """Draw the bags of this rank's members. Called on all ranks, with the same arguments.

    Rank r of N has the members r, r + N, r + 2N, …, or none. Nothing is sent.

    Args:
        seed: That of the ensemble, 0 or more.
        members: How many there are on all ranks together; there may be hundreds.
        blocks: How many blocks of days there are, numbered from 0; at least 2.

    Returns:
        Member → its bag: blocks // 2 different blocks, drawn at random, int64 in rising order.
        A bag depends on the arguments and on the member, and on nothing else. Other members have
        other bags, and no bag comes back with another seed, as far as there are enough of them. The
        global random states of torch, numpy and Python are neither read nor changed.
    """
    # BEGIN SOLUTION
    bags = {}
    for member in range(dist.get_rank(), members, dist.get_world_size()):
        order = np.random.default_rng([seed, member]).permutation(blocks)
        bags[member] = torch.tensor(order[: blocks // 2]).sort().values
    return bags
    # END SOLUTION


# %%
check.my_bags(my_bags)

# %% [markdown] tags=["solution"]
# `seed + member` gives member 1 of seed 0 the bag of member 0 of seed 1: two ensembles that are thought independent share all but one of their members. With 100 × seed the same begins at the hundredth member. NumPy takes several numbers for a seed and mixes them; in PyTorch one would write `1_000_000 * seed + member`, and hope.
