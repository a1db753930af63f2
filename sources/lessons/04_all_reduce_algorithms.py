# %% [markdown]
# # All-reduce three times: naive, tree, ring
#
# **You will learn**
# - to build the sum over all ranks from messages in three ways, and to count what each of them costs;
# - why a ring is a reduce_scatter followed by an all_gather, and what that saves;
# - to predict the time of an algorithm from two numbers, and to say by how much the prediction is wrong.
#
# *About 40 minutes; the cells run for about half a minute. Runs on any machine: 4 processes, Gloo on the CPU.*

# %% tags=["parameters"]
world_size: int = 4  # ranks that add up their tensors: 2 to 5 are good to look at
preset: str = "quick"  # "smoke", "quick" or "full": how many sizes and rounds are measured
start_method: str = "auto"  # how launch starts ranks: "auto", "forkserver" or "spawn"

# %%
import math
import time

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from course_lib import choose_preset, launch, process_group, summary, trace
from course_lib.plots import COLOURS, figure, lanes, lines, show

N, preset = max(world_size, 2), choose_preset(preset)  # one rank alone has nothing to add
options = {"start_method": start_method, "device": "cpu"}

# %% [markdown]
# ## Naive: all to one, and back
#
# Every training step ends with the same wish: add up a tensor over all ranks, and give all of them the sum. The obvious way is a
# meeting with a chair. Everybody sends to rank 0; rank 0 adds up, and sends the sum back. **With N ranks, how many
# messages does rank 0 handle?**


# %%
def naive(tensor):
    if dist.get_rank() != 0:
        dist.send(tensor, dst=0)
        dist.recv(tensor, src=0)
        return
    others, room = range(1, dist.get_world_size()), torch.empty_like(tensor)
    for other in others:
        dist.recv(room, src=other)
        tensor += room
    for other in others:
        dist.send(tensor, dst=other)


# %% [markdown]
# To see it at work, one helper for all three algorithms: it runs one of them twice (the first time connects the ranks), makes sure
# that the sum is the one `dist.all_reduce` computes, and brings back the traces. A second one asks for the rank that has the most
# bytes to handle, in and out.


# %%
def sum_up(way, numbers):
    with process_group() as pg:
        tensor = torch.arange(numbers) % 7 + pg.rank
        expected = tensor.clone()
        way(tensor.clone())
        dist.all_reduce(expected)
        with trace() as mine:
            way(tensor)
        assert torch.equal(tensor, expected)
        return mine


def busiest(traces):
    table = summary(traces)
    return (table["bytes sent"] + table["bytes received"]).max() / 1e6


# %%
numbers = 60 * (200 if preset == "smoke" else 2000)  # a multiple of 2, 3, 4 and 5
traces = {"naive": launch(sum_up, naive, numbers, nprocs=N, **options)}
handled = len(traces["naive"][0].sent) + len(traces["naive"][0].received)
title = f"Naive: rank 0 handles {handled} messages, {busiest(traces['naive']):.1f} MB"
show(lanes(traces["naive"], title), alt=f"Lanes of {N} ranks, each arrow at rank 0. {title}")

# %% [markdown]
# Every arrow begins or ends at rank 0: N − 1 messages in and N − 1 out, each with the whole tensor. Hatched stretches are ranks
# that wait for it. With more ranks the others would wait longer still, since the chair's work grows with N.
#
# ## Tree: everybody chairs a little
#
# While rank 0 listens to rank 1, ranks 2 and 3 could talk to each other. In a **tree**, half of the ranks hand their sum to a neighbour
# and are out; of the others, half hand on theirs, and so on, until rank 0 has everything. Then the sum travels back down the same way.
# **How many rounds does it take with 8 ranks, and with 1,000?**


