# %% [markdown]
# # CIFAR-10: a simple network for pictures
#
# **You will learn**
# - to feed pictures to several ranks: decoded once for the whole machine, prepared a batch at a time;
# - to train a convolutional network with DDP, and to watch its loss and accuracy while it learns;
# - to count right answers over ranks exactly, and to look at the wrong ones.
#
# *About 35 minutes; the cells run for about two. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights, order of the batches and flips; the split never moves
batch: int = 120  # pictures in a step, over all ranks together
rate: float = 0.05  # the highest learning rate
warm_up: float = 0.25  # share of the steps in which the rate rises to it
start_method: str = "auto"  # how launch starts ranks

# %%
import time

import cloudpickle
import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DistributedSampler
from torchvision.transforms import v2

from course_lib import (
    accuracy_over_ranks,
    choose_preset,
    choose_world_size,
    launch,
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
# ## Sixty thousand small pictures
#
# CIFAR-10 has 60,000 colour pictures of 32 × 32 pixels in ten classes, as many of each. Its publisher keeps 10,000 of them for testing.
# Of the others, a tenth is set aside for validation: every choice below was made by looking at those.

# %%
data = cifar10.load(source)
fit_rows, valid_rows = cifar10.split(data.train_labels)
some = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(1))[:16]
names = [data.classes[label] for label in data.train_labels[some]]
title = f"{len(some)} of {len(data.train_labels):,} training pictures, small even for us"
fig = pictures(data.train_images[some], names, title, origin=data.origin)
show(fig, alt=f"Sixteen small pictures: {', '.join(names)}")

# %% [markdown]
# Four ranks that each read the files would decode 150 MB four times and keep four copies. So `load` decodes them once and leaves the
# numbers in a file; every process that asks *maps* this file, and all of them look at the same memory. What travels to a rank is the file's name.

# %%
held = data.train_images.nbytes + data.test_images.nbytes
print(f"pictures in memory, for all ranks together: {held / 1e6:.0f} MB")
print(f"sent to each rank: {len(cloudpickle.dumps(data)):,} bytes")

# %% [markdown]
# ## Prepare a batch, not a picture
#
# Networks like numbers around zero, so the bytes are scaled to 0 … 1, then shifted and scaled by the mean and spread of each colour: two **transforms** of
# torchvision. They take a whole batch at once, which is many times quicker than picture by picture.
#
# A mirrored ship is a ship, too, so half of the training pictures are flipped, other ones in each epoch. torchvision has a transform for that as
# well. **What will it do with a batch?**

# %%
prepare = v2.Compose(
    [v2.ToDtype(torch.float32, scale=True), v2.Normalize(cifar10.MEAN, cifar10.STD)]
)
four = data.train_images[:4]
flip = v2.RandomHorizontalFlip(p=0.5)
torch.manual_seed(0)
for _ in range(3):
    print("flipped:", [not torch.equal(a, b) for a, b in zip(flip(four), four, strict=True)])

# %% [markdown]
# All or none: it draws *once for what it is given*. So we draw ourselves, once a picture. The dice need care on several ranks. The model must start
# alike everywhere, so all ranks have the same seed; but if they flip with that same seed, the k-th picture of every rank is treated alike.
# Each rank gets **dice of its own**.


# %%
def flip_some(images: torch.Tensor, dice: torch.Generator) -> torch.Tensor:
    chosen = torch.rand(len(images), generator=dice) < 0.5
    return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)


def dice_of(rank: int, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(1000 * seed + rank)


for rank in range(3):
    print(f"rank {rank} flips", torch.rand(8, generator=dice_of(rank, seed)).lt(0.5).int().tolist())

# %% [markdown]
# ## The network
#
# Three times the same: a **convolution** looks for small patterns everywhere in the picture, and pooling halves the picture's width and height.
# At the end a linear layer weighs what was found where. Nothing in it depends on which pictures share a batch, so N ranks can equal one process.


# %%
def make_model() -> nn.Module:
    layers, inputs = [], 3
    for outputs in (16, 32, 64):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = outputs
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * 4 * 4, 10))
    return model.to(memory_format=torch.channels_last)


numbers = sum(parameter.numel() for parameter in make_model().parameters())
print(f"{numbers:,} weights, so {4 * numbers / 1e3:.0f} kB of gradients to average in each step")

# %% [markdown]
# ## The loop
#
# It is lesson 11's: a sampler that deals out the rows, a batch divided by the world size, DDP. What is new stands around it. Each epoch ends with the accuracy
# on the validation pictures, of which every rank looks at its part. `report` shows the newest numbers beside the bar while the ranks train.


# %%
def predict(model: nn.Module, images: torch.Tensor, device: torch.device) -> torch.Tensor:
    with torch.no_grad():
        parts = [model(prepare(part.to(device))).cpu() for part in images.split(500)]
    return torch.cat(parts) if parts else torch.empty(0, 10)


