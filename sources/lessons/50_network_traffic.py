# %% [markdown]
# # Network traffic: leaks, and PCA over ranks
#
# **You will learn**
# - to look at a table of network flows before any model does: kinds, heavy tails, repeats;
# - to show a leak by a number, to remove it, and to say so when it cannot be removed;
# - to compute mean, covariance and principal components of rows that lie on several ranks, to rounding, with one `all_reduce`.
#
# *About 40 minutes; the cells run for about half a minute. 2 processes on the CPU, and up to 5 in one cell.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how large the forests are
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # for the forests; the splits never move
start_method: str = "auto"  # how launch starts ranks

# %%
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from course_lib import choose_preset, choose_world_size, launch, process_group
from course_lib.data import unsw_nb15
from course_lib.plots import COLOURS, figure, show, thousands

world_size, preset = choose_world_size(world_size), choose_preset(preset)
options = {"nprocs": world_size, "start_method": start_method, "device": "cpu"}

# %% [markdown]
# ## Two files with swapped names
#
# In 2015 Nour Moustafa and Jill Slay had a traffic generator send normal traffic and attacks through a small test network and recorded it. A choice of it is published as a training and a testing file, whose names got swapped: the one called `training-set` has as many rows as the publisher's page says the *test* part has. So `load` goes
# by the number of rows. It also says which **protocol** applies: both files as published, or, if one is missing, a split of our own. **Scores under different protocols cannot be compared.**

# %%
flows = unsw_nb15.load(source)
frame, origin = flows.frame, flows.origin
print(f"protocol: {flows.protocol}")

# %% [markdown]
# A row is a **flow**: all packets that two programs exchanged in one conversation, summed up. How long did it last, how many packets (`pkts`) and bytes went there (`s`, from the source) and back (`d`, from the destination), under which protocol, how did it end? Here is one of each kind.

# %%
shown = ["proto", "service", "state", "dur", "spkts", "dpkts", "sbytes", "dbytes", "sttl"]
frame.groupby("attack_cat").sample(1, random_state=42).set_index("attack_cat")[shown]

# %% [markdown]
# The task is to tell attacks from normal traffic (`label`); the kinds help us to see what we have. `repeats` marks each row whose features some earlier row already has. A generator may have sent the same attack a thousand times; or one flow was given several names. **Which kind will lose most, and to which of the two?**

# %%
again = unsw_nb15.repeats(frame)
counts = frame["attack_cat"].value_counts().to_frame("all rows")
counts["each flow once"] = frame["attack_cat"][~again].value_counts()
counts = counts.fillna(0).astype(int)
lost = 1 - counts["each flow once"] / counts["all rows"]
features = frame.columns.difference(["id", "attack_cat", "label", "split"])
same = pd.util.hash_pandas_object(frame[features], index=False)
renamed = again & (frame["attack_cat"] != frame.groupby(same)["attack_cat"].transform("first"))
title = f"{again.mean():.1%} of all rows repeat another; of {lost.idxmax()}, {lost.max():.1%} do"
fig, ax = figure(title, xlabel="flows (log)", ylabel="kind", origin=origin)
for i, (name, colour) in enumerate(zip(counts, COLOURS, strict=False)):
    places = np.arange(len(counts)) + 0.4 * i - 0.2
    drawn = ax.barh(places, counts[name], height=0.38, color=colour, label=name)
    ax.bar_label(drawn, [f"{n:,}" for n in counts[name]], padding=3, fontsize=8)
ax.set_yticks(np.arange(len(counts)), counts.index)
ax.set_xscale("log")
ax.margins(x=0.1)
ax.xaxis.set_major_formatter(thousands())
ax.invert_yaxis()
ax.legend(loc="lower right")
show(fig, alt=f"Bars of flows a kind, with and without repeats. {title}")

# %% [markdown]
# Kinds differ by orders of magnitude, and repeats are spread unevenly: a score over all rows is mostly one of the largest kinds, and of those that repeat. Two things make repeats, and they are told apart here: which share of a kind's repeats came first under *another* name?

# %%
other = (
    renamed.groupby(frame["attack_cat"]).sum() / pd.Series(again).groupby(frame["attack_cat"]).sum()
)
other.dropna().map("{:.0%}".format).to_frame("of its repeats, first seen under another kind").T

