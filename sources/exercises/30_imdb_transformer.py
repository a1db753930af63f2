# %% [markdown]
# # Exercises for lesson 30: a transformer that reads reviews
#
# Complete each function, run its cell, then run the check below it.

# %%
import torch
import torch.distributed as dist

from course_lib.checks import lesson_30 as check

# %% [markdown]
# ## 30.1 · Pad and mask right
#
# *Difficulty 3 of 5 · 15 minutes · goal: a review gets the same vectors to 1e-6, whichever rank it is on and whoever shares its table*
#
# A table is as wide as the longest review **on its rank**, so whoever deals the reviews decides how much padding each of them gets. Make sure that nobody can tell. Write the
# two functions between which padding lives: the one that fills up, and the one that does not listen.
#
# The check deals ten reviews in different ways to 2 and 3 ranks. One review is empty (somebody sent in nothing but a line break), and one share has no reviews at all. It also writes
# large numbers into the padded places, and looks at the gradients. What is the softmax of a row in which *every* score is minus infinity?


# %%
def collate(reviews: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put reviews of unequal length into one table.

    Args:
        reviews: Token ids, from 1; they are not to be changed. A review may be empty, and so may
            the list.

    Returns:
        ``ids``, int64 of shape (texts, longest): each row is a review, filled up with 0 at its end.
        ``real``, bool of the same shape: True where there is a token. Without reviews both have the
        shape (0, 0).
    """
    # BEGIN SOLUTION
    longest = max(map(len, reviews), default=0)
    ids = torch.zeros(len(reviews), longest, dtype=torch.int64)
    for row, review in zip(ids, reviews, strict=True):
        row[: len(review)] = torch.tensor(review)
    return ids, ids != 0
    # END SOLUTION


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Let tokens listen to the real tokens of their text, and to no others.

    Args:
        query: float32 of shape (texts, heads, tokens, size). In padded places there may be any
            finite numbers. The same is true of key and value.
        key: In the same shape.
        value: In the same shape.
        real: bool of shape (texts, tokens): True where there is a token.

    Returns:
        In the shape of value: ``softmax(query · key / sqrt(size))``, over the real keys, times the
        values. Zeros for a text that is all padding. Nothing in it is NaN, nor in the gradients,
        and padded keys and values get gradients of exactly 0.
    """
    # BEGIN SOLUTION
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    padded = ~real[:, None, None, :]
    weights = scores.masked_fill(padded, float("-inf")).softmax(dim=-1)
    return weights.masked_fill(padded, 0.0) @ value
    # END SOLUTION


# %%
check.pad_and_mask(collate, attention)

# %% [markdown] tags=["solution"]
# The scores are masked before the softmax, so that the shares of the real tokens add up to one. In a text without tokens the softmax divides 0 by 0; the second `masked_fill` puts zeros in the place of NaN,
# *before* the values are multiplied. Afterwards would be too late for the gradients: in backward the values are multiplied by the same shares, and NaN times 0 is NaN.
# In a run with DDP a single NaN from one rank's empty review would be in the weights of all ranks one step later.

# %% [markdown]
# ## 30.2 · F1 from counts
#
# *Difficulty 2 of 5 · 10 minutes · goal: one all_reduce, of three numbers*
#
# Each rank has its own part of the answers. F1 over all of them is 2·TP ÷ (2·TP + FP + FN), where TP are positive reviews called positive, FP negative ones called positive, and FN positive ones called
# negative. The parts are of unequal size; a rank may have none, and there may be no positive review on any rank.


# %%
def f1_over_ranks(predicted: torch.Tensor, actual: torch.Tensor) -> float:
    """F1 of the class 1, over the answers of all ranks. Called on all ranks.

    Args:
        predicted: What this rank's reviews were taken for, 0 or 1; int64 of shape (n,). n may
            differ between ranks and be 0.
        actual: What they are, in the same shape.

    Returns:
        A plain float, the same on every rank, exact up to float64. 0.0 where no review is positive
        and none was called so.
    """
    # BEGIN SOLUTION
    called, are = predicted == 1, actual == 1
    counts = torch.stack([(called & are).sum(), (called & ~are).sum(), (~called & are).sum()])
    dist.all_reduce(counts)
    hits, false_alarms, missed = counts.tolist()
    return 2 * hits / max(2 * hits + false_alarms + missed, 1)
    # END SOLUTION


# %%
check.f1_over_ranks(f1_over_ranks)

# %% [markdown] tags=["solution"]
# Counts can be added, F1s cannot: a mean of the ranks' F1s would weigh a rank with one review like one with thousands, and a rank without positive reviews has none to give. So it is with every number
# that is a ratio of sums: reduce the sums, divide once.
