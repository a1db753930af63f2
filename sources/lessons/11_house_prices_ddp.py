# %% [markdown]
# # House prices: one network, several ranks
#
# **You will learn**
# - to train one model on several ranks with `DistributedDataParallel`, and what it adds to a plain loop;
# - to prove that N ranks learn what one process would have learned;
# - to compute a test error over ranks that is exact, and to judge it beside honest baselines.
#
# *About 40 minutes; the cells run for about two. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights and order of the batches; the split never moves
start_method: str = "auto"  # how launch starts ranks

# %%
import time

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

from course_lib import (
    choose_preset,
    choose_world_size,
    launch,
    process_group,
    progress,
    record_results,
    report,
    shard_indices,
    torchrun,
    write_script,
)
from course_lib.data import housing
from course_lib.equivalence import equivalence_table
from course_lib.group import cores
from course_lib.plots import bars, lines, predicted_against_actual, show

world_size, preset = choose_world_size(world_size), choose_preset(preset)

# %% [markdown]
# ## The data, ready for a network
#
# Lesson 10 made clean numbers out of the census table: gaps filled with what the *training* rows say, ratios
# added, one fixed split. `housing.features` and `housing.split` do the same in two calls.

# %%
houses = housing.load(source)
train_rows, test_rows = housing.split(len(houses.frame))
table = housing.features(houses.frame, fit_on=train_rows)
price = torch.tensor(houses.frame[housing.TARGET].to_numpy(), dtype=torch.float32)
table.head(3)

# %% [markdown]
# A network multiplies each number by a weight: twice the latitude, twice the effect. But prices do not rise steadily
# to the north; they jump along the coast. So we offer each number in pieces. Cut its range into **bins** that
# hold equally many training rows, and ask of every bin: is the number below it (0), above it (1), or somewhere
# inside? The network can then give each stretch of the map a slope of its own. (The idea is
# [Gorishniy et al., 2022](https://arxiv.org/abs/2203.05556).)

# %%
PLACE = ("longitude", "latitude", "north_east", "north_west")


def encode(table: pd.DataFrame, fit_on: np.ndarray) -> torch.Tensor:
    parts = [
        houses.frame["ocean_proximity"].to_numpy()[:, None] == np.array(housing.OCEAN_PROXIMITY)
    ]
    for name, column in table.items():
        bins = 128 if name in PLACE else 16
        edges = np.unique(np.quantile(column.iloc[fit_on], np.linspace(0, 1, bins + 1)))
        filled = (column.to_numpy()[:, None] - edges[:-1]) / np.diff(edges)
        parts.append(filled.clip(0, 1))
    return torch.tensor(np.concatenate(parts, axis=1), dtype=torch.float32)


x = encode(table, train_rows)
print(f"{table.shape[1]} numbers and a category became {x.shape[1]} inputs between 0 and 1")

# %% [markdown]
# ## The network
#
# Two hidden layers, nothing special. It predicts the price in standard deviations from the mean, both taken
# from the training rows, because networks learn numbers near 1 more easily than numbers near 200,000.


# %%
def make_model(inputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 1),
        nn.Flatten(0),
    )


# %% [markdown]
# ## From one process to many: three changes
#
# **Data parallelism** keeps a full copy of the model on every rank, a *replica*. Each step, every rank takes its own
# part of the batch, computes gradients on it, and all ranks average their gradients. Equal gradients make equal
# steps, so the replicas stay equal. Compared with a loop for one process, three things change:
#
# 1. `DistributedSampler` deals the rows out: in every epoch each rank gets another N-th of them;
# 2. the batch of a rank is the **global batch** divided by the world size, so that a step sees as many rows as before;
# 3. `DistributedDataParallel(model)`, **DDP** for short, copies rank 0's weights to all at the start, and averages the
#    gradients during every `backward()`.
#
# The ranks see different rows, so their losses differ, and the loss of the global batch is their mean:


