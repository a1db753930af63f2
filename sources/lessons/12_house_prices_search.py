# %% [markdown]
# # House prices: a search over ranks
#
# **You will learn**
# - to spread a grid of trials over ranks, each of which trains whole networks of its own;
# - to let all ranks agree on the best trial, and to hand its weights from the rank that has them to all;
# - to see who waits for whom, and how much of a winner's score is luck.
#
# *About 40 minutes; the cells run for about one and a half. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights and order of the batches; the split never moves
start_method: str = "auto"  # how launch starts ranks

# %%
import math
import time
from itertools import pairwise, product

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import nn

from course_lib import (
    choose_preset,
    choose_world_size,
    launch,
    process_group,
    progress,
    record_results,
    report,
    shard_indices,
)
from course_lib.data import housing
from course_lib.evaluation import rmse_over_ranks
from course_lib.group import cores
from course_lib.plots import COLOURS, bars, figure, heat_map, lines, show

world_size, preset = choose_world_size(world_size), choose_preset(preset)

# %% [markdown]
# ## The other kind of parallelism
#
# In lesson 11 all ranks trained *one* network and exchanged gradients in every step. But how wide should it be, how deep,
# and how fast should it learn? To find out one trains many networks, and these need nothing of each other: no gradient,
# no weight. Work that falls apart so easily is called **embarrassingly parallel**. The rows are lesson 11's; the test
# rows wait until the very end.

# %%
houses = housing.load(source)
train_rows, test_rows = housing.split(len(houses.frame))
valid_rows, fit_rows = train_rows[: len(train_rows) // 5], train_rows[len(train_rows) // 5 :]
table = housing.features(houses.frame, fit_on=fit_rows)
price = torch.tensor(houses.frame[housing.TARGET].to_numpy(), dtype=torch.float32)

# %% [markdown]
# The encoding is lesson 11's as well: each number in pieces. Bins and scale come from the rows to fit on alone. What
# has seen the validation rows cannot be judged by them.

# %%
category = houses.frame["ocean_proximity"].to_numpy()[:, None]
parts = [category == np.array(housing.OCEAN_PROXIMITY)]
for name, column in table.items():
    bins = 128 if name in ("longitude", "latitude", "north_east", "north_west") else 16
    edges = np.unique(np.quantile(column.iloc[fit_rows], np.linspace(0, 1, bins + 1)))
    parts.append(((column.to_numpy()[:, None] - edges[:-1]) / np.diff(edges)).clip(0, 1))
x = torch.tensor(np.concatenate(parts, axis=1), dtype=torch.float32)
mean, std, cap = price[fit_rows].mean(), price[fit_rows].std(), price[fit_rows].max()

# %% [markdown]
# ## The grid
#
# A **trial** is one way to train: a learning rate, a depth and a width. All combinations together are the **grid**,
# with the width changing fastest. The rates grow by factors, not by steps: what counts is how many *times* as fast one
# network learns as another.

# %%
depths, widths, rates = (1, 2, 3), (64, 256), (0.001, 0.003, 0.009, 0.027)
if preset == "smoke":
    depths, rates = depths[:2], rates[:2]
names = ("rate", "depth", "width")
grid = [dict(zip(names, values, strict=True)) for values in product(rates, depths, widths)]
print(f"{len(grid)} trials, from {grid[0]} to {grid[-1]}")

# %% [markdown]
# ## One trial
#
# First the network, in any depth and width, and its errors in dollars on some rows. No price in the table is above
# the cap, so no prediction need be.


# %%
def make_model(depth: int, width: int) -> nn.Module:
    sizes = [x.shape[1], *[width] * depth]
    layers = [f for a, b in pairwise(sizes) for f in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 1), nn.Flatten(0))


