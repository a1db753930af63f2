# %% [markdown]
# # Exercises for lesson 21: deeper networks, better measured
#
# Complete each function, run its cell, then run the check below it.

# %%
import torch
import torch.distributed as dist

from course_lib.checks import lesson_21 as check

# %% [markdown]
# ## 21.1 · BatchNorm over all ranks
#
# *Difficulty 3 of 5 · 20 minutes · goal: one all_reduce, of 2C + 1 numbers for C channels*
#
# BatchNorm subtracts each channel's mean and divides by its spread, both over the pictures of the batch. On N ranks that is the batch of *one rank*. Where
# a rank has few pictures, as with large ones it must, the two are little more than noise. Write the forward pass of a BatchNorm
# that uses the pictures of all ranks, whose numbers need not be equal.
#
# Mind two things. The mean of means is not the mean. And the variance, as the mean of squares minus the square of the mean, is a small difference of
# large numbers where the mean is large: which type do you add in?


# %%
def normalise_over_ranks(x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """Normalise each channel by its mean and variance over the batch of all ranks together.

    Called on all ranks, without gradients.

    Args:
        x: This rank's activations, float32 of shape (n, channels, height, width). n may differ
            between ranks and be 0, but not on all of them.
        eps: Added to the variance before its root is taken.

    Returns:
        ``(x - mean) / sqrt(variance + eps)``, float32, in the shape of ``x``. The variance is
        the mean squared distance from the mean (``correction=0``). ``x`` itself is not changed.
    """
    # BEGIN SOLUTION
    exact = x.double()
    count = exact.new_tensor([x.numel() / x.shape[1]])
    sums = torch.cat([exact.sum(dim=(0, 2, 3)), exact.square().sum(dim=(0, 2, 3)), count])
    dist.all_reduce(sums)
    mean, square = (sums[:-1] / sums[-1]).chunk(2)
    variance = square - mean.square()
    mean, variance = mean[:, None, None], variance[:, None, None]
    return ((exact - mean) / (variance + eps).sqrt()).float()
    # END SOLUTION


# %%
check.normalise_over_ranks(normalise_over_ranks)

# %% [markdown] tags=["solution"]
# Sums, sums of squares and the count travel in one message, and each rank divides once. `nn.SyncBatchNorm` does the same on GPUs, and a second
# all_reduce in backward, because every picture's gradient now depends on all ranks' pictures.

# %% [markdown]
# ## 21.2 · What is taken for what?
#
# *Difficulty 2 of 5 · 15 minutes · goal: one all_reduce, of C × C whole numbers for C classes*
#
# One number, the accuracy, says how often a network errs. A confusion matrix says how. Each rank has the answers for its own part of the
# test pictures; find the two confusions that happen most over all of them.


# %%
def worst_confusions(
    predicted: torch.Tensor, actual: torch.Tensor, classes: int
) -> list[tuple[int, int, int]]:
    """The two most frequent confusions, over the pictures of all ranks. Called on all ranks.

    Args:
        predicted: The classes this rank's pictures were taken for, int64 of shape (n,); n may
            differ between ranks and be 0.
        actual: The classes they have, in the same shape.
        classes: The number of classes, at least 2.

    Returns:
        Two triples ``(actual, predicted, count)`` with ``actual != predicted``, the more frequent
        one first; of equally frequent ones, that with the smaller ``actual`` comes first, then that
        with the smaller ``predicted``. Plain ints, the same on every rank.
    """
    # BEGIN SOLUTION
    cells = classes * actual + predicted
    counts = torch.bincount(cells, minlength=classes**2).reshape(classes, classes)
    dist.all_reduce(counts)
    mistakes = [(a, p, int(counts[a, p])) for a in range(classes) for p in range(classes) if a != p]
    return sorted(mistakes, key=lambda mistake: -mistake[2])[:2]
    # END SOLUTION


# %%
check.worst_confusions(worst_confusions)

# %% [markdown] tags=["solution"]
# Counts add up exactly, whatever the parts. The two worst of each rank would not do: what is third on every rank may be first in sum.
# `sorted` keeps the order of equals, so the loops' order settles the ties.
