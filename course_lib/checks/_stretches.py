"""Tickers of unequally many days whose windows are dealt to ranks, and what is wrong with a deal.

Every number of a table says which ticker and day it is of, so a window tells where it is from.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

_TICKER, _DAY = 10_000, 10  # float32 holds their multiples exactly


class Tickers(NamedTuple):
    """A question of 40.3.

    Attributes:
        says: How a message names it.
        days: Of each ticker.
        length: Of a window, in days.
        together: Whether all tables lie in one piece of memory.
    """

    says: str
    days: tuple[int, ...]
    length: int
    together: bool = False

    def windows(self) -> list[int]:
        """How many each ticker has."""
        return [max(days - self.length + 1, 0) for days in self.days]

    def most_pieces(self, ranks: int) -> int:
        """How many pieces stretches of equal length need at most."""
        return sum(map(bool, self.windows())) + ranks - 1

    def tables(self, features: int = 3) -> list[torch.Tensor]:
        """One of each ticker: days × features, float32."""
        longest, n = max(self.days, default=0), len(self.days)
        panel = torch.arange(longest).view(-1, 1, 1) * _DAY
        panel = panel + torch.arange(n).view(1, -1, 1) * _TICKER + torch.arange(features)
        panel = panel.float()  # days × tickers × features
        tables = [panel[:days, ticker] for ticker, days in enumerate(self.days)]
        return tables if self.together else [table.clone() for table in tables]


CASES = (
    Tickers("five tickers of unequal length", (61, 9, 25, 10, 40), 10),
    Tickers("one long ticker, four short ones", (300, 12, 12, 12, 12), 10),
    Tickers("seven of one length", (17,) * 7, 6),
    Tickers("tables that share their memory", (30, 45, 31), 5, together=True),
    Tickers("windows of a day", (4, 1, 6), 1),
    Tickers("3 windows", (6, 3, 5), 5),
    Tickers("no table as long as a window", (3, 4), 5),
    Tickers("no tickers", (), 5),
)


class Stretch(NamedTuple):
    """Windows of one ticker, each a day after the one before: which, from when, and how many."""

    ticker: int
    first: int
    count: int


def stretches(pieces: Any, tables: Sequence[torch.Tensor], length: int) -> list[Stretch] | str:
    """What a rank's pieces are of, or what is wrong with them.

    Args:
        pieces: What the answer returned on this rank.
        tables: The very tables that it was given.
        length: Of a window, in days.
    """
    if isinstance(pieces, torch.Tensor):
        return "return a list: pieces of two tickers are one tensor only if they are copied"
    if not isinstance(pieces, list | tuple):
        return f"return a list of pieces (got {pieces!r:.50})"
    found = []
    for k, piece in enumerate(pieces):
        stretch = _of_one(piece, tables, length)
        if isinstance(stretch, str):
            return f"piece {k}: {stretch}"
        found.append(stretch)
    return found


def _of_one(piece: Any, tables: Sequence[torch.Tensor], length: int) -> Stretch | str:
    if not isinstance(piece, torch.Tensor):
        return f"a piece is a tensor (got {piece!r:.50})"
    shape, features = tuple(piece.shape), tables[0].shape[1] if tables else 0
    if shape == (features, length):
        return "that is one window: a piece is a stretch of them, windows[first:last]"
    if len(shape) == 3 and shape[1:] == (length, features) != (features, length):
        return f"its shape is {shape}; leave the days last, where unfold puts them"
    if len(shape) != 3 or shape[1:] != (features, length):
        return f"its shape is {shape}, not (windows, {features}, {length})"
    if not shape[0]:
        return "it has no windows: leave it out"
    if piece.dtype != tables[0].dtype:
        return f"it holds {piece.dtype}, and the tables hold {tables[0].dtype}"
    if not piece.isfinite().all():
        return "it holds other numbers than the tables"
    ticker, day = divmod(int(piece[0, 0, 0]), _TICKER)
    day //= _DAY
    windows = tables[ticker].unfold(0, length, 1) if 0 <= ticker < len(tables) else None
    if windows is None or not torch.equal(windows[day : day + shape[0]], piece):
        steps = piece[:, 0, 0].diff() / _DAY
        if len(steps) and (steps == steps[0]).all() and 1 < steps[0] < _TICKER / _DAY:
            return f"it has every {steps[0]:g}th window, and shall have one after the other"
        return "it is no stretch of windows of one ticker, each a day later than the one before"
    if piece.data_ptr() != windows[day].data_ptr():
        hint = "it is a copy: unfold and slices with a step of 1 are views, "
        return hint + "and stack, cat, contiguous, clone and an index by a list are copies"
    return Stretch(ticker, day, shape[0])


def what_is_wrong(case: Tickers, ranks: Sequence[Sequence[Stretch]]) -> tuple[str, str]:
    """The property that does not hold, and a hint; two empty strings if all do."""
    dealt = Counter(
        (ticker, first + k)
        for pieces in ranks
        for ticker, first, count in pieces
        for k in range(count)
    )
    every = [(t, day) for t, count in enumerate(case.windows()) for day in range(count)]
    once = "every window is on one rank"
    if lost := [window for window in every if window not in dealt]:
        return once, f"{len(lost)} are on none: {_why_lost(case, ranks, lost)}"
    if twice := [window for window, times in dealt.items() if times > 1]:
        ticker, day = twice[0]
        hint = f"{len(twice)} are on more than one, of ticker {ticker} that from day {day} on: "
        return once, hint + "begin where the rank before has ended, and do not fill up"
    counts = [sum(piece.count for piece in pieces) for pieces in ranks]
    if max(counts) - min(counts) > 1:
        return "ranks differ by one window at most", f"they have {counts}: {_why_uneven(ranks)}"
    pieces, most = sum(map(len, ranks)), case.most_pieces(len(ranks))
    if pieces > most:
        hint = f"there are {pieces}: put all windows in a row, and give each rank a stretch of it"
        return f"{most} pieces at most", hint
    return "", ""


def _why_lost(
    case: Tickers, ranks: Sequence[Sequence[Stretch]], lost: list[tuple[int, int]]
) -> str:
    windows = case.windows()
    if all(day == windows[ticker] - 1 for ticker, day in lost):
        return "the last one of a table; d days have d - length + 1 windows"
    if not any(ranks):
        return "no rank has any"
    ticker, day = lost[0]
    hint = f"of ticker {ticker} that from day {day} on, for one; "
    return hint + "cut the windows and not the days: a window on a border belongs to a rank, too"


def _why_uneven(ranks: Sequence[Sequence[Stretch]]) -> str:
    tickers = Counter(ticker for pieces in ranks for ticker in {piece.ticker for piece in pieces})
    if tickers and max(tickers.values()) == 1:
        return "tickers are dealt, and have unequally many windows: deal windows"
    return "what is left over of each ticker adds up: divide all windows at once"
