# %% [markdown]
# # IMDb: a model that has read before
#
# **You will learn**
# - what pretraining is: guessing hidden words, without a single label, each rank its share;
# - to take a checkpoint by its name or from a folder, and to fine-tune it under DDP;
# - to search rates and epochs over ranks, each rank its own trials, and to broadcast the best.
#
# *About 45 minutes; the cells run for about two and a half, and the first time for one more. 2 processes on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
preset: str = "quick"  # "smoke", "quick" or "full": how long to train
source: str = "auto"  # "auto", "real" or "synthetic" data
checkpoints: str = "distilbert-base-uncased, sentence-transformers/all-MiniLM-L6-v2"  # or folders
seed: int = 0  # initial weights, order of the batches, hidden words; the split never moves
start_method: str = "auto"  # how launch starts ranks

# %%
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
from course_lib.checkpoints import find
from course_lib.data import imdb
from course_lib.evaluation import accuracy_and_f1

world_size, preset = choose_world_size(world_size), choose_preset(preset)
options = {"nprocs": world_size, "start_method": start_method}
warnings.filterwarnings("ignore", "IProgress")  # the bars are text; no widgets are missed

# %%
from transformers import AutoConfig, AutoModel, AutoTokenizer, ModernBertConfig
from transformers import get_linear_schedule_with_warmup as warm_up_and_down
from transformers.utils import logging

from course_lib.equivalence import equivalence_table
from course_lib.keeping import fingerprint, keep
from course_lib.plots import COLOURS, bars, confusion, figure, show
from course_lib.tokenising import tokenise
from course_lib.tokens import cut_and_pad, learn_vocabulary, length_buckets

# %% [markdown]
# ## Who has read before?
#
# Lesson 30's transformer met English for the first time, and counting words beat it. Others have read all of Wikipedia, and their weights are public. A **checkpoint** is a folder: `config.json` says
# how the model is built, `model.safetensors` holds the weights, and the tokenizer's files say which number means which word. All three belong together. `find` takes a folder's path or a name on the Hugging Face hub, and looks
# at every file before anybody trains with it.

# %%
names = [name.strip() for name in checkpoints.split(",") if name.strip()]
found = {name[-32:]: path for name in names if (path := find(name))}  # a path may be long
if not found:
    print("\nSo nobody here has read before: we train a small reader of our own.")

# %% [markdown]
# Without one the lesson goes on with a small reader that we make here, from nothing but the training reviews; with one, both take part. The data and the vocabulary are lesson 30's; `tokenise` is its cell, moved into the library.

# %%
data = imdb.load(source)
frame = data.frame.assign(text=imdb.clean_all(data.frame["text"]))
if preset == "smoke":  # a few reviews, to see that it runs
    frame = frame.groupby("split").sample(1000, random_state=0).reset_index(drop=True)
is_train, labels = (frame["split"] == "train").to_numpy(), torch.tensor(frame["label"].to_numpy())
train_rows, test_rows = (torch.from_numpy(np.flatnonzero(part)) for part in (is_train, ~is_train))
fit, valid = (train_rows[rows] for rows in imdb.validation(frame[is_train]))
tokenizer = learn_vocabulary(frame["text"][is_train], 8192)
ids = tokenise(frame["text"], tokenizer, special_tokens=False, **options)
MASK, SPECIAL = tokenizer.mask_token_id, len(tokenizer.all_special_ids)

# %% [markdown]
# ## Guess the hidden word
#
# Hide a fifth of the words, and ask for them. Nobody has to label anything: the text is question and answer. To guess well one has to know which words may stand where, which go together, and at last what the
# text is about. **What would you put in?**

