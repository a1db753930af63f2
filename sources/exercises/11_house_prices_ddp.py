# %% [markdown]
# # Exercises for lesson 11: house prices on several ranks
#
# Complete each function, run its cell, then run the check below it.

# %%
import torch
import torch.distributed as dist

from course_lib.checks import lesson_11 as check

# %% [markdown]
# ## 11.1 · The exact RMSE
#
# *Difficulty 2 of 5 · 10 minutes · goal: the same number for any world size, to nine digits*
#
# The test rows are divided among the ranks, not always evenly: with 3 rows on 4 ranks one rank holds none at all. Your
# function is called on every rank, inside a process group, with that rank's part. All ranks are to return the RMSE of
# *all* rows. Sums of squared dollars are large numbers; mind the type you add them in.


# %%
def exact_rmse(predicted: torch.Tensor, actual: torch.Tensor) -> float:
    """Root mean squared error over the rows of all ranks. Called inside a process group.

    Args:
        predicted: This rank's predictions in dollars, float32, shape (rows of this rank,).
        actual: The true prices of the same rows, same shape.

    Returns:
        The RMSE over all ranks' rows in dollars, the same on every rank.
    """
    # BEGIN SOLUTION
    squared = (predicted - actual).double().square().sum()
    sums = torch.stack([squared, squared.new_tensor(len(actual))])
    dist.all_reduce(sums)
    return (sums[0] / sums[1]).sqrt().item()
    # END SOLUTION


# %%
check.exact_rmse(exact_rmse)

# %% [markdown]
# ## 11.2 · Counted twice
#
# *Difficulty 2 of 5 · 10 minutes*
#
# `DistributedSampler` gives every rank equally many rows. If the rows do not divide, it deals some of them out a second
# time. In training that does no harm worth mentioning; in an evaluation those rows count twice. Which rows are they,
# when nothing is shuffled? For 10 rows on 4 ranks, each rank gets 3, and `[0, 1]` are dealt again.


# %%
def counted_twice(rows: int, world_size: int) -> list[int]:
    """Name the rows that `DistributedSampler(..., shuffle=False)` deals out once more.

    Args:
        rows: Number of rows, at least 1. They are numbered from 0.
        world_size: Number of ranks, at least 1.

    Returns:
        The extra rows. A row that is dealt three times stands here twice.
    """
    # BEGIN SOLUTION
    missing = -rows % world_size
    return [i % rows for i in range(missing)]
    # END SOLUTION


# %%
check.counted_twice(counted_twice)

# %% [markdown]
# ## 11.3 · The rate when the batch grows
#
# *Difficulty 2 of 5 · 10 minutes*
#
# In the lesson, more ranks meant smaller parts of the same global batch. The other way is to let every rank keep its
# batch: N ranks then make a step on N times as many rows, and N times fewer steps an epoch. A common rule
# ([Goyal et al., 2017](https://arxiv.org/abs/1706.02677)) makes up for it: multiply the learning rate by N, but not at
# once. The first steps start at the rate of one rank and rise, in a straight line, until the **warm-up** is over.


# %%
def rate_at(step: int, rate: float, world_size: int, warmup: int) -> float:
    """Learning rate of a step under linear scaling with linear warm-up.

    Args:
        step: Number of the step, from 0.
        rate: The rate that suits one rank.
        world_size: Number of ranks, each with a batch as large as one rank's.
        warmup: Length of the warm-up in steps; 0 for none.

    Returns:
        The rate: `rate` at step 0, `world_size * rate` from step `warmup` on (without a warm-up: at once).
    """
    # BEGIN SOLUTION
    share = min(step / warmup, 1.0) if warmup else 1.0
    return rate * (1 + (world_size - 1) * share)
    # END SOLUTION


# %%
check.rate_at(rate_at)

# %% [markdown] tags=["solution"]
# The rule is a rule of thumb: it was found with SGD on images. For Adam many scale with the square root of N, and
# every such rule breaks down for batches that are large enough. Lesson 23 measures where.
