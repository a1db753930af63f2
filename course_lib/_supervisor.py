"""Watch the ranks of one launch, and end them.

One loop in the kernel's main thread reads every rank's pipes, notices every rank's end, and counts
the seconds since the last sign of life. Invariants:

* A rank has finished only when its result has arrived. An exit before that is a failure, whatever
  the exit code.
* After the first failure the others get ``SETTLE`` seconds to show theirs, so that the cause can be
  told from its consequences. Then every rank still running is asked where it stands.
* However the loop is left, every rank's process group is killed and every process reaped.
"""

import os
import pickle
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext

from course_lib import _child
from course_lib._places import frames_in_dump, place
from course_lib.errors import Event, RankError, root_cause
from course_lib.reporting import Display

SETTLE = 0.5  # seconds for the other ranks to fail after the first
LATE = 1.0  # seconds more, while all that failed only lost a connection
ANSWER = 0.5  # seconds for a rank to say where it stands
STARTING = 60.0  # seconds of silence allowed while interpreters start, whatever the timeout
GRACE = 2.0  # seconds for a rank to end after its result
POLL = 0.1  # seconds between looks at processes whose end no pipe tells
_CHUNK = 1 << 16


class Rank:
    """One rank as the kernel sees it: its process, its pipes, what became of it."""

    def __init__(self, rank: int, context: BaseContext, job: _child.Job) -> None:
        self.rank = rank
        self.result: bytes | None = None
        self.event: Event | None = None
        self.main_thread: int | None = None
        self.dump = b""
        self._inbox = bytearray()
        self._line = b""
        pairs = [context.Pipe(duplex=False) for _ in range(3)]
        self._messages, self._output, self._stacks = (ours for ours, _ in pairs)
        self._theirs = _child.Pipes(*(end for _, end in pairs))
        self.process = context.Process(
            target=_child.main, args=(rank, job, self._theirs), name=f"rank {rank}"
        )

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
        """What to wait on: the pipes, and the sentinel that tells of the process's end."""
        return [*(p.fileno() for p in self._pipes), self.process.sentinel]

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
            case "returned":
                self.result = payload
            case "raised":
                name, text, frames = payload
                first = text.split("\n", 1)[0]
                what = f"raised {name}: {first}" if first else f"raised {name}"
                self.event = Event(self.rank, what, when, frames, name, text)
            case "exited":
                code, frames = payload
                what = f"exited with code {code} before returning"
                self.event = Event(self.rank, what, when, frames)
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
        if self.running and self.main_thread is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, _child.ASK_WHERE)

    @property
    def has_answered(self) -> bool:
        """Whether there is nothing more to learn about where it stands."""
        return self.main_thread is None or bool(self.frames())

    def frames(self):
        """The stack of the rank's main thread, as it last wrote it; outermost first."""
        frames = frames_in_dump(self.dump.decode(errors="replace"), self.main_thread or 0)
        return [f for f in frames if not f.filename.endswith("course_lib/_child.py")]

    def state(self) -> str:
        """What to say of this rank when the launch has failed."""
        if self.event is not None:
            return self.event.state
        if self.result is not None:
            return "had returned"
        if self.main_thread is None:
            return "was still starting"
        where = place(self.frames())
        return f"still in {where}" if where else "still running, and did not answer"

    def kill(self) -> None:
        """Kill the rank and everything it started."""
        if self.process.pid is not None:
            for kill in (os.killpg, os.kill):
                with suppress(ProcessLookupError, PermissionError):
                    kill(self.process.pid, signal.SIGKILL)

    def bury(self, display: Display) -> None:
        """After ``kill``: reap the process, show its last words, free its pipes."""
        if self.process.pid is not None:
            self.process.join(GRACE)
            self.read(display, most=None)
            if self._line:
                self._show(b"\n", display)
            with suppress(ValueError):  # not gone within the grace: nothing more to do here
                self.process.close()
        for pipe in self._pipes:
            pipe.close()


