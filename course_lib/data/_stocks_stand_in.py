"""A made-up market, for when real prices cannot be had.

A lesson has to work without a network, and teach the same things: so the stand-in has what matters
in real daily prices. Returns can hardly be forecast, and their size can: calm and wild days come in
clusters (a GARCH process with leverage), for the market and for each share. Shares fall and rise
together (a common factor), large moves are commoner than a normal distribution has them, volume
follows the moves, and some shares pay dividends, so that their adjusted prices differ. It is
plainly not real: the tickers say so.

Invariants: each call returns the same tables, and each passes the checks of a real file.
"""

import numpy as np
import pandas as pd

from course_lib.data._stocks_files import table

TICKERS = tuple(f"MADE-{letter}" for letter in "ABCDEFGH")
START, END = "2017-10-16", "2023-10-16"  # the first day; the day after the last one

_BETA = np.array([0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.7])  # how much of the market's move
_DAILY = np.array([0.9, 1.0, 1.1, 1.0, 1.3, 1.2, 1.6, 2.2]) / 100  # own volatility, a day
_PRICE = np.array([38.0, 160.0, 61.0, 95.0, 240.0, 22.0, 74.0, 12.0])  # dollars, at the start
_TRADED = np.array([9e6, 3e6, 7e6, 2.5e7, 1.2e6, 4e7, 6e6, 1.5e7])  # shares on a usual day
_YIELD = np.array([2.8, 2.2, 3.1, 1.5, 0.8, 0.0, 0.0, 0.0]) / 100  # dividends, a year
_MARKET_DAILY, _DRIFT = 0.009, 0.0003


def make_stand_in() -> dict[str, pd.DataFrame]:
    """Make up eight shares over six years of weekdays.

    Returns:
        Ticker → days × columns, as of a real file.
    """
    rng = np.random.default_rng(1987)
    days = pd.bdate_range(START, END, inclusive="left")
    days = days[~days.strftime("%m-%d").isin(["01-01", "07-04", "12-25"])]
    shocks = rng.standard_t(6, (len(days), 1 + len(TICKERS))) / np.sqrt(6 / 4)  # of variance 1
    size = np.array([_MARKET_DAILY, *_DAILY])
    noise, volatility = _clusters(shocks, size)
    moves = _DRIFT + noise[:, :1] * _BETA + noise[:, 1:]
    spread = np.hypot(volatility[:, :1] * _BETA, volatility[:, 1:])  # each share's, each day
    close = _PRICE * np.exp(np.cumsum(moves, axis=0))

    overnight = 0.35 * moves + 0.15 * spread * rng.standard_normal(moves.shape)
    opened = np.vstack([_PRICE, close[:-1]]) * np.exp(overnight)
    reach = spread * rng.gamma(2.5, 0.22, (2, *moves.shape))  # beyond open and close
    high = np.maximum(opened, close) * np.exp(reach[0])
    low = np.minimum(opened, close) * np.exp(-reach[1])
    busy = np.exp(0.35 * rng.standard_normal(moves.shape)) * (0.6 + 0.5 * abs(moves) / _size())
    volume = np.round(_TRADED * busy * (spread / _size()) ** 0.7)

    quarterly = np.zeros(moves.shape)
    quarterly[40::63] = _YIELD / 4  # the share of its price that is paid out on such a day
    before = np.vstack([quarterly[1:], np.zeros(len(TICKERS))])[::-1]
    adjusted = close * np.cumprod(1 - before, axis=0)[::-1]
    columns = np.stack([opened, high, low, close, adjusted, volume], axis=-1)
    return {ticker: table(days, columns[:, n]) for n, ticker in enumerate(TICKERS)}


def _size() -> np.ndarray:
    """Return the usual volatility of each share, with the market's part of it."""
    return np.hypot(_MARKET_DAILY * _BETA, _DAILY)


def _clusters(shocks: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn independent shocks into moves that are calm and wild in turns.

    Args:
        shocks: days × series, each with mean 0 and variance 1.
        size: The volatility of each series in the long run.

    Returns:
        The moves, and the volatility of each day as the day before could know it; days × series.
    """
    fresh, leverage, lasting = 0.07, 0.06, 0.88  # of yesterday's move, of a fall, of the old level
    moves, volatility = np.empty_like(shocks), np.empty_like(shocks)
    variance = size**2
    for day, shock in enumerate(shocks):
        volatility[day] = np.sqrt(variance)
        moves[day] = volatility[day] * shock
        news = (fresh + leverage * (moves[day] < 0)) * moves[day] ** 2
        usual = (1 - fresh - leverage / 2 - lasting) * size**2
        variance = usual + news + lasting * variance
    return moves, volatility
