# %% [markdown]
# # Anomalies: an autoencoder that knows only normal traffic
#
# **You will learn**
# - to train a denoising autoencoder under DDP, with noise that does not depend on the number of ranks, and to run it on two nodes with the same bits;
# - to find a quantile of numbers that lie on several ranks, exactly, without moving them;
# - to judge a detector beside rivals that were fitted to the same flows, and one that knows attacks.
#
# *About 50 minutes; the cells run for about one. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights, order of the flows, noise; the splits never move
start_method: str = "auto"  # how launch starts ranks

# %%
import math
import os
import time

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from sklearn.metrics import roc_auc_score
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
    shard_indices,
    torchrun,
    write_script,
)
from course_lib.data import unsw_nb15
from course_lib.equivalence import equivalence_table
from course_lib.evaluation import confusion_over_ranks
from course_lib.plots import COLOURS, bars, figure, show

# %% [markdown]
# ## What may a detector know?
#
# A classifier learns the attacks that it was shown. Tomorrow's attack is not among them. An **anomaly detector** asks another question: does this flow look like normal traffic? To learn *normal*, it needs normal flows and no others. The table is lesson 50's, with its repairs: no
# number of the row (the encoder leaves `id` out), no time to live, durations in microseconds; and no training row twice.


# %%
def repaired(rows):
    rows = rows.drop(columns=["sttl", "dttl", "ct_state_ttl"])
    return rows.assign(**{t: 1e6 * rows[t] for t in ("dur", "tcprtt", "synack", "ackdat")})


world_size, preset = choose_world_size(world_size), choose_preset(preset)
options = {"nprocs": world_size, "start_method": start_method}
on_cpu = {"start_method": start_method, "device": "cpu"}
flows = unsw_nb15.load(source)
protocol, origin = flows.protocol, flows.origin
training, testing = flows.train, repaired(flows.test)
training = repaired(training[~unsw_nb15.repeats(training)])  # else one might be in both parts below
known_attacks = training[training["label"] == 1]
normals = training[training["label"] == 0].sample(frac=1, random_state=42)
cut = int(0.8 * len(normals))
fit = normals.iloc[:cut]
held = normals.iloc[cut:].sort_values("dur", kind="stable")  # you will see why

# %% [markdown]
# The training normals fall into two parts. On `fit` everything is learnt: scales, categories, weights. Flows that a network was trained on are rebuilt better than new ones, so the threshold has to come from others: from `held`. The attacks of the training part are used once, to choose between designs, and
# never to fit one.

# %%
encoder = unsw_nb15.Encoder.fit(fit)


def numbers(rows):
    return torch.tensor(encoder.transform(rows).to_numpy(), dtype=torch.float32)


x, held_out, test = numbers(fit), numbers(held), numbers(testing)
attack = torch.tensor(testing["label"].to_numpy())
parts = {"fit": fit, "held": held, "attacks, to choose": known_attacks, "test": testing}
counts = {n: {"flows": len(p), "of them attacks": p["label"].sum()} for n, p in parts.items()}
print(f"{protocol}; {encoder}")
pd.DataFrame(counts).T.style.format("{:,}")

# %% [markdown]
# ## An autoencoder, and noise
#
# An **autoencoder** is a network that shall say what it has just heard. If its middle is narrow, it cannot simply pass the numbers on; it has to learn how they hang together. There is a second way to make copying worthless: add **noise** to the input, and ask for the clean flow. To remove the noise, the network must know
# where normal flows lie, and pull what it gets towards them. This is a *denoising* autoencoder, and its middle may be wide.


# %%
def autoencoder(features: int, middle: int = 256) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 256),
        nn.ReLU(),
        nn.Linear(256, middle),
        nn.ReLU(),
        nn.Linear(middle, 256),
        nn.ReLU(),
        nn.Linear(256, features),
    )


# %% [markdown]
# Who throws the dice for the noise? With one seed for all, each rank drawing for its own rows, every rank would get *the same* noise. With a seed for each, no two numbers of ranks would ever learn the same. So each rank draws for the **whole batch** and uses the lines of its own rows: noise belongs to the flow and the step, not to the rank. (The price: every rank draws the noise of all.)


