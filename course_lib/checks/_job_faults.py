"""What a batch file has to do in "read an sbatch file", and what each mistake in it looks like.

Every question is about what Slurm is asked for, or which agents are started with what words. How
the file comes to it is its own affair.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from course_lib.checks._batch_jobs import Agent, Cluster, Run, minutes, number
from course_lib.checks._launch_words import Launch

NODES, GPUS, CORES, HOURS = 3, 4, 6, 10  # nodes; GPUs, and so ranks, a node; cores a rank; hours
PROGRAM = ("train.py", "--epochs=90")
_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "")


def why_not_asked(text: str, asked: dict[str, str]) -> str:
    """A hint if nodes or time are not asked for, or ``""``.

    Args:
        text: The file.
        asked: Its directives.
    """
    if "array" in asked:
        return f"--array={asked['array']} makes a job of each of its numbers, and one is wanted"
    least, _, most = asked.get("nodes", "").partition("-")
    if number(most or least) == NODES != number(least):
        return f"--nodes={NODES}: with {least}-{most} Slurm may start the job when it has {least}"
    if number(most or least) != NODES:
        return f"--nodes={NODES} (got {asked.get('nodes')})"
    if "time" not in asked and "--time" in text:
        hint = "sbatch reads no further than the first command: an #SBATCH line behind it is a "
        return hint + "comment like others, and the job gets the cluster's usual time"
    if "time" not in asked:
        return "without --time the job gets the cluster's usual time, perhaps an hour"
    if minutes(asked["time"]) == HOURS:
        return f"--time={asked['time']} is {HOURS} minutes: with two parts it is minutes:seconds"
    if minutes(asked["time"]) != 60 * HOURS:
        return f"{HOURS} hours are {HOURS}:00:00 (got {asked['time']})"
    return ""


def why_one_output(run: Run, cluster: Cluster, asked: dict[str, str]) -> str:
    """A hint if two jobs write into the same file, or ``""``; srun has such options, too."""
    marks = ("%j", "%J", "%A", str(cluster.job))
    for options in (asked, *(agent.step or {} for agent in run.agents)):
        for name in (options[kind] for kind in ("output", "error") if kind in options):
            if not any(mark in name for mark in marks):
                hint = f"the next job overwrites {name}: "
                return hint + "%j in a name is the job's number, %x its name"
    return ""


def why_unnoticed(run: Run) -> str:
    """A hint if the file ends well although its agents have failed, or ``""``."""
    if run.code is None:
        return "when its agents fail, the file does not end"
    hint = "each torchrun failed, and the file ended with 0, so for Slurm the job went well: "
    hint += "|| true hides it, another command behind srun may, and so does a bare wait"
    return "" if run.code else hint


def questions(run: Run, cluster: Cluster, asked: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What has to hold for the agents that were started, each with a hint where it does not.

    The later ones can be asked only if the earlier ones hold.
    """
    agents = run.agents
    names = ", ".join(cluster.nodes)
    yield f"on {names}: one agent each", _why_other_agents(run, cluster)
    yield "torchrun takes the words of each", _why_refused(agents)
    launches = [agent.launch for agent in agents]
    yield f"{NODES} nodes × {GPUS} ranks are {NODES * GPUS}", _why_other_ranks(launches)
    first = next(iter(cluster.nodes))
    hint = _why_apart(agents, cluster) or _why_mistaken(agents, cluster)
    yield f"all agents meet at the first node, {first}", hint
    yield "the program and its flags are as before", _why_other_program(launches)
    yield f"each rank has a GPU and {CORES} cores", _why_too_few(agents, asked)


def _why_other_agents(run: Run, cluster: Cluster) -> str:
    """A hint if it is not one agent a node, or ``""``."""
    if run.code is None:
        return "it does not end"
    counts, said = Counter(agent.node for agent in run.agents), f" (it wrote: {run.said})"
    if not run.agents or (run.code and len(counts) < NODES):
        return f"it ended with code {run.code} before all were started{said * bool(run.said)}"
    if any(agent.step is None for agent in run.agents):
        return "the file itself runs on the first node only: srun starts a command on all of them"
    if most := max(counts.values()) - 1:
        hint = f"{len(run.agents)} agents of {GPUS} ranks each: srun starts a command once a task, "
        return hint + f"{most + 1} times a node here, and torchrun starts the ranks"
    if absent := [name for name in cluster.nodes if name not in counts]:
        return f"no agent on {', '.join(absent)}"
    return f"it ended with code {run.code}{said}" if run.code else ""


def _why_refused(agents: Sequence[Agent]) -> str:
    """A hint if torchrun refuses an agent's words, or ``""``."""
    return next((agent.launch for agent in agents if isinstance(agent.launch, str)), "")


def _why_other_ranks(launches: Sequence[Launch]) -> str:
    """A hint if not all agents wait for 3 nodes of 4 ranks, or ``""``."""
    for launch in launches:
        least, most = launch.nodes
        if launch.rest.get("standalone"):
            return "--standalone makes a node that meets nobody: leave it out"
        if most == NODES * GPUS:
            return f"--nnodes counts nodes, not the {most} ranks of them all"
        if least != most:
            return f"all {NODES} are to come: {least}:{most} begins with {least}"
        if most > NODES:
            return f"they wait for {most} nodes, the job has {NODES}, and the GPUs wait with them"
        if most < NODES:
            return f"{most} nodes are soon together, and the others find the door closed"
        if launch.ranks not in (str(GPUS), "gpu", "auto"):
            return f"a rank a GPU, and a node has {GPUS} (got --nproc-per-node={launch.ranks})"
    return ""


