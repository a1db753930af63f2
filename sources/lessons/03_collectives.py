# %% [markdown]
# # Collectives: all ranks at once
#
# **You will learn**
# - the eight collectives, what each of them moves, and which one a task needs;
# - to let a collective run while a rank computes, and why many small ones are slow;
# - the three ways to get collectives wrong, one of which gives no error at all.
#
# *About 35 minutes. Runs on any machine: 2 to 4 processes, Gloo on the CPU.*

# %% tags=["parameters"]
start_method: str = "auto"  # how launch starts ranks: "auto", "forkserver" or "spawn"
timeout: int = 4  # seconds a stuck launch may last in this lesson

# %%
import textwrap
import time
import warnings
from datetime import timedelta

import pandas as pd
import torch
import torch.distributed as dist

from course_lib import RankError, launch, matches, process_group, summary, trace
from course_lib.plots import bars, before_after, lanes, many_before_after, show, what_moved

options = {"start_method": start_method, "device": "cpu"}

# %% [markdown]
# ## One call instead of a ring
#
# In lesson 02 four ranks added up their numbers by hand: a ring, three rounds, offers and waits. Training needs that sum
# in every step, so there is a call for it, which *all* ranks make: a **collective**. Here it is, with the same numbers.
# **How many messages will `trace` count?**


# %%
def add_up():
    with process_group() as pg, trace() as mine:
        number = torch.tensor([pg.rank + 1.0])
        dist.all_reduce(number)
    return number.item(), mine


sums, traces = zip(*launch(add_up, nprocs=4, **options), strict=True)
print("sums:", sums)
summary(traces)[["messages sent", "collectives", "bytes in collectives"]]

# %% [markdown]
# The same 10 everywhere, and no message of yours: each rank put in one number of 4 bytes. Messages did travel, but which
# rank sent what to whom is now the library's affair.
#
# ## A stage for the others
#
# To see what a collective does, give every rank numbers that tell where they come from: the tens say the rank, the ones
# the place. Rank 2 holds 20, 21, 22, 23. This helper runs a collective on four ranks and draws what they held before and after.

# %%
seen = {}


def on_every_rank(collective, numbers, only):
    with process_group() as pg:
        mine = 10.0 * pg.rank + torch.arange(numbers) if only in (None, pg.rank) else None
        before = None if mine is None else mine.clone()
        return before, collective(mine)


def show_it(collective, numbers=4, only=None):
    ranks = launch(on_every_rank, collective, numbers, only, nprocs=4, **options)
    before, after = zip(*ranks, strict=True)
    name, found = collective.__name__, what_moved(before, after)
    seen[name] = (before, after)
    show(before_after(before, after, f"{name}: {found}"), alt=f"Before and after {name}: {found}")


# %% [markdown]
# ## From one to all
#
# One rank knows something that all must know: the initial weights, the best trial. It **broadcasts** its tensor. The
# others bring a tensor of the same shape and type. `src` is the rank that speaks, and all ranks name the same one.
# **What becomes of the numbers that rank 3 had?**


# %%
def broadcast(mine):
    dist.broadcast(mine, src=2)
    return mine


show_it(broadcast)

# %% [markdown]
# They are gone: a broadcast overwrites. Colours follow the numbers, so green means "was rank 2's".
#
# Sometimes each rank is to get only a part. Then the source cuts its data into as many pieces as there are ranks and
# **scatters** them. Only the source has a list to give; all bring room for one piece.


# %%
def scatter(mine):
    piece = torch.empty(1)
    dist.scatter(piece, list(mine.split(1)) if dist.get_rank() == 2 else None, src=2)
    return piece


show_it(scatter, only=2)

# %% [markdown]
# ## From all to one
#
# The way back is `gather`: every rank gives a piece, and one rank, `dst`, collects them in rank order. It is the one that brings a
# list with room for all. Use it when one rank writes the file or draws the picture.


# %%
def gather(mine):
    room = [torch.empty(1) for _ in range(4)] if dist.get_rank() == 2 else None
    dist.gather(mine, room, dst=2)
    return torch.cat(room) if room else None


show_it(gather, numbers=1)

# %% [markdown]
# Often nobody wants the pieces, only their sum. `reduce` adds them up, place by place, on the way to `dst`. Grey numbers
# lay on no rank before. The other ranks lend their tensors to the calculation. **What do they find in them afterwards?**


# %%
def reduce(mine):
    dist.reduce(mine, dst=2)
    if dist.get_rank() != 2:
        print("left in my tensor:", mine.tolist())
        return None
    return mine


