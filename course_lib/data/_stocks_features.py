"""Technical indicators that look back only, and splits that walk forward.

Lesson 40 builds them by hand; lessons 41 and 42 take them from here.

Invariants:

- A value at day t is made of prices up to day t: a change of the future changes nothing before it.
- No value says how high a price is, only how it has moved: tickers at $5 and at $500 look alike.
- Where the past is too short for an indicator it is NaN, never a guess.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

YEAR = 252  # trading days


def indicators(table: pd.DataFrame) -> pd.DataFrame:
    """What a trader reads off a chart, a row a day.

    Args:
        table: One ticker's prices, as ``load`` gives them: days × at least ``high``, ``low``,
            ``close`` and ``volume``.

    Returns:
        Eight float64 columns with the index of `table`; the first rows are NaN, 33 at most:

        - ``return``: logarithm of the close over that of the day before;
        - ``range``: logarithm of the day's high over its low;
        - ``volume``: logarithm of the volume over its mean of 20 days; a day without trade is NaN,
          and so are the 19 after it;
        - ``sma_gap``: logarithm of the close over its simple moving average of 20 days;
        - ``macd``: averages of 12 less 26 days, exponential, less their own average of 9 days (the
          MACD histogram), as a share of the close;
        - ``rsi``: Wilder's relative strength index of 14 days, 0 to 1; 0.5 where nothing moved;
        - ``bollinger``: where the close stands between the Bollinger bands, two standard deviations
          of 20 days around their mean: 1 at the upper, −1 at the lower; 0 where nothing moved;
        - ``volatility``: the root of the mean squared return of 22 days, over a year of 252.

    Raises:
        ValueError: A column is missing.
    """
    lacking = [name for name in ("high", "low", "close", "volume") if name not in table]
    if lacking:
        raise ValueError(
            f"the table has no column {', '.join(lacking)}: pass a ticker's prices as load() gives "
            f"them (found: {', '.join(map(str, table.columns))})"
        )
    close, moved = table["close"], table["close"].diff()
    returns = np.log(close).diff()
    mean, deviation = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    macd = _ema(close, 12) - _ema(close, 26)
    gain, loss = (_wilder(part) for part in (moved.clip(lower=0), -moved.clip(upper=0)))
    moving = (gain + loss).where(gain + loss > 0)
    volume = table["volume"].where(table["volume"] > 0)
    return pd.DataFrame(
        {
            "return": returns,
            "range": np.log(table["high"] / table["low"]),
            "volume": np.log(volume / volume.rolling(20).mean()),
            "sma_gap": np.log(close / mean),
            "macd": (macd - _ema(macd, 9)) / close,
            "rsi": (gain / moving).where(moving.notna() | gain.isna(), 0.5),
            "bollinger": ((close - mean) / (2 * deviation)).where(deviation != 0, 0.0),
            "volatility": returns.pow(2).rolling(22).mean().pow(0.5) * YEAR**0.5,
        },
        index=table.index,
    )


@dataclass(frozen=True)
class Fold:
    """One step of a walk forward: which days are for what, as positions in a calendar.

    Attributes:
        fit: Days to learn from, from the first one on.
        valid: Days to choose on, after those.
        test: Days to be judged on, after those.
    """

    fit: range
    valid: range
    test: range


def walk_forward(days: int, folds: int, test: int, valid: int, purge: int) -> list[Fold]:
    """Split a calendar so that, within a fold, all is chosen before the days it is judged on.

    The test parts lie one after the other and end with the calendar; each fold learns from all
    that lies before its own validation part. Validation days of one fold are test days of the fold
    before: a choice common to all folds has seen them.

    Args:
        days: How many trading days there are.
        folds: How many steps to walk.
        test: Days of each test part.
        valid: Days of each validation part.
        purge: Days left out between two parts, so that no sample reaches from one into the next.

    Returns:
        The folds, the earliest first.

    Raises:
        ValueError: A number is below 1 (`purge`: below 0), or nothing is left to learn from.
    """
    counts = {"days": days, "folds": folds, "test": test, "valid": valid}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}={value}: it must be 1 or more")
    if purge < 0:
        raise ValueError(f"purge={purge}: it cannot be negative")
    first = days - folds * test - purge - valid - purge
    if first < 1:
        raise ValueError(
            f"{days} days are too few: {folds} × {test} for testing, {valid} for validation and "
            f"twice {purge} in between leave {first} to learn from in the first fold"
        )
    starts = range(days - folds * test, days, test)
    return [
        Fold(
            range(0, start - 2 * purge - valid),
            range(start - purge - valid, start - purge),
            range(start, start + test),
        )
        for start in starts
    ]


def _ema(values: pd.Series, days: int) -> pd.Series:
    """The exponential moving average with weight 2 ÷ (days + 1) for the newest value."""
    return values.ewm(span=days, adjust=False, min_periods=days).mean()


def _wilder(values: pd.Series) -> pd.Series:
    """The average of 14 days that Wilder's index is made of: weight 1/14 for the newest value."""
    return values.ewm(alpha=1 / 14, adjust=False, min_periods=14).mean()
