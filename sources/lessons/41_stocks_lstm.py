# %% [markdown]
# # Stock prices: a forecast, and what it is worth
#
# **You will learn**
# - to train an LSTM under DDP on windows that are views, and to run the same function on two nodes with the same bits;
# - to judge a forecast against "as today", in dollars, with an interval for the luck of the draw;
# - why a picture of predicted prices proves nothing, and what in tomorrow can be learnt.
#
# *About 50 minutes; the cells run for about one. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights and order of the windows; the split never moves
start_method: str = "auto"  # how launch starts ranks

# %%
import os
import time

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from matplotlib.dates import DateFormatter
from matplotlib.ticker import MaxNLocator
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from course_lib import (
    choose_preset,
    choose_world_size,
    launch,
    process_group,
    progress,
    record_results,
    report,
    torchrun,
    write_script,
)
from course_lib.data import stocks
from course_lib.equivalence import equivalence_table
from course_lib.plots import COLOURS, bars, figure, show

world_size, preset = choose_world_size(world_size), choose_preset(preset)
options = {"nprocs": world_size, "start_method": start_method}

# %% [markdown]
# ## The panel, and what to predict
#
# Lesson 40's tables on one calendar: days × tickers × eight indicators, none of which looks ahead. A sample is a day and a ticker. Its question is the window of 22 trading days, a month, up to that day; its answers are two numbers of *tomorrow*: the **return** (logarithm of tomorrow's close over today's) and the **range** (logarithm of
# its high over its low).

# %%
data = stocks.load(source, start="2014-10-17", end="2023-10-17")
tickers, origin = data.tickers, data.origin
table = pd.concat({t: stocks.indicators(data.tables[t]) for t in tickers}, axis=1, sort=True)
close = pd.concat({t: data.tables[t]["close"] for t in tickers}, axis=1, sort=True)
days, close = table.index, torch.tensor(close.to_numpy())
panel = torch.tensor(table.to_numpy()).reshape(len(days), len(tickers), -1)
panel[..., 1:2] = panel[..., 1:2].clamp(min=1e-4).log()  # ranges spread evenly in logarithms
answers = panel.roll(-1, dims=0)[..., :2].clone()  # return and log of the range, a day later
answers[-1] = torch.nan
folds = stocks.walk_forward(len(days), folds=3, test=252, valid=252, purge=22)

# %% [markdown]
# ## The picture that convinces everybody
#
# First the way most tutorials take. The network reads 60 days of *prices*, squeezed between 0 and 1 as the days to fit have them, and says the next one. Each rank trains the networks of its own tickers, one for each fold; nobody waits for anybody. **What will the picture look like?**


