# %% [markdown]
# # Several nodes: who is who, how they meet, and the cable between them
#
# **You will learn**
# - to tell node rank, local rank and rank apart, and to start one run on several nodes by hand;
# - to predict what a slow cable does to an all-reduce, to measure it, and to send less over it;
# - to see what each side notices when a node is cut off, and to hand the same program to Slurm.
#
# *About 50 minutes; the cells run for about two minutes. Two nodes on this one machine, on the CPU; the slow cable needs Linux, and the right to make network namespaces.*

# %% tags=["parameters"]
ranks_a_node: int = 2  # ranks on each of the two nodes, where more than one is worth a look
preset: str = "quick"  # "smoke", "quick" or "full": how many bandwidths and rounds are measured
seed: int = 0  # initial weights and made-up data
start_method: str = "auto"  # how launch starts ranks

# %%
import os
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from course_lib import (
    RankError,
    choose_preset,
    launch,
    process_group,
    record_results,
    torchrun,
    write_script,
    write_slurm,
)
from course_lib.cable import cable, why_no_cable
from course_lib.plots import COLOURS, figure, mesh_map, show, thousands

preset, PER_NODE = choose_preset(preset), ranks_a_node
no_cable = why_no_cable()
two_nodes = {"nnodes": 2, "device": "cpu"}
print("Two nodes with a cable of their own:", no_cable or "this machine can make them.")

# %% [markdown]
# ## Three numbers
#
# All ranks so far lived on one machine. Now there are two **nodes**, and on each of them an **agent** (torchrun) that starts that node's ranks. Every rank now has three numbers: its **rank** in the whole run, its **local rank** on its node, and the **node rank**, which torchrun calls GROUP_RANK. They arrive as environment variables. With two nodes of two ranks, **which local rank does rank 2 have? And whose address is in MASTER_ADDR on node 1?**

# %%
NUMBERS = ["GROUP_RANK", "LOCAL_RANK", "RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "MASTER_ADDR"]


def who_am_i():
    """Return a rank's numbers, the name of its machine, and the sum of all ranks."""
    with process_group() as pg:
        total = torch.tensor(pg.rank)
        dist.all_reduce(total)
        here = " ".join(f"{name}={os.environ[name]}" for name in NUMBERS[:3])
        print(f"here {here}\n", end="", flush=True)  # in one piece: others print, too
        numbers = {name: os.environ[name] for name in NUMBERS}
        return numbers | {"host": socket.gethostname(), "sum of ranks": total.item()}


introduce = write_script(who_am_i, "who_am_i.py")
if no_cable:
    told = torchrun(introduce, nprocs=PER_NODE, **two_nodes)
else:
    with cable() as net:
        told = torchrun(introduce, nprocs=PER_NODE, cable=net, **two_nodes)
pd.DataFrame(told).rename_axis("rank")

# %% [markdown]
# The local rank says which GPU of *its* node a rank may take: `cuda:LOCAL_RANK`. Whoever writes `cuda:RANK` has a program that works on one node and dies on the second. And all ranks must reach the one address in MASTER_ADDR, the first node's. (On loopback both nodes have this machine's name and address.)
#
# As a map: a row is a node. Ranks of a row share memory and speak fast; what goes from row to row goes through one cable.

# %%
rows = [list(range(node * PER_NODE, (node + 1) * PER_NODE)) for node in (0, 1)]
columns = [list(pair) for pair in zip(*rows, strict=True)]
kinds = {"one node": rows, "same local rank, other node": columns}
local = {rank: f"local rank {rank % PER_NODE}" for rank in range(2 * PER_NODE)}
title = f"Numbered node by node: rank {PER_NODE} is local rank 0 of node 1"
show(mesh_map(rows, kinds, title, local), alt=f"A grid of ranks, a row for each node. {title}")

# %% [markdown]
# ## By hand
#
# What does one type? The same line on every node. `--rdzv-endpoint` is where all **meet** (*rendezvous*): an address and a port of one node, whose agent opens a store there. `--rdzv-id` keeps this run apart from others that meet at the same place. No node is told the others' names; they find each other in the store, and it counts to `--nnodes`. Let us start node 0 alone, on loopback. **What will it do until node 1 is there?**

# %%
import sys

import psutil

with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]  # a free port
line = [
    str(Path(sys.executable).with_name("torchrun")),
    "--nnodes=2",
    f"--nproc-per-node={PER_NODE}",
    "--rdzv-backend=c10d",
    f"--rdzv-endpoint=127.0.0.1:{port}",  # on real nodes: the first one's name or address
    "--rdzv-id=lesson-53",
    "--rdzv-conf=join_timeout=60",  # seconds to wait for the others; else 600
    "--local-addr=127.0.0.1",  # on real nodes: left out, or the node's own
    str(introduce),
]


