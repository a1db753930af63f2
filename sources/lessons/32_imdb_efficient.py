# %% [markdown]
# # IMDb: nothing computed, sent or waited for in vain
#
# **You will learn**
# - to work a batch off in micro-batches that send their gradients once (`no_sync`), and to count what is sent;
# - to lose little to padding, to waiting and to 32 bits, and to measure which of them pays on your machine;
# - to get the loss right when ranks hold unequally many tokens, and to end in good order when they hold unequally many batches (`Join`).
#
# *About 45 minutes; the cells run for about two. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights, order of the batches, dropout; the split never moves
start_method: str = "auto"  # how launch starts ranks

# %%
import time
import warnings
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.backends.mha import set_fastpath_enabled
from torch.distributed.algorithms.join import Join
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from course_lib import (
    RankError,
    choose_preset,
    choose_world_size,
    confusion_over_ranks,
    launch,
    process_group,
    progress,
    record_results,
    report,
    shard_indices,
    summary,
    trace,
)

# %%
from course_lib.data import imdb
from course_lib.equivalence import equivalence_table
from course_lib.evaluation import accuracy_and_f1
from course_lib.machine import has_bfloat16
from course_lib.plots import bars, lanes, show
from course_lib.tokenising import tokenise
from course_lib.tokens import cut_and_pad, learn_vocabulary, length_buckets

world_size, preset = choose_world_size(world_size), choose_preset(preset)
options = {"nprocs": world_size, "start_method": start_method}
N = max(2, world_size)  # one rank alone has nobody to wait for
warnings.filterwarnings("ignore", "IProgress")  # the bars are text; no widgets are missed
watched = {"nprocs": N, "start_method": start_method, "device": "cpu"}

# %% [markdown]
# ## The reviews, and a small reader
#
# Reviews, vocabulary and lengths are lesson 30's; `tokenise` is its cell, now in the library, and finds what that lesson made. The model is lesson 30's encoder with torch's own `TransformerEncoderLayer`, in two parts, since another head
# will sit on the reader later.

# %%
data = imdb.load(source)
frame = data.frame.assign(text=imdb.clean_all(data.frame["text"]))
if preset == "smoke":  # a few reviews, to see that it runs
    frame = frame.groupby("split").sample(1000, random_state=0).reset_index(drop=True)
is_train = (frame["split"] == "train").to_numpy()
tokenizer, LONGEST = learn_vocabulary(frame["text"][is_train], 8192), 256
WORDS, UNKNOWN, MASK = len(tokenizer), tokenizer.unk_token_id, tokenizer.mask_token_id
tokens, lengths = cut_and_pad(tokenise(frame["text"], tokenizer, **options), LONGEST)
tokens, labels = tokens.short(), torch.tensor(frame["label"].to_numpy())
train_rows, test_rows = (torch.from_numpy(np.flatnonzero(part)) for part in (is_train, ~is_train))
fit, valid = (train_rows[rows] for rows in imdb.validation(frame[is_train]))


# %%
class Reader(nn.Module):
    def __init__(self, drop: float, width: int = 64):
        super().__init__()
        self.word, self.place = nn.Embedding(WORDS, width), nn.Embedding(LONGEST, width)
        for table in (self.word, self.place):
            nn.init.normal_(table.weight, std=0.02)
        how = {"activation": "gelu", "batch_first": True, "norm_first": True}
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, drop, **how)
        self.layer.self_attn.dropout = 0.0  # with it, all scores would have to be written down
        self.layer.dropout.p = 0.0  # of the three places for dropout, two are enough
        self.norm = nn.LayerNorm(width)

    def forward(self, ids):
        x = self.word(ids) + self.place.weight[: ids.shape[1]]
        return self.norm(self.layer(x, src_key_padding_mask=ids == 0))


