# %% [markdown]
# # Exercises for lesson 40: stock prices, the data
#
# Complete each function, run its cell, then run the check below it.

# %%
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from course_lib.checks import lesson_40 as check
from course_lib.data import stocks

# %% [markdown]
# ## 40.1 · Find and remove the look-aheads
#
# *Difficulty 2 of 5 · 15 minutes · goal: a change of the future changes no day before it, gaps or not*
#
# Somebody hands you six features of a share. They go into a model that guesses, at the close of a day, what comes next. Read them before you run the cell below: **which of the six may be used as they are?**


# %%
def features(table: pd.DataFrame) -> pd.DataFrame:
    price = table["close"].interpolate().bfill()
    change = np.log(price).diff()
    volume, month = table["volume"], table.index.to_period("M")
    return pd.DataFrame(
        {
            "return": change,
            "volatility": change.rolling(20).std(),
            "trend": price / price.rolling(20, center=True).mean() - 1,
            "z": (price - price.mean()) / price.std(),
            "volume": volume / volume.groupby(month).transform("mean"),
            "night": np.log(table["open"].shift(-1) / price),
        }
    )


tables = stocks.load(start="2014-10-17", end="2023-10-17").tables  # as in the lesson
table = tables.get("AAPL", next(iter(tables.values())))
tomorrow = np.log(table["close"]).diff().shift(-1)
features(table).corrwith(tomorrow).to_frame("correlation with tomorrow's return").round(3)

# %% [markdown]
# Two of them foretell tomorrow far too well. (Others look ahead, too, and gain nothing by it here: do not expect a leak to show in a correlation.) Write the six columns so that they look back only.
#
# The check makes up a year of prices, once without gaps and once with: the share comes to the exchange late, and there are days without a row. It changes the future, cuts it off, fills a gap that was there, and compares every number.


# %%
def honest_features(table: pd.DataFrame) -> pd.DataFrame:
    """Compute six features of each day from what is known at its close.

    Args:
        table: Days × ``open``, ``high``, ``low``, ``close`` and ``volume``. On a day without
            trade all five are NaN; so are they before the share came to the exchange. The index
            holds the days. It must not be changed.

    Returns:
        Six columns with the index of ``table``. A day's *price* is its close, or the last close
        before it where it has none. The numbers that need 20 days are NaN on earlier ones.

        - ``return``: logarithm of the price over the price of the day before;
        - ``volatility``: standard deviation of the last 20 returns, today's with them;
        - ``trend``: the price over the mean of the last 20 prices, today's with them, less 1;
        - ``z``: the price less the mean of all prices up to and with today, over their standard
          deviation; from the 20th price on;
        - ``volume``: the volume over its mean of this month's days up to and with today; NaN on a
          day without trade;
        - ``night``: logarithm of today's open over the price of the day before; NaN on a day
          without trade.

        Standard deviations are those of pandas, which divide by n - 1.
    """
    # BEGIN SOLUTION
    price = table["close"].ffill()
    change = np.log(price).diff()
    volume, month = table["volume"], table.index.to_period("M")
    this_month = volume.groupby(month).transform(lambda days: days.expanding().mean())
    so_far = price.expanding(20)
    return pd.DataFrame(
        {
            "return": change,
            "volatility": change.rolling(20).std(),
            "trend": price / price.rolling(20).mean() - 1,
            "z": (price - so_far.mean()) / so_far.std(),
            "volume": volume / this_month,
            "night": np.log(table["open"] / price.shift()),
        }
    )
    # END SOLUTION


# %%
check.honest_features(honest_features)

# %% [markdown] tags=["solution"]
# Four columns looked ahead: `trend` by nine days, `night` by one, `volume` to the end of the month, `z` to the end of the table. And the first line made it six: it drew a straight line over each gap to a price that was not there yet, and filled what
# came before the first day from behind. A share without gaps would never have shown it.
#
# Each cure is the same word in another place: *so far*. `expanding` instead of all, `ffill` instead of `bfill`, and `shift()` instead of `shift(-1)`.

# %% tags=["solution-only"]
both = {"somebody's": features(table), "honest": honest_features(table)}
pd.DataFrame({who: x.corrwith(tomorrow) for who, x in both.items()}).round(3)