# %% [markdown]
# Where the share is small, a generator repeated itself. Where it is large, the repeat is no repetition but doubt about the label: of such kinds, a score by kind means little. We come back to the repeats below.
#
# ## Tails and rare names
#
# Means and standard deviations, the tools of PCA and of most scalers, want columns without a few giants. Traffic has giants. The usual cure is log(1 + x). Above each column as it is, below after the cure, with the **skewness** of both: a symmetric column has 0, and a few units are a long tail. **Does it help all three alike?**

# %%
units = {"sbytes": "bytes", "rate": "packets a second", "dur": "seconds"}
skew = {name: (frame[name].skew(), np.log1p(frame[name]).skew()) for name in units}
told = "; ".join(f"{name} {before:.1f} to {after:z.1f}" for name, (before, after) in skew.items())
title = f"Skewness, without and with the logarithm: {told}"
fig, axes = figure(title, ylabel="flows (log)", nrows=2, ncols=3, size=(7.2, 4.8), origin=origin)
for (upper, lower), (name, unit) in zip(axes.T, units.items(), strict=True):
    upper.hist(frame[name], bins=60, histtype="stepfilled", color=COLOURS[0])
    lower.hist(np.log1p(frame[name]), bins=60, histtype="stepfilled", color=COLOURS[2])
    upper.set_xlabel(f"{name} ({unit})")
    upper.xaxis.set_major_formatter(thousands())
    upper.locator_params(axis="x", nbins=2)
    lower.set_xlabel(f"log(1 + {name})")
for ax in axes.flat:
    ax.set_yscale("log")
show(fig, alt=f"Histograms of three columns before and after log(1 + x). {title}")
print(f"{(frame['dur'] < 1).mean():.0%} of the flows last less than a second")

# %% [markdown]
# Bytes and rates behave. The duration does not: most flows are shorter than a second, and for small x, log(1 + x) is all but x. The logarithm cures only what lies above 1, so **the unit decides**. Remember it for the section on features. Now the columns that are no numbers: **how many protocols does a small network speak?**

# %%
rows = {}
for column in ("proto", "service", "state"):
    share = frame[column].value_counts(normalize=True)
    rare = share[share < 0.001]
    rows[column] = {"values": len(share), "most frequent": ", ".join(share.index[:4])}
    rows[column] |= {"in under 1 of 1,000 rows": len(rare), "rows with such": f"{rare.sum():.2%}"}
pd.DataFrame(rows).T

# %% [markdown]
# One column a value would mean a column that is 1 in a handful of rows, or only ever 1 in the test rows. So rare values share one column, `(other)`, and so will names that nobody has seen yet. In `service`, `-` is no gap: it stands for all but the common services.
#
# ## Three leaks
#
# A **leak** is whatever tells the answer here and will not be there, or not tell it, in real use. Take one file of the pair, split it at random into halves, and let a forest learn from one column: `id`, the number of the row. **How well can a row's number tell attacks? To call *everything* an attack is the guess to beat.**

# %%
file = frame if flows.protocol == unsw_nb15.DUPLICATE_FREE else flows.test
attack = file["label"].to_numpy()
x = file.drop(columns=["attack_cat", "label", "split"], errors="ignore")
for column in ("proto", "service", "state"):
    x[column] = x[column].astype("category").cat.codes  # a forest takes any numbers
trees = {"smoke": 10, "quick": 30, "full": 200}[preset]


def predict(columns, fit, test):
    forest = RandomForestClassifier(trees, n_jobs=-1, random_state=seed)
    return forest.fit(x[columns].iloc[fit], attack[fit]).predict(x[columns].iloc[test])


fit, test = np.array_split(np.random.default_rng(42).permutation(len(file)), 2)
print(f"F1 of `id` alone: {f1_score(attack[test], predict(['id'], fit, test)):.4f}")
print(f"F1 of calling everything an attack: {f1_score(attack[test], np.ones(len(test))):.4f}")
changes = np.count_nonzero(np.diff(attack))
print(f"Down the file, the label changes {changes:,} times in {len(file):,} rows.")

# %% [markdown]
# The last line explains the first: the file is in blocks. Whoever leaves `id` in gets a score near 1 and has learnt in which order somebody saved a file. Out with it. The second suspect is `sttl`. Each packet starts with a **time to live** of 32, 64, 128 or 255, set by its operating system, and loses 1 at each router. **What can that say about
# attacks?**

# %%
f1 = f1_score(attack[test], predict(["sttl"], fit, test))
print(f"F1 of `sttl` alone: {f1:.4f}")
by_ttl = file.groupby("sttl")["label"].agg(flows="size", attacks="sum")
by_ttl.nlargest(4, "flows")

