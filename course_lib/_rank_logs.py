"""What the ranks of a torchrun run have written: lines to show, and what went wrong.

Every rank writes into files of its own (see ``_agent``). The traceback it ends with is not shown
as output but becomes an ``Event``, as under ``launch``.
"""

import itertools
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

from course_lib._places import Frame, without_the_launchers
from course_lib.errors import Event

HOLD = 3.0  # seconds a traceback is held back: a rank that fails is gone by then
_TRACEBACK = "Traceback (most recent call last):"
_STARTS = (_TRACEBACK, "Fatal Python error:")
_TORCHS_LABEL = re.compile(r"^\[rank\d+\]: ?", re.MULTILINE)
_HEADER = re.compile(rf"^(?:Exception Group )?{re.escape(_TRACEBACK)}\n", re.MULTILINE)
_GROUP = re.compile(r"^  [+|] ", re.MULTILINE)  # in front of an exception group's own lines
_CHAINED = ("During handling of the above", "The above exception was the direct cause")
_SYNTAX = re.compile(r'^(?=  File ".*", line \d+\n)', re.MULTILINE)  # it comes without a header
_FRAME = re.compile(r'^  File "(.*)", line (\d+)(?:, in (.*))?$', re.MULTILINE)
# What torch's C++ side and Python itself may add after an exception's message.
_ASIDE = re.compile(r"^(\[?[WEIF]\d{4} |Exception ignored in|  \+-)")
_ERROR = re.compile(r"^([A-Za-z_][\w.]*)(?:: (.*))?$", re.DOTALL)
_DUMP = "(most recent call first):"
_DUMP_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class RankLog:
    """One attempt of one rank: its folder with ``stdout.log`` and ``stderr.log``."""

    def __init__(self, folder: Path) -> None:
        self.rank = int(folder.name.partition("_")[2])
        self.attempt = int(folder.parent.name.partition("_")[2])
        self._out = _Tail(folder / "stdout.log")
        self._err = _Tail(folder / "stderr.log")
        self._errors = folder / "stderr.log"
        self._held: list[str] = []
        self._held_since = 0.0

    def new_lines(self, hold: float | None = None) -> tuple[list[str], bool]:
        """Whole lines written since the last call, and whether anything at all was written.

        Args:
            hold: Seconds for which a traceback is held back; None: ``HOLD``.
        """
        lines, some = self._out.read()
        errors, more = self._err.read()
        for line in (_TORCHS_LABEL.sub("", line) for line in errors):
            if self._held or any(start in line for start in _STARTS):
                self._held_since = self._held_since or time.monotonic()
                self._held.append(line)
            else:
                lines.append(line)
        if self._held and time.monotonic() - self._held_since > (HOLD if hold is None else hold):
            lines += self.released()
        return [_as_on_a_terminal(line) for line in lines], some or more

    def released(self) -> list[str]:
        """What was held back."""
        lines, self._held, self._held_since = self._held, [], 0.0
        return lines

    def handled(self) -> list[str]:
        """What was held back, without the traceback that the rank ended with."""
        starts = [i for i, line in enumerate(self._held) if any(s in line for s in _STARTS)]
        chained = any(line.startswith(_CHAINED) for line in self._held)
        return [] if chained else self._held[: max(starts, default=0)]

    def rest(self) -> list[str]:
        """What is left at the end of each file without the end of a line."""
        return [line for tail in (self._out, self._err) if (line := tail.rest())]

    def event(self, code: int | None) -> Event | None:
        """How the rank failed, or None when it did not, or nothing says so.

        Args:
            code: Its exit code if it ended by itself, negative for a signal.
        """
        text = _TORCHS_LABEL.sub("", self._text())
        when = 0.0
        with suppress(OSError):
            when = self._errors.stat().st_mtime
        if code is not None and code < 0:
            with suppress(ValueError):
                name = signal.Signals(-code).name
                return Event(self.rank, f"was killed by {name}", when, self.where())
        found = _last_traceback(text)
        # A rank that is still ending has no code; its last traceback began at the top, uncaught.
        ending = (
            code is None
            and self._held
            and found
            and [f.function for f in found[0][:1]] == ["<module>"]
        )
        if found and (code == 1 or ending):
            frames, name, message = found
            first = message.partition("\n")[0]
            what = f"raised {name}: {first}" if first else f"raised {name}"
            return Event(self.rank, what, when, without_the_launchers(frames), name, message)
        if code:
            last_words = [line for line in text.splitlines() if line.strip() and not found][-1:]
            what = ": ".join([f"exited with code {code}", *last_words])
            return Event(self.rank, what, when)
        return None

    def where(self) -> list[Frame]:
        """Where a rank stood that was made to write its stacks; outermost first."""
        text = self._text()
        if _DUMP not in text:
            return []
        block = text.rpartition("Current thread")[2] or text.rpartition("Thread ")[2]
        found = [Frame(m[1], int(m[2]), m[3]) for m in _DUMP_FRAME.finditer(block)]
        return without_the_launchers(found[::-1])

    def _text(self) -> str:
        with suppress(OSError):
            return self._errors.read_text(errors="replace")
        return ""


def _last_traceback(text: str) -> tuple[list[Frame], str, str] | None:
    """The frames, the exception and its message of the last traceback in a text."""
    text = _GROUP.sub("", text)
    starts = [m.end() for m in _HEADER.finditer(text)] or [m.end() for m in _SYNTAX.finditer(text)]
    if not starts:
        return None
    lines = text[starts[-1] :].splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("  ")), len(lines))
    frames = [Frame(m[1], int(m[2]), m[3] or "") for m in _FRAME.finditer("\n".join(lines[:end]))]
    said = list(itertools.takewhile(lambda line: not _ASIDE.match(line), lines[end:]))
    match = _ERROR.match("\n".join(said).strip())
    if not match:
        return None
    return frames, match[1].rpartition(".")[2], match[2] or ""


class _Tail:
    """A growing file, read line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._part = b""

    def read(self) -> tuple[list[str], bool]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return [], False
        self._at += len(data)
        *lines, self._part = (self._part + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines], bool(data)

    def rest(self) -> str:
        part, self._part = self._part, b""
        return part.decode(errors="replace")


def _as_on_a_terminal(line: str) -> str:
    """A line without what carriage returns have overwritten."""
    return line.rstrip("\r").rpartition("\r")[2]