# %%
def average_over_ranks(losses: list[torch.Tensor]) -> list[float]:
    mean = torch.stack(losses)
    dist.all_reduce(mean)
    return (mean / dist.get_world_size()).tolist()


# %% [markdown]
# Now the loop. Find the three changes. **And look for `set_epoch`: what would happen without it?**


# %%
def train(x, y, epochs: int, seed: int, batch: int = 480, rate: float = 2e-3):
    with process_group() as pg:
        torch.manual_seed(seed)
        model = DistributedDataParallel(make_model(x.shape[1]).to(pg.device))
        data = TensorDataset(x, (y - y.mean()) / y.std())
        sampler = DistributedSampler(data, seed=seed)
        batches = BatchSampler(sampler, batch // pg.world_size, drop_last=True)
        loader = DataLoader(data, sampler=batches, batch_size=None)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.03)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, total_steps=epochs * len(loader), pct_start=0.1
        )
        losses = []
        for epoch in progress(range(epochs), "epoch"):
            sampler.set_epoch(epoch)
            for inputs, target in loader:
                loss = nn.functional.mse_loss(model(inputs.to(pg.device)), target.to(pg.device))
                optimizer.zero_grad()
                loss.backward()  # DDP averages the gradients in here
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
            report(loss=losses[-1].item())
        return average_over_ranks(losses), model.module.cpu().state_dict()


# %% [markdown]
# Without `set_epoch`, the rows would be shuffled once, then dealt in that same order in every epoch, and no error would
# say so. (`BatchSampler` with `batch_size=None` gives the batches that `DataLoader(batch_size=…)` would, but takes
# each from the tensors in one go.) Note, too, what is *not* there: nothing sends a gradient by hand, and nothing
# synchronises in `optimizer.step()`. The averaging happens inside `backward()`, while it runs.
#
# ## Choose on validation rows
#
# Is the encoding worth its many inputs? That is a choice, and a choice made by looking at the test rows would
# make the test worthless. So a fifth of the *training* rows is set aside for validation, and both ways are
# trained on the rest. **Which do you expect to win, and by how much?**

