# %% [markdown]
# # Data parallelism from scratch
#
# **You will learn**
# - how several ranks train one model: each takes a share of the batch, and they average their gradients;
# - which small slips break it without an error, and the two tests that give them away;
# - how buckets and hooks make it fast, in a class of your own that equals torch's `DistributedDataParallel`.
#
# *About 45 minutes; the cells run for about half a minute. Runs on any machine: 2 or 3 processes, Gloo on the CPU.*

# %% tags=["parameters"]
world_size: int = 3  # ranks that train together: 2 to 5 are good to look at
preset: str = "quick"  # "smoke", "quick" or "full": how long to train and to measure
seed: int = 0  # initial weights
start_method: str = "auto"  # how launch starts ranks: "auto", "forkserver" or "spawn"

# %%
import time

import pandas as pd
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from course_lib import RankError, choose_preset, launch, process_group, record_results, trace
from course_lib.equivalence import equivalence_table
from course_lib.plots import COLOURS, figure, lanes, lines, show

N, preset = max(world_size, 2), choose_preset(preset)  # one rank alone has nobody to average with
options = {"start_method": start_method, "device": "cpu"}

# %% [markdown]
# ## One model, one batch, one step
#
# scikit-learn brings 1,797 handwritten digits along, real ones, of 8 × 8 pixels. A small network will learn to read them. Batches have 120
# rows, which divide among 2, 3, 4 or 5 ranks, and every process draws the same rows in the same order.

# %%
digits = load_digits()
images, labels = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)


def make_model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def batches(steps: int) -> list[torch.Tensor]:
    order = torch.Generator().manual_seed(0)
    return list(torch.randint(len(images), (steps, 120), generator=order))


# %% [markdown]
# Now the step. **Data parallelism** rests on one fact: the loss of a batch is a mean over its rows, so its gradient is one, too. Cut the
# batch into N equal parts, compute a gradient on each, take the mean of the N gradients, and you have the gradient of the whole
# batch.
#
# So every rank keeps a copy of the model, a **replica**, and takes every N-th row. `train` leaves two things open, which we shall fill in
# several ways: `wrap`, what is done to the model beforehand, and `step`, what a rank does with its rows until the gradients are there. `apart` asks
# how far the replicas are from each other.


# %%
def train(wrap, step, steps, seeds=(seed,) * 9):
    with process_group() as pg:
        model = wrap(make_model(seeds[pg.rank]))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        losses, distances = [], []
        for rows in batches(steps):
            optimizer.zero_grad()
            losses.append(step(model, rows[pg.rank :: pg.world_size]).detach())
            optimizer.step()
            distances.append(apart(model))
        mean = torch.stack(losses)
        dist.all_reduce(mean, op=dist.ReduceOp.AVG)
        return mean.tolist(), dict(enumerate(p.detach() for p in model.parameters())), distances


def apart(model) -> float:
    """The largest difference of any weight from rank 0's, over all ranks."""
    mine = torch.cat([p.detach().flatten() for p in model.parameters()])
    first = mine.clone()
    dist.broadcast(first, src=0)
    largest = (mine - first).abs().max()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest.item()


# %% [markdown]
# First without any message: equal weights at the start, equal settings, but each rank learns from its own rows only. Then with the
# simplest message that can work, one all_reduce for each gradient. **How far apart will the replicas be at the end, in the first case and
# in the second?**


# %%
def unchanged(model):
    return model


def alone(model, rows):
    loss = cross_entropy(model(images[rows]), labels[rows])
    loss.backward()
    return loss


def averaged(model, rows):
    loss = alone(model, rows)
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad, op=dist.ReduceOp.AVG)
    return loss


# %%
steps = {"smoke": 20, "quick": 200, "full": 1000}[preset]
losses, distances = {}, {}
for step in (alone, averaged):
    begin = time.perf_counter()
    losses[step], _, distances[step] = launch(train, unchanged, step, steps, nprocs=N, **options)[0]
    seconds = time.perf_counter() - begin

