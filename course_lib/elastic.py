"""Run a program with torchrun from a cell, with ``launch``'s manners.

It is torchrun that runs, with the command line that is shown; two agents are two nodes in
miniature, which meet at one rendezvous on this machine. Added is what a notebook needs: output as
it comes, one short error, and that nothing is left behind.
"""

import os
import shlex
import tempfile
import uuid
from pathlib import Path
from typing import Any

import torch

from course_lib import reporting
from course_lib._agent import MARK as MARK_OF_RUN
from course_lib._agents import Agents
from course_lib._arguments import check_device, check_gpus, check_seconds, check_whole_number
from course_lib._flags import on_command_line
from course_lib._loopback import SOCKETS_ON_LOOPBACK, loopback_store
from course_lib._programs import existing_program, from_root
from course_lib.cable import ADDRESSES, INTERFACE, Cable
from course_lib.errors import RankError
from course_lib.group import cores
from course_lib.scripts import MARK

_PORT = 29400  # of the store on node 0, where a cable gives each run a network of its own


def torchrun(
    path: str | Path,
    nprocs: int = 2,
    nnodes: int = 1,
    max_restarts: int = 0,
    device: str = "auto",
    threads: int | None = None,
    timeout: float = 300,
    deadline: float | None = None,
    debug: bool = False,
    cable: Cable | None = None,
    **flags: Any,
) -> list[Any] | None:
    """Run a program on ``nprocs × nnodes`` ranks with torchrun.

    Args:
        path: The program, for example what ``write_script`` returned.
        nprocs: Ranks a node.
        nnodes: Agents to start on this machine; each is a node to its ranks.
        max_restarts: How often all ranks are started again after one has failed.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``; reaches ``process_group`` in the ranks.
        threads: Threads torch computes with on each rank; default: cores ÷ ranks here.
        timeout: Seconds without any output from any rank after which the run ends; at least 60
            until the first output.
        deadline: Seconds the whole run may take; None for no limit.
        debug: Set TORCH_DISTRIBUTED_DEBUG=DETAIL: mismatched collectives are named.
        cable: Two nodes with a network of their own, for ``nnodes=2``: each agent and its ranks
            run on one of them. Everything is reached over the cable.
        **flags: The program's flags: ``epochs=3`` is ``--epochs=3``.

    Returns:
        For a program of ``write_script``, a list: entry ``r`` is what rank ``r`` returned. For
        any other program None.

    Raises:
        RankError: A rank or an agent failed, the run fell silent, or it was interrupted. By then no
            agent, no rank and no DataLoader worker is left.
        FileNotFoundError: There is no program at ``path``.
        TypeError, ValueError: An argument is of the wrong type or out of range.
    """
    _check(nprocs, nnodes, max_restarts, device, threads, timeout, deadline)
    if cable is not None and nnodes != len(cable.holders):
        raise ValueError(f"nnodes={nnodes}: the cable joins {len(cable.holders)} nodes")
    program = existing_program(path)
    words = on_command_line(flags)
    written = MARK in program.read_text(errors="replace")
    with tempfile.TemporaryDirectory(prefix="torchrun_") as folder, loopback_store() as port:
        results = Path(folder) / "results"
        results.mkdir()
        shown = ["torchrun", f"--nproc-per-node={nprocs}"]
        shown += [f"--nnodes={nnodes}"] if nnodes > 1 else []
        shown += [f"--max-restarts={max_restarts}"] if max_restarts else []
        store = f"{ADDRESSES[0]}:{_PORT}" if cable else f"127.0.0.1:{port}"
        meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={store}"]
        run = uuid.uuid4().hex
        each = "" if nnodes == 1 else f"    (once on each of {nnodes} nodes)"
        shown += meeting if nnodes > 1 else []
        print("$ " + shlex.join([*shown, from_root(program), *words]) + each, flush=True)
        if written:
            words.append(f"--save-results={results}")
        options = [*shown[1:], *(meeting if nnodes == 1 else []), f"--rdzv-id={run}"]
        agents = Agents(Path(folder), timeout, deadline)
        for node in range(nnodes):
            own, network, within = _where(cable, node)
            environ = _environment(node, nprocs, nnodes, max_restarts, device, threads, debug)
            agents.add([*options, *own, str(program), *words], environ | network, within)
        agents.run()
        return _collect(results, nprocs * nnodes) if written else None


def _where(cable: Cable | None, node: int) -> tuple[list[str], dict[str, str], list[str]]:
    """An agent's own options, its environment, and the words that bring it to its node."""
    if cable is None:
        return ["--rdzv-conf=is_host=0", "--local-addr=127.0.0.1"], SOCKETS_ON_LOOPBACK, []
    options = [f"--rdzv-conf=is_host={int(node == 0)}", f"--local-addr={ADDRESSES[node]}"]
    environ = {
        "GLOO_SOCKET_IFNAME": INTERFACE,
        "NCCL_SOCKET_IFNAME": INTERFACE,
        # Else torch warns on each node that the addresses there have no names.
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
    }
    return options, environ, cable.within(node)


def _environment(
    node: int,
    nprocs: int,
    nnodes: int,
    max_restarts: int,
    device: str,
    threads: int | None,
    debug: bool,
) -> dict[str, str]:
    environ = os.environ | {"COURSE_DEVICE": device}
    environ["PYTHONFAULTHANDLER"] = "1"  # a rank that is aborted writes where it stood
    if threads is None and nnodes > 1:  # a node does not know of its neighbours on this machine
        threads = max(1, cores() // (nprocs * nnodes))
    if threads is not None:
        environ["COURSE_THREADS"] = str(threads)
    if nnodes > 1 and device != "cpu":
        gpus = torch.cuda.device_count()
        if gpus >= nprocs * nnodes:
            mine = range(node * nprocs, (node + 1) * nprocs)
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, mine))
        elif device == "auto":
            environ["COURSE_DEVICE"] = "cpu"
    if max_restarts:
        # Ranks that are started again must not find their predecessors' addresses in the store.
        environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if debug:
        environ["TORCH_DISTRIBUTED_DEBUG"] = "DETAIL"
    return environ


def _collect(folder: Path, world_size: int) -> list[Any]:
    files = [folder / f"rank_{rank}.pt" for rank in range(world_size)]
    absent = [rank for rank, file in enumerate(files) if not file.exists()]
    if absent:
        states = {rank: "exited with code 0 before returning" for rank in absent}
        raise RankError(f"rank {absent[0]} exited with code 0 before returning", states)
    # Made by this run a moment ago, in a folder of its own: safe to unpickle.
    return [torch.load(file, weights_only=False) for file in files]


def _check(nprocs, nnodes, max_restarts, device, threads, timeout, deadline) -> None:
    if reporting.in_rank() or MARK_OF_RUN in os.environ:
        raise RuntimeError(
            "torchrun was called inside a rank: ranks cannot start ranks of their own"
        )
    check_whole_number("nprocs", nprocs)
    check_whole_number("nnodes", nnodes)
    check_whole_number("max_restarts", max_restarts, least=0)
    if threads is not None:
        check_whole_number("threads", threads)
    check_seconds("timeout", timeout)
    if deadline is not None:
        check_seconds("deadline", deadline)
    check_device(device)
    check_gpus(device, nprocs * nnodes, f"{nprocs * nnodes} ranks")
