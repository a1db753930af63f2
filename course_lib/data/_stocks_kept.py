"""Downloaded prices, kept by ticker, so that only the days that are missing are asked for.

For each ticker there are two files in ``.stocks`` in the data folder: ``AAPL.csv``, in the form of
a file that came by hand, and ``AAPL.json``, which says which days have been asked for. Days before
a company came to the exchange are asked for once and then known to be none.

Invariants:

- A kept table comes from one state of the publisher's history. After a split all earlier prices
  change, after a dividend all earlier adjusted ones: so what is added overlaps what is kept by some
  days, and where they disagree the ticker is fetched whole again.
- A file is there whole or not at all. A table that is not the one its notes were made for (a
  process was killed between the two) counts as not there.
- One process at a time works on a ticker, and none waits for another ticker's: N ranks can fetch
  N shares of a list, or all of them the same list, with no more requests than one process.
- Today is never fetched: its prices are not final before the exchange closes.
"""

import contextlib
import datetime
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from course_lib._files import write_whole
from course_lib.data import _stocks_yahoo
from course_lib.data._finding import DataDamaged, data_folder, offline
from course_lib.data._stocks_files import days_of, read, to_csv
from course_lib.data._storing import turn

FOLDER = ".stocks"
FIRST_DAY = pd.Timestamp("2010-01-01")  # of a download that names no start
BATCH = 10  # tickers for one call of the library
PAUSE = 1.0  # seconds between two calls
OUTSIDE = "no trading day in the range: "  # how a reason begins that is about the range

_OVERLAP = pd.Timedelta(days=10)  # at least five trading days
_SAME = 1e-4  # as a ratio; Yahoo's rounding is below 1e-6, a dividend mostly above 1e-3


@dataclass(frozen=True)
class Kept:
    """The prices of one ticker, and the days that were asked for: from `start`, before `end`."""

    table: pd.DataFrame
    start: pd.Timestamp
    end: pd.Timestamp


def fetch_tables(
    tickers: Iterable[str],
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    *,
    batch: int = BATCH,
    pause: float = PAUSE,
    tries: int = _stocks_yahoo.TRIES,
    sleep: Callable[[float], object] = time.sleep,
) -> tuple[dict[str, pd.DataFrame], dict[str, str], dict[str, str]]:
    """Return the prices of tickers, from what is kept and, for the days it lacks, from Yahoo.

    Args:
        tickers: Which; none is fine.
        start: The first day; `FIRST_DAY` if None.
        end: The day after the last one; today if None or later.
        batch: How many tickers one call of the library is for.
        pause: Seconds between two calls.
        tries: How often a call is repeated at most when Yahoo refuses.
        sleep: What waits, given the seconds.

    Returns:
        Three dicts by ticker: the tables, cut to the days asked for; why there is none; and, for
        tables that could not be completed, why not.
    """
    start, end = start or FIRST_DAY, min(end or today(), today())
    names = sorted(set(tickers))
    if np.busday_count(start.date(), end.date()) < 1:
        why = f"{OUTSIDE}it has no weekday before today"
        return {}, dict.fromkeys(names, why), {}
    folder = data_folder() / FOLDER
    asking = _Asking(pause, tries, sleep)
    tables: dict[str, pd.DataFrame] = {}
    missing: dict[str, str] = {}
    partial: dict[str, str] = {}
    for at in range(0, len(names), batch):
        some = names[at : at + batch]
        with contextlib.ExitStack() as stack:
            try:
                if not asking.stopped:
                    _take_turns(folder, some, stack)
            except OSError as error:
                asking.stop(f"nothing can be stored in {folder}: {error.strerror or error}")
            kept, reasons = _complete(folder, some, start, end, asking)
        for name in some:
            found = kept[name].table.loc[start : end - pd.Timedelta(days=1)] if name in kept else ()
            if len(found):
                tables[name] = found
                if name in reasons:
                    partial[name] = f"{days_of(found)} only: {reasons[name]}"
            elif name in reasons or name not in kept:
                missing[name] = reasons[name]
            else:
                missing[name] = f"{OUTSIDE}it has {days_of(kept[name].table)}"
    return tables, missing, partial


def today() -> pd.Timestamp:
    """Return today's date in UTC: the exchanges of yesterday's date have closed by then."""
    return pd.Timestamp(datetime.datetime.now(datetime.UTC).date())


