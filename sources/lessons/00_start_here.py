# %% [markdown]
# # Start here: four processes from one cell
#
# **You will learn**
# - what this machine has to offer to a distributed program;
# - to run one function on four processes at once, from a cell, and get four results back;
# - what a failure looks like, and how the exercises of this course answer you.
#
# *About 15 minutes. Runs on any machine: 4 processes on the CPU.*

# %% tags=["parameters"]
start_method: str = "auto"  # how ranks are started: "auto", "forkserver" or "spawn"

# %% [markdown]
# ## What is under the hood?
#
# Training is distributed when several **processes** work on one model, each on its own core or GPU. How
# many can work at the same time is a property of your machine, so let us look at it first. Two tools
# recur in every lesson: `launch` starts processes, and `show` draws what they did.

# %%
import os
import time

from course_lib import launch
from course_lib.machine import machine_facts
from course_lib.plots import COLOURS, figure, machine_card, show

# %%
facts = machine_facts()
title = f"{facts['CPU cores']} CPU cores and {facts['GPUs'].replace('none', 'no')} GPU to share out"
show(machine_card(facts, title), alt=f"Card of this machine: {facts}")

# %% [markdown]
# Two entries deserve a word. A **backend** is the library that carries messages between processes: NCCL
# between GPUs, Gloo between CPUs. The course picks one for you and says which. And the data need not be
# there yet: a lesson fetches what it needs, or tells you that it uses made-up data instead.
#
# ## Four ranks say hello
#
# Here is an ordinary function. `launch` runs it in four new processes. Each of them is called a **rank**
# and finds its number, 0 to 3, in the environment variable `RANK`. The number of ranks is the **world
# size**. **Before you run it: in which order will the four lines appear?**


# %%
def hello() -> None:
    print(f"I am rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}")


launch(hello, nprocs=4, start_method=start_method)

# %% [markdown]
# Every line carries a label, `[rank r]`, with the rank that wrote it. The order is nobody's decision: four
# processes run side by side, and whoever comes first speaks first. Run it again, and the order may change:

# %%
launch(hello, nprocs=4, start_method=start_method)

# %% [markdown]
# Below the lines stands a list, one entry a rank: what each call *returned*. `hello` returns nothing, hence
# four times `None`. In contrast to the printed lines, **results always come in rank order**: entry 2 is
# rank 2's, however late it was. Let the ranks return something worth having:


# %%
def who_am_i() -> tuple[int, int]:
    return int(os.environ["RANK"]), os.getpid()


launch(who_am_i, nprocs=4, start_method=start_method)

# %% [markdown]
# Four ranks, four process numbers, and none of them is the number of this notebook's own process:

# %%
os.getpid()

# %% [markdown]
# ## Four ranks, one variable?
#
# The next function adds 1 to `counter` and returns it. Four ranks call it, once each. **What will the ranks
# return, and what will `counter` be here, in the notebook, afterwards: 0, 1 or 4?**

# %%
counter = 0


def count() -> int:
    global counter
    counter += 1
    return counter


print("on the ranks:   ", launch(count, nprocs=4, start_method=start_method))
print("in the notebook:", counter)

# %% [markdown]
# **A rank has a memory of its own.** Each received a *copy* of the function and of what it uses, and counted
# that copy from 0 to 1. Nobody counted to 4. What ranks are to share must be **sent**, and sending is the subject of
# this course.
#
# ## Did they really work at the same time?
#
# A claim like that wants a measurement. Every rank notes when it starts, computes for a while, and notes
# when it ends. The clock is the machine's, so the times of different processes can be compared.


# %%
def work(loops: int) -> tuple[float, float]:
    begin, total = time.monotonic(), 0
    for i in range(loops):
        total += i
    return begin, time.monotonic()


alone = launch(work, 5_000_000, nprocs=1, start_method=start_method)
together = launch(work, 5_000_000, nprocs=4, start_method=start_method)

# %% [markdown]
# If the four had worked one after the other, their bars below would form a staircase. If they worked side by
# side, the bars overlap. **And how long will each take, compared with one that has the machine to
# itself?** Look at the number of cores on the card above before you answer.

# %%
first = min(begin for begin, _ in together)
slower = max(e - b for b, e in together) / (alone[0][1] - alone[0][0])
title = f"Four ranks side by side: the slowest took {slower:.1f} times as long as one alone"
fig, ax = figure(title, xlabel="time since the first rank began (s)", ylabel="rank")
for rank, (begin, end) in enumerate(together):
    ax.barh(str(rank), end - begin, left=begin - first, color=COLOURS[rank])
ax.invert_yaxis()
show(fig, alt=f"One bar a rank over time, overlapping. {title}")

# %% [markdown]
# The bars overlap: no rank waited for another to end. The title tells the rest. A core does one thing at a
# time; with fewer cores than ranks they take turns on it, many times a second, and each gets slower. More ranks are not more speed; **more ranks on more
# hardware** are. This course says so in figures whenever it happens.
#
# ## When one of them fails
#
# Sooner or later a rank meets an error that the others do not. Here rank 2 looks for something that is
# not there:


# %% tags=["raises-exception"]
def look_up() -> str:
    labels = {"0": "cat", "1": "dog", "3": "frog"}
    return labels[os.environ["RANK"]]


launch(look_up, nprocs=4, start_method=start_method)

# %% [markdown]
# One error came back for four processes. Its first line says *who* failed and *how*. Then it says where every
# rank stood, and last comes the traceback of the rank that matters, with the line of the cell. The
# other three had finished or were stopped; nothing is left running.
#
# A rank that waits forever is caught as well. You will meet that in lesson 01, on purpose.
#
# ## How the exercises answer
#
# Each lesson has a notebook of exercises: in the folder `exercises/`, under the same name. A task gives you a
# function to complete and a **check** to run on it. The check runs your function on real ranks, usually 2, 3
# and 4 of them, and tells you what holds and what does not. This is what it says before you have begun:

# %%
from course_lib.checks import lesson_00 as check


def roll_call() -> str:
    raise NotImplementedError


check.roll_call(roll_call)

# %% [markdown]
# And this is what it says to an answer that is right for two ranks only:


# %%
def roll_call() -> str:
    return f"rank {os.environ['RANK']} of 2"


check.roll_call(roll_call)

# %% [markdown]
# A hint comes with it. You cannot break anything by trying: an answer that fails, hangs or ends its process is
# reported, and the notebook goes on. If you are stuck, `solutions/` has the same notebook with answers in.
#
# **Now try it yourself:** open [`exercises/00_start_here.ipynb`](../exercises/00_start_here.ipynb).
#
# ## Take-away
#
# > A distributed program is one function running in several processes, the ranks, each with a number and a
# > memory of its own. They run side by side, so nothing they print has an order, but their results do.
# > They are faster than one process only where there is hardware for each of them.
#
# **To go further**
# - [The overview of PyTorch Distributed](https://docs.pytorch.org/tutorials/beginner/dist_overview.html): a map
#   of what this course covers.
# - Python's [multiprocessing](https://docs.python.org/3/library/multiprocessing.html): what `launch` is built on.
# - Next: lesson 01, *Processes and ranks*, opens the box that `launch` is today.
