"""Turn rounds of measurements into medians, ratios and verdicts."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

RELAUNCH_AT_MOST = 0.03
MEMORY_AT_MOST = 0.4
THROUGHPUT_AT_LEAST = 0.97


class Spread(NamedTuple):
    """The median of some rounds, and the smallest and largest of them."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of ``values``; not a number where there is none."""
        return cls(median(values), min(values), max(values)) if values else cls(*[math.nan] * 3)

    def text(self, form: str) -> str:
        """``0.018 (0.016 to 0.021)``, each number in the format ``form``."""
        if math.isnan(self.middle):
            return "–"
        return f"{self.middle:{form}} ({self.low:{form}} to {self.high:{form}})"


class Verdict(NamedTuple):
    """One claim with its bar.

    Attributes:
        claim: What is compared with what.
        ratio: Over the rounds; the median is judged.
        bar: What it is judged by.
        at_most: Whether less is better.
        void: Why it says nothing, or an empty text.
    """

    claim: str
    ratio: Spread
    bar: float
    at_most: bool
    void: str = ""

    @property
    def word(self) -> str:
        """``met``, ``missed``, ``void`` or ``not measured``."""
        if self.void:
            return "void"
        if math.isnan(self.ratio.middle):
            return "not measured"
        met = self.ratio.middle <= self.bar if self.at_most else self.ratio.middle >= self.bar
        return "met" if met else "missed"

    def row(self) -> list[str]:
        """The claim's row of the table."""
        bar = f"{'≤' if self.at_most else '≥'} {self.bar:g}"
        return [self.claim, self.ratio.text(".3f"), bar, self.word]


def ratios(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Spread:
    """The ratio of each round in which both were measured."""
    pairs = zip(ours, theirs, strict=True)
    return Spread.of([a / b for a, b in pairs if a is not None and b is not None])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are as wide as what stands in them."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        for row in [head, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def judge(
    launches: Mapping[str, Mapping[str, Sequence[float | None]]],
    rates: Mapping[str, Sequence[float | None]],
    void: str = "",
) -> list[Verdict]:
    """The bars of the course, held against the rounds.

    Args:
        launches: ``"again"``, ``"memory"``, ``"ready"`` → name → one number a round (None: not
            measured).
        rates: Name → rows a second, one number a round.
        void: Why the trainings cannot be compared, or an empty text.
    """
    from .launches import COURSE, SPAWN
    from .trainings import COURSE as TRAINED

    bars = (
        ("again", "again", "time", RELAUNCH_AT_MOST),
        ("memory", "", "memory a rank", MEMORY_AT_MOST),
        ("ready", "", "memory a rank with an optimizer", MEMORY_AT_MOST),
    )
    found = []
    for kind, again, what, bar in bars:
        ratio = ratios(launches[kind][COURSE], launches[kind][SPAWN])
        claim = " ".join(filter(None, [COURSE, again, "÷", f"{SPAWN}, {what}"]))
        found.append(Verdict(claim, ratio, bar, at_most=True))
    for name in rates:
        if name != TRAINED:
            ratio = ratios(rates[TRAINED], rates[name])
            claim = f"training under {TRAINED} ÷ {name}, rows a second"
            found.append(Verdict(claim, ratio, THROUGHPUT_AT_LEAST, at_most=False, void=void))
    return found
