# %% [markdown]
# # Exercises for lesson 03: collectives
#
# Complete each function, run its cell, then run the check below it. The checks call your functions on 2, 3 and 4 ranks, look at
# the result, and count what was sent. In the first three you build collectives yourself: only `send`, `recv`, `isend` and
# `irecv` may be used.

# %%
import torch
import torch.distributed as dist

from course_lib.checks import lesson_03 as check

# %% [markdown]
# ## 3.1 · Broadcast from messages
#
# *Difficulty 1 of 5 · 10 minutes · goal: N − 1 messages for N ranks*
#
# Every rank brings a tensor of the same shape and type. After the call all hold the numbers of rank `src`, which may be any
# rank. Who has to listen, and how often?


# %%
def my_broadcast(tensor: torch.Tensor, src: int) -> None:
    """Overwrite the tensor on every rank with that of rank src. Called on all ranks.

    Args:
        tensor: The numbers to send on rank src; on the others, room for them.
        src: The rank whose numbers all are to have.
    """
    # BEGIN SOLUTION
    if dist.get_rank() != src:
        dist.recv(tensor, src=src)
        return
    for rank in range(dist.get_world_size()):
        if rank != src:
            dist.send(tensor, dst=rank)
    # END SOLUTION


# %%
check.my_broadcast(my_broadcast)

# %% [markdown] tags=["solution"]
# With this one the source sends all N − 1 messages, one after the other. Whoever has the numbers could pass them on: then the
# number of messages stays, but they travel at the same time. Lesson 04 follows that thought.

# %% [markdown]
# ## 3.2 · Scatter and gather from messages
#
# *Difficulty 2 of 5 · 15 minutes · goal: N − 1 messages each; a rank's own piece does not travel*
#
# Two functions that undo each other. Mind what a rank must not do: send a message to itself. And mind the order: pieces are
# numbered by rank, whoever comes first.


# %%
def my_scatter(room: torch.Tensor, pieces: list[torch.Tensor] | None, src: int) -> None:
    """Give every rank its piece. Called on all ranks.

    Args:
        room: Where this rank's piece is to be put, on rank src as well.
        pieces: On rank src one tensor for each rank, in rank order; None on the others.
        src: The rank that has the pieces.
    """
    # BEGIN SOLUTION
    if dist.get_rank() != src:
        dist.recv(room, src=src)
        return
    for rank, piece in enumerate(pieces):
        if rank == src:
            room.copy_(piece)
        else:
            dist.send(piece, dst=rank)
    # END SOLUTION


# %%
def my_gather(tensor: torch.Tensor, dst: int) -> list[torch.Tensor] | None:
    """Collect the tensors of all ranks on one. Called on all ranks.

    Args:
        tensor: This rank's tensor, the same shape and type everywhere.
        dst: The rank that collects.

    Returns:
        On rank dst the tensors of all ranks, in rank order; None on the others.
    """
    # BEGIN SOLUTION
    if dist.get_rank() != dst:
        dist.send(tensor, dst=dst)
        return None
    pieces = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    for rank, piece in enumerate(pieces):
        if rank == dst:
            piece.copy_(tensor)
        else:
            dist.recv(piece, src=rank)
    return pieces
    # END SOLUTION


# %%
check.scatter_and_gather(my_scatter, my_gather)

# %% [markdown]
# ## 3.3 · All-gather on a ring
#
# *Difficulty 3 of 5 · 20 minutes · goal: N − 1 messages a rank, each of one piece, and to the right neighbour only*
#
# Nobody speaks to anyone but its neighbours: a rank sends to `rank + 1` and receives from `rank - 1`, and the last one's right
# neighbour is rank 0. In each round every rank passes on the piece that it got in the round before. Whose piece is it that
# arrives in round 1, in round 2? (And remember who has to listen while everybody speaks.)


# %%
def ring_all_gather(mine: torch.Tensor) -> torch.Tensor:
    """Collect the tensors of all ranks on all ranks, around a ring. Called on all ranks.

    Args:
        mine: This rank's tensor, the same shape and type everywhere. It must not be changed.

    Returns:
        A tensor with one dimension more, `[ranks, *mine.shape]`: entry r is that of rank r.
    """
    # BEGIN SOLUTION
    rank, ranks = dist.get_rank(), dist.get_world_size()
    everything = torch.empty(ranks, *mine.shape, dtype=mine.dtype)
    everything[rank] = mine
    for step in range(ranks - 1):
        sending = dist.isend(everything[(rank - step) % ranks], dst=(rank + 1) % ranks)
        dist.recv(everything[(rank - step - 1) % ranks], src=(rank - 1) % ranks)
        sending.wait()
    return everything
    # END SOLUTION


# %%
check.ring_all_gather(ring_all_gather)

# %% [markdown]
# ## 3.4 · The mean of all rows
#
# *Difficulty 2 of 5 · 10 minutes · goal: one `all_reduce` of two numbers*
#
# Each rank holds some of the rows, and not equally many; a rank may even have none. The mean of the ranks' means is wrong then,
# and so is `ReduceOp.AVG` of them. What does a rank need to know of the others' rows to compute the mean of all? Here collectives are
# allowed, but one call has to do.


# %%
def mean_of_all_rows(rows: torch.Tensor) -> float:
    """The mean over the rows of all ranks together. Called on all ranks.

    Args:
        rows: This rank's numbers, float32 of shape `[n]`; n differs from rank to rank and may be
            0, but not on all.

    Returns:
        The mean, the same plain float on every rank.
    """
    # BEGIN SOLUTION
    total = torch.tensor([rows.double().sum(), len(rows)], dtype=torch.float64)
    dist.all_reduce(total)
    return (total[0] / total[1]).item()
    # END SOLUTION


# %%
check.mean_of_all_rows(mean_of_all_rows)

# %% [markdown] tags=["solution"]
# Sums and counts can be added up over ranks; means cannot. This pair of numbers is behind every exact metric of the course: the accuracy
# of uneven shards, the RMSE in dollars, the loss over tokens.
