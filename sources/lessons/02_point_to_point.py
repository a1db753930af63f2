# %% [markdown]
# # Point to point: two ranks talk
#
# **You will learn**
# - to move a tensor from one rank to another with `send` and `recv`;
# - why two correct-looking lines can wait for each other forever, and how to see it;
# - how `isend` and `irecv` let a rank offer a message and go on, and what `wait` is for.
#
# *About 25 minutes. Runs on any machine: 2 to 4 processes, Gloo on the CPU.*

# %% tags=["parameters"]
start_method: str = "auto"  # how launch starts ranks: "auto", "forkserver" or "spawn"
timeout: int = 5  # seconds a stuck launch may last in this lesson

# %%
import time

import torch
import torch.distributed as dist

from course_lib import launch, matches, process_group, summary, trace
from course_lib.plots import lanes, show

options = {"start_method": start_method, "device": "cpu"}

# %% [markdown]
# ## One number, from rank 0 to rank 1
#
# Ranks share no memory. What one of them knows, another learns only by **message**. The simplest message has one sender
# and one receiver: rank 0 calls `send`, rank 1 calls `recv`. The receiver brings the room for what comes, a tensor of
# the same shape and type, and `recv` fills it.


# %%
def tell() -> float:
    with process_group() as pg:
        number = torch.zeros(1)
        if pg.rank == 0:
            number += 42
            dist.send(number, dst=1)
        else:
            dist.recv(number, src=0)
        return number.item()


launch(tell, nprocs=2, **options)

# %% [markdown]
# Both ranks ran the same function; only `if pg.rank == 0` made them differ. This is how every program of this course is
# written: **one program, many ranks**, told apart by their number.
#
# ## Who waits for whom?
#
# Rank 0 now dawdles for 50 milliseconds before it sends, and rank 1 is in no hurry to receive a second message. Inside
# `trace()`, every rank notes what it sends and receives, and when. **When does a `recv` return? And a `send`?**


# %%
def dawdle(numbers: int):
    with process_group() as pg:
        data = torch.ones(numbers)
        dist.barrier()  # all begin together
        with trace() as mine:
            if pg.rank == 0:
                time.sleep(0.05)
                dist.send(data, dst=1)
                dist.send(data, dst=1)
            else:
                dist.recv(data, src=0)
                time.sleep(0.05)
                dist.recv(data, src=0)
        return mine


traces = launch(dawdle, 1_000_000, nprocs=2, **options)

# %%
waits = summary(traces)["waiting, ms"]
to_get, to_give = waits["rank 1"], waits["rank 0"]
title = f"Rank 1 waits {to_get:.0f} ms for a message, rank 0 {to_give:.0f} ms to be rid of one"
show(lanes(traces, title), alt=f"Two lanes with two messages from rank 0 to rank 1. {title}")

# %% [markdown]
# Time runs to the right; a hatched stretch is a rank that waits for another. The first message makes rank 1 wait:
# `recv` returns when the data are there. The second makes rank 0 wait: `send` returns when the other side *takes* the
# message. So a message is a **handshake**, and whoever comes first waits.
#
# ## Everybody speaks first
#
# Two ranks want to swap a number. Each sends its own, then receives the other's. Read the function as rank 0,
# then as rank 1. **Before you run the next cell, decide: what will the two ranks return?**


# %% tags=["raises-exception"]
def swap() -> float:
    with process_group() as pg:
        mine, theirs = torch.tensor([float(pg.rank)]), torch.empty(1)
        other = 1 - pg.rank
        dist.send(mine, dst=other)
        dist.recv(theirs, src=other)
        return theirs.item()


launch(swap, nprocs=2, timeout=timeout, **options)

# %% [markdown]
# They return nothing. Each stands in its `send` and waits for a `recv` that comes one line later, in a rank that is
# itself standing in `send`. This is a **deadlock**: no error, no output, no end. `launch` gave up after `timeout` seconds
# without a sign of life and tells where each rank stood. Both in the same line, `send`: that is the
# signature to remember.
#
# ## Somebody has to listen
#
# The cure is an order in which somebody listens. Let rank 0 speak first and rank 1 listen first:


# %%
def swap_in_order(numbers: int = 1_000_000):
    with process_group() as pg:
        mine, theirs = torch.full((numbers,), float(pg.rank)), torch.empty(numbers)
        other = 1 - pg.rank
        dist.barrier()
        with trace() as talk:
            if pg.rank == 0:
                dist.send(mine, dst=other)
                dist.recv(theirs, src=other)
            else:
                dist.recv(theirs, src=other)
                dist.send(mine, dst=other)
        assert theirs.eq(other).all()
        return talk


one_by_one = launch(swap_in_order, nprocs=2, **options)
matches(one_by_one).round(2)

# %% [markdown]
# The table says what met: each `send` with the `recv` it filled, the bytes (a million numbers of four bytes), and how
# long it took from the first call to the last return. (Rank 0 may be listening already while the end of its own message
# still arrives.) It works, and it has a price: no rank speaks and listens at the same time, although the line between
# the two could carry both messages at once.
#
# ## Offer, go on, come back
#
# `isend` and `irecv` (i for *immediate*) only **offer** a message and return at once, with a handle. Later,
# `handle.wait()` returns when the message is through. Now both ranks can speak and listen at the same time, in the same
# order, with no `if`:


# %%
def swap_at_once(numbers: int = 1_000_000):
    with process_group() as pg:
        mine, theirs = torch.full((numbers,), float(pg.rank)), torch.empty(numbers)
        other = 1 - pg.rank
        dist.barrier()
        with trace() as talk:
            sending = dist.isend(mine, dst=other)
            receiving = dist.irecv(theirs, src=other)
            sending.wait()
            receiving.wait()
        assert theirs.eq(other).all()
        return talk