# %%
class Judge(nn.Module):
    def __init__(self, drop: float = 0.3, forget: float = 0.3):
        super().__init__()
        self.reader, self.drop, self.forget = Reader(drop), nn.Dropout(drop), forget
        self.vote = nn.Linear(128, 2)

    def forward(self, ids):
        real = (ids != 0)[..., None]
        if self.training and self.forget:  # some words become "unknown", other ones each time
            gone = torch.rand(ids.shape, device=ids.device) < self.forget
            ids = ids.masked_fill(gone & (ids != 0), UNKNOWN)
        x = self.reader(ids)
        mean, strongest = (x * real).sum(1) / real.sum(1), x.masked_fill(~real, -1e4).amax(1)
        return self.vote(self.drop(torch.cat([mean, strongest], dim=1)))


# %% [markdown]
# ## A batch that does not fit
#
# What fills the memory in training is seldom the weights: it is what each operation keeps for the way back. torch lets us look: `saved_tensors_hooks` is called with every tensor that is kept. **160 of the longest reviews, and a small
# model: how many times as large as the weights is what backward needs?**


# %%
def make(kind=Judge, **changes) -> nn.Module:
    torch.manual_seed(seed)
    return kind(**changes)


def read(rows, device="cpu", width=None):
    return tokens[rows, : width or lengths[rows].max()].long().to(device)


def megabytes_kept(model, ids) -> float:
    kept = {p.untyped_storage().data_ptr(): 0 for p in model.parameters()}  # are there anyhow

    def note(tensor):
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(ids)
    return sum(kept.values()) / 1e6


# %%
judge = make()
weights_mb = sum(p.nbytes for p in judge.parameters()) / 1e6
longest = train_rows[lengths[train_rows].argsort()[-160:]]
print(f"{weights_mb:.1f} MB of weights")
for size in (160, 40):
    print(
        f"{size} reviews: {megabytes_kept(judge, read(longest[:size])):,.0f} MB kept for backward"
    )

# %% [markdown]
# So a large batch is worked off in **micro-batches**: backward *adds* to `.grad`, so four quarters, each loss divided by four, leave the gradient of the whole, and the memory of one quarter. Under DDP each backward also
# averages over ranks, which is right three times too often: a mean of sums is the sum of means, so the last can do it for all. `no_sync` tells DDP to keep quiet. **How many all_reduces will that spare?**


# %%
def backward(model, part, pieces=1, patient=True, width=None, half=False):
    """Leave the gradient of the mean loss of `part`, a rank's share of a batch; return the loss."""
    device, total, micros = next(model.parameters()).device, 0.0, part.chunk(pieces)
    for k, rows in enumerate(micros):
        last = k == len(micros) - 1
        with model.no_sync() if patient and not last else nullcontext():
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                scores = model(read(rows, device, width))
            loss = F.cross_entropy(scores.float(), labels[rows].to(device))
            loss = loss * len(rows) / len(part)  # the last micro-batch may be smaller
            loss.backward()
        total += loss.detach()
    return total


# %% [markdown]
# To see DDP's all_reduces, they go through a hook of ours, as in lesson 23. Buckets are small here, so that there are several.


# %%
def traced_all_reduce(_state, bucket):
    average = bucket.buffer().div_(dist.get_world_size())
    dist.all_reduce(average)
    done = torch.futures.Future()
    done.set_result(average)
    return done


def ddp(pg, **changes):
    model = make(**changes).to(pg.device)
    return DistributedDataParallel(model, bucket_cap_mb=0.1)


def accumulate(rows, ways):
    found = {}
    with process_group() as pg:
        for name, how in ways.items():
            model = ddp(pg, drop=0.0, forget=0.0)
            model.register_comm_hook(None, traced_all_reduce)
            for _ in range(3):  # the last is shown: by then DDP has arranged its buckets
                model.zero_grad()
                dist.barrier()
                with trace() as lane:
                    backward(model, rows[pg.rank :: pg.world_size], **how)
            found[name] = lane, torch.cat([p.grad.flatten() for p in model.parameters()])
    return found