show_it(reduce)

# %% [markdown]
# Rank 2 holds the sums, 60 = 0 + 10 + 20 + 30 and so on. The others are left with numbers of no use, partial sums
# that came by. After a `reduce`, look at your tensor on `dst` only.
#
# ## From all to all
#
# `all_gather` is a gather after which everybody has everything. It comes in two forms: into a list of tensors, or into one
# tensor that is as long as all together. Both give the same; the cell makes sure.


# %%
def all_gather(mine):
    room, in_one = [torch.empty(1) for _ in range(4)], torch.empty(4)
    dist.all_gather(room, mine)
    dist.all_gather_into_tensor(in_one, mine)
    assert torch.equal(torch.cat(room), in_one)
    return in_one


show_it(all_gather, numbers=1)

# %% [markdown]
# `all_reduce` is a reduce after which everybody has the result: the workhorse of this course, which averages gradients. It
# can do more than add. **Rank 0 holds 1, rank 1 holds 2, and so on: what are the five results?**


# %%
def all_reduce(mine):
    dist.all_reduce(mine)
    return mine


def with_each_operation():
    with process_group() as pg:
        results = {name: torch.tensor(pg.rank + 1.0) for name in operations}
        for name, number in results.items():
            dist.all_reduce(number, op=getattr(dist.ReduceOp, name))
    return {name: number.item() for name, number in results.items()}


operations = ("SUM", "AVG", "MIN", "MAX", "PRODUCT")
show_it(all_reduce)
ranks = launch(with_each_operation, nprocs=4, **options)
pd.DataFrame(ranks, index=[f"rank {r}" for r in range(4)])

# %% [markdown]
# With `MAX` ranks agree on the slowest time, with `MIN` on whether *all* are done. `AVG` divides by the number of ranks, and
# by nothing else: where ranks hold unequal numbers of rows, it is not the mean of the rows (exercise 3.4).
#
# **What if each rank needs only its own part of the sum?** That is `reduce_scatter`:


# %%
def reduce_scatter(mine):
    part, same = torch.empty(1), torch.empty(1)
    dist.reduce_scatter(part, list(mine.split(1)))
    dist.reduce_scatter_tensor(same, mine)
    assert torch.equal(part, same)
    return part


show_it(reduce_scatter)

# %% [markdown]
# Rank r keeps the sum of everybody's piece number r. Compare the grey column with the grey block that `all_reduce` left.
# What is missing is a step you know already. **Which one?**


# %%
def in_two_steps(mine):
    part, whole = torch.empty(1), torch.empty(4)
    dist.reduce_scatter_tensor(part, mine)
    dist.all_gather_into_tensor(whole, part)
    return whole


show_it(in_two_steps)
_, after = seen.pop("in_two_steps")
print("as all_reduce:", all(map(torch.equal, after, seen["all_reduce"][1])))

# %% [markdown]
# **all_reduce = reduce_scatter + all_gather.** Lesson 04 builds a fast all_reduce from this line, and sharded training
# (lesson 71) stops half-way, because a rank then needs to store only a part.
#
# The last of the eight: every rank has a piece *for each other rank*, as when rows are to be sorted to the rank that owns them.


# %%
def all_to_all(mine):
    room, in_one = [torch.empty(1) for _ in range(4)], torch.empty(4)
    dist.all_to_all(room, list(mine.split(1)))
    dist.all_to_all_single(in_one, mine)
    assert torch.equal(torch.cat(room), in_one)
    return in_one


show_it(all_to_all)

# %% [markdown]
# Rank 1 holds 1, 11, 21, 31: the pieces number 1 of all. Rows have become columns, and nothing was added up.
#
# ## Which one do I need?
#
# Ask two questions: who has it before, and who needs it after? Then look for that pair of pictures:

# %%
title = f"{len(seen)} collectives on 4 ranks, each drawn from its run above"
alt = ". ".join(f"After {name} {what_moved(*grids)}" for name, grids in seen.items())
show(many_before_after(seen, title), alt=alt)

# %% [markdown]
# ## Anything that can be pickled
#
# A collective moves tensors, and all ranks must know their shape beforehand. For settings, names and scores there are variants that
# take any Python object. They pickle it, send the size, then the bytes. **What does a single number cost as an
# object, and as a tensor?**


