"""What a rank does before and after the reader's function.

A rank is a fresh process with its own process group, so that it can be ended together with its
DataLoader workers. It talks to the kernel through three pipes: messages (framed pickles), output
(all that Python or C++ writes to file descriptors 1 and 2), and stacks (what ``faulthandler``
writes when asked where the rank stands). It ends when the kernel does. The module imports only
the standard library until the pipes stand, so that a broken installation is reported like any
other error. What it imports is kept little: every rank of every launch pays for what the fork
server has not imported (``launcher._PRELOAD``).
"""

import ctypes
import faulthandler
import linecache
import multiprocessing
import os
import pickle
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

ASK_WHERE = signal.SIGUSR1
HEADER = struct.Struct("!Q")  # length of the pickle that follows, in bytes
# The first code of a new process; text, so that nothing need be imported to read it. A forked rank
# begins with the server's objects. A garbage collection among them would copy memory that is shared
# (and take 6 ms a rank, measured); frozen, they are left alone.
ENTRY = """import gc
gc.freeze()
from course_lib import _child
_child.main(rank, _child.Job(*job), _child.Pipes(*pipes))
"""


class Job(NamedTuple):
    """What every rank of a launch is given.

    Attributes:
        call: cloudpickle of ``(fn, args, kwargs)``, functions of cells by value.
        environ: The kernel's environment and the launch's, without what differs by rank.
        cells: ``linecache`` entries of the kernel's cells.
    """

    call: bytes
    environ: dict[str, str]
    cells: dict[str, tuple]


class Pipes(NamedTuple):
    """The rank's ends of its three pipes."""

    messages: Connection
    output: Connection
    stacks: Connection

    def close(self) -> None:
        """Close the kernel's copies, once the rank has its own."""
        for pipe in (self.messages, self.output, self.stacks):
            pipe.close()


def main(rank: int, job: Job, pipes: Pipes) -> NoReturn:
    """Run the job as rank ``rank`` and end the process.

    The process leaves with ``os._exit``: interpreter shutdown may wait for communication that will
    never finish, and everything worth flushing is flushed here.
    """
    os.setpgid(0, 0)
    _end_with_the_kernel()
    _redirect_output(pipes.output)
    faulthandler.enable(pipes.stacks.fileno(), all_threads=True)
    faulthandler.register(ASK_WHERE, pipes.stacks.fileno(), all_threads=True, chain=False)
    send = _sender(pipes.messages)
    send("started", threading.main_thread().ident)
    code = 0
    try:
        send("returned", _run(rank, job, send))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        send("exited", (code, stack_of(end.__traceback__)))
    except BaseException as error:
        code = 1
        what = (type(error).__name__, _text(error), stack_of(error.__traceback__))
        send("raised", what)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _run(rank: int, job: Job, send: Callable[[str, Any], None]) -> bytes:
    local = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ.clear()
    os.environ.update(job.environ | local)
    linecache.cache.update(job.cells)
    # DataLoader workers over a Dataset from a cell cannot unpickle it: let this rank fork them.
    multiprocessing.set_start_method("fork", force=True)

    import cloudpickle
    import torch.distributed

    from course_lib import group, reporting

    torch.distributed.set_debug_level_from_env()  # torch read it at import, in the server's time
    group.set_threads()
    reporting._send = send
    function, args, kwargs = pickle.loads(job.call)
    # What a cell defined lives in __main__ there; pickles made by ranks look for it here.
    names = getattr(getattr(function, "__func__", function), "__globals__", {})
    if names.get("__name__") == "__main__":
        vars(sys.modules["__main__"]).update({k: v for k, v in names.items() if k[:2] != "__"})
    send("begun", None)
    result = function(*args, **kwargs)
    reporting.flush()
    try:
        return cloudpickle.dumps(result)
    except Exception as error:
        raise TypeError(
            f"the returned {type(result).__name__} cannot be sent to the notebook: {error}"
        ) from None


def stack_of(trace: TracebackType | None) -> list[tuple[str, int, str]]:
    """File, line and function of each frame, outermost first: what ``_places`` makes places of."""
    return [(f.f_code.co_filename, line, f.f_code.co_name) for f, line in traceback.walk_tb(trace)]


def _text(error: BaseException) -> str:
    lines = traceback.format_exception_only(error)
    if isinstance(error, SyntaxError):
        return str(error)
    said = "".join(lines).strip()
    return said.partition(": ")[2] if ": " in said.split("\n")[0] else str(error)


def _sender(pipe: Connection) -> Callable[[str, Any], None]:
    """A function that sends ``(kind, payload)``, from this process and any of its threads."""
    lock, owner = threading.Lock(), os.getpid()

    def send(kind: str, payload: Any) -> None:
        if os.getpid() != owner:  # a DataLoader worker: only the rank itself speaks
            return
        body = pickle.dumps((kind, payload, time.monotonic()))
        with lock:
            for data in (HEADER.pack(len(body)), body):
                view = memoryview(data)
                while view:
                    view = view[os.write(pipe.fileno(), view) :]

    return send


def _redirect_output(pipe: Connection) -> None:
    for fd in (1, 2):
        os.dup2(pipe.fileno(), fd)
    for name in ("stdout", "stderr"):
        fd = 1 if name == "stdout" else 2
        stream = open(  # noqa: SIM115
            fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _end_with_the_kernel() -> None:
    """Never outlive the kernel, and let no DataLoader worker outlive its rank.

    On Linux the operating system ends a process with the thread that forked it. That is asked for
    in the rank and, after each fork of its main thread, in the new worker. Under forkserver the
    rank's parent is the server, which lives as long as its ranks: a thread watches the kernel.
    """
    if sys.platform == "linux":
        prctl, set_parent_death_signal = ctypes.CDLL(None).prctl, 1
        prctl(set_parent_death_signal, signal.SIGKILL)
        by_main = [True]

        def before_fork() -> None:
            by_main[0] = threading.current_thread() is threading.main_thread()

        def in_worker() -> None:
            if by_main[0]:
                prctl(set_parent_death_signal, signal.SIGKILL)

        os.register_at_fork(before=before_fork, after_in_child=in_worker)
    kernel = multiprocessing.parent_process()

    def watch() -> None:
        kernel.join()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="watch the kernel", daemon=True).start()
