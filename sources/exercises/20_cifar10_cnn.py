# %% [markdown]
# # Exercises for lesson 20: a simple network for pictures
#
# Complete each function, run its cell, then run the check below it.

# %%
import torch
import torch.distributed as dist

from course_lib.checks import lesson_20 as check

# %% [markdown]
# ## 20.1 · The same flips for any number of ranks
#
# *Difficulty 3 of 5 · 15 minutes · goal: a picture is flipped in an epoch or it is not, whoever deals it*
#
# In the lesson each rank has dice of its own. That has a price: on 2 ranks other pictures are flipped than on 4, so two runs that differ in
# nothing but the number of ranks cannot be compared step by step. And a run that is interrupted cannot go on in the middle of an epoch without knowing how often its dice have
# been thrown. Let the decision depend on the **picture and the epoch** only. How can a rank know what it would have thrown for pictures that other
# ranks have?


# %%
def flipped(rows: torch.Tensor, pictures: int, epoch: int, seed: int) -> torch.Tensor:
    """Decide which pictures are flipped in an epoch.

    Args:
        rows: The numbers of the pictures in this rank's batch, int64 of shape (n,), in any order,
            each from 0 to ``pictures - 1``.
        pictures: How many training pictures there are in all.
        epoch: The epoch, from 0.
        seed: The seed of the run.

    Returns:
        A bool tensor of shape (n,). For the same picture, epoch and seed it is always the same,
        whatever else is in the batch. Over all pictures about half are True, as if coins were
        thrown: without a pattern, and anew in each epoch and for each seed. torch's global dice
        are left alone.
    """
    # BEGIN SOLUTION
    dice = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    return torch.rand(pictures, generator=dice)[rows] < 0.5
    # END SOLUTION


# %%
check.flipped(flipped)

# %% [markdown] tags=["solution"]
# Every rank throws for *all* pictures, with the same dice, and looks up its own. Fifty thousand throws take less than a millisecond. The seed and the epoch
# are put into one number so that neighbours do not meet: with `seed + epoch`, seed 0 in epoch 1 would flip what seed 1 flips in epoch 0.

# %% [markdown]
# ## 20.2 · A test set that does not divide
#
# *Difficulty 2 of 5 · 15 minutes · goal: one all_reduce, and every picture counted once*
#
# Somebody has evaluated with `DistributedSampler(shuffle=False)`, as many programs do. Rank r of N was dealt pictures r, r + N, r + 2N and so on;
# where the pictures did not divide, the sampler began again from picture 0, so that all ranks had equally many. Each rank knows which of its answers were right.
# Compute the accuracy over the pictures there really are.


# %%
def exact_accuracy(right: torch.Tensor, pictures: int) -> float:
    """The share of right answers, every picture counted once. Called on all ranks.

    Args:
        right: For each picture this rank was dealt, in the order dealt, whether its answer was
            right; bool of shape (n,), with the same n on every rank.
        pictures: How many different pictures there are, at least 1.

    Returns:
        Right answers divided by pictures, the same on every rank, exact up to float64.
    """
    # BEGIN SOLUTION
    dealt = dist.get_rank() + dist.get_world_size() * torch.arange(len(right))
    count = right[dealt < pictures].sum()
    dist.all_reduce(count)
    return count.item() / pictures
    # END SOLUTION


# %%
check.exact_accuracy(exact_accuracy)

# %% [markdown] tags=["solution"]
# The k-th picture of rank r has the number r + kN; from `pictures` on, the sampler has begun again. The number of pictures is known to all, so only one
# number need travel. (With a single picture on four ranks, three ranks count nothing at all.)
