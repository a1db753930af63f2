# %% [markdown]
# # Groups, backends and waiting for each other
#
# **You will learn**
# - who carries the bytes, Gloo or NCCL, what each of them can do, and how to find out;
# - to let a part of the ranks work together: sub-groups, and a mesh of rows and columns;
# - who may read what, and when: barriers, races, a forgotten `wait()`, and timeouts.
#
# *About 35 minutes. Runs on any machine: 2 to 4 processes, Gloo on the CPU.*

# %% tags=["parameters"]
start_method: str = "auto"  # how launch starts ranks: "auto", "forkserver" or "spawn"
timeout: int = 4  # seconds a stuck launch may last in this lesson
largest: int = 67_108_864  # bytes of the largest tensor that is timed; at least 16,384

# %%
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from course_lib import RankError, launch, matches, process_group, trace
from course_lib.plots import lines, mesh_map, show

options = {"start_method": start_method, "device": "cpu"}

# %% [markdown]
# ## Who carries the bytes?
#
# `all_reduce` says *what* is to happen. A **backend** does it: a library that knows a kind of memory and the wires
# between. Gloo moves tensors in the CPU's memory, NCCL tensors in NVIDIA GPUs, straight from one to the other. **Which ones
# can the torch on this machine use?**

# %%
carries = {name: dist.Backend.backend_capability[name] for name in ("gloo", "nccl", "mpi")}
print("GPUs here:", torch.cuda.device_count())
pd.DataFrame(
    {name: [dist.is_backend_available(name), ", ".join(carries[name])] for name in carries},
    index=["built in", "made for"],
).T

# %% [markdown]
# Built in is not the same as of use: NCCL wants GPUs, and one for each rank, since it refuses two ranks on one. So `process_group`
# counts, and that is the course's whole rule. **Which backend do you get with 4 ranks on a machine with 2 GPUs?**


# %%
def backend_for(gpus: int, ranks_here: int) -> str:
    return "nccl" if gpus >= ranks_here else "gloo"


def which() -> tuple[str, str]:
    with process_group() as pg:
        return pg.backend, str(pg.device)


print("2 ranks on this machine:", launch(which, nprocs=2, start_method=start_method))
gpus, ranks = (0, 1, 2, 8), (1, 2, 4)
table = [[backend_for(g, n) for g in gpus] for n in ranks]
pd.DataFrame(table, [f"ranks: {n}" for n in ranks], [f"GPUs: {g}" for g in gpus])

# %% [markdown]
# Ask NCCL for something that it cannot do, and it says so: it does not fall back on Gloo. Here two ranks ask it for the sum of
# two tensors in the CPU's memory.


# %%
def with_nccl() -> str:
    try:
        dist.init_process_group("nccl")
        dist.all_reduce(torch.ones(1))
        return "no error"
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]


launch(with_nccl, nprocs=2, start_method=start_method)[0]

# %% [markdown]
# ## What can Gloo do?
#
# Tables of what a backend supports age quickly; trying takes a second. Here is what one may want to ask for. Both
# ranks try one request after the other, and after each a plain sum tells whether the group still works. **Which ones will fail?**


# %%
def requests(rank: int) -> dict:
    two, room = torch.ones(2), [torch.empty(1), torch.empty(2)]
    small, total, op = torch.ones(2).to(torch.float8_e4m3fn), dist.all_reduce, dist.ReduceOp
    return {
        "a message": lambda: dist.send(two, 1) if rank == 0 else dist.recv(two, 0),
        "a message with a tag": lambda: (dist.recv if rank else dist.send)(two, 1 - rank, tag=7),
        "all_reduce, SUM": lambda: total(two),
        "all_reduce, AVG": lambda: total(two, op=op.AVG),
        "all_reduce, BXOR": lambda: total(torch.tensor([rank]), op=op.BXOR),
        "all_reduce, PREMUL_SUM": lambda: total(two, op=op.PREMUL_SUM(0.5)),
        "all_reduce of bfloat16": lambda: total(two.bfloat16()),
        "all_reduce of int16": lambda: total(two.short()),
        "broadcast of float8": lambda: dist.broadcast(small, src=0),
        "all_gather, uneven": lambda: dist.all_gather(room, torch.ones(rank + 1)),
        "all_to_all": lambda: dist.all_to_all_single(torch.empty(2), two),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(torch.empty(1), two),
        "monitored_barrier": lambda: dist.monitored_barrier(),
    }


