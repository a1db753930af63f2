# %% [markdown]
# # CIFAR-10: deeper networks, better measured
#
# **You will learn**
# - how a better start, better transforms and a better rate get more from the same pictures;
# - what BatchNorm does on several ranks, and why N ranks no longer equal one process;
# - to see what a network confuses, counted over ranks to the last picture.
#
# *About 45 minutes; the cells run for about three. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights, order of the batches, flips and shifts; the split never moves
start_method: str = "auto"  # how launch starts ranks

# %%
import inspect
import time

import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DistributedSampler

from course_lib import (
    RankError,
    accuracy_over_ranks,
    choose_preset,
    choose_world_size,
    confusion_over_ranks,
    launch,
    process_group,
    progress,
    record_results,
    report,
    shard_indices,
)
from course_lib.data import cifar10
from course_lib.equivalence import equivalence_table
from course_lib.machine import has_bfloat16
from course_lib.plots import COLOURS, confusion, figure, lines, pictures, show

world_size, preset = choose_world_size(world_size), choose_preset(preset)

# %% [markdown]
# ## More pictures out of the same ones
#
# Lesson 20 mirrored half of its pictures. A ship that stands two pixels further left is a ship as well, and so is one behind a post. The transforms here take a whole batch:
# pad it by its own mirror image, then cut another window out of each picture; or cover a square of it (**cutout**). A window smaller than the picture is cheaper, too: 24 × 24 are 44 % fewer
# pixels.

# %%
data = cifar10.load(source)
fit_rows, valid_rows = cifar10.split(data.train_labels)
MEAN, STD = (torch.tensor(c)[:, None, None] for c in (cifar10.MEAN, cifar10.STD))


def normalise(images: torch.Tensor) -> torch.Tensor:
    images = (images / 255 - MEAN.to(images.device)) / STD.to(images.device)
    return images.contiguous(memory_format=torch.channels_last)


def flip(images: torch.Tensor) -> torch.Tensor:
    chosen = torch.rand(len(images), device=images.device) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def shift(images: torch.Tensor, size: int = 32, pad: int = 2) -> torch.Tensor:
    images = F.pad(images, (pad,) * 4, mode="reflect") if pad else images
    down, right = torch.randint(images.shape[-1] - size + 1, (2, len(images)), device=images.device)
    windows = images.unfold(2, size, 1).unfold(3, size, 1)  # all windows, without a copy
    return windows[torch.arange(len(images), device=images.device), :, down, right]


def cover(images: torch.Tensor, size: int = 12) -> torch.Tensor:
    places = torch.arange(images.shape[-1], device=images.device)
    corners = torch.randint(images.shape[-1] - size + 1, (2, len(images), 1), device=images.device)
    down, right = ((places >= corner) & (places < corner + size) for corner in corners)
    return images.masked_fill((down[:, :, None] & right[:, None, :])[:, None], 0)  # 0: the mean


# %%
four = normalise(data.train_images[:4])
torch.manual_seed(seed)
seen = shift(flip(four))
shown = torch.cat([four, seen, cover(seen), F.pad(shift(flip(four), 24, 0), (4,) * 4)])
shown = ((shown * STD + MEAN) * 255).round().clamp(0, 255).byte()
captions = ["as it is", "flipped, shifted", "and covered", "a window of 24"]
captions = [caption for caption in captions for _ in four]
title = "The same four pictures, as four different networks might see them"
show(pictures(shown, captions, title, columns=4, origin=data.origin), alt=title)

# %% [markdown]
# ## A network that starts well
#
# Neighbouring pixels are nearly alike, so the first layer of any network spends its early steps on finding *differences*. That can be computed beforehand. The principal components of all 3 × 3 patches are
# the directions in which patches differ; divided by their spread, they become a **whitening** layer that needs no training: 12 directions, each with both signs.