# %% [markdown]
# One number that knows nothing of what a flow does beats the guess. Look at the table: the values differ in their share of attacks as no behaviour explains. That is how the *test bed* was wired, not what attacks are like: a real attacker sits behind other routers. So out with `sttl`, with `dttl`, its sibling of the way back, and with `ct_state_ttl`, made from both.
#
# The third leak is the repeats. Let the simplest model of all have a go: a dictionary of the flows it has seen. What it finds there, it answers; everything else it calls normal. **What F1 can a dictionary reach?**

# %%
flow = pd.util.hash_pandas_object(x.drop(columns="id"), index=False).to_numpy()
seen = dict(zip(flow[fit], attack[fit], strict=True))
known = np.array([f in seen for f in flow[test]])
looked_up = np.array([seen.get(f, 0) for f in flow[test]])
print(f"{known.mean():.1%} of the test rows have a twin among the rows to learn from:")
for name, label in (("attacks", 1), ("normals", 0)):
    print(f"  of the {name} {known[attack[test] == label].mean():.1%}")
print(f"F1 of the dictionary: {f1_score(attack[test], looked_up):.3f}")
kinds = pd.Series(file["attack_cat"].to_numpy()).groupby(flow).nunique()
print(f"{(kinds > 1).sum():,} flows are there under more than one kind.")

# %% [markdown]
# The test did not ask "can you tell an attack?" but, for many rows, "have you seen this one?". Real attackers repeat themselves, too, but a score has to say which of the two it measures. `unsw_nb15.split` keeps each flow once, and deals half of each kind to each side. Now the same forest with the leaks removed, one after the other. **Which removal will cost most?**

# %%
TTL = ["sttl", "dttl", "ct_state_ttl"]
no_id = [name for name in x if name != "id"]
no_ttl = [name for name in no_id if name not in TTL]
halves = {"random": (fit, test), "shares no flow": unsw_nb15.split(file)}
plan = {
    "all columns": ([*x], "random"),
    "without id": (no_id, "random"),
    "without id and TTL": (no_ttl, "random"),
    "without id, TTL and repeats": (no_ttl, "shares no flow"),
}
rows, said = {}, {}
for step, (columns, how) in plan.items():
    truth, said[step] = attack[halves[how][1]], predict(columns, *halves[how])
    rows[step] = {"split": how, "attacks": f"{truth.mean():.0%}"}
    rows[step] |= {"F1, all called attacks": round(f1_score(truth, np.ones(len(truth))), 3)}
    rows[step] |= {"F1, forest": round(f1_score(truth, said[step]), 4)}
    rows[step] |= {"wrong in 1,000": round(1000 * np.mean(truth != said[step]), 1)}
wrong = said["without id and TTL"] != attack[test]
ttl = RandomForestClassifier(trees, n_jobs=-1, random_state=seed)
ttl.fit(x[no_ttl].iloc[fit], x["sttl"].iloc[fit])
told = (ttl.predict(x[no_ttl].iloc[test]) == x["sttl"].iloc[test]).mean()
print(f"The other columns tell the time to live in {told:.1%} of the rows.")
print(f"Third line: {wrong[known].mean():.2%} wrong of the rows with a twin,", end=" ")
print(f"{wrong[~known].mean():.2%} of those without")
pd.DataFrame(rows).T

# %% [markdown]
# Read two things. Rows with a twin the forest knows by heart; among those without, it errs about as often as in the last line, where there are no twins: the repeats had only thinned the errors out. (The two splits differ in their share of attacks and in their size, so neither F1 nor errors compare exactly.) And the TTLs, though they tell so much alone, cost the forest little: the other columns tell the TTL. It left the table and
# is still there. **That leak can be shown and not removed.** No choice of columns turns a test bed into the world. A score here is a score here, until another network confirms it.
#
# One more stays. Seven columns count a flow's neighbours: how many of the last hundred flows had the same service, the same source, and so on. **How many test rows differ from a row to learn from in nothing but these counts?**

# %%
counts = ["ct_srv_src", "ct_srv_dst", "ct_src_ltm", "ct_dst_ltm"]
counts += ["ct_src_dport_ltm", "ct_dst_sport_ltm", "ct_dst_src_ltm"]
flow = pd.util.hash_pandas_object(x[no_ttl].drop(columns=counts), index=False).to_numpy()
fit, test = halves["shares no flow"]
near = np.isin(flow[test], flow[fit])
print(f"{near.mean():.1%} of the test rows, {near[attack[test] == 1].mean():.1%} of the attacks")