class Supervisor:
    """All ranks of one launch."""

    def __init__(self, display: Display, timeout: float, deadline: float | None) -> None:
        self._display = display
        self._timeout = timeout
        self._deadline = deadline
        self.ranks: list[Rank] = []

    def run(self, make_rank: Callable[[int], Rank], nprocs: int) -> list[bytes]:
        """Start ``nprocs`` ranks and wait for their results.

        Returns:
            The pickled result of each rank, in rank order.

        Raises:
            RankError: Any other end than a result from every rank.
        """
        try:
            try:
                self._begun = self._last_sign = time.monotonic()
                for number in range(nprocs):
                    self.ranks.append(make_rank(number))
                    with _interrupts_held() as held:
                        self.ranks[-1].start()
                    if held:
                        raise KeyboardInterrupt
                stopped = self._watch()
            except KeyboardInterrupt:
                stopped = "interrupted"
            failed = any(r.event for r in self.ranks)
            if not stopped and not failed:
                self._wait_for(self._all_gone, GRACE)
                return [r.result for r in self.ranks]
            with _interrupts_held():
                raise self._diagnosis(stopped)
        finally:
            with _interrupts_held():
                for rank in self.ranks:
                    rank.kill()
                for rank in self.ranks:
                    rank.bury(self._display)
                self._display.close()

    def _watch(self) -> str | None:
        """Wait until all have returned or one has failed; or say why not to wait longer."""
        while not any(r.event for r in self.ranks):
            if all(r.result is not None for r in self.ranks):
                return None
            now = time.monotonic()
            started = all(r.main_thread is not None for r in self.ranks)
            silence = self._timeout if started else max(self._timeout, STARTING)
            if now - self._last_sign > silence:
                return f"no sign of life for {silence:g} s"
            if self._deadline is not None and now - self._begun > self._deadline:
                return f"not done after {self._deadline:g} s (deadline)"
            self._step(POLL)
        return None

    def _step(self, seconds: float) -> None:
        """Take in what comes within ``seconds``."""
        with selectors.DefaultSelector() as selector:
            for rank in self.ranks:
                if rank.running:
                    for fd in rank.fds():
                        selector.register(fd, selectors.EVENT_READ)
            selector.select(seconds) if selector.get_map() else time.sleep(seconds)
        for rank in self.ranks:
            if rank.read(self._display):
                self._last_sign = time.monotonic()
            rank.look(self._display)

    def _all_gone(self) -> bool:
        return all(r.process.exitcode is not None for r in self.ranks)

    def _wait_for(self, done: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            self._step(0.01)

    def _cause_is_known(self) -> bool:
        return any(r.event and not r.event.is_consequence for r in self.ranks) or not any(
            r.running for r in self.ranks
        )

    def _diagnosis(self, stopped: str | None) -> RankError:
        if not stopped:
            self._wait_for(lambda: not any(r.running for r in self.ranks), SETTLE)
            self._wait_for(self._cause_is_known, LATE)
        asked = [r for r in self.ranks if r.running]
        for rank in asked:
            rank.ask_where()
        self._wait_for(lambda: all(r.has_answered or not r.running for r in asked), ANSWER)
        self._wait_for(lambda: False, 0.02)  # the rest of the last dump
        cause = root_cause([r.event for r in self.ranks if r.event]) if not stopped else None
        headline = stopped or f"rank {cause.rank} {cause.what}"
        return RankError(headline, {r.rank: r.state() for r in self.ranks}, cause)


def _drain(pipe: Connection, most: int | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    with suppress(BlockingIOError):
        while (most is None or size < most) and (part := os.read(pipe.fileno(), _CHUNK)):
            parts.append(part)
            size += len(part)
    return b"".join(parts)


@contextmanager
def _interrupts_held() -> Iterator[list[int]]:
    """Hold interrupts back where being cut short would leave a process behind.

    Yields:
        A list that is non-empty once an interrupt came. Only the main thread gets them at all.
    """
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