# %%
epochs = {"smoke": 2, "quick": 30, "full": 60}[preset]
valid_rows, fit_rows = train_rows[: len(train_rows) // 5], train_rows[len(train_rows) // 5 :]
fitted = table.iloc[fit_rows]
plain = torch.tensor(((table - fitted.mean()) / fitted.std()).to_numpy(dtype="float32"))
inputs = {"plain numbers": plain, "in pieces": encode(table, fit_rows)}

# %% [markdown]
# `train` returns weights. To predict with them, put them into a model, and turn standard deviations back into dollars.
# We predict in float64: then it makes no difference, not even in the ninth digit, which rows share a batch.


# %%
def predict(weights: dict, x: torch.Tensor, fitted_on: torch.Tensor) -> torch.Tensor:
    model = make_model(x.shape[1]).double()
    model.load_state_dict(weights)
    with torch.no_grad():
        dollars = model(x.double()) * fitted_on.std() + fitted_on.mean()
    return dollars.clamp(max=fitted_on.max())  # no price in the table is above the cap


def rmse(predicted: torch.Tensor, actual: torch.Tensor) -> float:
    return (predicted - actual).double().square().mean().sqrt().item()


# %%
options = {"nprocs": world_size, "start_method": start_method}
validation = {}
for name, columns in inputs.items():
    _, weights = launch(train, columns[fit_rows], price[fit_rows], epochs, seed, **options)[0]
    predicted = predict(weights, columns[valid_rows], price[fit_rows])
    validation[name] = rmse(predicted, price[valid_rows])
pd.DataFrame({"validation RMSE, dollars": validation}).round()

# %% [markdown]
# Everything else in `train` (the batch of 480, the rate, the number of epochs and of bins) was chosen on validation
# rows of this kind as well. No setting was chosen on the test rows.
#
# ## The run
#
# Now all training rows, and the bar below moves as the ranks do. On every rank runs the same function; `launch` hands
# back what each returned, and since the replicas are equal, rank 0's weights are everybody's.

# %%
begin = time.perf_counter()
results = launch(train, x[train_rows], price[train_rows], epochs, seed, **options)
train_seconds = time.perf_counter() - begin
losses, weights = results[0]
same = all(torch.equal(weights[k], w[k]) for _, w in results for k in weights)
print(f"{train_seconds:.1f} s on {world_size} ranks; all replicas equal to the last bit: {same}")

# %% [markdown]
# ## Did N ranks learn what one would have learned?
#
# They should have: the loss is a mean, so the average of the gradients of N equal parts *is* the gradient of the whole
# batch. And the batches agree: rank r is dealt every N-th row from the r-th on, so the N parts together are one
# process's batch. Does our program keep the promise? Train 1, 2 and 4 ranks on the CPU from the same weights and compare
# the losses of 20 steps. (The bars show one rank's part of the loss.) **How large may the difference be?**

# %%
few = train_rows[: 480 * 20]  # one epoch of 20 global batches
on_cpu = {"start_method": start_method, "device": "cpu"}
runs = {n: launch(train, x[few], price[few], 1, seed, nprocs=n, **on_cpu)[0] for n in (1, 2, 4)}
equivalence = equivalence_table(runs, tolerance=1e-5)
equivalence.map("{:.1e}".format)

# %%
curves = {f"{n} rank{'s' * (n > 1)}": losses for n, (losses, _) in runs.items()}
title = f"The curves of {', '.join(map(str, runs))} ranks lie on top of each other"
fig = lines(curves, title, "step", "loss (squared standard deviations)", houses.origin)
show(fig, alt="Loss of the first 20 steps for several world sizes; the curves cannot be told apart")

# %% [markdown]
# Not zero, but as small as rounding: a sum of float32 numbers depends a little on the order of its terms, and N
# ranks add in another order than one. Such differences can grow with every step, which is why we compare only 20.
# Losses more than 1e-5 apart, `tolerance`, would have raised an error here.
#
# ## Was it faster?
#
# Equal results are half of the promise. The other half is speed, and that depends on the machine. Each rank times
# three epochs by itself; we do it twice and keep the better one, since other programs may be in the way. **On this
# machine's CPU, how many times as fast will two ranks be as one?** (One process may use all cores; two share them.)


# %%
def seconds(*arguments) -> float:
    begin = time.perf_counter()
    train(*arguments)
    return time.perf_counter() - begin


work, speed = (x[train_rows], price[train_rows], 3, seed), {}
for n in (1, 2, 1, 2):
    slowest = max(launch(seconds, *work, nprocs=n, **on_cpu))
    speed[n] = max(speed.get(n, 0), 3 * len(train_rows) / slowest)

# %%
title = f"2 ranks train {speed[2] / speed[1]:.2f} times as fast as one, on {cores()} CPU cores"
named = {f"{n} rank{'s' * (n > 1)}": rows for n, rows in speed.items()}
fig = bars(named, title, "rows trained per second (more is better)", ylabel="world size")
show(fig, alt=f"Rows per second: {', '.join(f'{k} {v:,.0f}' for k, v in named.items())}")

# %% [markdown]
# Two effects pull in opposite directions. N ranks divide the arithmetic; but on one CPU a single process can spread it
# over the cores too, and in every step N ranks must exchange one gradient for each weight of the network. Which effect
# wins depends on the machine and on what else it is doing. More ranks pay where each brings hardware of its
# own, a GPU or a machine, and where the network has more to compute than this one. Lesson 23 measures it.
#
# ## An error that is the same for every world size
#
# The test rows are divided among the ranks as well. 4,128 rows do not divide by 5, so some rank holds one row more
# than another. The tempting way, *average the ranks' RMSEs*, is then wrong, and wrong for equal parts too, because the
# mean of roots is not the root of the mean. Ranks must exchange **sums and counts**, and divide once:


# %%
def evaluate(weights: dict, x: torch.Tensor, actual: torch.Tensor) -> tuple[float, float]:
    with process_group() as pg:
        mine = shard_indices(len(x), pg.rank, pg.world_size)
        error = (predict(weights, x[mine], price[train_rows]) - actual[mine]).double()
        sums = torch.stack([error.square().sum(), error.new_tensor(len(error))]).to(pg.device)
        tempting = error.square().mean().sqrt().to(pg.device)
        dist.all_reduce(sums)
        dist.all_reduce(tempting)
        return (sums[0] / sums[1]).sqrt().item(), tempting.item() / pg.world_size


by_world = {
    n: launch(
        evaluate, weights, x[test_rows], price[test_rows], nprocs=n, start_method=start_method
    )[0]
    for n in range(1, 6)
}
columns = ["from sums and counts", "mean of the ranks' RMSEs"]
pd.DataFrame(by_world, index=columns).T.rename_axis("ranks").style.format("{:,.6f} $")

# %% [markdown]
# The left column is one number, to the last digit shown. The right one changes with the number of ranks, although the
# model and the test rows are the same. (For equal parts it can only be too low.)

# %%
test_rmse = by_world[1][0]
assert all(abs(exact / test_rmse - 1) < 1e-9 for exact, _ in by_world.values())
predicted = predict(weights, x[test_rows], price[train_rows])
squared = (predicted - price[test_rows]).square()
capped = price[test_rows] >= price.max()
share = (squared[capped].sum() / squared.sum()).item()

# %% [markdown]
# Which houses are hard? Every test row is a dot at its actual and its predicted price, or rather a
# cell in which dots are counted. A perfect model would put all of them on the diagonal. **Where do
# you expect the largest errors?** (Remember the cap that lesson 10 found.)

# %%
title = f"Off by ${test_rmse:,.0f} (root mean square)"
title += f"; {share:.0%} of the squared error is from the {capped.float().mean():.0%} at the cap"
fig = predicted_against_actual(price[test_rows], predicted, title, "US dollars", houses.origin)
show(fig, alt=f"Predicted against actual prices of the test rows; RMSE {test_rmse:,.0f} dollars")

# %% [markdown]
# ## Is that good?
#
# A number alone says little. Beside it stand the simplest guess there is (the mean), two straight lines (one on
# the plain columns, one on the inputs in pieces), and two strong classics of tabular data, all on the same training
# and test rows. Trees cut ranges into pieces by themselves and need no encoding.

# %%
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge

category = pd.get_dummies(houses.frame["ocean_proximity"], dtype=float)
ready = pd.concat([table, category.reindex(columns=housing.OCEAN_PROXIMITY, fill_value=0)], axis=1)
raw = ready[[c for c in ready if c in houses.frame or c in housing.OCEAN_PROXIMITY]]
trees = {"smoke": 10, "quick": 100, "full": 100}[preset]
tuned = {
    "max_iter": 10 * trees,
    "learning_rate": 0.05,
    "max_features": 0.5,
    "early_stopping": False,
}
rivals = {
    "linear regression": (LinearRegression(), raw),
    "linear regression, in pieces": (Ridge(), pd.DataFrame(x.numpy())),
    "random forest": (RandomForestRegressor(trees, n_jobs=-1, random_state=0), ready),
    "gradient boosting": (HistGradientBoostingRegressor(random_state=0), ready),
    "gradient boosting, tuned": (HistGradientBoostingRegressor(**tuned, random_state=0), ready),
}

# %%
scores = {"mean of the training rows": rmse(price[train_rows].mean(), price[test_rows])}
for name, (model, columns) in rivals.items():
    model.fit(columns.iloc[train_rows], price[train_rows].numpy())
    guess = torch.from_numpy(model.predict(columns.iloc[test_rows]))
    scores[name] = rmse(guess, price[test_rows])

# %%
ours = f"this network, {world_size} ranks"
scores[ours] = test_rmse
best = min(scores[name] for name in rivals)
verdict = "ahead of" if test_rmse < best else "behind"
verdict = "level with" if abs(test_rmse / best - 1) < 0.02 else verdict
title = f"The network is {verdict} the best of its rivals"
fig = bars(scores, title, "test RMSE (US dollars, less is better)", ours, houses.origin)
show(fig, alt=f"Test RMSE in dollars: {', '.join(f'{k} {v:,.0f}' for k, v in scores.items())}")

# %% [markdown]
# Be fair to the rivals: the network's settings were chosen on validation rows, and so were those of the tuned gradient
# boosting; the others run with their defaults, and all this is one seed. A few hundred dollars between two bars
# decide nothing. Now compare the two straight lines: the gap between them is mostly the work of the encoding, and
# the gap from the second to the network is what is left for the network.
#
# ## From the notebook to a cluster
#
# A cluster runs no notebooks. It runs a program, and `torchrun` starts that program once for each rank. Such a program
# cannot be handed tensors: its arguments are words on a command line, so every rank has to load the
# data by itself. A small function does that, with what the cells above have made:


# %%
def train_prices(epochs: int, seed: int = 0) -> tuple[list[float], dict]:
    """Train the network of lesson 11 on house prices."""
    return train(x[train_rows], price[train_rows], epochs, seed)


program = write_script(train_prices, "train_prices.py")
print(program.read_text().split("def encode")[0])

# %% [markdown]
# `write_script` has followed every name that `train_prices` uses, through the cells: to the network, the encoding and
# the loop, and to the lines that load the table and split it. What nobody reaches (figures, baselines, the table of
# rivals) stayed behind. Above is its beginning; open the file to read on. Now let `torchrun` start it, and `launch` the
# function. **Will the two agree to the last bit?**

# %%
by_torchrun = torchrun(program, nprocs=world_size, epochs=2, seed=seed)
by_launch = launch(train_prices, 2, seed, **options)
(losses, weights), (losses_here, weights_here) = by_torchrun[0], by_launch[0]
same = losses == losses_here and all(torch.equal(weights[k], weights_here[k]) for k in weights)
print(f"{len(losses)} losses and all weights equal to the last bit: {same}")

# %% [markdown]
# The line after `$` is what you would type in a terminal, from the course's folder. It took longer to start, since
# every rank was a fresh interpreter. `write_slurm(program, nprocs=8, nnodes=2)` would write the job for
# a Slurm cluster; lesson 53 goes there.

# %%
samples = len(train_rows) // 480 * 480 * epochs
record_results(
    preset=preset,
    seed=seed,
    world_size=world_size,
    data_origin=houses.origin,
    test_rmse_dollars=test_rmse,
    validation_rmse_dollars=validation["in pieces"],
    train_seconds=train_seconds,
    samples_per_second=samples / train_seconds,
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
)

# %% [markdown]
# **Exercises:** [`exercises/11_house_prices_ddp.ipynb`](../exercises/11_house_prices_ddp.ipynb). You will write the exact RMSE yourself, find the rows that a
# padded evaluation counts twice, and decide what becomes of the learning rate when the global batch grows.
#
# ## Take-away
#
# > Data parallelism is a sampler that deals out the rows, a batch divided by the world size, and DDP averaging
# > gradients inside `backward()`. Done right, N ranks learn what one process learns, up to rounding; check it on 20
# > steps. To measure an error over ranks, exchange sums and counts, not each rank's own error.
#
# **To go further**
# - [DistributedDataParallel](https://docs.pytorch.org/docs/stable/notes/ddp.html): how the averaging is
#   overlapped with the computation. Lesson 06 rebuilds it.
# - Gorishniy, Rubachev, Babenko: [On Embeddings for Numerical Features in Tabular Deep
#   Learning](https://arxiv.org/abs/2203.05556), 2022.
# - Next: lesson 12 searches for better settings, with one trial on each rank.
