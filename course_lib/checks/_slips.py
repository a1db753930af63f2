"""What the features of 40.1 are by each of the usual mistakes: none looks ahead, and all are wrong.

Every function takes a table of a share and returns hints, each with the column that comes out by
the mistake it is about.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

Slips = dict[str, pd.Series]

_LOG = "the logarithm is asked for: np.log(…)"
_FILL = "a day without a close has a price, the last one before it: ffill() comes first"
_TODAY = "up to and *with* today, whose close is known"
_EARLY = "it takes 20 days: with fewer it is NaN"
_BESSEL = "divide by n - 1, as std() of pandas does"


def _returns(table: pd.DataFrame) -> Slips:
    price = table["close"].ffill()
    change = np.log(price).diff()
    return {
        _LOG: price / price.shift() - 1,
        _FILL: np.log(table["close"]).diff(),
        "that is yesterday's: today's close is known": change.shift(),
        "before the first return there is none: leave it NaN": change.fillna(0),
    }


def _volatility(table: pd.DataFrame) -> Slips:
    price = table["close"].ffill()
    change = np.log(price).diff()
    right = change.rolling(20).std()
    return {
        _BESSEL: change.rolling(20).std(ddof=0),
        _FILL: np.log(table["close"]).diff().rolling(20).std(),
        _LOG: (price / price.shift() - 1).rolling(20).std(),
        _TODAY: right.shift(),
        _EARLY: change.rolling(20, min_periods=2).std(),
        "of a day, not of a year": right * 252**0.5,
        "20 prices make 19 returns, and 20 returns are asked for": change.rolling(19).std(),
        "of the last 20 returns, not of all": change.expanding(20).std(),
    }


def _trend(table: pd.DataFrame) -> Slips:
    price = table["close"].ffill()
    mean = price.rolling(20).mean()
    return {
        _TODAY: price / mean.shift() - 1,
        _EARLY: price / price.rolling(20, min_periods=1).mean() - 1,
        _FILL: table["close"] / table["close"].rolling(20).mean() - 1,
        "less 1": price / mean,
        "a ratio less 1, not its logarithm": np.log(price / mean),
        "a ratio, not a difference in dollars": price - mean,
        "of the last 20 prices, not of all": price / price.expanding(20).mean() - 1,
        "the last price counts for one, and older ones as well: no weights": (
            price / price.ewm(span=20, adjust=False, min_periods=20).mean() - 1
        ),
    }


def _z(table: pd.DataFrame) -> Slips:
    def z(x: pd.Series, mean: pd.Series, std: pd.Series) -> pd.Series:
        return (x - mean) / std

    close, price = table["close"], table["close"].ffill()
    so_far, last_20, early = price.expanding(20), price.rolling(20), price.expanding(2)
    raw = close.expanding(20)
    return {
        _BESSEL: z(price, so_far.mean(), so_far.std(ddof=0)),
        _TODAY: z(price, so_far.mean().shift(), so_far.std().shift()),
        _EARLY: z(price, early.mean(), early.std()),
        _FILL: z(close, raw.mean(), raw.std()),
        f"{_FILL}, also into the mean": z(price, raw.mean(), raw.std()),
        "of all prices so far, not of the last 20": z(price, last_20.mean(), last_20.std()),
    }


def _volume(table: pd.DataFrame) -> Slips:
    def so_far(volume: pd.Series, by) -> pd.Series:
        return volume.groupby(by).transform(lambda days: days.expanding().mean())

    volume, month = table["volume"], table.index.to_period("M")
    filled = volume.ffill()
    right = volume / so_far(volume, month)
    return {
        "April of two years are two months: table.index.to_period('M')": (
            volume / so_far(volume, table.index.month)
        ),
        "of this month so far, not of the last 20 days": volume / volume.rolling(20).mean(),
        "of this month so far, not of all days": volume / volume.expanding().mean(),
        "on a day without trade no volume is known: do not fill it": (
            filled / so_far(filled, month)
        ),
        "a day without trade does not count in the mean": (
            volume / so_far(volume.fillna(0), month)
        ),
        "on a day without trade it is NaN, which is no number": right.fillna(0),
        _TODAY: volume / so_far(volume, month).groupby(month).shift(),
    }


def _night(table: pd.DataFrame) -> Slips:
    close, opened = table["close"], table["open"]
    price = close.ffill()
    return {
        _FILL: np.log(opened / close.shift()),
        "over the price of the day *before*: shift()": np.log(opened / price),
        _LOG: opened / price.shift() - 1,
        "on a day without trade there is no open: leave it NaN": (
            np.log(opened.ffill() / price.shift())
        ),
        "that is last night's: today's open is known": np.log(opened / price.shift()).shift(),
    }


SLIPS: dict[str, Callable[[pd.DataFrame], Slips]] = {
    "return": _returns,
    "volatility": _volatility,
    "trend": _trend,
    "z": _z,
    "volume": _volume,
    "night": _night,
}
