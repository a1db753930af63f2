# %% [markdown]
# # Processes and ranks
#
# **You will learn**
# - how PyTorch starts processes, and how a new process gets hold of your function;
# - how processes that know nothing of each other meet, and the six variables a launcher sets for them;
# - what `launch` and `process_group` do for you, and how a cell's function becomes a program for `torchrun`.
#
# *About 30 minutes. Runs on any machine: 2 processes, Gloo on the CPU, or one for each GPU.*

# %% tags=["parameters"]
world_size: int | None = None  # ranks; None: one for each GPU, or 2 on the CPU
start_method: str = "auto"  # how launch starts ranks: "auto", "forkserver" or "spawn"

# %%
import os
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from course_lib import choose_world_size, launch, process_group, torchrun, write_script
from course_lib.plots import bars, sequence, show

world_size = choose_world_size(world_size)

# %% [markdown]
# ## PyTorch's own way
#
# `torch.multiprocessing.spawn` starts `nprocs` fresh Python interpreters and calls a function in each. The first
# argument it passes is the number of the process. Here is such a function. **What do you expect from
# calling it in the next cell?**


# %%
def hello(rank: int) -> None:
    print(f"hello from process {rank}")


try:
    mp.spawn(hello, nprocs=2)
except mp.ProcessExitedException as error:
    print(f"spawn gave up: {error}")

# %% [markdown]
# Nobody said hello. A fresh interpreter is given the *name* of the function, `hello` in `__main__`, and looks
# it up. But its `__main__` is not this notebook, and knows no `hello` (the long text above ends in just that:
# *Can't get attribute 'hello'*).
#
# A function that lives in a file can be found by its name. So this works:

# %%
folder = Path(tempfile.mkdtemp())
(folder / "greetings.py").write_text('def hello(rank):\n    print(f"hello from process {rank}")\n')
sys.path.insert(0, str(folder))
import greetings

mp.spawn(greetings.hello, nprocs=2)

# %% [markdown]
# Programs on a cluster are files, and there this is no obstacle. In a notebook it is. Therefore `launch` sends
# the function **by value**: its code, and whatever it uses from your cells, travel to the new process. It
# passes no rank; a process finds its number in its environment, as it would on a cluster:


# %%
def hello() -> str:
    return f"hello from process {os.environ['RANK']}"


launch(hello, nprocs=world_size, start_method=start_method)

# %% [markdown]
# ## What a rank is told
#
# A new process knows nothing: not that there are others, not how many, not where. The **launcher** tells it
# through environment variables. Their names are a contract that `torchrun`, Slurm scripts and this course's
# `launch` share, so that one program runs under all of them. **Which of these six will differ between
# the ranks?**

# %%
contract = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]


def told() -> dict[str, str]:
    return {name: os.environ[name] for name in contract}


ranks = launch(told, nprocs=world_size, start_method=start_method)
pd.DataFrame(ranks, index=[f"rank {r}" for r in range(world_size)]).T

# %% [markdown]
# Only the two numbers of the process itself. `RANK` counts over all machines, `LOCAL_RANK` over the processes of
# this machine; on one machine they agree. `LOCAL_RANK` is how a process picks *its* GPU.
#
# The other four are the same here. Three must agree everywhere: `MASTER_ADDR` and `MASTER_PORT` name the place
# where all will meet, and `WORLD_SIZE` says how many will come. `LOCAL_WORLD_SIZE` counts the ranks of one machine.
#
# ## The rendezvous
#
# At `MASTER_ADDR:MASTER_PORT` a small server waits, the **store**: a dictionary that every rank can read and
# write over the network. (`launch` has opened it, in the notebook; without a launcher's store, rank 0 opens one.)
# Each rank writes its own address there and reads the others'. From then on they talk directly. This meeting is the **rendezvous**, and one call does it:


# %%
def meet() -> float:
    dist.init_process_group(backend="gloo")
    mine = torch.tensor([float(dist.get_rank())])
    dist.all_reduce(mine)
    dist.destroy_process_group()
    return mine.item()


launch(meet, nprocs=world_size, start_method=start_method)

# %% [markdown]
# `all_reduce` added up the tensors of all ranks and gave everyone the sum: each put its own number in, and each
# got 0 + 1 + … out. That is the first message you have sent between processes. How such a sum is made without
# flooding the network is the subject of lessons 03 and 04.
#
# ## What if somebody does not come?
#
# Suppose the world is said to be larger by one than the number of processes that were started; on a
# cluster, one machine may have failed to boot. **What do the others do: go on without it, raise an
# error, or wait?**


# %% tags=["raises-exception"]
def wait_for_one_more() -> None:
    os.environ["WORLD_SIZE"] = str(int(os.environ["WORLD_SIZE"]) + 1)
    dist.init_process_group(backend="gloo")


launch(wait_for_one_more, nprocs=world_size, start_method=start_method, timeout=3)

# %% [markdown]
# They wait. A rendezvous has no way to know whether a rank is late or lost. `launch` ended it after 3 seconds
# without a sign of life, and says where everybody stood: in `init_process_group`. Left alone, they would have
# waited in silence for up to 30 minutes, its default `timeout` with Gloo. *All ranks stuck in the rendezvous* nearly always means: fewer processes than
# `WORLD_SIZE`, or an address that some cannot reach.
#
# ## The same in one line
#
# What a rank does begins by joining a group and ends by leaving it. It also has to choose a backend
# and a device, by a simple rule: NCCL and one GPU each if there are enough GPUs for the ranks of this
# machine, otherwise Gloo on the CPU. `process_group` does just that:


# %%
def join() -> str:
    with process_group() as pg:
        return f"rank {pg.rank} of {pg.world_size}: {pg.backend} on {pg.device}"


launch(join, nprocs=world_size, start_method=start_method)

# %% [markdown]
# At its core are `init_process_group`, the rule, `torch.cuda.set_device`, a fair number of CPU
# threads (the cores divided by the ranks, for they all compute at once) and `destroy_process_group` at the end.
#
# ## Who starts whom?
#
# Processes form a tree: each has a parent. Let every rank report its own number and its parent's, and compare
# them with the number of this notebook. **Is the notebook the parent of its ranks?**


# %%
def family() -> tuple[int, int]:
    with process_group():
        return os.getpid(), os.getppid()


pids = launch(family, nprocs=world_size, start_method=start_method)
print("notebook:", os.getpid(), "\nranks and their parents:", pids)

# %%
ranks = [f"rank {r} ({pid})" for r, (pid, _) in enumerate(pids)]
parent, here = pids[0][1], "notebook"
starter = here if parent == os.getpid() else f"fork server ({parent})"
steps = [(here, starter, "start, once")] if starter != here else []
steps += [(here, here, "open the store")]
steps += [(starter, rank, "start") for rank in ranks]
steps += [(rank, here, "address into the store") for rank in ranks]
steps += [(rank, here, "result") for rank in ranks]
actors = list(dict.fromkeys([here, starter, *ranks]))
fig = sequence(
    actors, steps, f"The {starter.split(' (')[0]} starts the ranks; the notebook keeps the store"
)
show(fig, alt="Sequence of the launch: " + "; ".join(f"{a} → {b}: {what}" for a, b, what in steps))

# %% [markdown]
# That is the launch above, drawn from top to bottom. With the usual start method, `forkserver`, a helper stands in between: a process that
# has imported `torch` and done nothing else. When a rank is needed, it **forks**, that is, it duplicates itself. A
# notebook had better not: a fork copies one thread only, so a lock that another thread held is never released, and
# CUDA, once used, refuses to work in a fork.
#
# ## What does a start cost?
#
# Every rank needs Python and `torch`. A fresh interpreter (`spawn`) must import them; a fork of the server has
# them. **Guess a factor before you measure.**


# %%
def seconds_to_launch(method: str) -> float:
    begin = time.perf_counter()
    launch(os.getpid, nprocs=2, start_method=method)
    return time.perf_counter() - begin


launch(os.getpid, start_method="forkserver")  # the server itself is up from here on
cost = {m: min(seconds_to_launch(m) for _ in range(2)) for m in ("spawn", "forkserver")}

# %%
title = f"Forked ranks are there {cost['spawn'] / cost['forkserver']:.0f} times sooner"
fig = bars(cost, title, "launch to return, 2 ranks (s, less is better)", ylabel="start method")
show(fig, alt=f"Two bars, seconds for each start method: {cost}")

# %% [markdown]
# This is why a launch in this course feels like an ordinary call. Both methods give the same results, and you can
# choose one with `launch(…, start_method="spawn")`. Training speed does not depend on it: once started,
# a rank is a process like any other.
#
# ## From the cell to a program
#
# On a cluster there is no notebook. There is a program in a file, and on every machine `torchrun`, PyTorch's own
# launcher, starts it as often as that machine has ranks. `write_script` makes the file from a function: it takes along
# what the function uses from other cells, and gives each parameter a flag. **Look for the line that starts the ranks.**


# %%
def add_up(steps: int = 3) -> float:
    """Add up a number from each rank, several times."""
    with process_group() as pg:
        total = torch.zeros(1, device=pg.device)
        for step in range(steps):
            mine = torch.tensor([1 / (1 + pg.rank + step)], device=pg.device)
            dist.all_reduce(mine)
            total += mine
        return total.item()


program = write_script(add_up, "add_up.py")
print(program.read_text())

# %% [markdown]
# There is none. The program is what *one* rank does; who starts it, how often and where, is the launcher's affair.
# Here `torchrun` starts it, from a cell, and `launch` the function it was made from:

# %%
by_torchrun = torchrun(program, nprocs=world_size, steps=5)
by_launch = launch(add_up, 5, nprocs=world_size, start_method=start_method)
print("torchrun:", by_torchrun, "\nlaunch:  ", by_launch)
print("equal to the last bit:", by_torchrun == by_launch)

# %% [markdown]
# The line that begins with `$` is the command for a terminal; try it there, from the course's folder. It is slower to
# start, because every rank is a fresh interpreter that imports `torch`, and so is the launcher itself. In exchange it
# can start ranks on many machines and start them again when one has failed, which lessons 53 and 61 do.
#
# **Exercises:** [`exercises/01_processes_and_ranks.ipynb`](../exercises/01_processes_and_ranks.ipynb). You will join a group without the environment's help,
# find your place in a cluster, and compute a mean that no launcher can change.
#
# ## Take-away
#
# > A rank is an ordinary process that was told its number, the size of the world, and where to meet. At the
# > rendezvous everybody waits for everybody. The function does not care who started it, so the same
# > code runs from a cell, under `torchrun`, and on a cluster.
#
# **To go further**
# - [torchrun](https://docs.pytorch.org/docs/stable/elastic/run.html): the variables of the contract, in full.
# - [Multiprocessing best practices](https://docs.pytorch.org/docs/stable/notes/multiprocessing.html): more on
#   fork, spawn, and what CUDA allows.
# - [Initialization](https://docs.pytorch.org/docs/stable/distributed.html#initialization): other ways to meet.
