"""What a launch shows in the notebook: labelled lines, one bar, notices.

The bar stands where the slowest rank stands that has begun it. Bars do not nest and follow each
other: a rank that is ahead in the next one waits, unseen, for the others to end this one.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

REDRAW = 0.2  # seconds between two drawings of the bar


def in_words(metrics: dict[str, Any]) -> str:
    """``loss=0.1234, epoch=2``."""
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in metrics.items()
    )


class Display:
    """The kernel's side: labelled lines, one bar, notices. One a launch."""

    _noticed: set[str] = set()  # for the life of the kernel  # noqa: RUF012

    def __init__(self, nprocs: int) -> None:
        self._nprocs = nprocs
        self._bar: _Bar | None = None
        self._stands: dict[int, _Stand] = {}  # by the bar's number
        self._current = 0
        self._metrics: dict[int, dict[str, Any]] = {}

    def lines(self, rank: int, texts: Sequence[str]) -> None:
        """Write lines of a rank's output, labelled."""
        if texts:
            self._write("\n".join(f"[rank {rank}] {text}" for text in texts))

    def handle(self, rank: int, kind: str, payload: Any) -> None:
        """Draw a message a rank sent through this module's functions."""
        if kind == "notice":
            if payload not in self._noticed:
                self._noticed.add(payload)
                self._write(payload)
        elif kind == "metrics":
            self._metrics.setdefault(rank, {}).update(payload)
            self._redraw()
        elif kind == "bar":
            self._advance(rank, *payload)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._redraw(last=True)
            self._bar = None

    def _advance(
        self, rank: int, number: int, desc: str, n: int, total: int | None, done: bool
    ) -> None:
        stand = self._stands.setdefault(number, _Stand(desc, total))
        stand.at[rank] = n
        if done:
            stand.done.add(rank)
        while self._is_over(self._current):
            self._redraw(last=True)
            self._bar = None
            self._current += 1
        self._redraw()

    def _is_over(self, number: int) -> bool:
        """Whether all ranks have ended this bar; a rank may have gone on without the others."""
        stand = self._stands.get(number)
        if stand is None or stand.done != set(stand.at):
            return False
        return len(stand.at) == self._nprocs or number + 1 in self._stands

    def _redraw(self, last: bool = False) -> None:
        stand = self._stands.get(self._current)
        if stand is not None:
            self._bar = self._bar or _Bar(stand.desc, stand.total)
            metrics = self._metrics[min(self._metrics)] if self._metrics else {}
            self._bar.draw(min(stand.at.values()), in_words(metrics), last)

    def _write(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(text, flush=True)


class _Stand:
    """How far each rank is in one bar."""

    def __init__(self, desc: str, total: int | None) -> None:
        self.desc = desc
        self.total = total
        self.at: dict[int, int] = {}
        self.done: set[int] = set()


class _Bar:
    """One line that is drawn over and over, at most a few times a second.

    In a notebook it is an output that is replaced, so that a saved notebook shows its last state
    and nothing else; in a terminal it is a line that carriage returns overwrite.
    """

    def __init__(self, desc: str, total: int | None) -> None:
        self._desc = desc
        self._total = total
        self._begun = time.monotonic()
        self._drawn = 0.0
        self._output = _replaceable_output()

    def draw(self, n: int, metrics: str, last: bool) -> None:
        now = time.monotonic()
        if not last and now - self._drawn < REDRAW:
            return
        self._drawn = now
        text = tqdm.format_meter(
            n, self._total, now - self._begun, ncols=90, prefix=self._desc, postfix=metrics or None
        )
        if self._output is not None:
            self._output.update({"text/plain": text}, raw=True)
        else:
            print(f"\r{text:<90}", end="\n" if last else "", flush=True)

    def clear(self) -> None:
        """Make room for other output."""
        if self._output is None:
            print("\r" + " " * 90 + "\r", end="")


def _replaceable_output():
    """A display handle in a notebook's kernel, None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return ipython.display.display({"text/plain": ""}, raw=True, display_id=True)