def open_ports(process):
    """Where a process and its children listen."""
    everyone = [process, *process.children(recursive=True)]
    found = [c for p in everyone for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    return sorted({f"[{c.laddr.ip}]:{c.laddr.port}" for c in found})


def start_agent():
    environ = os.environ | {"COURSE_DEVICE": "cpu", "COURSE_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return psutil.Popen(line, env=environ, **pipes)


# %%
agents = [start_agent()]
try:
    begun = time.monotonic()
    while agents[0].poll() is None and not open_ports(agents[0]):
        time.sleep(0.1)
    time.sleep(3)  # time enough to start ranks, if it wanted to
    waiting, ranks = open_ports(agents[0]), len(agents[0].children())
    print(f"node 0 alone, after 3 s: listens at {waiting}, and has started {ranks} ranks")
    agents.append(start_agent())
    for node, agent in enumerate(agents):
        said, _ = agent.communicate(timeout=120)
        print(f"--- node {node}, exit code {agent.returncode}", said.strip(), sep="\n")
    print(f"{time.monotonic() - begun:.0f} s in all")
finally:
    for agent in agents:
        if agent.poll() is None:
            agent.terminate()  # torchrun then ends its ranks

# %% [markdown]
# Node 0 waits, at its store, and starts no rank before the other has come. Which of the two becomes node 0 in the end is decided there, too: the agents are sorted by address (as text), then by process number. (Without c10d, `--master-addr`, `--master-port` and `--node-rank=0`, `--node-rank=1` let *you* decide. There the lines differ in that one number, and giving two nodes the same one is a classic mistake.)
#
# Look at where it listens. `[::]` or `[0.0.0.0]` means *every* interface of the machine, and the store asks nobody for a password. That is torch's doing, and on several nodes it cannot keep to loopback. So a cluster lives behind a firewall or in a network of its own. (`launch`, and `torchrun` from a cell, hand torch a store that only this machine can reach.)
#
# ## One function, and the same numbers
#
# Nodes are not supposed to change the result. Here is a small training, once with two ranks of this kernel, once on two nodes. **Equal to the last bit?**


# %%
def train(steps: int = 20, seed: int = 0):
    """Train a small network on made-up numbers; return the losses of this rank."""
    with process_group() as pg:
        torch.manual_seed(seed)
        x = torch.randn(64, 8)
        y = x.square().sum(dim=1, keepdim=True)
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
        model, mine = DistributedDataParallel(model), slice(pg.rank, None, pg.world_size)
        optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.01), []
        for _ in range(steps):
            loss = nn.functional.mse_loss(model(x[mine]), y[mine])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"first loss {losses[0]}, last {losses[-1]}", flush=True)
        return losses


program = write_script(train, "train_small.py")
here = launch(train, seed=seed, nprocs=2, device="cpu", start_method=start_method)
on_nodes = torchrun(program, nprocs=1, seed=seed, **two_nodes)
print(f"{len(here[0])} losses on each of 2 ranks, equal to the last bit: {here == on_nodes}")
assert here == on_nodes

# %% [markdown]
# ## A slow cable
#
# Between nodes there is a network. In lesson 04, a message took a start-up time *alpha*, and *beta* for each byte. On one machine we had to fit both; of a cable, the maker prints one on the box. A ring of two sends the whole tensor once in each direction, so
#
# $$\text{time} \approx \alpha + \frac{8 \times \text{bytes}}{\text{bits a second}}.$$
#
# `cable(megabits=…)` makes two nodes out of Linux's own parts: two *network namespaces*, each with a network of its own, joined by a virtual cable on which a *token bucket* lets only so many bits pass a second. What runs in them is torchrun, unchanged. The smallest tensor over a free cable gives alpha. **How long will 2 MB take at 100 Mbit a second? And at 25?**