# %%
def try_all() -> dict:
    found = {}
    with process_group() as pg:
        for name, request in requests(pg.rank).items():
            try:
                request()
                said = "yes"
            except Exception as error:
                said = str(error).splitlines()[0].removeprefix("ProcessGroupGloo::")
            number = torch.ones(1)
            dist.all_reduce(number)
            found[name] = said, number.item() == 2
    return found


tried = launch(try_all, nprocs=2, **options)[1]
refused = {name: said for name, (said, _) in tried.items() if said != "yes"}
print(f"Gloo does {len(tried) - len(refused)} of {len(tried)}.")
print("The group works after each:", all(works for _, works in tried.values()))

# %% [markdown]
# The messages come next; "invalid scalar type" means a kind of number that Gloo does not know. Beside what was just tried stands what
# the documentation promises for NCCL. **That column was not run here**; it is what PyTorch's and NCCL's pages say.

# %%
documented = dict.fromkeys(tried, "yes") | {
    "a message with a tag": "no tags",
    "all_reduce, BXOR": "no",
    "all_reduce of int16": "no such type",
    "monitored_barrier": "Gloo only",
}
pd.set_option("display.max_colwidth", None)
columns = {"Gloo, tried here": {name: said for name, (said, _) in tried.items()}}
pd.DataFrame(columns | {"NCCL, as documented (not run here)": documented})

# %% [markdown]
# Trying pays: the same pages say that `AVG` needs NCCL and that `all_gather` takes uneven sizes. What is refused can mostly be had
# by a detour. To *move* numbers, bytes are enough, so float8 may travel as bytes. To *add* them, take a type that the backend knows.


# %%
def detours() -> dict:
    with process_group() as pg:
        small = torch.full((2,), 1.5 - pg.rank).to(torch.float8_e4m3fn)
        dist.broadcast(small.view(torch.uint8), src=0)  # the same memory, seen as bytes
        short = torch.tensor([300], dtype=torch.int16).int()
        dist.all_reduce(short)
        scaled = 0.5 * torch.ones(2)  # PREMUL_SUM by hand
        dist.all_reduce(scaled)
        return {"float8": small.tolist(), "int16": short.tolist(), "PREMUL_SUM": scaled.tolist()}


launch(detours, nprocs=2, **options)[1]

# %% [markdown]
# (For uneven rows, lesson 03 agreed on the greatest length and filled up to it.)
#
# ## How fast is it?
#
# One all_reduce after the other, from 4 bytes to 67 megabytes, each size several times; the quickest counts, since the others were
# disturbed. Bandwidth is the size divided by the time. **16,384 bytes are 4,096 times as many as 4. How many times longer do they take?**


