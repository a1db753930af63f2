"""Daily prices from Yahoo Finance by the `yfinance` library: the one place that knows its forms.

The library asks Yahoo for one ticker after the other and returns one wide table. A ticker that
failed is a group of empty columns in it, and the reason is only said to its logger. Depending on
its options and its version the columns come as (ticker, price) or as (price, ticker), or plain for
a single ticker, with or without ``Adj Close``, and with or without a time zone.

Invariants:

- A ticker that cannot be had loses nobody else's prices: it is in the second answer, with a reason.
- Yahoo limits how often it may be asked. After a refusal the pauses double; after the last one
  nothing more is asked. Names that Yahoo does not know are not asked for again.
"""

import ast
import contextlib
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from course_lib.data import _download
from course_lib.data._download import CONNECT_TIMEOUT
from course_lib.data._stocks_files import COLUMNS, HEADER, fault_of, table

URL = "https://query2.finance.yahoo.com/"
TRIES = 4
WAIT = 5.0  # seconds before the second try; doubled before each further one

_NO_PRICES = "Yahoo has no prices for it"
# What the library says of a ticker that will not be there at the next try either.
_FINAL = ("delisted", "no price data", "no data found", "no timezone", "doesn't exist", "404")
_SAID = re.compile(r"(\[.*?\]): (.*)", re.DOTALL)
_REPR = re.compile(r"""(\w+)\((['"])(.*?)\2,?\)""", re.DOTALL)


def reach() -> None:
    """Ask Yahoo's server for anything: the library itself would try each ticker in turn.

    Raises:
        DownloadFailed: There is no connection. Whatever it answers is well.
    """
    _download.reach(URL, "Yahoo")


def download(
    tickers: Sequence[str],
    start: pd.Timestamp,
    end: pd.Timestamp,
    *,
    tries: int = TRIES,
    sleep: Callable[[float], object] = time.sleep,
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Ask Yahoo for the prices of a few tickers, again where another try may help.

    Args:
        tickers: Which; few enough for one call of the library.
        start: The first day.
        end: The day after the last one.
        tries: How often to ask at most.
        sleep: What waits between two tries, given the seconds.

    Returns:
        The tables that came, and for every other ticker the reason.
    """
    tables: dict[str, pd.DataFrame] = {}
    reasons: dict[str, str] = {}
    left = list(tickers)
    for attempt in range(tries):
        if attempt:
            sleep(WAIT * 2 ** (attempt - 1))
        try:
            frame, said = _ask(left, start, end)
        except Exception as error:  # of whatever the library and those below it raise
            frame, said = None, dict.fromkeys(left, f"{type(error).__name__}: {error}")
        for ticker in left:
            found = table_of(frame, ticker, alone=len(left) == 1)
            if found is None:
                reasons[ticker] = _plain(said.get(ticker, _NO_PRICES), ticker)
            elif fault := fault_of(found):
                day = found.index[fault[0]]
                reasons[ticker] = f"{_NO_PRICES} that can be used: {day:%Y-%m-%d}: {fault[1]}"
            else:
                tables[ticker] = found
        left = [t for t in left if t not in tables and may_pass(reasons[t])]
        if not left:
            break
    return tables, {ticker: reasons[ticker] for ticker in tickers if ticker not in tables}


def may_pass(reason: str) -> bool:
    """Whether a reason is one of the moment (a limit, a lost connection) and not of the ticker."""
    return not reason.startswith(_NO_PRICES) and not any(w in reason.lower() for w in _FINAL)


def table_of(frame: pd.DataFrame | None, ticker: str, *, alone: bool) -> pd.DataFrame | None:
    """Take one ticker's prices out of what the library returned.

    Args:
        frame: In any of its forms, or None.
        ticker: Whose.
        alone: Only this one was asked for, so columns without a ticker are its columns.

    Returns:
        The days on which it has a close; None without any. Where prices came adjusted already
        (there is no ``Adj Close``), ``adjusted`` is the close.
    """
    if frame is None or frame.empty:
        return None
    if isinstance(frame.columns, pd.MultiIndex):
        levels = range(frame.columns.nlevels)
        level = next((n for n in levels if ticker in frame.columns.get_level_values(n)), None)
        if level is None:
            return None
        frame = frame.xs(ticker, axis=1, level=level)
    elif not alone:
        return None
    if not {"Open", "High", "Low", "Close", "Volume"} <= set(frame.columns):
        return None
    days = frame.dropna(subset=["Close"])
    if "Adj Close" not in days:
        days = days.assign(**{"Adj Close": days["Close"]})
    if days.empty:
        return None
    days = days.assign(Volume=days["Volume"].fillna(0))[list(HEADER[1:])]
    index = pd.DatetimeIndex(days.index).tz_localize(None).normalize()  # the exchange's own days
    found = table(index, days.to_numpy("float64")).sort_index()
    return found[~found.index.duplicated(keep="last")][list(COLUMNS)]


def _ask(
    tickers: list[str], start: pd.Timestamp, end: pd.Timestamp
) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """Call the library; return its table, and what it said of tickers that failed.

    One ticker after the other (``threads=False``): ranks are what works in parallel here.
    """
    import yfinance

    debug = yfinance.config.debug
    hidden = debug.hide_exceptions
    debug.hide_exceptions = False  # or a lost connection would be told as a delisted company
    try:
        with _overheard() as said, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, about the library's own calls
            frame = yfinance.download(
                tickers,
                start=f"{start:%Y-%m-%d}",
                end=f"{end:%Y-%m-%d}",
                auto_adjust=False,
                actions=False,
                group_by="ticker",
                progress=False,
                threads=False,
                timeout=CONNECT_TIMEOUT * 2,
            )
    finally:
        debug.hide_exceptions = hidden
    return frame, said


@contextlib.contextmanager
def _overheard() -> Iterator[dict[str, str]]:
    """Keep what the library tells its logger: ticker → reason. Nothing of it is shown."""
    said: dict[str, str] = {}

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if match := _SAID.fullmatch(record.getMessage().strip()):
                with contextlib.suppress(ValueError, SyntaxError):
                    said.update(dict.fromkeys(ast.literal_eval(match[1]), match[2]))

    logger = logging.getLogger("yfinance")
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [Ear()], False
    logger.setLevel(logging.ERROR)
    try:
        yield said
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])


def _plain(reason: str, ticker: str) -> str:
    """Return a reason in one line, without the library's own class names and the ticker."""
    text = reason.strip().replace(f"${ticker}: ", "")
    if match := _REPR.fullmatch(text):
        text = match[3] if match[1].startswith("YF") else f"{match[1]}: {match[3]}"
    return " ".join(text.split())[:200] or _NO_PRICES