# %%
def time_all_reduce(sizes: list[int], rounds: int = 5):
    """Return the median milliseconds of an all-reduce, for each size in bytes."""
    with process_group() as pg:
        took = {}
        for size in sizes:
            numbers, times = torch.ones(size // 4), []
            for _ in range(rounds + 1):  # the first one connects
                dist.barrier()
                begun = time.perf_counter()
                dist.all_reduce(numbers)
                times.append(1e3 * (time.perf_counter() - begun))
            took[size] = float(np.median(times[1:]))
        return took if pg.rank == 0 else None


SIZES, MEGABITS = [4, 400_000, 2_000_000], {"smoke": [100]}.get(preset, [25, 100, 400])
stopwatch, took = write_script(time_all_reduce, "time_all_reduce.py"), {}
if no_cable:
    print(f"No slow cable here: {no_cable}. Two agents on loopback instead, at full speed.")
    took["free"] = torchrun(stopwatch, nprocs=1, sizes=SIZES, **two_nodes)[0]
else:
    with cable() as net:
        for megabits in (None, *MEGABITS):
            net.limit(megabits)
            times = torchrun(stopwatch, nprocs=1, cable=net, sizes=SIZES, **two_nodes)
            took[megabits or "free"] = times[0]
alpha = took["free"][4]
milliseconds = pd.DataFrame(took).T.rename_axis("Mbit a second")
milliseconds.rename(columns=lambda size: f"{size:,} bytes, ms").style.format("{:.1f}")

# %%
limits = np.array([m for m in took if m != "free"], dtype=float)
wide = np.geomspace(10, 1000, 50)  # Mbit a second, which is 1,000 bits a millisecond
predicted = {size: alpha + 8e-3 * size / wide for size in SIZES[1:]}
errors = [took[m][s] / (alpha + 8e-3 * s / m) - 1 for m in limits for s in SIZES[1:]]
off = np.abs(errors) if errors else np.array([np.nan])
title = f"The label on the cable predicts the time: off by {np.median(off):.0%} in the median, at worst {max(off):.0%}"
if not errors:
    title = "What a cable of a known bandwidth would take (not measured here)"
names = {"xlabel": "bandwidth (Mbit a second, log)", "ylabel": "all-reduce, 2 nodes (ms, log)"}
fig, ax = figure(title, **names)
for colour, mark, size in zip(COLOURS, "os", SIZES[1:], strict=False):
    ax.plot(wide, predicted[size], "--", color=colour, label=f"{size / 1e6:g} MB, predicted")
    if len(limits):
        ms = [took[m][size] for m in limits]
        ax.plot(limits, ms, mark, color=colour, markersize=8, label=f"{size / 1e6:g} MB, measured")
ax.set(xscale="log", yscale="log")
ax.xaxis.set_major_formatter(thousands())
ax.yaxis.set_major_formatter(thousands())
ax.legend()
show(fig, alt=f"Time of an all-reduce against the bandwidth of the cable, two sizes. {title}")

# %% [markdown]
# Where a cable could be had, one division tells nearly the whole story. It is a little too hopeful: of every 1,514 bytes on the wire, 66 are addresses and sequence numbers, so a few percent are lost from the start.
#
# So you can estimate before you buy. **With gradients in float32, how long does one all-reduce between two nodes take for networks you have heard of?** (The numbers of parameters are rounded.)

# %%
networks = {"1 million": 1e6, "ResNet-50": 25.6e6, "BERT-base": 110e6, "7 billion": 7e9}
gigabits = [0.1, 1, 10, 100, 400]
seconds = {g: {name: 8 * 4 * n / (g * 1e9) for name, n in networks.items()} for g in gigabits}
reckoned = pd.DataFrame(seconds).rename_axis(index="parameters", columns="Gbit a second")


def human(seconds):
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


table = reckoned.style.format(human).format_index("{:g}", axis=1)
table.background_gradient(axis=None, gmap=np.log10(reckoned), cmap="YlOrBr")

# %% [markdown]
# Hold that against the step itself. If ResNet-50's takes a tenth of a second, 1 Gbit makes it wait for most of its life; with 100 Gbit the gradients can hide behind the backward pass (lesson 63). The last row is why such networks are trained where the network is as much a part of the machine as the GPUs are.
#
# ## Send less over it
#
# With several ranks a node, the ring goes through all of them: from 0 to 1, over the cable to 2, to 3, and over the cable back to 0. Each link of a ring carries 2 (N − 1) ÷ N of the tensor: for N = 4, one and a half. But the cable need not carry more than **one**, if the ranks of a node first add up among themselves. In the map above, `inside` is a row and `across` a column.


# %%
def one_ring(x, inside, across):
    dist.all_reduce(x)
    return x


def two_levels(x, inside, across):
    parts = [part.contiguous() for part in x.chunk(dist.get_world_size(inside))]
    mine = torch.empty_like(parts[dist.get_rank(inside)])
    dist.reduce_scatter(mine, parts, group=inside)  # this node's sum of my part
    dist.all_reduce(mine, group=across)  # with the rank of my number on the other node
    dist.all_gather(parts, mine, group=inside)
    return torch.cat(parts)


# %% [markdown]
# All columns use the cable at the same time, but each for its own part only. Linux counts what leaves through the cable. **Which way sends less, and does the time follow?**


# %%
def bytes_sent():
    """What this node has sent through the cable since it was made."""
    for text in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = text.partition(":")
        if name.strip() == "cable":
            return int(counts.split()[8])
    raise LookupError("no interface named cable here")


def compare_ways(per_node: int, size: int = 252_000, rounds: int = 5):
    """Return milliseconds and megabytes through the cable of an all-reduce, for each way.

    The ranks of a node divide ``size`` numbers among themselves: it is a multiple of 1 to 10.
    """
    with process_group() as pg:
        node, local = divmod(pg.rank, per_node)
        inside = [dist.new_group([n * per_node + i for i in range(per_node)]) for n in (0, 1)]
        across = [dist.new_group([i, per_node + i]) for i in range(per_node)]
        x, table, sums = torch.randn(size), {}, {}
        for way in (one_ring, two_levels):
            sums[way] = way(x.clone(), inside[node], across[local])  # the first one connects
            dist.barrier()
            sent, begun = bytes_sent(), time.perf_counter()
            for _ in range(rounds):
                way(x.clone(), inside[node], across[local])
            dist.barrier()
            each = 1e3 * (time.perf_counter() - begun) / rounds
            table[way.__name__] = {"ms": each, "MB sent": (bytes_sent() - sent) / rounds / 1e6}
        torch.testing.assert_close(sums[one_ring], sums[two_levels])
        return table


# %%
if no_cable or PER_NODE < 2:
    print(f"Not measured: {no_cable or 'one rank a node is one level'}.")
    ways = {}
else:
    rival = write_script(compare_ways, "compare_ways.py")
    with cable(megabits=100) as net:
        ways = torchrun(rival, nprocs=PER_NODE, cable=net, per_node=PER_NODE, **two_nodes)[0]
    one, two = (pd.Series(ways[way]) for way in ("one_ring", "two_levels"))
    title = f"Two levels send {1 - two['MB sent'] / one['MB sent']:.0%} less, and take {1 - two['ms'] / one['ms']:.0%} less time"
    fig, (above, below) = figure(title, xlabel="", nrows=2, size=(7.2, 3.4))
    for ax, what, hatch in ((above, "ms", ""), (below, "MB sent", "//")):
        values = [one[what], two[what]]
        drawn = ax.barh([0, 1], values, color=COLOURS[:2], hatch=hatch)
        ax.bar_label(drawn, fmt=" {:,.3g}")
        ax.set_yticks([0, 1], ["one ring", "two levels"])
        ax.set(xlabel=f"{what} an all-reduce", ylabel="way", xlim=(0, 1.12 * max(values)))
        ax.invert_yaxis()
    show(fig, alt=f"Bars of time and of bytes through the cable for both ways. {title}")

# %% [markdown]
# Where it was measured, the sums agree up to rounding: the order of the additions is another. NCCL plans such ways by itself; with Gloo they are yours to write. The rule is the same: **neighbours in the group should be neighbours in the network**, and the slow link should carry each number once.
#
# ## The interface to pin
#
# A machine may have a dozen interfaces: a cable, Wi-Fi, Docker's bridge, a VPN, loopback. Each rank tells the others an address at which it can be reached, and if nobody says which, Gloo asks what the machine's own *name* stands for. Debian and Ubuntu write `127.0.1.1` into `/etc/hosts` for it. So let all ranks use the wrong one on purpose: loopback. **Whom will rank 0 reach when it calls rank 1 at 127.0.0.1?**


# %%
def wrong_interface():
    """Tell the others an address that means something else to them."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with process_group(timeout=5) as pg:
        return pg.rank


if no_cable:
    print(f"Not shown: two agents on one machine do meet on its loopback. ({no_cable})")
else:
    mistaken = write_script(wrong_interface, "wrong_interface.py")
    try:
        with cable() as net:
            torchrun(mistaken, nprocs=1, cable=net, **two_nodes)
    except RankError as error:
        if error.headline == "interrupted":
            raise
        print(f"\n{error}")

# %% [markdown]
# `remote=[127.0.0.1]` stands in the error on two nodes: the rank has called its own node, where nobody listens. On several nodes, set `GLOO_SOCKET_IFNAME` and `NCCL_SOCKET_IFNAME` to the interface of the fast network (`ip -brief address` lists them). The address in such an error says more than its words.
#
# ## A node is cut off
#
# When a *process* dies, its operating system closes its connections, and the others hear of it. When a *cable* is pulled, nobody says anything: silence looks like a slow rank. In the third step, the last rank goes silent in one of three ways. **Who notices, and when?**


# %%
import signal


def until_silence(patience: float, how: str):
    """Add up numbers until the last rank falls silent; tell what the others see."""
    with process_group(timeout=patience) as pg:
        numbers = torch.ones(25_000)
        for step in range(1000):
            if step == 3 and pg.rank == pg.world_size - 1:
                print(f"now: {how}", flush=True)
                if how == "pull the cable":
                    subprocess.run(["ip", "link", "set", "cable", "down"], check=True)
                else:  # a process that is stopped is as silent as a pulled cable
                    os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)
            begun = time.monotonic()
            try:
                dist.all_reduce(numbers)
            except RuntimeError as error:
                said = str(error).rpartition("] ")[2] or error
                print(f"after {time.monotonic() - begun:.1f} s: {said}", flush=True)
                raise


# %%
silencer = write_script(until_silence, "until_silence.py")


def fall_silent(how, patience, timeout):
    begun, options = time.monotonic(), {"how": how, "patience": patience, "timeout": timeout}
    try:
        if no_cable:
            torchrun(silencer, nprocs=1, **options, **two_nodes)
        else:
            with cable() as net:
                torchrun(silencer, nprocs=1, cable=net, **options, **two_nodes)
    except RankError as error:
        if error.headline == "interrupted":
            raise
        print(str(error).partition("\nTraceback")[0])
    print(f"over after {time.monotonic() - begun:.0f} s, with the start")


fall_silent("kill", patience=1800, timeout=60)

# %% [markdown]
# A death is known at once, however patient the group is. Now the cable (where there is none, the process is stopped instead), and Gloo's default patience, 30 minutes. We do not wait so long: `torchrun` in a cell gives up after 6 seconds without a word.

# %%
quietly = "stop" if no_cable else "pull the cable"
fall_silent(quietly, patience=1800, timeout=6)

# %% [markdown]
# Nothing. Both sides sit in `all_reduce` and wait for each other. (We did wait, once. After 16 minutes Linux gave up the connection between the cut-off agent and the store, and that agent ended its rank. The rank on the other side waited for 30 minutes, to the second.) Once more, with a `timeout` of 3 seconds; `process_group` hands it to `init_process_group`.

# %%
fall_silent(quietly, patience=3, timeout=60)

# %% [markdown]
# Each side gives up by itself after its own 3 seconds; nobody has to tell it. (With the process stopped, only the other side can.) Choose a timeout well above the longest honest pause of a step, such as the first batch, an evaluation, a checkpoint, and far below 30 minutes.
#
# And why is the run not over a moment later? Look at the agents. The one on the side of the store sees its rank fail, and leaves. The other one keeps asking the store whether anybody wants to join; when the cable is pulled it waits for an answer that cannot come, does not see that the rank beside it has died, and does not even heed a polite signal. `torchrun` in a cell ends it after ten seconds. On a cluster that is the scheduler's work.
#
# ## Slurm
#
# On a cluster nobody logs in to each node to type a line. One file says what is needed, and a **scheduler** such as Slurm finds the nodes and runs the line on each.

# %%
batch = write_slurm(program, nprocs=1, nnodes=2, minutes=5, device="cpu", seed=seed)
print(batch.read_text())

# %% [markdown]
# From top to bottom: what is asked for (two nodes, and one *task* on each, which is torchrun; not one task a rank); the first node's name, out of Slurm's list; and `srun`, which runs the line once on every node. The endpoint is the same everywhere, because `$first` is worked out *before* `srun`. The job's number serves as `--rdzv-id` and gives the port, so that two jobs do not meet. And `--kill-on-bad-exit` is what ends the agent that does not see its rank die.
#
# Does it run? [Slurm on one machine](../docs/slurm_on_one_machine.md) tells how to have a real one with two nodes here. If it is set up and answers, we submit the file and wait. (Only to that one: no cluster's queue is filled by Run All.)

# %%
conf = Path(os.environ.get("SLURM_CONF", "there is none"))
if not conf.is_file() or "ClusterName=here\n" not in conf.read_text():
    no_slurm = "no Slurm has been set up for the course on this machine"
elif subprocess.run(["timeout", "20", "scontrol", "ping"], capture_output=True).returncode:
    no_slurm = "Slurm is set up, but its controller does not answer"
else:
    no_slurm = None
if no_slurm:
    print(f"Not submitted: {no_slurm}.")
else:
    submit, begun = ["sbatch", "--parsable", batch], time.monotonic()
    root = program.parents[1]  # the job runs in the folder from which it is submitted
    number = subprocess.check_output(submit, cwd=root, text=True, timeout=60).strip()
    queue = ["squeue", "--noheader", f"--jobs={number}"]
    try:
        while subprocess.check_output(queue, timeout=60) and time.monotonic() < begun + 300:
            time.sleep(1)
    finally:
        subprocess.run(["scancel", number], capture_output=True, timeout=60)  # if it still waits
    print(f"job {number}, {time.monotonic() - begun:.0f} s:")
    print(batch.with_name(f"{batch.stem}-{number}.out").read_text())

# %% [markdown]
# Where it runs, these are the losses of the two ranks above, digit for digit. (Which node becomes node 0 is decided when they meet.)

# %% [markdown]
# ## Other schedulers
#
# Kubernetes and the clouds' batch services know no `srun`, but the same few facts: how many nodes, how many ranks on each, where to meet. [TorchX](https://docs.pytorch.org/torchx/latest/) writes them down for several schedulers. **Not run here**, neither by us nor by the tests; the names of image and queue are made up, the image must hold the program, and on Kubernetes TorchX needs the scheduler Volcano:
#
# ```sh
# torchx run --workspace "" --scheduler kubernetes --scheduler_args queue=training \
#     dist.ddp -j 2x4 --gpu 4 --cpu 8 --memMB 32000 \
#     --image registry.example/course:1 --script scripts/train_small.py
# torchx run --workspace "" --scheduler aws_batch --scheduler_args queue=training \
#     dist.ddp -j 2x4 --gpu 4 --cpu 8 --memMB 32000 \
#     --image registry.example/course:1 --script scripts/train_small.py
# ```
#
# `-j 2x4` is `--nnodes=2 --nproc-per-node=4`; GPUs, cores and memory are those of a node. What you have learnt carries over: the program reads the same variables.

# %%
recorded = {"cable": no_cable is None, "all_reduce_alpha_ms": alpha}
if errors:
    recorded["prediction_error_max"] = float(max(map(abs, errors)))
if ways:
    recorded["two_level_bytes_ratio"] = ways["two_levels"]["MB sent"] / ways["one_ring"]["MB sent"]
record_results(preset=preset, seed=seed, world_size=2 * PER_NODE, **recorded)

# %% [markdown]
# **Exercises:** [`exercises/53_multi_node.ipynb`](../exercises/53_multi_node.ipynb). You will complete the launch of node 1, and read an sbatch file that has cost somebody a night.
#
# ## Take-away
#
# > One line, typed on every node; the store at the endpoint does the rest. The local rank chooses the GPU, the rank chooses the data.
# > Time over a cable is alpha plus bytes by bandwidth, and the label on the box is nearly right. Send each number over the slow link once.
# > A death is heard, silence is not: set a timeout, pin the interface, and leave the ending of agents to a scheduler.
#
# **To go further**
# - PyTorch: [torchrun](https://docs.pytorch.org/docs/stable/elastic/run.html) and [rendezvous](https://docs.pytorch.org/docs/stable/elastic/rendezvous.html).
# - NVIDIA: [NCCL environment variables](https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html), for interfaces and for what NCCL decides by itself.
# - Michael Kerrisk: [`network_namespaces(7)`](https://man7.org/linux/man-pages/man7/network_namespaces.7.html), what our two nodes are made of.
# - Next: lesson 60 saves a run, and goes on with it.