# %%
def seconds_for(sizes: list[int]) -> list[float]:
    with process_group():
        quickest = []
        for size in sizes:
            tensor, times = torch.ones(size // 4), []
            for _ in range(5 if size > 4**11 else 20):
                dist.barrier()
                begin = time.perf_counter()
                dist.all_reduce(tensor)
                times.append(time.perf_counter() - begin)
            quickest.append(min(times))
        return quickest


sizes = [4**k for k in range(1, 14) if 4**k <= largest]
seconds = {n: launch(seconds_for, sizes, nprocs=n, **options)[0] for n in (2, 4)}

# %%
speed = {n: [size / s / 1e6 for size, s in zip(sizes, seconds[n], strict=True)] for n in seconds}
best = max(speed[2])
half = next(size for size, mb in zip(sizes, speed[2], strict=True) if mb >= best / 2)
title = f"Up to {best:,.0f} MB/s with 2 ranks, and half of that only from {half / 1e3:,.0f} kB on"
curves = {f"{n} ranks": (sizes, speed[n]) for n in speed}
fig = lines(curves, title, "size of the tensor (bytes, log scale)", "bandwidth (MB/s)")
fig.axes[0].set_xscale("log")
show(fig, alt=f"Bandwidth by size, near zero for small tensors. {title}")
few, many = (1e3 * seconds[2][sizes.index(size)] for size in (4, 4**7))
print(
    f"2 ranks: 4 bytes in {few:.2f} ms, {4**7:,} in {many:.2f} ms, {many / few:.1f} times as long"
)

# %% [markdown]
# A small tensor pays for the call, a large one for its bytes: the two terms of lesson 04. With 4 ranks on the same cores, each gets a smaller
# share of them, and more travels. Measure on the machines that you train on: there the wire decides.
#
# ## A part of the ranks
#
# Every collective so far involved all ranks. `new_group` makes a group of some, for a collective among them: `group=`.
# Ranks keep their numbers. **What will the four ranks hold?**


# %%
def by_parity():
    with process_group() as pg, trace() as mine:
        even, odd = dist.new_group([0, 2]), dist.new_group([1, 3])
        number = torch.tensor([10.0**pg.rank])
        dist.all_reduce(number, group=odd if pg.rank % 2 else even)
        return number.item(), mine


sums, traces = zip(*launch(by_parity, nprocs=4, **options), strict=True)
print("sums:", sums)
matches(traces)[["what", "ranks", "bytes"]]

# %% [markdown]
# Two all_reduces, side by side. **What does rank 1 get if it asks the even group for a sum?**


# %%
def with_outsiders():
    with process_group(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        even, number = dist.new_group([0, 2]), torch.ones(1)
        dist.all_reduce(number, group=even)
        return number.item(), [str(warning.message) for warning in said]


for rank, (number, said) in enumerate(launch(with_outsiders, nprocs=4, **options)):
    print(f"rank {rank}: {number}", *said)

# %% [markdown]
# Its own number back, with a warning and no error: only members may *use* a group. *Making* one is another matter. In both cells
# **all four ranks make every group**, members or not. That looks like waste. Below, ranks 0 and 1 make a pair by themselves and use it; later all four make a group of ranks 0 and 2.
# **In which line will rank 0 stand?**


# %%
def pairs(all_call: bool) -> float:
    with process_group() as pg:
        number = torch.ones(1)
        if all_call or pg.rank in (0, 1):
            pair = dist.new_group([0, 1])
        if pg.rank in (0, 1):
            dist.all_reduce(number, group=pair)
        dist.barrier()  # the pair is done
        even = dist.new_group([0, 2])
        if pg.rank in (0, 2):
            dist.all_reduce(number, group=even)
        return number.item()


try:
    launch(pairs, False, nprocs=4, timeout=timeout, **options)
except RankError as error:
    print(error)
print("mended:", launch(pairs, True, nprocs=4, **options))

# %% [markdown]
# The pair worked; rank 0 hangs in the *next* group, in a line without a fault. Groups have no name. They are numbered as they are made, each
# rank counting by itself: what is group 2 to rank 0 is group 1 to rank 2, and they wait at different places. So **all ranks call
# every `new_group`, in the same order**.
#
# ## Rows and columns
#
# Large models want groups in two directions: some ranks share a model, others share the work. A **device mesh** lays the ranks
# out in a grid and makes all these groups, in the right order. **Which ranks are in the group called "row" of rank 0?**


# %%
def in_a_mesh():
    with process_group():
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("row", "col"))
        groups = {name: mesh.get_group(name) for name in ("row", "col")}
        members = {name: dist.get_process_group_ranks(groups[name]) for name in groups}
        return tuple(mesh.get_coordinate()), members, mesh.mesh.tolist()


where, members, grids = zip(*launch(in_a_mesh, nprocs=4, **options), strict=True)
print("Rank 0 is in these groups:", members[0])

# %%
kinds = {name: sorted({tuple(m[name]) for m in members}) for name in ("col", "row")}
size = len(members[0]["row"])
title = f"Each of {len(where)} ranks is in two groups of {size}, one in each direction"
names = {f'get_group("{name}")': kinds[name] for name in kinds}
coordinates = {rank: f"row {r}, col {c}" for rank, (r, c) in enumerate(where)}
alt = f"Ranks in a grid. Groups called col: {kinds['col']}; groups called row: {kinds['row']}"
show(mesh_map(grids[0], names, title, coordinates), alt=alt)

# %% [markdown]
# Mind the name: the group "row" holds the ranks whose row *number* differs, so it stands upright. To sum along a row of the picture, let the
# column change: `get_group("col")`. In exercise 5.1 you do both directions with groups of your own.
#
# ## Who may read what, and when?
#
# Ranks also meet outside of torch, in files. Rank 0 writes a note, all read it, then rank 0 writes the next one. Rank 0 takes its time
# for each note, and rank 1 takes more before it reads. **What does each rank read without a barrier, with one after the writing, and with a second
# one after the reading?**


# %%
def pass_a_note(folder: str, barriers: int) -> str:
    with process_group() as pg:
        note = Path(folder, f"note_{barriers}.txt")
        if pg.rank == 0:
            time.sleep(0.2)
            note.write_text("first")
        if barriers >= 1:
            dist.barrier()
        time.sleep(0.8 if pg.rank == 1 else 0)
        read = note.read_text() if note.exists() else "no file"
        if barriers >= 2:
            dist.barrier()
        if pg.rank == 0:
            time.sleep(0.2)
            note.write_text("second")
        return read


with tempfile.TemporaryDirectory() as folder:
    for barriers in range(3):
        print(barriers, "barriers:", launch(pass_a_note, folder, barriers, nprocs=4, **options))

# %% [markdown]
# A **race**: who is first decides the result. Without a barrier ranks 2 and 3 are too early and rank 1 too late; with one, rank 1 still reads
# what was meant for later. The pattern is *write, barrier, read, barrier*, or a new file name each time. (And if writing fails
# on rank 0? It never gets to the barrier. Exercise 5.3.)
#
# ## The forgotten wait, once more
#
# In lesson 02 a rank looked at a message before it had come. Collectives with `async_op=True` set the same trap. To make it sure to
# snap, rank 1 joins only when rank 0 has had its first look. **What does rank 0 see?**


# %%
def peek():
    with process_group() as pg:
        total, looked = torch.tensor([pg.rank + 1.0]), torch.zeros(1)
        if pg.rank == 1:
            dist.recv(looked, src=0)
        work = dist.all_reduce(total, async_op=True)
        early = total.item()
        if pg.rank == 0:
            dist.send(looked, dst=1)
        work.wait()
        return early, total.item()


early, late = launch(peek, nprocs=2, **options)[0]
print(f"rank 0 before wait: {early}, after wait: {late}")

# %% [markdown]
# Its own number, unsummed, and no error. In training that is a gradient from one rank's data: the loss still falls, only not as it
# should. Keep *every* handle, and wait for each before you read. (With NCCL, `wait()` makes the GPU's queue wait, not your Python line.)
#
# ## How long is too long?
#
# By default a Gloo collective waits half an hour for a rank that is not coming. `process_group(timeout=…)` sets the seconds. Here rank 1 is
# 2 seconds late, and rank 0 has patience for one. **Can they go on together when rank 1 has come?**


# %%
def too_late() -> list[str]:
    with process_group(timeout=1) as pg:
        time.sleep(2 * pg.rank)
        said = []
        for _ in range(2):
            begin = time.monotonic()
            try:
                dist.all_reduce(torch.ones(1))
                said.append("done")
            except RuntimeError as error:
                text = str(error).rpartition("] ")[2][:70]
                said.append(f"after {time.monotonic() - begin:.1f} s: {text}")
        return said


print("by default:", dist.default_pg_timeout)
for rank, said in enumerate(launch(too_late, nprocs=2, **options)):
    print(f"rank {rank}:", *said, sep="\n   ")

# %% [markdown]
# They cannot: after a timeout the connection is closed, and the group is of no more use. A timeout is no way to skip a slow
# rank; it turns a silent hang into an error. So choose it longer than the longest honest wait, such as rank 0 saving a large model. What
# to do after the error, lessons 60 and 61 show.
#
# **Exercises:** [`exercises/05_groups_backends_sync.ipynb`](../exercises/05_groups_backends_sync.ipynb). You will sum over rows and columns, find a missing wait, and save a file once for all.
#
# ## Take-away
#
# > Gloo carries tensors of the CPU, NCCL those of GPUs; what a backend can do is quickly tried. Every rank calls every
# > `new_group`, in the same order, and a mesh does that for you. Between one rank's writing and another's reading there has to
# > be something that both wait for: a barrier, a `wait()`, a message.
#
# **To go further**
# - [Backends](https://docs.pytorch.org/docs/stable/distributed.html#backends): PyTorch's table of what each supports, and
#   which to use.
# - [Getting started with DeviceMesh](https://docs.pytorch.org/tutorials/recipes/distributed_device_mesh.html): meshes for
#   real models; lesson 70 goes on from here.
# - Next: lesson 06, in which you build data parallelism by hand.