# %%
drift = {"each by itself": distances[alone], "gradients averaged": distances[averaged]}
title = f"Each by itself, {N} replicas come to be {distances[alone][-1]:.2f} apart; averaged, "
title += f"{distances[averaged][-1]:g}"
show(lines(drift, title, "step", "largest difference of a weight"), alt=f"Two curves. {title}")
for step in losses:
    print(f"{step.__name__}: loss from {losses[step][0]:.2f} to {losses[step][-1]:.2f}")

# %% [markdown]
# Averaged, they are not nearly equal but *equal*: same weights, same gradient, same step. Each by itself, there are N models by the end, each
# of which has learned from its own part of every batch. And mind the last lines: both losses fall. **A falling loss does not tell whether the
# ranks train together**; you would need the right run beside it.
#
# Equal to each other is half of the promise. Are they equal to *one process* that takes the whole batch? Compare the first 20 steps.

# %%
runs = {n: launch(train, unchanged, averaged, 20, nprocs=n, **options)[0][:2] for n in (1, 2, 3)}
equivalence = equivalence_table(runs, tolerance=1e-5)
equivalence.map("{:.1e}".format)

# %% [markdown]
# Up to rounding, they are: a sum of float32 numbers depends a little on the order of its terms, and N ranks add in another order than one.
#
# ## Three slips without an error
#
# The program is short, and so are its wrong versions. In the first, every rank starts from weights of its own. In the second, the rows are taken in two halves, to save
# memory, and only the second half's gradients are averaged. In the third, the averages are asked for, and nobody waits until they
# are there.


# %%
def second_half_only(model, rows):
    first, second = rows.chunk(2)
    loss = alone(model, first) / 2
    kept = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    loss = loss + averaged(model, second) / 2
    for parameter, gradient in zip(model.parameters(), kept, strict=True):
        parameter.grad = (gradient + parameter.grad) / 2
    return loss


handles = []


def nobody_waits(model, rows):
    loss = alone(model, rows)
    time.sleep(0.001 * dist.get_rank())  # ranks are never equally fast
    for parameter in model.parameters():
        handles.append(dist.all_reduce(parameter.grad, op=dist.ReduceOp.AVG, async_op=True))
    return loss


# %% [markdown]
# **Which of the three would you notice in the loss? And in which do the replicas move apart?**

# %%
own = [seed + rank for rank in range(9)]
slips = {"its own start": (averaged, own), "second half only": (second_half_only, (seed,) * 9)}
slips["nobody waits"] = (nobody_waits, (seed,) * 9)
runs = {"right": (losses[averaged], None, distances[averaged])}
for name, (step, seeds) in slips.items():
    runs[name] = launch(train, unchanged, step, steps, seeds, nprocs=N, **options)[0]
table = {name: [lost[0], lost[-1], far[-1]] for name, (lost, _, far) in runs.items()}
pd.DataFrame(table, index=["first loss", "last loss", "replicas apart"]).T.round(3)

# %%
ends = ", ".join(f"{far[-1]:.2f}" for name, (_, _, far) in runs.items() if name != "right")
title = f"The replicas' distance gives all three slips away: {ends} at the end, instead of 0"
curves = {name: far for name, (_, _, far) in runs.items()}
show(lines(curves, title, "step", "largest difference of a weight"), alt=title)

# %% [markdown]
# With a start of their own they do not *move* apart: all take the same steps, and stay as far apart as they began. The other two do. The first slip shows as slow learning, for
# which one would blame the rate; the others end a little higher than the right one, which nobody notices without the right one beside them. So test what you build: `apart` must be
# 0, and 20 steps must equal one process.
#
# ## Fewer messages: buckets
#
# Lesson 04 found that every message has a price of its own, α, however short it is. Our network has 6 tensors; networks with hundreds are common. So gradients travel in **buckets**:
# tensors that fill one message together. Here is how to make them up, and how to send one off and take it in again. Where a parameter has no gradient, zeros
# hold its place. (Divided first and added up then, as DDP does it: the sum of large gradients might be too large a number for a type of 16 bits.)


