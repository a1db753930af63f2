# %% [markdown]
# # Exercises for lesson 02: point to point
#
# Complete each function, run its cell, then run the check below it. The checks look at what comes out *and* at the
# messages: who sent how many to whom.
#
# In all three, the group is joined already when your function runs, and left for you afterwards. So there is no
# `process_group()` to write: `dist.get_rank()` and `dist.get_world_size()` say where you are.

# %%
import torch
import torch.distributed as dist

from course_lib import launch, process_group
from course_lib.checks import lesson_02 as check

# %% [markdown]
# ## 2.1 · Ping-pong
#
# *Difficulty 2 of 5 · 10 minutes · goal: exactly `rounds` messages each way*
#
# A number goes back and forth between rank 0 and rank 1, and each of them **adds one before it sends**. Only rank 0 knows
# the number it begins with. A round is one message there and one back. There may be more ranks than two: they watch,
# and must not wait for anything.


# %%
def ping_pong(rounds: int, start: int | None) -> float | None:
    """Send a number back and forth between rank 0 and rank 1. Called inside a process group.

    Args:
        rounds: How often it goes there and back, at least 1.
        start: On rank 0 the number to begin with, on all other ranks None.

    Returns:
        The number after the last round, on ranks 0 and 1; None on all other ranks.
    """
    # BEGIN SOLUTION
    rank = dist.get_rank()
    if rank > 1:
        return None
    ball = torch.tensor([start or 0])
    for _ in range(rounds):
        if rank == 0:
            ball += 1
            dist.send(ball, dst=1)
            dist.recv(ball, src=1)
        else:
            dist.recv(ball, src=0)
            ball += 1
            dist.send(ball, dst=0)
    return ball.item()
    # END SOLUTION


# %%
check.ping_pong(ping_pong)

# %% [markdown]
# ## 2.2 · Speak in order
#
# *Difficulty 2 of 5 · 10 minutes · goal: N − 1 messages in all for N ranks*
#
# Ranks print when they get there, so their lines come in any order. Make them speak in turn: rank 0, then rank 1, and so
# on. Each calls `say()` once, but only when the rank before it has. No barrier and no sleep: messages carry the word from
# rank to rank, and what is in them does not matter.


# %%
def speak_in_order(say) -> None:
    """Call `say()` once on every rank, in rank order. Called inside a process group.

    Args:
        say: A function without arguments; think of `print`.
    """
    # BEGIN SOLUTION
    rank, world_size = dist.get_rank(), dist.get_world_size()
    word = torch.zeros(1)
    if rank > 0:
        dist.recv(word, src=rank - 1)
    say()
    if rank < world_size - 1:
        dist.send(word, dst=rank + 1)
    # END SOLUTION


# %%
check.speak_in_order(speak_in_order)

# %% [markdown]
# ## 2.3 · Mend the ring
#
# *Difficulty 3 of 5 · 20 minutes · goal: each rank sends exactly one message a round*
#
# Every rank holds a token. In each round it passes its token to the next rank and takes the one from the rank before;
# the last rank's goes to rank 0. The first attempt below hangs. Run it, and look where each rank stands:


# %% tags=["raises-exception"]
def hanging_ring(token: torch.Tensor, rounds: int) -> torch.Tensor:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    for _ in range(rounds):
        arrived = torch.empty_like(token)
        dist.send(token, dst=(rank + 1) % world_size)
        dist.recv(arrived, src=(rank - 1) % world_size)
        token = arrived
    return token


def four_tokens():
    with process_group() as pg:
        return hanging_ring(torch.tensor([pg.rank]), rounds=1)


launch(four_tokens, nprocs=4, timeout=4, device="cpu")

# %% [markdown]
# Mend it with `send` and `recv` only, without `isend`, `irecv` or a collective. It is to work for any number of ranks
# (odd numbers, and a single rank, which keeps its token) and for tokens of any shape and type. Draw it first: for 4 ranks,
# who sends and who listens in the first moment? Then for 3.


# %%
def pass_on(token: torch.Tensor, rounds: int) -> torch.Tensor:
    """Pass a token around the ring. Called inside a process group.

    Args:
        token: This rank's token; on all ranks of the same shape and type.
        rounds: How many places every token moves on, at least 1.

    Returns:
        The token that this rank holds in the end.
    """
    # BEGIN SOLUTION
    rank, world_size = dist.get_rank(), dist.get_world_size()
    if world_size == 1:
        return token
    to, source = (rank + 1) % world_size, (rank - 1) % world_size
    for _ in range(rounds):
        arrived = torch.empty_like(token)
        if rank % 2 == 0:
            dist.send(token, dst=to)
            dist.recv(arrived, src=source)
        else:
            dist.recv(arrived, src=source)
            dist.send(token, dst=to)
        token = arrived
    return token
    # END SOLUTION


# %%
check.pass_on(pass_on)

# %% [markdown] tags=["solution"]
# Even ranks speak first, odd ranks listen first. With an even number of ranks everybody is in a pair at once, and a round
# takes two steps. With an odd number two neighbours, the last rank and rank 0, both begin with `send`: the last one has to
# wait until rank 0 is done with its own, and the round takes three steps. It hangs only if *nobody* listens, so one
# single rank that begins with `recv` would be enough; but then the messages go one after the other, all around the ring.