# %%
class PriceReader(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.say = nn.LSTM(1, 50, batch_first=True), nn.Linear(50, 1)

    def forward(self, windows):
        return self.say(self.read(windows)[0][:, -1])[:, 0]


def from_prices(price, fold, epochs, batch=64):
    past = price[fold.fit.start : fold.fit.stop]
    low, high = past.min(), past.max()
    x = ((price - low) / (high - low)).float()
    windows = x[:, None].unfold(0, 60, 1).transpose(1, 2)  # the i-th ends on day i + 59
    model, rows = PriceReader(), torch.arange(fold.fit.stop - 60)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for some in rows[torch.randperm(len(rows))].split(batch):
            loss = F.mse_loss(model(windows[some]), x[some + 60])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():  # asked on the day before each day of the test
        asked = model(windows[fold.test.start - 60 : fold.test.stop - 60])
    return asked.double() * (high - low) + low


# %%
def my_tickers(few, epochs):
    with process_group() as pg:
        told = {}
        for ticker in progress(few[pg.rank :: pg.world_size], "ticker"):
            torch.manual_seed(seed)
            price = close[:, tickers.index(ticker)]
            told[ticker] = torch.cat([from_prices(price, fold, epochs) for fold in folds])
        return told


known = close.isfinite().all(dim=0)
whole = [ticker for ticker, there in zip(tickers, known, strict=True) if there]
few = [t for t in ("AAPL", "KO", "MSFT", "XOM") if t in whole] or whole[:4]
epochs = {"smoke": 1, "quick": 5, "full": 20}[preset]
cpu = {"nprocs": min(len(few), max(2, world_size)), "start_method": start_method, "device": "cpu"}
told = {t: price for part in launch(my_tickers, few, epochs, **cpu) for t, price in part.items()}

# %% [markdown]
# **R²** is the share of the ups and downs of three years that the prediction explains; 1 is perfect, and below 0 it is worse than to say their mean. Beside it the R² of *persistence*, which says "as today"; and what counts: the mean absolute error (**MAE**) over that of persistence.

# %%
judged = np.concatenate([np.arange(fold.test.start, fold.test.stop) for fold in folds])
rows = {}
for ticker, said in told.items():
    price = close[:, tickers.index(ticker)]
    actual, as_today = price[judged], price[judged - 1]
    error, base = (said - actual).abs().mean(), (as_today - actual).abs().mean()
    r2 = [
        1 - (p - actual).square().sum() / (actual - actual.mean()).square().sum()
        for p in (said, as_today)
    ]
    rows[ticker] = [*(r.item() for r in r2), error.item(), base.item(), (error / base).item()]
columns = ["R²", "R² of persistence", "MAE, $", "MAE of persistence, $", "MAE ÷ persistence"]
levels = pd.DataFrame(rows, index=columns).T
levels.style.format("{:.2f}")

# %%
best = levels["R²"].idxmax()
price, said = close[:, tickers.index(best)], told[best]
title = f"{best}: R² = {levels['R²'][best]:.2f}, and {levels['MAE ÷ persistence'][best]:.1f} times the error of “as today”"
names = {"xlabel": "day", "ylabel": "close (US dollars)", "ncols": 2}
fig, axes = figure(title, **names, size=(7.2, 3.8), origin=origin)
for ax, part, head in zip(
    axes, (slice(None), slice(-60, None)), ("three years", "the last 60 days"), strict=True
):
    when = days[judged[part]]
    ax.plot(when, price[judged[part]], color="#1f2933", label="what came")
    ax.plot(when, price[judged[part] - 1], color=COLOURS[0], linewidth=1.2, label="as today")
    ax.plot(when, said[part], color=COLOURS[1], linestyle="--", label="network")
    ax.set_title(head)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(DateFormatter("%Y-%m" if head == "three years" else "%b %d"))
axes[0].legend()
show(fig, alt=f"Prices of {best}, actual, as the day before, and predicted; zoomed. {title}")

# %% [markdown]
# Look at "as today", which knows nothing: its R² is the highest of all. So a high R² of prices proves nothing, and a picture of three years even less, since "as today" lies on the truth there. Only from near, on the right, can you see it run one day behind, and the network go its own way. It was trained to hit the level of a price; what changes overnight is lost in its errors,
# and where the price has left the range it was fitted on, it is far off. So: never a price without persistence beside it.
#
# ## Scaled by the past
#
# Back to the panel. A network learns best from numbers around 0, of size 1, and a wild share should not drown a calm one. So every ticker is scaled by its own mean and spread, and beside its eight numbers stand the eight of the average share, the **market**. **From which days may mean and spread be taken?**

# %%
LENGTH = 22


def scaled(fold):
    """Panel (days × tickers × 16) and answers, in deviations as the days to fit know them."""
    past = panel[fold.fit.start : fold.fit.stop]
    mean = past.nanmean(dim=0)
    spread = (past - mean).square().nanmean(dim=0).sqrt()
    mean[:, 0] = 0.0  # no return is expected: "as today" stays 0
    x = ((panel - mean) / spread).clamp(-5, 5).float()
    market = x.nanmean(dim=1, keepdim=True).expand_as(x)
    y = (answers - mean[:, :2]) / spread[:, :2]
    return torch.cat([x, market], dim=2), y.float(), mean[:, :2], spread[:, :2]


def samples(part, x, y):
    """Day and ticker of every complete sample made on the days of `part`."""
    whole = y.isfinite().all(dim=2)
    whole[LENGTH - 1 :] &= x.unfold(0, LENGTH, 1).isfinite().all(dim=3).all(dim=2)
    whole[: max(part.start, LENGTH - 1)] = False
    whole[part.stop :] = False
    return whole.nonzero()


# %%
scales = [scaled(fold) for fold in folds]  # x, y, mean and spread of each
counts = {
    f"fold {k}": {
        part: len(samples(getattr(fold, part), x, y)) for part in ("fit", "valid", "test")
    }
    for k, (fold, (x, y, *_)) in enumerate(zip(folds, scales, strict=True), start=1)
}
pd.DataFrame(counts).T.style.format("{:,}")

# %% [markdown]
# From the days to fit, of course, and anew in every fold. (A ticker without any such day has no scale and drops out of that fold.)
#
# ## The network, and a batch
#
# An **LSTM** reads a window day by day and keeps a memory of what it has read; two numbers are read off its last state. It begins where a sensible person would: no return, and the range that was usual in this month. So all it has to learn is what differs from that. Our loss is the *absolute* error, because
# we shall be judged by it: the median makes it smallest.
#
# Adam moves every weight by about the rate in each step, however faint the signal, and the signal in returns is faint. So the return is multiplied by 0.1: what is said of it starts small and grows slowly. (How we came to that stands below.)


# %%
class Forecaster(nn.Module):
    def __init__(self, kind: str = "lstm", width: int = 32):
        super().__init__()
        self.kind, inputs = kind, 2 * panel.shape[2]
        if kind == "line":
            self.say = nn.Linear(LENGTH * inputs, 2)
        else:
            self.read = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](inputs, width, batch_first=True)
            self.say = nn.Linear(width, 2)
        nn.init.zeros_(self.say.weight)
        nn.init.zeros_(self.say.bias)
        self.register_buffer("voice", torch.tensor([0.1, 1.0]))  # returns are whispered

    def forward(self, windows):  # samples × days × features
        read = windows.flatten(1) if self.kind == "line" else self.read(windows)[0][:, -1]
        usual = windows[:, :, 1].mean(dim=1)  # the range, in this month
        return self.voice * self.say(read) + torch.stack([0 * usual, usual], dim=1)