# %%
def whitening(images: torch.Tensor, stride: int, keep: int = 12) -> nn.Module:
    patches = F.unfold(images, 3).transpose(1, 2).reshape(-1, 27)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    weight = (vectors / (values + 0.01).sqrt()).T[-keep:].reshape(-1, 3, 3, 3)
    layer = nn.Conv2d(3, 2 * keep, 3, stride, padding=1, bias=False)
    layer.weight = nn.Parameter(torch.cat([weight, -weight]), requires_grad=False)
    return layer


# %% [markdown]
# Four blocks follow, each a convolution, **BatchNorm** (subtract each channel's mean over the batch, divide by its spread) and a smooth cousin of the ReLU. A convolution that starts as "pass
# your input on" lets gradients reach the first block from the first step. At the end, each channel reports its strongest answer anywhere in the
# picture. (`Further` makes a block deeper; a GPU has the time for that, see below.)


# %%
def conv_norm(inputs: int, outputs: int, pool: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[: min(inputs, outputs)])
    return [conv, nn.MaxPool2d(pool), nn.BatchNorm2d(outputs)]


class Further(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(*conv_norm(width, width), nn.GELU(), *conv_norm(width, width))

    def forward(self, x):
        return F.gelu(x + self.inner(x))


# %%
SMALL = {"blocks": ((32, 2), (64, 1), (64, 2), (128, 1)), "stride": 2, "further": 0}


def make_best(images: torch.Tensor, blocks, stride: int, further: int) -> nn.Module:
    torch.manual_seed(seed)
    layers, inputs = [whitening(images, stride), nn.GELU()], 24
    for outputs, pool in blocks:
        layers += [*conv_norm(inputs, outputs, pool), nn.GELU()]
        layers += [Further(outputs) for _ in range(further)]
        inputs = outputs
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(inputs, 10, bias=False)]
    layers[-1].weight.data /= 9  # be unsure at first
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


# %% [markdown]
# Two more ideas fit into a line each. **Label smoothing** asks for 82 % certainty instead of 100, so that the network stops pushing what it has right already. And the rate goes
# up and down in a **triangle**: small while weights are wild, large to get far, small to settle. (Most of this is after Jordan's
# [airbench](https://github.com/KellerJordan/cifar10-airbench).)


# %%
batch, rate = 180, 0.2  # pictures in a step over all ranks; the highest rate
alone = 60  # pictures in a step of a rank with a network of its own


def make_optimizer(model: nn.Module, rate: float, total: int):
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    scales = {"params": [p for p in learned if p.ndim == 1], "weight_decay": 0.0}  # and biases
    weights = {"params": [p for p in learned if p.ndim > 1], "weight_decay": 5e-4}
    optimizer = torch.optim.SGD([scales, weights], rate, 0.9, nesterov=True, fused=True)
    triangle = {"pct_start": 0.2, "anneal_strategy": "linear", "cycle_momentum": False}
    rates = [8 * rate, rate]
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total, **triangle)


# %% [markdown]
# The loop is lesson 20's, written so that it serves two purposes: all ranks on one network, or each rank on a network of its own. It is also quicker, where the chip helps. **Autocast**
# rounds what goes into a convolution to 16 bits (bfloat16: float32's range, two to three digits), which some chips multiply twice as fast. Weights, gradients and sums over ranks
# stay in float32.


