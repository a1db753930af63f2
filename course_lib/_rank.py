"""One rank as the kernel sees it: its process, its pipes, what became of it.

Invariant: a rank has returned only when its result has arrived. An end before that is a failure,
whatever the exit code.
"""

import os
import pickle
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext

from course_lib import _child
from course_lib._display import Display
from course_lib._places import Frame, frames_in_dump, frames_of, place
from course_lib.errors import Event

REAP = 2.0  # seconds for a killed process to be gone
_CHUNK = 1 << 16


class Rank:
    """One rank as the kernel sees it: its process, its pipes, what became of it."""

    def __init__(self, rank: int, context: BaseContext, job: _child.Job) -> None:
        self.rank = rank
        self.result: bytes | None = None
        self.event: Event | None = None
        self.main_thread: int | None = None
        self.begun = False
        self._begun_when_asked = True
        self.dump = b""
        self._inbox = bytearray()
        self._line = b""
        pairs = [context.Pipe(duplex=False) for _ in range(3)]
        self._messages, self._output, self._stacks = (ours for ours, _ in pairs)
        self._theirs = _child.Pipes(*(end for _, end in pairs))
        # Plain tuples: a class of this package would be imported there before ENTRY's first line.
        given = {"rank": rank, "job": tuple(job), "pipes": tuple(self._theirs)}
        self.process = context.Process(target=exec, args=(_child.ENTRY, given), name=f"rank {rank}")

    def start(self) -> None:
        """Start the process; from here on it must be ended."""
        try:
            self.process.start()
        finally:
            self._theirs.close()
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)

    @property
    def running(self) -> bool:
        """Neither returned nor failed."""
        return self.result is None and self.event is None

    def fds(self) -> list[int]:
        """What to wait on: the pipes while it runs, the sentinel until the process has ended."""
        pipes = [pipe.fileno() for pipe in self._pipes] if self.running else []
        return pipes if self.process.exitcode is not None else [*pipes, self.process.sentinel]

    @property
    def _pipes(self):
        return self._messages, self._output, self._stacks

    def read(self, display: Display, most: int | None = _CHUNK) -> bool:
        """Take in what the rank has written: about ``most`` bytes a pipe, or all of it.

        A rank that floods its pipes waits for the kernel; it must not keep the kernel from the
        others.

        Returns:
            Whether there was a sign of life: output or a message.
        """
        output = _drain(self._output, most)
        self._show(output, display)
        news = _drain(self._messages, most)
        self._inbox += news
        for kind, payload, when in self._unpack():
            self._note(kind, payload, when, display)
        self.dump += _drain(self._stacks, most)
        return bool(output or news)

    def _show(self, data: bytes, display: Display) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > _CHUNK:
            lines, self._line = [*lines, self._line], b""
        # As on a terminal, what a carriage return overwrites is not seen.
        seen = [line.rstrip(b"\r").rpartition(b"\r")[2] for line in lines]
        display.lines(self.rank, [line.decode(errors="replace") for line in seen])

    def _unpack(self) -> Iterator[tuple]:
        size = _child.HEADER.size
        while len(self._inbox) >= size:
            end = size + _child.HEADER.unpack_from(self._inbox)[0]
            if len(self._inbox) < end:
                return
            message = pickle.loads(memoryview(self._inbox)[size:end])
            self._inbox = self._inbox[end:]
            yield message

    def _note(self, kind: str, payload, when: float, display: Display) -> None:
        match kind:
            case "started":
                self.main_thread = payload
            case "begun":
                self.begun = True
            case "returned":
                self.result = payload
            case "raised":
                name, text, stack = payload
                first = text.split("\n", 1)[0]
                what = f"raised {name}: {first}" if first else f"raised {name}"
                self.event = Event(self.rank, what, when, frames_of(stack), name, text)
            case "exited":
                code, stack = payload
                what = f"exited with code {code} before returning"
                self.event = Event(self.rank, what, when, frames_of(stack))
            case _:
                display.handle(self.rank, kind, payload)

    def look(self, display: Display) -> None:
        """Notice an end that came without a message."""
        code = self.process.exitcode
        if code is None or not self.running:
            return
        self.read(display, most=None)  # what it wrote before it ended
        if not self.running:
            return
        if code < 0:
            with suppress(ValueError):
                code = signal.Signals(-code).name
            what = f"was killed by {code}" if isinstance(code, str) else f"was killed by {-code}"
        else:
            what = f"exited with code {code} before returning"
        self.event = Event(self.rank, what, time.monotonic(), self.frames())

    def ask_where(self) -> None:
        """Have the rank write its stack, wherever it is; see ``frames``."""
        self._begun_when_asked = self.begun
        if self.running and self.main_thread is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, _child.ASK_WHERE)

    @property
    def has_answered(self) -> bool:
        """Whether there is nothing more to learn about where it stands."""
        return self.main_thread is None or f"{self.main_thread:x} " in self._dumped

    @property
    def _dumped(self) -> str:
        return self.dump.decode(errors="replace")

    def frames(self) -> list[Frame]:
        """Where the rank's main thread stood when it wrote its stack; outermost first."""
        return frames_in_dump(self._dumped, self.main_thread or 0)

    def state(self) -> str:
        """What to say of this rank when the launch has failed."""
        if self.event is not None:
            return self.event.state
        if self.result is not None:
            return "had returned"
        # It may have begun after it said where it stood: then the stack is that of an import.
        frames = self.frames()
        there = self._begun_when_asked or any(frame.is_the_readers for frame in frames)
        if not self.begun or not there:
            return "was still starting"
        if not self.has_answered:
            return "still running, and did not answer"
        where = place(frames)
        return f"still in {where}" if where else "still running"

    def kill(self) -> None:
        """Kill the rank and everything it started."""
        for kill in (os.killpg, os.kill):
            with suppress(ProcessLookupError, PermissionError):
                kill(self.process.pid, signal.SIGKILL)

    def bury(self, display: Display) -> None:
        """After ``kill``: reap the process, show its last words, free its pipes."""
        self.process.join(REAP)
        self.read(display, most=None)
        if self._line:
            self._show(b"\n", display)
        with suppress(ValueError):  # not gone within the grace: nothing more to do here
            self.process.close()
        self.free_pipes()

    def free_pipes(self) -> None:
        """Close this side of the pipes."""
        for pipe in self._pipes:
            pipe.close()


def _drain(pipe: Connection, most: int | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    with suppress(BlockingIOError):
        while (most is None or size < most) and (part := os.read(pipe.fileno(), _CHUNK)):
            parts.append(part)
            size += len(part)
    return b"".join(parts)
