# %% [markdown]
# # Exercises for lesson 50: network traffic
#
# Complete each function, run its cell, then run the check below it.

# %%
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from course_lib.checks import lesson_50 as check
from course_lib.data import unsw_nb15

# %% [markdown]
# ## 50.1 · Mean and covariance over ranks
#
# *Difficulty 3 of 5 · 20 minutes · goal: each covariance to 1e-9 of its two standard deviations' product, also of times since 1970, in at most 3 calls whose size does not depend on the rows*
#
# The lesson's `moments` are exact for features about 0. Given the columns below as they are, they would lose the digits that matter: the start of a flow is a number of ten digits, and differs from the others' in the last few. **How many digits has the square of the first number? How many does float64 keep?**

# %%
raw = unsw_nb15.load_raw(rows=20_000).frame
raw = raw.assign(stime=raw["stime"].astype("int64"))[["stime", "dur", "sbytes", "spkts"]]
raw.agg(["min", "mean", "std", "max"]).map("{:,.2f}".format)

# %% [markdown]
# Write a function that loses nothing, whatever the columns' means. Something has to be subtracted from the rows before they are multiplied, and all ranks have to subtract the same. Who says what it is? A rank may have no rows, rank 0 too. One small call or two may go before the one that adds up the products.


# %%
def mean_and_covariance(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance over the rows of all ranks. Called on all ranks.

    Args:
        x: This rank's rows × features, float32 or float64, unchanged afterwards. A rank may have no
            rows; all ranks have the same features, one at least, and two rows at least in all.

    Returns:
        Both float64, on every rank:

        - the mean of each feature, shape (features,), within 1e-12 of the largest number there;
        - the covariance, shape (features, features), with n − 1 in the denominator, within 1e-9 of
          the product of the two standard deviations.

        At most three collectives are called, and no more than features² + 3·features + 2 numbers
        reach a rank.
    """
    # BEGIN SOLUTION
    x = x.double()
    sums = torch.cat([x.new_tensor([len(x)]), x.sum(dim=0)])
    dist.all_reduce(sums)
    n, mean = sums[0], sums[1:] / sums[0]
    away = x - mean  # a new tensor: x stays as it is
    products = away.T @ away
    dist.all_reduce(products)
    return mean, products / (n - 1)
    # END SOLUTION


# %%
check.mean_and_covariance(mean_and_covariance)

# %% [markdown] tags=["solution"]
# What could be nearer to all rows than their mean? It takes one small `all_reduce`, and then there is nothing left to take off from the products. A rank without rows adds zeros to both, and needs no `if`.
#
# It reads the rows twice. If they can be read only once, any *one* row will do, if all ranks take the same (the first one of the first rank that has rows; or the largest value of each column, by `all_reduce(…, op=dist.ReduceOp.MAX)`): no row is further than √n standard deviations from the mean, and with a few thousand rows that costs three or four of 16 digits at most. Then the sum of products is about the wrong point, and n·m·mᵀ has to be taken off, with the mean m of what is left of the rows.

# %% [markdown]
# ## 50.2 · A split that shares no flow
#
# *Difficulty 2 of 5 · 15 minutes · goal: no flow on both sides, and half of each kind on each, within one row*
#
# Three steps, and one order of them is right: deal the rows to two sides, see to it that each side gets half of each kind, throw repeats away. In the lesson a dictionary scored because somebody had left out the last, or done it too late. **What goes wrong in each of the other orders?**
#
# A flow can be there under two kinds: someone attacks with what is normal elsewhere. Is that a repeat?


# %%
def split_without_twins(
    features: pd.DataFrame, kind: pd.Series, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divide flows into a training and a test part that share none.

    Args:
        features: Of each flow, without its kind; texts and numbers. They must not be changed.
        kind: "Normal", or the kind of attack; in the order of the features.
        seed: Decides who goes where. The same one gives the same split.

    Returns:
        Positions (as for `.iloc`) to train and to test, in any order. Of rows with equal features
        the first stays, whatever the others' kinds, and the others are in neither part. Of the rows
        that stay, half of each kind is in each part, or one more in one of them. A kind with one
        row is for training.
    """
    # BEGIN SOLUTION
    stay = np.flatnonzero(~features.duplicated())
    stay = np.random.default_rng(seed).permutation(stay)
    kinds = kind.iloc[stay].to_numpy()
    turn = pd.Series(kinds).groupby(kinds).cumcount().to_numpy()  # 0, 1, 2, … within each kind
    return stay[turn % 2 == 0], stay[turn % 2 == 1]
    # END SOLUTION


# %%
check.split_without_twins(split_without_twins)

# %% [markdown] tags=["solution"]
# As one deals cards: throw the repeats out, shuffle, and then every second one of a kind goes to the test. The first of each kind is for training, so a kind with one row is, too.
#
# Whoever divides first and looks for repeats in each part finds none of those that lie across. Whoever has dealt half of each kind before the repeats go has halves of something that is not there any more: the kinds lose unequally many. And with the kind among the columns, a flow that is there as an attack and as normal is no repeat; the model has seen it, and learnt the opposite.

# %% tags=["solution-only"]
flows = unsw_nb15.load().frame.drop(columns=["id", "split"])
features, kind = flows.drop(columns=["attack_cat", "label"]), flows["attack_cat"]
train, test = split_without_twins(features, kind, seed=0)
sides = {"all rows": kind, "training": kind.iloc[train], "test": kind.iloc[test]}
pd.DataFrame({side: rows.value_counts() for side, rows in sides.items()}).fillna(0).astype(int)