# %%
def in_buckets(model, bucket_bytes):
    buckets, room = [], 0
    for parameter in reversed(list(model.parameters())):
        room -= parameter.nbytes
        if room < 0:  # full, or the first
            buckets.append([])
            room = bucket_bytes - parameter.nbytes
        buckets[-1].append(parameter)
    return buckets


def send(bucket):
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / dist.get_world_size()
    return dist.all_reduce(flat, async_op=True), flat


def receive(bucket, work, flat):
    work.wait()
    pieces = flat.split([parameter.numel() for parameter in bucket])
    for parameter, piece in zip(bucket, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)


# %% [markdown]
# A deeper network shows what that brings: 24 layers, 48 tensors, over six megabytes of gradients. They are averaged several times in buckets of each
# size, and the quickest counts. **How much quicker than 48 messages will a single one be?**


# %%
def make_deep() -> nn.Module:
    torch.manual_seed(seed)
    blocks = [nn.Sequential(nn.Linear(256, 256), nn.ReLU()) for _ in range(24)]
    return nn.Sequential(*blocks)


def seconds_for(sizes):
    with process_group():
        model, found = make_deep(), {}
        for size in sizes:
            buckets, times = in_buckets(model, size), []
            for _ in range(3 if preset == "smoke" else 20):
                dist.barrier()
                begin = time.perf_counter()
                for bucket, sent in [(bucket, send(bucket)) for bucket in buckets]:
                    receive(bucket, *sent)
                times.append(time.perf_counter() - begin)
            found[len(buckets)] = 1e3 * min(times)
        return found


sizes = [1_000, 300_000, 600_000, 1_200_000, 2_400_000, 10_000_000]
found = launch(seconds_for, sizes, nprocs=2, **options)[0]

# %%
most, best = max(found), min(found, key=found.get)
title = f"{most} messages take {found[most]:.1f} ms, {best} take {found[best]:.1f} ms, for the same bytes"
xlabel, ylabel = "messages that carry the gradients", "time to average them (ms)"
fig, ax = figure(title, xlabel=xlabel, ylabel=ylabel)
ax.plot(list(found), list(found.values()), "o-", color=COLOURS[0])
ax.set_ylim(bottom=0)
show(fig, alt=f"Time against the number of messages. {title}")

# %% [markdown]
# Once all gradients are there, a few large messages are cheapest. So why not a single one? Because the gradients are not there all at once.
#
# ## Sooner: hooks
#
# So far the messages wait for the end of `backward()`. But backward works through the layers from the last to the first, and the last layers' gradients are
# complete long before it is through. Autograd can tell us when: a **hook** on a parameter is called as soon as its gradient is there. **When
# will the last layer's be ready, and when the first one's?**

# %%
model, ready = make_deep(), {}
layer_of = {block[0].weight: number for number, block in enumerate(model, 1)}


def note_the_time(parameter):
    ready[layer_of[parameter]] = time.perf_counter()


for weight in layer_of:
    weight.register_post_accumulate_grad_hook(note_the_time)
loss = model(torch.randn(2048, 256)).square().mean()
begin = time.perf_counter()
loss.backward()
whole = time.perf_counter() - begin

# %%
percent = {layer: 100 * (moment - begin) / whole for layer, moment in ready.items()}
first, last = max(percent.values()), min(percent.values())
title = f"The last layer's gradient is ready after {last:.0f} % of backward, the first one's after"
title += f" {first:.0f} %"
xlabel, ylabel = "time since backward began (% of the whole)", "layer (1 is nearest to the input)"
fig, ax = figure(title, xlabel=xlabel, ylabel=ylabel)
ax.plot(list(percent.values()), list(percent), "o", color=COLOURS[0])
show(fig, alt=f"A line of dots from the last layer, ready first, to the first. {title}")