# %%
ways = {
    "at once": {},
    "with a message each time": {"pieces": 4, "patient": False},
    "with no_sync": {"pieces": 4},
}
results, table, traces = launch(accumulate, fit[: 40 * N], ways, **watched), {}, {}
for name in ways:
    traces[name], gradients = zip(*(found[name] for found in results), strict=True)
    sent = summary(traces[name]).iloc[0]
    whole = results[0]["at once"][1]
    off = ((gradients[0] - whole).norm() / whole.norm()).item()
    table[name] = [sent["collectives"], sent["bytes in collectives"] / 1e6, f"{off:.0e}"]
pd.DataFrame(table, index=["all_reduces a rank", "MB a rank", "gradient off by"]).T

# %%
for name in list(ways)[1:]:
    title = f"Four micro-batches {name}: {len(traces[name][0].collectives)} all_reduces"
    show(lanes(traces[name], title), alt=f"Lanes of {N} ranks in one step. {title}")

# %% [markdown]
# Equal gradients, up to rounding. And it is not only bytes: wherever ranks meet, the quick wait for the slow, and without `no_sync` they meet in every micro-batch. What `no_sync` costs is a place for the sum, which DDP has anyway.
#
# ## Zeros
#
# Lesson 30 put texts of like length together; its function is in the library now. And we count what that is worth: which share of all tokens that the model reads is padding? Three ways: every table 256 wide; tables as wide as their longest text; and the same with **buckets**. **Which of
# the two steps saves more?**


# %%
def batches(rows, size, epoch=0, stretch=25):
    return length_buckets(rows, lengths, size, 1000 * seed + epoch, stretch)  # alike on all ranks


def padding(found, width=None) -> float:
    room = sum(len(rows) * (width or lengths[rows].max().item()) for rows in found)
    return 1 - sum(lengths[rows].sum().item() for rows in found) / room


# %%
size = 30
fixed = f"always {LONGEST} wide"
shares = {
    fixed: 100 * padding(batches(fit, size), LONGEST),
    "as wide as the longest": 100 * padding(batches(fit, size, stretch=1)),
    "in buckets": 100 * padding(batches(fit, size, stretch=100)),
}
title = f"In buckets, {shares['in buckets']:.1f} % of what is read is padding, not {shares[fixed]:.0f} %"
xlabel = "padding (% of all tokens that are read; less is better)"
fig = bars(shares, title, xlabel, "in buckets", data.origin, f"batches of {size}")
show(fig, alt=f"Bars of padding shares. {title}")

# %% [markdown]
# With several ranks there is a second trap. If each draws a bucket of its own, one reads short texts and another long ones in the same step, and in its all_reduce the first waits. If all take their texts from the *same* bucket, nobody does. **Which
# share of the time is spent waiting, either way?**


