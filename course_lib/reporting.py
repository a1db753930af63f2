"""Bars and metrics from the ranks, drawn live in the notebook.

A rank does not draw. It sends what it would draw to the kernel, at most ten times a second, and
the kernel draws it (see ``_display``). Outside a launch (in the kernel itself, or under torchrun)
the same calls draw a plain bar on rank 0.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from course_lib._display import in_words

T = TypeVar("T")
EVERY = 0.1  # seconds between two messages of one rank

# In a rank under `launch`: sends (kind, payload) to the kernel. Set by the child, else None.
_send: Callable[[str, Any], None] | None = None
_metrics: dict[str, Any] = {}
_metrics_sent = 0.0
_bar: tqdm | None = None  # the bar drawn here, when there is no kernel to send to
_bar_is_sent = False  # whether this rank is inside a bar that the kernel draws
_bars_sent = 0  # bars this rank has begun; tells one from the next of the same name


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
    global _bar_is_sent, _bars_sent
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
    number, last, n = _bars_sent, 0.0, 0
    _bars_sent += 1
    _send("bar", (number, desc, 0, total, False))
    try:
        for item in iterable:
            yield item
            n += 1
            if (now := time.monotonic()) - last >= EVERY:
                last = now
                _send("bar", (number, desc, n, total, False))
    finally:
        _bar_is_sent = False
        flush()
        _send("bar", (number, desc, n, total, True))


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
        print(in_words(_metrics))


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