# %%
stream = torch.from_numpy(np.concatenate([ids[row] for row in train_rows])).int()
blocks = stream[: len(stream) // 128 * 128].view(-1, 128)  # one text after the other


def hide(words: torch.Tensor, share: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = (torch.rand(words.shape, device=words.device) < share) & (words >= SPECIAL)
    return words.masked_fill(hidden, MASK), hidden


torch.manual_seed(seed)
example, _ = hide(blocks[3, :40])
print(tokenizer.decode(example))
print(f"\n{len(stream):,} words of {len(train_rows):,} training reviews, in blocks of 128")

# %% [markdown]
# The reader is one layer of **ModernBERT** (Warner and others, 2024), from the library. It differs from lesson 30's encoder in how it knows where a word stands: it turns query and key by an angle that grows with the place,
# so that attention sees *distances*. BERT of 2018 adds a vector for each place instead.
#
# A guess is compared with the words that are hidden anywhere in the same batch. A score for each of 8,192 would take most of the time.


# %%
class Guesser(nn.Module):
    def __init__(self, encoder: nn.Module):
        super().__init__()
        width, words = encoder.config.hidden_size, encoder.config.vocab_size
        self.encoder, self.prior = encoder, nn.Parameter(torch.zeros(words))
        self.think = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))

    def forward(self, shown, hidden, words):
        candidates, answer = words[hidden].unique(return_inverse=True)
        thought = self.think(self.encoder(shown).last_hidden_state[hidden])
        table = self.encoder.get_input_embeddings().weight  # the same table reads and guesses
        scores = thought @ table[candidates].T + self.prior[candidates]
        return F.cross_entropy(scores, answer)


# %%
config = ModernBertConfig(
    vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1,
    num_attention_heads=4, max_position_embeddings=256, global_attn_every_n_layers=1,
    pad_token_id=0, cls_token_id=2, bos_token_id=2, sep_token_id=3, eos_token_id=3,
)  # fmt: skip


def fresh() -> nn.Module:
    torch.manual_seed(seed)
    return AutoModel.from_config(config)


