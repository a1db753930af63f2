# %% [markdown]
# # Exercises for lesson 00: start here
#
# Complete each function, run its cell, then run the check below it. A check that says `✗` tells you what it
# saw; change the function and run both cells again. Nothing you write here can leave a process behind.

# %%
import os

from course_lib.checks import lesson_00 as check

# %% [markdown]
# ## 0.1 · Roll call
#
# *Difficulty 1 of 5 · 5 minutes · goal: one line from each rank, in rank order*
#
# What ranks print comes in any order. What they return does not. Write the function that every rank runs, so
# that `launch(roll_call, nprocs=3)` gives `['rank 0 of 3', 'rank 1 of 3', 'rank 2 of 3']`, for any number
# of ranks.


# %%
def roll_call() -> str:
    """Say who this rank is.

    Returns:
        The text "rank r of N": r is this rank's number, N is the world size.
    """
    # BEGIN SOLUTION
    return f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}"
    # END SOLUTION


# %%
check.roll_call(roll_call)

# %% [markdown]
# ## 0.2 · Divide the work
#
# *Difficulty 2 of 5 · 10 minutes · goal: every index exactly once, sizes differ by at most one*
#
# Four ranks are to work through a list of `n` items together. They cannot talk to each other yet, and need
# not: knowing its own number and the world size, each can say which items are its own. Take care of an
# `n` that does not divide by the number of ranks, and of fewer items than ranks.
#
# For 10 items, three ranks might hold `[0, 3, 6, 9]`, `[1, 4, 7]` and `[2, 5, 8]`. Other divisions are right too.


# %%
def my_share(n: int) -> list[int]:
    """Choose this rank's part of the work.

    Args:
        n: Number of items, 0 or more. The items are numbered 0 to n - 1.

    Returns:
        The numbers of the items that belong to this rank.
    """
    # BEGIN SOLUTION
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return list(range(rank, n, world_size))
    # END SOLUTION


# %%
check.my_share(my_share)

# %% [markdown] tags=["solution"]
# Dealing out like cards, `range(rank, n, world_size)`, needs no case for the remainder: whoever comes first in
# the round gets one item more. Shares are contiguous in another right answer: rank `r` takes the indices from
# `r * n // N` up to `(r + 1) * n // N`.
