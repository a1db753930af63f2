"""Run a function on N ranks from a notebook cell and get their results back.

``torch.multiprocessing`` spawning, made for notebooks: the function travels by value, so it may
be defined in a cell; results, output and errors come back to the cell; nothing outlives the call.
"""

import copyreg
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any

import cloudpickle
import torch
import torch.multiprocessing as mp

from course_lib import reporting
from course_lib._arguments import check_device, check_gpus, check_seconds, check_whole_number
from course_lib._child import Job
from course_lib._display import Display
from course_lib._loopback import SOCKETS_ON_LOOPBACK, loopback_store
from course_lib._places import cell_sources
from course_lib._rank import Rank
from course_lib._supervisor import Supervisor

START_METHODS = ("auto", "spawn", "forkserver")
# A function that uses torch and says `.classes` or `.ops` of anything makes cloudpickle send
# torch.classes or torch.ops along, which are no plain modules: by their names, then.
for _module in (torch.classes, torch.ops):
    copyreg.pickle(type(_module), lambda module: (importlib.import_module, (module.__name__,)))
# The server imports these once; its ranks then have them. None is a module the reader edits: that
# would go stale there. (Every optimizer imports torch._dynamo: 1.4 s a rank. The last three are
# what every rank imports of this package, which the kernel holds as long as the server does.)
_PRELOAD = ["torch", "torch.distributed", "torch._dynamo", "cloudpickle"]
_PRELOAD += ["course_lib._child", "course_lib.group", "course_lib.reporting"]


def launch(
    fn: Callable[..., Any],
    *args: Any,
    nprocs: int = 2,
    start_method: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    timeout: float = 300,
    deadline: float | None = None,
    debug: bool = False,
    **kwargs: Any,
) -> list[Any]:
    """Run ``fn(*args, **kwargs)`` on every one of ``nprocs`` ranks.

    Each rank is a fresh process with the environment torchrun would give it (RANK, WORLD_SIZE,
    LOCAL_RANK, MASTER_ADDR, …) on top of the kernel's. Its output appears live, labelled
    ``[rank r]``.

    Args:
        fn: Any function; one defined in a cell too.
        *args: Passed to ``fn``, copied to every rank.
        nprocs: World size.
        start_method: ``"spawn"`` starts fresh interpreters; ``"forkserver"`` forks them from a
            clean server that has only imported torch, which makes the next launch about 50 times
            quicker; ``"auto"`` takes what the environment variable COURSE_START_METHOD says,
            else forkserver where it exists.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``; reaches ``process_group`` in the ranks.
        threads: Threads torch computes with on each rank; default: cores ÷ ranks.
        timeout: Seconds without any sign of life (output, report, bar, result) from any rank
            after which the launch ends. Not a limit on long, talkative training; while the ranks
            are still starting it is at least 60.
        deadline: Seconds the whole launch may take; None for no limit.
        debug: Set TORCH_DISTRIBUTED_DEBUG=DETAIL: mismatched collectives are named.
        **kwargs: Passed to ``fn``.

    Returns:
        A list: entry ``r`` is what rank ``r`` returned.

    Raises:
        RankError: A rank failed, the launch fell silent, or it was interrupted. By then no rank
            and no DataLoader worker is left.
        TypeError: ``fn`` is not callable, does not take these arguments, or cannot be sent.
        ValueError: Another argument is out of range. Both before any process starts.
    """
    method = _checked(fn, args, kwargs, nprocs, start_method, device, threads, timeout, deadline)
    call = _pickled(fn, args, kwargs)
    context = mp.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(_PRELOAD)
    supervisor = Supervisor(Display(nprocs), timeout, deadline)
    with loopback_store() as port:
        environ = os.environ | _environment(nprocs, port, device, threads, debug)
        job = Job(call, environ, cell_sources())
        results = supervisor.run(lambda rank: Rank(rank, context, job), nprocs)
    return [cloudpickle.loads(result) for result in results]


def _environment(
    nprocs: int, port: int, device: str, threads: int | None, debug: bool
) -> dict[str, str]:
    """What torchrun would set, and the launch's own wishes."""
    environ = {
        "WORLD_SIZE": str(nprocs),
        "LOCAL_WORLD_SIZE": str(nprocs),
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "ROLE_RANK": "0",
        "ROLE_WORLD_SIZE": str(nprocs),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # The kernel hosts the store; ranks join it as they join a torchrun agent's.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        **SOCKETS_ON_LOOPBACK,
        "COURSE_DEVICE": device,
    }
    if threads is not None:
        environ["COURSE_THREADS"] = str(threads)
    if debug:
        environ["TORCH_DISTRIBUTED_DEBUG"] = "DETAIL"
    return environ


def _checked(fn, args, kwargs, nprocs, start_method, device, threads, timeout, deadline) -> str:
    """Refuse bad arguments; return the start method to use."""
    if reporting.in_rank():
        raise RuntimeError("launch was called inside a rank: ranks cannot start ranks of their own")
    if not callable(fn):
        raise TypeError(
            f"launch needs a function to run, got {type(fn).__name__} {fn!r:.60}: "
            "write launch(train, 3), not launch(train(3))"
        )
    check_whole_number("nprocs", nprocs)
    if threads is not None:
        check_whole_number("threads", threads)
    check_seconds("timeout", timeout)
    if deadline is not None:
        check_seconds("deadline", deadline)
    there = mp.get_all_start_methods()
    if start_method == "auto":
        start_method = os.environ.get("COURSE_START_METHOD") or "auto"
    if start_method not in START_METHODS or start_method not in ("auto", *there):
        why = " (a forked kernel deadlocks in OpenMP and CUDA)" if start_method == "fork" else ""
        choices = ", ".join(m for m in START_METHODS if m in ("auto", *there))
        raise ValueError(f"start_method={start_method!r}{why}: choose one of {choices}")
    check_device(device)
    check_gpus(device, nprocs, f"nprocs={nprocs}")
    _bind(fn, args, kwargs)
    if start_method != "auto":
        return start_method
    return "forkserver" if "forkserver" in there else "spawn"


def _bind(fn, args, kwargs) -> None:
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some builtins do not tell
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(fn, "__name__", repr(fn))
        raise TypeError(
            f"{name}{signature} cannot be called so: {error} (launch's own options are nprocs, "
            "start_method, device, threads, timeout, deadline and debug)"
        ) from None


def _pickled(fn, args, kwargs) -> bytes:
    try:
        return cloudpickle.dumps((fn, args, kwargs))
    except Exception as error:
        culprit = _culprit(fn, args, kwargs)
        raise TypeError(
            f"cannot send {getattr(fn, '__name__', fn)!r} to the ranks: {culprit} cannot be "
            f"pickled ({error}). Create it inside the function instead."
        ) from None


def _culprit(fn, args, kwargs) -> str:
    """Name the smallest thing that cannot be pickled: an argument, a captured or global name."""
    inner = inspect.unwrap(fn)
    captured = inspect.getclosurevars(inner) if inspect.isfunction(inner) else None
    named = [(f"argument {i}", value) for i, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    if captured:
        named += [(f"the captured name {n!r}", v) for n, v in captured.nonlocals.items()]
        named += [(f"the global name {n!r}", v) for n, v in captured.globals.items()]
    for name, value in named:
        try:
            cloudpickle.dumps(value)
        except Exception:
            if inspect.isfunction(value) and value is not fn:
                return f"{_culprit(value, (), {})}, used by {value.__name__},"
            return f"{name} (a {type(value).__name__})"
    return "something it captures"