def errors(model: nn.Module, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    with torch.no_grad():
        dollars = model(x[rows].to(device)).cpu() * std + mean
    return dollars.clamp(max=cap).double() - price[rows]


# %% [markdown]
# Then a plain training loop for one process. Compare it with lesson 11's: no sampler, no DDP, nobody to wait for.
# That is the whole gain. The seed is the trial's own, so that it computes the same on whichever rank it runs.


# %%
def run_trial(trial: dict, epochs: int, seed: int, device: torch.device, batch: int = 480):
    torch.manual_seed(seed)
    model = make_model(trial["depth"], trial["width"]).to(device)
    inputs, target = x[fit_rows].to(device), ((price[fit_rows] - mean) / std).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial["rate"], weight_decay=0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, trial["rate"], total_steps=epochs * (len(inputs) // batch), pct_start=0.1
    )
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(batch)[: len(inputs) // batch]:
            loss = nn.functional.mse_loss(model(inputs[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model, errors(model, valid_rows, device)


# %% [markdown]
# ## Every rank its trials
#
# The simplest way to deal: rank `r` of `N` takes every `N`-th trial, from the `r`-th on. It writes a small record of each
# and keeps only the network of its best so far. "Best" needs care. A trial whose loss exploded has NaN for a score,
# which `min` may well pick, since nothing is smaller than NaN; and ties need a rule that all ranks share.


# %%
def place(record: dict) -> tuple:
    return math.isnan(record["rmse"]), record["rmse"], record["trial"]  # NaN last; then no ties


def my_trials(grid, epochs, seed, pg):
    records, kept = [], None
    for i in progress(range(pg.rank, len(grid), pg.world_size), "trial"):
        begin = time.time()
        model, wrong = run_trial(grid[i], epochs, 1000 * seed + i, pg.device)
        score = {"trial": i, "rmse": wrong.square().mean().sqrt().item(), "wrong": wrong}
        times = {"rank": pg.rank, "begin": begin, "end": time.time()}
        records.append(grid[i] | score | times)
        kept = model if min(records, key=place) is records[-1] else kept
        report(rmse=score["rmse"])
    return records, kept


# %% [markdown]
# ## Agree, then share
#
# Now the ranks talk, for the first and only time. Records are small, so everybody gets everybody's:
# `all_gather_object`. From equal lists, all ranks conclude the same winner without another word. Its weights,
# though, lie on one rank only. That rank **broadcasts** them: the others build a network of the winner's
# shape and let its tensors be overwritten. **What would happen if two ranks disagreed about the winner?**


# %%
def agree_and_share(records, kept, pg):
    gathered = [None] * pg.world_size
    dist.all_gather_object(gathered, records)
    everyone = sorted((r for part in gathered for r in part), key=lambda r: r["trial"])
    best = min(everyone, key=place)
    model = make_model(best["depth"], best["width"]).to(pg.device)
    if pg.rank == best["rank"]:
        model = kept
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, src=best["rank"])
    return everyone, model.cpu().state_dict()


def search(grid, epochs, seed):
    with process_group() as pg:
        return agree_and_share(*my_trials(grid, epochs, seed, pg), pg)


# %% [markdown]
# They would wait for different senders, or overwrite tensors of different shapes: a hang, or an error. Hence the shared
# rule. (Here `launch` could hand the weights round; ranks on several machines have only each other.)
#
# Let us run it, with `threads=1`: each network computes on one core, so that its result cannot depend on how many
# ranks share the machine. **Which corner of the grid will win?**

# %%
epochs = {"smoke": 1, "quick": 20, "full": 40}[preset]
options = {"start_method": start_method, "threads": 1}
begin = time.perf_counter()
results = launch(search, grid, epochs, seed, nprocs=world_size, **options)
train_seconds = time.perf_counter() - begin
records, weights = results[0]

# %%
best, done = min(records, key=place), pd.DataFrame(records)
same = all(torch.equal(w[k], weights[k]) for _, w in results for k in weights)
print(f"trial {best['trial']} of {len(done)} wins; it ran on rank {best['rank']}")
print(f"all {world_size} ranks hold its weights, equal to the last bit: {same}")

# %%
cells = done.pivot(index=["depth", "width"], columns="rate", values="rmse")
title = f"{best['depth']} hidden layers of {best['width']} at rate {best['rate']:g} do best: "
title += f"${best['rmse']:,.0f}"
shapes = [f"{depth} × {width}" for depth, width in cells.index]
axes = ("learning rate", "hidden layers × width", "validation RMSE (US dollars)")
fig = heat_map(cells, shapes, cells.columns, title, *axes, houses.origin)
show(fig, alt=f"Heat map of validation errors, {len(cells)} shapes by {len(rates)} rates. {title}")

# %% [markdown]
# Read it row by row: does the same rate suit every shape? Where it does not, a rate tuned for one shape is unfair to the
# others; that is why a grid tries *all* combinations. And a winner at the rim is a hint to extend the grid.
#
# ## Who waited for whom?
#
# Every rank got as many trials as the next, give or take one. **So were they all done at the same time?** Each record
# says when its trial began and ended.

# %%
start, busy = done["begin"].min(), done["end"] - done["begin"]
last = done.groupby("rank")["end"].max() - start
idle = 1 - busy.sum() / (world_size * last.max())
title = f"Idle for {idle:.0%} of the time: the first rank is done after {last.min():.0f} s, "
title += f"the last after {last.max():.0f} s"

# %%
size = (7.2, 1.9 + 0.5 * world_size)
fig, ax = figure(title, xlabel="time (s)", ylabel="rank", size=size, origin=houses.origin)
for width, colour, hatch in zip(widths, COLOURS, ("", "///"), strict=False):
    some = done["width"] == width
    look = {"color": colour, "hatch": hatch, "edgecolor": "white", "label": f"width {width}"}
    ax.barh(done["rank"][some], busy[some], left=done["begin"][some] - start, **look)
ax.set_yticks(range(world_size))
ax.invert_yaxis()
fig.legend(loc="outside lower right", ncols=2)
show(fig, alt=f"A lane for each rank, a bar for each trial. {title}")

# %% [markdown]
# In the grid the widths take turns: narrow, wide, narrow, wide. Deal that to 2 ranks in turn, and one gets all the
# narrow networks, the other all the wide ones. Dealing in turn is fair in number and in nothing else. How to deal so
# that hardly anyone idles, with the costs known or not, is left to you: exercises 12.1 and 12.3.
#
# ## Does the number of ranks change the result?
#
# With DDP, N ranks learned what one learns *up to rounding*. Here each trial is computed by one process, on one thread, from
# a seed of its own. **How equal will the scores of 1, 2 and 3 ranks be?** (A few trials and epochs, on the CPU.)

# %%
few = grid[:6]
runs = {n: launch(search, few, 2, seed, nprocs=n, device="cpu", **options)[0] for n in (1, 2, 3)}
same = all(torch.equal(w[k], runs[1][1][k]) for _, w in runs.values() for k in w)
print(f"the winner's weights agree to the last bit: {same}")
scores = pd.DataFrame({n: [t["rmse"] for t in trials] for n, (trials, _) in runs.items()})
scores.rename_axis("trial").rename_axis("ranks", axis=1).style.format("{:,.9f} $")

# %% [markdown]
# To the last digit, so there is no rounding left for a table of equivalence to judge. And anyone can repeat one trial alone.
#
# ## Was it faster?
#
# In lesson 11 two ranks paid for every gradient, and you saw what came of it. Now there is nothing to exchange. Take four trials of equal length, so that nobody waits. Two ranks compute on one core each; a single
# process may use one core or all. **How many times as many trials will two ranks get done?**


# %%
def seconds(trials, epochs):
    with process_group() as pg:
        begin = time.perf_counter()
        my_trials(trials, epochs, 0, pg)
        return time.perf_counter() - begin


alike = [{"rate": 0.002, "depth": 2, "width": 256}] * 4
ways = {"1 rank, 1 core": (1, 1), f"1 rank, {cores()} cores": (1, cores()), "2 ranks": (2, 1)}
speed = dict.fromkeys(ways, 0.0)
for name, (n, threads) in 2 * list(ways.items()):  # twice: other programs may be in the way
    calm = {"start_method": start_method, "device": "cpu", "nprocs": n, "threads": threads}
    slowest = max(launch(seconds, alike, math.ceil(epochs / 10), **calm))
    speed[name] = max(speed[name], 60 * len(alike) / slowest)

# %%
alone, together = max(list(speed.values())[:2]), speed["2 ranks"]
title = f"2 ranks do {together / alone:.2f} times as many trials as one process at its best"
axis = "short trials a minute (more is better)"
fig = bars(speed, title, axis, "2 ranks", ylabel="who", largest_first=True)
show(fig, alt=f"Trials a minute: {', '.join(f'{k} {v:,.0f}' for k, v in speed.items())}")

# %% [markdown]
# If that is less than 2, messages are not to blame: during the trials there are none. Ranks of one machine still share its
# cores, its memory, and whatever else runs there.
#
# ## How lucky was the winner?
#
# The winner is the best on *these* validation rows, by skill and by luck. To see the luck alone, cut the rows into two
# random halves. Choose the winner on one half, judge it on the other, and do so many times. **On which half will it
# look better?**

# %%
squared = np.stack(done["wrong"][np.isfinite(done["rmse"])]) ** 2  # trials × rows
random, curve = np.random.default_rng(seed), []
for n in range(1, len(squared) + 1):
    gaps = []
    for _ in range(200):
        some, rows = random.permutation(len(squared))[:n], random.permutation(squared.shape[1])
        a, b = (squared[np.ix_(some, r)].mean(1) ** 0.5 for r in np.array_split(rows, 2))
        gaps += [b[a.argmin()] - a.min(), a[b.argmin()] - b.min()]
    curve.append(np.mean(gaps))

# %%
title = f"The winner of {len(squared)} trials looks ${curve[-1]:,.0f} better than it is"
axes = ("trials to choose from", "looks better by (US dollars of RMSE)")
fig = lines({"luck": curve}, title, *axes, houses.origin)
show(fig, alt=f"How much better the winner looks, against the number of trials. {title}")

# %% [markdown]
# With one trial there is nothing to choose and no luck; with many, the winner's score flatters it: the **winner's
# curse**. (All validation rows flatter less than half of them.) So never report the score by which a winner won, but one
# from rows that had no say in the choice.
#
# ## The test, once
#
# Only the winner sees the test rows, and only now. Each rank predicts its part of them; `rmse_over_ranks` exchanges sums
# and counts, as you did by hand in lesson 11.


# %%
def test(weights: dict) -> float:
    with process_group() as pg:
        model = make_model(best["depth"], best["width"]).to(pg.device)
        model.load_state_dict(weights)
        mine = test_rows[shard_indices(len(test_rows), pg.rank, pg.world_size)]
        wrong = errors(model, mine, pg.device)
        return rmse_over_ranks(wrong, torch.zeros_like(wrong))


test_rmse = launch(test, weights, nprocs=world_size, **options)[0]
print(f"the winner: validation ${best['rmse']:,.0f}, test ${test_rmse:,.0f}")

# %% [markdown]
# (Their difference is not the luck alone: the test rows are other houses, easier or harder ones.)
#
# ## Beside scikit-learn's search
#
# `GridSearchCV` does for scikit-learn's models what we did by hand, with `n_jobs` processes. We give it as many processes
# and trials, the same rows to fit and to validate on, and a strong model: gradient boosting. **Who will win, and whose
# processes will idle less?**

# %%
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from threadpoolctl import threadpool_limits

ready = pd.concat([table, pd.get_dummies(houses.frame["ocean_proximity"], dtype=float)], axis=1)
choices = {
    "learning_rate": [0.03, 0.06, 0.12, 0.24][: len(rates)],
    "max_leaf_nodes": [15, 31, 63][: len(depths)],
    "max_features": [0.25, 0.5],
}
trees = {"smoke": 10, "quick": 400, "full": 800}[preset]
boosting = HistGradientBoostingRegressor(max_iter=trees, early_stopping=False, random_state=seed)
fold = PredefinedSplit([0] * len(valid_rows) + [-1] * len(fit_rows))  # 0: validate, -1: only fit
how = {"scoring": "neg_root_mean_squared_error", "cv": fold, "n_jobs": world_size, "refit": False}
begin = time.perf_counter()
rival = GridSearchCV(boosting, choices, **how)
rival.fit(ready.iloc[train_rows], price[train_rows].numpy())
rival_seconds = time.perf_counter() - begin

# %%
with threadpool_limits(1):  # one thread, as our networks
    boosting.set_params(**rival.best_params_).fit(ready.iloc[fit_rows], price[fit_rows].numpy())
actual, tried = price[test_rows].numpy(), pd.DataFrame(rival.cv_results_)
rival_rmse = np.sqrt(np.mean((boosting.predict(ready.iloc[test_rows]) - actual) ** 2))
ours = busy.sum() / world_size / train_seconds
theirs = (tried["mean_fit_time"] + tried["mean_score_time"]).sum() / world_size / rival_seconds
judged = {
    "networks, our search": [len(grid), train_seconds, ours, best["rmse"], test_rmse],
    "boosting, GridSearchCV": [len(tried), rival_seconds, theirs, -rival.best_score_, rival_rmse],
    "mean of the rows to fit": [0, 0, None, None, np.sqrt(np.mean((mean.item() - actual) ** 2))],
}
columns = ["trials", "seconds", "time at work", "validation RMSE", "test RMSE"]
looks = dict.fromkeys(columns, "{:,.0f}") | {"time at work": "{:.0%}"}
pd.DataFrame(judged, columns).T.style.format(looks, na_rep="")

# %% [markdown]
# The last column counts, though with one seed a few hundred dollars decide nothing. (Both would do better if the winner were
# trained again with the validation rows; lesson 11 had them, and more epochs.) Compare the time at work, too:
# scikit-learn's processes fetch a trial when they are free, instead of being dealt all beforehand. You will build that.

# %%
samples = len(grid) * epochs * (len(fit_rows) // 480 * 480)
record_results(
    preset=preset,
    seed=seed,
    world_size=world_size,
    data_origin=houses.origin,
    best_rmse_dollars=test_rmse,
    best_validation_rmse_dollars=best["rmse"],
    rival_rmse_dollars=rival_rmse,
    trials=len(grid),
    idle_share=idle,
    train_seconds=train_seconds,
    samples_per_second=samples / train_seconds,
)

# %% [markdown]
# **Exercises:** [`exercises/12_house_prices_search.ipynb`](../exercises/12_house_prices_search.ipynb). You will deal trials of known length so that hardly anyone
# idles, share the best weights without sending the others, and build the queue that needs to know no lengths.
#
# ## Take-away
#
# > Trials that need nothing of each other are the easiest thing to spread: deal them out, gather the scores, broadcast
# > the winner. What is lost is lost to waiting, so mind the order in which trials are dealt. And the best of
# > many scores flatters the winner: the test rows come once, at the end.
#
# **To go further**
# - Bergstra, Bengio: [Random Search for Hyper-Parameter Optimization](https://jmlr.org/papers/v13/bergstra12a.html), 2012:
#   why random points often beat a grid.
# - Li et al.: [Hyperband](https://jmlr.org/papers/v18/16-558.html), 2018: stop poor trials early. scikit-learn has a
#   relative, [successive halving](https://scikit-learn.org/stable/modules/grid_search.html#successive-halving-user-guide).
# - Cawley, Talbot: [On Over-fitting in Model Selection](https://jmlr.org/papers/v11/cawley10a.html), 2010: the luck
#   of the winner, in depth.
