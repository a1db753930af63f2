# %% [markdown]
# # Stock prices: many opinions
#
# **You will learn**
# - to give each sub-group of ranks a network of its own, with DDP inside the group, and to gather what all of them say;
# - why a mean of forecasts is better than a forecast, and what limits it;
# - when ranks are better spent on more networks, and when on one.
#
# *About 40 minutes; the cells run for about two. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights, bags, order of the windows; the split never moves
start_method: str = "auto"  # how launch starts ranks

# %%
import itertools
import time

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
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
    shard_indices,
)
from course_lib.data import stocks
from course_lib.equivalence import equivalence_table
from course_lib.plots import bars, lines, mesh_map, show

world_size, preset = choose_world_size(world_size), choose_preset(preset)
options = {"nprocs": world_size, "start_method": start_method}
on_cpu = {"start_method": start_method, "device": "cpu"}

# %% [markdown]
# ## The panel again
#
# Lesson 41's panel, scaling and windows are in the library now: `stocks.panel`, and `scaled` for the days that a step may learn from. We take its last fold: learn from all before, choose on a year, be judged on the next. The network is the same, with three ways to read a window: **LSTM**, its smaller cousin **GRU** (gated recurrent unit), and a **line**. It learns at a higher rate, so that its members come out cheaper and less alike.

# %%
LENGTH = 22
data = stocks.load(source, start="2014-10-17", end="2023-10-17")
panel, origin = stocks.panel(data.tables), data.origin
fold = stocks.walk_forward(len(panel.days), folds=3, test=252, valid=252, purge=22)[-1]
scaled = panel.scaled(fold)
fit, valid, test = (scaled.samples(p, LENGTH) for p in (fold.fit, fold.valid, fold.test))
if preset == "smoke":
    fit = fit[-9600:]
print(
    f"{len(fit):,} samples to learn from, {len(valid):,} to choose on, {len(test):,} to be judged"
)


# %%
class Forecaster(nn.Module):
    def __init__(self, kind: str, width: int = 32):
        super().__init__()
        self.kind, inputs = kind, scaled.x.shape[2]
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


# %% [markdown]
# ## Groups of ranks
#
# **Data-parallel**, all ranks train one network. **Ensemble-parallel**, each rank trains its own, as in lesson 12. In between lies a grid: rows are members of the ensemble that train at the same time, and the ranks of a row share one network. `init_device_mesh` makes the grid, and a process group for each row and each column. Here are six ranks that train three networks at a time:


# %%
NAMES = ("member", "data")