# %%
def learn(
    model, rows, epochs, pg, together=True, augment=None, rate=rate, watch=(), half=True, size=batch
):
    ranks, rank = (pg.world_size, pg.rank) if together else (1, 0)
    sampler = DistributedSampler(rows, ranks, rank, seed=seed)
    batches = BatchSampler(sampler, size // ranks if together else alone, drop_last=True)
    optimizer, schedule = make_optimizer(model, rate, epochs * len(batches))
    half = half and has_bfloat16(pg.device)
    torch.manual_seed(1000 * seed + pg.rank)  # each rank its own dice
    steps, curve = [], []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for dealt in progress(batches, f"epoch {epoch + 1} of {epochs}"):
            images = normalise(data.train_images[rows[dealt]].to(pg.device))
            labels = data.train_labels[rows[dealt]].to(pg.device)
            with torch.autocast(pg.device.type, torch.bfloat16, enabled=half):
                outputs = model(augment(images, epoch / epochs) if augment else images)
            loss = F.cross_entropy(outputs.float(), labels, label_smoothing=0.2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            steps.append(torch.stack([loss, (outputs.argmax(1) == labels).float().mean()]).detach())
            report(loss=steps[-1][0].item(), accuracy=steps[-1][1].item())
        if len(watch):
            curve.append(accuracy(model, watch, pg, together))
    return torch.stack(steps), curve


# %% [markdown]
# One thing needs care in the evaluation. BatchNorm keeps a running mean and spread of each channel, for the day when it meets a single picture. They are **buffers**, not weights: no gradient changes
# them, and each rank's go their own way. DDP would send rank 0's to all in *every* step. We need them once an epoch, so we switch that off and average
# them then: all ranks' pictures count.


# %%
known = inspect.signature(DistributedDataParallel).parameters  # torch has renamed it
OWN_BUFFERS = {
    "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
}


def average_statistics(model: nn.Module) -> None:
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer, op=dist.ReduceOp.AVG)


def predict(model: nn.Module, images: torch.Tensor, device: torch.device) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        parts = [model(normalise(part.to(device))).argmax(1).cpu() for part in images.split(500)]
    model.train()
    return torch.cat(parts)


def accuracy(model: nn.Module, rows: torch.Tensor, pg, together: bool) -> float:
    if not together:
        right = predict(model, data.train_images[rows], pg.device) == data.train_labels[rows]
        return right.float().mean().item()
    average_statistics(model)
    mine = rows[shard_indices(len(rows), pg.rank, pg.world_size)]
    guessed = predict(model.module, data.train_images[mine], pg.device)
    return accuracy_over_ranks(guessed, data.train_labels[mine])


# %% [markdown]
# ## The run
#
# In the first two thirds of the time the network sees windows of 24 × 24, then whole pictures, shifted. **By how much will it beat lesson 20's
# network?**


# %%
def flip_and_shift(images: torch.Tensor, done: float) -> torch.Tensor:
    return shift(flip(images), 24, 0) if done < 2 / 3 else shift(flip(images))


def and_cover(images: torch.Tensor, done: float) -> torch.Tensor:
    return cover(shift(flip(images), pad=4))


def train(rows, epochs, watch=(), shape=SMALL, **how):
    with process_group() as pg:
        model = make_best(normalise(data.train_images[rows[:2000]]), **shape).to(pg.device)
        replica = DistributedDataParallel(model, **OWN_BUFFERS)
        begin = time.perf_counter()
        steps, curve = learn(replica, rows, epochs, pg, watch=watch, **how)
        dist.all_reduce(steps)
        steps = (steps / pg.world_size).cpu()
        return steps, curve, model.cpu().state_dict(), time.perf_counter() - begin


# %%
plan = {"shape": SMALL, "size": batch, "rate": rate, "augment": flip_and_shift}
if preset == "full":  # for a GPU: wider, deeper, longer
    wide = {"blocks": ((128, 2), (384, 2), (512, 2)), "stride": 1, "further": 1}
    plan = {"shape": wide, "size": 1000, "rate": 0.9, "augment": and_cover}
epochs = {"smoke": 1, "quick": 7, "full": 60}[preset]
rows = fit_rows[:4800] if preset == "smoke" else fit_rows
options = {"nprocs": world_size, "start_method": start_method}
begin = time.perf_counter()
steps, curve, weights, _ = launch(train, rows, epochs, valid_rows, **plan, **options)[0]
train_seconds = time.perf_counter() - begin
print(f"{train_seconds:.0f} s on {world_size} ranks")

# %%
trained = steps[:, 1].reshape(epochs, -1).mean(dim=1).tolist()
loss = steps[:, 0].reshape(epochs, -1).mean(dim=1).tolist()
title = f"Loss and accuracy move together; validation ends at {curve[-1]:.1%}"
series = {
    "training loss (nats)": loss,
    "training accuracy (share)": trained,
    "validation accuracy (share)": curve,
}
fig = lines(series, title, "epoch", "loss (nats), accuracy (share of right answers)", data.origin)
show(fig, alt=f"Loss falls, accuracies rise by epoch. {title}")

# %% [markdown]
# While the network trains on windows, it is tested on whole pictures, which it has not met yet; when they come, both curves rise at once. The loss cannot reach zero, since
# smoothed labels are never quite certain.
#
# ## A race
#
# With `preset="full"` the network above was wider and deeper, and its pictures were covered as well; that is for a GPU. People race there: **how many seconds to 94 % of the test pictures?** The clock starts
# when the kernels are chosen and the memory is taken, so each rank trains a little first, and throws that network away. (`smoke` races with a toy network, to see that the cell runs; `quick` skips it.)


# %%
def race(warm, rows, epochs, **plan):
    train(warm, 1, **plan)
    return train(rows, epochs, **plan)


blocks = ((64, 2), (256, 2), (256, 2)) if preset == "full" else ((8, 2), (8, 2), (8, 2))
racer = {"shape": {"blocks": blocks, "stride": 1, "further": 1}, "augment": flip_and_shift}
racer |= {"size": 1000, "rate": 0.9}
run_to = fit_rows[: {"smoke": 2000, "quick": 0, "full": None}[preset]]
if len(run_to):
    laps = 14 if preset == "full" else 1
    *_, fast, race_seconds = launch(race, fit_rows[:2000], run_to, laps, **racer, **options)[0]

# %% [markdown]
# ## BatchNorm: each rank has a batch of its own
#
# Lesson 20 could promise that N ranks learn what one process learns. Here the promise breaks. BatchNorm takes mean and spread over *the batch*; on two ranks each has its own half, and other
# statistics. **How far apart will the losses of 1 and 2 ranks be after 20 steps, and which part of that is BatchNorm's?** So we run twice, the second time with
# BatchNorm's statistics held still.


# %%
def frozen(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()  # uses its stored statistics, and leaves them
    return model


def twenty_steps(freeze: bool):
    with process_group() as pg:
        model = make_best(normalise(data.train_images[fit_rows[:2000]]), **SMALL).to(pg.device)
        model = DistributedDataParallel(frozen(model) if freeze else model)
        steps, _ = learn(model, fit_rows[: 20 * batch], 1, pg, rate=0.01, half=False)
        dist.all_reduce(steps)
        return (steps[:, 0] / pg.world_size).tolist(), model.module.state_dict()


runs = {
    freeze: {
        n: launch(twenty_steps, freeze, nprocs=n, device="cpu", start_method=start_method)[0]
        for n in (1, 2, 4)
    }
    for freeze in (False, True)
}
equivalence = equivalence_table(runs[True], tolerance=1e-5)
tables = {
    "batch statistics": equivalence_table(runs[False], tolerance=9),
    "held still": equivalence,
}
pd.concat(tables).map("{:.1e}".format)

# %% [markdown]
# Held still, the promise holds to rounding. With batch statistics the losses differ from the start, and that is no error: two ranks with 60 pictures each train *another network*, one whose statistics are a little
# noisier: the fewer pictures a rank has, the noisier.
#
# The cure is to compute the statistics over all ranks, as `nn.SyncBatchNorm` does. **Try it here:**


# %%
def with_sync_batch_norm():
    with process_group() as pg:
        model = make_best(normalise(data.train_images[:2000]), **SMALL).to(pg.device)
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model)(normalise(data.train_images[:8]).to(pg.device)).shape


try:
    print(launch(with_sync_batch_norm, start_method=start_method, nprocs=world_size))
except RankError as error:
    print(str(error).splitlines()[0])

# %% [markdown]
# On GPUs it works; on the CPU torch says that it does not. In exercise 21.1 you write its forward pass in a few lines, for any device.
#
# ## What is taken for what?
#
# Now the test pictures. Each rank predicts its part, and the counts of "was this, called that" are summed over ranks: a **confusion matrix**. Its rows must add up to the number of pictures of
# each class, to the last one, on any number of ranks.


# %%
def confused(weights, shape):
    with process_group() as pg:
        model = make_best(torch.randn(100, 3, 32, 32), **shape).to(pg.device)
        model.load_state_dict(weights)
        mine = [*shard_indices(len(data.test_labels), pg.rank, pg.world_size)]
        guessed = predict(model, data.test_images[mine], pg.device)
        return confusion_over_ranks(guessed, data.test_labels[mine], len(data.classes))


by_world = {
    n: launch(confused, weights, plan["shape"], nprocs=n, start_method=start_method)[0]
    for n in range(1, 6)
}
counts = by_world[1]
of_each = torch.bincount(data.test_labels)
assert all(torch.equal(counts, other) for other in by_world.values())
assert torch.equal(counts.sum(dim=1), of_each)
test_accuracy = (counts.diag().sum() / counts.sum()).item()

# %%
if len(run_to):
    raced = launch(confused, fast, racer["shape"], **options)[0]
    race_accuracy = (raced.diag().sum() / raced.sum()).item()
    print(f"The race: {race_accuracy:.1%} of the test pictures after {race_seconds:.1f} s")
mistakes = counts - counts.diag().diag()
actual, called = divmod(int(mistakes.argmax()), len(data.classes))
worst = f"{data.classes[actual]} → {data.classes[called]}"
title = f"{test_accuracy:.1%} right; the worst confusion is {worst}, {mistakes.max()} times"
show(confusion(counts, data.classes, title, data.origin), alt=f"Confusion matrix. {title}")

# %% [markdown]
# Confusion is not even: animals are taken for animals, vehicles for vehicles. **Is the matrix symmetric? Look at the worst pair in both directions.**
#
# ## Other shapes of network
#
# Is it the network, or the recipe? Three other shapes under the same recipe, for two epochs each on a fifth of the pictures, in steps of 60: lesson 20's; a **VGG**, two convolutions per block; and a **ResNet**, in which
# each block adds its result to its input. They need nothing of each other, so each rank trains its own (lesson 12).


# %%
class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.around = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        return F.relu(self.around(x) + self.inner(x))


# %%
def small():
    layers, inputs = [], 3
    for outputs in (16, 32, 64):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))


