"""A cell's function as a program under torchrun: the same numbers, one short error, nothing left.

A run takes some seconds (torch is imported by the agent and by every rank), so each asks for much.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from kernels import Kernel, assert_gone, is_helper, pids_in

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
BACK = 10  # seconds by which control must be back
MORE = "import logging\nfrom course_lib import torchrun, write_script"
WORKERS = """
class Numbers(torch.utils.data.Dataset):
    def __len__(self): return 1000
    def __getitem__(self, i): return i

def with_workers():
    loader = torch.utils.data.DataLoader(Numbers(), num_workers=1, persistent_workers=True)
    it = iter(loader)
    next(it)
    print("pid", os.getpid(), *(f"pid {w.pid}" for w in it._workers))
    return it
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def own_kernel(folder):
    (folder / "tmp").mkdir()
    kernel = Kernel(TMPDIR=str(folder / "tmp"))
    assert not kernel.run(MORE + WORKERS).error
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(own_kernel, folder):
    """The module's kernel; after every test it has no agents, no ranks and no folders of theirs."""
    yield own_kernel
    left = [p for p in own_kernel.children() if not is_helper(p)]
    for process in left:
        process.kill()
    assert not left
    assert not list((folder / "tmp").glob("torchrun_*"))


@pytest.fixture
def program(folder, request):
    """Write a program that ``write_script`` did not write."""

    def program(text: str) -> Path:
        path = folder / f"{re.sub(r'[^a-z0-9]+', '_', request.node.name)}.py"
        path.write_text(text)
        return path

    return program


def script(folder: Path, name: str) -> str:
    return f"write_script({name}, {str(folder / f'the_{name}.py')!r})"


def first_line(error: str) -> str:
    return error.splitlines()[0]


def assert_short(error: str) -> None:
    assert 1 < len(error.splitlines()) <= 15


# ── what comes back ──────────────────────────────────────────────────────────────────────────────

TRAIN = """
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

HIDDEN = 8
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR",
         "OF_THE_KERNEL")

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(64, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))

def train(steps: int = 2, lr: float = 0.1, sizes: list[int] | None = None, nested: bool = True):
    torch.manual_seed(0)
    with process_group() as pg:
        model = DDP(Net())
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        rows = torch.randn(96, 64)[pg.rank :: pg.world_size]
        losses = []
        for step in range(steps):
            loss = model(rows).sin().pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        env = {name: os.environ.get(name) for name in NAMES}
        return losses, weights, env, sizes, nested, os.getppid(), torch.get_num_threads()

HIDDEN = 16
class Net(Net):
    def forward(self, x):
        return super().forward(x) + 1

def same(these, those):
    return len(these) == len(those) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) and a[3:5] == b[3:5]
        for a, b in zip(these, those))

def told(results, name):
    return [result[2][name] for result in results]
"""


