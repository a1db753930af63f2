"""A written job on a real Slurm of two nodes, started and stopped by its document's own steps."""

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from kernels import Kernel, assert_gone, pids_in

DOCUMENT = Path(__file__).parents[2] / "docs" / "slurm_on_one_machine.md"
PATH = f"{os.environ['PATH']}:/usr/sbin"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "sinfo")
DEADLINE = 150  # seconds; measured: 2 to start, 12 to 25 for a job (busy machine), 2 to stop

MISSING = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(4 * DEADLINE),
    pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: no {', '.join(MISSING)}"),
]

TRAIN = """
from course_lib import torchrun, write_script, write_slurm

def train(steps: int = 5, lr: float = 0.1, fail: bool = False):
    torch.manual_seed(0)
    with process_group() as pg:
        print(f"pid {os.getpid()}", flush=True)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(64, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        rows = torch.randn(96, 64)[pg.rank :: pg.world_size]
        losses = []
        for step in range(steps):
            loss = model(rows).sin().pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if fail and pg.rank == pg.world_size - 1:
                {}["label 17"]
        where = os.environ.get("SLURMD_NODENAME"), os.environ["GROUP_RANK"]
        return losses, model.module.weight.detach().clone(), where
"""


def blocks() -> dict[str, list[str]]:
    """The document's shell blocks, by the heading they stand under."""
    sections = DOCUMENT.read_text().split("\n## ")[1:]
    found = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return {text.splitlines()[0]: found.findall(text) for text in sections}


def free_ports(count: int, lowest: int) -> int:
    """The first of ``count`` ports in a row that nobody uses."""
    used = {c.laddr.port for c in psutil.net_connections(kind="inet") if c.laddr}
    some = lowest + random.randrange(5000)  # another run of this test looks at the same moment
    return next(p for p in range(some, 65000) if used.isdisjoint(range(p, p + count)))


class Slurm:
    """The document's Slurm in a home of its own. ``start`` it, ``shell`` to it, ``stop`` it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.steps = blocks()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
        self.env |= {"HOME": str(home), "PATH": PATH}

    def shell(self, text: str, cwd: Path | None = None) -> str:
        """Run a block as a reader would; what it prints. Its daemons may outlive it."""
        log = self.home / "shell.log"  # a pipe would stay open as long as a daemon holds it
        with log.open("w") as out:
            done = subprocess.run(
                ["bash", "-eu", "-c", text],
                cwd=cwd or self.home,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=DEADLINE,
            )
        assert done.returncode == 0, f"{text}\n{log.read_text()}\n{self.logs()}"
        return log.read_text()

    def configure(self) -> None:
        """Beside a Slurm that may be running: the ports, and the port of a job, are our own."""
        port = f"port={free_ports(3, lowest=10000)}"
        text, found = re.subn(r"^port=\d+$", port, self.steps["Configure"][0], flags=re.M)
        assert found == 1
        self.shell(text)
        with (self.home / "slurm-here" / "slurm.conf").open("a") as conf:
            conf.write(f"FirstJobId={free_ports(5, lowest=20001) - 20000}\n")

    def start(self) -> None:
        daemons, look = self.steps["Start"]
        self.shell(daemons)
        self.env["SLURM_CONF"] = str(self.home / "slurm-here" / "slurm.conf")
        end = time.monotonic() + DEADLINE
        while len(re.findall(r"^127\.0\.0\.[12] .* idle *$", self.shell(look), re.M)) != 2:
            assert time.monotonic() < end, f"{self.shell(look)}\n{self.logs()}"
            time.sleep(0.2)  # Slurm tells nobody when a node has come

    def stop(self) -> None:
        self.shell(self.steps["Stop"][0])
        del self.env["SLURM_CONF"]

    def running(self) -> list[psutil.Process]:
        """Everything of this Slurm that is alive: daemons by their folder, jobs by SLURM_CONF."""
        found = []
        for process in psutil.process_iter():
            try:
                here = str(self.home)
                ours = process.cwd().startswith(here) or here in str(process.environ())
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:  # another user's, or gone meanwhile
                continue
        return found

    def logs(self) -> str:
        logs = sorted((self.home / "slurm-here").glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in logs)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("Slurm cannot start: this machine's own name has no address")
    slurm = Slurm(tmp_path_factory.mktemp("home"))
    slurm.configure()
    try:
        slurm.start()
        yield slurm
        slurm.stop()
    finally:
        assert_gone([p.pid for p in slurm.running()])


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A folder like the course's."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "notebooks").mkdir()
    (folder / "scripts").mkdir()
    (folder / "results").mkdir()
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture(scope="module")
def kernel(course):
    kernel = Kernel()
    assert not kernel.run(f"os.chdir({str(course / 'notebooks')!r})\n{TRAIN}").error
    yield kernel
    kernel.close()


def submit(slurm: Slurm, course: Path) -> tuple[str, str]:
    """Submit ``scripts/train.sbatch`` as the document does: the job's state and its output."""
    text = slurm.shell(slurm.steps["Submit"][0], cwd=course)
    state, _, output = text.partition("\n")
    return state.removeprefix("JobState="), output


