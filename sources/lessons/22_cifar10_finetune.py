# %% [markdown]
# # CIFAR-10: fine-tune a pretrained network
#
# **You will learn**
# - to start from what a network has learned elsewhere, when there are few labelled pictures;
# - to freeze a part of it under DDP, in the right order, and to see what that saves in every step;
# - what DDP says, and does, about parameters without a gradient and about BatchNorm's buffers.
#
# *About 35 minutes; the cells run for about two. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights, order of the batches and flips; the rows never move
start_method: str = "auto"  # how launch starts ranks

# %%
import time

import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DistributedSampler
from torchvision.models import ShuffleNet_V2_X0_5_Weights, shufflenet_v2_x0_5
from torchvision.transforms import v2

from course_lib import (
    RankError,
    accuracy_over_ranks,
    choose_preset,
    choose_world_size,
    launch,
    pretrained,
    process_group,
    progress,
    record_results,
    report,
    shard_indices,
)
from course_lib.data import cifar10
from course_lib.equivalence import equivalence_table
from course_lib.plots import bars, lines, pictures, show

world_size, preset = choose_world_size(world_size), choose_preset(preset)

# %% [markdown]
# ## A task with few pictures
#
# Labels cost somebody's time. Suppose there are only a hundred labelled pictures for each of four classes: the last four of CIFAR-10. The other six classes are
# for somebody else's task. Choices are made on validation pictures of the four classes, and their test pictures come last.

# %%
OLD, NEW, SHOTS = range(6), range(6, 10), 100
data = cifar10.load(source)
fit_rows, valid_rows = cifar10.split(data.train_labels)


def rows_of(rows: torch.Tensor, labels: torch.Tensor, classes: range) -> torch.Tensor:
    return rows[torch.isin(labels[rows], torch.tensor(classes))]


each = [rows_of(fit_rows, data.train_labels, range(c, c + 1)) for c in NEW]
few, watched = torch.cat([r[:SHOTS] for r in each]), rows_of(valid_rows, data.train_labels, NEW)
test_rows = rows_of(torch.arange(len(data.test_labels)), data.test_labels, NEW)
if preset == "smoke":  # a look at a tenth is enough
    watched, test_rows = watched[::10], test_rows[::10]
some = torch.cat([r[:4] for r in each])
names = [data.classes[label] for label in data.train_labels[some]]
title = f"{len(some)} of the {len(few)} pictures that there are to learn from"
fig = pictures(data.train_images[some], names, title, origin=data.origin)
show(fig, alt=f"Small pictures: {', '.join(dict.fromkeys(names))}, four of each")

# %% [markdown]
# A network that has learned to tell *other* things apart has found edges, textures and shapes on its way, and these are useful here, too. So take such a
# network, replace its last layer, the **head**, by a new one for four classes, and train that on: **fine-tuning**. torchvision has networks with weights
# learned from the 1.2 million pictures of ImageNet. We take a small one, `shufflenet_v2_x0_5`.
#
# It was made for pictures of 224 pixels, and halves the width five times. Ours are enlarged to 64, so that more than a single pixel is left at the end, and scaled as its publisher did.

# %%
published = ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms()
prepare = v2.Compose(
    [
        v2.Resize(64, antialias=False),  # enlarging needs none
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(published.mean, published.std),
    ]
)


def flip_some(images: torch.Tensor, dice: torch.Generator, share: float) -> torch.Tensor:
    chosen = torch.rand(len(images), generator=dice) < share
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def make_model(classes: int, weights: dict | None = None) -> nn.Module:
    model = shufflenet_v2_x0_5(num_classes=classes)
    if weights is not None:  # all but the head
        body = {k: v for k, v in weights.items() if not k.startswith("fc.")}
        model.load_state_dict(body, strict=False)
    return model.to(memory_format=torch.channels_last)


weights = pretrained.load(shufflenet_v2_x0_5)  # None, if they cannot be had here

