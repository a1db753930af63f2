# %% [markdown]
# # Exercises for lesson 41: stock prices, a forecast
#
# Complete each function, run its cell, then run the check below it.

# %%
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from course_lib import launch, process_group
from course_lib.checks import lesson_41 as check
from course_lib.data import stocks

# %% [markdown]
# ## 41.1 · One scale, from the past of all ranks
#
# *Difficulty 2 of 5 · 20 minutes · goal: two small collectives, and six digits of a spread that is a millionth of its mean*
#
# In the lesson a ticker without a day to fit had no scale, and dropped out. Give all tickers *one* scale for each feature, and a newcomer can take part. Now the tickers lie on different ranks, unequally many, perhaps none. They have gaps, and there are days that
# nobody may look at yet.
#
# The standard deviation is also the root of (the mean of the squares less the square of the mean), and then one `all_reduce` would do. **What becomes of that in float64 for numbers such as 4,000,000 and 4,000,005?** The check has some.


# %%
def past_scale(panel: torch.Tensor, fit: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute mean and spread of each feature from the past of all ranks. Called on all ranks.

    A rank calls two collectives at most, each with three numbers for each feature at most.

    Args:
        panel: This rank's tickers, perhaps none: float32 of shape (days, tickers, features), with
            NaN where there is a gap. It must not be changed.
        fit: The days that may be looked at, ``range(start, stop)``, the same on all ranks.

    Returns:
        Two float64 tensors of shape (features,), the same on all ranks: the mean of each feature
        over all days of ``fit`` and all tickers of all ranks, and the standard deviation
        (population: divided by the count). Each number that is there weighs the same. A feature
        without any has NaN for both.
    """
    # BEGIN SOLUTION
    past = panel[fit.start : fit.stop].double().flatten(0, 1)
    sums = torch.stack([past.nansum(dim=0), past.isfinite().sum(dim=0)])
    dist.all_reduce(sums)
    mean = sums[0] / sums[1]
    squares = (past - mean).square().nansum(dim=0)
    dist.all_reduce(squares)
    return mean, (squares / sums[1]).sqrt()
    # END SOLUTION


# %%
check.past_scale(past_scale)

# %% [markdown] tags=["solution"]
# A sum over no tickers is 0, and so is their count: the rank without any does what the others do. The square of 4,000,000 has 14 digits; float64 holds 16, so of a variance of a few units about three are left. Deviations from the mean are small, and so are their squares.
#
# One call is enough after all if each rank sends its count, its mean and its squares of deviations from *that* mean (`all_gather`), and all of them put the parts together. It takes a longer formula to save a call, once a fold.

# %% [markdown]
# ## 41.2 · Walk forward, fold by fold and rank by rank
#
# *Difficulty 3 of 5 · 25 minutes · goal: the number of one process to nine digits, each fold learnt once, one `all_reduce` of two numbers*
#
# A walk forward learns a new model in each fold, and no fold needs another one. So rank r of N takes every N-th: while one learns from four years, another learns from eight. Each fold is a matter of its own, its scale too: it is that of the days of `fit`, and the test days are scaled by it as well.
#
# What comes out is one number: the error of all test days over that of persistence, as in the lesson. Test parts may be of unequal length, and some years are wilder than others. **What has to be added up, and what must not be averaged?** And may `past_scale` from above be used here?


# %%
def walk_ratio(
    learn: Callable[[torch.Tensor, torch.Tensor], Callable[[torch.Tensor], torch.Tensor]],
    x: torch.Tensor,
    y: torch.Tensor,
    today: torch.Tensor,
    folds: Sequence[stocks.Fold],
) -> float:
    """Judge a forecast by a walk forward over ranks. Called on all ranks, with the same arguments.

    Rank r of N takes every N-th fold; it may have none. The ranks call one all_reduce, of two
    numbers, and nothing else.

    Args:
        learn: ``predict = learn(x, y)`` learns from inputs, (rows, features), and their answers,
            (rows,). Then ``predict(x)`` has a number for each row. It wants inputs with a mean of 0
            and a standard deviation (population) of 1, over the rows that it learns from.
        x: What is known at the end of each day: float64, (days, features). Not to be changed.
        y: The value of tomorrow, (days,), in a unit that ``learn`` takes as it is.
        today: The value of today, (days,): persistence says it for tomorrow.
        folds: At least one. Each has ``fit`` and ``test``, ranges of days. Nothing is chosen here,
            so the days of ``valid`` have no part.

    Returns:
        The sum of the absolute errors of the models over that of persistence, on all test days of
        all folds: a plain float, the same on every rank.
    """
    # BEGIN SOLUTION
    sums = torch.zeros(2, dtype=torch.float64)
    for fold in folds[dist.get_rank() :: dist.get_world_size()]:
        fit, test = (slice(part.start, part.stop) for part in (fold.fit, fold.test))
        mean, spread = x[fit].mean(dim=0), x[fit].std(dim=0, correction=0)
        predict = learn((x[fit] - mean) / spread, y[fit])
        sums[0] += (predict((x[test] - mean) / spread) - y[test]).abs().sum()
        sums[1] += (today[test] - y[test]).abs().sum()
    dist.all_reduce(sums)
    return (sums[0] / sums[1]).item()
    # END SOLUTION


# %%
check.walk_ratio(walk_ratio)

# %% [markdown] tags=["solution"]
# Two sums, and one division at the very end. A rank without a fold adds two zeros. `past_scale` would mix the days of two folds: while one rank is in the first, the other is in the second, and whoever has one fold more waits for ever.
#
# On real prices: the logarithm of tomorrow's range, from the mean range of the last day, week and month, by least squares.


# %% tags=["solution-only"]
def line(x: torch.Tensor, y: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    center = y.mean()  # the inputs have a mean of 0
    weights = torch.linalg.lstsq(x, (y - center)[:, None]).solution[:, 0]
    return lambda x: x @ weights + center


def walk_all(tables: dict[str, pd.DataFrame]) -> dict[str, float]:
    ratios = {}
    with process_group():
        for ticker, table in tables.items():
            ranges = np.log(np.log(table["high"] / table["low"]).clip(1e-4))
            known = {n: ranges.rolling(n).mean() for n in (1, 5, 22)}
            known = pd.DataFrame(known | {"tomorrow": ranges.shift(-1)}).dropna()
            x, y = torch.tensor(known.to_numpy()).split([3, 1], dim=1)
            folds = stocks.walk_forward(len(x), folds=5, test=126, valid=1, purge=22)
            ratios[ticker] = walk_ratio(line, x, y[:, 0], x[:, 0], folds)
    return ratios


tables = stocks.load(start="2014-10-17", end="2023-10-17").tables
whole = {ticker: table for ticker, table in tables.items() if len(table) > 1000}
few = dict(list(whole.items())[:6])
pd.Series(launch(walk_all, few, nprocs=3)[0], name="error ÷ persistence").to_frame().T.round(3)
