# %% [markdown]
# # Exercises for lesson 06: data parallelism from scratch
#
# Complete each function, run its cell, then run the check below it. The checks call your code on 2, 3 and 4 ranks, compare the
# gradients with those of one process and of torch's own `DistributedDataParallel`, and count what was sent.

# %%
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from course_lib.checks import lesson_06 as check

# %% [markdown]
# ## 6.1 · One message for all gradients
#
# *Difficulty 2 of 5 · 10 minutes · goal: one all_reduce, whatever the number of parameters*
#
# In the lesson `averaged` sends every gradient by itself: one all_reduce for a weight matrix, and another for a bias of ten numbers,
# which costs about as much time. Send all of them in one tensor. Some parameters may have had no part in this rank's loss, and have `None` for a gradient; on
# another rank they may have one. What has to stand in the message for them?


# %%
def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace every gradient by its average over the ranks. Called on all ranks.

    Args:
        parameters: Those of a model, in the same order on every rank, all of one dtype. Afterwards
            each has a gradient of its own shape. One without a gradient counts as zeros.
    """
    # BEGIN SOLUTION
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    pieces = flat.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)
    # END SOLUTION


# %%
check.average_gradients(average_gradients)

# %% [markdown] tags=["solution"]
# A rank that left out what it has no gradient for would send a shorter message than the others, and their numbers would be added to
# the wrong ones. With zeros, all messages have one layout. DDP does the same when you tell it `find_unused_parameters=True`.

# %% [markdown]
# ## 6.2 · The last batch is smaller
#
# *Difficulty 3 of 5 · 15 minutes · goal: one all_reduce of a single number, and DDP does the rest*
#
# Ten rows are left for three ranks: 4, 3 and 3. Each rank takes the mean loss of its rows, DDP averages the three gradients, and a row of rank 0 has counted
# less than one of rank 1. You cannot change what DDP does: it adds up the gradients and divides by the number of ranks.
# But you choose the number on which `backward()` is called.


# %%
def loss_for_ddp(losses: torch.Tensor) -> torch.Tensor:
    """The number to call ``backward()`` on. Called on all ranks of a DDP model.

    After it, DDP's gradients must be those of the mean loss over the rows of *all* ranks.

    Args:
        losses: The loss of each row of this rank, float32 of shape (rows,), with its graph. The
            ranks may hold unequal numbers of rows, some of them none at all, but not all.

    Returns:
        A tensor with a single number, finite on every rank, from which the graph leads back to the
        losses.
    """
    # BEGIN SOLUTION
    rows = torch.tensor(float(len(losses)))
    dist.all_reduce(rows)
    return losses.sum() * dist.get_world_size() / rows
    # END SOLUTION


# %%
check.loss_for_ddp(loss_for_ddp)

# %% [markdown] tags=["solution"]
# DDP will divide by N, so we multiply by N first; and we divide by the rows of all ranks, not by our own. A rank without rows
# contributes a sum of nothing, which is 0, and still takes part in every message. The returned number itself is *not* the global
# loss. Its average over the ranks is.

# %% [markdown]
# ## 6.3 · MiniDDP that can wait
#
# *Difficulty 3 of 5 · 25 minutes · goal: one all_reduce a bucket and step, however many micro-batches a step has*
#
# When a batch does not fit into memory, one takes it in **micro-batches**: `backward()` after each, and one `optimizer.step()` at the end.
# The gradients add up in `.grad` meanwhile, and only their sum has to travel:
#
# ```python
# with model.no_sync():                      # all micro-batches but the last
#     for inputs, targets in micro_batches[:-1]:
#         loss(model(inputs), targets).backward()
# loss(model(last_inputs), last_targets).backward()
# model.finish()
# optimizer.step()
# ```
#
# Below is the class of the lesson, in one piece, with three methods left to write. Buckets must leave in the order of their numbers, on every
# rank: a rank may have no use for some parameter in this step, and its buckets would fill in another order.


# %%
class MiniDDP(nn.Module):
    """A model whose gradients are averaged over the ranks, bucket by bucket, during backward.

    Attributes:
        module: The model itself.
        buckets: Lists of parameters, those that are used last in front. The check counts them.
        bucket_of: Parameter → the number of its bucket.
        missing: Of each bucket, how many gradients of this step are still to come.
        sent: Of each bucket that has left: its work handle and its flat tensor, in order.
        sync: False inside ``no_sync``.
    """

    def __init__(self, module: nn.Module, bucket_bytes: int = 1_000_000) -> None:
        super().__init__()
        self.module, self.sync = module, True
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.detach(), src=0)
        self.buckets, self.bucket_of, room = [], {}, 0
        for parameter in reversed(list(module.parameters())):
            room -= parameter.nbytes
            if room < 0:
                self.buckets.append([])
                room = bucket_bytes - parameter.nbytes
            self.buckets[-1].append(parameter)
            self.bucket_of[parameter] = len(self.buckets) - 1
            parameter.register_post_accumulate_grad_hook(self.ready)
        self.start()

    def start(self) -> None:
        """Begin to count anew."""
        self.missing, self.sent = [len(bucket) for bucket in self.buckets], []

    def forward(self, *inputs):
        return self.module(*inputs)

    def send(self) -> None:
        """Let the next bucket leave: the average of its gradients, zeros where there is none."""
        bucket = self.buckets[len(self.sent)]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([g.flatten() for g in gradients]) / dist.get_world_size()
        self.sent.append((dist.all_reduce(flat, async_op=True), flat))

    def ready(self, parameter: nn.Parameter) -> None:
        """Called by autograd when a backward has added this parameter's part to its gradient.

        Lets every bucket leave (``send``) that is complete and whose turn it is; none while
        ``sync`` is False.
        """
        # BEGIN SOLUTION
        if not self.sync:
            return
        self.missing[self.bucket_of[parameter]] -= 1
        while len(self.sent) < len(self.buckets) and self.missing[len(self.sent)] == 0:
            self.send()
        # END SOLUTION

    def finish(self) -> None:
        """Called after the last backward of a step, on all ranks.

        Sends the buckets that have not left, waits for all, gives every parameter its averaged
        gradient, and begins to count anew.
        """
        # BEGIN SOLUTION
        while len(self.sent) < len(self.buckets):
            self.send()
        for bucket, (work, flat) in zip(self.buckets, self.sent, strict=True):
            work.wait()
            pieces = flat.split([parameter.numel() for parameter in bucket])
            for parameter, piece in zip(bucket, pieces, strict=True):
                parameter.grad = piece.view_as(parameter)
        self.start()
        # END SOLUTION

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside it gradients add up on this rank, and nothing is sent. It may be nested, and left
        by an error.
        """
        # BEGIN SOLUTION
        before, self.sync = self.sync, False
        try:
            yield
        finally:
            self.sync = before
        # END SOLUTION


# %%
check.mini_ddp(MiniDDP)

# %% [markdown] tags=["solution"]
# What travels is `.grad` with everything that has been added to it, so the earlier micro-batches are in the message. A hook that looked only at the
# newest part would lose them, and each rank would step in a direction of its own: try it, and read what the check says.