# %% [markdown]
# No row is on both sides, but these have a close relative there. Whoever wants less of that has to split by time, or by network.
#
# ## Features
#
# From here on: the rows of the protocol. Lesson 51 will learn what *normal* is, so scales and categories come from the training normals only. A number then says how unusual it is for normal traffic. That invites trouble: test rows have names that no normal row had. **What should become of them?**

# %%
train, testing = flows.train.drop(columns=TTL), flows.test.drop(columns=TTL)
encoder = unsw_nb15.Encoder.fit(train[train["label"] == 0])
strange = encoder.unseen(testing)
print(encoder)
for column, names in strange.items():
    rows = testing[testing[column].isin(names.index)]
    print(f"{column}: {len(names)} unknown names in {len(rows):,} test rows, ", end="")
    print(f"{rows['label'].mean():.0%} of them attacks")
assert np.isfinite(encoder.transform(testing)).all(axis=None)

# %% [markdown]
# They become `(other)`, without an error, and the model is told that something is odd. Now better numbers. Three ideas: durations in **microseconds**, so that the logarithm works on them; bytes a packet; the share of the bytes that come back. We try them with a linear model, which sees no more than it is given, on a part of the *training* rows. (**AUROC**: the chance that an attack scores higher than a normal flow. 0.5 is guessing, 1 is perfect.) **Which
# will help?**


# %%
SECONDS = ["dur", "tcprtt", "synack", "ackdat"]


def in_microseconds(rows):
    return rows.assign(**{name: 1e6 * rows[name] for name in SECONDS})


def with_ratios(rows):
    back = rows["dbytes"] / (rows["sbytes"] + rows["dbytes"]).clip(lower=1)
    return rows.assign(bytes_a_packet=rows["sbytes"] / rows["spkts"].clip(lower=1), back=back)