def write_job(kernel: Kernel, flags: str) -> None:
    reply = kernel.run(f"write_slurm(write_script(train, 'train.py'), minutes=5, {flags})")
    assert not reply.error


def test_two_nodes_train_to_the_numbers_of_torchrun(slurm, course, kernel):
    results = f"save_results={str(course / 'results')!r}"
    write_job(kernel, f"nprocs=1, nnodes=2, lr=0.3, {results}")
    state, output = submit(slurm, course)
    assert state == "COMPLETED", output
    assert "process group: 2 ranks, Gloo on CPU" in output
    assert len(pids_in(output)) == 2
    assert_gone(pids_in(output))
    reply = kernel.run("""
there = [torch.load(f"../results/rank_{r}.pt", weights_only=False) for r in (0, 1)]
here = torchrun("train.py", nprocs=1, nnodes=2, lr=0.3)
one = torchrun("train.py", nprocs=1, lr=0.3)
same = [a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(there, here, strict=True)]
""")
    assert not reply.error
    assert kernel.run("same").value == "[True, True]"
    assert kernel.run("torch.equal(there[0][1], one[0][1])").value == "False"  # it can tell
    assert kernel.run("there[0][0][0] > there[0][0][-1] > 0").value == "True"
    nodes = kernel.run("sorted(result[2] for result in there)").value
    assert nodes in (  # the agents meet in any order
        "[('127.0.0.1', '0'), ('127.0.0.2', '1')]",
        "[('127.0.0.1', '1'), ('127.0.0.2', '0')]",
    )


@pytest.mark.faults
def test_a_rank_that_raises_fails_the_job_and_leaves_nothing(slurm, course, kernel):
    daemons = {p.pid for p in slurm.running()}
    write_job(kernel, "nprocs=2, nnodes=2, fail=True")
    state, output = submit(slurm, course)
    assert state == "FAILED", output
    lines = [line.strip() for line in output.splitlines()]
    for line in ("Traceback (most recent call last):", '{}["label 17"]', "KeyError: 'label 17'"):
        assert line in lines, output
    assert len(pids_in(output)) == 4
    assert_gone(pids_in(output))
    assert_gone([p.pid for p in slurm.running() if p.pid not in daemons])  # no slurmstepd, no srun


def test_slurm_listens_at_the_address_of_this_machines_name_only(slurm):
    of_our_name = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    listening = [
        (process.name(), connection.laddr.ip)
        for process in slurm.running()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert sorted(name for name, _ in listening) == ["slurmctld", "slurmd", "slurmd"]
    assert {address for _, address in listening} <= of_our_name


@pytest.mark.faults
def test_stop_ends_a_job_too_and_start_begins_again(slurm):
    before = len(slurm.running())
    assert before >= 4  # munged, slurmctld, two slurmd; newer versions add helpers
    slurm.shell("sbatch --nodes=2 --output=slept --wrap 'srun sh -c \"echo up; sleep 1000\"'")
    slept, end = slurm.home / "slept", time.monotonic() + DEADLINE
    while not (slept.exists() and slept.read_text().count("up") == 2):
        assert time.monotonic() < end, slurm.logs()
        time.sleep(0.2)  # a line in a file on which nobody waits
    assert len(slurm.running()) > before
    slurm.stop()
    assert_gone([p.pid for p in slurm.running()])
    slurm.start()
    assert len(slurm.running()) == before
