"""Bars and metrics from the ranks, drawn live in the notebook.

A rank does not draw. It sends what it would draw to the kernel, at most ten times a second, and
the kernel keeps one bar that stands where the slowest rank stands. Outside a launch (in the
kernel itself, or under torchrun) the same calls draw a plain bar on rank 0.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
EVERY = 0.1  # seconds between two messages of one rank
REDRAW = 0.2  # seconds between two drawings of the kernel's bar

# In a rank under `launch`: sends (kind, payload) to the kernel. Set by the child, else None.
_send: Callable[[str, Any], None] | None = None
_metrics: dict[str, Any] = {}
_metrics_sent = 0.0
_bar: tqdm | None = None  # the bar drawn here, when there is no kernel to send to
_bar_is_sent = False  # whether this rank is inside a bar that the kernel draws


def progress(iterable: Iterable[T], desc: str = "", total: int | None = None) -> Iterator[T]:
    """Go through ``iterable`` and show how far the ranks are.

    Bars do not nest: while one is open, inner ones only pass their items on.

    Args:
        iterable: Anything to loop over.
        desc: A word in front of the bar.
        total: Number of items, when ``len(iterable)`` does not tell.

    Yields:
        The items, unchanged.
    """
    global _bar_is_sent
    if total is None:
        try:
            total = len(iterable)  # type: ignore[arg-type]
        except TypeError:
            total = None
    if _send is None:
        yield from _plain_bar(iterable, desc, total)
        return
    if _bar_is_sent:
        yield from iterable
        return
    _bar_is_sent = True
    last, n = 0.0, 0
    _send("bar", (desc, 0, total, False))
    try:
        for item in iterable:
            yield item
            n += 1
            if (now := time.monotonic()) - last >= EVERY:
                last = now
                _send("bar", (desc, n, total, False))
    finally:
        _bar_is_sent = False
        flush()
        _send("bar", (desc, n, total, True))


def report(**metrics: float | int | str) -> None:
    """Show this rank's newest numbers beside the bar: ``report(loss=0.31, epoch=2)``.

    Args:
        **metrics: Plain numbers or short words; ``tensor.item()`` first.

    Raises:
        TypeError: A value is neither.
    """
    global _metrics_sent
    for name, value in metrics.items():
        if not isinstance(value, int | float | str):
            raise TypeError(
                f"report({name}=…) got a {type(value).__name__}: plain numbers and words only; "
                "a tensor's number is tensor.item()"
            )
    _metrics.update(metrics)
    if _send is not None:
        if (now := time.monotonic()) - _metrics_sent >= EVERY:
            _metrics_sent = now
            flush()
    elif _bar is not None:
        _bar.set_postfix(_metrics)
    elif os.environ.get("RANK", "0") == "0":
        print(_words(_metrics))


def notice(text: str) -> None:
    """Say something once: the kernel shows each text only the first time a launch says it."""
    if _send is not None:
        _send("notice", text)
    else:
        print(text, flush=True)


def in_rank() -> bool:
    """Whether this process is a rank of a launch."""
    return _send is not None


def flush() -> None:
    """Send metrics that were held back."""
    if _send is not None and _metrics:
        _send("metrics", dict(_metrics))
        _metrics.clear()


def _plain_bar(iterable: Iterable[T], desc: str, total: int | None) -> Iterator[T]:
    global _bar
    if _bar is not None or os.environ.get("RANK", "0") != "0":
        yield from iterable
        return
    _bar = tqdm(iterable, desc=desc, total=total, ncols=90, file=sys.stdout)
    try:
        yield from _bar
    finally:
        _bar = None
        _metrics.clear()


def _words(metrics: dict[str, Any]) -> str:
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
        self._at: dict[int, int] = {}
        self._closed: set[int] = set()
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

    def _advance(self, rank: int, desc: str, n: int, total: int | None, done: bool) -> None:
        if self._bar is None:
            self._bar, self._at, self._closed = _Bar(desc, total), {}, set()
        if desc != self._bar.desc:
            return
        self._at[rank] = n
        if done:
            self._closed.add(rank)
        if len(self._closed) == self._nprocs:
            self.close()
        else:
            self._redraw()

    def _redraw(self, last: bool = False) -> None:
        if self._bar is not None:
            slowest = min(self._at.values()) if len(self._at) == self._nprocs else 0
            metrics = self._metrics[min(self._metrics)] if self._metrics else {}
            self._bar.draw(slowest, _words(metrics), last)

    def _write(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(text, flush=True)


class _Bar:
    """One line that is drawn over and over, at most a few times a second.

    In a notebook it is an output that is replaced, so that a saved notebook shows its last state
    and nothing else; in a terminal it is a line that carriage returns overwrite.
    """

    def __init__(self, desc: str, total: int | None) -> None:
        self.desc = desc
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
            n, self._total, now - self._begun, ncols=90, prefix=self.desc, postfix=metrics or None
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