def vgg():
    layers, inputs = [], 3
    for outputs in (16, 32, 64):
        for _ in range(2):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def resnet():
    blocks = [Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)]
    start = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*start, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def best():
    return make_best(normalise(data.train_images[fit_rows[:2000]]), **SMALL)


# %%
def trials(plans: list[dict]) -> list[dict]:
    with process_group() as pg:
        found = [None] * pg.world_size
        dist.all_gather_object(found, [run(plan, pg) for plan in plans[pg.rank :: pg.world_size]])
        return [one for part in found for one in part]


def run(plan: dict, pg) -> dict:
    torch.manual_seed(seed)
    model = plan["make"]().to(pg.device, memory_format=torch.channels_last)
    begin = time.process_time()
    steps, curve = learn(
        model, plan["rows"], plan["epochs"], pg, False, plan["augment"], plan["rate"], valid_rows
    )
    numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "name": plan["name"],
        "training accuracy": steps[-len(steps) // plan["epochs"] :, 1].mean().item(),
        "validation accuracy": curve[-1],
        "weights": numbers,
        "kB of gradients a step": 4 * numbers / 1e3,
        "CPU seconds": time.process_time() - begin,
    }


# %%
some = fit_rows[: 1200 if preset == "smoke" else 9_000]
common = {"rows": some, "epochs": 1 if preset == "smoke" else 2, "augment": None}
rates = {small: 0.05, vgg: 0.05, resnet: 0.1, best: 0.15}
plans = [{"name": make.__name__, "make": make, "rate": rates[make]} | common for make in rates]
shapes = pd.DataFrame(launch(trials, plans, threads=1, **options)[0]).set_index("name")
shapes.sort_values("validation accuracy").round(3)

