# %% [markdown]
# # Exercises for lesson 32: nothing computed, sent or waited for in vain
#
# Complete each function, run its cell, then run the check below it.

# %%
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from course_lib.checks import lesson_32 as check

# %% [markdown]
# ## 32.1 · A loss averaged over tokens
#
# *Difficulty 4 of 5 · 25 minutes · goal: loss and gradient of one process to 1e-6, with gradients sent once*
#
# A model scores every token, but not every token counts: padding does not, nor do words that nobody hid. Their target is −100, which `F.cross_entropy` skips. How many are left is a matter of luck: other numbers on each rank and in
# each micro-batch, and now and then none. Write the step that gives every token that counts the same weight, wherever it is.
#
# The check runs it on 1 to 4 ranks, whose micro-batches differ in number and shape. What is `F.cross_entropy` over no tokens at all? And what will the other ranks do if one leaves out its last backward because nothing in it counts?


# %%
def token_step(
    model: DistributedDataParallel, micro_batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> float:
    """Leave the gradient of the mean loss over all tokens that count. Called on all ranks.

    Gradients are sent once, by DDP; beside them, a rank calls two small all_reduces at most. One
    micro-batch at a time is kept for backward.

    Args:
        model: Gives scores, float32 of shape (texts, tokens, classes), for inputs. Its gradients
            may be left from the step before: they are to be replaced.
        micro_batches: This rank's, at least one: inputs and targets, int64 of shape (texts,
            tokens). A target is a class, or -100 where it does not count. Ranks may have unequally
            many micro-batches, of different shapes.

    Returns:
        The mean cross entropy over the tokens that count, of all micro-batches of all ranks, as a
        plain float: the same on every rank. Its gradient is in ``.grad`` of all parameters. If no
        token counts anywhere, loss and gradient are 0.
    """
    # BEGIN SOLUTION
    tokens = sum((targets != -100).sum() for _, targets in micro_batches)
    dist.all_reduce(tokens)
    tokens.clamp_(min=1)
    model.zero_grad()
    total = torch.zeros(())
    for k, (inputs, targets) in enumerate(micro_batches):
        last = k == len(micro_batches) - 1
        with nullcontext() if last else model.no_sync():
            scores = model(inputs)
            loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="sum")
            loss = loss / tokens
            (loss * dist.get_world_size()).backward()  # DDP will divide by it
        total += loss.detach()
    dist.all_reduce(total)
    return total.item()
    # END SOLUTION


# %%
check.token_step(token_step)

# %% [markdown] tags=["solution"]
# A sum over no tokens is 0, and so is its gradient; a mean over none is 0 ÷ 0. So losses are added up, and the one division is by the number of all. A rank without tokens goes through its micro-batch all the same: its zeros are what
# the others wait for.
#
# Since only the last micro-batch is sent, ranks may have unequally many of them. Without `no_sync`, the first rank to be done would leave the others waiting.

# %% [markdown]
# ## 32.2 · Batches of a bounded number of tokens
#
# *Difficulty 4 of 5 · 25 minutes · goal: 85 % of the room holds tokens; in a step, the slowest rank is at most 10 % above the mean*
#
# Batches of equally many texts are not equally large: thirty long reviews fill the memory, thirty short ones a tenth of it. So machine translation counts in tokens: a batch has as many texts as fit into a **room** of, say, 4,096 places. Padding takes places,
# too: a batch has texts × longest of them.
#
# With several ranks, what is dealt is a *step*: a batch for each rank. Attention computes texts × longest² numbers, so a batch of short texts and one of long texts are not done at the same time, even if both fill the room: all ranks should read
# texts of like length. (Compared are the sums over all steps of the largest batch and of the mean one.) And since nobody wants to talk about it, every rank works the whole plan out for itself. Where do dice come from that fall alike on all ranks, and leave those of dropout alone?


# %%
def token_batches(
    lengths: torch.Tensor, room: int, world_size: int, epoch: int
) -> list[list[list[int]]]:
    """Deal texts to steps and ranks. Every rank calls it, and nothing is sent.

    Args:
        lengths: Tokens of each text, at least 1; int64 of shape (texts,). Not to be changed.
        room: Places that a rank's batch may have: texts times the longest of them.
        world_size: Number of ranks.
        epoch: Seeds the order. torch's global generator is neither used nor changed.

    Returns:
        ``plan[step][rank]``: a list of the numbers of texts, from 0, the same plan on all ranks.
        Every text is in one batch of one rank. In one step at most is there an empty batch, where
        less is left over than there are ranks; no step is empty on all of them. The steps come in
        an order that changes from epoch to epoch. Without texts there are no steps.

    Raises:
        ValueError: A text is longer than the room.
    """
    # BEGIN SOLUTION
    if (lengths > room).any():
        raise ValueError(f"a text has {lengths.max()} tokens, and a batch has {room} places")
    dice = torch.Generator().manual_seed(epoch)
    order = torch.randperm(len(lengths), generator=dice)
    order = order[lengths[order].argsort(descending=True, stable=True)].tolist()
    plan = []
    while order:
        texts = room // int(lengths[order[0]]) * world_size  # the first is the longest
        step, order = order[:texts], order[texts:]
        plan.append([step[rank::world_size] for rank in range(world_size)])
    return [plan[k] for k in torch.randperm(len(plan), generator=dice)]
    # END SOLUTION


# %%
check.token_batches(token_batches)

# %% [markdown] tags=["solution"]
# From the longest text down, the first text of a step is its longest, and so it says how many fit. Each rank takes every N-th, which leaves them texts of nearly one length. All steps are full but the last one, and there are only short texts in it. If a rank goes without,
# it can still take part: exercise 32.1 has shown how a rank without tokens does no harm.
#
# Sorting is stable and begins with a random order, so texts of equal length have other neighbours in each epoch. Those of unlike length never meet; where that matters, sort within stretches of some thousand texts, as the lesson does, and pay with a little padding.