# %%
def with_objects():
    with process_group() as pg, trace() as mine:
        scores, settings, share = [None] * 4, [{"rate": 0.1} if pg.rank == 0 else None], [None]
        dist.all_gather_object(scores, 0.5 + pg.rank)
        dist.broadcast_object_list(settings, src=0)
        dist.scatter_object_list(share, ["a", "b", "c", "d"] if pg.rank == 0 else None, src=0)
        dist.gather_object(share[0], [None] * 4 if pg.rank == 0 else None, dst=0)
        dist.all_gather([torch.empty(()) for _ in range(4)], torch.tensor(0.5 + pg.rank))
    return (scores, settings[0], share[0]), mine


results, traces = zip(*launch(with_objects, nprocs=4, **options), strict=True)
print("rank 3 has", results[3])
matches(traces)[["what", "bytes", "took, ms"]].round(1)

# %% [markdown]
# The bytes are what one rank put in. An object is handy now and then and dear in a loop. And whoever unpickles runs what the sender wrote: use
# these among ranks you trust, which yours are.
#
# ## Nobody goes on before all are here
#
# A `barrier` moves nothing. It returns when the last rank has called it. Below, rank r comes r times 40 milliseconds late.
# **Who waits longest?**


# %%
def meet():
    with process_group() as pg:
        dist.barrier()
        with trace() as mine:
            time.sleep(0.04 * pg.rank)
            dist.barrier()
        return mine


traces = launch(meet, nprocs=4, **options)
waits = summary(traces)["waiting, ms"]
title = f"All go on together: rank 0 has waited {waits['rank 0']:.0f} ms, "
title += f"rank 3 {waits['rank 3']:.0f} ms"
show(lanes(traces, title), alt=f"Four lanes, each later at the barrier than the last. {title}")

# %% [markdown]
# Every collective in which all need something from all waits like this, so a barrier beside one is rarely needed.
#
# If a rank never comes, a barrier waits on and on. `monitored_barrier` (Gloo only) takes a time limit and, better, keeps
# count: rank 0 asks everyone. **Here rank 2 stays away.**


# %%
def roll_call():
    with process_group() as pg:
        if pg.rank == 2:
            return "I was never there"
        try:
            dist.monitored_barrier(timeout=timedelta(seconds=1), wait_all_ranks=True)
        except RuntimeError as error:
            return str(error).splitlines()[0]


launch(roll_call, nprocs=4, **options)[0]

# %% [markdown]
# Rank 0 names the missing rank, and the others are told to ask rank 0. Keep it for hunting a hang.
#
# ## Call, compute, come back
#
# With `async_op=True` a collective returns a handle at once, as `isend` did. The rank computes something that does not need the
# result, then waits. **How does the time compare with waiting first?**


# %%
def overlap(wait_first):
    with process_group():
        big, square = torch.ones(8_000_000), torch.ones(700, 700)
        dist.barrier()
        with trace() as mine:
            work = dist.all_reduce(big, async_op=True)
            if wait_first:
                work.wait()
            for _ in range(4):
                square @ square
            work.wait()
        return mine


traces = {first: launch(overlap, first, nprocs=2, **options) for first in (True, False)}
first, later = (1e3 * max(t.end - t.begin for t in traces[k]) for k in (True, False))
title = f"Computing under a running all_reduce: {later:.0f} ms; waiting first took {first:.0f} ms"
show(lanes(traces[False], title), alt=f"Two lanes; a line over each while it computes. {title}")

# %% [markdown]
# The thin line is the collective on its way; grey below it is work done meanwhile. Here sum and computation want the same cores, so the gain
# may be small, or none; between machines and GPUs, other hardware moves the bytes. DDP hides its communication just so.
#
# ## Many small ones
#
# A network has hundreds of small tensors. **100 of 1,000 numbers: one all_reduce each, all offered at once, handed
# over together (coalesced), or joined into one tensor. Which is fastest?**


# %%
def time_of(way):
    with process_group():
        small = [torch.ones(1000) for _ in range(100)]
        warnings.simplefilter("ignore", FutureWarning)  # all_reduce_coalesced may get a new name
        dist.barrier()
        begin = time.perf_counter()
        if way == "one by one":
            [dist.all_reduce(tensor) for tensor in small]
        elif way == "all offered, then wait":
            [work.wait() for work in [dist.all_reduce(t, async_op=True) for t in small]]
        elif way == "coalesced":
            dist.all_reduce_coalesced(small)
        else:
            dist.all_reduce(torch.cat(small))
        return 1e3 * (time.perf_counter() - begin)


ways = ("one by one", "all offered, then wait", "coalesced", "joined")
cost = {way: min(max(launch(time_of, way, nprocs=2, **options)) for _ in range(3)) for way in ways}
title = f"Joined into one tensor, the sum is there {cost['one by one'] / cost['joined']:.0f} times sooner"
axis = "100 sums of 1,000 numbers, 2 ranks (ms, less is better)"
show(bars(cost, title, axis, ylabel="way"), alt=f"Milliseconds for each way: {cost}")