at_once = launch(swap_at_once, nprocs=2, **options)

# %%
title = "With isend and irecv both messages are on their way together"
show(
    lanes(at_once, title),
    alt="Two lanes; two arrows cross, each from one rank's isend to the other",
)

# %% [markdown]
# The thin lines above the bars are messages on their way, from the offer to the end of the wait. On a network this can
# halve the time of an exchange. On one machine the two messages compete for the same cores and the same memory, so
# measure before you believe it. Each way five times; the middle one counts:


# %%
def five_times(way):
    return [way() for _ in range(5)]


for way in (swap_in_order, swap_at_once):
    pairs = zip(*launch(five_times, way, nprocs=2, **options), strict=True)
    times = sorted(1e3 * max(t.end - t.begin for t in pair) for pair in pairs)
    print(f"{way.__name__:>13}: {times[2]:.1f} ms (from {times[0]:.1f} to {times[-1]:.1f})")

# %% [markdown]
# ## What wait is for
#
# Between the offer and the end of the wait, the tensor belongs to the message. Rank 1 below looks at its tensor before
# the wait and after it, and rank 0 is slow: it sends when rank 1 has had its first look. **What does rank 1 see then?**


# %%
def peek() -> tuple[float, float]:
    with process_group() as pg:
        data = torch.tensor([7.0]) if pg.rank == 0 else torch.zeros(1)
        if pg.rank == 1:
            receiving = dist.irecv(data, src=0)
        early = data.item()
        dist.barrier()  # rank 1 has had its first look
        if pg.rank == 0:
            dist.send(data, dst=1)
        else:
            receiving.wait()
        return early, data.item()


_, (early, late) = launch(peek, nprocs=2, **options)
print(f"before wait: {early}, after wait: {late}")

# %% [markdown]
# Before the wait there is the old number, and no error. Nothing would have warned you: the program would have
# computed on with it. With a quicker sender the message might have been there already, and the bug with it gone. A
# missing `wait()` is the worst kind of bug, one that comes and goes. (The sender has the same duty: a tensor that is
# changed before `sending.wait()` may travel in part old, in part new. And keep the handle: Gloo may forget an offer
# whose handle nobody holds any more.)
#
# ## Messages keep their order
#
# Rank 0 sends three numbers to rank 1. Messages from one rank to another **arrive in the order in which they were sent**;
# they carry no name by which to pick one. A receiver says whom it listens to, and gets that rank's next message.
# **What does rank 1 hold if it receives into `c` first, then `b`, then `a`?**


# %%
def three() -> list[float]:
    with process_group() as pg:
        a, b, c = (torch.tensor([float(n)]) for n in (1, 2, 3))
        if pg.rank == 0:
            for tensor in (a, b, c):
                dist.send(tensor, dst=1)
        else:
            for tensor in (c, b, a):
                dist.recv(tensor, src=0)
        return [a.item(), b.item(), c.item()]


sent, received = launch(three, nprocs=2, **options)
print("a, b, c on rank 0:", sent, " on rank 1:", received)

# %% [markdown]
# They are the other way round, and again nobody complained. (With Gloo, `tag=` puts a number on a
# message, and a `recv` with a tag takes only messages with the same tag. NCCL knows no tags.)
#
# ## Around the ring
#
# With more ranks than two, the same handful of calls makes patterns. In a **ring** every rank sends to the next one
# and receives from the one before. Here each rank passes on what it got until everybody has seen every number, and adds
# up as it goes. **How many messages does each of 4 ranks send?**


# %%
def ring_sum():
    with process_group() as pg:
        to, source = (pg.rank + 1) % pg.world_size, (pg.rank - 1) % pg.world_size
        total, moving = torch.zeros(1), torch.tensor([float(pg.rank + 1)])
        dist.barrier()
        with trace() as mine:
            total += moving
            for _ in range(pg.world_size - 1):
                sending = dist.isend(moving, dst=to)
                arrived = torch.empty(1)
                dist.recv(arrived, src=source)
                sending.wait()
                moving = arrived
                total += moving
        return total.item(), mine


results = launch(ring_sum, nprocs=4, **options)
print("sums:", [total for total, _ in results])

# %%
traces = [mine for _, mine in results]
each = summary(traces)["messages sent"]
title = f"Each of {len(each)} ranks sends {each.iloc[0]:.0f} messages, and all have the same sum"
show(
    lanes(traces, title, names=False),
    alt=f"Four lanes with arrows from each rank to the next. {title}",
)

# %% [markdown]
# Three each: N − 1 for N ranks. Everyone ends with 1 + 2 + 3 + 4 = 10, although nobody ever spoke to more than two
# neighbours. You have just built the simplest *all-reduce*, the operation that averages gradients. Lesson 04
# makes it fast.
#
# **Exercises:** [`exercises/02_point_to_point.ipynb`](../exercises/02_point_to_point.ipynb). You will play ping-pong, print in rank order with nothing but
# messages, and mend a ring that hangs.
#
# ## Take-away
#
# > `send` and `recv` are a handshake: for every message, ask who is listening *at that moment*. If everybody speaks first,
# > everybody waits; let someone listen, or offer with `isend` and `irecv`. And until `wait()` has returned, the tensor is
# > not yours.
#
# **To go further**
# - [Point-to-point communication](https://docs.pytorch.org/docs/stable/distributed.html#point-to-point-communication):
#   the operations, and `batch_isend_irecv` for many at once.
# - William Gropp, Ewing Lusk, Anthony Skjellum: *Using MPI*, MIT Press: where these ideas come from.
# - Next: lesson 03, in which all ranks take part at once.
