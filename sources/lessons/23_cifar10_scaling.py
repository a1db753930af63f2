# %% [markdown]
# # CIFAR-10: how much faster are N ranks?
#
# **You will learn**
# - to measure strong and weak scaling fairly, and to say on which hardware;
# - to find out where the time goes when N ranks are slower than one;
# - what a larger batch does to the accuracy, and to sweep over a whole lesson.
#
# *About 40 minutes; the cells run for about three. Up to 4 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = (
    None  # the largest number of ranks; None: one for each GPU, or 4 on the CPU
)
preset: str = "quick"  # "smoke", "quick" or "full": how long to measure and to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights and order of the batches; the split never moves
sweep_folder: str = ""  # a finished `course sweep 20 …`; empty: make a small one
start_method: str = "auto"  # how launch starts ranks

# %%
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DistributedSampler

from course_lib import (
    accuracy_over_ranks,
    choose_preset,
    collect_results,
    launch,
    process_group,
    progress,
    record_results,
    shard_indices,
    summary,
    trace,
)
from course_lib.data import cifar10
from course_lib.equivalence import equivalence_table
from course_lib.group import cores

# %%
from course_lib.plots import COLOURS, bars, figure, lanes, lines, show

preset, gpus = choose_preset(preset), torch.cuda.device_count()
most = world_size or (gpus if gpus > 1 else 4)
sizes = sorted({n for n in (1, 2, 4, 8, 16) if n <= most} | {most})
options = {"start_method": start_method, "device": "auto" if gpus >= most > 1 else "cpu"}
hardware = f"{gpus} GPUs" if options["device"] == "auto" else f"{cores()} CPU cores"

# %% [markdown]
# ## Ask the question right
#
# "How much faster is it on four?" is two questions. **Strong scaling**: the same work, done by more ranks; the global batch stays, each rank's part shrinks. **Weak
# scaling**: more work for more ranks; each rank's part stays, the batch grows. In both, what counts is how many pictures all ranks train in a second.
#
# Network and data are lesson 20's. `pictures_per_second` trains for a while, leaves out the first steps, in which connections are made and buffers filled, and
# lets the slowest rank decide.

# %%
data = cifar10.load(source)
fit_rows, valid_rows = cifar10.split(data.train_labels)
MEAN, STD = (torch.tensor(c)[:, None, None] for c in (cifar10.MEAN, cifar10.STD))


def make_model() -> nn.Module:
    torch.manual_seed(seed)
    blocks = []
    for inputs, outputs in pairwise((3, 16, 32, 64)):
        blocks += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(1024, 10))
    return model.to(memory_format=torch.channels_last)


