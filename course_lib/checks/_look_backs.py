"""A made-up share, its features day by day from the past alone, and how others differ from them.

A day's expected numbers are computed from a table that ends with that day, so what an answer is
compared with cannot look ahead.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from course_lib.checks._slips import SLIPS

COLUMNS = ("return", "volatility", "trend", "z", "volume", "night")
_FILL = "in a gap only the price before it is known: ffill(), not bfill() or interpolate(); and no "
_FILL += "price at all before the first"
_LEAKS = {
    "return": "today's price over that of the day before: shift(), not shift(-1)",
    "volatility": "the last 20 returns: rolling(20), neither centred nor of all days",
    "trend": "a centred window takes ten days of the future: rolling(20) ends with today",
    "z": "*all* days know the last one: expanding(20) has mean and deviation of those so far",
    "volume": "on its first day a month's mean knows its last: expanding() inside the month",
    "night": "shift(-1) is tomorrow: take today's open, and the price of the day before, shift()",
}


def _made_up(days: int = 290) -> pd.DataFrame:
    dice = np.random.default_rng(40)
    close = 80 * np.exp(np.cumsum(dice.normal(0.001, 0.02, days)))
    opened = close * np.exp(dice.normal(0, 0.01, days))
    top, low = np.maximum(close, opened), np.minimum(close, opened)
    values = {
        "open": opened,
        "high": top * (1 + dice.uniform(0, 0.01, days)),
        "low": low * (1 - dice.uniform(0, 0.01, days)),
        "close": close,
        "volume": np.round(np.exp(dice.normal(13, 0.5, days))),
    }
    dates = pd.bdate_range("2021-03-15", periods=days)  # more than a year: two Aprils
    return pd.DataFrame(values, index=pd.DatetimeIndex(list(dates), name="date"))


def _with_gaps(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    for gap in (slice(0, 8), slice(40, 41), slice(100, 104), slice(118, 122), slice(-1, None)):
        table.iloc[gap] = np.nan
    return table


PLAIN = _made_up()
GAPPY = _with_gaps(PLAIN)


class Question(NamedTuple):
    """A table that begins like another one: up to a day, features have to be the same.

    Attributes:
        says: What was done to the rest, for the line that names the property.
        table: What is asked.
        like: The table it begins like.
        days: How many days they share.
    """

    says: str
    table: pd.DataFrame
    like: pd.DataFrame
    days: int


def questions() -> list[Question]:
    """Tables with another future, or none."""
    found = []
    for says, table, ends in (
        ("without gaps", PLAIN, (75, 160, 288)),
        ("with gaps", GAPPY, (4, 41, 102, 119, 230)),
    ):
        for end in ends:
            other, dice = table.copy(), np.random.default_rng(end)
            other.iloc[end:] = PLAIN.iloc[end:] * dice.uniform(0.5, 2, PLAIN.iloc[end:].shape)
            found.append(Question(f"{says}, other prices after a day", other, table, end))
    for end in (3, 42, 101, 200):
        found.append(
            Question("with gaps, cut off after a day", GAPPY.iloc[:end].copy(), GAPPY, end)
        )
    return found


def short_ones() -> list[pd.DataFrame]:
    """Tables in which little is known."""
    return [PLAIN.iloc[:1].copy(), GAPPY.iloc[:3].copy(), GAPPY.iloc[5:27].copy()]


def expected(table: pd.DataFrame) -> pd.DataFrame:
    """The six columns, each day from the table up to that day."""
    rows = [_of_the_last_day(table.iloc[: t + 1]) for t in range(len(table))]
    return pd.DataFrame(rows, index=table.index, columns=list(COLUMNS), dtype=float)


def _of_the_last_day(past: pd.DataFrame) -> list[float]:
    price, today = past["close"].ffill().dropna().to_numpy(), past.iloc[-1]
    moved = np.diff(np.log(price))
    now, before = price[-1:], price[-2:-1]
    months = past.index.to_period("M")
    volume = past["volume"][months == months[-1]].mean()
    of_20 = len(price) >= 20
    return [
        moved[-1] if len(moved) else np.nan,
        moved[-20:].std(ddof=1) if len(moved) >= 20 else np.nan,
        now[0] / price[-20:].mean() - 1 if of_20 else np.nan,
        (now[0] - price.mean()) / price.std(ddof=1) if of_20 else np.nan,
        today["volume"] / volume,
        np.log(today["open"] / before[0]) if len(before) else np.nan,
    ]


def odd_form(got: Any, table: pd.DataFrame) -> str:
    """What is wrong with features as an object; ``""`` if nothing is."""
    if not isinstance(got, pd.DataFrame):
        return f"return a DataFrame (got {type(got).__name__})"
    if sorted(map(str, got.columns)) != sorted(COLUMNS):
        return f"the columns are {', '.join(COLUMNS)} (got {', '.join(map(str, got.columns))})"
    if not got.index.equals(table.index):
        hint = "all days belong to it, also those without a number: drop none"
        return f"{hint} ({len(got)} rows for {len(table)} days, or another index)"
    for name in COLUMNS:
        if not pd.api.types.is_numeric_dtype(got[name]):
            return f"{name} holds {got[name].dtype}, and numbers are asked for"
    return ""


def first_other(got: pd.DataFrame, right: pd.DataFrame, tolerance: float) -> tuple[str, int]:
    """The column that differs and the first day on which it does; ``("", -1)`` if none does."""
    for name in COLUMNS:
        if (off := _off(got[name], right[name], tolerance)).any():
            return name, int(np.flatnonzero(off)[0])
    return "", -1


def why_ahead(question: Question, got: pd.DataFrame, usual: pd.DataFrame) -> str:
    """How a column has seen the future; ``""`` if none has.

    Args:
        question: What was asked.
        got: Its features.
        usual: Those of the table it begins like.
    """
    end = question.days
    name, day = first_other(got.iloc[:end], usual.iloc[:end], 1e-6)
    if not name:
        return ""
    hint = _LEAKS[name] if question.like is PLAIN else _FILL
    if len(question.table) == end and question.like["close"].notna().iloc[day]:
        hint = "on a day nobody knows how many more will come"
    numbers = f"{usual[name].iloc[day]:.5g} becomes {got[name].iloc[day]:.5g}"
    days = f"{got.index[day]:%Y-%m-%d}, and the change is after {got.index[end - 1]:%Y-%m-%d}"
    return f"{name}: {hint} ({numbers} on {days})"


def why_other(name: str, got: pd.Series, right: pd.Series, table: pd.DataFrame) -> str:
    """Which mistake a column may hold; ``""`` if it is right."""
    off = _off(got, right, 1e-4)
    if not off.any():
        return ""
    day = int(np.flatnonzero(off)[0])
    date = f"{got.index[day]:%Y-%m-%d}"
    at = f" (on {date} it is {got.iloc[day]:.5g}, and should be {right.iloc[day]:.5g})"
    for hint, guess in SLIPS[name](table).items():
        if not _off(got, guess, 1e-4).any():
            return hint + at
    if np.isnan(got.iloc[day]):
        return f"there is a number on {date}, {right.iloc[day]:.5g}: enough days are known"
    if np.isnan(right.iloc[day]):
        return f"on {date} it is NaN: too few days are known, or no open and no volume" + at
    return "read once more what the docstring asks for" + at


def _off(got: pd.Series, right: pd.Series, tolerance: float) -> np.ndarray:
    """Where two columns differ; NaN is like NaN."""
    a, b = (x.to_numpy(dtype=float, na_value=np.nan) for x in (got, right))
    return ~np.isclose(a, b, rtol=tolerance, atol=tolerance / 10, equal_nan=True)
