# %% [markdown]
# # Stock prices: only the past is known
#
# **You will learn**
# - to let every rank fetch its share of the data, and to put tables of unequal length on one calendar;
# - to compute indicators that look back only, to prove it, and to split time so that no choice sees the future;
# - to offer a model millions of overlapping windows without copying one of them.
#
# *About 40 minutes; the cells run for about half a minute. 2 processes on the CPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how large the forests are
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # for the forests; the split never moves
start_method: str = "auto"  # how launch starts ranks

# %%
import time

import numpy as np
import pandas as pd
import psutil
import torch
import torch.distributed as dist
from sklearn.ensemble import ExtraTreesRegressor

from course_lib import choose_preset, choose_world_size, launch, process_group
from course_lib.data import data_folder, stocks
from course_lib.plots import COLOURS, bars, figure, show, thousands

world_size, preset = choose_world_size(world_size), choose_preset(preset)
options = {"nprocs": world_size, "start_method": start_method, "device": "cpu"}

# %% [markdown]
# ## Every rank fetches its share
#
# Forty-eight large companies, nine years of daily prices. Fetching is waiting: for a name to be looked up, for Yahoo to answer. So we deal the tickers out, and the ranks wait at the same time. `stocks.fetch` asks for ten tickers a call, pauses in between, tries again later when
# it is told to slow down, and keeps what it gets: next time it asks only for the days that are missing. **What should happen if one ticker of 48 does not exist any more?**

# %%
span = {"start": "2014-10-17", "end": "2023-10-17"}  # the end is the day after the last
by_hand = [*(data_folder() / "stocks").glob("*.csv")]
lacking = [] if source == "synthetic" or by_hand else stocks.TICKERS


def fetch_share(tickers):
    with process_group() as pg:
        mine = stocks.fetch(tickers[pg.rank :: pg.world_size], **span)
        reports = [None] * pg.world_size
        dist.all_gather_object(reports, mine.missing)
        return {name: why for report in reports for name, why in report.items()}


if lacking:
    print(f"{len(launch(fetch_share, lacking, **options)[0])} tickers could not be had")
else:
    print("Nothing to fetch.")

# %% [markdown]
# It should be listed, and lose nobody else's prices: with many tickers something is often missing. Whoever has put files into the folder `stocks` by hand has chosen: `load` takes those, and nothing is fetched. Without any it takes what was fetched. It checks every row, and
# says what is not there. If there is no real price at all, it makes up a small market and says so.

# %%
data = stocks.load(source, **span)
tables, origin = data.tables, data.origin
name = "AAPL" if "AAPL" in tables else data.tickers[0]  # the one we look at more closely
tables[name].tail(3)

# %% [markdown]
# ## One calendar
#
# A company may have come to the exchange later than others, and on a holiday nobody has a row. Put side by side by date, the tables have gaps. What to put into a gap before a company's first day? Filling *backwards* is one word in pandas, `bfill`, and would give it a price
# that nobody could have known. **A gap stays a gap.**

# %%
close = pd.concat({ticker: table["close"] for ticker, table in tables.items()}, axis=1, sort=True)
gaps = close.isna().sum()
print(f"{close.shape[0]:,} trading days × {close.shape[1]} tickers, {gaps.sum():,} gaps")
for ticker, days in gaps[gaps > 0].items():
    print(
        f"  {ticker}: no price on {days:,} days, the first on {close[ticker].first_valid_index():%Y-%m-%d}"
    )

# %%
owned = pd.concat({t: table["adjusted"] for t, table in tables.items()}, axis=1, sort=True)
growth = owned / owned.bfill().iloc[0]  # here it does no harm: only to divide by the first price
last = growth.iloc[-1]
top, low = last.idxmax(), last.idxmin()
title = f"A dollar in {top} became ${last[top]:.2f}, in {low} ${last[low]:.2f}"
fig, ax = figure(title, xlabel="day", ylabel="value of a dollar (US dollars, log)", origin=origin)
ax.plot(growth.index, growth, color="#c3ccd6", linewidth=0.6)
for ticker, colour in zip((top, name, low), COLOURS, strict=False):
    ax.plot(growth.index, growth[ticker], color=colour, linewidth=1.6)
    ax.annotate(f" {ticker}", (growth.index[-1], last[ticker]), color=colour, va="center")
