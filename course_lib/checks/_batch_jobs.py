"""Read a batch file as sbatch does, run it among stand-ins, and say which agents it starts.

Nothing of Slurm is needed. It runs on a rank, and what the file starts ends with that rank.
"""

import json
import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from course_lib.checks import _pretend_slurm
from course_lib.checks._launch_words import Launch, read

PATIENCE = 10  # seconds a file may take, in which nothing is computed


class Cluster(NamedTuple):
    """What Slurm gives a job.

    Attributes:
        job: The job's number.
        nodes: Name and address of each node, the first one first.
    """

    job: int
    nodes: dict[str, str]


CLUSTERS = (
    Cluster(4711, {"gpu-07": "10.1.0.7", "gpu-11": "10.1.0.11", "gpu-12": "10.1.0.12"}),
    Cluster(4712, {"gpu-02": "10.1.0.2", "gpu-03": "10.1.0.3", "gpu-31": "10.1.0.31"}),
)


class Agent(NamedTuple):
    """An agent that a file starts.

    Attributes:
        node: Where.
        launch: With what words, or why torchrun refuses them.
        step: srun's own options; None without srun.
    """

    node: str
    launch: Launch | str
    step: dict[str, str] | None


class Run(NamedTuple):
    """What a file did on one cluster.

    Attributes:
        agents: In the order in which they were started.
        code: How it ended; None if it had to be ended.
        said: The last line it wrote.
    """

    agents: list[Agent]
    code: int | None
    said: str


def directives(text: str) -> dict[str, str]:
    """What the ``#SBATCH`` lines ask for, by long names; they end at the first command."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            break
        if line.startswith("#SBATCH"):
            with suppress(ValueError):  # an odd quote: sbatch refuses the line
                found |= _pretend_slurm.options(shlex.split(line[7:], comments=True))[0]
    return found


def minutes(text: str) -> float | None:
    """Slurm's ways to write a time: m, m:s, h:m:s, d-h, d-h:m, d-h:m:s. None for others."""
    days, dash, clock = text.rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        if dash:
            h, m, s = (*parts, 0, 0)[:3]
            return int(days) * 1440 + h * 60 + m + s / 60
        if len(parts) == 3:
            return parts[0] * 60 + parts[1] + parts[2] / 60
        return parts[0] + (parts[1] / 60 if len(parts) == 2 else 0)
    except ValueError:
        return None


def number(text: str | None) -> int | None:
    """``"4"``, ``"gpu:4"`` or ``"gpu:a100:4"`` as a number; None for anything else."""
    last = (text or "").rpartition(":")[2]
    return int(last) if last.isdecimal() else None


def grammar(text: str) -> str:
    """What bash cannot read in it, or ``""``."""
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def run(
    text: str,
    asked: dict[str, str],
    cluster: Cluster,
    folder: Path,
    patience: float,
    code: int = 0,
) -> Run:
    """Run a file on a cluster of stand-ins.

    Args:
        text: The file.
        asked: Its directives.
        cluster: What Slurm gives it.
        folder: An empty one, to work in.
        patience: Seconds it may take.
        code: With which each agent ends.
    """
    notes, submitted, tools = (folder / name for name in ("notes", "submitted", "tools"))
    for one in (notes, submitted, tools):
        one.mkdir()
    job = folder / "job.sbatch"
    job.write_text(text)
    _put(tools)
    (submitted / "train.py").touch()
    (submitted / ".venv" / "bin").mkdir(parents=True)
    (submitted / ".venv" / "bin" / "activate").touch()
    environ = _environment(asked, cluster, notes, submitted, tools) | {"PRETEND_CODE": str(code)}
    with (folder / "said").open("w+") as said:
        started = subprocess.Popen(
            ["bash", str(job)],
            cwd=submitted,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            ended = started.wait(patience)
        except subprocess.TimeoutExpired:
            ended = None
            started.kill()
        said.seek(0)
        lines = [line for line in said.read()[-4000:].splitlines() if line.strip()]
    found = [json.loads(note.read_text()) for note in sorted(notes.iterdir())]
    agents = [Agent(one["node"], read(one["words"]), one["step"]) for one in found]
    return Run(agents, ended, (lines or [""])[-1].replace(f"{job}: ", ""))


def _put(tools: Path) -> None:
    program = [sys.executable, "-I", "-S", _pretend_slurm.__file__]
    for name in _pretend_slurm.NAMES:
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.join([*program, name])} "$@"\n')
        (tools / name).chmod(0o755)


def _environment(
    asked: dict[str, str], cluster: Cluster, notes: Path, submitted: Path, tools: Path
) -> dict[str, str]:
    first, nodes = next(iter(cluster.nodes)), len(cluster.nodes)
    slurm: dict[str, Any] = {
        **{"JOB_ID": cluster.job, "JOBID": cluster.job, "JOB_NAME": asked.get("job-name", "job")},
        **{"JOB_NODELIST": ",".join(cluster.nodes), "NODELIST": ",".join(cluster.nodes)},
        **{"JOB_NUM_NODES": nodes, "NNODES": nodes, "SUBMIT_DIR": submitted, "NODEID": 0},
        **{"PROCID": 0, "LOCALID": 0, "LAUNCH_NODE_IPADDR": cluster.nodes[first]},
    }
    tasks, each = number(asked.get("ntasks")), number(asked.get("ntasks-per-node"))
    if tasks or each:
        slurm |= {"NTASKS": tasks or nodes * each, "NPROCS": tasks or nodes * each}
    counts = ("ntasks-per-node", "cpus-per-task", "cpus-per-gpu")
    for name in (*counts, "gpus-per-node", "gpus-per-task", "gpus"):
        if asked.get(name):
            slurm[name.upper().replace("-", "_")] = asked[name]
    theirs = ("SLURM", "SRUN_")  # of a job that this runs in
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return kept | {
        **{f"SLURM_{name}": str(value) for name, value in slurm.items()},
        **{"SLURMD_NODENAME": first, "HOSTNAME": first, "HOME": str(submitted)},
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PRETEND_NOTES": str(notes),
        "PRETEND_ADDRESSES": json.dumps(cluster.nodes),
    }
