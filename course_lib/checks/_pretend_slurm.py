"""The commands a batch file calls on a cluster, as stand-ins that note who starts what where.

This file is the program behind all of them: ``_batch_jobs`` puts them in front of the ``PATH``, and
``srun`` then starts a process a task that believes to be on its node. The rules of the real srun
that matter here: what the ``#SBATCH`` lines say is its default, by way of the environment, and
``--ntasks`` from there weighs more than an ``--ntasks-per-node`` of its own. Not so the
``--cpus-per-task``: srun takes its own, or ``SRUN_CPUS_PER_TASK``, and never the job's.
"""

import json
import os
import subprocess
import sys
import tempfile

NAMES = ("srun", "scontrol", "hostname", "torchrun", "python", "python3", "module")
# Of sbatch's and srun's options, the short names, and whether a value follows.
SHORT = {
    "N": "nodes",
    "n": "ntasks",
    "c": "cpus-per-task",
    "G": "gpus",
    "w": "nodelist",
    "t": "time",
    "o": "output",
    "e": "error",
    "i": "input",
    "J": "job-name",
    "A": "account",
    "p": "partition",
    "q": "qos",
    "D": "chdir",
    "x": "exclude",
    "C": "constraint",
    "m": "distribution",
    "a": "array",
}
_WITH_A_VALUE = {
    *SHORT.values(),
    *("ntasks-per-node", "tasks-per-node", "gpus-per-node", "gpus-per-task", "gres", "mem"),
    *("mem-per-cpu", "mem-per-gpu", "cpu-bind", "gpu-bind", "mpi", "export", "signal", "comment"),
    *("cpus-per-gpu", "ntasks-per-gpu", "mail-type", "mail-user", "open-mode", "threads-per-core"),
}
_ALIKE = {"tasks-per-node": "ntasks-per-node"}


def options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options in front of a command, by their long names, and the command."""
    found, words = {}, list(words)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
        else:
            name, value = SHORT.get(word[1:2], word[1:2]), word[2:]
            equals = value
        if not equals and name in _WITH_A_VALUE and words:
            value = words.pop(0)
        found[_ALIKE.get(name, name)] = value
    return found, words


def srun(words: list[str]) -> int:
    """Start the command once a task, one after the other, each on its node."""
    mine, command = options(words)
    if cores := os.environ.get("SRUN_CPUS_PER_TASK"):
        mine.setdefault("cpus-per-task", cores)
    names = os.environ["SLURM_JOB_NODELIST"].split(",")
    if "nodelist" in mine:
        names = [name for name in names if name in mine["nodelist"].split(",")]
    most = int(mine.get("nodes", str(len(names))).rpartition("-")[2])
    tasks = mine.get("ntasks") or os.environ.get("SLURM_NTASKS")
    names = names[:most]
    tasks = int(tasks or len(names) * int(mine.get("ntasks-per-node", 1)))
    names = names[:tasks]
    code, number = 0, 0
    for node, name in enumerate(names):
        here = tasks // len(names) + (node < tasks % len(names))
        for local in range(here):
            at = {"NODEID": node, "PROCID": number, "LOCALID": local, "NTASKS": tasks}
            at |= {"NPROCS": tasks, "NNODES": len(names), "STEP_NUM_NODES": len(names)}
            environ = os.environ | {f"SLURM_{key}": str(value) for key, value in at.items()}
            environ |= {"SLURMD_NODENAME": name, "HOSTNAME": name}
            environ["PRETEND_STEP"] = json.dumps(mine)
            code = max(code, subprocess.call(command, env=environ))
            number += 1
    return code


def scontrol(words: list[str]) -> int:
    """``scontrol show hostnames [list]``: a node a line."""
    if words[:1] != ["show"] or words[1:2] not in (["hostnames"], ["hostname"]):
        print("scontrol: here it can show hostnames only", file=sys.stderr)
        return 1
    names = (words[2:] or [os.environ["SLURM_JOB_NODELIST"]])[0]
    print("\n".join(names.split(",")))
    return 0


def hostname(words: list[str]) -> int:
    """The name of the node one is on, or its address."""
    name = os.environ["SLURMD_NODENAME"]
    asks = "".join(words)
    by_address = asks in ("--ip-address", "--all-ip-addresses", "-i", "-I")
    print(json.loads(os.environ["PRETEND_ADDRESSES"])[name] if by_address else name)
    return 0


def agent(words: list[str]) -> int:
    """Note that an agent is started, where, and with what; it fails if it is to."""
    step = os.environ.get("PRETEND_STEP")
    note = {
        "node": os.environ["SLURMD_NODENAME"],
        "words": words,
        "step": json.loads(step) if step else None,
    }
    folder = os.environ["PRETEND_NOTES"]
    handle, _ = tempfile.mkstemp(dir=folder, prefix=f"{len(os.listdir(folder)):03d}_")
    with os.fdopen(handle, "w") as file:
        json.dump(note, file)
    return int(os.environ["PRETEND_CODE"])


def python(words: list[str]) -> int:
    """Whatever is no agent Python does itself."""
    return subprocess.call([sys.executable, *words])


def main(name: str, words: list[str]) -> int:
    """Be the command ``name``."""
    if name == "module":
        return 0
    known = {"srun": srun, "scontrol": scontrol, "hostname": hostname}
    if name in known:
        return known[name](words)
    is_agent = name == "torchrun" or "torch.distributed.run" in words
    return agent([name, *words]) if is_agent else python(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