def batch_of(x, which):  # which: day and ticker of each sample
    day, ticker = which.T
    windows = x.unfold(0, LENGTH, 1)  # a view, as in lesson 40
    return windows[day - LENGTH + 1, ticker].transpose(1, 2)


# %% [markdown]
# The loop holds no surprise after lesson 11. All ranks shuffle alike, and rank r takes every N-th sample of the batch; the last, smaller batch is left out.


# %%
def learn(x, y, which, epochs, seed, kind="lstm", batch=480, rate=3e-3):
    with process_group() as pg:
        torch.manual_seed(seed)
        model = DistributedDataParallel(Forecaster(kind).to(pg.device))
        optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
        steps = epochs * (len(which) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.3)
        dice, losses = torch.Generator().manual_seed(seed), []
        for _ in progress(range(epochs), "epoch"):
            order = torch.randperm(len(which), generator=dice)  # the same on all ranks
            for rows in order.split(batch)[: len(which) // batch]:
                mine = which[rows[pg.rank :: pg.world_size]]
                said = model(batch_of(x, mine).to(pg.device))
                loss = F.l1_loss(said, y[mine[:, 0], mine[:, 1]].to(pg.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
            report(loss=loss.item())
        losses = torch.stack(losses)
        dist.all_reduce(losses)
        return (losses / pg.world_size).tolist(), model.module.cpu().state_dict()


# %% [markdown]
# ## Did N ranks learn what one would have?
#
# A promise to be kept before the run, for 20 steps. (A batch of 480 falls into equal parts for 1 to 5 ranks.)

# %%
x, y, *_ = scales[0]
first = samples(folds[0].fit, x, y)[: 480 * 20]
on_cpu = {"start_method": start_method, "device": "cpu"}
runs = {n: launch(learn, x, y, first, 1, seed, nprocs=n, **on_cpu)[0] for n in (1, 2, 4)}
equivalence = equivalence_table(runs, tolerance=1e-5)
equivalence.map("{:.1e}".format)

# %% [markdown]
# ## Three folds forward
#
# A new network for each fold: it may use everything up to its cut, and is then asked about days that it has never seen. Beside the LSTM a **line**: the same windows, the same loop, but one linear layer in place of the LSTM. **Will the memory pay?**


# %%
def forecast(part, networks):
    """What the networks say, each for its own fold: days × tickers × (return, range), with gaps."""
    whole = torch.full_like(answers, torch.nan)
    for fold, (x, y, mean, spread), (kind, weights) in zip(folds, scales, networks, strict=True):
        model = Forecaster(kind)
        model.load_state_dict(weights)
        which = samples(getattr(fold, part), x, y)
        with torch.no_grad():
            said = torch.cat([model(batch_of(x, some)) for some in which.split(4096)])
        day, ticker = which.T
        whole[day, ticker] = said.double() * spread[ticker] + mean[ticker]
    return torch.stack([whole[..., 0], whole[..., 1].exp()], dim=2)


# %%
epochs = {"smoke": 1, "quick": 2, "full": 4}[preset]
losses, networks, train_seconds = {}, {}, {}
for kind in ("line", "lstm"):
    losses[kind], networks[kind], begin = [], [], time.perf_counter()
    for fold, (x, y, *_) in zip(folds, scales, strict=True):
        which = samples(fold.fit, x, y)[-2400 if preset == "smoke" else 0 :]
        curve, weights = launch(learn, x, y, which, epochs, seed, kind, **options)[0]
        losses[kind] += curve
        networks[kind].append((kind, weights))
    train_seconds[kind] = time.perf_counter() - begin
    print(f"{kind}: {train_seconds[kind]:.0f} s for {len(losses[kind]):,} steps")

# %% [markdown]
# ## How sure is that?
#
# An error over three years is one draw of what might have happened. A **bootstrap** asks how else it could have come out. Cut the days into blocks of a month, since calm and wild days come in runs and all shares of a day share its fate; draw as many blocks, with replacement; compute again; a thousand times over. The middle 95 % are the **interval**. (It is about other days, not about other seeds. And in dollars a share at $500 weighs as much as ten at $50.)


# %%
def ratio(ours, base, blocks=22, draws=1000):
    """Sum of errors over sum of errors (days × tickers, with gaps), and its 95 % interval."""
    sums = torch.stack([ours.nansum(dim=1), base.nansum(dim=1)])
    sums = sums[:, base.isfinite().any(dim=1)]
    parts = torch.stack([part.sum(dim=1) for part in sums.split(blocks, dim=1)], dim=1)
    dice = torch.Generator().manual_seed(0)
    some = torch.randint(parts.shape[1], (draws, parts.shape[1]), generator=dice)
    above, below = parts[:, some].sum(dim=2)
    low, high = (above / below).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    above, below = sums.sum(dim=1)
    return (above / below).item(), low.item(), high.item()


# %%
came = torch.stack([answers[..., 0], answers[..., 1].exp()], dim=2)
as_today = torch.stack([0 * panel[..., 0], panel[..., 1].exp()], dim=2)  # the same for tomorrow


def errors(said):
    """Absolute errors of a forecast and of persistence: dollars of the close, and the range."""
    found = []
    for guess in (said, torch.where(said.isfinite(), as_today, torch.nan)):
        dollars = close * (guess[..., 0].exp() - came[..., 0].exp()).abs()
        found.append(torch.stack([dollars, (guess[..., 1] - came[..., 1]).abs()], dim=2))
    return found


# %% [markdown]
# One rival is missing. **HAR** (heterogeneous autoregression) is a standard model of volatility; here it guesses ranges: a straight line from the mean range of the last day, week and month, three numbers, fitted in logarithms on the same days (by least squares, a small handicap). Of the return it says nothing: as today.


# %%
def har(part):
    ranges, whole = panel[..., 1].exp(), torch.full_like(answers, torch.nan)
    inputs = torch.ones(*ranges.shape, 4, dtype=torch.float64)
    for k, n in enumerate((1, 5, 22)):
        inputs[n - 1 :, :, k] = ranges.unfold(0, n, 1).mean(dim=2).log()
    for fold, (x, y, *_) in zip(folds, scales, strict=True):
        day, ticker = samples(fold.fit, x, y).T
        line = torch.linalg.lstsq(inputs[day, ticker], answers[day, ticker, 1:]).solution
        day, ticker = samples(getattr(fold, part), x, y).T
        whole[day, ticker, 0] = 0.0
        whole[day, ticker, 1] = (inputs[day, ticker] @ line)[:, 0].exp()
    return whole


def judge(part):
    said = {kind: forecast(part, trained) for kind, trained in networks.items()}
    untrained = ("line", Forecaster("line").state_dict())  # says what was usual in the month
    said |= {"HAR": har(part), "month": forecast(part, [untrained] * len(folds))}
    pairs = {name: errors(guess) for name, guess in said.items()}
    ratios = {n: [ratio(a[..., k], b[..., k]) for k in (0, 1)] for n, (a, b) in pairs.items()}
    return said, pairs, ratios


# %%
*_, on_validation = judge("valid")
both = ["close, MAE ÷ persistence", "range, MAE ÷ persistence"]
pd.DataFrame({n: [r[0] for r in row] for n, row in on_validation.items()}, index=both).T.round(4)

# %% [markdown]
# That was on validation days, which decided on one month of days, 32 cells, two epochs, and the market beside each ticker. Now the test days, with two confessions. All folds share these choices, and fold 2 validates on test days of fold 1; only the last year of all had no say, so it stands by itself, too. And the factor 0.1 came last, after we had seen the close do worse than "as today" on these
# very days; validation favours it only slightly. A clean claim needs days that nobody has looked at. **Will the interval of the close lie below 1? And that of the range?**

# %%
said, pairs, on_test = judge("test")
mae, mae_today = (e[..., 0].nanmean().item() for e in pairs["lstm"])
words, last = "{:.4f} ({:.4f} to {:.4f})", slice(folds[-1].test.start, folds[-1].test.stop)
on_test["lstm, last year"] = [ratio(*(e[last, :, k] for e in pairs["lstm"])) for k in (0, 1)]
print(f"close: off by ${mae:.3f} (mean); as today: ${mae_today:.3f}. Ratios, 95 % intervals:")
pd.DataFrame({n: [words.format(*r) for r in row] for n, row in on_test.items()}, index=both).T

# %%
labels = {"lstm": "LSTM", "line": "line on the same windows", "HAR": "HAR"}
labels["month"] = "the month's mean"
ranges = {label: on_test[name][1][0] for name, label in labels.items()} | {"as today": 1.0}
gain, usual = 1 - ranges["LSTM"], 1 - ranges["the month's mean"]
title = f"Tomorrow's range: {gain:.0%} less error than “as today”, {usual:.0%} by the month's mean alone"
fig = bars(ranges, title, "MAE ÷ persistence (less is better)", "LSTM", origin, "forecast")
show(fig, alt=f"Bars: {', '.join(f'{k} {v:.3f}' for k, v in ranges.items())}. {title}")

# %% [markdown]
# Be fair to the simple ones. Where the line is level with the LSTM, the memory bought nothing; and HAR makes do with three numbers. Compare the steps: from "as today" to the mean of the month, which is what the network says before it has learnt anything, and from there to the network. A range falls back to what is usual, and most of the gain is to know that.
#
# Pooled numbers can hide a share that went the other way. So, ticker by ticker:

# %%
each = {
    what: [ratio(*(e[:, i : i + 1, k] for e in pairs["lstm"])) for i in range(len(tickers))]
    for k, what in enumerate(("close", "range"))
}
sure = {what: sum(high < 1 for *_, high in rows) for what, rows in each.items()}
wrong = sum(low > 1 for _, low, _ in each["close"])
title = f"Clear of 1: the range of {sure['range']} of {len(tickers)} tickers; the close of {sure['close']}, and of {wrong} on the wrong side"
axis = {"xlabel": "MAE ÷ persistence, with its 95 % interval", "ylabel": "ticker", "ncols": 2}
fig, axes = figure(title, **axis, size=(7.2, 1.6 + 0.16 * len(tickers)), origin=origin)
for ax, (what, rows), colour in zip(axes, each.items(), COLOURS, strict=False):
    value, low, high = np.array(rows).T
    place = np.arange(len(tickers))
    ax.errorbar(value, place, xerr=[value - low, high - value], fmt="o", ms=4, lw=1.2, color=colour)
    ax.axvline(1, color="#5f6b76", linestyle="--")
    ax.set_yticks(place, tickers, fontsize=7)
    ax.set_title(what)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.margins(y=0.01)
    ax.invert_yaxis()
show(
    fig,
    alt=f"A dot and an interval for each ticker, close on the left, range on the right. {title}",
)

# %% [markdown]
# The close on the left is a toss-up for nearly everyone: the intervals straddle 1. (Of 48 such intervals, one or two lie clear of it on each side by luck alone.) Compare the right. Now look at the forecast itself, for one ticker, so close that a lag could be seen: the line "as today" *is* the truth, one day late.

# %%
column, when = tickers.index(best), judged[-60:]
title = f"{best}: the forecast does not chase yesterday's range, it returns to the usual"
fig, ax = figure(title, xlabel="day", ylabel="high over low (%)", origin=origin)
percent = {
    "what came": (came[when - 1, column, 1], {"color": "#1f2933"}),
    "as today": (as_today[when - 1, column, 1], {"color": COLOURS[0], "lw": 1.1}),
    "LSTM": (said["lstm"][when - 1, column, 1], {"color": COLOURS[1], "ls": "--"}),
}
for name, (values, look) in percent.items():
    ax.plot(days[when], 100 * values.expm1(), label=name, **look)
ax.legend()
show(fig, alt=f"Range of {best} over 60 days: actual, of the day before, predicted. {title}")

# %% [markdown]
# ## The same function on two nodes
#
# So far all ranks were children of this kernel. On a cluster each machine, each **node**, runs an agent of torchrun's; the agents meet at an address, agree who is node 0, and each starts ranks of its own. Nothing stops us from starting two agents on one machine: two nodes in miniature. The function asks in which place it woke up.


# %%
def train_stocks(epochs: int, seed: int = 0):
    """Train the LSTM of lesson 41 on the days of the first fold."""
    where = {name: os.environ.get(name) for name in ("RANK", "GROUP_RANK", "LOCAL_RANK")}
    x, y, *_ = scaled(folds[0])
    losses, weights = learn(x, y, samples(folds[0].fit, x, y)[-9600:], epochs, seed)
    return losses, weights, where


program = write_script(train_stocks, "train_stocks.py")
on_nodes = torchrun(program, nprocs=1, nnodes=2, device="cpu", epochs=1, seed=seed)
pd.DataFrame([where for *_, where in on_nodes])

# %% [markdown]
# GROUP_RANK is the number of the node; the local rank, which picks a GPU, is 0 on both. The line after `$` is typed once on each node, with the address of one of them in place of 127.0.0.1 and the same port on all; program and data must lie on each. **Will the two nodes have learnt what two ranks of this kernel learn, to the last bit?**

# %%
here = launch(train_stocks, 1, seed, nprocs=2, **on_cpu)
(losses_there, weights_there, _), (losses_here, weights_here, _) = on_nodes[0], here[0]
same = losses_there == losses_here
same &= all(torch.equal(weights_there[name], weights_here[name]) for name in weights_here)
print(f"{len(losses_here)} losses and all weights equal to the last bit: {same}")
assert same

# %%
record_results(
    preset=preset,
    seed=seed,
    world_size=world_size,
    data_origin=origin,
    mae_dollars=mae,
    mae_over_persistence=on_test["lstm"][0][0],
    range_mae_over_persistence=on_test["lstm"][1][0],
    range_har_over_persistence=on_test["HAR"][1][0],
    train_seconds=train_seconds["lstm"],
    samples_per_second=len(losses["lstm"]) * 480 / train_seconds["lstm"],
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
)

# %% [markdown]
# **Exercises:** [`exercises/41_stocks_lstm.ipynb`](../exercises/41_stocks_lstm.ipynb). You will scale tickers that lie on different ranks by the past only, and walk forward over ranks.
#
# ## Take-away
#
# > A forecast is worth what it adds to "as today", so put that beside every number and every picture, with an interval. Prices look predictable and returns hardly are; how wild tomorrow will be can be learnt, and a line learns most of it.
# > DDP does not know how many nodes there are: the same function, started by two agents, computes the same bits.
#
# **To go further**
# - Fulvio Corsi: [A Simple Approximate Long-Memory Model of Realized Volatility](https://doi.org/10.1093/jjfinec/nbp001), 2009: HAR.
# - Hochreiter, Schmidhuber: [Long Short-Term Memory](https://doi.org/10.1162/neco.1997.9.8.1735), 1997.
# - Hyndman, Athanasopoulos: [Forecasting: Principles and Practice](https://otexts.com/fpp3/), chapter 5: benchmarks, and how to evaluate forecasts over time.
# - [torchrun](https://docs.pytorch.org/docs/stable/elastic/run.html): agents, nodes and the rendezvous. Lesson 53 puts a slow cable between two nodes.
# - Next: lesson 42 asks many networks instead of one.
