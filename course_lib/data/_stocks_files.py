"""The files of daily prices: one CSV a ticker, as Yahoo Finance names its columns.

The same form serves files that a person put there and those that the course keeps, so that both are
checked by the same rules.

Invariants:

- A table has the columns `COLUMNS`, all float64, and an index ``date`` of days without a time zone,
  each later than the one before.
- Prices are finite and above 0, no high is below its low, no volume is negative.
- Whatever is wrong with a file is `DataDamaged` with its name, the line and the fault.
"""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from course_lib.data._csv_rows import read_rows
from course_lib.data._finding import damaged

FOLDER = "stocks"
HEADER = ("Date", "Open", "High", "Low", "Close", "Adj Close", "Volume")
COLUMNS = ("open", "high", "low", "close", "adjusted", "volume")

_NAME = re.compile(r"\^?[A-Z0-9][A-Z0-9.=-]*", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_NO_TRADE = {"", "null"}  # what Yahoo writes for every value of a day without a trade


def is_ticker(name: object) -> bool:
    """Whether this can be a ticker, and so the name of a file: ``"BRK-B"``, ``"^GSPC"``."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_index(ticker: str) -> bool:
    """Whether a ticker is that of an index of the market and not of a share."""
    return ticker.startswith("^")


def lying_files(folder: Path) -> dict[str, Path]:
    """Return the files that lie in the folder: ticker → path, by name. Empty without a folder.

    Raises:
        DataDamaged: It is no folder, or cannot be read.
    """
    try:
        paths = sorted(folder.glob("*.csv")) if folder.is_dir() else None
    except OSError as error:
        raise damaged(folder, f"it cannot be read: {error.strerror or error}") from error
    if paths is None:
        if folder.exists() or folder.is_symlink():
            raise damaged(folder, "it is not a folder; it should be one, with a CSV file a ticker")
        return {}
    return {path.stem: path for path in paths if is_ticker(path.stem)}


def read(path: Path, *, least: int = 2) -> pd.DataFrame:
    """Read the file of one ticker and check all of it.

    Args:
        path: The file. Days for which every value is empty or ``null`` are passed over.
        least: The number of days it must have.

    Returns:
        days × `COLUMNS`; prices in the ticker's currency, the volume in shares.

    Raises:
        DataDamaged: It is not CSV in UTF-8, has another header, a day that is no date, comes twice
            or goes back, a value that is no number or cannot be, or too few days.
    """
    days: list[str] = []
    lines: list[int] = []
    values: list[list[float]] = []
    for line, (day, *texts) in read_rows(path, HEADER):
        if not _is_day(day):
            raise damaged(path, f"line {line:,}: {day[:30]!r} is no date like 2020-01-31")
        if days and day == days[-1]:
            raise damaged(path, f"line {line:,}: the day {day} comes twice")
        if days and day < days[-1]:
            raise damaged(
                path, f"line {line:,}: {day} comes after {days[-1]}; the oldest day must come first"
            )
        if all(text in _NO_TRADE for text in texts):
            continue
        days.append(day)
        lines.append(line)
        values.append(_numbers(path, line, texts))
    if len(days) < least:
        raise damaged(path, f"it has prices of {len(days)} days; {least} or more are needed")
    found = table(days, values)
    if fault := fault_of(found):
        row, story = fault
        raise damaged(path, f"line {lines[row]:,}: {story}")
    return found


def table(days: Sequence, values: Sequence[Sequence[float]]) -> pd.DataFrame:
    """Return the table of these days and their values, with the types that all tables have."""
    index = pd.DatetimeIndex(days, name="date").as_unit("ns")
    numbers = np.asarray(values, dtype="float64").reshape(len(index), len(COLUMNS))
    return pd.DataFrame(numbers, index=index, columns=list(COLUMNS))


def fault_of(found: pd.DataFrame) -> tuple[int, str] | None:
    """Return a row, from 0, whose values cannot be, and what is wrong with it; None if none is."""
    for column, name in zip(COLUMNS, HEADER[1:], strict=True):
        values, counts = found[column], column == "volume"
        bad = ~np.isfinite(values) | ((values < 0) if counts else (values <= 0))
        if bad.any():
            row = int(bad.argmax())
            rule = "of at least 0" if counts else "above 0"
            return row, f"the {name} is {values.iloc[row]:g}; it must be a number {rule}"
    below = found["high"] < found["low"]
    if below.any():
        row = int(below.argmax())
        high, low = found["high"].iloc[row], found["low"].iloc[row]
        return row, f"the High, {high:g}, is below the Low, {low:g}"
    return None


def to_csv(found: pd.DataFrame) -> bytes:
    """Return a table as the bytes of a file that `read` gives back number by number."""
    named = found.set_axis(HEADER[1:], axis=1).rename_axis(HEADER[0])
    return named.to_csv(date_format="%Y-%m-%d", lineterminator="\n").encode()


def days_of(found: pd.DataFrame) -> str:
    """Return the first and the last day of a table: ``2014-10-17 to 2023-10-16``."""
    return f"{found.index[0]:%Y-%m-%d} to {found.index[-1]:%Y-%m-%d}"


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        datetime.date.fromisoformat(text)
    except ValueError:  # the 31st of February
        return False
    return True


def _numbers(path: Path, line: int, texts: list[str]) -> list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError:
        for name, text in zip(HEADER[1:], texts, strict=True):
            try:
                float(text)
            except ValueError as error:
                story = f"line {line:,}: the {name} is {text[:30]!r}, which is no number"
                raise damaged(path, story) from error
        raise