def prepare(rows: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    images = data.train_images[rows].to(device) / 255
    return (images - MEAN.to(device)) / STD.to(device), data.train_labels[rows].to(device)


# %%
def pictures_per_second(mine: int, steps: int, warm: int = 5) -> float:
    with process_group() as pg:
        model = DistributedDataParallel(make_model().to(pg.device))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(warm + steps):
            if step == warm:
                dist.barrier()
                begin = time.perf_counter()
            rows = fit_rows[torch.randint(len(fit_rows), (mine,))]
            images, labels = prepare(rows, pg.device)
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()  # on a GPU: wait until it is done
        slowest = torch.tensor(time.perf_counter() - begin, device=pg.device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        return steps * mine * pg.world_size / slowest.item()


# %% [markdown]
# Everything is measured in turn, several times over, and the best of each counts: other programs can only make it slower. **On this machine, will the second rank double the
# speed? And the fourth?**

# %%
batch = 480
steps, rounds = {"smoke": (2, 1), "quick": (7, 2), "full": (100, 3)}[preset]
strong, weak = dict.fromkeys(sizes, 0.0), dict.fromkeys(sizes, 0.0)
for _ in range(rounds):
    for n in sizes:
        for found, mine in ((strong, batch // n), (weak, batch)):
            speed = launch(pictures_per_second, mine, steps, nprocs=n, **options)[0]
            found[n] = max(found[n], speed)

# %%
table = {
    "strong: pictures/s": strong,
    "weak: pictures/s": weak,
    "strong: efficiency": {n: strong[n] / strong[1] / n for n in sizes},
    "weak: efficiency": {n: weak[n] / weak[1] / n for n in sizes},
}
table = pd.DataFrame(table).rename_axis("ranks")
efficiency = table["strong: efficiency"].iloc[-1]
table.round(2)

# %%
up = strong[most] / strong[1]
title = f"{most} ranks train {up:.2f} times as fast as one, on {hardware}"
series = {
    "ideal: N ranks, N times": (sizes, sizes),
    "strong scaling": (sizes, [strong[n] / strong[1] for n in sizes]),
    "weak scaling": (sizes, [weak[n] / weak[1] for n in sizes]),
}
ylabel = f"times as fast as one rank (on {hardware})"
show(lines(series, title, "ranks", ylabel, data.origin), alt=f"Speed-up by ranks. {title}")

# %% [markdown]
# **Efficiency** is the speed-up divided by the number of ranks: what share of the hardware's promise is kept. Before one blames communication, mind what "one rank" is here. On a CPU a single process
# may use *all* cores (torch spreads each operation over threads); N ranks share the same cores. Nobody has brought new hardware, so there is nothing to win but
# what the threads lose.
#
# ## Where does the time go?
#
# Two experiments tell. First: let every rank train **without talking** (`no_sync`). What is still lost then, is lost by sharing cores and memory. Second: let them talk. What is lost on top is
# the averaging: copying gradients into buckets (one rank alone does that, too), sending them, waiting for the slowest. **Which loss will be the larger?**


# %%
def seconds_a_step(mine: int, steps: int, talk: bool, warm: int = 5) -> float:
    with process_group() as pg:
        model = DistributedDataParallel(make_model().to(pg.device))
        images, labels = prepare(fit_rows[:mine], pg.device)
        times = []
        for _ in range(warm + steps):
            dist.barrier()
            begin = time.perf_counter()
            if talk:
                cross_entropy(model(images), labels).backward()
            else:
                with model.no_sync():
                    cross_entropy(model(images), labels).backward()
            times.append(time.perf_counter() - begin)
        middle = torch.tensor(times[warm:]).median()
        dist.all_reduce(middle, op=dist.ReduceOp.MAX)
        return middle.item()


# %%
parts = {}
for n in sizes:
    alone = launch(seconds_a_step, batch // n, steps, False, nprocs=1, threads=1, **options)[0]
    quiet = launch(seconds_a_step, batch // n, steps, False, nprocs=n, threads=1, **options)[0]
    talking = launch(seconds_a_step, batch // n, steps, True, nprocs=n, threads=1, **options)[0]
    parts[f"{n} rank{'s' * (n > 1)}"] = [alone, quiet - alone, talking - quiet]
names = [
    "its part, with the machine to itself",
    "sharing cores and memory",
    "copying, sending, waiting",
]
parts = 1e3 * pd.DataFrame(parts, index=names).T.clip(lower=0)
parts.round(1)

# %%
last = parts.iloc[-1]
largest = last.iloc[1:].idxmax()
title = (
    f"With {most} ranks, {largest} costs {last[largest]:.0f} ms of a step of {last.sum():.0f} ms"
)
fig, ax = figure(
    title, xlabel="time of a step (ms)", ylabel="world size", size=(7.2, 3.2), origin=data.origin
)
left = 0 * parts[names[0]]
for i, name in enumerate(names):
    ax.barh(
        parts.index, parts[name], left=left, label=name, color=COLOURS[i], hatch=["", "//", ".."][i]
    )
    left = left + parts[name]
ax.invert_yaxis()
ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.25), ncols=3)
show(fig, alt=f"Stacked bars of the parts of a step. {title}")

# %% [markdown]
# (Here every rank has a single thread, so that the parts can be compared.) The first part shrinks with N, as promised. Whether the whole does, depends on the other two.
#
# A timeline shows the same in a single step. DDP's own all_reduces are called from C++, where `trace` cannot see them. So hand DDP a **communication hook**: a function of ours that it
# calls for every bucket instead of its own all_reduce.


# %%
def traced_all_reduce(_state, bucket):
    average = bucket.buffer().div_(dist.get_world_size())
    dist.all_reduce(average)
    done = torch.futures.Future()
    done.set_result(average)
    return done


def one_step(mine: int):
    with process_group() as pg:
        model = DistributedDataParallel(make_model().to(pg.device), bucket_cap_mb=0.05)
        model.register_comm_hook(None, traced_all_reduce)
        images, labels = prepare(fit_rows[:mine], pg.device)
        for _ in range(4):  # the last one is shown
            dist.barrier()
            with trace() as lane:
                cross_entropy(model(images), labels).backward()
        return lane


# %%
traces = launch(one_step, batch // most, nprocs=most, **options)
waiting = summary(traces)["waiting, ms"]
whole = 1e3 * max(lane.end - lane.begin for lane in traces)
title = (
    f"In a step of {whole:.0f} ms one of {most} ranks waits {waiting.max():.0f} ms for the others"
)
show(lanes(traces, title), alt=f"Lanes of {most} ranks in one training step. {title}")

# %% [markdown]
# (Our hook waits for each all_reduce at once, so it overlaps nothing; lesson 06 showed what DDP would hide.) The quick wait for the slow, in every step. With more ranks than cores some
# rank is always waiting for its turn on a core, and all others for it.
#
# ## A larger batch is not free
#
# Weak scaling keeps each rank's part, so there are fewer messages for the same pictures. But the batch grows, and an epoch has fewer steps. What does that do to the accuracy? A rule of thumb (Goyal et al., 2017) says: k times the batch, k
# times the rate, and **warm up**, that is, begin with a small rate. **Which of the four runs below will have learnt most from the same pictures?**


# %%
def train(rows, batch, rate, warm_up, epochs):
    with process_group() as pg:
        model = DistributedDataParallel(make_model().to(pg.device))
        sampler = DistributedSampler(rows, seed=seed)
        batches = BatchSampler(sampler, batch // pg.world_size, drop_last=True)
        optimizer = torch.optim.SGD(model.parameters(), rate, 0.9, nesterov=True)
        rising = max(1, warm_up * epochs * len(batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1, (k + 1) / rising))
        losses = []
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            for dealt in progress(batches, f"batch {batch}, epoch {epoch + 1} of {epochs}"):
                images, labels = prepare(rows[dealt], pg.device)
                loss = cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
        mine = valid_rows[shard_indices(len(valid_rows), pg.rank, pg.world_size)]
        with torch.no_grad():
            images, labels = prepare(mine, pg.device)
            right = accuracy_over_ranks(model.module(images).argmax(dim=1), labels)
        losses = torch.stack(losses)
        dist.all_reduce(losses)
        return (losses / pg.world_size).tolist(), model.module.cpu().state_dict(), right


# %%
rows = fit_rows[: {"smoke": 2400, "quick": 10_800, "full": 45_000}[preset]]
epochs, ranks = {"smoke": 1, "quick": 3, "full": 10}[preset], min(2, most)
plans = {
    "batch 120, rate 0.01": (120, 0.01, 0),
    "batch 480, same rate": (480, 0.01, 0),
    "batch 480, 4 × rate": (480, 0.04, 0),
    "batch 480, 4 × rate, warm-up": (480, 0.04, 0.3),
}
begin = time.perf_counter()
runs = {
    n: launch(train, rows, *plan, epochs, nprocs=ranks, **options)[0] for n, plan in plans.items()
}
train_seconds = time.perf_counter() - begin

# %%
right = {name: accuracy for name, (_, _, accuracy) in runs.items()}
small, *large = right
title = f"{small}: {right[small]:.0%} right; with 4 times the batch, {max(right[n] for n in large):.0%} at best"
fig = bars(
    right,
    title,
    "validation accuracy (share of right answers)",
    small,
    data.origin,
    "run",
    largest_first=True,
)
show(fig, alt=f"Validation accuracy of four runs: {right}")

# %% [markdown]
# A large batch gives a better gradient, but a quarter as many steps. A larger rate makes up for some of that, until the first steps, taken from wild weights, become too large; that is what
# warm-up is for. The rule has an end as well: double the rates in all four plans, and see. **Time to accuracy**, not pictures a second, is what a faster training is judged by.
#
# All this stands on the equality of N ranks and one, here once more, for 20 steps.

# %%
few = fit_rows[: 20 * 120]
pairs = {n: launch(train, few, 120, 0.002, 0, 1, nprocs=n, **options)[0][:2] for n in (1, ranks)}
equivalence = equivalence_table(pairs, tolerance=1e-5)
equivalence.map("{:.1e}".format)

# %% [markdown]
# ## Sweep over a whole lesson
#
# The runs above were short. For the real thing nobody need copy code out of a lesson: every lesson has parameters, and `course sweep` runs it for all their combinations, one after the
# other, with papermill. The line after `$` is what you would type; with `preset=quick`, `batch=120,480` and more seeds it takes its time. What comes out is a notebook a run, and a table.

# %%
if not sweep_folder:
    out = tempfile.TemporaryDirectory(prefix="sweep-")  # goes with the kernel
    wanted = {
        "preset": "smoke",
        "source": source,
        "seed": seed,
        "world_size": "1,2",
        "batch": "120",
    }
    words = [
        "sweep",
        "20",
        *(w for k, v in wanted.items() for w in ("-p", f"{k}={v}")),
        "--out",
        out.name,
    ]
    print("$ course", *words[:-2])
    command = [sys.executable, "-m", "course_lib.cli", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as sweep:
        print(*sweep.stdout, sep="")
    [sweep_folder] = Path(out.name).iterdir()

# %%
found = collect_results(sweep_folder)
found = found[~found["failed"]]
columns = ["world_size", "batch", "preset", "test_accuracy", "train_seconds", "samples_per_second"]
found[columns].sort_values(["batch", "world_size"]).round(3)

# %% [markdown]
# Now time and accuracy in one picture: a line for each batch, the accuracy at each point, and dashed what N ranks would take if they were N times as fast as one. **Which batch is soonest at an accuracy that you
# would take?**

# %%
seeds = found.groupby(["batch", "world_size"])[["train_seconds", "test_accuracy"]].median()
fastest = seeds["train_seconds"].idxmin()
title = (
    f"Soonest done: {fastest[1]} ranks, batch {fastest[0]}, {seeds.loc[fastest].iloc[1]:.0%} right"
)
how = ", ".join(sorted(found["preset"].unique()))
fig, ax = figure(
    f"{title} (preset {how})",
    xlabel="ranks",
    ylabel=f"training time (s), on {hardware}",
    origin=data.origin,
)
for i, (size, runs_of_it) in enumerate(seeds.groupby("batch")):
    ranks_of_it = runs_of_it.index.get_level_values("world_size")
    times = runs_of_it["train_seconds"].to_numpy()
    ax.plot(ranks_of_it, times, "o-", color=COLOURS[i], label=f"batch {size}")
    ideal = times[0] * ranks_of_it[0] / ranks_of_it
    ax.plot(ranks_of_it, ideal, "--", color=COLOURS[i], label=f"batch {size}, ideal")
    for n, seconds, share in zip(ranks_of_it, times, runs_of_it["test_accuracy"], strict=True):
        ax.annotate(f"{share:.0%}", (n, seconds), (6, 6), textcoords="offset points")
ax.set_xticks(sorted(found["world_size"].unique()))
ax.set_ylim(0)
ax.legend()
show(fig, alt=f"Training time by ranks, a line for each batch. {title}")

# %% [markdown]
# `train_seconds` includes the start of the ranks, as your watch would. With the preset `smoke` the accuracies mean nothing: it trains for seconds. An instructor runs the long sweep overnight
# and gives its folder to this lesson as `sweep_folder`; then the picture is the real one.

# %%
record_results(
    preset=preset,
    seed=seed,
    world_size=most,
    data_origin=data.origin,
    efficiency=efficiency,
    weak_efficiency=table["weak: efficiency"].iloc[-1],
    train_seconds=train_seconds,
    samples_per_second=strong[most],
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
)

# %% [markdown]
# **Exercises:** [`exercises/23_cifar10_scaling.ipynb`](../exercises/23_cifar10_scaling.ipynb). You will compute efficiency from a table of runs, and explain a speed-up
# below 1 from a timeline.
#
# ## Take-away
#
# > Say which scaling you mean, and on which hardware: N ranks on the cores of one cannot be N times as fast. What a step loses, it loses to sharing, to the averaging, or to waiting for
# > the slowest, and each can be measured alone. A larger batch buys speed with steps; judge by the time to an accuracy.
#
# **To go further**
# - Goyal et al.: [Accurate, Large Minibatch SGD](https://arxiv.org/abs/1706.02677), 2017: the rule of the rate, and warm-up.
# - Shallue et al.: [Measuring the Effects of Data Parallelism on Neural Network Training](https://arxiv.org/abs/1811.03600), 2018: how far a larger batch helps.
# - Lesson 63 takes the step apart with a profiler. Next: lesson 30, with text.