def test_the_numbers_of_launch_to_the_last_bit(kernel, folder):
    reply = kernel.run(
        TRAIN
        + f"path = {script(folder, 'train')}\n"
        + """
os.environ["OF_THE_KERNEL"] = "yes"
flags = dict(steps=5, lr=0.1 + 0.2, sizes=[3, 4], nested=False)
results = {n: torchrun(path, nprocs=n, **flags) for n in (1, 2, 3)}
results["nodes"] = torchrun(path, nprocs=1, nnodes=2, **flags)
launched = {n: launch(train, nprocs=n, **flags) for n in (1, 2, 3)}
launched["nodes"] = launched[2]
"""
    )
    assert not reply.error
    both = "zip(results.values(), launched.values())"
    assert kernel.run(f"[same(a, b) for a, b in {both}]").value == str([True] * 4)
    assert kernel.run("same(results[2], results[3][:2])").value == "False"  # it can tell
    assert kernel.run("launched[2][0][0][0] > launched[2][0][0][-1] > 0").value == "True"
    assert kernel.run("results[3][1][3:5]").value == "([3, 4], False)"
    assert kernel.run("[r[6] for r in results[2]] == [r[6] for r in launched[2]]").value == "True"
    for name, three, nodes in (
        ("RANK", ["0", "1", "2"], ["0", "1"]),
        ("LOCAL_RANK", ["0", "1", "2"], ["0", "0"]),
        ("WORLD_SIZE", ["3"] * 3, ["2"] * 2),
        ("LOCAL_WORLD_SIZE", ["3"] * 3, ["1"] * 2),
        ("GROUP_RANK", ["0"] * 3, ["0", "1"]),
        ("MASTER_ADDR", ["127.0.0.1"] * 3, ["127.0.0.1"] * 2),
        ("OF_THE_KERNEL", ["yes"] * 3, ["yes"] * 2),
    ):
        assert kernel.run(f"told(results[3], {name!r})").value == str(three)
        assert kernel.run(f"told(results['nodes'], {name!r})").value == str(nodes)
    assert kernel.run("len({r[5] for r in results[3]}), len({r[5] for r in results['nodes']})")
    assert kernel.run("[len({r[5] for r in results[k]}) for k in (3, 'nodes')]").value == "[1, 2]"
    # And under torchrun itself, without the notebook.
    command = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc-per-node=2"]
    command += [folder / "the_train.py", "--steps=5", f"--lr={0.1 + 0.2}", "--sizes", "3", "4"]
    command += ["--no-nested", f"--save-results={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd="/")
    assert done.returncode == 0, done.stderr
    plain = f"[torch.load({str(folder)!r} + f'/rank_{{r}}.pt', weights_only=False) for r in (0, 1)]"
    assert kernel.run(f"same({plain}, launched[2])").value == "True"


def listening(kernel: Kernel) -> set[tuple[str, int]]:
    found = set()
    for process in [psutil.Process(kernel.pid), *kernel.children()]:
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(tuple(connection.laddr))
    return found


def test_output_is_live_and_nothing_is_open_to_the_network(kernel, program, tmp_path):
    path = program("""
import os, sys, time, logging
import torch.distributed as dist
from course_lib import process_group, progress, report

with process_group() as pg:
    print("words", sys.argv[1:])
    print("connected")
    while not os.path.exists(sys.argv[-1].removeprefix("--go=")):
        time.sleep(0.01)
    for i in progress(range(3), "steps"):
        report(i=i)
    try:
        {}["handled"]
    except KeyError:
        logging.exception("logged by %s", pg.rank)
    print("no end of line", end="")
""")
    go = tmp_path / "go"
    before = listening(kernel)
    kernel.start(f"print(torchrun({str(path)!r}, nprocs=2, lr=0.5, deep=True, go={str(go)!r}))")
    text = kernel.wait_for("connected", times=2)
    during = listening(kernel) - before
    go.touch()
    assert "finished" not in text
    assert len(during) > 1  # it does see the store and Gloo
    assert {ip for ip, _ in during} <= {"127.0.0.1", "::1"}
    reply = kernel.finish()
    assert not reply.error
    lines = reply.text.splitlines()
    assert lines[0] == f"$ torchrun --nproc-per-node=2 {path} --lr=0.5 --deep --go={go}"
    assert lines[-1] == "None"
    assert reply.streams == {"stdout"}
    assert all(re.match(r"\[rank [01]\] ", line) for line in lines[1:-1])
    for rank in (0, 1):
        assert f"[rank {rank}] words ['--lr=0.5', '--deep', '--go={go}']" in lines
        assert f"[rank {rank}] no end of line" in lines
        assert f"[rank {rank}] ERROR:root:logged by {rank}" in lines
        assert f"[rank {rank}] KeyError: 'handled'" in lines  # handled: output like any other
    bars = [line for line in lines if "steps:" in line]
    assert len(bars) == 1
    assert re.match(r"\[rank 0\] steps: 100%.* 3/3 .*i=2", bars[0])


def test_traces_come_back_and_fit_together(kernel, folder):
    reply = kernel.run(f"""
from course_lib import matches, trace

def exchange(size: int = 1):
    with process_group() as pg, trace() as mine:
        if pg.rank == 0:
            dist.send(torch.ones(size), 1)
        else:
            dist.recv(torch.empty(size), 0)
        dist.all_reduce(torch.ones(1))
    return mine

traces = torchrun({script(folder, "exchange")}, nprocs=2, size=10)
""")
    assert not reply.error
    for rank, calls in enumerate(
        ([("send", 1, 40), ("all_reduce", None, 4)], [("recv", 0, 40), ("all_reduce", None, 4)])
    ):
        seen = f"[(o.name, o.peer, o.nbytes) for o in traces[{rank}].operations]"
        assert kernel.run(seen).value == str(calls)
    met = "[list(row) for row in matches(traces)[['what', 'ranks', 'complete']].values]"
    both = [["send → recv", "0 → 1", True], ["all_reduce", "0, 1", True]]
    assert kernel.run(met).value == str(both)
    where = kernel.run("traces[1].operations[0].where").value.strip("'")
    program, _, line = where.partition(", line ")
    assert program == "the_exchange.py"
    assert "dist.recv(" in (folder / program).read_text().splitlines()[int(line) - 1]
    one_clock = "traces[0].operations[1].begin < traces[1].operations[1].end"
    assert kernel.run(one_clock).value == "True"


def test_ranks_that_are_started_again(kernel, folder):
    reply = kernel.run(f"""
def again(always: bool = False):
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    with process_group() as pg:
        if pg.rank == 1 and (always or attempt == 0):
            raise ValueError(f"attempt {{attempt}}")
        dist.barrier()
    return attempt
print(torchrun({script(folder, "again")}, max_restarts=1))
""")
    assert not reply.error
    assert reply.text.splitlines()[-1] == "[1, 1]"
    assert "--max-restarts=1" in reply.text
    assert "[rank 1] ValueError: attempt 0" in reply.text
    reply = kernel.run(f"torchrun({str(folder / 'the_again.py')!r}, max_restarts=1, always=True)")
    assert first_line(reply.error) == "RankError: rank 1 raised ValueError: attempt 1"
    assert_short(reply.error)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.faults
@pytest.mark.parametrize(
    ("fault", "headline", "more"),
    [
        (
            "look_up({})",
            "rank 1 raised KeyError: 'label 17'",
            ["Traceback of rank 1:", '    return table["label 17"]', "    look_up({})"],
        ),
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1 was killed by SIGKILL", []),
        ("os._exit(3)", "rank 1 exited with code 3", []),
        ("os._exit(0)", "rank 1 exited with code 0 before the others were done", []),
    ],
)
def test_a_rank_that_fails(kernel, folder, fault, headline, more):
    kernel.start(f"""
def look_up(table):
    return table["label 17"]

def fail():
    with process_group() as pg:
        it = with_workers()
        try:
            [].pop()
        except IndexError:
            logging.exception("handled")
        dist.barrier()
        if pg.rank == 1:
            {fault}
        dist.all_reduce(torch.ones(1))

torchrun({script(folder, "fail")}, nprocs=2)
""")
    reply = kernel.finish()
    assert len(pids_in(reply.text)) == 4
    assert_gone(pids_in(reply.text))
    lines = reply.error.splitlines()
    assert lines[0] == f"RankError: {headline}"
    for line in more:
        assert line in lines
    # The agent gives the others a second to fail in turn; on a busy machine it may not be enough.
    lost = "lost the connection to another rank in all_reduce, the_fail.py, line"
    assert re.search(f"^  rank 0: ({lost}|was ended$)", reply.error, re.MULTILINE)
    assert_short(reply.error)
    assert "IndexError: pop from empty list" in reply.text
    assert "label 17" not in reply.text


@pytest.mark.faults
def test_a_rank_that_ends_before_returning_alone(kernel, folder):
    reply = kernel.run(f"""
def leave():
    os._exit(0) if os.environ["RANK"] == "1" else None
torchrun({script(folder, "leave")}, nprocs=2)
""")
    assert first_line(reply.error) == "RankError: rank 1 exited with code 0 before returning"


@pytest.mark.faults
@pytest.mark.parametrize(
    ("text", "flags", "headline", "line"),
    [
        ("x = 1\ndef f(:\n    pass\n", "", "rank 0 raised SyntaxError: invalid syntax", "def f(:"),
        (
            "import argparse\nargparse.ArgumentParser().parse_args()\n",
            ", epoch=3",
            "rank 0 exited with code 2: program.py: error: unrecognized arguments: --epoch=3",
            "ranks 0, 1: exited with code 2",
        ),
    ],
)
def test_a_program_that_cannot_run(kernel, folder, text, flags, headline, line):
    (folder / "program.py").write_text(text)
    reply = kernel.run(f"torchrun({str(folder / 'program.py')!r}{flags})")
    assert first_line(reply.error) == f"RankError: {headline}"
    assert line in reply.error
    assert_short(reply.error)


STUCK = """
def stuck():
    with process_group() as pg:
        it = with_workers()
        dist.barrier()
        print("ready")
        if pg.rank == 0:
            dist.all_reduce(torch.ones(1))
        else:
            time.sleep(1000)
"""


@pytest.mark.faults
def test_silence_ends_and_says_who_waits_where(kernel, folder):
    reply = kernel.run(STUCK + f"torchrun({script(folder, 'stuck')}, timeout=3)")
    assert_gone(pids_in(reply.text))
    lines = reply.error.splitlines()
    assert lines[0] == "RankError: no sign of life for 3 s"
    assert re.fullmatch(r"  rank 0: still in all_reduce, the_stuck.py, line \d+", lines[1])
    assert re.fullmatch(r"  rank 1: still in the_stuck.py, line \d+: time.sleep\(1000\)", lines[2])
    assert len(lines) == 3
    assert "Fatal Python error" not in reply.text


@pytest.mark.faults
def test_deadline(kernel, program):
    path = program("while True: print('.')")
    reply = kernel.run(f"torchrun({str(path)!r}, nprocs=1, deadline=1.5)")
    assert first_line(reply.error) == "RankError: not done after 1.5 s (deadline)"


@pytest.mark.faults
def test_interrupt_inside_a_stuck_collective(kernel, folder):
    kernel.start(STUCK + f"torchrun({script(folder, 'stuck')}, nprocs=1, nnodes=2)")
    text = kernel.wait_for("ready", times=2)
    below = [p.pid for p in kernel.children() if not is_helper(p)]
    event = kernel.interrupt()
    reply = kernel.finish()
    assert reply.ended - event < BACK
    assert_gone([*pids_in(text), *below])
    assert first_line(reply.error) == "RankError: interrupted"
    assert "  rank 0: still in" in reply.error
    assert ": time.sleep(1000)" in reply.error


@pytest.mark.faults
def test_the_kernel_killed_takes_agents_and_ranks_along(new_kernel, tmp_path):
    kernel = new_kernel(TMPDIR=str(tmp_path))
    kernel.run(MORE + WORKERS)
    kernel.start(STUCK + f"torchrun({script(tmp_path, 'stuck')})")
    text = kernel.wait_for("ready", times=2)
    below = [p.pid for p in kernel.children()]
    assert set(pids_in(text)) <= set(below)
    os.kill(kernel.pid, signal.SIGKILL)  # the kernel alone, not its process group
    assert_gone([*pids_in(text), *below])
    assert not list(tmp_path.glob("torchrun_*"))


@pytest.mark.faults
@pytest.mark.parametrize("failing", [0, 1])
def test_one_node_fails_and_the_other_would_never_know(kernel, program, failing):
    path = program(f"""
import os, time
print("pid", os.getpid(), flush=True)
if os.environ["RANK"] == "{failing}":
    {{}}["label"]
time.sleep(1000)
""")
    reply = kernel.run(f"torchrun({str(path)!r}, nprocs=1, nnodes=2, timeout=100)")
    assert first_line(reply.error) == f"RankError: rank {failing} raised KeyError: 'label'"
    assert "Traceback" not in reply.text
    assert_gone(pids_in(reply.text))


@pytest.mark.faults
def test_an_agent_that_is_killed(kernel, folder):
    kernel.start(STUCK + f"torchrun({script(folder, 'stuck')}, nprocs=1, nnodes=2)")
    text = kernel.wait_for("ready", times=2)
    below = [p for p in kernel.children() if not is_helper(p)]
    agents = [p for p in below if "course_lib._agent" in p.cmdline()]
    assert len(agents) == 2
    agents[0].kill()
    reply = kernel.finish()
    assert_gone([*pids_in(text), *(p.pid for p in below)])
    assert re.match(
        r"RankError: the torchrun agent of node [01] was killed by SIGKILL", reply.error
    )
    assert_short(reply.error)


# ── refused before any process starts ────────────────────────────────────────────────────────────


def test_errors_before_any_process_starts(kernel, program):
    path = str(program("print(1)"))
    cases = {
        f"torchrun({path!r}, nprocs=0)": "ValueError: nprocs=0: at least 1",
        f"torchrun({path!r}, nprocs=2.0)": "TypeError: nprocs=2.0: a whole number",
        f"torchrun({path!r}, nprocs=True)": "TypeError: nprocs=True: a whole number",
        f"torchrun({path!r}, nnodes=0)": "ValueError: nnodes=0: at least 1",
        f"torchrun({path!r}, max_restarts=-1)": "ValueError: max_restarts=-1: at least 0",
        f"torchrun({path!r}, threads=0)": "ValueError: threads=0: at least 1",
        f"torchrun({path!r}, timeout=0)": "ValueError: timeout=0: a positive number",
        f"torchrun({path!r}, deadline='1')": "TypeError: deadline='1': a number of seconds",
        f"torchrun({path!r}, device='tpu')": "ValueError: device='tpu': choose one of auto, cpu",
        "torchrun('no_such.py')": "FileNotFoundError: There is no program no_such.py: write_script",
        f"torchrun({path!r}, x=object())": "TypeError: x=<object",
        f"torchrun({path!r}, x=torch.ones(1))": "TypeError: x=tensor([1.]) cannot be given",
    }
    if kernel.run("torch.cuda.is_available()").value != "True":
        cases[f"torchrun({path!r}, device='cuda')"] = "ValueError: device='cuda' with 2 ranks: this"
    for call, message in cases.items():
        reply = kernel.run(
            "import subprocess\nreal, subprocess.Popen = subprocess.Popen, None\n"
            f"try:\n    {call}\nfinally:\n    subprocess.Popen = real"
        )
        assert message in reply.error.splitlines()[-1]
        assert not reply.text
    reply = kernel.run(
        f"os.environ['COURSE_RUN'] = 'x'\ntry:\n    torchrun({path!r})\n"
        "finally:\n    del os.environ['COURSE_RUN']"
    )
    assert "RuntimeError: torchrun was called inside a rank" in reply.error


def test_a_rank_that_ends_right_after_its_last_backward_pass(kernel, program):
    """Gloo's threads still want the GIL then. The switch interval keeps it from them."""
    path = program(
        "import sys, torch\n"
        "from course_lib import process_group\n"
        "with process_group() as pg:\n"
        "    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))\n"
        "    loss = model(torch.ones(1, 2)).sum()\n"
        "    sys.setswitchinterval(100)\n"
        "    loss.backward()\n"
    )
    done = kernel.run(f"torchrun({str(path)!r}, nprocs=4)", timeout=120)
    assert not done.error, done.error