ax.set_yscale("log")
ax.yaxis.set_major_formatter(thousands())
show(
    fig, alt=f"Growth of {close.shape[1]} shares, each since its first day, on a log scale. {title}"
)

# %% [markdown]
# (`close` is corrected for splits, `adjusted` for dividends, too: that is what an owner has. In all that follows we take `close`.) These companies are all large *today*; who went under in these years is not in the list. So the picture flatters the market as a whole, and anything you earn on it on paper. (That is **survivorship bias**.) It matters less for our question, how well tomorrow can be guessed from the days before, since every forecast is judged beside "as today" on the same shares. But nothing here says how it goes with a share that is dying.
#
# ## What of tomorrow is known today?
#
# Three things one might predict: the price; the **return**, by which factor the price will change (its logarithm, so that up and down weigh alike); and the **range**, how far the day's high will lie above its low. For each: how well does today's value go with tomorrow's? **Which of the three can be
# learnt? Think twice about the first.**

# %%
returns = np.log(close).diff()
spread = {ticker: np.log(table["high"] / table["low"]) for ticker, table in tables.items()}
spread = pd.concat(spread, axis=1, sort=True)
today = {"price": close, "return": returns, "range": spread}
known = {what: x.corrwith(x.shift(-1)).median() for what, x in today.items()}
title = f"Tomorrow's price goes with today's ({known['price']:.3f}), its return hardly does"
xlabel = "correlation of today and tomorrow (median ticker; 1 is most)"
fig = bars(known, title, xlabel, None, origin, "what", largest_first=True)
show(fig, alt=f"Bars: {', '.join(f'{k} {v:.3f}' for k, v in known.items())}. {title}")

# %% [markdown]
# The price wins, and that is the trap of this project. To say "tomorrow as today" has exactly this correlation, and is worth nothing. Whoever predicts prices must beat *that* guess, which is called **persistence**. The return is what persistence leaves
# over, and there today says next to nothing. The range is different: wild days follow wild days. So lesson 41 predicts returns, without much hope, and ranges, with some.
#
# ## Indicators
#
# Traders read charts with a few formulas. Each is an average over past days. A **simple moving average** weighs 20 days alike; an **exponential** one, older days less and less. In pandas, both look back by themselves:


# %%
def sma(price, days=20):
    return price.rolling(days).mean()


def ema(price, days):
    return price.ewm(span=days, adjust=False, min_periods=days).mean()


def bollinger(price, days=20):
    width = 2 * price.rolling(days).std(ddof=0)
    return sma(price, days) - width, sma(price, days) + width


# %% [markdown]
# **Bollinger bands** are two standard deviations around the average. **MACD** is a fast average less a slow one, beside its own average. **RSI** asks which share of all movement was upward. And the **realised volatility** is the root mean square of 22 daily returns, times √252 to make it a year's. `min_periods` keeps silent until
# enough days are there.


# %%
def macd(price):
    line = ema(price, 12) - ema(price, 26)
    return line, ema(line, 9)


def rsi(price, days=14):
    moved = price.diff()
    up, down = (
        part.clip(lower=0).ewm(alpha=1 / days, adjust=False, min_periods=days).mean()
        for part in (moved, -moved)
    )
    return 100 * up / (up + down)


def volatility(price, days=22):
    return np.log(price).diff().pow(2).rolling(days).mean().pow(0.5) * 252**0.5


# %%
price = tables[name]["close"]
year = price.index[-252:]
under, over = (band[year] for band in bollinger(price))
out = ((price[year] < under) | (price[year] > over)).mean()
title = f"{name}: {out:.0%} of the days of a year end outside the Bollinger bands"
fig, axes = figure(title, xlabel="day", nrows=4, size=(7.2, 8), origin=origin)
axes[0].fill_between(year, under, over, color="#dfe6ee", label="Bollinger bands")
axes[0].plot(year, price[year], color="#1f2933", linewidth=1.4, label="close")
axes[0].plot(year, sma(price)[year], color=COLOURS[0], label="SMA, 20 days")
axes[0].plot(year, ema(price, 12)[year], color=COLOURS[1], linestyle="--", label="EMA, 12 days")
panels = {"MACD (dollars)": macd(price), "RSI (0 to 100)": [rsi(price)]}
panels["volatility (a year)"] = [volatility(price)]
for ax, (what, curves) in zip(axes[1:], panels.items(), strict=True):
    for curve, style in zip(curves, ("-", "--"), strict=False):
        ax.plot(year, curve[year], style, linewidth=1.4, label="its average" * (style == "--"))
    ax.set_ylabel(what)
