"""Write the ``sbatch`` file that runs a program with torchrun on a Slurm cluster."""

import shlex
from pathlib import Path
from typing import Any

from course_lib._arguments import check_device
from course_lib._flags import on_command_line
from course_lib._programs import existing_program, from_root, write_marked

_MARK = "# Written by course_lib.write_slurm."


def write_slurm(
    path: str | Path,
    nprocs: int = 2,
    nnodes: int = 1,
    max_restarts: int = 0,
    device: str = "auto",
    minutes: int = 60,
    **flags: Any,
) -> Path:
    """Write the ``sbatch`` file that runs a program with torchrun on a Slurm cluster.

    It stands beside the program. Slurm starts one torchrun on each node; those meet at the first
    node of the job and start the ranks. Edit it to your cluster's needs (partition, account,
    modules), and submit it from the course's folder, whose ``.venv`` it uses.

    Args:
        path: The program, as ``write_script`` returned it.
        nprocs: Ranks a node.
        nnodes: Nodes.
        max_restarts: How often torchrun starts all ranks again after one has failed.
        device: ``"cuda"`` asks Slurm for a GPU a rank; ``"cpu"`` and ``"auto"`` do not.
        minutes: The job's time limit.
        **flags: The program's flags.

    Returns:
        The full path of the ``sbatch`` file.

    Raises:
        FileNotFoundError: There is no program at ``path``.
        ValueError: A number is out of range, or ``device`` is unknown.
        OSError: The file cannot be written, or was not written by this function.
    """
    program = existing_program(path)
    for what, value, least in (
        ("nprocs", nprocs, 1),
        ("nnodes", nnodes, 1),
        ("max_restarts", max_restarts, 0),
        ("minutes", minutes, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{what}={value!r}: a whole number from {least} is needed")
    check_device(device)
    gpus = f"#SBATCH --gpus-per-node={nprocs}\n" if device == "cuda" else ""
    job = _JOB.format(
        mark=_MARK,
        name=shlex.quote(program.stem),
        nnodes=nnodes,
        nprocs=nprocs,
        gpus=gpus,
        output=shlex.quote(str(Path(from_root(program)).with_name("%x-%j.out"))),
        time=f"{minutes // 60:02d}:{minutes % 60:02d}:00",
        device=device,
        max_restarts=max_restarts,
        command=shlex.join([from_root(program), *on_command_line(flags)]),
    )
    target = program.with_suffix(".sbatch")
    write_marked(target, job, _MARK)
    print(f"Wrote {target}. From the course's folder: sbatch {shlex.quote(from_root(target))}")
    return target


_JOB = """\
#!/bin/bash
{mark}
#SBATCH --job-name={name}
#SBATCH --nodes={nnodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={nprocs}
{gpus}#SBATCH --time={time}
#SBATCH --output={output}

# One task a node: torchrun, which starts that node's {nprocs} ranks.
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH" COURSE_DEVICE={device}
# sed reads to the end of the list; head would break the pipe of a long one.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)

# srun does not take the cores of a task over from the job: it is told again.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 torchrun \\
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node={nprocs} --max-restarts={max_restarts} \\
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" \\
    --rdzv-endpoint="$first:$((20000 + SLURM_JOB_ID % 12000))" \\
    {command}
"""