def _why_apart(agents: Sequence[Agent], cluster: Cluster) -> str:
    """A hint if the agents do not meet at the first node, or ``""``."""
    launches = [agent.launch for agent in agents]
    first, address = next(iter(cluster.nodes.items()))
    if {launch.backend for launch in launches} - {"c10d", "static"}:
        return "the rendezvous is c10d, or static with a --node-rank for each"
    if any(launch.host in _HERE for launch in launches):
        return "localhost is whatever machine one is on: each agent waits for the others at home"
    ends = {launch.endpoint for launch in launches}
    if len(ends) > 1:
        ways = ", ".join(f"{agent.node} to {agent.launch.endpoint}" for agent in agents)
        return f"{ways}: in single quotes a $(…) is computed on each node, outside of them once"
    if launches[0].host not in (first, address):
        hint = f"the first node of this job is {first}, and of the next one another: have it "
        return hint + f"computed (got {launches[0].host})"
    port = launches[0].port
    if port is not None and not (port.isdecimal() and 0 < int(port) < 2**16):
        return f"all must know the port: a number up to 65535, and 0 would be any one (got {port})"
    if len({launch.run for launch in launches}) > 1:
        hint = "each agent has an --rdzv-id of its own, and waits under it alone: in single quotes "
        return hint + "$RANDOM is drawn on each node"
    if any(launch.is_static for launch in launches):
        numbers = [agent.launch.node for agent in agents]
        if sorted(numbers) != list(range(NODES)):
            return f"static nodes need numbers from 0 to {NODES - 1} (got {numbers})"
        if agents[numbers.index(0)].node != first:
            return "node 0 is the one whose address the others know"
    return ""


def _why_mistaken(agents: Sequence[Agent], cluster: Cluster) -> str:
    """A hint if an agent is told something wrong about its own node, or ``""``."""
    first = next(iter(cluster.nodes))
    for node, launch, _ in agents:
        if launch.local and launch.local not in (node, cluster.nodes[node]):
            hint = f"--local-addr is an agent's own address, and {node} says {launch.local}: in "
            return hint + "single quotes a $(…) is computed on each node, outside of them once"
        if launch.hosts and node != first:
            hint = f"is_host: all meet in the store of {first}, and that of {node} stays empty; "
            return hint + "left out, torch finds out for itself"
        if launch.hosts is False and node == first:
            return f"is_host: if {first} opens no store, there is none to meet in"
    return ""


def _why_other_program(launches: Sequence[Launch]) -> str:
    """A hint if the program or its flags have changed, or ``""``."""
    for launch in launches:
        name, *flags = launch.program
        if not name.endswith(PROGRAM[0]) or "=".join(flags) != PROGRAM[1]:
            return f"{' '.join(PROGRAM)} (got {' '.join(launch.program)})"
    return ""


def _why_too_few(agents: Sequence[Agent], asked: dict[str, str]) -> str:
    """A hint if an agent's ranks lack GPUs or cores, or ``""``."""
    each = number(asked.get("ntasks-per-node"))
    each = each or math.ceil((number(asked.get("ntasks")) or NODES) / NODES)
    gpus = _gpus(asked, each) or 0
    cores = number(asked.get("cpus-per-gpu"))
    cores = gpus * cores if cores else each * (number(asked.get("cpus-per-task")) or 1)
    for agent in agents:
        step = agent.step or {}
        mine = _gpus(step, 1)
        if mine is None:
            mine = number(asked["gpus-per-task"]) if "gpus-per-task" in asked else gpus
        if mine != GPUS:
            hint = f"the agent's task has {mine}, and its {GPUS} ranks need one each"
            return "GPUs: " + hint + ("; --gpus-per-task counts for a task" * (mine == 1))
        most = number(asked.get("gpus-per-task"))
        if most and (number(step.get("gpus-per-task")) or 0) > most:
            return f"GPUs: srun refuses {mine} for a task if the job has asked for {most} a task"
        if gpus < GPUS:
            return f"GPUs: srun asks for {mine} a node, and the job has {gpus}"
        if hint := _why_few_cores(step, asked, cores):
            return f"cores: {hint}"
    return ""


def _why_few_cores(step: dict[str, str], asked: dict[str, str], cores: int) -> str:
    """A hint if a task with all GPUs of a node lacks cores, or ``""``; the job has ``cores``."""
    wanted, per_task, per_gpu = GPUS * CORES, "cpus-per-task", "cpus-per-gpu"
    if per_task in asked and per_gpu in asked:
        return f"sbatch takes --{per_task} or --{per_gpu}, not both"
    if cores < wanted:
        return f"the job has {cores} a node, and {CORES} a rank make {wanted}"
    share = number(step.get(per_task))
    if share is None:
        share = GPUS * (number(step.get(per_gpu) or asked.get(per_gpu)) or 0)
    if not share:
        hint = "since Slurm 22.05 srun does not take --cpus-per-task over from the job, and a task "
        return hint + 'has one: tell it again, srun --cpus-per-task="$SLURM_CPUS_PER_TASK"'
    if share < wanted:
        hint = f"the agent's task has {share}, and its {GPUS} ranks share them; "
        return hint + f"{CORES} a rank make {wanted}"
    return f"srun asks for {share} a node, and the job has {cores}" if cores < share else ""


def _gpus(options: dict[str, str], tasks: int) -> int | None:
    """GPUs a node by these options alone; None if they say nothing."""
    if "gpus-per-task" in options:
        return tasks * (number(options["gpus-per-task"]) or 0)
    for name in ("gpus-per-node", "gres"):
        if name in options:
            return number(options[name]) or 0
    if "gpus" in options:
        return (number(options["gpus"]) or 0) // NODES
    return None
