"""The sbatch file says what the run needs, and its torchrun line really trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from course_lib import write_slurm

PROGRAM = """
import sys
import torch
import torch.distributed as dist
from course_lib import process_group

torch.manual_seed(0)
with process_group() as pg:
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    model(torch.ones(1, 2) * (pg.rank + 1)).sum().backward()
    told = f"rank {pg.rank} of {pg.world_size}: {model.module.weight.grad.tolist()} {sys.argv[1:]}"
    print(told, flush=True)
"""
STAND_INS = {
    # A list longer than a pipe holds: nothing may close it early.
    "scontrol": '[ "$1 $2 $3" = "show hostnames node[1-2]" ] && echo 127.0.0.1 && seq 20000',
    "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
}


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "scripts").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    path = tmp_path / "scripts" / "train it.py"
    path.write_text(PROGRAM)
    return path


def directives(job: Path) -> list[str]:
    return [line[8:] for line in job.read_text().splitlines() if line.startswith("#SBATCH ")]


def test_what_it_asks_slurm_for(program, capsys):
    job = write_slurm(program, nprocs=4, nnodes=3, minutes=1501, device="cuda", lr=0.1, deep=False)
    assert job == program.with_suffix(".sbatch")
    assert capsys.readouterr().out.startswith(f"Wrote {job}. From the course's folder: sbatch '")
    assert directives(job) == [
        "--job-name='train it'",
        "--nodes=3",
        "--ntasks-per-node=1",
        "--cpus-per-task=4",
        "--gpus-per-node=4",
        "--time=25:01:00",
        "--output=scripts/%x-%j.out",
    ]
    text = job.read_text()
    assert text.startswith("#!/bin/bash\n")
    assert "COURSE_DEVICE=cuda" in text
    assert "'scripts/train it.py' --lr=0.1 --no-deep\n" in text
    assert str(program.parents[1]) not in text  # it goes to another machine
    for device in ("cpu", "auto"):
        assert "gpu" not in " ".join(directives(write_slurm(program.name, device=device)))
    done = subprocess.run(["bash", "-n", job], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_its_torchrun_line_trains(program, tmp_path):
    job = write_slurm(program, name="a 'b' $c")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in STAND_INS.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["bash", job],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=150,
        env=os.environ
        | {
            "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_CPUS_PER_TASK": "2",
            "SLURM_JOB_ID": str(os.getpid()),
        },
    )
    assert done.returncode == 0, done.stderr
    words = ["--name=a 'b' $c"]
    for rank in (0, 1):
        assert f"rank {rank} of 2: [[1.5, 1.5]] {words}" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nprocs": 0}, "nprocs=0: a whole number from 1"),
        ({"nnodes": 1.5}, "nnodes=1.5: a whole number from 1"),
        ({"max_restarts": -1}, "max_restarts=-1: a whole number from 0"),
        ({"minutes": True}, "minutes=True: a whole number from 1"),
        ({"device": "tpu"}, "device='tpu': choose one of auto, cpu, cuda"),
    ],
)
def test_what_is_out_of_range_is_named(program, wrong, message):
    with pytest.raises(ValueError, match=message):
        write_slurm(program, **wrong)
    assert not program.with_suffix(".sbatch").exists()


def test_no_program(program):
    with pytest.raises(FileNotFoundError, match=r"There is no program lost.py"):
        write_slurm("lost.py")


def test_a_job_of_the_readers_own_is_left_as_it_is(program):
    job = program.with_suffix(".sbatch")
    job.write_text("#!/bin/bash\n")
    with pytest.raises(FileExistsError, match="was not written here, and is left as it is"):
        write_slurm(program)
    assert job.read_text() == "#!/bin/bash\n"