# %% [markdown]
# Weights cost a message in every step, convolutions on large pictures cost time, and neither says by itself what a network is worth. Two epochs are not the end, so read the column as
# "learns fast", not as "is best". (Each shape has the rate that suited it on the validation pictures.)
#
# ## What are flips and shifts worth?
#
# The last question is lesson 20's. With all 45,000 pictures and few epochs there is little to see; transforms pay where a network sees the same picture often. So take 3,000
# pictures, and many epochs. **Where will training accuracy end without any transform? And validation accuracy?**


# %%
def only_flip(images: torch.Tensor, done: float) -> torch.Tensor:
    return flip(images)


def flip_shift(images: torch.Tensor, done: float) -> torch.Tensor:
    return shift(flip(images))


def flip_shift_cover(images: torch.Tensor, done: float) -> torch.Tensor:
    return cover(shift(flip(images)))


few = {"rows": fit_rows[: 1200 if preset == "smoke" else 3000], "make": best, "rate": rates[best]}
few["epochs"] = 1 if preset == "smoke" else 9
ways = {"nothing": None, "flips": only_flip, "flips, shifts": flip_shift}
ways["flips, shifts, cutout"] = flip_shift_cover
plans = [{"name": name, "augment": augment} | few for name, augment in ways.items()]
study = pd.DataFrame(launch(trials, plans, threads=1, **options)[0]).set_index("name")
study = study.loc[list(ways), ["training accuracy", "validation accuracy"]]