# %%
def tree(tensor):
    rank, ranks, step = dist.get_rank(), dist.get_world_size(), 1
    room = torch.empty_like(tensor)
    while step < ranks:  # up: 1 to 0, 3 to 2; then 2 to 0
        if rank % (2 * step) == step:
            dist.send(tensor, dst=rank - step)
        elif rank % (2 * step) == 0 and rank + step < ranks:
            dist.recv(room, src=rank + step)
            tensor += room
        step *= 2
    while step > 1:  # and down again
        step //= 2
        if rank % (2 * step) == step:
            dist.recv(tensor, src=rank - step)
        elif rank % (2 * step) == 0 and rank + step < ranks:
            dist.send(tensor, dst=rank + step)


# %%
traces["tree"] = launch(sum_up, tree, numbers, nprocs=N, **options)
handled = len(traces["tree"][0].sent) + len(traces["tree"][0].received)
title = f"Tree: rank 0 handles {handled} messages, {busiest(traces['tree']):.1f} MB"
show(lanes(traces["tree"], title), alt=f"Lanes of {N} ranks, arrows up and down a tree. {title}")

# %% [markdown]
# Each round halves the number of ranks that still hold a part, so ⌈log₂ N⌉ rounds up and as many down are enough: 3 and 3 for 8
# ranks, 10 and 10 for 1,000. The rounds are few. But rank 0 still takes in and gives out the *whole* tensor in each of its own, and the
# ranks that are out do nothing.
#
# ## Ring: nobody chairs
#
# Lesson 03 found that **all_reduce = reduce_scatter + all_gather**. So cut the tensor into N pieces and let every rank be the chair
# of *one piece*. Ranks stand in a ring; each speaks only to its right neighbour. This is all that ever travels:


# %%
def pass_on(piece, room):
    """Send a piece to the right while another comes from the left."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    sending = dist.isend(piece, dst=(rank + 1) % ranks)
    dist.recv(room, src=(rank - 1) % ranks)
    sending.wait()


# %% [markdown]
# In the first half, a piece goes around and every rank on its way adds its own numbers. In the second half the finished pieces go
# around, and nobody adds. **Which piece does rank r send first, so that in the end piece r is finished at rank r?**


# %%
def reduce_step(pieces, step):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    room = torch.empty_like(pieces[0])
    pass_on(pieces[(rank - step - 1) % ranks], room)
    pieces[(rank - step - 2) % ranks] += room


def gather_step(pieces, step):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    pass_on(pieces[(rank - step) % ranks], pieces[(rank - step - 1) % ranks])


def ring(tensor):
    pieces = tensor.view(dist.get_world_size(), -1)  # rows of the same memory
    for half in (reduce_step, gather_step):
        for step in range(len(pieces) - 1):
            half(pieces, step)


# %% [markdown]
# The piece before its own, (r − 1) mod N: it comes home after N − 1 steps. The next cell lets every rank begin with ones. Then the number
# in a cell says how many ranks' numbers have been added up there.


# %%
def step_by_step():
    with process_group() as pg:
        pieces = torch.ones(pg.world_size, 1)
        seen = [pieces.clone()]
        for half in (reduce_step, gather_step):
            for step in range(len(pieces) - 1):
                half(pieces, step)
                seen.append(pieces.clone())
        return torch.stack(seen)


states = torch.stack(launch(step_by_step, nprocs=N, **options), dim=1)[..., 0]

# %%
done = [(int((state == N).sum())) for state in states]
title = f"Finished pieces after each step, of {N * N}: {', '.join(map(str, done))}"
fig, panels = figure(title, ncols=len(states), size=(7.2, 1.9), xlabel="piece", ylabel="rank")
for step, (ax, state) in enumerate(zip(panels, states.int(), strict=True)):
    ax.imshow(state, cmap="Blues", vmin=0, vmax=1.4 * N)
    for rank, piece in np.ndindex(N, N):
        look = {"ha": "center", "va": "center", "fontsize": 8}
        look["weight"] = "bold" if state[rank, piece] == N else "normal"
        ax.text(piece, rank, state[rank, piece].item(), **look)
    ax.set(title=f"step {step}" if step else "start", xticks=range(N))
    ax.set_yticks(range(N) if step == 0 else [])
    ax.grid(visible=False)
show(fig, alt=f"A grid of ranks and pieces for each step of the ring. {title}")

# %% [markdown]
# Half-way, after N − 1 steps, the diagonal is finished: each rank has one complete piece. That is reduce_scatter. In the N − 1 steps
# after it the finished pieces spread over the columns: all_gather. Now the whole ring, traced like the others:

# %%
traces["ring"] = launch(sum_up, ring, numbers, nprocs=N, **options)
sent = len(traces["ring"][0].sent)
title = f"Ring: every rank sends {sent} messages and handles {busiest(traces['ring']):.1f} MB"
show(
    lanes(traces["ring"], title, names=False),
    alt=f"Lanes of {N} ranks, arrows from each to the next. {title}",
)

# %% [markdown]
# No rank stands out. Each sends 2(N − 1) messages, but each message carries only 1/N of the tensor. **Before you look at the table:
# which of the three moves the fewest bytes *in all*?**

# %%
table = {name: summary(ranks) for name, ranks in traces.items()}
bill = pd.DataFrame(
    {
        "messages in all": {k: t["messages sent"].sum() for k, t in table.items()},
        "MB in all": {k: t["bytes sent"].sum() / 1e6 for k, t in table.items()},
        "MB in and out of the busiest rank": {k: busiest(t) for k, t in traces.items()},
    }
)
bill.round(2)

# %% [markdown]
# They all move the same. The ring does not save bytes; it *spreads* them, so that no rank has more to do than another. The price is
# messages. Keep the second column in mind: it will come back.
#
# ## What does a message cost?
#
# To say when a price is worth paying, one needs to know it. The simplest model has two numbers: a message of n bytes takes
# **α + β · n** seconds. α (alpha) is what any message costs, however short; β (beta) is the price of a byte. To measure them, two ranks
# play ping-pong, in many sizes. (The fastest of many rounds counts: what disturbs only ever adds.)


# %%
def ping_pong(tensor):
    turns = (dist.send, dist.recv) if dist.get_rank() == 0 else (dist.recv, dist.send)
    for turn in turns:
        turn(tensor, 1 - dist.get_rank())


def time_it(ways, sizes, rounds):
    with process_group():
        times = np.empty((len(ways), len(sizes), rounds + 1))
        for w, s in np.ndindex(times.shape[:2]):
            tensor = torch.zeros(sizes[s])
            for r in range(rounds + 1):
                dist.barrier()
                begin = time.perf_counter()
                ways[w](tensor)
                times[w, s, r] = time.perf_counter() - begin
        return times[..., 1:]  # the first round warms up


def fastest(ways, nprocs):  # the slowest rank of each round; the fastest round
    return np.max(launch(time_it, ways, sizes, rounds, nprocs=nprocs, **options), 0).min(-1)


largest, rounds = {"smoke": (9, 3), "quick": (10, 40), "full": (11, 100)}[preset]
sizes = [N * 4**k for k in range(largest + 1)]  # numbers in a tensor: N divides them all
nbytes = 4 * np.array(sizes)
one_way = fastest([ping_pong], nprocs=2)[0] / 2

# %% [markdown]
# Now least squares. Plain least squares would listen to the largest tensors only, whose errors are the largest; so each equation
# is divided by the time that was measured, and what becomes small is the *relative* error. **Below which size does the price of a byte not
# matter?**

# %%
equations = np.stack([np.ones(len(nbytes)), nbytes], axis=1) / one_way[:, None]
alpha, beta = np.linalg.lstsq(equations, np.ones(len(nbytes)), rcond=None)[0]
fitted = alpha + beta * nbytes
wrong = np.abs(fitted / one_way - 1)

title = f"A message costs {1e6 * alpha:.0f} µs and {1e9 * beta:.2f} ns a byte; "
title += f"the fit is off by {wrong.mean():.0%} on average"
points = {"measured": (nbytes, 1e6 * one_way), "α + β · n": (nbytes, 1e6 * fitted)}
fig = lines(points, title, "bytes in the message (n)", "time one way (µs)")
fig.axes[0].set(xscale="log", yscale="log")
show(fig, alt=f"Time of a message by its size, measured and fitted. {title}")
print(f"both halves cost the same at n = α / β = {alpha / beta:,.0f} bytes")
print(f"largest error: {wrong.max():.0%}, at {nbytes[wrong.argmax()]:,} bytes")

# %% [markdown]
# The curve is flat first, then straight: two regimes, and α / β is where they meet. Far below it only the number of messages counts, far above
# it only the bytes.
#
# ## Prediction
#
# What does an all-reduce of n bytes cost? Follow the busiest rank, step by step; what others do at the same time is free, as long as
# each pair of ranks has **a link of its own**. (The additions are left out.)

# %%


def predict(ranks, nbytes):
    levels = math.ceil(math.log2(ranks))
    return {
        "naive": 2 * (ranks - 1) * (alpha + beta * nbytes),
        "tree": 2 * levels * (alpha + beta * nbytes),
        "ring": 2 * (ranks - 1) * (alpha + beta * nbytes / ranks),
    }


own_links = predict(N, nbytes)
ms = pd.DataFrame(own_links, index=[f"{n:,} bytes" for n in nbytes]) * 1e3
ms.iloc[[0, len(ms) // 2, -1]].round(2)

# %% [markdown]
# Read the rows: the longest tensor goes to the algorithm with the smallest pieces, and the shortest, from 4 ranks on, to the one with
# the fewest steps. So says the model. Our ranks, however, live on one machine and share its cores and its memory. **For which of the three will the
# prediction be worst?** Measure:

# %%
ways = {"naive": naive, "tree": tree, "ring": ring, "torch": dist.all_reduce}
measured = dict(zip(ways, fastest([*ways.values()], nprocs=N), strict=True))


def draw(models, title):
    fig, panels = figure(
        title, xlabel="bytes in the tensor", ylabel="time (ms)", ncols=3, size=(7.2, 3.6)
    )
    for ax, name in zip(panels, own_links, strict=True):
        ax.plot(nbytes, 1e3 * measured[name], "o", color=COLOURS[0], label="measured")
        for i, (label, model) in enumerate(models.items()):
            look = {"color": COLOURS[1 + 2 * i], "linestyle": ("-", "--")[i], "label": label}
            ax.plot(nbytes, 1e3 * model[name], **look)
        ax.set(title=name, xscale="log", yscale="log", ylim=limits)
    panels[0].legend(loc="upper left")
    everything = [f"{n} {measured[n][-1] / m[n][-1]:.1f}" for m in models.values() for n in m]
    show(fig, alt=f"{title}. Measured over predicted, largest tensor: {', '.join(everything)}")


every = 1e3 * np.stack([*own_links.values(), *measured.values()])
limits = (every.min() / 2, every.max() * 4)
factor = {name: measured[name][-1] / own_links[name][-1] for name in own_links}
worst = max(factor, key=factor.get)
title = f"The {worst} is the furthest off: measured ÷ predicted for the largest tensor is "
draw({"own links": own_links}, title + ", ".join(f"{f:.1f} ({n})" for n, f in factor.items()))

# %% [markdown]
# The title says how many times longer than predicted the largest sum took. Compare that with how many ranks speak at once in each
# algorithm: the more do, the more the model relies on links that do not disturb each other. Let us assume the opposite, **one line
# for all**, on which messages go one after the other. Then only totals count: all messages, all bytes. And remember the second
# column of the table: in bytes, all three are equal.

# %%
messages = {"naive": 2 * (N - 1), "tree": 2 * (N - 1), "ring": 2 * N * (N - 1)}
assert messages == bill["messages in all"].to_dict()
one_line = {name: k * alpha + 2 * (N - 1) * beta * nbytes for name, k in messages.items()}
models = {"own links": own_links, "one line for all": one_line}
parts = {"typical": slice(None), "largest tensor": slice(-1, None)}


def misses(name, times, part):
    return np.exp(np.abs(np.log(measured[name] / times[name]))[part].mean())


off = pd.DataFrame(
    {
        (model, which): {name: misses(name, times, part) for name in times}
        for model, times in models.items()
        for which, part in parts.items()
    }
)
typical = {model: off[model, "typical"].mean() for model in models}
title = "Predictions are typically off by a factor of "
draw(models, title + " and ".join(f"{f:.1f} ({model})" for model, f in typical.items()))
off.round(2)

# %% [markdown]
# The table has the factors by which predictions miss, up or down: 1 would be perfect. (Typical is the geometric mean over the
# sizes.) Look at the largest tensor first, where the bytes decide: which of the two assumptions is this machine closer to? What
# neither model knows: the additions, ranks that wait for a core, and caches that hold small tensors but not large ones.
#
# **Do the models at least pick the right winner?**

# %%
three = pd.DataFrame({name: measured[name] for name in own_links}, index=ms.index)
winners = (1e3 * pd.DataFrame(measured, index=ms.index)).round(2).add_suffix(", ms")
winners["fastest of ours"] = three.idxmin(axis=1)
winners["own links say"] = ms.idxmin(axis=1)
lost = three.min(axis=1).to_numpy() / three.to_numpy()[range(len(ms)), ms.to_numpy().argmin(1)]
print(f"who trusts the model's choice has {lost.mean():.0%} of the best speed on average")
winners

# %% [markdown]
# torch's own stands beside ours. The line above the table says what it would cost to trust the model here. Where the last two columns
# differ, ask why: what the model promises for the ring rests on links of its own, and ranks on one machine have none. Between machines
# they do. So let us take the model there.
#
# ## On paper: 64 machines
#
# No machine here has 64 links, so this is arithmetic, not a run: 64 machines, each pair with a link that costs as much as one message
# cost above. **Who wins for a network's gradients, millions of bytes, and who for a single number?**

# %%
many, n = 64, np.logspace(1, 9, 200)
paper = predict(many, n)
crossing = n[np.argmax(paper["ring"] < paper["tree"])]
title = f"On paper: on {many} machines the ring overtakes the tree at {crossing / 1e6:.1f} MB"
fig = lines(
    {name: (n, 1e3 * seconds) for name, seconds in paper.items()},
    title,
    "bytes in the tensor",
    "time (ms)",
)
fig.axes[0].set(xscale="log", yscale="log")
show(fig, alt=f"Three predicted curves by size. {title}")

# %% [markdown]
# A short tensor belongs on a tree, a long one on a ring, and naive never wins. NCCL, torch's library for GPUs, chooses between ring and
# tree for every call. And here is the reason why DDP collects gradients in buckets: one long tensor pays for its messages once.
#
# **Exercises:** [`exercises/04_all_reduce_algorithms.ipynb`](../exercises/04_all_reduce_algorithms.ipynb). You will build a ring for tensors of any length, a tree that starts anywhere, and the choice between them.
#
# ## Take-away
#
# > Count messages and bytes *at the busiest rank*: naive overloads one, a tree has the fewest rounds, a ring spreads the bytes evenly.
# > Two numbers, α a message and β a byte, tell which is best for a size. The model is as good as its assumption that links are
# > independent, so measure once where you train.
#
# **To go further**
# - Rajeev Thakur, Rolf Rabenseifner, William Gropp: *Optimization of Collective Communication Operations in MPICH*, 2005: these
#   algorithms, others, and when to choose which.
# - Pitch Patarasuk, Xin Yuan: *Bandwidth optimal all-reduce algorithms for clusters of workstations*, 2009: why no algorithm
#   can send less at the busiest rank than the ring.
# - [NCCL environment variables](https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html): `NCCL_ALGO` picks ring or tree by hand.
# - Next: lesson 05, groups of ranks, and what the backends can do.