# %% [markdown]
# What costs is the call, not the bytes. DDP joins gradients into **buckets** for this reason, and lesson 04 turns the
# observation into a formula.
#
# ## Three ways to get it wrong
#
# One rule stands behind all collectives: **all ranks call the same ones, in the same order, with matching shapes.** First, shapes
# that differ. With `debug=True` torch compares what the ranks are about to do. **What happens without it?**


# %%
def of_unequal_length():
    with process_group() as pg:
        mine = torch.ones(2000 if pg.rank == 1 else 1000)
        try:
            dist.all_reduce(mine)
        except RuntimeError as error:
            return str(error)


try:
    launch(of_unequal_length, nprocs=2, **options)
except RankError as error:
    print(error)
print("\nWith debug=True rank 0 learns:")
print(textwrap.fill(launch(of_unequal_length, nprocs=2, debug=True, **options)[0], 100))

# %% [markdown]
# Without it, a process dies in the middle of C++. With it, the message names both ranks, the operation and the two shapes. So switch it on
# whenever you write collectives by hand. The cure is to agree on a shape first: find the greatest length, and fill up to it with
# numbers that do no harm.


# %%
def in_agreed_length():
    with process_group() as pg:
        mine = torch.ones(2000 if pg.rank == 1 else 1000)
        longest = torch.tensor(len(mine))
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        mine = torch.nn.functional.pad(mine, (0, longest.item() - len(mine)))
        dist.all_reduce(mine)
        return mine[0].item(), mine[-1].item()


launch(in_agreed_length, nprocs=2, debug=True, **options)

# %% [markdown]
# Two ranks have a number in the first place, one in the last, and the sums say so.
#
# **Second, a rank that does not call.** Rank 2 happens to have no rows, and the author meant to save it the trouble:


# %%
def count_rows(everyone_calls):
    with process_group() as pg:
        rows = torch.ones(0 if pg.rank == 2 else 5)
        total = torch.tensor([len(rows)])
        if everyone_calls or len(rows) > 0:
            dist.all_reduce(total)
        dist.barrier()
        return total.item()


try:
    launch(count_rows, False, nprocs=4, timeout=timeout, **options)
except RankError as error:
    print(error)
print("mended:", launch(count_rows, True, nprocs=4, **options))

# %% [markdown]
# Read the report by *who is not where the others are*: three ranks wait in `all_reduce`, and rank 2, already at the barrier, will never
# come. The cure: no collective under an `if` that ranks may answer differently. Who has nothing adds zero.
#
# **Third, the wrong order.** Each rank sums up its losses and its counts, from a dict. Rank 1's dict was filled in another order.
# The shapes agree. **What will `debug=True` say?**


# %%
def mean_loss(in_order):
    with process_group() as pg:
        sums = {"loss": torch.tensor(6.0 + 2 * pg.rank), "rows": torch.tensor(4.0)}
        if pg.rank == 1:
            sums = {"rows": sums["rows"], "loss": sums["loss"]}
        for name in sorted(sums) if in_order else sums:
            dist.all_reduce(sums[name])
        return (sums["loss"] / sums["rows"]).item()


print("by rank: ", launch(mean_loss, False, nprocs=4, debug=True, **options))
print("in order:", launch(mean_loss, True, nprocs=4, debug=True, **options))

# %% [markdown]
# Nothing. Rank 1's rows were added to the others' losses, every number is wrong, and no check can know, for to torch both are one
# number. A set, a dict or a folder's listing may be in another order on another rank: sort before you loop. And test a
# parallel function against the sum done on one process.
#
# **Exercises:** [`exercises/03_collectives.ipynb`](../exercises/03_collectives.ipynb). You will build three collectives from messages, counting them, and an exact mean from one.
#
# ## Take-away
#
# > Choose a collective by two questions: who has it before, who needs it after. All ranks call the same ones, in the
# > same order, with matching shapes; a shape that differs is reported, a rank that stays away is waited for, and a swapped
# > order is silently wrong. A few large calls beat many small ones.
#
# **To go further**
# - [Collective functions](https://docs.pytorch.org/docs/stable/distributed.html#collective-functions): all of them, and
#   the debug levels.
# - [NCCL: collective operations](https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/usage/collectives.html): the
#   same pictures for GPUs.
# - Next: lesson 04, in which you build all_reduce yourself, three times.