# %%
best_way = study["validation accuracy"].idxmax()
gain = study.loc[best_way, "validation accuracy"] - study["validation accuracy"].iloc[0]
title = (
    f"{best_way}: {100 * gain:+.0f} points on new pictures, and the old ones are known less well"
)
fig, ax = figure(title, ylabel="accuracy (share of right answers)", xlabel="transforms")
for i, kind in enumerate(study):
    places = [k + 0.36 * i - 0.18 for k in range(len(study))]
    ax.bar(places, study[kind], width=0.34, label=kind, color=COLOURS[i], hatch="//" * i)
ax.set_xticks(range(len(study)), study.index)
ax.set_ylim(0, 1.2)
ax.legend(loc="upper center", ncols=2)
show(fig, alt=f"Training and validation accuracy: {study.round(3).to_dict('index')}. {title}")

# %% [markdown]
# Without transforms the network knows its pictures by heart, and has learnt less about others. It is the gap between the bars that a transform closes. **Does one more transform always help?** What
# makes every picture harder needs more epochs to pay.

# %%
record_results(
    preset=preset,
    seed=seed,
    world_size=world_size,
    data_origin=data.origin,
    test_accuracy=test_accuracy,
    validation_accuracy=curve[-1],
    train_seconds=train_seconds,
    samples_per_second=len(steps) * plan["size"] / train_seconds,
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
    **({"race_seconds": race_seconds, "race_accuracy": race_accuracy} if len(run_to) else {}),
)

# %% [markdown]
# **Exercises:** [`exercises/21_cifar10_deeper.ipynb`](../exercises/21_cifar10_deeper.ipynb). You will normalise over the batches of all ranks with one message, and find the worst confusions
# without gathering a single answer.
#
# ## Take-away
#
# > A better start and a rate that comes down again buy more than depth: of four shapes, the best was one of the two cheapest to train. BatchNorm makes each rank's batch matter, so N ranks train a slightly
# > other network than one, unless the statistics are shared or held still. A confusion matrix is a sum over ranks like any other, and says more than accuracy.
#
# **To go further**
# - Jordan: [94% on CIFAR-10 in 3.29 Seconds on a Single GPU](https://arxiv.org/abs/2404.00498), 2024: where most of the ideas are measured one by one.
# - He, Zhang, Ren, Sun: [Deep Residual Learning for Image Recognition](https://arxiv.org/abs/1512.03385), 2015; Simonyan, Zisserman:
#   [Very Deep Convolutional Networks](https://arxiv.org/abs/1409.1556), 2014.
# - Ioffe, Szegedy: [Batch Normalization](https://arxiv.org/abs/1502.03167), 2015. Lesson 22 meets it again, in a network that is half frozen.
