"""What is asked of the prices, and what is there of it: files by hand first, then downloads.

Invariants:

- Every ticker asked for ends in `Found.tables` or, with a reason, in `Found.missing`.
- A file that lies there is never passed over for a download, whether it is right or wrong.
"""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from course_lib.data import _stocks_kept
from course_lib.data._finding import DataDamaged, data_folder
from course_lib.data._stocks_files import (
    FOLDER,
    HEADER,
    days_of,
    is_index,
    is_ticker,
    lying_files,
    read,
)
from course_lib.data._stocks_kept import OUTSIDE

WHERE = (
    "https://finance.yahoo.com/quote/AAPL/history and such pages:\n"
    f"one CSV file a ticker (AAPL.csv) with the header {','.join(HEADER)}"
)

_REASONS, _NAMES = 6, 12  # so many are shown in one line


@dataclass
class Found:
    """What a search found.

    Attributes:
        tables: Ticker → its prices, cut to the range.
        missing: Ticker → why there are none.
        damaged: The tickers, of those missing, whose file is wrong.
        partial: Ticker → what its table lacks, and why.
        folders: Where the tables were read from.
        others: Whether real prices of any other ticker lie here.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    partial: dict[str, str] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    others: bool = False


def search(
    tickers: Sequence[str] | None,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    *,
    otherwise: Sequence[str],
) -> Found:
    """Look for prices in the data folder, and download what does not lie there.

    Args:
        tickers: Which; None for all shares whose files lie there (if only indices do, those).
        start: The first day, if any.
        end: The day after the last one, if any.
        otherwise: Which to download if none are named and no file lies there.

    Raises:
        DataDamaged: What is named like the folder of the files is no folder.
        NotADirectoryError: See `data_folder`.
    """
    folder = data_folder() / FOLDER
    files = lying_files(folder)
    shares = [name for name in files if not is_index(name)]
    names = list(tickers or shares or files or otherwise)
    found = Found()
    for name in (name for name in names if name in files):
        try:
            table = read(files[name])
        except DataDamaged as error:
            found.missing[name] = str(error).splitlines()[0]
            found.damaged.append(name)
            continue
        days = table.index
        inside = (days >= (start or days[0])) & (days < (end or pd.Timestamp.max))
        if inside.any():
            found.tables[name] = table[inside]
        else:
            found.missing[name] = f"{OUTSIDE}it has {days_of(table)}"
    found.folders += [folder] if found.tables else []
    if rest := [name for name in names if name not in files]:
        tables, missing, found.partial = _stocks_kept.fetch_tables(rest, start, end)
        found.tables |= tables
        found.missing |= missing
        found.folders += [data_folder() / _stocks_kept.FOLDER] if tables else []
    kept = (data_folder() / _stocks_kept.FOLDER).glob("*.json")
    found.others = bool(set(files) - set(names)) or any(p.stem not in names for p in kept)
    found.tables = {name: found.tables[name] for name in names if name in found.tables}
    return found


def refuse(found: Found, start: pd.Timestamp | None, end: pd.Timestamp | None) -> None:
    """Raise where nothing was found because of the range or of damaged files.

    Raises:
        ValueError: No trading day in the range.
        DataDamaged: Files are there but wrong.
    """
    outside = {
        name: why.removeprefix(OUTSIDE)
        for name, why in found.missing.items()
        if why.startswith(OUTSIDE)
    }
    if outside:
        since = f"{start:%Y-%m-%d}" if start else "the beginning"
        until = f"{end:%Y-%m-%d} (exclusive)" if end else "today"
        raise ValueError(f"No trading day from {since} to {until}: {by_reason(outside)}")
    if found.damaged:
        faults = [found.missing[name] for name in found.damaged]
        more = f"\n… and {len(faults) - _REASONS} more files." if len(faults) > _REASONS else ""
        raise DataDamaged(
            "\n".join(faults[:_REASONS]) + more + "\n"
            "Put fresh copies there, or delete those files and the course will look for others."
        )


def what_to_do(found: Found) -> str:
    """Return, in the lines that all data sets have, what was tried and what helps."""
    folder = data_folder() / FOLDER
    where = WHERE.replace("\n", "\n" + 15 * " ")
    lacking = "no such file" if folder.is_dir() else "no such folder"
    return (
        f"  Looked for:  {folder / 'TICKER.csv'} ({lacking})\n"
        f"  Download:    {by_reason(found.missing)}\n"
        f"  What to do:  get the files from {where}\n"
        f"               and put them into the folder {folder}\n"
        f"               (or set COURSE_DATA to the folder in which {FOLDER} lies)."
    )


def by_reason(missing: dict[str, str]) -> str:
    """Return tickers and reasons in one line, those with the same reason together."""
    groups: dict[str, list[str]] = {}
    for name, reason in missing.items():
        groups.setdefault(reason, []).append(name)
    texts = []
    for reason, names in [*groups.items()][:_REASONS]:
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        texts.append(f"{', '.join(names[:_NAMES])}{more} ({reason})")
    more = sum(len(names) for names in [*groups.values()][_REASONS:])
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def checked_tickers(tickers: Iterable[str]) -> list[str]:
    """Return the names, each once, in their order.

    Raises:
        TypeError: It is one text, or no list at all.
        ValueError: One of them can be no ticker.
    """
    if isinstance(tickers, str) or not isinstance(tickers, Iterable):
        raise TypeError(f"tickers must be a list of names, as ['AAPL'], not {tickers!r}")
    names = list(dict.fromkeys(tickers))
    for name in names:
        if not is_ticker(name):
            raise ValueError(f"{name!r} can be no ticker: it needs capital letters and digits")
    return names


def checked_range(start: object, end: object) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """Return the first day and the day after the last one.

    Raises:
        TypeError: One is neither a text nor a date.
        ValueError: One is no date, or `start` is not before `end`.
    """
    first, after = _day("start", start), _day("end", end)
    if first is not None and after is not None and first >= after:
        raise ValueError(
            f"start must be before end (which is exclusive): {first:%Y-%m-%d} is not before "
            f"{after:%Y-%m-%d}"
        )
    return first, after


def _day(name: str, value: object) -> pd.Timestamp | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.date.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{name}: {value!r} is no date like '2020-01-31'") from error
    if not isinstance(value, datetime.date) or value is pd.NaT:
        raise TypeError(f"{name} must be a text like '2020-01-31' or a date, not {value!r}")
    return pd.Timestamp(value.year, value.month, value.day)