# %%
def deal(common: bool, rank: int, n: int):
    if common:  # one bucket a step, from which every rank takes each n-th text
        return [batch[rank::n] for batch in batches(fit, size * n)]
    own = batches(fit, size, stretch=25 * n)
    return own[rank : len(own) // n * n : n]  # equally many for every rank


def wait_for_each_other(steps):
    lanes = []
    with process_group() as pg:
        model = ddp(pg)
        model.register_comm_hook(None, traced_all_reduce)
        for common in (False, True):
            parts = deal(common, pg.rank, pg.world_size)[: steps + 2]
            for part in parts[:2]:
                backward(model, part)
            dist.barrier()
            with trace() as lane:
                for part in parts[2:]:
                    backward(model, part)
            lanes.append(lane)
    return lanes


# %%
steps, table = {"smoke": 4, "quick": 20, "full": 50}[preset], {}
ways = {"each its own bucket": False, "all the same bucket": True}
measured = zip(*launch(wait_for_each_other, steps, **watched), strict=True)
for (name, common), traces in zip(ways.items(), measured, strict=True):
    found = zip(*(deal(common, r, N) for r in range(N)), strict=False)
    reads = torch.tensor([[len(rows) * lengths[rows].max() for rows in step] for step in found])
    waits = summary(traces)["waiting, ms"].sum() / 1e3 / sum(t.end - t.begin for t in traces)
    more = (reads.max(dim=1).values / reads.float().mean(dim=1)).mean() - 1
    table[name] = [f"{more:.0%}", f"{waits:.0%}"]
pd.DataFrame(table, index=["the largest part is above the mean by", "time spent waiting"]).T

# %% [markdown]
# The first column follows from the lengths and is the same on every machine. The second was measured; other programs make ranks wait as well, so it never comes to nothing.
#
# ## A mean of means, once more
#
# For one answer a text, equal parts make DDP exact. Often the loss is a mean over *tokens*: in translation, in language models, and in guessing masked words, which is how BERT learnt English. A rank with long texts has more masked words than another,
# and so has a micro-batch. If each divides by its own number, a word in a short text counts more than one in a long text.
#
# The cure is to divide once, by the number of *all*: `sum of my losses ÷ words of all ranks and micro-batches × N`. The factor N undoes DDP's mean. Which words are masked is decided for each text beforehand, so that it does not depend on who reads it.


# %%
class Guesser(nn.Module):
    def __init__(self):
        super().__init__()
        self.reader = Reader(drop=0.0)

    def forward(self, ids, hidden):  # a score for every word, at the hidden places only
        return self.reader(ids.masked_fill(hidden, MASK))[hidden] @ self.reader.word.weight.T


texts = fit[:24]
hidden = torch.rand(len(texts), LONGEST, generator=torch.Generator().manual_seed(seed)) < 0.15
hidden &= tokens[texts] != 0
hidden[:, 0] = True  # every text has at least one


# %%
def masked_words(model, pg, exact: bool, pieces: int):
    mine = torch.arange(len(texts))[pg.rank :: pg.world_size]
    total = hidden[mine].sum()
    dist.all_reduce(total)
    model.zero_grad()
    micros = mine.tensor_split(pieces)
    for k, part in enumerate(micros):
        with nullcontext() if k == len(micros) - 1 else model.no_sync():
            ids = read(texts[part])
            places = hidden[part, : ids.shape[1]]
            losses = F.cross_entropy(model(ids, places), ids[places], reduction="none")
            loss = losses.sum() / total * pg.world_size if exact else losses.mean() / len(micros)
            loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


# %% [markdown]
# One process with all texts in one batch is the measure. **On a single rank with micro-batches, is the naive gradient right?**


# %%
def both_losses():
    with process_group() as pg:
        model = ddp(pg, kind=Guesser)
        ways = {"mean of means": (False, 2), "divided once": (True, 2), "in one batch": (True, 1)}
        return {name: masked_words(model, pg, *way) for name, way in ways.items()}


table = {}
for n in (1, 2, 3, 4):
    gradients = launch(both_losses, **{**watched, "nprocs": n})[0]
    whole = gradients["in one batch"] if n == 1 else whole
    off = {k: ((g - whole).norm() / whole.norm()).item() for k, g in gradients.items()}
    assert off["divided once"] <= 1e-6
    table[f"{n} rank{'s' * (n > 1)}, 2 micro-batches"] = off
columns = ["mean of means", "divided once"]
pd.DataFrame(table).T[columns].map("{:.1e}".format)

# %% [markdown]
# It is not: micro-batches are enough for the fault, and for years much-used libraries had it. No loss curve shows it. A comparison with one process does, and is quickly written.
#
# ## Sixteen bits
#
# **bfloat16** keeps the range of float32 and 8 of its 24 bits of precision. Under `autocast` the weights stay float32, and so do their gradients; matrix products are computed in bfloat16. What they keep for
# backward takes half the room. Whether it is quicker depends on whether the machine can multiply such numbers. **Can yours?**


# %%
def both_ways(rows, rounds):
    found = {False: [], True: []}
    with process_group() as pg:
        model, part = ddp(pg, drop=0.0, forget=0.0), rows[pg.rank :: pg.world_size]
        for _ in range(rounds + 1):
            for half in found:  # in turn, so that other programs disturb both alike
                dist.barrier()
                begin = time.perf_counter()
                loss = backward(model, part, half=half).item()
                found[half].append(time.perf_counter() - begin)
        table = []
        for half, times in found.items():
            with torch.autocast(pg.device.type, torch.bfloat16, enabled=half):
                kept = megabytes_kept(model.module, read(part, pg.device))
            loss = backward(model, part, half=half).item()
            gradient = {p.grad.dtype for p in model.parameters()}.pop()
            table.append([1e3 * min(times[1:]), kept, loss, gradient])
        return table, has_bfloat16(pg.device)


# %%
rounds = {"smoke": 2, "quick": 8, "full": 30}[preset]
part = batches(fit, 20 * world_size)[0]
measured, hardware = launch(both_ways, part, rounds, **options)[0]
columns = ["step, ms", "kept for backward, MB", "loss", "gradients"]
bits = pd.DataFrame(measured, columns=columns, index=["float32", "autocast to bfloat16"])
speed = bits["step, ms"].iloc[0] / bits["step, ms"].iloc[1]
half = hardware and speed > 1
print(f"bfloat16 in hardware: {hardware}. A step takes {1 / speed:.2f} times as long with it,")
print(f"so below we train {'with' if half else 'without'} it.")
bits.round(4)

# %% [markdown]
# ## When one rank has more
#
# So far all ranks had equally many batches. Files are seldom so polite. Suppose that rank 0 has two batches more than the others. It will call all_reduces that nobody answers. **What will happen?**


# %%
def note_all_reduce(sent, bucket):  # only ours: Join's own must not be touched
    with trace() as lane:
        done = traced_all_reduce(None, bucket)
    sent.append(lane)
    return done


def walk(careful: bool):
    with process_group() as pg:
        model, steps = ddp(pg, drop=0.0, forget=0.0), 5 if pg.rank == 0 else 3
        sent = []
        model.register_comm_hook(sent, note_all_reduce)
        mine = fit[pg.rank :: pg.world_size][: 20 * steps]
        with Join([model]) if careful else nullcontext():
            for part in mine.split(20):
                backward(model, part)
            own = len(sent)
        dist.monitored_barrier()  # stands for whatever comes after training
        operations = [o for lane in sent for o in lane.operations]
        return replace(sent[0], end=sent[-1].end, operations=operations), steps, own


try:
    launch(walk, False, timeout=5, **watched)
except RankError as error:
    print("\n".join(str(error).splitlines()[:3]))

# %% [markdown]
# Rank 0 stands in an all_reduce, and the others in what comes after. **`Join`** is the remedy that keeps every text: a rank that has come to its end stays and *shadows* the all_reduces of the others, putting zeros in. To know whether
# anybody goes on, all ranks count themselves before every forward, which is one more small all_reduce.

# %%
traces, steps, own = zip(*launch(walk, True, **watched), strict=True)
extra = len(traces[1].collectives) - own[1]
title = (
    f"Rank 0 has {steps[0]} batches; rank 1 has {steps[1]}, and then shadows {extra} all_reduces"
)
show(lanes(traces, title, names=False), alt=f"Lanes of {N} ranks that end together. {title}")
print(f"all_reduces of gradients: {[len(lane.collectives) for lane in traces]} by rank")

# %% [markdown]
# What is the average of one gradient and zeros? `Join` divides by N, as if the zeros were opinions: every text counts the same, and late steps are short. With `divide_by_initial_world_size=False` it divides by the number of ranks that still have something: late steps are full, and late texts
# count more. **By what factor do the two differ in a step that rank 0 makes alone?**


# %%
def late_gradient(divide: bool) -> float:
    with process_group() as pg:
        model, mine = ddp(pg, drop=0.0, forget=0.0), fit[:40].split(20)
        with Join([model], divide_by_initial_world_size=divide):
            for part in mine if pg.rank == 0 else mine[:1]:
                model.zero_grad()
                backward(model, part)
        shared = model.module.vote.weight.grad.norm()
        model.zero_grad()
        backward(model.module, part)
        return (shared / model.module.vote.weight.grad.norm()).item()


for divide in (True, False):
    share = launch(late_gradient, divide, **watched)[0]
    print(f"divide_by_initial_world_size={divide}: {share:.2f} of rank 0's own gradient")

# %% [markdown]
# Without `Join` there are two ways out. Stop all when the first comes to its end, and texts are lost; or let the short ranks repeat texts, as `DistributedSampler` does for the last few, and those count twice.
#
# Where one may choose who reads what, as here, the best way is a fourth: deal so that it comes out even, as `batches` does. `Join` is for when one may not.
#
# ## All together
#
# The loop of lesson 30, with what has paid. `learn` returns the time of each step as well.


# %%
def predict(model, rows, pg):
    set_fastpath_enabled(False)  # a short cut that is none on CPUs
    model.eval()
    order, scores = lengths[rows].argsort(), torch.empty(len(rows))
    with torch.no_grad():
        for part in order.split(100) if len(rows) else ():
            scores[part] = model(read(rows[part], pg.device)).diff().squeeze(1).float().cpu()
    model.train()
    return (scores > 0).long()


def confused(model, rows, pg):
    mine = rows[shard_indices(len(rows), pg.rank, pg.world_size)]
    return confusion_over_ranks(predict(model, mine, pg), labels[mine], 2)


# %%
def learn(rows, epochs, rate, size, watch=(), stretch=25, how=None, **changes):
    how = {"pieces": 2, "half": half} | (how or {})
    with process_group() as pg:
        model = ddp(pg, **changes)
        optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01, fused=True)
        total = epochs * (len(rows) // size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total, pct_start=0.2)
        torch.manual_seed(1000 * seed + pg.rank)  # dropout: each rank its own dice
        losses, times = [], []
        for epoch in range(epochs):
            dealt = batches(rows, size, epoch, stretch)
            for batch in progress(dealt, f"epoch {epoch + 1} of {epochs}"):
                begin = time.perf_counter()
                optimizer.zero_grad()
                losses.append(backward(model, batch[pg.rank :: pg.world_size], **how))
                optimizer.step()
                schedule.step()
                report(loss=losses[-1].item())
                times.append(time.perf_counter() - begin)
        losses = torch.stack(losses)
        dist.all_reduce(losses)
        counts = confused(model.module, watch, pg) if len(watch) else None
        weights = model.module.cpu().state_dict()
        return (losses / pg.world_size).tolist(), weights, times, counts


# %% [markdown]
# First the same reviews in ways that use ever more of this lesson, in turn and twice over. Each sees them once to warm up and once for the clock; the better round counts. **Which step brings most?**

# %%
batch = world_size * max(1, round(120 / world_size))  # the ranks' parts are equal
steps = {"smoke": 3, "quick": 6, "full": 40}[preset]
few = fit[: steps * batch]
full_width = {"stretch": 1, "how": {"width": LONGEST, "half": False}}
plans = {
    "full tables, sent each time": full_width | {"how": full_width["how"] | {"patient": False}},
    "and no_sync": full_width,
    "and buckets": {"how": {"half": False}},
}
if half:
    plans["and bfloat16"] = {}
speeds = dict.fromkeys(plans, 0.0)
for _ in range(1 if preset == "smoke" else 2):
    for name, plan in plans.items():
        times = launch(learn, few, 2, 1e-3, batch, **plan, **options)[0][2]
        speeds[name] = max(speeds[name], len(few) / sum(times[steps:]))  # of the second epoch

# %%
naive, best = next(iter(plans)), list(plans)[-1]
gain = speeds[best] / speeds[naive]
title = f"The same reviews, {gain:.2f} times as fast"
fig = bars(speeds, title, "reviews in a second (more is better)", best, data.origin, "step by step")
show(fig, alt=f"Bars of speeds: {', '.join(f'{k} {v:.0f}' for k, v in speeds.items())}. {title}")

# %%
epochs, rate = {"smoke": 1, "quick": 1, "full": 3}[preset], 5e-3
begin = time.perf_counter()
losses, weights, times, counts = launch(learn, fit, epochs, rate, batch, valid, **options)[0]
train_seconds = time.perf_counter() - begin
validation_accuracy, _ = accuracy_and_f1(counts)
print(
    f"{train_seconds:.0f} s, last loss {losses[-1]:.2f}; {validation_accuracy:.1%} of the validation reviews read rightly"
)

# %% [markdown]
# ## Did N ranks learn what one would have?
#
# With micro-batches, `no_sync` and buckets, in float32 and without dice: 1, 2 and 4 ranks beside one another.

# %%
still = {"drop": 0.0, "forget": 0.0, "how": {"half": False}}
few = fit[: 240 if preset == "smoke" else 800]
runs = {
    n: launch(learn, few, 1, 1e-3, 40, **still, **{**watched, "nprocs": n})[0][:2]
    for n in (1, 2, 4)
}
equivalence = equivalence_table(runs, tolerance=1e-5)
equivalence.map("{:.1e}".format)

# %% [markdown]
# ## The test
#
# Counts over ranks, as in lesson 30: accuracy and F1 from four numbers.


# %%
def test(weights, rows):
    with process_group() as pg:
        model = make().to(pg.device)
        model.load_state_dict(weights)
        return confused(model, rows, pg)


counts = launch(test, weights, test_rows, **options)[0]
test_accuracy, test_f1 = accuracy_and_f1(counts)
print(f"{counts.sum():,} test reviews: {test_accuracy:.1%} right, F1 {test_f1:.1%}")

# %%
record_results(
    preset=preset,
    seed=seed,
    world_size=world_size,
    data_origin=data.origin,
    test_accuracy=test_accuracy,
    test_f1=test_f1,
    validation_accuracy=validation_accuracy,
    train_seconds=train_seconds,
    samples_per_second=len(losses) * batch / train_seconds,
    times_as_fast=gain,
    bfloat16_times_as_fast=speed,
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
)

# %% [markdown]
# **Exercises:** [`exercises/32_imdb_efficient.ipynb`](../exercises/32_imdb_efficient.ipynb). You will write a loss that is averaged over the tokens of all ranks, exactly, and deal out batches of a bounded number of tokens.
#
# ## Take-away
#
# > Send once a step, and let ranks meet as seldom as the algorithm allows: `no_sync` for all micro-batches but the last, and one bucket of lengths for all ranks. Divide once, by the number of all that is averaged; a mean of means is right only for equal parts.
# > What saves time on one machine (bfloat16, fewer messages) may cost time on another: measure it in turn with what it replaces.
#
# **To go further**
# - [Distributed training with uneven inputs using the Join context manager](https://docs.pytorch.org/tutorials/advanced/generic_join.html): `Join` for DDP, for optimizers that shard their state, and for classes of your own.
# - [`DistributedDataParallel`](https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html): `no_sync` and `join`, and what they ask of you.
# - [Fixing Gradient Accumulation](https://huggingface.co/blog/gradient_accumulation), 2024: the mean of means, found in libraries in daily use.
# - Micikevicius and others: [Mixed Precision Training](https://arxiv.org/abs/1710.03740), 2017: which numbers need their 32 bits.
# - Next: lesson 40 begins the fourth project, stock prices.
