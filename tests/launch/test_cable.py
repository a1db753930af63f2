"""Two nodes with a cable between them: what they see, how fast it is, and what a cut leaves."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from kernels import assert_gone, pids_in

from course_lib import RankError, cable, torchrun

WHY_NOT = cable.why_no_cable()
can = pytest.mark.skipif(WHY_NOT is not None, reason=f"no cable here: {WHY_NOT}")
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

TELL = """
import os, socket
import torch, torch.distributed as dist
from course_lib import process_group

with process_group() as pg:
    total = torch.tensor([pg.rank + 1])
    dist.all_reduce(total)
    links = sorted(name for _, name in socket.if_nameindex())
    print(f"pid {os.getpid()}")
    print("told", pg.rank, pg.local_rank, os.environ["GROUP_RANK"], socket.gethostname(),
          os.environ["MASTER_ADDR"], *links, total.item(), flush=True)
"""
CUT = """
import os, subprocess, sys, time
import torch, torch.distributed as dist
from course_lib import process_group

with process_group(timeout=float(sys.argv[1].partition("=")[2])) as pg:
    print(f"pid {os.getpid()}", flush=True)
    numbers = torch.ones(100_000)
    for step in range(1000):
        if step == 3 and pg.rank == 1:
            subprocess.run(["ip", "link", "set", "cable", "down"], check=True)
            print("cut", flush=True)
        dist.all_reduce(numbers)
"""
# What one node sends to the other, timed by who receives it.
SEND = """
import socket, sys, time
role, size = sys.argv[1], int(sys.argv[2])
if role == "listen":
    with socket.create_server(("10.77.0.1", 5000)) as server:
        print("ready", flush=True)
        line, _ = server.accept()
        begun, left = time.monotonic(), size
        while left:
            left -= len(line.recv(left))
        line.sendall(b"k")
        print(time.monotonic() - begun)
else:
    with socket.create_connection(("10.77.0.1", 5000)) as line:
        line.sendall(bytes(size))
        line.recv(1)