# %%
def pretrain(folder: str, epochs: float, size: int, rate: float, share: float):
    with process_group() as pg:
        model = DistributedDataParallel(Guesser(fresh()).to(pg.device))
        total = max(20, int(epochs * len(blocks) / size))
        optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01, fused=True)
        schedule = warm_up_and_down(optimizer, total // 10, total)
        dice, losses = torch.Generator().manual_seed(seed), []
        torch.manual_seed(1000 * seed + pg.rank)  # what is hidden: each rank its own dice
        for _ in progress(range(total), "guessing hidden words"):
            chosen = torch.randint(len(blocks), (size,), generator=dice)[pg.rank :: pg.world_size]
            words = blocks[chosen].long().to(pg.device)
            loss = model(*hide(words, share), words)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            report(loss=loss.item())
        if pg.rank == 0:
            logging.disable_progress_bar()
            model.module.encoder.save_pretrained(folder)
        losses = torch.stack(losses)
        dist.all_reduce(losses)
        return (losses / pg.world_size).cpu()


# %% [markdown]
# What it learns is kept like the vocabulary: as a checkpoint, by a fingerprint of what it was made from. Next time it is there. **The first guesses are blind: how far will the loss fall below what one reaches by knowing only
# how frequent each word is?**

# %%
recipe = {"epochs": {"smoke": 0.02, "quick": 1, "full": 30}[preset]}
recipe |= {"size": 32, "rate": 5e-3, "share": 0.2}


def make_checkpoint(folder) -> None:
    begin = time.perf_counter()
    losses = launch(pretrain, str(folder), **recipe, **options)[0]
    tokenizer.save_pretrained(folder)
    np.savetxt(folder / "losses.txt", losses)
    print(f"{time.perf_counter() - begin:.0f} s on {world_size} ranks")


of_these = fingerprint(stream.numpy().tobytes(), config.to_json_string(), f"{recipe} {seed}")
folder = keep("imdb-reader", of_these, make_checkpoint)

# %%
losses = np.loadtxt(folder / "losses.txt", ndmin=1)
counts = torch.bincount(stream, minlength=len(tokenizer)).float() + 1
blind = []  # the loss of one who knows how frequent each word is, and nothing else
for part in blocks[: 32 * 20].split(32):
    words = part[hide(part)[1]].long()
    candidates, answer = words.unique(return_inverse=True)
    blind.append(F.cross_entropy(counts[candidates].log().expand(len(answer), -1), answer))
blind = torch.stack(blind).mean().item()
window = max(1, len(losses) // 40)
means = losses[: len(losses) // window * window].reshape(-1, window).mean(axis=1)
title = f"Guessing costs {means[-1]:.1f} nats a word; {blind:.1f} if one knows frequencies alone"
fig, ax = figure(title, xlabel="steps", ylabel="loss (nats a hidden word)", origin=data.origin)
ax.plot(window * (np.arange(len(means)) + 0.5), means, color=COLOURS[0])
ax.axhline(blind, color=COLOURS[1], linestyle="--")
ax.text(0, blind, " frequencies alone", color=COLOURS[1], va="bottom")
show(fig, alt=f"Loss by step, falling. {title}")

# %% [markdown]
# What has it learnt about words? Those that fill the same gaps should now have vectors that point the same way. **Which words will be nearest to "awful"?**

# %%
logging.disable_progress_bar()
reader = AutoModel.from_pretrained(folder)
vectors = F.normalize(reader.get_input_embeddings().weight.detach(), dim=1)
for word in ("awful", "superb", "actress", "plot", "seven"):
    near = (vectors @ vectors[tokenizer.convert_tokens_to_ids(word)]).topk(6).indices[1:]
    print(f"{word:>8}: {', '.join(tokenizer.convert_ids_to_tokens(near.tolist()))}")

# %% [markdown]
# Look twice at the first two lines. Do words of praise and of blame stay apart? "It was an ... film" takes either. What may stand where is what the gaps teach; that one is the opposite of the other, they hardly tell, as long as one looks at few words around.
#
# ## From reader to judge
#
# **Fine-tuning** puts a small new head on the reader, and trains both on labels, with a small rate: what was learnt should be bent, not wiped out. The head here is the mean of what the reader says about each word, and one
# linear layer; that fits any encoder of the library. (Some have a *pooler*, which this head does not use. DDP would wait for its gradient in vain, so it is frozen; lesson 22 showed that error.)


# %%
class Judge(nn.Module):
    def __init__(self, name, **changes):
        super().__init__()
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # `find` has told what there is to tell
        torch.manual_seed(seed)
        how = AutoConfig.from_pretrained(readers[name], **changes)
        if name == "from scratch":
            self.encoder = AutoModel.from_config(how)
        else:
            self.encoder = AutoModel.from_pretrained(readers[name], config=how, dtype=torch.float32)
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_("pooler" not in name)
        self.drop, self.vote = nn.Dropout(0.2), nn.Linear(how.hidden_size, 2)

    def forward(self, ids, real):
        x = self.encoder(ids, attention_mask=real).last_hidden_state
        mean = (x * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        return self.vote(self.drop(mean))


# %% [markdown]
# Each checkpoint has a vocabulary of its own, so the reviews are cut into tokens once for each: over ranks, and kept. Lesson 30's buckets are in the library, too, as `length_buckets`.

# %%
readers = {"from scratch": folder, "read the training reviews": folder} | found


def weights_of(path) -> int:
    """How many weights compute; the tables of words are only looked up."""
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.from_pretrained(path))
    return sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name)


LARGE = {path for path in readers.values() if weights_of(path) > 3e6}
slow = bool(LARGE) and not torch.cuda.is_available()
if slow:
    print("A large reader and no GPU: all readers get fewer labels and less of each review.")
reviews = {}
for path in {*readers.values()}:
    own = AutoTokenizer.from_pretrained(path)
    around = path != folder  # ours puts nothing around a text, so its ids are kept already
    own_ids = tokenise(frame["text"], own, special_tokens=around, **options)
    reviews[path] = cut_and_pad(own_ids, 128 if slow else 256, own.pad_token_id)
    print(f"{path.name}: {len(own):,} words, {np.mean([*map(len, own_ids)]):.0f} a review")

# %% [markdown]
# The loop is the one you know. It serves all ranks on one model (`together`), and each rank on a model of its own.


# %%
def read(path, rows, device):
    tokens, lengths = reviews[path]
    ids = tokens[rows, : lengths[rows].max()].long().to(device)
    return ids, (torch.arange(ids.shape[1]) < lengths[rows, None]).long().to(device)


def predict(model, path, rows, pg) -> torch.Tensor:
    model.eval()
    order, scores = reviews[path][1][rows].argsort(), torch.empty(len(rows))
    with torch.no_grad():
        for part in order.split(100) if len(rows) else ():
            scores[part] = model(*read(path, rows[part], pg.device)).diff().squeeze(1).cpu()
    model.train()
    return (scores > 0).long()  # 1: the second score, "positive", is the larger one


def confused(model, path, rows, pg) -> torch.Tensor:
    mine = rows[shard_indices(len(rows), pg.rank, pg.world_size)]
    return confusion_over_ranks(predict(model, path, mine, pg), labels[mine], 2)


# %%
def fine_tune(model, path, rows, epochs, rate, pg, together=True):
    size = 64 if together else 32  # few labels need many small steps
    ranks, rank = (pg.world_size, pg.rank) if together else (1, 0)
    total = epochs * (len(rows) // size)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, rate, weight_decay=0.01, fused=True)
    schedule = warm_up_and_down(optimizer, total // 10, total)
    torch.manual_seed(1000 * seed + rank)  # dropout: each rank its own dice
    losses = []
    for epoch in range(epochs):
        dealt = length_buckets(rows, reviews[path][1], size, 1000 * seed + epoch)
        for batch in progress(dealt, f"epoch {epoch + 1} of {epochs}"):
            mine = batch[rank::ranks]
            scores, truth = model(*read(path, mine, pg.device)), labels[mine].to(pg.device)
            loss = F.cross_entropy(scores, truth, reduction="sum") * ranks / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            report(loss=loss.item())
    return torch.stack(losses)


# %% [markdown]
# ## Which rate, how many epochs?
#
# Fine-tuning is choosy: too small a rate learns nothing from few labels, too large a one forgets what was read. So we try, on a part of the labels, and judge by validation films. The trials need nothing of each other, so rank r takes
# every N-th of them, as in lesson 12. The costly ones are dealt first. **Who will need the larger rate: who has read before, or who has not?**


# %%
def search(trials, some, judges):
    with process_group() as pg:
        scores = []
        for name, epochs, rate in trials[pg.rank :: pg.world_size]:
            model, path = Judge(name).to(pg.device), readers[name]
            fine_tune(model, path, some, epochs, rate, pg, together=False)
            right = predict(model, path, judges, pg) == labels[judges]
            scores.append((right.float().mean().item(), epochs, rate, name))
        every = [None] * pg.world_size
        dist.all_gather_object(every, scores)
        best = [max(one for part in every for one in part)] if pg.rank == 0 else [None]
        dist.broadcast_object_list(best, src=0)  # one decides, and all go on with the same
        return [one for part in every for one in part], best[0]


# %%
few, judged = {"smoke": (64, 64), "quick": (1000, 1000), "full": (8000, 5000)}[preset]
few = min(few, 320) if slow else few
dice = torch.Generator().manual_seed(0)
some, judges = fit[torch.randperm(len(fit), generator=dice)[:few]], valid[:: len(valid) // judged]
tries = (1,) if preset == "smoke" else (2,) if slow else (2, 4)
small = (1e-3, 4e-3)  # rates for thousands of weights; and for millions:
trials = [
    (name, epochs, rate)
    for epochs in sorted(tries, reverse=True)
    for name, path in readers.items()
    for rate in ((2e-5, 1e-4) if path in LARGE else small)
]
scores, (right, times, rate, name) = launch(search, trials, some, judges, **options)[0]
print(f"Best: {name}, {times} epochs, rate {rate:g}: {right:.1%} right")
table = pd.DataFrame(scores, columns=["accuracy", "epochs", "rate", "reader"])
table.pivot(index=["reader", "rate"], columns="epochs", values="accuracy").map("{:.1%}".format)

# %%
by_reader = table.loc[table.groupby("reader")["accuracy"].idxmax()].set_index("reader")
accuracy, epochs_of, rate_of = (by_reader[k].to_dict() for k in ("accuracy", "epochs", "rate"))
well_read = max((name for name in accuracy if name != "from scratch"), key=accuracy.get)
gain = 100 * (accuracy[well_read] - accuracy["from scratch"])
title = f"With {len(some):,} labels, having read before is worth {gain:+.1f} points"
xlabel = f"accuracy on {len(judges):,} validation reviews (share of right answers)"
fig = bars(accuracy, title, xlabel, well_read, data.origin, "reader", largest_first=True)
show(fig, alt=f"Best validation accuracy of each reader: {accuracy}. {title}")

# %% [markdown]
# (Each bar is the best of its trials, which flatters all of them alike.) If our reader is not ahead, that is a finding, too. It has read these reviews and nothing else; BERT had read 3.3 billion words, with two hundred times as many weights. How much reading helps is
# measured, not assumed.
#
# ## All labels, all ranks
#
# Now the two that tell most, the best reader and the one from scratch, with all labels, each with its own rate, under DDP. **With so many more labels, will the distance grow or shrink?**


# %%
def train(name, rows, epochs, rate, watch=(), **changes):
    with process_group() as pg:
        path = readers[name]
        model = DistributedDataParallel(Judge(name, **changes).to(pg.device))
        if changes:
            model.module.drop.p = 0.0
        losses = fine_tune(model, path, rows, epochs, rate, pg)
        dist.all_reduce(losses)
        counts = confused(model.module, path, watch, pg) if len(watch) else None
        return (losses / pg.world_size).tolist(), model.module.cpu().state_dict(), counts


# %%
finals, train_seconds = {}, {}
for name in ("from scratch", well_read):
    rows = fit[torch.randperm(len(fit), generator=dice)[:2000]] if slow else fit
    epochs = 1 if preset == "quick" and not slow else epochs_of[name]  # of more, fewer times
    begin = time.perf_counter()
    finals[name] = launch(train, name, rows, epochs, rate_of[name], valid, **options)[0]
    train_seconds[name] = time.perf_counter() - begin
    print(f"{name}: {len(rows):,} reviews, {epochs} times, {train_seconds[name]:.0f} s")

# %%
rights = {name: accuracy_and_f1(counts)[0] for name, (_, _, counts) in finals.items()}
series = {f"{len(some):,} labels": accuracy, f"{len(rows):,} labels": rights}
ahead = 100 * (rights[well_read] - rights["from scratch"])
title = (
    f"{well_read}: {gain:+.1f} points with {len(some):,} labels, {ahead:+.1f} with {len(rows):,}"
)
ylabel = "validation accuracy (share of right answers)"
fig, ax = figure(title, xlabel="reader", ylabel=ylabel, origin=data.origin)
for i, (label, shares) in enumerate(series.items()):
    for k, name in enumerate(finals):
        bar = ax.bar(k + 0.36 * i - 0.18, shares[name], 0.34, color=COLOURS[i], hatch="//" * i)
        ax.bar_label(bar, [f"{shares[name]:.1%}"])
    bar.set_label(label)
ax.set_xticks(range(len(finals)), list(finals))
ax.set_ylim(0, 1.2)
ax.legend(loc="upper center", ncols=2)
show(fig, alt=f"Validation accuracy by reader and number of labels: {series}. {title}")

# %% [markdown]
# One reason why few labels may not do: what was read has to be turned towards a new question first, and words that fill the same gaps must be pulled apart again. Published checkpoints have read far more, and end higher: DistilBERT's authors report 92.8 % of the test reviews (Sanh and others, 2019). Give one as the parameter `checkpoints`, by name or as a folder, and it takes
# part in all of this; with a GPU that is a matter of minutes.
#
# ## Did N ranks learn what one would have?
#
# Dropout is off, the batches are the same, and every text counts the same on whichever rank it is, also where 64 texts do not divide evenly.

# %%
small_reader = "read the training reviews"
runs = {}
for n in (1, 2, 3):
    how = {"nprocs": n, "device": "cpu", "start_method": start_method}
    first, weights, _ = launch(
        train, small_reader, fit[: 20 * 64], 1, 1e-3, attention_dropout=0.0, **how
    )[0]
    runs[n] = first, weights
equivalence = equivalence_table(runs, tolerance=1e-5)
equivalence.map("{:.1e}".format)

# %% [markdown]
# ## The test
#
# The one that was better on the validation films meets the test reviews.


# %%
def test(name, weights, rows):
    with process_group() as pg:
        model = Judge(name).to(pg.device)
        model.load_state_dict(weights)
        return confused(model, readers[name], rows, pg)


chosen = max(rights, key=rights.get)
asked = test_rows[::10] if slow else test_rows
counts = launch(test, chosen, finals[chosen][1], asked, **options)[0]
test_accuracy, test_f1 = accuracy_and_f1(counts)
title = f"{chosen}: {test_accuracy:.1%} right, F1 {test_f1:.1%}"
fig = confusion(counts, list(imdb.LABELS), title, data.origin)
show(fig, alt=f"Confusion matrix of {len(asked):,} test reviews. {title}")

# %%
record_results(
    preset=preset,
    seed=seed,
    world_size=world_size,
    data_origin=data.origin,
    reader=chosen,
    test_accuracy=test_accuracy,
    test_f1=test_f1,
    test_texts=len(asked),
    validation_accuracy=rights[chosen],
    gain_few_labels=gain / 100,
    gain_all_labels=ahead / 100,
    train_seconds=train_seconds[chosen],
    samples_per_second=len(finals[chosen][0]) * 64 / train_seconds[chosen],
    equivalence_max_abs_loss_diff=equivalence["largest difference of losses"].max(),
)

# %% [markdown]
# **Exercises:** [`exercises/31_imdb_pretrained.ipynb`](../exercises/31_imdb_pretrained.ipynb). You will write the warm-up that this lesson took from the library, and give each layer a rate of its own.
#
# ## Take-away
#
# > Guessing hidden words needs no labels and teaches what may stand where; whether that helps with your question has to be measured against the same model from scratch. A checkpoint is configuration, weights and vocabulary, and all three must fit.
# > Trials need nothing of each other, so each rank has its own; training the chosen one takes all ranks on one model.
#
# **To go further**
# - Devlin and others: [BERT](https://arxiv.org/abs/1810.04805), 2018: hidden words, and fine-tuning. Warner and others: [ModernBERT](https://arxiv.org/abs/2412.13663), 2024: what has become of it.
# - Sanh and others: [DistilBERT](https://arxiv.org/abs/1910.01108), 2019: two thirds of the weights, and its score on these reviews.
# - Sun, Qiu, Xu, Huang: [How to Fine-Tune BERT for Text Classification](https://arxiv.org/abs/1905.05583), 2019: rates by layer, and more reading in the domain first.
# - [Fine-tuning](https://huggingface.co/docs/transformers/training) in the transformers documentation.
# - Next: lesson 32 makes the training itself cheaper.
