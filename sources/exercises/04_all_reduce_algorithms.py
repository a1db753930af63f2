# %% [markdown]
# # Exercises for lesson 04: all-reduce algorithms
#
# Complete each function, run its cell, then run the check below it. In the first two only `send`, `recv`, `isend` and `irecv` may be
# used; the checks call your functions on up to 5 ranks and count the messages. The third is pure arithmetic.

# %%
import math

import torch
import torch.distributed as dist

from course_lib.checks import lesson_04 as check

# %% [markdown]
# ## 4.1 · A ring for any length
#
# *Difficulty 3 of 5 · 30 minutes · goal: 2(N − 1) messages a rank, all to one neighbour, each of 1/N of the tensor (rounded up)*
#
# The ring of the lesson works only if N divides the length. Yours takes any: 9 numbers on 4 ranks, or 3. How long are the pieces
# then, and how long is the one that a neighbour sends? (`torch.tensor_split` is worth a look. So is the difference to `torch.chunk`.)


# %%
def ring_all_reduce(tensor: torch.Tensor) -> None:
    """Replace the tensor on every rank by the sum over all ranks. Called on all ranks.

    Args:
        tensor: Numbers of shape `[n]`, the same n and type on all ranks; changed in place. Any n,
            any number of ranks from 1.
    """
    # BEGIN SOLUTION
    rank, ranks = dist.get_rank(), dist.get_world_size()
    right, left = (rank + 1) % ranks, (rank - 1) % ranks
    pieces = tensor.tensor_split(ranks)  # views: what is done to them is done to the tensor
    for step in range(2 * (ranks - 1)):
        out, into = pieces[(rank - step) % ranks], pieces[(rank - step - 1) % ranks]
        room = torch.empty_like(into)
        sending = dist.isend(out, dst=right)
        dist.recv(room, src=left)
        sending.wait()
        if step < ranks - 1:
            into += room
        else:
            into.copy_(room)
    # END SOLUTION


# %%
check.ring_all_reduce(ring_all_reduce)

# %% [markdown] tags=["solution"]
# Both halves in one loop: here the piece finished at rank r is number r + 1, and it is the first that the second half sends. A piece
# may even be empty, if there are fewer numbers than ranks; the message then carries nothing, and nobody waits for ever.

# %% [markdown]
# ## 4.2 · A tree broadcast
#
# *Difficulty 3 of 5 · 25 minutes · goal: the source sends ⌈log₂ N⌉ messages, every other rank receives exactly one*
#
# One rank knows, all must know, and whoever knows already can help: after round 1 there are two ranks that know, after round 2
# four. The number of ranks need not be a power of two, and any rank may be the source. (Write it for source 0 first. Then ask which
# *place* a rank has, counted from the source.)


# %%
def tree_broadcast(tensor: torch.Tensor, src: int) -> None:
    """Overwrite the tensor on every rank with that of rank src. Called on all ranks.

    Args:
        tensor: The numbers to send on rank src; on the others, room for them.
        src: The rank whose numbers all are to have.
    """
    # BEGIN SOLUTION
    ranks = dist.get_world_size()
    place, known = (dist.get_rank() - src) % ranks, 1
    while known < ranks:
        if place < known and place + known < ranks:
            dist.send(tensor, dst=(place + known + src) % ranks)
        elif known <= place < 2 * known:
            dist.recv(tensor, src=(place - known + src) % ranks)
        known *= 2
    # END SOLUTION


# %%
check.tree_broadcast(tree_broadcast)

# %% [markdown]
# ## 4.3 · Choose by size
#
# *Difficulty 2 of 5 · 20 minutes · goal: the cheapest of three, and the size from which it is the ring*
#
# Each message of n bytes costs α + β · n seconds, and every pair of ranks has a link of its own. The lesson has the three formulas.
# First pick the cheapest for a given size. Then solve for the size: from how many bytes on is the ring cheaper than the tree? (Up to 3
# ranks there is no such point: why?)


# %%
def cheapest(alpha: float, beta: float, nbytes: int, ranks: int) -> str:
    """The algorithm that takes the least time for an all-reduce.

    Args:
        alpha: Seconds a message.
        beta: Seconds a byte.
        nbytes: Size of the tensor, in bytes; may be 0.
        ranks: Number of ranks, from 1.

    Returns:
        `"naive"`, `"tree"` or `"ring"`; the first of them, in this order, if some cost the same.
    """
    # BEGIN SOLUTION
    whole = alpha + beta * nbytes
    seconds = {
        "naive": 2 * (ranks - 1) * whole,
        "tree": 2 * math.ceil(math.log2(ranks)) * whole,
        "ring": 2 * (ranks - 1) * (alpha + beta * nbytes / ranks),
    }
    return min(seconds, key=seconds.get)
    # END SOLUTION


# %%
def crossing(alpha: float, beta: float, ranks: int) -> float:
    """The size at which ring and tree cost the same; above it, the ring is cheaper.

    Args:
        alpha: Seconds a message.
        beta: Seconds a byte, more than 0.
        ranks: Number of ranks, from 2.

    Returns:
        Bytes; 0.0 where the ring has no more steps than the tree.
    """
    # BEGIN SOLUTION
    levels = math.ceil(math.log2(ranks))
    return alpha * (ranks - 1 - levels) / (beta * (levels - (ranks - 1) / ranks))
    # END SOLUTION


# %%
check.choose_by_size(cheapest, crossing)

# %% [markdown] tags=["solution"]
# With 2 or 3 ranks the ring takes as many steps as the tree, with smaller pieces: it is never worse. The more ranks, the more steps the ring
# has, and the longer a tensor must be before it pays. That is one reason why gradients are joined before they are summed.
