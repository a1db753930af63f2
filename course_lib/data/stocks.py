"""Daily prices of shares: files put there by hand, a download from Yahoo, or a made-up market.

Yahoo's terms allow personal, non-commercial use and no redistribution. Its prices are adjusted for
splits; the column ``adjusted`` is adjusted for dividends, too.

Invariants:

- A table of a ticker has the columns ``open``, ``high``, ``low``, ``close``, ``adjusted`` and
  ``volume``, all float64, and an index ``date`` of trading days, each later than the one before.
- One bad ticker loses only itself: it is listed in `Stocks.missing` with the reason, and printed.
- Tickers are never mixed with made-up ones: the stand-in comes alone, with tickers of its own.
- Days before a company came to the exchange are absent, not filled: align tables on their dates.
"""

import datetime
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from course_lib.data import _stocks_files, _stocks_kept, _stocks_search, _stocks_yahoo
from course_lib.data._finding import (
    DataNotFound,
    Publication,
    announce_stand_in,
    check_source,
    data_folder,
)
from course_lib.data._stocks_features import Fold, indicators, walk_forward
from course_lib.data._stocks_files import COLUMNS, days_of
from course_lib.data._stocks_search import by_reason, checked_range, checked_tickers
from course_lib.data._stocks_stand_in import make_stand_in

__all__ = [
    "COLUMNS",
    "PUBLICATION",
    "TICKERS",
    "Fold",
    "Panel",  # noqa: F822
    "Stocks",
    "fetch",
    "indicators",
    "load",
    "panel",  # noqa: F822
    "walk_forward",
]


