"""What ``torchrun`` in a cell starts once a node: torch's elastic agent, on a leash.

It is torchrun itself with four additions. Each rank's output goes to files named after the global
rank. How ranks have ended by themselves, before the agent ends the others, is left in a file. And
when its standard input ends, which happens when the notebook's kernel does, the agent ends
everything the run has started: all processes that carry the run's mark in their environment. The
store that the ranks meet at listens on loopback only (not with restarts: then rank 0 makes it; and
not on a cable, which leads nowhere else).
"""

import json
import logging
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import psutil

MARK = "COURSE_RUN"  # environment variable: which run a process belongs to
REPORT = "ended.json"
SETTLE = 1.0  # seconds for the other ranks to fail after the first, so that the cause can be told
_GONE = 5.0  # seconds within which killed processes vanish
_exit = threading.Lock()  # held by the thread that ends this process: the other waits for its end


def marked(run: str) -> Iterator[psutil.Process]:
    """Every process of this user that belongs to ``run``, but for this one."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == run:
                yield process


def end_marked(run: str) -> None:
    """Kill every process of ``run`` but this one, and those they start meanwhile."""
    end = time.monotonic() + _GONE
    while found := [p for p in marked(run) if p.status() != psutil.STATUS_ZOMBIE]:
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=0.5)
        if time.monotonic() > end:
            return


def _leash(logs: Path) -> None:
    while os.read(0, 1 << 16):
        pass
    _exit.acquire()
    end_marked(os.environ[MARK])
    end = time.monotonic() + _GONE
    while logs.exists() and time.monotonic() < end:  # the main thread may be writing there
        shutil.rmtree(logs, ignore_errors=True)
    os._exit(1)


def main(arguments: list[str], logs: Path) -> NoReturn:
    """Run ``torchrun`` with ``arguments``.

    Args:
        arguments: torchrun's command line.
        logs: Folder for the ranks' output, shared by the agents of a run, and this agent's own
            report of what failed.
    """
    threading.Thread(target=_leash, args=(logs,), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # aborted ranks leave no core files
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsDest
    from torch.distributed.elastic.multiprocessing.api import SubprocessContext
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler
    from torch.distributed.launcher.api import elastic_launch

    from course_lib._loopback import loopback_store

    class ByRank(DefaultLogsSpecs):
        def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
            places = {}
            for local, env in envs.items():
                attempt = int(env["TORCHELASTIC_RESTART_COUNT"])
                places[local] = logs / f"attempt_{attempt:03d}" / f"rank_{env['RANK']}"
                places[local].mkdir(parents=True, exist_ok=True)
                env["TORCHELASTIC_ERROR_FILE"] = str(places[local] / "error.json")
            return LogsDest(
                stdouts={local: str(place / "stdout.log") for local, place in places.items()},
                stderrs={local: str(place / "stderr.log") for local, place in places.items()},
                error_files={local: str(p / "error.json") for local, p in places.items()},
            )

    end_the_others = SubprocessContext.close
    told: list[SubprocessContext] = []

    def close(context: SubprocessContext, *args, **kwargs) -> None:
        if context not in told:  # the agent closes what has failed twice
            told.append(context)
            processes = {
                int(context.envs[local]["RANK"]): handler.proc
                for local, handler in context.subprocess_handlers.items()
            }
            end = time.monotonic() + SETTLE
            while {p.poll() for p in processes.values()} - {0, None} and time.monotonic() < end:
                if all(p.poll() is not None for p in processes.values()):
                    break
                time.sleep(0.02)
            codes = {rank: code for rank, p in processes.items() if (code := p.poll()) is not None}
            (logs / f"{os.getpid()}.{REPORT}").write_text(json.dumps(codes))
        end_the_others(context, *args, **kwargs)

    SubprocessContext.close = close
    stores = ExitStack()  # open until this process ends
    torch_store = DynamicRendezvousHandler._create_tcp_store_server

    def store_of_ranks(handler, host: str, port: int):
        if host != "127.0.0.1":  # a node of its own: the others must reach it
            return torch_store(handler, host, port)
        return SimpleNamespace(port=stores.enter_context(loopback_store()))

    DynamicRendezvousHandler._create_tcp_store_server = store_of_ranks
    # The launch tells what went wrong, once; the agent's own accounts of it would be the second.
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    config, command, words = run.config_from_args(run.parse_args(arguments))
    config.logs_specs = ByRank()
    code = 0
    try:
        elastic_launch(config=config, entrypoint=command)(*words)
    except ChildFailedError:
        code = 1
    sys.stdout.flush()
    _exit.acquire()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupts are the kernel's to act on
    main(sys.argv[2:], Path(sys.argv[1]))