def place(groups):
    with process_group() as pg:
        grid = (groups, pg.world_size // groups)
        mesh = init_device_mesh(pg.device.type, grid, mesh_dim_names=NAMES)
        inside = dist.get_process_group_ranks(mesh.get_group("data"))
        return mesh.mesh.tolist(), mesh.get_coordinate(), inside


grids, where, inside = zip(*launch(place, 3, nprocs=6, **on_cpu), strict=True)
rows = sorted({tuple(group) for group in inside})
title = f"{len(where)} ranks, {len(rows)} networks at a time, each trained by {len(rows[0])}"
labels = {rank: f"part {part}" for rank, (row, part) in enumerate(where)}
show(mesh_map(grids[0], {"one DDP": rows}, title, labels), alt=f"Ranks in a grid. {title}: {rows}")

# %% [markdown]
# A member's **plan** says which kind of network it is, its seed, and perhaps its **bag**: the blocks of 22 days from which it may learn, a random half of them. Members that learnt from different days disagree more. The training loop is handed one group, `data`: DDP averages gradients within it and hears nobody else.


# %%
def bag_of(fit, plan):
    if not plan["bag"]:
        return fit
    blocks = len(fold.fit) // 22 + 1
    dice = torch.Generator().manual_seed(plan["seed"])
    taken = torch.randperm(blocks, generator=dice)[: blocks // 2]
    return fit[torch.isin(fit[:, 0] // 22, taken)]


# %%
def learn(plan, fit, group, pg, batch=480, rate=1e-2):
    which, rank, size = bag_of(fit, plan), dist.get_rank(group), dist.get_world_size(group)
    torch.manual_seed(plan["seed"])
    model = Forecaster(plan["kind"], plan.get("width", 32)).to(pg.device)
    model = DistributedDataParallel(model, process_group=group)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    steps = plan["epochs"] * (len(which) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.3)
    dice, losses = torch.Generator().manual_seed(plan["seed"]), []
    for _ in range(plan["epochs"]):
        for rows in torch.randperm(len(which), generator=dice).split(batch)[: len(which) // batch]:
            mine = which[rows[rank::size]]
            said = model(scaled.windows(mine, LENGTH).to(pg.device))
            loss = F.l1_loss(said, scaled.targets(mine).to(pg.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
    losses = torch.stack(losses)
    dist.all_reduce(losses, group=group)
    return model.module.eval(), losses / size


# %% [markdown]
# Group g takes every G-th plan. When its network is trained, the ranks of the group share out the samples to be judged, and each writes what the network says of its part into a table of zeros: members × samples × 2. No two ranks write into the same place. So one `all_reduce`, a sum of one number and many zeros, **gathers** every prediction on every rank, however unequal the shares.


# %%
def ensemble(plans, groups, fit, judged):
    with process_group() as pg:
        grid = (groups, pg.world_size // groups)
        mesh = init_device_mesh(pg.device.type, grid, mesh_dim_names=NAMES)
        group, row = mesh.get_group("data"), mesh.get_local_rank("member")
        share = shard_indices(len(judged), dist.get_rank(group), dist.get_world_size(group))
        said, curves = torch.zeros(len(plans), len(judged), 2, device=pg.device), {}
        for number in progress(range(row, len(plans), groups), "member"):
            begin = time.perf_counter()
            model, losses = learn(plans[number], fit, group, pg)
            curves[number] = losses.tolist(), time.perf_counter() - begin
            report(loss=losses[-1].item())
            with torch.no_grad():
                for some in torch.arange(share.start, share.stop).split(4096):
                    windows = scaled.windows(judged[some], LENGTH)
                    said[number, some] = model(windows.to(pg.device))
        dist.all_reduce(said)  # gather: everybody else has zeros there
        return said.cpu(), curves


# %% [markdown]
# ## Did a group of N learn what one would have?
#
# Four ranks as four groups of one, two groups of two, and one group of four: the same plan, 20 steps each. (The losses of one member, and what it says, in place of its weights.) **And will the *other* group's gradients have leaked in?**

# %%
small = [{"kind": "lstm", "seed": seed + k, "bag": False, "epochs": 1} for k in range(2)]
runs = {}
for groups in (4, 2, 1):
    said, curves = launch(ensemble, small, groups, fit[:9600], valid[:500], nprocs=4, **on_cpu)[0]
    runs[4 // groups] = curves[0][0], {"says": said[0]}
equivalence = equivalence_table(runs, tolerance=1e-5)
equivalence.map("{:.1e}".format)

# %% [markdown]
# (Read "ranks" as ranks *of the group*, and "weights" as what the network says.) Had a group heard the other's gradients, the losses would be far apart.
#
# ## Three ways to disagree
#
# A family of networks that differ in their **seed** only; one that learnt from different **bags** of days; one of three **kinds**, with bags. All of them are independent, so all groups work side by side until everything is done. **Which family will disagree most, and which will be best together?**

# %%
size, epochs = (
    {"smoke": 3, "quick": 8, "full": 16}[preset],
    {"smoke": 1, "quick": 2, "full": 2}[preset],
)
kinds = ("lstm", "gru", "line")
families = {
    "seeds": [{"kind": "lstm", "bag": False} for _ in range(size)],
    "bags": [{"kind": "lstm", "bag": True} for _ in range(size)],
    "kinds": [{"kind": kinds[k % 3], "bag": True} for k in range(size)],
}
plans = [
    plan | {"seed": 100 * seed + k, "epochs": epochs}
    for family in families.values()
    for k, plan in enumerate(family)
]
judged, begin = torch.cat([valid, test]), time.perf_counter()
results = launch(ensemble, plans, world_size, fit, judged, **options)
said, train_seconds = results[0][0], time.perf_counter() - begin
curves = {number: curve for _, mine in results for number, curve in mine.items()}
print(f"{len(plans)} networks in {train_seconds:.0f} s, {world_size} at a time")

# %% [markdown]
# Now everybody has all forecasts. An ensemble's forecast is the mean of its members', taken in logarithms as they speak. What is it worth? The mean absolute error of the range over that of "as today", for every size: the average over random choices of so many members. First on the validation days.


# %%
parts = {"validation": torch.arange(len(valid)), "test": torch.arange(len(valid), len(judged))}


def worth(members, part, said=said):
    """MAE ÷ persistence of the close and of the range, of the mean of these members."""
    which = judged[parts[part]]
    mean = scaled.unscaled(said[members][:, parts[part]].mean(dim=0), which)
    ours, base = panel.errors(mean, which)
    return (ours.sum(dim=0) / base.sum(dim=0)).tolist()


def by_size(members, part, draws=20):
    curve = []
    for k in range(1, len(members) + 1):
        every = list(itertools.combinations(members, k))
        picks = np.random.default_rng(seed).permutation(len(every))[:draws]  # all, if they are few
        curve.append(np.mean([worth(list(every[i]), part)[1] for i in picks]))
    return curve


# %%
members = {name: list(range(k * size, (k + 1) * size)) for k, name in enumerate(families)}
on_validation = {name: by_size(numbers, "validation") for name, numbers in members.items()}
chosen = min(on_validation, key=lambda name: on_validation[name][-1])
first, last = on_validation[chosen][0], on_validation[chosen][-1]
title = f"{size} networks, {chosen}: {1 - last / first:.1%} less error than one of them"
fig = lines(on_validation, title, "networks", "range, MAE ÷ persistence (validation)", origin)
show(fig, alt=f"Error against the number of networks for seeds, bags and kinds. {title}")

# %% [markdown]
# Most of the gain comes with the first few. Why, a little arithmetic tells. The squared error of the mean of k members is, by nothing but multiplying out, one k-th of their own mean *square*, and for the rest the mean *product* of the errors of two different members. The first part goes away as k grows. The second stays: it is what all members get wrong alike.


# %%
def shared(numbers, part="validation"):
    truth = scaled.targets(judged[parts[part]])[:, 1]
    wrong = (said[numbers][:, parts[part], 1] - truth).double()  # members × samples
    k, square = len(wrong), wrong.square().mean().item()
    of_mean = wrong.mean(dim=0).square().mean().item()
    return square, of_mean, (k * of_mean - square) / (k - 1)  # the last: mean product of two


table = {name: shared(numbers) for name, numbers in members.items()}
columns = ["one member", f"mean of {size}", "mean of infinitely many such"]
squares = pd.DataFrame(table, index=columns).T
squares["not shared"] = 1 - squares[columns[2]] / squares[columns[0]]
squares.style.format("{:.4f}").format("{:.1%}", subset="not shared")

# %% [markdown]
# (Squared errors of the scaled logarithm of the range.) The last column is the part of an error that a member does not share with another. Do the bags pay for theirs, having seen half of the days only? Compare the first column. What is best together is a matter of both. And "infinitely many" is a wall: however many such networks, the next day's surprise is the same for all of them.
#
# ## The test
#
# The choice was made on validation days. Now the test days, for the chosen family. (They are not untouched: lesson 41 judged other networks on them.) **Will the curve look alike?**

# %%
single = np.mean([worth([k], "test")[1] for k in members[chosen]])
close, together = worth(members[chosen], "test")
title = f"On the test days, {size} networks err {1 - together / single:.1%} less than one of them"
curve = {"validation": on_validation[chosen], "test": by_size(members[chosen], "test")}
fig = lines(curve, title, f"networks ({chosen})", "range, MAE ÷ persistence", origin)
show(fig, alt=f"Error against the number of networks on validation and test days. {title}")
print(f"close: {close:.4f} of persistence")

# %% [markdown]
# ## The same compute, spent otherwise
#
# Many networks cost many trainings. What if all ranks train *one* network instead, data-parallel, with as much to do as all of them: as many times as long, or so wide that a step takes as many times the multiplications? The many differ in their seeds only, to be fair. Nobody sends a gradient in the ensemble; the one network sends one in every step, from every rank. **Which will be done first, and which will be best?**

# %%
alone = {"kind": "lstm", "seed": seed, "bag": False}
rivals = {
    "one network, long": alone | {"epochs": epochs * size},
    "one network, wide": alone | {"epochs": epochs, "width": {3: 60, 8: 104}.get(size, 150)},
}
seeds, rows = members["seeds"], {}
busy = max(sum(curves[n][1] for n in seeds[r::world_size]) for r in range(world_size))
rows[f"{size} networks side by side"] = [busy, 0.0, *(worth(seeds, part)[1] for part in parts)]
for name, plan in rivals.items():
    one, curve = launch(ensemble, [plan], 1, fit, judged, **options)[0]
    weights = sum(p.numel() for p in Forecaster("lstm", plan.get("width", 32)).parameters())
    sent = 4 * weights * len(curve[0][0]) / 1e6 if world_size > 1 else 0.0
    rows[name] = [curve[0][1], sent, *(worth([0], part, one)[1] for part in parts)]
columns = ["training, s", "gradients a rank, MB", "validation", "test"]
pd.DataFrame(rows, index=columns).T.style.format("{:.4f}").format("{:,.0f}", subset=columns[:2])

# %%
one = on_validation["seeds"][0]
scores = {name: 100 * (row[2] / one - 1) for name, row in rows.items()}
best = min(scores, key=scores.get)
title = f"Of three ways to spend the compute, “{best}” errs least"
fig = bars(
    scores, title, "error beside that of one network that trained once (%)", best, origin, "way"
)
show(fig, alt=f"Bars: {', '.join(f'{k} {v:+.1f} %' for k, v in scores.items())}. {title}")

# %% [markdown]
# The zero line is one network, at a fraction of the compute. A network that trains on and on, or grows, can overfit; stopped in time it would do no worse, but then its ranks have nothing left to do. A mean of opinions is never worse than its members on average. It need not go this way: where a network still gains from more steps or more width, all ranks should train it, and one that does not fit on a rank has no choice. But note what the ensemble did *not* need: not one message during training, so no slow rank to wait for, and no fast network between machines.

# %%
record_results(
    preset=preset,
    seed=seed,
    world_size=world_size,
    data_origin=origin,
    ensemble_mae_over_persistence=close,
    ensemble_range_mae_over_persistence=together,
    single_range_mae_over_persistence=single,
    ensemble=chosen,
    train_seconds=train_seconds,
    samples_per_second=sum(480 * len(curve) for curve, _ in curves.values()) / train_seconds,
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
)

# %% [markdown]
# **Exercises:** [`exercises/42_stocks_ensembles.ipynb`](../exercises/42_stocks_ensembles.ipynb). You will deal six networks to four ranks so that nobody idles, average opinions that lie on different ranks, and draw bags that do not ask who draws them.
#
# ## Take-away
#
# > A mesh gives every network its own group: DDP inside, nothing between, one gather at the end. A mean of forecasts loses what its members get wrong by themselves and keeps what they get wrong alike, so look for members that are good and disagree.
# > Spend ranks on one network as long as it still gains from them; after that, spend them on opinions.
#
# **To go further**
# - Leo Breiman: [Bagging Predictors](https://doi.org/10.1007/BF00058655), 1996.
# - Lakshminarayanan, Pritzel, Blundell: [Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles](https://arxiv.org/abs/1612.01474), 2017: members that differ in their seeds, and what their spread is good for.
# - Krogh, Vedelsby: [Neural Network Ensembles, Cross Validation, and Active Learning](https://papers.nips.cc/paper/1994/hash/b8c37e33defde51cf91e1e03e51657da-Abstract.html), 1994: the same fact as “mean error less disagreement”.
# - [DeviceMesh](https://docs.pytorch.org/tutorials/recipes/distributed_device_mesh.html): the same grid for models that are split.
# - Next: lesson 50 begins the last project, network anomalies.