# %% [markdown]
# So the last layers' gradients can travel while the first layers' are still being computed. That is why `in_buckets` began with the last
# parameters. Now put the two together. A hook counts what is missing in each bucket, and lets a bucket go when it is complete *and all before it
# have gone*. The order matters: all ranks must call their all_reduces in the same one.


# %%
class MiniDDP(nn.Module):
    def __init__(self, module, bucket_bytes=1_000_000):
        super().__init__()
        self.module, self.buckets = module, in_buckets(module, bucket_bytes)
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.detach(), src=0)  # all start from rank 0's weights
        self.bucket_of = {p: k for k, bucket in enumerate(self.buckets) for p in bucket}
        for parameter in self.bucket_of:
            parameter.register_post_accumulate_grad_hook(self.ready)
        self.start()

    def start(self):
        self.missing, self.sent = [len(bucket) for bucket in self.buckets], []

    def forward(self, *inputs):
        return self.module(*inputs)

    def ready(self, parameter):  # called in backward, when this gradient is complete
        self.missing[self.bucket_of[parameter]] -= 1
        while len(self.sent) < len(self.buckets) and self.missing[len(self.sent)] == 0:
            self.sent.append(send(self.buckets[len(self.sent)]))

    def finish(self):  # called after backward
        for bucket in self.buckets[len(self.sent) :]:  # no gradient came for some parameter
            self.sent.append(send(bucket))
        for bucket, sent in zip(self.buckets, self.sent, strict=True):
            receive(bucket, *sent)
        self.start()


# %% [markdown]
# Fewer than 60 lines with the three functions above. It needs one call more than torch's `DistributedDataParallel`, **DDP**, which hangs
# its own `finish` onto the end of backward. To be sure that equal weights at the start are the class's own work, each rank makes a model
# from a seed of its own. **By how much will the two classes differ after 20 steps?**


# %%
def with_finish(model, rows):
    loss = alone(model, rows)
    model.finish()
    return loss


def compare(n):
    mine = launch(train, MiniDDP, with_finish, 20, own, nprocs=n, **options)[0]
    torchs = launch(train, DistributedDataParallel, alone, 20, own, nprocs=n, **options)[0]
    of_losses = max(abs(a - b) for a, b in zip(mine[0], torchs[0], strict=True))
    of_weights = max((mine[1][k] - torchs[1][k]).abs().max().item() for k in mine[1])
    return {"of losses": of_losses, "of weights": of_weights, "replicas apart": mine[2][-1]}


pd.DataFrame({f"{n} ranks": compare(n) for n in (2, 3)}).T.map("{:.1e}".format)

# %% [markdown]
# (The first two columns are the largest differences between MiniDDP and DDP.) With 2 ranks there is but one way to add two numbers. With 3, the order of the additions
# depends on a number's place in its message, and the two classes may lay out their messages differently: expect rounding errors, and no more.
#
# ## Does it overlap?
#
# `trace` shows when each bucket leaves. Two ranks take one step of the deep network, first with all buckets sent after backward, then as MiniDDP sends them. A thin line runs from the
# offer of a bucket to the end of the wait for it; where in between it moved, it does not say. The dashed line is the end of rank 0's backward.


# %%
class Late(MiniDDP):
    def ready(self, parameter):  # every bucket waits for finish
        pass


def one_step(wrap):
    with process_group():
        model, rows = wrap(make_deep()), torch.randn(512, 256)
        for _ in range(3):  # the last one is shown
            dist.barrier()
            with trace() as mine:
                model(rows).square().mean().backward()
                ended = time.monotonic()
                model.finish()
        return mine, ended


# %%
for wrap in (Late, MiniDDP):
    traces, ended = zip(*launch(one_step, wrap, nprocs=2, **options), strict=True)
    gone = sum(operation.begin < ended[0] for operation in traces[0].operations)
    title = f"{wrap.__name__}: {gone} of {len(traces[0].operations)} buckets leave during backward"
    fig = lanes(traces, title, names=False)
    fig.axes[0].axvline(1e3 * (ended[0] - min(t.begin for t in traces)), color="black", ls="--")
    show(fig, alt=f"Lanes of two ranks, all_reduces as thin lines. {title}")