"""


def seconds_for(net: cable.Cable, size: int) -> float:
    """Send ``size`` bytes from node 1 to node 0."""
    python = [sys.executable, "-c", SEND]
    with subprocess.Popen(
        [*net.within(0), *python, "listen", str(size)], stdout=subprocess.PIPE, text=True
    ) as listener:
        assert listener.stdout.readline() == "ready\n"
        subprocess.run([*net.within(1), *python, "send", str(size)], check=True, timeout=120)
        return float(listener.stdout.read())


@pytest.fixture
def program(tmp_path):
    def program(text: str) -> Path:
        path = tmp_path / "program.py"
        path.write_text(text)
        return path

    return program


@can
def test_two_nodes_that_see_each_other_and_nothing_else(program, capsys):
    with cable.cable() as net:
        torchrun(program(TELL), nprocs=2, nnodes=2, device="cpu", cable=net)
        again = torchrun(program(TELL), nprocs=1, nnodes=2, device="cpu", cable=net)
    assert again is None
    lines = capsys.readouterr().out.splitlines()
    told = [line.partition("] ")[2] for line in lines if "] told" in line]
    at = "10.77.0.1 cable lo"
    assert sorted(told[:4]) == [
        f"told 0 0 0 node0 {at} 10",
        f"told 1 1 0 node0 {at} 10",
        f"told 2 0 1 node1 {at} 10",
        f"told 3 1 1 node1 {at} 10",
    ]
    assert sorted(told[4:]) == [f"told 0 0 0 node0 {at} 3", f"told 1 0 1 node1 {at} 3"]
    assert lines[0].startswith("$ torchrun --nproc-per-node=2 --nnodes=2 --rdzv-backend=c10d ")
    assert "--rdzv-endpoint=10.77.0.1:29400" in lines[0]
    assert not any("hostname of the client socket" in line for line in lines)
    assert_gone([*pids_in("\n".join(lines)), *net.holders])


@can
def test_the_bandwidth_is_what_was_asked_for():
    size = 1_000_000  # bytes: 8 Mbit
    with cable.cable(megabits=8) as net:
        slow = seconds_for(net, size)
        net.limit(80)
        faster = seconds_for(net, size)
        net.limit(None)
        free = seconds_for(net, size)
    # A limit is a least time, however busy the machine is: but for the bucket's first fill.
    assert slow > 0.9
    assert faster > 0.09
    assert free < slow / 2


@can
@pytest.mark.faults
def test_a_cable_that_is_cut(program, capsys):
    with cable.cable() as net:
        path, begun = program(CUT), time.monotonic()
        with pytest.raises(RankError) as caught:
            torchrun(path, nprocs=1, nnodes=2, device="cpu", cable=net, timeout=100, seconds=2)
        waited = time.monotonic() - begun
    text = capsys.readouterr().out
    assert "[rank 1] cut" in text
    assert "Traceback" not in text  # the error tells it, once
    assert "Timed out waiting 2000ms" in str(caught.value)
    # Rank 1's own agent cannot report it: it waits for the store, beyond the cut.
    assert "  ranks 0, 1: lost the connection to another rank in all_reduce" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 15
    assert waited < 100
    assert_gone([*pids_in(text), *net.holders])


@can
@pytest.mark.faults
def test_a_cut_that_nobody_notices_ends_with_the_silence(program, capsys):
    with (
        cable.cable() as net,
        pytest.raises(RankError, match="no sign of life for 3 s") as caught,
    ):
        torchrun(program(CUT), nprocs=1, nnodes=2, device="cpu", cable=net, timeout=3, seconds=900)
    assert "  ranks 0, 1: still in all_reduce" in str(caught.value)
    assert_gone([*pids_in(capsys.readouterr().out), *net.holders])


@can
@pytest.mark.faults
def test_the_nodes_end_with_the_process_that_made_them():
    code = (
        "import time; from course_lib.cable import cable\nwith cable() as net:\n"
        "    print(*(f'pid {p}' for p in net.holders), flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as maker:
        holders = pids_in(maker.stdout.readline())
        assert len(holders) == 2
        assert all(psutil.pid_exists(pid) for pid in holders)
        os.kill(maker.pid, signal.SIGKILL)
    assert_gone(holders)


@can
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are run by an ordinary user already")
def test_an_ordinary_user_can_have_one(tmp_path):
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("no Python that every user may run")
    # The module needs nothing but the standard library; this checkout may be root's alone.
    shutil.copy(cable.__file__, tmp_path / "cable.py")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    code = (
        "import cable, subprocess\nwith cable.cable(50) as net:\n    for node in (0, 1):\n"
        "        print(net.as_user, subprocess.check_output([*net.within(node), 'hostname'],"
        " text=True).strip())"
    )
    done = subprocess.run(
        [*user, python, "-B", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    if "no new network namespace" in done.stderr:
        pytest.skip("this system lets no user make namespaces")
    assert (done.returncode, done.stdout) == (0, "True node0\nTrue node1\n"), done.stderr


@can
def test_tc_need_not_be_on_the_path(monkeypatch):
    folders = [f for f in os.environ["PATH"].split(":") if not f.endswith("sbin")]
    if shutil.which("tc", path=":".join(folders)):
        pytest.skip("tc is everywhere here")
    monkeypatch.setenv("PATH", ":".join(folders))
    assert cable.why_no_cable() is None


@can
def test_what_cannot_be(program):
    with pytest.raises(ValueError, match="megabits=0: a positive number"):  # noqa: SIM117
        with cable.cable(megabits=0):
            raise AssertionError("never reached")
    with cable.cable() as net:
        with pytest.raises(ValueError, match="megabits=-5"):
            net.limit(-5)
        with pytest.raises(ValueError, match="nnodes=1: the cable joins 2 nodes"):
            torchrun(program(TELL), cable=net)
    assert_gone(list(net.holders))


@pytest.mark.parametrize("missing", ["ip", "tc", "unshare", "nsenter"])
def test_a_missing_tool_is_named(missing, tmp_path, monkeypatch):
    for tool in {"ip", "tc", "unshare", "nsenter"} - {missing}:
        (tmp_path / tool).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cable, "_SYSTEM", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cable.why_no_cable().startswith(f"the program {missing} is missing (package ")


def test_a_system_that_refuses_is_quoted(tmp_path, monkeypatch):
    for tool in ("ip", "tc", "unshare", "nsenter"):
        refusal = "echo 'unshare failed: Operation not permitted' >&2; exit 1"
        (tmp_path / tool).write_text(f"#!/bin/sh\n{refusal}\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "platform", "linux")
    said = "no new network namespace: unshare failed: Operation not permitted"
    assert cable.why_no_cable() == said
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cable.why_no_cable() == "network namespaces are a part of Linux"