# %%
fit, valid = unsw_nb15.split(train)  # the test rows are for the end
fit, valid = (part[:: 1 + len(part) // 10_000] for part in (fit, valid))
ideas = {
    "as published": lambda rows: rows,
    "in microseconds": in_microseconds,
    "with ratios": with_ratios,
    "both": lambda rows: with_ratios(in_microseconds(rows)),
}
scores = {}
for name, idea in ideas.items():
    a, b = idea(train.iloc[fit]), idea(train.iloc[valid])
    numbers = unsw_nb15.Encoder.fit(a[a["label"] == 0])
    model = LogisticRegression(tol=1e-3, max_iter=500).fit(numbers.transform(a), a["label"])
    p = model.predict_proba(numbers.transform(b))[:, 1]
    scores[name] = {"F1": f1_score(b["label"], p > 0.5), "AUROC": roc_auc_score(b["label"], p)}
gap = (train["sbytes"] / train["spkts"].clip(lower=1) - train["smean"]).abs().max()
print(f"bytes a packet differ from the column smean by {gap:.2f} at most")
pd.DataFrame(scores).T.round(3)

# %% [markdown]
# With the real flows, a change of unit does more than two new columns. Bytes a packet are there already: `smean` is just that, rounded. And the share that comes back adds next to nothing to the difference of two logarithms, which is the logarithm of a ratio. So we keep the microseconds and leave the ratios out (one split and one fit: no more than a hint). **An idea that does not show in a number is weight.**
#
# ## Principal components over ranks
#
# **PCA** turns the axes so that the first ones carry most of the variance: they are the eigenvectors of the covariance matrix. Say the rows lie on many ranks, and nobody has them all. To whom must they be sent? To nobody. The covariance follows from three sums: the number of rows, n, their sum, Σx, and the sum of their products, Σxxᵀ. Sums of ranks are added up in one
# `all_reduce`, joined into one tensor. Here rank r holds r + 1 parts of the rows, so all hold different numbers of them.


# %%
def mine(rows):
    ends = np.cumsum(np.arange(1, dist.get_world_size() + 1))
    cuts = [0, *(len(rows) * ends // ends[-1])]
    return rows[cuts[dist.get_rank()] : cuts[dist.get_rank() + 1]]


def moments(x):  # the rows of this rank × features, float64
    d = x.shape[1]
    sums = torch.cat([x.new_tensor([len(x)]), x.sum(dim=0), (x.T @ x).flatten()])
    dist.all_reduce(sums)
    n, mean, products = sums[0], sums[1 : d + 1] / sums[0], sums[d + 1 :].view(d, d)
    return mean, (products - n * torch.outer(mean, mean)) / (n - 1), sums.nbytes


def principal_components(rows):
    with process_group():
        mean, covariance, sent = moments(mine(rows))
        variances, vectors = torch.linalg.eigh(covariance)  # the smallest first
        axes = vectors.T.flip(0)
        largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
        axes = axes * largest.sign()  # an axis may point either way: we choose
        return mean.numpy(), variances.flip(0).numpy(), axes.numpy(), sent


# %% [markdown]
# scikit-learn computes the same from all rows in one process, by another way (a singular value decomposition). **Should the two agree to the last digit?** No: sums in another order are rounded differently. And where two variances are all but equal, any turn within their plane is as good as any other, so an axis is only compared if its variance stands clear of its neighbours'. The others
# span what those leave over.

# %%
normals = in_microseconds(train[train["label"] == 0])
encoder = unsw_nb15.Encoder.fit(normals)
rows = torch.tensor(encoder.transform(normals).to_numpy())
sklearn = PCA(svd_solver="full").fit(rows.numpy())
gaps = abs(np.diff(sklearn.explained_variance_)) / sklearn.explained_variance_[0]
clear = np.minimum(np.append(gaps, 1), np.insert(gaps, 0, 1)) > 1e-5

for n in (1, 2, 3, 5):
    found = launch(principal_components, rows, **{**options, "nprocs": n})
    mean, variances, axes, sent = found[0]
    theirs = sklearn.components_ * np.sign((sklearn.components_ * axes).sum(axis=1))[:, None]
    of_axes = abs(axes - theirs)[clear].max()
    of_variances = abs(variances - sklearn.explained_variance_).max()
    print(f"{n} rank{'s' * (n > 1)}: axes differ by {of_axes:.0e}, variances by {of_variances:.0e}")
    assert max(of_axes, of_variances) <= 1e-8
print(f"{clear.sum()} of {len(clear)} axes stand clear.", end=" ")
print(f"Each rank put in {sent / 1e3:.0f} kB; the rows are {rows.nbytes / 1e6:.1f} MB")

# %% [markdown]
# The same for any number of ranks, and for unequal shares; a rank without rows would add zeros. What travels grows with the square of the features, and with the rows not at all. **Why sums, and not each rank's own mean and covariance, averaged?** It looks just as natural, and it is wrong twice: ranks with few rows weigh as much as those with many, and how far the ranks' means lie apart is forgotten. (The rows lie in the order of the file, so the ranks' parts are unlike.)


# %%
def averaged(rows):
    with process_group():
        part = mine(rows)
        mean, covariance = part.mean(dim=0), torch.cov(part.T)
        for own in (mean, covariance):
            dist.all_reduce(own, op=dist.ReduceOp.AVG)
        return mean.numpy(), torch.linalg.eigvalsh(covariance).flip(0).numpy()


for n in (1, 3):
    their_mean, their_variances = launch(averaged, rows, **{**options, "nprocs": n})[0]
    off = abs(their_variances[0] / variances[0] - 1)
    worst = abs(their_mean - mean).max()
    print(
        f"{n} rank{'s' * (n > 1)}: a mean is off by up to {worst:.3f} standard deviations,", end=" "
    )
    print(f"the largest variance by {off:.2%}")

# %% [markdown]
# ## When sums are dangerous
#
# `moments` subtracts n·m·mᵀ from Σxxᵀ. If the mean is large beside the spread, two huge numbers are subtracted, and what is left is what rounding left: **cancellation**. In our features no mean is much larger than its column's spread, and they are safe. But take the start of each *raw* flow, in seconds since 1970. How widely are they spread? Whole numbers allow the exact answer. **How
# wrong are float32 and float64?**

# %%
when = unsw_nb15.load_raw(source, rows=20_000).frame["stime"].astype("int64").to_numpy()


def variance(when, dtype, shift_first):
    with process_group():
        part = torch.tensor(mine(when))
        shift = part[-1:].clone() if shift_first else torch.zeros(1, dtype=torch.int64)
        dist.broadcast(shift, src=dist.get_world_size() - 1)  # the last has most rows
        x = (part - shift).to(dtype)
        sums = torch.stack([torch.ones_like(x).sum(), x.sum(), (x * x).sum()])
        dist.all_reduce(sums)
        return (sums[2] / sums[0] - (sums[1] / sums[0]) ** 2).item()


whole, n = [int(t) for t in when], len(when)  # Python's whole numbers are never rounded
exact = (n * sum(t * t for t in whole) - sum(whole) ** 2) / n**2
print(f"{'exact':26} {exact:22,.3f} s²")
for shift_first in (False, True):
    for dtype in (torch.float32, torch.float64):
        got = launch(variance, when, dtype, shift_first, **options)[0]
        name = f"{dtype}{', shifted' * shift_first}".removeprefix("torch.")
        print(f"{name:26} {got:22,.3f} s²")

# %% [markdown]
# float32 is nonsense, and float64 keeps a few of its 16 digits. The cure costs one small `broadcast`: **subtract a common value first**, any that lies among the data, and *before* rounding to the smaller type. A variance does not change when all values are shifted alike; but all ranks must shift by the same. Scaling with a common encoder did just
# that for our features.
#
# ## The plane
#
# Now use it. The axes come from training normals only; test flows, normals and attacks, are placed on the first two. Two scores: how far a flow lies from the centre *in* the plane, in standard deviations; and what is left of it *outside* the components that carry 99 % of the variance. **Will the attacks lie apart?**

# %%
place = (encoder.transform(in_microseconds(testing)).to_numpy() - mean) @ axes.T
bad = testing["label"].to_numpy() == 1
carried = np.cumsum(variances) / variances.sum()
k = int(np.argmax(carried >= 0.99)) + 1
inside = roc_auc_score(bad, (place[:, :2] ** 2 / variances[:2]).sum(axis=1))
outside = roc_auc_score(bad, (place[:, k:] ** 2).sum(axis=1))

# %%
title = f"Attacks told from normals: AUROC {inside:.2f} by distance in the plane, "
title += f"{outside:.2f} by what {k} axes leave over"
names = {"xlabel": f"axis 1 ({carried[0]:.0%} of the normals' variance)"}
names["ylabel"] = f"axis 2 ({carried[1] - carried[0]:.0%} of it)"
fig, panels = figure(title, **names, ncols=2, size=(7.2, 4.2), origin=origin)
few = np.random.default_rng(42).permutation(len(place))[:6000]
for ax, (name, which) in zip(panels, {"normal": ~bad, "attack": bad}.items(), strict=True):
    ax.scatter(*place[few, :2].T, s=4, color="#d5dce3")  # all of them, in grey
    ax.scatter(*place[few[which[few]], :2].T, s=4, alpha=0.4, color=COLOURS[int(name == "attack")])
    ax.set_title(f"{name} test flows")
show(fig, alt=f"Test flows on the first two components, normals left, attacks right. {title}")

# %% [markdown]
# With the real flows, attacks crowd in places of their own, between and beside the normals, but not further from the centre than they are; so the distance tells little. In the two directions in which normal traffic varies most, an attack may vary, too. Odd is what happens in directions in which normal traffic does *not* vary. That is the idea of lesson 51, where an autoencoder learns what normal flows have in common, and what it cannot rebuild is suspect.
#
# **Exercises:** [`exercises/50_network_traffic.ipynb`](../exercises/50_network_traffic.ipynb). You will compute mean and covariance over ranks, exact however far from 0 the rows lie, and write a split that shares no flow.
#
# ## Take-away
#
# > Before a model sees a table, ask of each column and each row what it could tell that it will not tell in real use: a row's number, the wiring of a test bed, a twin across the split. Some leaks can be removed, and others only be named beside the score.
# > What can be written as sums over rows can be computed over ranks, exactly, for any number of them and any shares, with one `all_reduce` whose size does not depend on the rows; only shift by a common value first.
#
# **To go further**
# - Nour Moustafa and Jill Slay: [UNSW-NB15: a comprehensive data set for network intrusion detection systems](https://doi.org/10.1109/MilCIS.2015.7348942), 2015.
# - Robert Flood, Gints Engelen, David Aspinall and Lieven Desmet: *Bad Design Smells in Benchmark NIDS Datasets*, IEEE EuroS&P 2024: shortcuts that test beds leave in their data.
# - Mohanad Sarhan and others: [Towards a Standard Feature Set for Network Intrusion Detection System Datasets](https://doi.org/10.1007/s11036-021-01843-0), 2022: also leaves the TTLs of this data set out.
# - Tony Chan, Gene Golub and Randall LeVeque: [Algorithms for Computing the Sample Variance: Analysis and Recommendations](https://doi.org/10.1080/00031305.1983.10483115), 1983: how parts are merged without a common shift.
# - Next: lesson 51 trains an autoencoder on normal traffic, on two nodes.
