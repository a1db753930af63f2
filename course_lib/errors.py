"""One short error for N ranks.

When one rank fails, the others usually fail after it: their connections break. ``Event`` holds what
became of one rank, ``root_cause`` tells the cause from its consequences, and ``RankError`` says it
in at most 15 lines: what happened, where every rank stood, and the traceback that matters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from course_lib._places import Frame, excerpt, place

MOST_LINES = 15
_WIDEST = 160

# What the survivors say after a peer has gone. It never outranks another failure.
_CONSEQUENCES = (
    "closed by peer",
    "Connection reset",
    "Broken pipe",
    "Connection refused",
    "Socket Timeout",
    "Timed out waiting",
    "timed out",
    "successfully reached monitoredBarrier",
    "remote process exited",
    "failed to connect",
    "connectFullMesh failed",
    "wait timeout",
)


@dataclass(frozen=True)
class Event:
    """How one rank ended without returning.

    Attributes:
        rank: The rank.
        what: ``raised KeyError: 'label 17'``, ``was killed by SIGKILL``, …
        when: Seconds on the machine's monotonic clock.
        frames: Where it happened, outermost first; empty when nobody knows.
        exception: The exception's type name, if one was raised.
        message: The exception's whole text.
    """

    rank: int
    what: str
    when: float
    frames: Sequence[Frame] = ()
    exception: str | None = None
    message: str = ""

    @property
    def is_consequence(self) -> bool:
        """Whether this is what a rank says when *another* one has gone."""
        said = f"{self.exception}: {self.message}"
        if "failed to pass monitoredBarrier" in said:  # rank 0 has found out who is missing
            return False
        return self.exception is not None and any(text in said for text in _CONSEQUENCES)

    @property
    def state(self) -> str:
        """The rank's line in the list of states."""
        where = place(self.frames)
        if self.is_consequence:
            what = "lost the connection to another rank"
            return f"{what} in {where}" if where else what
        what = self.what.split(":")[0] if self.exception else self.what
        if "SIGKILL" in what:
            what += " (from outside; often the system's answer to memory running out)"
        return f"{what} in {where}" if where else what


def root_cause(events: Sequence[Event]) -> Event | None:
    """The event that brought the others about: the earliest that is not a consequence.

    Ranks that failed alike (the same bug on every rank) are one event: the lowest rank tells it.
    """
    if not events:
        return None
    genuine = [e for e in events if not e.is_consequence] or list(events)
    first = min(genuine, key=lambda e: e.when)
    alike = [e for e in genuine if (e.what, e.message) == (first.what, first.message)]
    return min(alike, key=lambda e: e.rank)


class RankError(RuntimeError):
    """A launch that did not end with a result from every rank.

    Attributes:
        headline: The first line: what happened, and to which rank.
        states: Every rank's state, by rank.
        cause: What the root-cause rank met; None when nobody failed (timeout, interrupt).
    """

    def __init__(
        self, headline: str, states: Mapping[int, str] | None = None, cause: Event | None = None
    ) -> None:
        super().__init__(headline)
        self.headline = headline
        self.states = dict(states or {})
        self.cause = cause

    @property
    def rank(self) -> int | None:
        """The root-cause rank."""
        return self.cause.rank if self.cause else None

    @property
    def exception(self) -> str | None:
        """Type name of the exception that rank raised."""
        return self.cause.exception if self.cause else None

    @property
    def traceback(self) -> str:
        """Every frame of the root-cause rank and its whole message."""
        if not self.cause or not self.cause.frames:
            return ""
        lines = [f'  File "{f.filename}", {f.where}, in {f.function}' for f in self.cause.frames]
        return "\n".join([*lines, f"{self.cause.exception}: {self.cause.message}"])

    def __str__(self) -> str:
        lines = [_clip(self.headline), *_grouped(self.states)]
        room = MOST_LINES - len(lines) - 1
        if self.cause and self.cause.frames and room >= 2:
            more = self.cause.message.rstrip().splitlines()[1:]
            tail = more[-min(4, max(0, room - 4)) :] if room > 4 else []
            lines.append(f"Traceback of rank {self.cause.rank}:")
            lines += map(_clip, excerpt(self.cause.frames, room - len(tail)))
            lines += [_clip(f"  {line.rstrip()}") for line in tail]
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of the kernel's own (and here useless) traceback."""
        return f"{type(self).__name__}: {self}".splitlines()

    def __reduce__(self):
        return type(self), (self.headline, self.states, self.cause)


def _clip(line: str) -> str:
    return line if len(line) <= _WIDEST else line[: _WIDEST - 1] + "…"


def _grouped(states: Mapping[int, str]) -> list[str]:
    """One line a state: ``  ranks 0, 1, 3: still in all_reduce, Cell In[4], line 12``."""
    ranks: dict[str, list[int]] = {}
    for rank in sorted(states):
        ranks.setdefault(states[rank], []).append(rank)
    lines = [
        f"  rank{'s' if len(who) > 1 else ''} {_spans(who)}: {state}"
        for state, who in ranks.items()
    ]
    if len(lines) > 8:
        lines[7:] = [f"  … and {len(lines) - 7} more states"]
    return [_clip(line) for line in lines]


def _spans(numbers: Sequence[int]) -> str:
    """``0, 1, 4–7`` for 0, 1, 4, 5, 6, 7 (a span from three numbers on)."""
    spans: list[list[int]] = []
    for n in numbers:
        if spans and n == spans[-1][-1] + 1:
            spans[-1].append(n)
        else:
            spans.append([n])
    parts = [[f"{s[0]}–{s[-1]}"] if len(s) > 2 else map(str, s) for s in spans]
    return ", ".join(text for part in parts for text in part)