# %%
def learn(x, epochs, seed, noise=0.4, middle=256, batch=240, rate=3e-3):
    with process_group() as pg:
        torch.manual_seed(seed)
        model = DistributedDataParallel(autoencoder(x.shape[1], middle).to(pg.device))
        optimizer = torch.optim.AdamW(model.parameters(), rate)
        assert batch % pg.world_size == 0, "the ranks of a batch have equal parts"
        steps = epochs * (len(x) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
        dice, losses = torch.Generator().manual_seed(seed), []
        mine = slice(pg.rank, None, pg.world_size)
        for _ in progress(range(epochs), "epoch"):
            order = torch.randperm(len(x), generator=dice)  # the same on all ranks
            for rows in order.split(batch)[: len(x) // batch]:
                clean = x[rows]
                noisy = clean + noise * torch.randn(clean.shape, generator=dice)
                said = model(noisy[mine].to(pg.device))
                loss = F.mse_loss(said, clean[mine].to(pg.device))
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
# The promise, with the noise on. (A batch of 240 falls into equal parts for 1 to 5 ranks; the last, smaller batch of an epoch is left out.) **How far apart will the losses of 20 steps be?** (The bars show rank 0's own rows, so they differ; the table compares the loss of the whole batch.)

# %%
first = x[: 240 * 10]
runs = {n: launch(learn, first, 2, seed, nprocs=n, **on_cpu)[0] for n in (1, 2, 4)}
equivalence = equivalence_table(runs, tolerance=1e-5)
equivalence.map("{:.1e}".format)

# %% [markdown]
# As small as rounding.
#
# ## Narrow, noisy, or both?
#
# The **score** of a flow is how badly it is rebuilt: the mean squared error over its numbers, and this time without noise. We compute it in float64 and round at the end: in float32 its last bits can depend on which rows happen to share a batch.


# %%
def score(weights, x):
    model = autoencoder(x.shape[1], len(weights["2.bias"])).double()
    model.load_state_dict(weights)
    with torch.no_grad():
        parts = [(model(some) - some).square().mean(dim=1) for some in x.double().split(4096)]
    return torch.cat(parts).float()


def auroc(of_normals, of_attacks):
    label = [0] * len(of_normals) + [1] * len(of_attacks)
    return roc_auc_score(label, np.concatenate([of_normals, of_attacks]))


# %% [markdown]
# Four designs, trained for a short while. They are judged by held-out normals and the attacks that the *training* part knows. **AUROC** is the chance that an attack scores higher than a normal flow: 0.5 is guessing, 1 is perfect. **Which design rebuilds normal flows best, and which one tells attacks best? Is it the same one?**

# %%
some_attacks, table = numbers(known_attacks), {}
steps = {"smoke": 60, "quick": 2400, "full": 12_000}[preset]
for middle in (8, 256):
    for noise in (0.0, 0.4):
        short = max(1, steps // 4 * 240 // len(x))
        _, weights = launch(learn, x, short, seed, noise, middle, **options)[0]
        normal, strange = score(weights, held_out), score(weights, some_attacks)
        row = {"error of normals": normal.mean().item(), "of attacks": strange.mean().item()}
        row["AUROC"] = auroc(normal, strange)
        table[f"middle {middle}, noise {noise}"] = row
pd.DataFrame(table).T.round(4)

# %% [markdown]
# With the real flows, a wide network without noise rebuilds normal traffic best, because it may copy; and it copies attacks, too, better than the others do. So normals alone cannot choose: going by their error one would take the wrong design. Known attacks of the training part chose the noise and the width; who has none must choose by reason. No weight
# has been fitted to an attack, and in this lesson nothing is chosen on test flows.
#
# ## The run
#
# Now the wide one with noise, about four times as long.

# %%
epochs, begin = max(1, round(steps * 240 / len(x))), time.perf_counter()
losses, weights = launch(learn, x, epochs, seed, **options)[0]
train_seconds = time.perf_counter() - begin
last = np.mean(losses[-len(losses) // 10 :])
print(f"{train_seconds:.0f} s for {len(losses):,} steps on {world_size} ranks; loss {last:.4f}")

# %% [markdown]
# ## One threshold for all ranks
#
# From which score on do we raise an alarm? Without attacks, only one thing can be fixed: how many false alarms we bear. Say, one normal flow in ten. Then the threshold is the 90 % **quantile** of the held-out scores: the smallest score such that 90 % of all lie at or below it.
#
# These scores lie on many ranks. The tempting way is to average the ranks' quantiles. The exact way asks all ranks a question: *how many of yours are at or below this?* The counts are added up, and the answer says whether to go higher or lower. For floats that are not negative, the order of the numbers is the order of their bits, so we halve the range of the *bits*, 31 times, and arrive at the very float.


# %%
def global_quantile(scores, share, device):
    """The smallest float such that `share` of the scores of all ranks lie at or below it."""

    def over_ranks(count):
        total = torch.tensor(count, device=device)
        dist.all_reduce(total)
        return total.item()

    wanted = math.ceil(share * over_ranks(len(scores)))
    bits, low, high = scores.view(torch.int32), 0, 2**31 - 1
    while low < high:
        middle = (low + high) // 2
        if over_ranks((bits <= middle).sum().item()) >= wanted:
            high = middle
        else:
            low = middle + 1
    return torch.tensor(low, dtype=torch.int32).view(torch.float32).item()


# %% [markdown]
# Let the ranks be unlike: rank r holds r + 1 parts, and since `held` is sorted by duration, the first rank guards the shortest flows and the last one the longest. **How many false alarms will the mean of the ranks' quantiles raise, in place of one in ten?**

# %%
SHARE = 0.9


def thresholds(weights, held_out):
    with process_group() as pg:
        ends = np.cumsum(np.arange(pg.world_size + 1)) * len(held_out)
        cuts = ends // (pg.world_size * (pg.world_size + 1) // 2)
        scores = score(weights, held_out[cuts[pg.rank] : cuts[pg.rank + 1]])
        exact = global_quantile(scores, SHARE, pg.device)
        own = np.quantile(scores.numpy(), SHARE, method="inverted_cdf")
        tempting = torch.tensor(own, device=pg.device)
        dist.all_reduce(tempting)
        return exact, tempting.item() / pg.world_size


asked = {n: launch(thresholds, weights, held_out, nprocs=n, **on_cpu) for n in range(1, 6)}

# %%
of_held = score(weights, held_out).numpy()
table = {}
for n, answers in asked.items():
    exact, tempting = answers[0]
    table[n] = {"exact": exact, "its false alarms": (of_held > exact).mean()}
    table[n] |= {"mean of quantiles": tempting, "false alarms": (of_held > tempting).mean()}
    assert {exact for exact, _ in answers} == {np.quantile(of_held, SHARE, method="inverted_cdf")}
threshold = asked[1][0][0]
pd.DataFrame(table).T.rename_axis("ranks").round(4)

# %% [markdown]
# The left column is one number, on every rank, to the last bit, and it is the one that NumPy finds with all scores in one place. The mean of quantiles depends on who happens to hold what, and its false alarms are not those that were promised. **What cannot be averaged can often be counted.** It takes 31 round trips, and one to learn how many there are, each of a single number.
#
# ## The test
#
# Each rank scores its part of the test flows and counts right and wrong; `confusion_over_ranks` adds up, exactly. The AUROC needs the order of *all* scores, which no sum of a few numbers replaces. So for that each rank returns its scores, and we join them here.


# %%
def judge(weights, x, attack, threshold):
    with process_group() as pg:
        mine = shard_indices(len(x), pg.rank, pg.world_size)
        scores = score(weights, x[mine])
        alarm = (scores > threshold).long()
        return confusion_over_ranks(alarm, attack[mine], classes=2), scores


judged = launch(judge, weights, test, attack, threshold, nprocs=world_size, **on_cpu)
of_test = torch.cat([scores for _, scores in judged]).numpy()
names = {"index": ["normal", "attack"], "columns": ["no alarm", "alarm"]}
pd.DataFrame(judged[0][0].numpy(), **names).style.format("{:,}")

# %%
bad = attack.numpy() == 1
title = f"{np.mean(of_test[bad] > threshold):.0%} of the attacks and {np.mean(of_test[~bad] > threshold):.0%} of the normal flows lie above the threshold"
axis = {"xlabel": "score: mean squared error (log; the top 0.1 % left out)", "ylabel": "test flows"}
fig, ax = figure(title, **axis, origin=origin)
bins = np.geomspace(of_test.min(), np.quantile(of_test, 0.999), 80)
ax.hist(of_test[~bad], bins, color=COLOURS[0], alpha=0.7, label="normal")
ax.hist(of_test[bad], bins, color=COLOURS[1], histtype="step", linewidth=2, label="attack")
ax.axvline(threshold, color="#1f2933", linestyle="--", label="threshold")
ax.set_xscale("log")
ax.legend()
show(fig, alt=f"Histogram of the scores of normal flows and attacks. {title}")

# %% [markdown]
# ## Beside rivals
#
# Everybody gets the same `fit` flows and the same rule for the threshold. **PCA** scores by what the first axes leave over, as in lesson 50; the **Mahalanobis** distance measures from the centre in standard deviations, along all axes in which the normals vary at all; an **isolation forest** counts how few random cuts part a flow from the rest; a **one-class SVM** draws a border around a sample of the normals.

# %%
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.svm import OneClassSVM

normal, trees = x.double().numpy(), {"smoke": 10, "quick": 100, "full": 500}[preset]
pca = PCA(svd_solver="full").fit(normal)
carried = pca.explained_variance_ratio_.cumsum()


def left_over(axes):
    others = pca.components_[axes:]
    return lambda z: np.square((z - pca.mean_) @ others.T).sum(axis=1)


ways = {}
for share in (0.8, 0.9, 0.95, 0.99):
    axes = int(np.argmax(carried >= share)) + 1
    ways[f"PCA, {axes} axes"] = left_over(axes)
ways["Mahalanobis"] = EmpiricalCovariance().fit(normal).mahalanobis
isolation = IsolationForest(n_estimators=trees, random_state=seed, n_jobs=-1).fit(normal)
ways["isolation forest"] = lambda z: -isolation.score_samples(z)
svm = OneClassSVM(nu=1 - SHARE).fit(normal[:5000])
ways["one-class SVM"] = lambda z: -svm.score_samples(z)

# %% [markdown]
# Two more for orientation. *Everything is an attack* costs nothing and has a recall of 1. And a **supervised forest** has been shown the known attacks; it does not play by the rules of this lesson, and says what labels are worth. **Where between the two will the autoencoder come to lie?**

# %%
OURS, KNOWS = "autoencoder", "forest that knows attacks"
everybody = {OURS: (of_test, threshold)}
for name, way in ways.items():
    limit = np.quantile(way(held_out.double().numpy()), SHARE, method="inverted_cdf")
    everybody[name] = way(test.double().numpy()), limit
forest = RandomForestClassifier(trees, random_state=seed, n_jobs=-1)
forest.fit(np.concatenate([x, some_attacks]), [0] * len(x) + [1] * len(some_attacks))
everybody[KNOWS] = forest.predict_proba(test.numpy())[:, 1], 0.5  # a threshold of its own
everybody["everything"] = np.ones(len(test)), 0

# %%
rows = {}
for name, (scores, limit) in everybody.items():
    alarm = scores > limit
    hits = (alarm & bad).sum()
    rows[name] = {
        "precision": hits / max(1, alarm.sum()),
        "recall": hits / bad.sum(),
        "F1": 2 * hits / (alarm.sum() + bad.sum()),
        "false-positive rate": alarm[~bad].mean(),
        "AUROC": auroc(scores[~bad], scores[bad]),
    }
(_, false), (missed, hits) = judged[0][0].tolist()  # the counts of the ranks say the same
assert rows[OURS]["F1"] == 2 * hits / (2 * hits + false + missed)
table = pd.DataFrame(rows).T.rename_axis(protocol).sort_values("AUROC", ascending=False)
table.style.format("{:.3f}")

# %%
best_pca = max(row["AUROC"] for name, row in rows.items() if name.startswith("PCA"))
rest = table.drop(index=[OURS, KNOWS, "everything"])["AUROC"]
ours = rows[OURS]["AUROC"]
title = f"AUROC of the autoencoder {ours:.2f}; of the best rival that knows no attack, {rest.idxmax()}, {rest.max():.2f}"
label = f"AUROC, {protocol} (more is better)"
drawn = table["AUROC"].to_dict()
fig = bars(drawn, title, label, OURS, origin, "detector", largest_first=True)
show(fig, alt=f"Bars: {', '.join(f'{k} {v:.3f}' for k, v in drawn.items())}. {title}")

# %% [markdown]
# Be fair to all. For PCA we show four cuts and count the best on the test, more than we allow ourselves. But the rivals run nearly with their defaults, while known attacks chose the autoencoder's design. Precision and F1 depend on how common attacks are: in real traffic they are rare, and one false alarm in ten normal flows would bury them. And a forest that knows *these* kinds says
# nothing about the next one. **Which kinds does a detector find that knows none?**

# %%
kind = testing["attack_cat"][bad]
found = pd.Series(of_test[bad] > threshold).groupby(kind.to_numpy()).agg(["mean", "size"])
recalls = {f"{name} ({n:,.0f})": mean for name, mean, n in found.itertuples()}
most, least = found["mean"].idxmax(), found["mean"].idxmin()
title = f"Of {most} {found['mean'][most]:.0%} are found, of {least} {found['mean'][least]:.0%}"
axis = {"xlabel": "share of its test flows that raise an alarm", "ylabel": "kind (flows)"}
fig = bars(recalls, title, **axis, origin=origin, largest_first=True)
show(fig, alt=f"Bars: {', '.join(f'{k} {v:.2f}' for k, v in recalls.items())}. {title}")

# %% [markdown]
# What is loud or broken stands out; what is short and tidy looks like ordinary talk. Such kinds need other features, not a lower threshold. (And some flows of lesson 50 had several names: they count under the one that stands first.)
#
# ## On two nodes
#
# Real traffic is watched where it flows, on many machines. As in lesson 41, two agents of torchrun's stand for two nodes, with one rank each. The program is handed no tensor: it loads the flows, drops the times to live, fits the encoder, and then each rank throws the same dice.


# %%
def train_detector(epochs: int, seed: int = 0):
    """Train the denoising autoencoder of lesson 51 on normal flows."""
    where = {name: os.environ.get(name) for name in ("RANK", "GROUP_RANK", "LOCAL_RANK")}
    losses, weights = learn(x, epochs, seed)
    return losses, weights, where


program = write_script(train_detector, "train_detector.py")
on_nodes = torchrun(program, nprocs=1, nnodes=2, device="cpu", epochs=2, seed=seed)
pd.DataFrame([where for *_, where in on_nodes])

# %% [markdown]
# GROUP_RANK is the number of the node. **Will losses and weights be those that two ranks of this kernel learn, to the last bit, noise and all?**

# %%
here = launch(train_detector, 2, seed, nprocs=2, **on_cpu)
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
    protocol=protocol,
    precision=rows[OURS]["precision"],
    recall=rows[OURS]["recall"],
    f1=rows[OURS]["F1"],
    auroc=ours,
    best_pca_auroc=best_pca,
    train_seconds=train_seconds,
    samples_per_second=len(losses) * 240 / train_seconds,
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
)

# %% [markdown]
# **Exercises:** [`exercises/51_anomaly_autoencoder.ipynb`](../exercises/51_anomaly_autoencoder.ipynb). You will make all ranks agree on a threshold, and trade precision for recall.
#
# ## Take-away
#
# > A detector that has seen only normal flows is judged beside others that were fitted to the same, under a named protocol, with a threshold from normal flows that it was not trained on.
# > Sums and counts add up over ranks, means and quantiles do not; but both can be had from what does: a mean from a sum and a count, a quantile by counting, and all ranks arrive at the same float.
# > Randomness that belongs to the sample and the step, and not to the rank, keeps N ranks equal to one, on one node or two.
#
# **To go further**
# - Vincent, Larochelle, Bengio, Manzagol: [Extracting and Composing Robust Features with Denoising Autoencoders](https://doi.org/10.1145/1390156.1390294), 2008.
# - Alain, Bengio: [What Regularized Auto-Encoders Learn from the Data-Generating Distribution](https://jmlr.org/papers/v15/alain14a.html), 2014: why removing noise tells where data are dense.
# - Liu, Ting, Zhou: [Isolation Forest](https://doi.org/10.1109/ICDM.2008.17), 2008.
# - Schölkopf and others: [Estimating the Support of a High-Dimensional Distribution](https://doi.org/10.1162/089976601750264965), 2001: the one-class SVM.
# - Ruff and others: [A Unifying Review of Deep and Shallow Anomaly Detection](https://doi.org/10.1109/JPROC.2021.3052449), 2021.
# - Next: lesson 52 puts scores on a time axis and asks how many false alarms an hour one can bear.
