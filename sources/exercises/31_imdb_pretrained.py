# %% [markdown]
# # Exercises for lesson 31: fine-tune a pretrained encoder
#
# Complete each function, run its cell, then run the check below it.

# %%
import math
import re

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from course_lib.checks import lesson_31 as check

# %% [markdown]
# ## 31.1 · Warm up, and come to rest at the last step
#
# *Difficulty 3 of 5 · 20 minutes · goal: the last step has a rate above 0, the step after it would have exactly 0*
#
# The schedule that the lesson took from transformers begins with a rate of 0, so its first step moves nothing. Write one in which every step counts. With `n` steps after the warm-up the
# rates are these parts of the peak: `1/warm, 2/warm, …, 1`, then `n/n, (n-1)/n, …, 1/n`. There may be no warm-up, or nothing else.
#
# A schedule is as good as the number of steps it is told. Too many, and the rate never comes down; too few, and the end of the training stands still. **Each step takes a batch that all ranks share: how does their number
# enter?** The check trains the same texts with the same batches on 1, 2 and 3 ranks; the number of steps has to be the same. It also saves a run in its middle, makes everything anew, loads, and goes on.


# %%
def count_steps(texts: int, rows: int, accumulate: int, epochs: int, world_size: int) -> int:
    """Count the steps that the optimizer of each rank takes in a training.

    Args:
        texts: How many there are for all ranks together. Each is read once an epoch.
        rows: Texts that a rank reads at a time, a micro-batch.
        accumulate: Micro-batches of a rank before all ranks take a step together.
        epochs: How often all texts are read. The last step of each takes whatever is left, even if
            it is a single text.
        world_size: How many ranks share the texts.

    Returns:
        The number of steps: the same on all ranks.
    """
    # BEGIN SOLUTION
    return epochs * math.ceil(texts / (rows * accumulate * world_size))
    # END SOLUTION


def warm_up(optimizer: torch.optim.Optimizer, steps: int, warm: int) -> LRScheduler:
    """Let the rate of each group rise to its peak in a straight line, and fall in another to 0.

    Args:
        optimizer: Has just been made; the rate of each of its groups is the peak of that group.
        steps: How many there will be, at least 1.
        warm: How many of them belong to the rise, from 0 to ``steps``.

    Returns:
        A scheduler: the first rate is set, and its ``step()`` is called after each step of the
        optimizer. After the last step the rate is 0, and stays so. It can be saved by its
        ``state_dict()``, and goes on after ``load_state_dict()``.
    """

    # BEGIN SOLUTION
    def share(done: int) -> float:
        rise, fall = (done + 1) / max(warm, 1), (steps - done) / max(steps - warm, 1)
        return max(min(rise, fall), 0.0)

    return LambdaLR(optimizer, share)
    # END SOLUTION


# %%
check.warm_up(count_steps, warm_up)

# %% [markdown] tags=["solution"]
# The rising line is above 1 after the warm-up and the falling one before it, so the lower of the two is always right. `LambdaLR` multiplies the peak of each group by it, and counts the steps itself: the count is in its `state_dict()`, and a counter of our own would not be.
#
# More ranks take larger bites, so they need fewer steps of as many rows each. At a fixed batch of all ranks, rows · accumulate · world_size, nothing changes: neither the steps nor their rates.

# %% [markdown]
# ## 31.2 · A rate for each layer
#
# *Difficulty 4 of 5 · 25 minutes · goal: any encoder, wrapped or not, on all ranks in one order*
#
# In a pretrained encoder the lower layers know the language, the upper ones what it was trained for, and the new head knows nothing. So the head gets the whole rate, the top layer `shrink` times that, each layer below `shrink` times
# the one above it, and the embeddings `shrink` times what layer 0 gets. The names of its parameters tell where each belongs. `model.named_parameters()` yields names like these, in one order:
#
# | | embeddings | a layer | after the layers: the head |
# |---|---|---|---|
# | BERT | `bert.embeddings.LayerNorm.bias` | `bert.encoder.layer.3.output.dense.weight` | `bert.pooler.dense.weight`, `classifier.bias` |
# | DistilBERT | `distilbert.embeddings.LayerNorm.bias` | `distilbert.transformer.layer.3.ffn.lin1.weight` | `pre_classifier.weight` |
# | ModernBERT | `model.embeddings.norm.weight` | `model.layers.3.attn_norm.weight` | `model.final_norm.weight`, `head.dense.weight` |
#
# DDP puts `module.` in front. Biases and the weights of LayerNorms are not to decay. And since an optimizer's `state_dict()` knows parameters by their number only, the order must not change from rank to rank or from run to run.


# %%
def layer_groups(model: nn.Module, rate: float, shrink: float) -> list[dict]:
    """Make parameter groups whose rates fall from the head of an encoder to its embeddings.

    Args:
        model: An encoder with a head, of any class, perhaps wrapped in DistributedDataParallel.
            Names with ``layer.3.`` or ``layers.3.`` are of layer 3, counted from the embeddings;
            those with ``embeddings.`` are of the embeddings; all others are of the head.
        rate: That of the head.
        shrink: The factor from one depth to that below it, above 0 and up to 1.

    Returns:
        Groups ``{"params": …, "lr": …}``: each parameter that requires a gradient is in one of
        them, once. A layer that is frozen keeps its place in the count. Groups of biases and of
        weights of LayerNorms (all have one dimension, and other weights two) have
        ``"weight_decay": 0.0``; the others leave the decay to the optimizer. The order is the same
        whenever and wherever it is called.
    """
    # BEGIN SOLUTION
    named = list(model.named_parameters())
    numbers = [re.search(r"\blayers?\.(\d+)\.", name) for name, _ in named]
    layers = 1 + max(int(number[1]) for number in numbers if number)
    groups: dict[tuple[int, bool], dict] = {}
    for (name, p), number in zip(named, numbers, strict=True):
        depth = layers - int(number[1]) if number else (layers + 1) * ("embeddings." in name)
        group = {"params": [], "lr": rate * shrink**depth}
        if p.ndim < 2:
            group["weight_decay"] = 0.0
        if p.requires_grad:
            groups.setdefault((depth, p.ndim < 2), group)["params"].append(p)
    return list(groups.values())
    # END SOLUTION


# %%
check.layer_groups(layer_groups)

# %% [markdown] tags=["solution"]
# A `dict` keeps the order in which its keys came, a `set` of names has another one in each process: Python hashes texts anew in each. With such an order the moments of AdamW, loaded from a file of rank 0, would
# go to the wrong parameters, and no error would say so where shapes agree.
#
# `named_parameters()` yields a weight that two layers share only once, under the name it has first.