def __getattr__(name: str):
    """Import the panel, and torch with it, when it is first asked for (PEP 562)."""
    if name in ("Panel", "panel"):
        from course_lib.data import _stocks_panel

        return getattr(_stocks_panel, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Large US companies of many industries: what is downloaded where no tickers are named.
TICKERS = (
    *("AAPL", "AMZN", "AXP", "BA", "BAC", "BRK-B", "C", "CAT", "COP", "COST", "CRM", "CSCO"),
    *("CVX", "DIS", "DOW", "GE", "GOOGL", "GS", "HD", "IBM", "INTC", "JNJ", "JPM", "KHC"),
    *("KO", "MA", "MCD", "META", "MRK", "MSFT", "NFLX", "NKE", "NVDA", "ORCL", "PEP", "PFE"),
    *("PG", "PYPL", "QCOM", "T", "TSLA", "TXN", "UNH", "V", "VZ", "WFC", "WMT", "XOM"),
)


def _fetch_all(part: Path) -> None:
    """Take the publisher's step for all of `TICKERS`; they are kept one by one, and not in `part`.

    Raises:
        OSError: Not one could be had.
    """
    tables, missing, _ = _stocks_kept.fetch_tables(TICKERS, None, None)
    if not tables:
        raise OSError(by_reason(missing))


PUBLICATION = Publication(
    title="Stock prices",
    file=_stocks_files.FOLDER,
    where=_stocks_search.WHERE,
    fetch=_fetch_all,
    stored=_stocks_kept.FOLDER,
)


@dataclass(frozen=True, eq=False, repr=False)
class Stocks:
    """The prices of some tickers, where they came from, and which could not be had.

    Attributes:
        tables: Ticker → its prices, days × `COLUMNS`. New with each load: change them freely.
        origin: ``"real"`` or ``"synthetic"``. Figures and results carry it on.
        path: The folder they were read from, by hand before downloaded; None for a stand-in.
        missing: Ticker → why it is not among the tables.
    """

    tables: dict[str, pd.DataFrame]
    origin: str
    path: Path | None
    missing: dict[str, str]

    @property
    def tickers(self) -> list[str]:
        """The tickers that are there, in the order of the tables."""
        return list(self.tables)

    def __repr__(self) -> str:
        days = sum(map(len, self.tables.values()))
        where = f", {self.path}" if self.path else ""
        lost = f", {len(self.missing)} missing" if self.missing else ""
        return f"Stocks({len(self.tables)} tickers, {days:,} rows, {self.origin}{lost}{where})"


def load(
    source: str = "auto",
    tickers: Iterable[str] | None = None,
    start: str | datetime.date | None = None,
    end: str | datetime.date | None = None,
) -> Stocks:
    """Find prices, check them, and say which were used and which are missing.

    A ticker is taken from ``stocks/TICKER.csv`` in the data folder if that file is there, with the
    days that it has; else from Yahoo, by way of what was fetched before.

    Args:
        source: ``"auto"`` takes by-hand files, then downloads, then, if no real prices are here at
            all, a synthetic stand-in; ``"real"`` refuses the stand-in; ``"synthetic"`` takes it.
        tickers: Which: ``["AAPL", "BRK-B"]``; an index begins with ``^``. None is every share that
            lies in ``stocks`` (no index: it is not a share), or else a download of `TICKERS`.
        start: The first day, as ``"2015-01-31"`` or a date. None is the first there is; of a
            download, 2010-01-01.
        end: The day after the last one. None is after all there are; of a download, today, whose
            prices are not final.

    Returns:
        The tables in the order of `tickers`, else by name. The stand-in has eight tickers of its
        own over six years; real ones that were asked for are missing.

    Raises:
        ValueError: An unknown `source`, a name that can be no ticker, no ticker, a date that is
            none, ``start`` not before ``end``, or no trading day between them.
        TypeError: `tickers` is one text and not a list.
        DataNotFound: None of the tickers can be had; the text says what to do.
        DataDamaged: None can be had, and a file of one is there but wrong.
    """
    check_source(source)
    asked = None if tickers is None else checked_tickers(tickers)
    if asked == []:
        raise ValueError("tickers names none; leave it out for all that there are")
    first, after = checked_range(start, end)
    if source == "synthetic":
        announce_stand_in(PUBLICATION, 'source="synthetic" asked for it.')
        return _made_up(asked, first, after)
    found = _stocks_search.search(asked, first, after, otherwise=TICKERS)
    if found.tables:
        return _tell(found)
    _stocks_search.refuse(found, first, after)
    story = _stocks_search.what_to_do(found)
    if found.others and asked:
        raise DataNotFound(f"None of these tickers is here, though others are.\n{story}")
    if source == "real":
        raise DataNotFound(
            f'{PUBLICATION.title} are not here, and source="real" takes no stand-in.\n{story}'
        )
    announce_stand_in(PUBLICATION, "the real data are not here.\n" + story)
    return _made_up(asked, first, after)


def fetch(
    tickers: Iterable[str],
    start: str | datetime.date | None = None,
    end: str | datetime.date | None = None,
    *,
    batch: int = _stocks_kept.BATCH,
    pause: float = _stocks_kept.PAUSE,
    tries: int = _stocks_yahoo.TRIES,
    sleep: Callable[[float], object] = time.sleep,
) -> Stocks:
    """Download the prices of some tickers, but for the days that are kept from earlier downloads.

    Rank r of N fetches its share with ``fetch(tickers[r::N])``: ranks with different tickers do not
    wait for each other. By-hand files are not looked at.

    Args:
        tickers: Which. No ticker is fine: a rank may have none.
        start: The first day; None is 2010-01-01.
        end: The day after the last one; None, or later, is today.
        batch: How many tickers one call of the library asks for.
        pause: Seconds between two calls.
        tries: How often a call is made at most when Yahoo refuses; the pauses in between double.
        sleep: What waits, given the seconds.

    Returns:
        What could be had; whatever could not is in `Stocks.missing`, and printed.

    Raises:
        ValueError, TypeError: As `load`; or `batch` or `tries` below 1.
    """
    if batch < 1 or tries < 1:
        raise ValueError(f"batch and tries must be 1 or more, not {batch} and {tries}")
    names = checked_tickers(tickers)
    first, after = checked_range(start, end)
    tables, missing, partial = _stocks_kept.fetch_tables(
        names, first, after, batch=batch, pause=pause, tries=tries, sleep=sleep
    )
    tables = {name: tables[name] for name in names if name in tables}
    folder = data_folder() / _stocks_kept.FOLDER
    return _tell(_stocks_search.Found(tables, missing, partial=partial, folders=[folder]))


def _made_up(
    asked: list[str] | None, start: pd.Timestamp | None, end: pd.Timestamp | None
) -> Stocks:
    """Return the stand-in, cut to the range; the tickers asked for are missing."""
    whole = make_stand_in()
    last = None if end is None else end - pd.Timedelta(days=1)
    tables = {name: table.loc[start:last] for name, table in whole.items()}
    tables = {name: table for name, table in tables.items() if name in (asked or tables)} or tables
    tables = {name: table for name, table in tables.items() if len(table)}
    if not tables:
        days = days_of(next(iter(whole.values())))
        missing = dict.fromkeys(whole, f"{_stocks_kept.OUTSIDE}it has {days}")
        _stocks_search.refuse(_stocks_search.Found(missing=missing), start, end)
    lost = [name for name in asked or () if name not in tables]
    missing = dict.fromkeys(lost, "a real one, and this is the stand-in")
    return _tell(_stocks_search.Found(tables, missing), "synthetic")


def _tell(found: _stocks_search.Found, origin: str = "real") -> Stocks:
    """Print what there is and what is missing, and return it."""
    count = f"{len(found.tables)} ticker{'' if len(found.tables) == 1 else 's'}"
    days = ""
    if found.tables:
        first = min(table.index[0] for table in found.tables.values())
        last = max(table.index[-1] for table in found.tables.values())
        days = f", {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    where = "made up by the course"
    if found.folders:
        where = f"from {' and '.join(map(str, found.folders))}"
    lost = f"; missing: {by_reason(found.missing)}" if found.missing else ""
    print(f"Stocks: {count}{days} ({origin}), {where}{lost}", flush=True)
    if found.partial:
        print(f"Note: not all days are there: {by_reason(found.partial)}", flush=True)
    return Stocks(found.tables, origin, (found.folders or [None])[0], found.missing)
