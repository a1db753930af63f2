"""Watch the ranks of one launch, and end them.

One loop in the kernel's main thread reads every rank's pipes, notices every rank's end, and counts
the seconds since the last sign of life. Invariants:

* After the first failure the others get ``SETTLE`` seconds to show theirs, so that the cause can be
  told from its consequences. Then every rank still running is asked where it stands.
* However the loop is left, every rank's process group is killed and every process reaped. No
  interrupt can cut that short: they are noted, and the loop looks at the notes.
"""

import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from course_lib._display import Display
from course_lib._rank import Rank
from course_lib.errors import RankError, root_cause

SETTLE = 0.5  # seconds for the other ranks to fail after the first
LATE = 1.0  # seconds more, while all that failed only lost a connection
ANSWER = 0.5  # seconds for a rank to say where it stands
STARTING = 60.0  # seconds of silence allowed while interpreters start, whatever the timeout
GRACE = 2.0  # seconds for a rank to end after its result
POLL = 0.1  # seconds between looks at processes whose end no pipe tells


class Supervisor:
    """All ranks of one launch."""

    def __init__(self, display: Display, timeout: float, deadline: float | None) -> None:
        self._display = display
        self._timeout = timeout
        self._deadline = deadline
        self._interrupts: list[int] = []
        self.ranks: list[Rank] = []

    def run(self, make_rank: Callable[[int], Rank], nprocs: int) -> list[bytes]:
        """Start ``nprocs`` ranks and wait for their results.

        Returns:
            The pickled result of each rank, in rank order.

        Raises:
            RankError: Any other end than a result from every rank.
        """
        with interrupts_held() as self._interrupts:
            try:
                self._begun = self._last_sign = time.monotonic()
                stopped = self._start(make_rank, nprocs) or self._watch()
                if stopped or any(rank.event for rank in self.ranks):
                    raise self._diagnosis(stopped)
                self._wait_for(self._all_gone, GRACE)
                results = [rank.result for rank in self.ranks]
            finally:
                for rank in self.ranks:
                    rank.kill()
                for rank in self.ranks:
                    rank.bury(self._display)
                self._display.close()
        if self._interrupts:  # after the last result: too late for the launch, not for the cell
            raise KeyboardInterrupt
        return results

    def _start(self, make_rank: Callable[[int], Rank], nprocs: int) -> str | None:
        for number in range(nprocs):
            rank = make_rank(number)
            try:
                rank.start()
            except (EOFError, OSError):  # the fork server has died, perhaps of the interrupt
                rank.free_pipes()
                if not self._interrupts:
                    raise
            else:
                self.ranks.append(rank)
            if self._interrupts:
                return "interrupted"
        return None

    def _watch(self) -> str | None:
        """Wait until all have returned or one has failed; or say why not to wait longer."""
        while not any(r.event for r in self.ranks):
            if all(r.result is not None for r in self.ranks):
                return None
            now = time.monotonic()
            started = all(r.begun for r in self.ranks)
            silence = self._timeout if started else max(self._timeout, STARTING)
            if now - self._last_sign > silence:
                return f"no sign of life for {silence:g} s"
            if self._deadline is not None and now - self._begun > self._deadline:
                return f"not done after {self._deadline:g} s (deadline)"
            self._step(POLL)
            if self._interrupts:
                return "interrupted"
        return None

    def _step(self, seconds: float) -> None:
        """Take in what comes within ``seconds``."""
        with selectors.DefaultSelector() as selector:
            for fd in (fd for rank in self.ranks for fd in rank.fds()):
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


@contextmanager
def interrupts_held() -> Iterator[list[int]]:
    """Note interrupts instead of raising: one raised anywhere could leave a process behind.

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