# %% [markdown]
# ## Freeze, then wrap
#
# The quickest way to use what is there: leave the **backbone**, everything before the head, as it is. With `requires_grad_(False)` it is **frozen**; only the
# head learns. Gradients that nobody computes need not travel either. Does DDP know? A **communication hook** may look at each bucket before it leaves, so it can count. (It then
# does what DDP does by itself, an all_reduce.)


# %%
def count_bytes(sent: list, bucket):
    sent.append(bucket.buffer().nbytes)
    return allreduce_hook(None, bucket)


def freeze(model: nn.Module) -> None:
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    model.eval()  # the reason follows below


def two_steps(steps: str, find: bool) -> str:
    with process_group():
        model, sent = make_model(len(NEW)), []
        for step in steps.split(", "):
            if step == "freeze":
                freeze(model)
            elif step == "keep the old head":
                model.old_head = nn.Linear(1024, len(OLD))  # forward makes no use of it
            elif step == "wrap":
                ddp = DistributedDataParallel(model, find_unused_parameters=find)
                ddp.register_comm_hook(sent, count_bytes)
        for _ in range(2):
            ddp(torch.randn(4, 3, 64, 64)).sum().backward()
        return f"{sum(sent) // 2:,} bytes a step"


# %% [markdown]
# Now in three orders, the last two also with the flag of lesson 06, `find_unused_parameters`. In the third, the old head was kept, for later, and has not been frozen. **Which of them
# will fail, and which will send less than the whole network?**

# %%
options = {"nprocs": world_size, "start_method": start_method}
on_cpu = {"start_method": start_method, "device": "cpu", "threads": 1}
cases = [("freeze, wrap", False)]
for order in ("wrap, freeze", "freeze, keep the old head, wrap"):
    cases += [(order, False), (order, True)]
says = []
for case in cases:
    try:
        says.append(launch(two_steps, *case, nprocs=2, timeout=20, **on_cpu)[0])
    except RankError as error:
        says.append(str(error).splitlines()[0].partition(" raised ")[2][:75] + " …")
table = pd.DataFrame(cases, columns=["order", "find_unused_parameters"]).assign(two_steps=says)
table.style.hide().set_properties(**{"text-align": "left"})

# %% [markdown]
# DDP decides **when it wraps** which gradients it will wait for: those of parameters that require one at that moment. Frozen beforehand, the backbone costs no message. Frozen
# afterwards, DDP waits in vain, and says so when the second step begins. The flag makes the error go
# away and nothing else better: zeros are sent for everything that DDP wanted, in every step. So is a head kept for later sent. Freeze it, or leave it out.
#
# ## Frozen is not still
#
# BatchNorm keeps more than parameters. In `train()` mode it scales by the batch at hand and moves its **running statistics**; these are *buffers*, and
# `requires_grad` does not concern them. Five steps with a frozen backbone, in each mode. **How far will its statistics have moved, and
# will the ranks have the same ones?**


# %%
def statistics(mode: bool) -> tuple[float, float]:
    with process_group() as pg:
        torch.manual_seed(0)
        model = make_model(len(NEW))
        freeze(model)
        ddp, before = DistributedDataParallel(model), model.conv1[1].running_mean.clone()
        ddp.train(mode)
        for _ in range(5):
            ddp(torch.randn(8, 3, 64, 64) + pg.rank).sum().backward()  # ranks see other pictures
        after = model.conv1[1].running_mean
        of_rank_0 = after.clone()
        dist.broadcast(of_rank_0, src=0)
        return (after - before).abs().max().item(), (after - of_rank_0).abs().max().item()


found = {
    name: launch(statistics, name == "train()", nprocs=2, **on_cpu)[1]
    for name in ("train()", "eval()")
}
pd.DataFrame(found, index=["moved", "apart from rank 0's"]).T.round(4)

# %% [markdown]
# (These are rank 1's.) In `train()` mode the frozen network changes, and ranks differ at the end of a step: each has looked at its own part of the batch. DDP mends that at the *next*
# forward, when it broadcasts rank 0's buffers, so in the end rank 0's part alone decides. In `eval()` mode nothing moves. That is why `freeze` calls it, and why
# nobody may call `ddp.train()` afterwards.
#
# The broadcast has another consequence. **Rank 0 evaluates alone, as one often reads, and calls the wrapper. What do the others do meanwhile?**