axes[1].legend()
axes[0].set_ylabel("US dollars")
axes[0].legend(ncols=2)
show(fig, alt=f"Close, averages and bands, MACD, RSI and volatility of a year. {title}")

# %% [markdown]
# ## Prove that nothing looks ahead
#
# That a formula looks back is soon said. Here is a test that cannot be talked round: **change the future**. Change every price from day t on, compute again, and compare the days before t. If anything differs, the formula has seen what it must not see. Beside ours stand three lines that are found in
# many notebooks. **Which of them look ahead?**

# %%
candidates = {
    "sma": sma,
    "macd": lambda p: macd(p)[0],
    "rsi": rsi,
    "volatility": volatility,
    "p.rolling(21, center=True).mean()": lambda p: p.rolling(21, center=True).mean(),
    "(p - p.mean()) / p.std()": lambda p: (p - p.mean()) / p.std(),
    "p.asfreq('D').interpolate()": lambda p: p.asfreq("D").interpolate().reindex(p.index),
}


# %%
def looks_ahead(formula, price) -> bool:
    for t in (len(price) * k // 10 for k in (3, 5, 8)):
        other = price.copy()
        other.iloc[t:] *= np.random.default_rng(t).uniform(0.5, 2.0, len(price) - t)
        if not formula(price).iloc[:t].equals(formula(other).iloc[:t]):
            return True
    return False


verdicts = {text: looks_ahead(formula, price) for text, formula in candidates.items()}
pd.Series(verdicts).map({True: "looks ahead", False: "looks back only"}).to_frame("verdict")

# %% [markdown]
# A centred window takes ten days of the future. The mean of *all* days tells an early day how high the share will stand years later: the commonest leak of all, since a scaler does it in one call. And interpolation? It is innocent here as long as every day up to t has
# a price: test it on a gap, and it draws a line to a price that is not there yet. A test is only as good as the cases it is put to.
#
# ## A split that walks forward
#
# To be judged on tomorrow, learn from yesterday. So time is cut in order: days to learn from, days to choose on (**validation**), days to be judged by (**test**); then everything moves forward by a year: another **fold**. One thing more. The answer to a sample of day t lies *after* t, so the
# last samples before a cut would be answered by days beyond it. A **purge gap** leaves them out. It must be as long as the longest answer takes: ours take 1 day or 20, and 22, a month, is safe for both.

# %%
folds = stocks.walk_forward(len(close), folds=3, test=252, valid=252, purge=22)
held = sum(len(fold.test) for fold in folds)
title = f"Three folds: {held} days to be judged by, each after all that was learnt for it"
fig, ax = figure(title, xlabel="day", ylabel="fold", size=(7.2, 2.6), origin=origin)
for row, fold in enumerate(folds):
    for part, colour in zip(("fit", "valid", "test"), COLOURS, strict=False):
        days = close.index[getattr(fold, part)]
        ax.barh(row, days[-1] - days[0], left=days[0], color=colour, height=0.6)
        ax.text(days[len(days) // 2], row, part, color="white", ha="center", va="center")
ax.set_yticks(range(len(folds)), range(1, len(folds) + 1))
ax.invert_yaxis()
ax.xaxis_date()
show(fig, alt=f"Bars of the days to fit, to validate and to test in three folds. {title}")

# %% [markdown]
# Look at one column: the days on which fold 2 chooses are days on which fold 1 is judged. So each fold should choose for itself; one choice made for all three has seen two of the three tests.
#
# What if one shuffles all days instead, as we did with houses? Let a forest guess the return of the *next 20 days* from eight slow indicators: how far the price lies above its averages, and how much it moved. Everything looks back only, the forest is the same. Only the split differs. **How often
# will the forest be right about up or down?**


# %%
def slow(price):
    log = np.log(price)
    return pd.DataFrame(
        {f"above {n}": log - log.rolling(n).mean() for n in (20, 60, 120, 250)}
        | {f"moved {n}": log.diff().rolling(n).std() for n in (20, 60, 120, 250)}
    )


ahead, few = 20, data.tickers[:8]
x = np.stack([slow(close[ticker]) for ticker in few], axis=1)  # days × tickers × 8
y = np.log(close[few].shift(-ahead) / close[few]).to_numpy()
whole = np.isfinite(x).all(axis=2) & np.isfinite(y)
day, x, y = np.nonzero(whole)[0], x[whole], y[whole]

# %%
cut = len(close) - ahead - 504
dice = np.random.default_rng(42).permutation(len(y))
splits = {
    "days shuffled": (dice[len(y) // 4 :], dice[: len(y) // 4]),
    "walking forward": (np.flatnonzero(day < cut - ahead), np.flatnonzero(day >= cut)),
}
trees, guessed = {"smoke": 10, "quick": 50, "full": 200}[preset], {}
for split, (fit, test) in splits.items():
    forest = ExtraTreesRegressor(trees, n_jobs=-1, random_state=seed).fit(x[fit], y[fit])
    guessed[split] = y[test], forest.predict(x[test])

# %%
right = {split: ((p > 0) == (actual > 0)).mean() for split, (actual, p) in guessed.items()}
shuffled, forward = right.values()
title = f"Up or down: {shuffled:.0%} right when days are shuffled, {forward:.0%} in the real order"
axis = {"xlabel": "what came (return of 20 days)", "ylabel": "what the forest said"}
fig, axes = figure(title, **axis, ncols=2, size=(7.2, 3.9), origin=origin)
for ax, (split, (actual, p)), colour in zip(axes, guessed.items(), COLOURS, strict=False):
    ax.scatter(actual, p, s=3, alpha=0.25, color=colour)
    ax.axline((0, 0), slope=1, color="#5f6b76", linewidth=1)
    r2 = 1 - ((actual - p) ** 2).sum() / ((actual - actual.mean()) ** 2).sum()
    ax.set_title(f"{split}: R² = {r2:.2f}; always “up”: {(actual > 0).mean():.0%}", fontsize=9)
    ax.set(xlim=(-0.4, 0.4), ylim=(-0.4, 0.4))
show(fig, alt=f"Two scatter plots of predictions against what came. {title}")

# %% [markdown]
# (**R²** is the share of the ups and downs that is explained. Below 0 it is worse than to say their mean. "Always up" is the guess to beat.) The left picture would make anyone rich. Nothing in it is a bug in a formula: two neighbouring days share 19 of the 20 days that they are asked about. Shuffled, one of them is learnt and the other is tested, and a forest has only to find the neighbour. It did not learn
# the market; it learnt the calendar. The right picture is what is left when the neighbour is not there.
#
# ## Windows
#
# A network that reads the last 60 days wants a **window** for every day and ticker. Two neighbouring windows share 59 of their days, so writing them all down writes each day 60 times. We need not. A tensor is a piece of memory and a rule to walk through it (its **strides**): `unfold` makes
# a new rule, and no new memory.

# %%
values = stocks.indicators(tables[name])
panel = torch.tensor(values.to_numpy(dtype="float32")).contiguous()  # days × features
windows = panel.unfold(0, 60, 1)  # windows × features × 60 days
print(f"{tuple(panel.shape)} becomes {tuple(windows.shape)}: {windows.nbytes / panel.nbytes:.0f}")
print("times the bytes, if it had any of its own.")
print(f"strides: {panel.stride()} and {windows.stride()}: two axes take the same step")
assert windows.untyped_storage().data_ptr() == panel.untyped_storage().data_ptr()

# %% [markdown]
# `stocks.indicators` are this lesson's, in a form that does not tell a share at $5 from one at $500. Now let the ranks do it: each computes the indicators of its share of the tickers and makes its windows. A window that begins before all indicators can speak is none. How many there are in all is one `all_reduce`. **Will the number depend
# on how many ranks count?**

# %%
LENGTH = 60


def share(pg):  # whatever the tickers: rank r has every N-th
    mine = [stocks.indicators(tables[ticker]) for ticker in data.tickers[pg.rank :: pg.world_size]]
    return [torch.tensor(table.to_numpy(dtype="float32")) for table in mine]


def count_windows():
    with process_group() as pg:
        counts = torch.zeros(2, dtype=torch.int64)  # windows, bytes of the tables
        for table in share(pg):
            if len(table) < LENGTH:
                continue
            complete = table.unfold(0, LENGTH, 1).isfinite().all(dim=2).all(dim=1)
            counts += torch.tensor([complete.sum(), table.nbytes])
        dist.all_reduce(counts)
        return counts.tolist()


for n in (1, 2, 3):
    count, size = launch(count_windows, **{**options, "nprocs": n})[0]
    print(f"{n} rank{'s' * (n > 1)}: {count:,} windows on {size / 1e6:.1f} MB of tables")

# %% [markdown]
# ## Five hundred tickers, twenty years
#
# Does that hold when the market is the whole S&P 500? Let us try it at that size, on random numbers, since only the size matters. Each rank fills its part of a panel of 500 tickers × 20 years × 8 features, makes its windows, draws a batch of 256 from them, and looks at how much memory it holds before and after. **Copied, the windows
# would take how much?**


# %%
def at_full_size(tickers=500, days=20 * 252, features=8):
    with process_group() as pg:
        mine = len(range(pg.rank, tickers, pg.world_size))
        before = psutil.Process().memory_info().rss
        part = torch.randn(mine, days, features)  # the tables of my tickers
        views = part.unfold(1, LENGTH, 1)
        begin = time.perf_counter()
        for _ in range(20):
            ticker, end = torch.randint(mine, (256,)), torch.randint(views.shape[1], (256,))
            batch = views[ticker, end]  # only here are numbers copied: 256 windows
        took = (time.perf_counter() - begin) / 20
        held = psutil.Process().memory_info().rss - before
        found = torch.tensor([views.shape[0] * views.shape[1], held], dtype=torch.float64)
        dist.all_reduce(found)
        return *found.tolist(), 1e3 * took, batch.nbytes


# %%
count, held, took, batch_bytes = launch(at_full_size, **options)[0]
copied = count * LENGTH * 8 * 4
memory = {"held by all ranks": held / 1e6, "if every window were copied": copied / 1e6}
memory["the tables alone"] = 500 * 20 * 252 * 8 * 4 / 1e6
print(f"a batch of {batch_bytes / 1e6:.2f} MB takes {took:.1f} ms to draw")
title = f"{count / 1e6:.1f} million windows in {held / 1e6:,.0f} MB, not {copied / 1e9:.1f} GB"
fig = bars(memory, title, "memory (MB, less is better)", "held by all ranks", ylabel="windows")
show(fig, alt=f"Bars: {', '.join(f'{k} {v:,.0f} MB' for k, v in memory.items())}. {title}")

# %% [markdown]
# So the windows cost little more than the tables, and a batch is copied when it is needed. Memory grows with the days, and no longer with days × length of a window. Lesson 41 trains on just such views.
#
# **Exercises:** [`exercises/40_stocks_data.ipynb`](../exercises/40_stocks_data.ipynb). You will find and remove look-aheads in somebody's features, split by when an answer is known, and deal windows to ranks without copying one.
#
# ## Take-away
#
# > The question "could I have known this then?" is put to every number: to each feature, each scaler, each filled gap, each row of the split. Change the future and see whether the past moves; it is the one test that needs no trust.
# > Overlapping windows are a way to look at a table and not a table of their own: deal tickers to ranks, unfold, and copy a batch at a time.
#
# **To go further**
# - [`Tensor.unfold`](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.unfold.html) and [NumPy's `sliding_window_view`](https://numpy.org/doc/stable/reference/generated/numpy.lib.stride_tricks.sliding_window_view.html): the same idea twice.
# - Marcos López de Prado: *Advances in Financial Machine Learning*, 2018, chapter 7: purging, embargo, and why cross-validation fails in finance.
# - Kaufman and others: [Leakage in Data Mining](https://doi.org/10.1145/2382577.2382579), 2012: what leaks are, and how to look for them.
# - Next: lesson 41 trains an LSTM on these windows.