# %% [markdown]
# What is hidden behind backward costs no time of its own, *if somebody else does the carrying*. A GPU has engines for that. On a CPU
# the same cores compute and carry, so the lower picture may be no shorter here, or even longer. Lesson 63 will measure it.
#
# ## What DDP expects of you
#
# Two things, and forgetting either is easy. First, that every rank uses every parameter in every step: DDP waits for *all* gradients. Here rank 1
# skips a layer in its second step. **Which rank will complain, and in which line?**


# %%
class Skips(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, skip):
        return self.first(x) if skip else self.second(self.first(x))


def skip_a_layer(find: bool) -> str:
    with process_group() as pg:
        model = DistributedDataParallel(Skips(), find_unused_parameters=find)
        for step in range(3):
            outputs = model(torch.ones(1, 4), skip=pg.rank == 1 and step == 1)
            outputs.sum().backward()
        return "three steps"


try:
    launch(skip_a_layer, False, nprocs=2, timeout=4, **options)
except RankError as error:
    print("\n".join(str(error).splitlines()[:3]))
print("with find_unused_parameters:", launch(skip_a_layer, True, nprocs=2, **options))

# %% [markdown]
# The report names rank 1, in its forward. It is the forward of the *third* step: there DDP sees that the second one's messages never left. Rank 0 has been waiting for them in its
# backward. `find_unused_parameters=True` makes DDP search the graph in every step for what will get no gradient, and send zeros for it, as `send` does. The search takes time, and DDP says so
# in a warning after a first step in which nothing was missing; set the flag only if you must.
#
# Second, equal parts. A mean of means is the mean of all only if each part has as many rows. **Four rows on three ranks: by how much is
# DDP's gradient wrong?**


# %%
def gradient(rows):
    with process_group() as pg:
        model = DistributedDataParallel(make_model(seed))
        alone(model, rows[pg.rank :: pg.world_size])
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


four = batches(1)[0][:4]
whole, parts = (launch(gradient, four, nprocs=n, **options)[0] for n in (1, 3))
print(f"off by {(parts - whole).norm() / whole.norm():.0%} of the gradient's length")

# %% [markdown]
# One rank had two rows, the others one, and each rank's mean counted the same. So drop the last, smaller batch, or weight each rank by its rows; in
# exercise 6.2 you do that without touching DDP. And if a step takes several micro-batches, only the last `backward()` need send
# anything: `model.no_sync()` tells DDP so, and in exercise 6.3 you teach your own class the same.
#
# What this lesson is judged by:

# %%
record_results(
    preset=preset,
    seed=seed,
    world_size=N,
    data_origin="real",
    train_seconds=seconds,
    samples_per_second=120 * steps / seconds,
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
)

# %% [markdown]
# **Exercises:** [`exercises/06_data_parallel_from_scratch.ipynb`](../exercises/06_data_parallel_from_scratch.ipynb). You will put all gradients into one message, weight uneven parts, and teach MiniDDP to
# wait for the last micro-batch.
#
# ## Take-away
#
# > Data parallelism is equal weights at the start and an average of gradients in every step; whether it works, the loss does not tell,
# > but the distance of the replicas and 20 steps beside one process do. Buckets make few messages of many gradients, and hooks send them while
# > backward still runs. DDP does just that, and counts on every rank to use every parameter and to hold equally many rows.
#
# **To go further**
# - Li et al.: [PyTorch Distributed: Experiences on Accelerating Data Parallel Training](https://arxiv.org/abs/2006.15704), 2020: how DDP came to
#   have its buckets, and what they gain on real networks.
# - [DDP's design note](https://docs.pytorch.org/docs/stable/notes/ddp.html): what happens in forward, in backward, and why the order of buckets
#   matters.
# - Next: lesson 10 begins the first project, house prices, and lesson 11 trains on them with DDP.