def accuracy(model: nn.Module, data, rows: torch.Tensor, pg) -> float:
    mine = rows[shard_indices(len(rows), pg.rank, pg.world_size)]
    guessed = predict(model, data.train_images[mine], pg.device).argmax(dim=1)
    return accuracy_over_ranks(guessed, data.train_labels[mine])


# %%
def train(data, rows, epochs, seed, rate=rate, flips=True, watch=()):
    with process_group() as pg:
        torch.manual_seed(seed)
        model = DistributedDataParallel(make_model().to(pg.device))
        sampler = DistributedSampler(rows, seed=seed)
        batches = BatchSampler(sampler, batch // pg.world_size, drop_last=True)
        optimizer = torch.optim.SGD(model.parameters(), rate, 0.9, nesterov=True, weight_decay=5e-4)
        total = epochs * len(batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total, pct_start=warm_up)
        dice, steps, curve = dice_of(pg.rank, seed), [], []
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            for dealt in progress(batches, f"epoch {epoch + 1} of {epochs}"):
                images = prepare(data.train_images[rows[dealt]].to(pg.device))
                labels = data.train_labels[rows[dealt]].to(pg.device)
                outputs = model(flip_some(images, dice) if flips else images)
                loss = cross_entropy(outputs, labels)
                optimizer.zero_grad()
                loss.backward()  # DDP averages the gradients in here
                optimizer.step()
                schedule.step()
                right = (outputs.argmax(1) == labels).float().mean()
                steps.append(torch.stack([loss.detach(), right]))
                report(loss=steps[-1][0].item(), accuracy=steps[-1][1].item())
            if len(watch):
                curve.append(accuracy(model.module, data, watch, pg))
        steps = torch.stack(steps)
        dist.all_reduce(steps)
        return (steps / pg.world_size).cpu(), curve, model.module.cpu().state_dict()


# %% [markdown]
# ## The run
#
# The bars show loss and accuracy of a rank's newest batch, which jump about, since the batch is small. **Guessing is right once in ten. How often will the network be right
# after one epoch?**

# %%
epochs = {"smoke": 1, "quick": 4, "full": 20}[preset]
rows = fit_rows[:4800] if preset == "smoke" else fit_rows
options = {"nprocs": world_size, "start_method": start_method}
begin = time.perf_counter()
steps, curve, weights = launch(train, data, rows, epochs, seed, watch=valid_rows, **options)[0]
train_seconds = time.perf_counter() - begin
print(f"{train_seconds:.0f} s on {world_size} ranks; after epoch 1 {curve[0]:.1%} were right")

# %%
trained = steps[:, 1].reshape(epochs, -1).mean(dim=1).tolist()
title = f"Validation accuracy climbs from {curve[0]:.0%} to {curve[-1]:.0%}"
series = {"training, mean over the epoch": trained, "validation, after the epoch": curve}
fig = lines(series, title, "epoch", "accuracy (share of right answers)", data.origin)
show(fig, alt=f"Accuracy by epoch on training and validation pictures. {title}")

# %% [markdown]
# The validation curve lies above the training curve at first, which looks like a mistake and is none: training accuracy is a mean over an epoch
# in which the network was still worse, and on pictures that may be mirrored.
#
# ## Did N ranks learn what one would have?
#
# The promise of lesson 11, kept with pictures: 20 steps from equal weights on 1, 2 and 4 ranks of the CPU, with flips off, since each rank has dice of
# its own. The rate is a small one, as in the run's first steps: with a large one any network soon makes much of a rounding error.

# %%
few = fit_rows[: 20 * batch]
on_cpu = {"start_method": start_method, "device": "cpu"}
runs = {}
for n in (1, 2, 4):
    how = {"rate": 0.01, "flips": False, "nprocs": n}
    first, _, after = launch(train, data, few, 1, seed, **how, **on_cpu)[0]
    runs[n] = first[:, 0].tolist(), after
equivalence = equivalence_table(runs, tolerance=1e-5)
equivalence.map("{:.1e}".format)

# %% [markdown]
# ## Right answers, counted once
#
# Now the test pictures, for the first time. Divided among the ranks, each picture belongs to exactly one of them; numbers of right answers and of
# pictures are summed over ranks, then divided once. `DistributedSampler` would rather deal some pictures twice than leave a rank one short. **For which
# numbers of ranks will that show?**


# %%
def test(data, weights):
    with process_group() as pg:
        model = make_model().to(pg.device)
        model.load_state_dict(weights)
        everyone = range(2000 if preset == "smoke" else len(data.test_labels))
        exact = [*shard_indices(len(everyone), pg.rank, pg.world_size)]
        padded = [*DistributedSampler(everyone, shuffle=False)]
        found = []
        for mine in (exact, padded):
            guessed = predict(model, data.test_images[mine], pg.device).argmax(dim=1)
            right = (guessed == data.test_labels[mine]).sum()
            sums = torch.stack([right, torch.tensor(len(mine))]).to(pg.device)
            dist.all_reduce(sums)
            found.append(sums.tolist())
        return found


by_world = {}
for n in range(1, 6):
    exact, padded = launch(test, data, weights, nprocs=n, start_method=start_method)[0]
    by_world[n] = exact + padded
columns = ["right", "of", "right, padded", "of, padded"]
pd.DataFrame(by_world, index=columns).T.rename_axis("ranks")

# %% [markdown]
# On the left the same two numbers in every row. On the right, three ranks count some pictures twice, and the accuracy moves a little with the
# machine it was measured on.
#
# ## Right and wrong
#
# A number says how often; pictures say how. These are the eight test pictures of whose wrong label the network was surest, and eight that it got right.

# %%
assert all(row[:2] == by_world[1][:2] for row in by_world.values())
test_accuracy = by_world[1][0] / by_world[1][1]
model = make_model()
model.load_state_dict(weights)
sure, guessed = predict(model, data.test_images, torch.device("cpu")).softmax(dim=1).max(dim=1)
wrong = guessed != data.test_labels
worst = torch.where(wrong, sure, 0).topk(8).indices
good = (~wrong).nonzero().flatten()[:8]

# %%
shown, marks = torch.cat([good, worst]), ["right"] * 8 + ["wrong"] * 8
captions = [data.classes[k] for k in guessed[shown]]
for i in range(8, 16):
    captions[i] += f", is {data.classes[data.test_labels[shown[i]]]}"
title = (
    f"{test_accuracy:.1%} right; of its worst mistakes it was {sure[worst].min():.0%} sure or more"
)
fig = pictures(data.test_images[shown], captions, title, marks=marks, origin=data.origin)
show(fig, alt=f"Eight pictures named rightly, eight wrongly: {'; '.join(captions)}")

# %% [markdown]
# Some you would get wrong as well. Others show what the network goes by: a blue ground, a shape. Now and then the *label* is the mistake: about one test label in two hundred is
# disputed ([Northcutt et al., 2021](https://arxiv.org/abs/2103.14749)). And the network does not know that it does not know.
#
# ## Is that good?
#
# Guessing is right once in ten. Beside the network stand two classics that see a picture as a list of 3,072 numbers. They get a part of the same training
# pictures, for their time's sake.

# %%
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifier

part = fit_rows[: {"smoke": 500, "quick": 10_000, "full": 45_000}[preset]]
pixels = data.train_images[part].flatten(1).numpy() / 255
test_pixels = data.test_images.flatten(1).numpy() / 255
forest = RandomForestClassifier(100, n_jobs=-1, random_state=0)
scores = {"guessing": 1 / len(data.classes)}
for name, rival in {"a linear model": RidgeClassifier(1000), "a random forest": forest}.items():
    rival.fit(pixels, data.train_labels[part].numpy())
    scores[f"{name}, {len(part):,} pictures"] = rival.score(test_pixels, data.test_labels.numpy())

# %%
ours = f"this network, {world_size} ranks"
best = max(scores.values())
scores[ours] = test_accuracy
title = f"Knowing that pixels have neighbours is worth {100 * (test_accuracy - best):.0f} points"
xlabel = "test accuracy (share of right answers)"
fig = bars(scores, title, xlabel, ours, data.origin, largest_first=True)
show(fig, alt=f"Test accuracy: {', '.join(f'{k} {v:.1%}' for k, v in scores.items())}")

# %% [markdown]
# Shuffle the pixels of all pictures in one fixed way, and the linear model and the forest would lose nothing; a convolution would lose what it lives on. (More pictures
# help the forest by some points: `preset="full"` gives it all of them.)

# %%
record_results(
    preset=preset,
    seed=seed,
    world_size=world_size,
    data_origin=data.origin,
    test_accuracy=test_accuracy,
    validation_accuracy=curve[-1],
    train_seconds=train_seconds,
    samples_per_second=len(steps) * batch / train_seconds,
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
    batch=batch,
    rate=rate,
)

# %% [markdown]
# **Exercises:** [`exercises/20_cifar10_cnn.ipynb`](../exercises/20_cifar10_cnn.ipynb). You will make flips that do not depend on the number of ranks, and mend an
# evaluation that counted pictures twice.
#
# ## Take-away
#
# > Large data are decoded once a machine, and ranks get their address, not a copy. Model and sampler want the same seed on every rank, random
# > transforms one of each rank's own. Accuracy is a count divided by a count, and both are sums over ranks.
#
# **To go further**
# - Krizhevsky: [Learning Multiple Layers of Features from Tiny Images](https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf), 2009: where
#   the pictures come from.
# - [torchvision's transforms](https://docs.pytorch.org/vision/stable/transforms.html): v2 works on batches, on GPUs, and on boxes and masks as well.
# - Next: lesson 21 goes deeper, and measures what each step is worth.