# %%
def rank_0_evaluates() -> float:
    with process_group() as pg:
        model = make_model(len(NEW))
        ddp, output = DistributedDataParallel(model), torch.zeros(())
        ddp(torch.randn(8, 3, 64, 64)).sum().backward()  # a training step
        ddp.eval()
        if pg.rank == 0:
            with torch.no_grad():
                output = ddp(torch.randn(8, 3, 64, 64)).mean()
        dist.all_reduce(output)  # everybody shall know
        return output.item()


try:
    launch(rank_0_evaluates, nprocs=2, timeout=4, **on_cpu)
except RankError as error:
    print(error)

# %% [markdown]
# They do not take part in the broadcast inside rank 0's forward, and everybody waits. Evaluate with `ddp.module`, the plain network, which sends nothing. Better still, let every rank
# evaluate its part.
#
# ## The loop
#
# It is lesson 20's, but few pictures make short epochs, so we count steps: `deal` begins a new epoch whenever one has ended. First what goes around the loop.


# %%
def deal(rows: torch.Tensor, batch: int, steps: int):
    sampler = DistributedSampler(rows, seed=seed)
    mine = BatchSampler(sampler, batch // dist.get_world_size(), drop_last=True)
    for step in range(steps):
        if step % len(mine) == 0:
            sampler.set_epoch(step // len(mine))
            dealt = iter(mine)
        yield rows[next(dealt)]


def accuracy(model: nn.Module, images, labels, rows: torch.Tensor, pg) -> float:
    model.eval()
    mine = rows[shard_indices(len(rows), pg.rank, pg.world_size)]
    with torch.no_grad():
        parts = [model(prepare(images[part].to(pg.device))).cpu() for part in mine.split(250)]
    return accuracy_over_ranks(torch.cat(parts).argmax(dim=1) + NEW.start, labels[mine])


def average_over_ranks(values: list[torch.Tensor]) -> list[float]:
    mean = torch.stack(values)
    dist.all_reduce(mean)
    return (mean / dist.get_world_size()).tolist()


# %% [markdown]
# `wrapped` keeps the order of the first table. And there are two **parameter groups**: the new head begins with random numbers and may take larger steps than a backbone that is good already.
# The optimizer gets the frozen parameters as well; it passes over what has no gradient.


# %%
def wrapped(model: nn.Module, frozen: bool) -> tuple[nn.Module, list]:
    if frozen:
        freeze(model)  # before DDP looks
    ddp, sent = DistributedDataParallel(model), []
    ddp.register_comm_hook(sent, count_bytes)
    return ddp, sent


def in_two_groups(model: nn.Module) -> list[dict]:
    body = [p for name, p in model.named_parameters() if not name.startswith("fc.")]
    return [{"params": model.fc.parameters()}, {"params": body}]


# %%
def train(
    data, rows, classes, steps, rates, start=None, frozen=False, fixed=None, batch=60, watch=()
):  # fixed: a dtype to compute in, with BatchNorm as it is, and no flips
    with process_group() as pg:
        torch.manual_seed(seed)
        model = make_model(len(classes), start).to(pg.device, fixed)
        ddp, sent = wrapped(model, frozen)
        optimizer = torch.optim.AdamW(in_two_groups(model), weight_decay=0.03, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps)
        dice, losses, curve = torch.Generator().manual_seed(1000 * seed + pg.rank), [], {}
        for step, chosen in enumerate(progress(deal(rows, batch, steps), "step", total=steps), 1):
            model.train(not (frozen or fixed))
            images = flip_some(data.train_images[chosen], dice, 0 if fixed else 0.5)
            labels = (data.train_labels[chosen] - classes.start).to(pg.device)
            outputs = ddp(prepare(images.to(pg.device)).to(fixed or torch.float32))
            loss = nn.functional.cross_entropy(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            report(loss=loss.item())
            if len(watch) and (step % 20 == 0 or step == steps):
                curve[step] = accuracy(model, data.train_images, data.train_labels, watch, pg)
        return average_over_ranks(losses), curve, sum(sent) // steps, model.cpu().state_dict()


# %% [markdown]
# If torchvision's weights are not here, we have to make some: the same network, trained on the other six classes, of which there are many pictures. That is a poor substitute for ImageNet, but
# the question stays the same, since none of the six is among our four.

# %%
begin, pictures_seen, pretrained_on = time.perf_counter(), 0, "ImageNet"
if weights is None:
    pretrained_on, batch = f"CIFAR-10, {len(OLD)} classes", 120
    rows = rows_of(fit_rows, data.train_labels, OLD)
    epochs = {"smoke": 0, "quick": 2, "full": 20}[preset]
    steps = max(5, epochs * len(rows) // batch)
    losses, _, _, weights = launch(train, data, rows, OLD, steps, 0.005, batch=batch, **options)[0]
    pictures_seen = steps * batch
    print(f"loss of the first step {losses[0]:.2f}, of the last {losses[-1]:.2f}")
pretrain_seconds = time.perf_counter() - begin
print(f"The backbone below was pretrained on {pretrained_on} ({pretrain_seconds:.0f} s here).")

# %% [markdown]
# ## Three ways, equally many steps
#
# From random weights; with the backbone frozen; with everything trained, the backbone at a smaller rate than the head. The rates were chosen on validation pictures, for each way by itself. **In which
# order will they end, and which one begins best?**

# %%
steps = {"smoke": 6, "quick": 100, "full": 400}[preset]
ways = {
    "from scratch": {"rates": 0.02},
    "frozen backbone": {"rates": 0.02, "start": weights, "frozen": True},
    "full fine-tuning": {"rates": [0.01, 0.002], "start": weights},
}
runs, seconds = {}, {}
for way, how in ways.items():
    begin = time.perf_counter()
    runs[way] = launch(train, data, few, NEW, steps, watch=watched, **how, **options)[0]
    seconds[way] = time.perf_counter() - begin

# %%
curves = {way: (list(curve), list(curve.values())) for way, (_, curve, _, _) in runs.items()}
last = {way: values[-1] for way, (_, values) in curves.items()}
title = f"After {steps} steps: " + ", ".join(f"{way} {value:.0%}" for way, value in last.items())
fig = lines(curves, title, "step", "validation accuracy (share of right answers)", data.origin)
show(fig, alt=f"Validation accuracy by step. {title}. Pretrained on {pretrained_on}")

# %% [markdown]
# Now look at what travelled. The counting hook ran in all three. **By what factor does freezing cut the bytes of a step?**

# %%
kilobytes = {way: count / 1e3 for way, (_, _, count, _) in runs.items()}
factor = kilobytes["full fine-tuning"] / kilobytes["frozen backbone"]
title = f"With a frozen backbone, a step sends {factor:.0f} times fewer bytes"
fig = bars(
    kilobytes, title, "gradients a rank puts into all_reduce in a step (kB)", "frozen backbone"
)
show(fig, alt=f"Kilobytes a step: {', '.join(f'{k} {v:,.0f}' for k, v in kilobytes.items())}")
for way, taken in seconds.items():
    print(f"{way}: {taken:.1f} s for {steps} steps on {world_size} ranks, validation included")

# %% [markdown]
# Bytes that need not travel are the gift of freezing to a slow network; not computing the backbone's gradients is its gift to the processor. What it costs in accuracy is in the figure above.
#
# ## Do N ranks learn what one would?
#
# Not with BatchNorm in `train()` mode: each rank then scales by its own part of the batch, and parts of other sizes have other statistics. Fixed to the pretrained ones (`eval()`),
# and without flips, all weights trained, the promise must hold again. We ask twice: with numbers of 32 bits, as always, and of 64. **How far apart will the losses of 20 steps be?**

# %%
how = {"rates": [0.01, 0.002], "start": weights}
tables = {}
for dtype, tolerance in ((torch.float32, float("inf")), (torch.float64, 1e-12)):
    same = {}
    for n in (1, 2):
        first, _, _, after = launch(
            train, data, few, NEW, 20, **how, fixed=dtype, nprocs=n, **on_cpu
        )[0]
        same[n] = first, after
    tables[str(dtype)] = equivalence_table(same, tolerance=tolerance)
pd.concat(tables).map("{:.1e}".format)

# %% [markdown]
# In float32 the difference is more than rounding alone would make. A bug? A bug would not care for the number of bits. Rounding does, and in float64 next to nothing is left, so the ranks do learn what one
# would. Two things can make rounding grow: at a ReLU's kink it decides whether a gradient passes; and Adam divides each gradient by its own size, so where one is next to nothing, rounding
# decides the sign of a whole step. Test equality where rounding is small.
#
# ## The test, once
#
# The test pictures of the four classes, each counted by exactly one rank. Beside the three ways stand guessing and two classics that see the pixels of the same few pictures.


# %%
def test(data, rows, trained):
    with process_group() as pg:
        scores = {}
        for way, weights in trained.items():
            model = make_model(len(NEW)).to(pg.device)
            model.load_state_dict(weights)
            scores[way] = accuracy(model, data.test_images, data.test_labels, rows, pg)
        return scores


trained = {way: run[3] for way, run in runs.items()}
scores = launch(test, data, test_rows, trained, **options)[0]

# %%
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

x, y = data.train_images[few].flatten(1).numpy(), data.train_labels[few].numpy()
x_test, y_test = data.test_images[test_rows].flatten(1).numpy(), data.test_labels[test_rows].numpy()
linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=1e-3))
forest = RandomForestClassifier(100, random_state=0)
table = {"guessing": 1 / len(NEW), **scores}
for name, rival in {"linear, on pixels": linear, "random forest, on pixels": forest}.items():
    table[name] = rival.fit(x, y).score(x_test, y_test)
best = max(scores, key=scores.get)
title = f"Best of the three ways is {best}: {scores[best]:.1%} of {len(test_rows):,} test pictures right"
fig = bars(
    table, title, "test accuracy (share of right answers)", best, data.origin, largest_first=True
)
show(fig, alt=f"Test accuracy: {', '.join(f'{k} {v:.1%}' for k, v in table.items())}")

# %%
train_seconds = pretrain_seconds + sum(seconds.values())
record_results(
    preset=preset,
    seed=seed,
    world_size=world_size,
    data_origin=data.origin,
    pretrained_on=pretrained_on,
    test_accuracy=scores["full fine-tuning"],
    frozen_test_accuracy=scores["frozen backbone"],
    scratch_test_accuracy=scores["from scratch"],
    bytes_a_step=runs["full fine-tuning"][2],
    frozen_bytes_a_step=runs["frozen backbone"][2],
    train_seconds=train_seconds,
    samples_per_second=(pictures_seen + 60 * steps * len(ways)) / train_seconds,
    equivalence_dtype="float64",
    equivalence_max_abs_loss_diff=tables["torch.float64"]["largest difference of losses"].max(),
)

# %% [markdown]
# **Exercises:** [`exercises/22_cifar10_finetune.ipynb`](../exercises/22_cifar10_finetune.ipynb). You will predict what DDP sends, freeze a network so that only its head travels, and give each
# depth a rate of its own.
#
# ## Take-away
#
# > A pretrained backbone brings what few pictures cannot teach. Freeze it *before* DDP wraps it, and put it into `eval()`: then neither its gradients travel nor its statistics move. DDP waits for every gradient it was promised, and its forward may talk
# > to other ranks, so call the wrapper on all ranks or on none.
#
# **To go further**
# - Yosinski, Clune, Bengio, Lipson: [How transferable are features in deep neural networks?](https://arxiv.org/abs/1411.1792), 2014: which layers can be borrowed, and from how far.
# - He, Zhang, Ren, Sun: [Deep Residual Learning for Image Recognition](https://arxiv.org/abs/1512.03385), 2016, and Ma, Zhang, Zheng, Sun: [ShuffleNet V2](https://arxiv.org/abs/1807.11164), 2018:
#   a network that everybody fine-tunes, and the small one used here.
# - Next: lesson 23 asks how much faster more ranks are.
