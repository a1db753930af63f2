"""Watch the torchrun agents of one run, and end everything they have started.

A run is one agent a node, all on this machine. Invariants, as for ``launch``: however the run ends,
no agent, no rank and no DataLoader worker is left, and no interrupt can cut that short. Ranks live
in sessions of their own; they are found by the mark that the run leaves in their environment.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from course_lib._agent import MARK, REPORT, end_marked
from course_lib._places import place
from course_lib._rank_logs import RankLog
from course_lib._supervisor import STARTING, interrupts_held
from course_lib.errors import Event, RankError, root_cause

POLL = 0.1  # seconds between two looks
LATE = 10.0  # seconds for the other agents to end after the first has failed
_LEFT = "exited with code 0 before the others were done"
STACKS = 2.0  # seconds for ranks to write where they stand


class Agents:
    """The agents of one run.

    Args:
        folder: An empty folder for what the ranks write.
        timeout: Seconds without any output after which the run ends.
        deadline: Seconds the whole run may take; None for no limit.
    """

    def __init__(
        self,
        folder: Path,
        timeout: float,
        deadline: float | None,
    ) -> None:
        self._planned: list[tuple[list[str], dict[str, str]]] = []
        self._run = uuid.uuid4().hex
        self._folder = folder
        self._timeout = timeout
        self._deadline = deadline
        self._agents: list[subprocess.Popen] = []
        self._logs: dict[Path, RankLog] = {}
        self._stopped = False
        self._failed: set[int] = set()

    def add(
        self, arguments: Sequence[str], environ: dict[str, str], within: Sequence[str] = ()
    ) -> None:
        """Plan one more agent.

        Args:
            arguments: torchrun's.
            environ: The agent's environment, and its ranks'.
            within: Words before its command: where it shall run.
        """
        agent = [sys.executable, "-m", "course_lib._agent", str(self._folder)]
        self._planned.append(([*within, *agent, *arguments], environ | {MARK: self._run}))

    def run(self) -> None:
        """Start the agents and wait until all are done.

        Raises:
            RankError: An agent or a rank failed, the run fell silent, or it was interrupted.
        """
        with interrupts_held() as self._interrupts:
            try:
                self._start()
                stopped = self._watch()
                if stopped or any(agent.returncode for agent in self._agents):
                    raise self._diagnosis(stopped)
                self._show(well=True)
            finally:
                for agent in self._agents:
                    with suppress(ProcessLookupError):
                        agent.kill()
                end_marked(self._run)
                for agent in self._agents:
                    agent.wait()
                    agent.stdin.close()
                self._show(last=True, hold=math.inf)
        if self._interrupts:
            raise KeyboardInterrupt

    def _start(self) -> None:
        for number, (command, environ) in enumerate(self._planned):
            with (self._folder / f"agent_{number}.log").open("wb") as log:
                self._agents.append(
                    subprocess.Popen(
                        command,
                        env=environ,
                        stdin=subprocess.PIPE,  # never written to: it ends with this process
                        stdout=log,
                        stderr=log,
                        process_group=0,
                    )
                )

    def _watch(self) -> str | None:
        """Wait until all agents are done or one has failed; or say why not to wait longer."""
        begun = last_sign = time.monotonic()
        silence = max(self._timeout, STARTING)  # until the first output
        while None in (codes := [agent.poll() for agent in self._agents]):
            if any(codes):
                return None
            time.sleep(POLL)
            now = time.monotonic()
            if self._show():
                last_sign, silence = now, self._timeout
            if self._interrupts:
                return "interrupted"
            if now - last_sign > silence:
                return f"no sign of life for {silence:g} s"
            if self._deadline is not None and now - begun > self._deadline:
                return f"not done after {self._deadline:g} s (deadline)"
        return None

    def _show(self, last: bool = False, well: bool = False, hold: float | None = None) -> bool:
        """Print what the ranks have written since; say whether they have.

        Args:
            hold: Seconds for which tracebacks are held back; None: as usual.
            last: What is held back, and lines that have no end yet, too; but not the tracebacks
                that the error is about.
            well: All have ended well: no traceback is an error's.
        """
        some = False
        for folder in sorted(self._folder.glob("attempt_*/rank_*")):
            log = self._logs.setdefault(folder, RankLog(folder))
            lines, wrote = log.new_lines(hold)
            some = some or wrote
            if well:
                lines += log.released()
            if last:
                ended = self._stopped or log.rank in self._failed
                lines += log.handled() if ended else log.released()
                lines += log.rest()
            if lines:
                print("\n".join(f"[rank {log.rank}] {line}" for line in lines), flush=True)
        return some

    def _diagnosis(self, stopped: str | None) -> RankError:
        # Other agents notice within moments that ranks failed, but not that an agent was killed.
        if not stopped and all((agent.returncode or 0) >= 0 for agent in self._agents):
            self._wait(lambda: all(agent.poll() is not None for agent in self._agents), LATE)
        standing = self._ask_where() if stopped else {}
        # However long that took: a traceback held until now may be how its rank ended. (An agent
        # that is cut off from the store waits for it, and reports nothing meanwhile.)
        self._show(hold=math.inf)
        codes = self._exit_codes()
        newest = self._newest_logs()
        events = {}
        if not stopped:
            events = {r: e for r, log in newest.items() if (e := log.event(codes.get(r)))}
        cause = root_cause(list(events.values()))
        if cause and cause.is_consequence:  # of a rank that left the others without an error
            left = [Event(rank, _LEFT, 0.0) for rank, code in codes.items() if code == 0]
            events |= {event.rank: event for event in left}
            cause = root_cause(list(events.values()))
        self._stopped, self._failed = bool(stopped), set(events)
        standing |= {rank: "had returned" for rank, code in codes.items() if code == 0}
        states = {
            rank: events[rank].state if rank in events else standing.get(rank, "was ended")
            for rank in sorted(newest)
        }
        if stopped or cause:
            return RankError(stopped or f"rank {cause.rank} {cause.what}", states, cause)
        return RankError(self._agent_failure(), states)

    def _newest_logs(self) -> dict[int, RankLog]:
        """By rank, the log of its last attempt."""
        return {log.rank: log for log in sorted(self._logs.values(), key=lambda g: g.attempt)}

    def _exit_codes(self) -> dict[int, int]:
        codes = {}
        for path in self._folder.glob(f"*.{REPORT}"):
            codes |= {int(rank): code for rank, code in json.loads(path.read_text()).items()}
        return codes

    def _agent_failure(self) -> str:
        for number, agent in enumerate(self._agents):
            code = agent.returncode
            if not code:
                continue
            log = (self._folder / f"agent_{number}.log").read_text(errors="replace")
            words = [line for line in log.splitlines() if line.strip()][-1:]
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "failed"
            return ": ".join([f"the torchrun agent of node {number} {how}", *words])
        return "the run failed"

    def _ask_where(self) -> dict[int, str]:
        """End the ranks in a way that makes them write their stacks (SIGABRT, faulthandler)."""
        ranks: dict[int, psutil.Process] = {}
        for agent in self._agents:
            with suppress(psutil.Error):
                for child in psutil.Process(agent.pid).children():
                    with suppress(psutil.Error, KeyError):
                        ranks[int(child.environ()["RANK"])] = child
            with suppress(ProcessLookupError):
                agent.kill()
        for process in ranks.values():
            with suppress(psutil.Error):
                os.kill(process.pid, signal.SIGABRT)
        psutil.wait_procs(list(ranks.values()), timeout=STACKS)
        newest = self._newest_logs()
        states = {}
        for rank in newest.keys() | ranks.keys():
            where = place(newest[rank].where()) if rank in newest else ""
            states[rank] = f"still in {where}" if where else "still running"
            if rank not in ranks:
                states[rank] = "had returned"
        return states

    @staticmethod
    def _wait(done, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            time.sleep(POLL)