class _Asking:
    """Yahoo, asked with pauses, and no longer once it is clear that it will not answer."""

    def __init__(self, pause: float, tries: int, sleep: Callable[[float], object]):
        self.pause, self.tries, self.sleep = pause, tries, sleep
        self.calls, self.stopped = 0, offline()

    def stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason

    def ask(self, tickers: list[str], start: pd.Timestamp, end: pd.Timestamp):
        """Return tables and reasons, as `_stocks_yahoo.download` does."""
        if not self.stopped and not self.calls:
            try:
                _stocks_yahoo.reach()
            except OSError as error:
                self.stop(str(error))
        if self.stopped:
            return {}, dict.fromkeys(tickers, self.stopped)
        if self.calls:
            self.sleep(self.pause)
        self.calls += 1
        days = f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
        print(f"Stocks: asking Yahoo for {', '.join(tickers)}, {days}", flush=True)
        tables, reasons = _stocks_yahoo.download(
            tickers, start, end, tries=self.tries, sleep=self.sleep
        )
        refused = [reason for reason in reasons.values() if _stocks_yahoo.may_pass(reason)]
        if refused and not tables:
            self.stop(f"Yahoo did not answer: {refused[0]}")
        return tables, reasons


def _complete(
    folder: Path, names: list[str], start: pd.Timestamp, end: pd.Timestamp, asking: _Asking
) -> tuple[dict[str, Kept], dict[str, str]]:
    """Fetch what the kept tables lack of the range, and keep it; return them, and why not all."""
    kept = {name: found for name in names if (found := read_kept(folder, name))}
    wanted = dict.fromkeys(names, (start, end))
    outdated: dict[str, Kept] = {}  # still right by themselves, if the new ones cannot be had
    reasons: dict[str, str] = {}
    while True:
        going_on = [name for name in names if name not in reasons]
        gaps = {n: gap for n in going_on if (gap := _gap(kept.get(n), *wanted[n]))}
        if not gaps:
            return {**outdated, **kept}, reasons
        for gap, group in itertools.groupby(sorted(gaps, key=gaps.get), gaps.get):
            asked = list(group)
            tables, failed = asking.ask(asked, *gap)
            reasons |= failed
            for name, new in tables.items():
                joined = _join(kept.get(name), new, *gap)
                if joined is None:  # another state of the history: all of it once more
                    old = outdated[name] = kept.pop(name)
                    wanted[name] = min(start, old.start), max(end, old.end)
                    continue
                kept[name] = joined
                try:
                    _keep(folder, name, joined)
                except OSError as error:
                    asking.stop(f"nothing can be stored in {folder}: {error.strerror or error}")


def _gap(kept: Kept | None, start: pd.Timestamp, end: pd.Timestamp):
    """Return the days to ask for next: from the first one, before the second; None if none is."""
    if kept is None:
        return start, end
    if start < kept.start:
        return start, min(kept.table.index[0] + _OVERLAP, kept.end)
    if end > kept.end:
        return max(kept.table.index[-1] - _OVERLAP, kept.start), end
    return None


def _join(kept: Kept | None, new: pd.DataFrame, start, end) -> Kept | None:
    """Add new days to the kept ones; None if they come from two states of the history."""
    if kept is None:
        return Kept(new, start, end)
    common = kept.table.index.intersection(new.index)
    before, after = (t.loc[common, ["close", "adjusted"]].to_numpy() for t in (kept.table, new))
    if not len(common) or not np.allclose(before, after, rtol=_SAME, atol=0):
        return None
    older = kept.table[~kept.table.index.isin(new.index)]
    both = pd.concat([older, new]).sort_index()
    return Kept(both, min(start, kept.start), max(end, kept.end))


def read_kept(folder: Path, name: str) -> Kept | None:
    """Return what is kept of a ticker; None if nothing is that can be trusted."""
    path = folder / f"{name}.csv"
    try:
        notes = json.loads(path.with_suffix(".json").read_text())
        if hashlib.sha256(path.read_bytes()).hexdigest() != notes["sha256"]:
            return None
        return Kept(read(path, least=1), pd.Timestamp(notes["start"]), pd.Timestamp(notes["end"]))
    except (OSError, DataDamaged, ValueError, KeyError, TypeError):
        return None


def _keep(folder: Path, name: str, kept: Kept) -> None:
    content = to_csv(kept.table)
    notes = {
        "start": f"{kept.start:%Y-%m-%d}",
        "end": f"{kept.end:%Y-%m-%d}",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_whole(folder / f"{name}.csv", content)
    write_whole(folder / f"{name}.json", json.dumps(notes).encode())


def _take_turns(folder: Path, names: list[str], stack: contextlib.ExitStack) -> None:
    """Take the turn of each ticker, in the order of names, which keeps two from blocking."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        waiting = f"Stocks: another process is downloading {name}; waiting."
        stack.enter_context(turn(folder / f"{name}.csv", waiting))