# %% [markdown]
# ## 40.2 · A split that knows when answers are known
#
# *Difficulty 3 of 5 · 15 minutes · goal: no answer from the days it is judged on, and not a sample less than that*
#
# A purge gap of 22 days is safe where no answer takes longer. But answers may differ: "how much in 5 days?", "when does it first lose 10 %?" A gap as long as the longest of them throws away samples whose answers have long been known; a shorter one leaks. So let every sample say
# when its answer is known, and drop those that come too late, and no others.
#
# Who learns, who chooses and who is judged do so in this order: a model learns *before* the first day of validation, it is chosen *before* the first day of the test, and what it says of a test day may be
# judged whenever the answer comes.


# %%
def purged_split(
    made: np.ndarray, answered: np.ndarray, first_valid: int, first_test: int, last_test: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide samples by what is known when.

    Days are numbered from 0. The validation part is the days from ``first_valid`` to the one before
    ``first_test``, the test part those from ``first_test`` to ``last_test``, that day included.

    Args:
        made: The day each sample is made on, int64 of shape (samples,), in any order. Several
            samples may have the same day, and a day may have none.
        answered: The day its answer is known, after the one it is made on, in the same shape.
        first_valid: The first day to choose on.
        first_test: The first day to be judged on, after ``first_valid``.
        last_test: The last day to be judged on.

    Returns:
        Three arrays of positions in ``made``, each in any order:

        - to fit: all samples whose answer is known before the validation part begins;
        - to validate: all that are made in the validation part and answered before the test part
          begins;
        - to test: all that are made in the test part.

        A part may be empty.
    """
    # BEGIN SOLUTION
    fit = answered < first_valid
    valid = (made >= first_valid) & (answered < first_test)
    test = (made >= first_test) & (made <= last_test)
    return np.flatnonzero(fit), np.flatnonzero(valid), np.flatnonzero(test)
    # END SOLUTION


# %%
check.purged_split(purged_split)

# %% [markdown] tags=["solution"]
# Two comparisons a part, and none of them needs to know how long answers take. What learns looks at the day of the *answer*, what is judged at the day of the *question*. An answer that comes on the first day of validation comes too late: the model is made before that day.

# %% [markdown]
# ## 40.3 · Deal windows, not tickers
#
# *Difficulty 3 of 5 · 20 minutes · goal: as many windows on each rank, give or take one, in at most tickers + ranks − 1 pieces, and no byte copied*
#
# In the lesson rank r has every N-th ticker. A share that came to the exchange last year has fewer windows than one with nine years of prices, and three tickers do not divide by two; so some ranks are done early, and wait. Deal the *windows* instead. But leave each rank
# long stretches: if it had every N-th window, it would need all days of all tickers, and one that has a stretch needs the days of the stretch, and `length - 1` more.
#
# Every rank works its share out for itself, and nothing is sent. Where does the share of rank r begin, if one counts the windows of all tickers from first to last?


# %%
def my_windows(tables: Sequence[torch.Tensor], length: int) -> list[torch.Tensor]:
    """Return this rank's share of the windows of all tickers. Called on all ranks.

    Args:
        tables: One of each ticker, the same ones on all ranks: days × features, of unequally many
            days. A table that is shorter than a window has none.
        length: Days of a window.

    Returns:
        Pieces, each in the shape (windows, features, length), at least one window long. A piece is
        a stretch of windows of one ticker, each a day later than the one before, and a view into
        its table. Every window is in one piece of one rank; ranks differ by one window at most, and
        all of them together have at most tickers + ranks - 1 pieces. The list of a rank that has no
        windows is empty.
    """
    # BEGIN SOLUTION
    rank, ranks = dist.get_rank(), dist.get_world_size()
    counts = [max(len(table) - length + 1, 0) for table in tables]
    first, last = (sum(counts) * r // ranks for r in (rank, rank + 1))  # of the windows in a row
    pieces, before = [], 0
    for table, count in zip(tables, counts, strict=True):
        start, stop = max(first - before, 0), min(last - before, count)
        if start < stop:
            pieces.append(table.unfold(0, length, 1)[start:stop])
        before += count
    return pieces
    # END SOLUTION


# %%
check.my_windows(my_windows)

# %% [markdown] tags=["solution"]
# All windows stand in a row, ticker after ticker; rank r of N has those from r/N to (r + 1)/N of it. Each border between two ranks cuts at most one ticker in two, which makes tickers + ranks − 1 pieces. Neither `unfold` nor a slice with a step of 1 copies anything; an index such as
# `windows[[3, 4, 5]]`, `stack` or `cat` does.
#
# In lesson 41 equal shares matter more than here: DDP waits for the slowest rank in every step.
