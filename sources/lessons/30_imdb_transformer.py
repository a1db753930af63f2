# %% [markdown]
# # IMDb: a transformer that reads reviews
#
# **You will learn**
# - to turn 50,000 texts into numbers once, each rank its share, and to find them again afterwards;
# - to write a transformer encoder, attention and all, and to train it with DDP on texts of unequal length;
# - to reduce a confusion matrix and F1 over ranks, and to ask whether the model was worth it.
#
# *About 45 minutes; the cells run for about two and a half. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # initial weights, order of the batches, dropout; the split never moves
start_method: str = "auto"  # how launch starts ranks

# %%
import json
import os
import time
import warnings

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from course_lib import (
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
from course_lib.data import imdb

world_size, preset = choose_world_size(world_size), choose_preset(preset)
options = {"nprocs": world_size, "start_method": start_method}
warnings.filterwarnings("ignore", "IProgress")  # the bars are text; no widgets are missed

# %%
from datasets import Dataset, disable_progress_bars, load_from_disk
from transformers import AutoTokenizer

from course_lib.equivalence import equivalence_table
from course_lib.keeping import fingerprint, keep
from course_lib.plots import COLOURS, bars, confusion, figure, show
from course_lib.tokens import cut_and_pad, learn_vocabulary

# %% [markdown]
# ## What people write
#
# The publishers chose 25,000 reviews for training and 25,000 for testing, half of each positive, and no film is in both but one. More than half of the reviews carry `<br />` from the page they were
# taken from; `clean` removes what is markup, and nothing a person wrote.

# %%
data = imdb.load(source)
frame = data.frame.assign(text=imdb.clean_all(data.frame["text"]))
if preset == "smoke":  # a few reviews, to see that it runs
    frame = frame.groupby("split").sample(1000, random_state=0).reset_index(drop=True)
print(f"{sum('<br' in text for text in data.frame['text']):,} reviews had line breaks in them")
for name, label in imdb.LABELS.items():
    text = frame[frame["label"] == label]["text"].iloc[0]
    print(f"\n{name}: {text[:300]} …")

# %% [markdown]
# Some reviews were sent in twice. A text that is in both halves is a question whose answer was in the lesson; we count them now, and show the score with and without them later.

# %%
found = imdb.duplicates(frame)
print(found)

# %% [markdown]
# ## Text to numbers, once
#
# A network wants numbers. A **tokenizer** cuts a text into pieces of words it knows and gives each its number. It has a vocabulary, and a vocabulary is learnt: from the training texts only, like everything that is
# learnt.

# %%
is_train = (frame["split"] == "train").to_numpy()
tokenizer = learn_vocabulary(frame["text"][is_train], 8192)
print(tokenizer.tokenize("An unwatchable film; I want my two hours back!"))
print(tokenizer("I want my two hours back!")["input_ids"])

# %% [markdown]
# Fifteen million tokens take a while, and the work divides: every review stands alone. First the texts go to disk in the format of the `datasets` library, which a rank *maps* instead of reading. Then each
# rank takes every N-th of 20 pieces. A piece's file is named after the vocabulary and lies beside the texts, so what was done once is found again, by any number of ranks.
# **What will the second launch do?**

# %%
PIECES = 20
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a rank has one core; its tokenizer needs no more
disable_progress_bars()
texts = Dataset.from_pandas(frame[["text"]], preserve_index=False)
folder = keep("imdb-texts", fingerprint(frame["text"]), texts.save_to_disk)
mark = fingerprint(tokenizer.backend_tokenizer.to_str())
files = [str(folder / f"ids-{mark}-{k}-of-{PIECES}.arrow") for k in range(PIECES)]


def tokenise() -> int:
    def encode(part):
        return {"ids": words(part["text"], add_special_tokens=False, verbose=False)["input_ids"]}

    with process_group() as pg:
        disable_progress_bars()  # the rank's own bar is enough
        words = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
        reviews = load_from_disk(folder)
        mine = [k for k in range(pg.rank, PIECES, pg.world_size) if not os.path.exists(files[k])]
        for k in progress(mine, "tokenising"):
            piece = reviews.shard(PIECES, k, contiguous=True)
            how = {"cache_file_name": files[k], "new_fingerprint": f"{mark}-{k}"}
            piece.map(encode, batched=True, remove_columns=["text"], **how)
        return len(mine)


# %%
for time_of_day in ("first", "again"):
    begin = time.perf_counter()
    done = launch(tokenise, **options)
    print(f"{time_of_day}: {done} pieces by rank, {time.perf_counter() - begin:.1f} s")

# %% [markdown]
# ## How long is a review?
#
# Attention compares every token with every other, so a text of twice the length costs four times as much. We allow 256 tokens. Reviewers come to the point at the beginning or at the end, so a
# longer review keeps its first 128 and its last 128.

# %%
ids = [row for file in files for row in Dataset.from_file(file).with_format("numpy")["ids"]]
long = np.array([len(row) for row in ids])
LONGEST = 256
tokens, lengths = cut_and_pad(ids, LONGEST)
labels = torch.tensor(frame["label"].to_numpy())
print(f"{tokens.nbytes / 1e6:.0f} MB of token ids for {len(tokens):,} reviews")

# %%
title = f"{np.mean(long > LONGEST):.0%} of the reviews are longer than {LONGEST} tokens and lose their middle"
fig, ax = figure(title, xlabel="length of a review (tokens)", ylabel="reviews", origin=data.origin)
ax.hist(long, bins=range(0, 1500, 25), color=COLOURS[0])
ax.axvline(LONGEST, color=COLOURS[1], linestyle="--")
ax.text(LONGEST + 15, ax.get_ylim()[1] * 0.93, "what the model reads", color=COLOURS[1])
show(fig, alt=f"Histogram of lengths, median {np.median(long):.0f} tokens. {title}")

# %% [markdown]
# A batch is a table, so its short texts are filled up with zeros, and zeros cost as much as words. The remedy is to put texts of like length together: **buckets**. Shuffle, sort stretches of 50 batches by length,
# cut them into batches, shuffle the batches. All ranks throw the same dice, and from each batch rank r takes every N-th text: so ranks have not only equally many texts in a step, but equally long ones.


# %%
def batches(rows: torch.Tensor, size: int, epoch: int, pg, stretch: int = 50):
    dice = torch.Generator().manual_seed(1000 * seed + epoch)  # the same on all ranks
    rows, found = rows[torch.randperm(len(rows), generator=dice)], []
    for part in rows.split(stretch * size):
        alike = part[lengths[part].argsort()]
        found += [batch for batch in alike.split(size) if len(batch) == size]
    order = torch.randperm(len(found), generator=dice)
    return [found[k][pg.rank :: pg.world_size] for k in order]


def padding(found: list) -> float:
    width = torch.tensor([lengths[rows].max() * len(rows) for rows in found])
    return 1 - sum(lengths[rows].sum() for rows in found).item() / width.sum().item()


# %%
class Alone:  # stands for a group of one rank
    rank, world_size = 0, 1


everyone = torch.arange(len(tokens))
shares = {
    name: padding(batches(everyone, 60, 0, Alone, n))
    for name, n in [("at random", 1), ("in buckets", 50)]
}
for name, share in shares.items():
    print(f"{name}: {share:.1%} of the tables is padding")

# %% [markdown]
# ## Attention
#
# The heart of a transformer fits into three lines. Every token asks a question (its **query**), offers a **key** and holds a **value**. How well question i fits key j decides how much of value j flows to token i.
# Padding must not be listened to: its scores become minus infinity *before* the softmax, so that its share is exactly zero and the others' add up to one.


# %%
def attention(query, key, value, real):
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5  # question i, key j
    scores = scores.masked_fill(~real[:, None, None, :], float("-inf"))
    return scores.softmax(dim=-1) @ value


# %% [markdown]
# `torch` has it as one function that never writes the whole table of scores to memory. **By how much do the two differ, and which one is quicker?** Eight texts, four heads.

# %%
torch.manual_seed(seed)
query, key, value = torch.randn(3, 8, 4, LONGEST, 16)
real = torch.arange(LONGEST) < torch.randint(50, LONGEST, (8, 1))
took = {}
for name, run in {
    "three lines": lambda: attention(query, key, value, real),
    "torch's own": lambda: F.scaled_dot_product_attention(
        query, key, value, real[:, None, None, :]
    ),
}.items():
    run()  # the first one makes room
    begin = time.perf_counter()
    for _ in range(20):
        took[name] = run()
    print(f"{name}: {(time.perf_counter() - begin) / 20 * 1e3:.1f} ms")
difference = (took["three lines"] - took["torch's own"]).abs().max().item()
print(f"largest difference {difference:.1e}")
assert difference < 1e-5

# %% [markdown]
# ## The encoder
#
# A layer lets the tokens talk (attention), then lets each think for itself (two linear layers). Both add to what was there, so that gradients find a way around them. Each token starts as a row of a table for its
# word plus a row for its place. At the end, all tokens vote twice: by their mean, and by the strongest in each channel, padding left out of both.


# %%
class Layer(nn.Module):
    def __init__(self, width: int, heads: int, drop: float):
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(drop)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.answer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.think = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x, real):
        split = self.ask(self.before(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (texts, heads, tokens, size)
        mixed = F.scaled_dot_product_attention(query, key, value, real[:, None, None, :])
        x = x + self.drop(self.answer(mixed.transpose(1, 2).flatten(2)))
        return x + self.drop(self.think(self.between(x)))


# %%
class Encoder(nn.Module):
    def __init__(self, words: int, width=64, heads=4, layers=1, drop=0.3, forget=0.3):
        super().__init__()
        self.word, self.place = nn.Embedding(words, width), nn.Embedding(LONGEST, width)
        for table in (self.word, self.place):
            nn.init.normal_(table.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(width, heads, drop) for _ in range(layers))
        self.norm, self.vote = nn.LayerNorm(width), nn.Linear(2 * width, 2)
        self.drop, self.forget = nn.Dropout(drop), forget

    def forward(self, ids):
        real = ids != 0
        if self.training and self.forget:  # some words become "unknown", other ones each time
            gone = torch.rand(ids.shape, device=ids.device) < self.forget
            ids = ids.masked_fill(gone & real, tokenizer.unk_token_id)
        x = self.word(ids) + self.place.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, real)
        x, real = self.norm(x), real[..., None]
        mean = (x * real).sum(1) / real.sum(1)
        strongest = x.masked_fill(~real, float("-inf")).amax(1)
        return self.vote(self.drop(torch.cat([mean, strongest], dim=1)))


# %%
def make_model(**changes) -> nn.Module:
    torch.manual_seed(seed)
    return Encoder(len(tokenizer), **changes)


sizes = {
    name: sum(p.numel() for p in part.parameters()) for name, part in make_model().named_children()
}
total = sum(sizes.values())
print(f"{total:,} weights, {sizes['word'] / total:.0%} of them in the table of words")

# %% [markdown]
# ## The loop
#
# It is the loop you know; what is new are the batches. A batch's table is as wide as its longest text on *this* rank, and the width need not be the same on all: only gradients travel, and they have the shape of the
# weights.


# %%
def predict(model: nn.Module, rows: torch.Tensor, pg) -> torch.Tensor:
    model.eval()
    order, scores = lengths[rows].argsort(), torch.empty(len(rows))
    with torch.no_grad():
        for part in order.split(100) if len(rows) else ():
            ids = tokens[rows[part], : lengths[rows[part]].max()].long()
            scores[part] = model(ids.to(pg.device)).diff().squeeze(1).float().cpu()
    model.train()
    return (scores > 0).long()  # 1: the second score, "positive", is the larger one


def confused(model: nn.Module, rows: torch.Tensor, pg) -> torch.Tensor:
    mine = rows[shard_indices(len(rows), pg.rank, pg.world_size)]
    return confusion_over_ranks(predict(model, mine, pg), labels[mine], 2)


# %%
def learn(model, rows, epochs, pg, rate, watch=(), size=60):
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01, fused=True)
    total = epochs * (len(rows) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total, pct_start=0.2)
    torch.manual_seed(1000 * seed + pg.rank)  # dropout: each rank its own dice
    losses, curve = [], []
    for epoch in range(epochs):
        for part in progress(batches(rows, size, epoch, pg), f"epoch {epoch + 1} of {epochs}"):
            ids = tokens[part, : lengths[part].max()].long().to(pg.device)
            loss = F.cross_entropy(model(ids), labels[part].to(pg.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            report(loss=loss.item())
        if len(watch):
            counts = confused(model.module, watch, pg)
            curve.append((counts.diag().sum() / counts.sum()).item())
    losses = torch.stack(losses)
    dist.all_reduce(losses)
    return (losses / pg.world_size).cpu(), curve


def train(rows, epochs, rate, watch=(), **changes):
    with process_group() as pg:
        model = DistributedDataParallel(make_model(**changes).to(pg.device))
        losses, curve = learn(model, rows, epochs, pg, rate, watch)
        return losses, curve, model.module.cpu().state_dict()


# %% [markdown]
# ## The run
#
# A fifth of the training reviews, of films that the others are not about, is for validation: lengths, rates and the number of epochs were chosen there. **Half of the reviews are positive. How often will the model be right
# after having seen each review once?**

# %%
fit, valid = (torch.from_numpy(rows) for rows in imdb.validation(frame[is_train]))
train_rows = torch.from_numpy(np.flatnonzero(is_train))
fit, valid = train_rows[fit], train_rows[valid]
epochs, rate = {"smoke": 1, "quick": 2, "full": 3}[preset], 5e-3
begin = time.perf_counter()
losses, curve, weights = launch(train, fit, epochs, rate, valid, **options)[0]
train_seconds = time.perf_counter() - begin
print(f"{train_seconds:.0f} s on {world_size} ranks; after epoch 1 {curve[0]:.1%} were right")

# %%
window = max(1, len(losses) // 40)  # single batches jump about: so means of some
means = losses[: len(losses) // window * window].reshape(-1, window).mean(dim=1)
at = [window * (k + 0.5) * epochs / len(losses) for k in range(len(means))]
title = f"The loss falls; {curve[-1]:.1%} of the validation reviews are read rightly"
fig, ax = figure(title, xlabel="epochs", ylabel="training loss (nats)", origin=data.origin)
ax.plot(at, means, color=COLOURS[0], marker=".")
for epoch, share in enumerate(curve, start=1):
    ax.axvline(epoch, color=COLOURS[1], linestyle="--")
    ax.text(epoch, ax.get_ylim()[1], f"{share:.1%} right ", color=COLOURS[1], ha="right", va="top")
show(fig, alt=f"Training loss over {epochs} epochs, falling. {title}")

# %% [markdown]
# Where the second epoch begins, the loss may drop at once. That is memory, not insight: from there on the model meets reviews that it has seen. The validation reviews it has never seen, and they are what counts.
#
# ## Did N ranks learn what one would have?
#
# Here the equivalence proves more than before. A text's padding depends on which others are on its rank, so 1, 2 and 4 ranks pad the same batch differently. If a single zero were listened to anywhere, the losses would tell. Dropout and
# forgotten words are off, since each rank has dice of its own.

# %%
few, runs = fit[:1200], {}
still = {"drop": 0.0, "forget": 0.0, "device": "cpu", "start_method": start_method}
for n in (1, 2, 4):
    first, _, after = launch(train, few, 1, 1e-3, nprocs=n, **still)[0]
    runs[n] = first.tolist(), after
equivalence = equivalence_table(runs, tolerance=1e-5)
equivalence.map("{:.1e}".format)

# %% [markdown]
# ## The test
#
# The test reviews, for the first time. **Accuracy** is the share of right answers. **F1** asks about one class, the positive: of those called positive, how many are (precision); of those that are, how many were called so (recall);
# F1 is the two in one number, 2·TP ÷ (2·TP + FP + FN). All of it comes from four counts, and counts are what ranks can add. An F1 of each rank, averaged, would be another number.


# %%
def test(weights, rows):
    with process_group() as pg:
        model = make_model().to(pg.device)
        model.load_state_dict(weights)
        return confused(model, rows, pg)


def accuracy_and_f1(counts: torch.Tensor) -> tuple[float, float]:
    (_, false_alarms), (missed, hits) = counts.tolist()
    f1 = 2 * hits / (2 * hits + false_alarms + missed)
    return counts.diag().sum().item() / counts.sum().item(), f1


test_rows = torch.from_numpy(np.flatnonzero(~is_train))
some = test_rows[:: max(1, len(test_rows) // 1000)]  # do 1, 2 and 3 ranks count alike?
alike = [launch(test, weights, some, nprocs=n, start_method=start_method)[0] for n in (1, 2, 3)]
assert all(torch.equal(alike[0], other) for other in alike)
counts = launch(test, weights, test_rows, **options)[0]
test_accuracy, test_f1 = accuracy_and_f1(counts)

# %% [markdown]
# What can be added can be subtracted, too: without the counts of the reviews that are also in training, these are the counts of the others.

# %%
known = launch(test, weights, test_rows[found.test_in_train], **options)[0]
scores = {
    f"all {counts.sum():,} test reviews": (test_accuracy, test_f1),
    f"{(counts - known).sum():,} whose text is not in training": accuracy_and_f1(counts - known),
}
pd.DataFrame(scores, index=["accuracy", "F1"]).T.map("{:.2%}".format)

# %%
title = f"{test_accuracy:.1%} right, F1 {test_f1:.1%}"
fig = confusion(counts, list(imdb.LABELS), title, data.origin)
show(fig, alt=f"Confusion matrix of the test reviews. {title}")

# %% [markdown]
# ## Is that good?
#
# A model that needs no network, no batches and no ranks: count which words and pairs of words a review has, and weigh them. *TF-IDF* makes frequent words count less; *NB* multiplies each by how much more often it stands in positive reviews
# (Wang and Manning, 2012). Both end in a logistic regression. They need nothing of each other, so each has a rank. (They may learn from all training reviews; ours keeps a fifth of them for validation.) **Which will win: the transformer, or the counters of words?**


# %%
def count_words(which: str, path: str) -> float:
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    both = np.array(load_from_disk(path)["text"][:], dtype=object)
    if which == "TF-IDF of words":
        counter, strength = TfidfVectorizer(min_df=2, sublinear_tf=True), 3.0
    else:
        counter, strength = CountVectorizer(ngram_range=(1, 2), binary=True, min_df=2), 0.1
    have, asked = counter.fit_transform(both[is_train]), counter.transform(both[~is_train])
    truth = labels.numpy()[is_train]
    if which != "TF-IDF of words":
        shares = [have[truth == k].sum(0) + 1 for k in (0, 1)]
        ratio = np.log((shares[1] / shares[1].sum()) / (shares[0] / shares[0].sum()))
        have, asked = (x.multiply(ratio).tocsr() for x in (have, asked))
    model = LogisticRegression(C=strength, solver="liblinear").fit(have, truth)
    return float(model.score(asked, labels.numpy()[~is_train]))


RIVALS = ["TF-IDF of words", "NB, words and pairs"]


def rivals() -> dict[str, float]:
    with process_group() as pg:
        every = [None] * pg.world_size
        mine = {name: count_words(name, str(folder)) for name in RIVALS[pg.rank :: pg.world_size]}
        dist.all_gather_object(every, mine)
        return {name: score for part in every for name, score in part.items()}


# %%
def score_rivals(path) -> None:
    path.write_text(json.dumps(launch(rivals, threads=1, **options)[0]))


of_these = fingerprint(frame["text"], frame["split"], labels.numpy().tobytes())
rival_scores = json.loads(keep("imdb-rivals.json", of_these, score_rivals).read_text())
scores = {"always the same answer": labels[test_rows].float().mean().item(), **rival_scores}
scores["this transformer"] = test_accuracy
best = max(rival_scores.values())
gap = 100 * (best - test_accuracy)
place = "ahead of" if gap > 0 else "behind"
title = f"Counting words and pairs is {abs(gap):.1f} points {place} reading them"
xlabel = "test accuracy (share of right answers)"
fig = bars(scores, title, xlabel, "this transformer", data.origin, largest_first=True)
show(fig, alt=f"Test accuracy: {', '.join(f'{k} {v:.1%}' for k, v in scores.items())}")

# %% [markdown]
# An attention layer *can* find out that "not" before "good" matters; a table of pairs simply has "not good" in it. From 20,000 reviews and in a minute, finding out is the harder way. What the transformer lacks is not capacity but experience:
# it met English for the first time this minute. That is what **pretraining** gives it, and what lesson 31 is about.
#
# ## The same from the library
#
# Nobody writes encoders by hand for work. The `transformers` library has them all, configured by numbers you now know. **What does it call `real`?**

# %%
from transformers import BertConfig, BertForSequenceClassification

config = BertConfig(
    vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=4,
    intermediate_size=128, max_position_embeddings=LONGEST, pad_token_id=tokenizer.pad_token_id,
)  # fmt: skip
torch.manual_seed(seed)
library, ours = BertForSequenceClassification(config).eval(), make_model().eval()
short = tokens[lengths.argsort()[:4]].long()
few_zeros, many_zeros = short[:, : lengths.sort().values[3]], short
with torch.no_grad():
    for name, read in {
        "ours": ours,
        "the library's": lambda ids: library(ids, attention_mask=ids != 0).logits,
        "the library's, not told": lambda ids: library(ids).logits,
    }.items():
        change = (read(few_zeros) - read(many_zeros)).abs().max().item()
        print(f"{name}: {change:.0e} is what more padding changes")
for name, model in {"ours": ours, "the library's": library}.items():
    print(f"{name}: {sum(p.numel() for p in model.parameters()):,} weights")

# %% [markdown]
# It calls it `attention_mask`, and needs it: not told what is real, it takes zeros for words, and says nothing.

# %%
record_results(
    preset=preset,
    seed=seed,
    world_size=world_size,
    data_origin=data.origin,
    test_accuracy=test_accuracy,
    test_f1=test_f1,
    validation_accuracy=curve[-1],
    train_seconds=train_seconds,
    samples_per_second=len(losses) * 60 / train_seconds,
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
    best_baseline_accuracy=best,
)

# %% [markdown]
# **Exercises:** [`exercises/30_imdb_transformer.ipynb`](../exercises/30_imdb_transformer.ipynb). You will pad and mask so that no rank hears a zero, and compute F1 from counts with one message.
#
# ## Take-away
#
# > Work that needs no partner (tokenising, baselines) is dealt out and kept, not done twice. Texts of like length share a batch, and padding is masked before the softmax: then it does not matter which rank a text is on.
# > Always put the simplest rival beside a model; here it wins, and says what the model lacks.
#
# **To go further**
# - Vaswani and others: [Attention Is All You Need](https://arxiv.org/abs/1706.03762), 2017.
# - Wang, Manning: [Baselines and Bigrams](https://aclanthology.org/P12-2018/), 2012: the counter of pairs.
# - Maas and others: [Learning Word Vectors for Sentiment Analysis](https://aclanthology.org/P11-1015/), 2011: where the reviews come from.
# - Next: lesson 31 begins with a model that has read before.
