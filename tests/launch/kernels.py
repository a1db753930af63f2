"""A real Jupyter kernel to launch from, watched from outside."""

import re
import signal
import time
from dataclasses import dataclass, field

import psutil
from jupyter_client.manager import start_new_kernel

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PRELUDE = """
import os, signal, sys, time
import torch
import torch.distributed as dist
from course_lib import RankError, launch, process_group, progress, report
"""


@dataclass
class Reply:
    """What one cell left: its text, its error, its value."""

    parts: list = field(default_factory=list)
    error: str = ""  # "RankError: rank 1 …", as the notebook shows it
    value: str = ""
    streams: set = field(default_factory=set)
    ended: float = 0.0

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def lines(self, label: str) -> list[str]:
        return [line for line in self.text.splitlines() if line.startswith(label)]


class Kernel:
    """One kernel. ``run`` a cell, or ``start`` it, look from outside, and ``finish``."""

    def __init__(self, **env: str) -> None:
        import os

        self.manager, self.client = start_new_kernel(
            kernel_name="python3", env={**os.environ, **env}
        )
        self.pid = self.manager.provisioner.pid
        self._reply = Reply()
        self._cell = ""
        assert not self.run(PRELUDE).error

    def run(self, code: str, timeout: float = 120) -> Reply:
        self.start(code)
        return self.finish(timeout)

    def start(self, code: str) -> None:
        self._reply = Reply()
        self._cell = self.client.execute(code)

    def finish(self, timeout: float = 120) -> Reply:
        self._listen(lambda: self._reply.ended > 0, timeout)
        return self._reply

    def wait_for(self, text: str, times: int = 1, timeout: float = 120) -> str:
        self._listen(lambda: self._reply.text.count(text) >= times or self._reply.ended, timeout)
        assert self._reply.text.count(text) >= times, f"{self._reply!r:.2000}"
        return self._reply.text

    def interrupt(self) -> float:
        self.manager.interrupt_kernel()  # to the kernel's whole process group
        return time.monotonic()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def _listen(self, done, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not done():
            left = end - time.monotonic()
            assert left > 0, f"not in {timeout} s; so far: {self._reply!r:.2000}"
            try:
                message = self.client.get_iopub_msg(timeout=min(left, 1))
            except Exception:  # queue.Empty: nothing yet
                continue
            if message["parent_header"].get("msg_id") == self._cell:
                self._take(message["msg_type"], message["content"])

    def _take(self, kind: str, content: dict) -> None:
        match kind:
            case "stream":
                self._reply.parts.append(content["text"])
                self._reply.streams.add(content["name"])
            case "execute_result" | "display_data" | "update_display_data":
                self._reply.value = content["data"].get("text/plain", "")
            case "error":
                self._reply.error = ANSI.sub("", "\n".join(content["traceback"]))
            case "status" if content["execution_state"] == "idle":
                self._reply.ended = time.monotonic()


def is_helper(process: psutil.Process) -> bool:
    """Whether it is multiprocessing's own fork server or resource tracker."""
    try:
        line = " ".join(process.cmdline())
        parent = process.parent()
        forked = parent is not None and " ".join(parent.cmdline()) == line
        return ("forkserver import" in line or "resource_tracker" in line) and not forked
    except psutil.NoSuchProcess:
        return True


def pids_in(text: str) -> list[int]:
    """The numbers after ``pid`` in a text."""
    return [int(n) for n in re.findall(r"pid (\d+)", text)]


def assert_gone(pids: list[int], seconds: float = 5.0) -> None:
    """All of these processes end within ``seconds`` (measured: well under one)."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    alive = [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.send_signal(signal.SIGKILL)
    assert not alive
