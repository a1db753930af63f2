"""All tickers on one calendar, scaled by the past, and the windows that a network reads of them.

Lesson 41 builds it by hand; lesson 42 takes it from here.

Invariants:

- A sample is a day and a ticker. Its window ends on that day; its answers are of the day after.
- Scales are learned from a fold's days to fit, and from no others.
- Windows are views of one table: only a batch that is asked for is copied.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch

from course_lib.data._stocks_features import Fold, indicators

_SMALLEST = 1e-4  # of a range: its logarithm is taken
_CLIP = 5.0  # standard deviations


@dataclass(frozen=True, eq=False, repr=False)
class Scaled:
    """A panel as the days to fit of one fold know it.

    Attributes:
        x: float32, days × tickers × 16: the eight indicators of the ticker, in deviations from its
            own past, beside their means over all tickers, the market.
        y: float32, days × tickers × 2: tomorrow's return and logarithm of the range, likewise.
        mean: float64, tickers × 2: of return (0: none is expected) and logarithm of the range.
        spread: float64, tickers × 2: their standard deviations.
    """

    x: torch.Tensor
    y: torch.Tensor
    mean: torch.Tensor
    spread: torch.Tensor

    def samples(self, part: range, length: int) -> torch.Tensor:
        """Day and ticker of every sample made on the days of `part` whose window has no gap.

        Returns:
            int64, samples × 2, by day.
        """
        whole = self.y.isfinite().all(dim=2)
        whole[length - 1 :] &= self.x.unfold(0, length, 1).isfinite().all(dim=3).all(dim=2)
        whole[: max(part.start, length - 1)] = False
        whole[part.stop :] = False
        return whole.nonzero()

    def windows(self, which: torch.Tensor, length: int) -> torch.Tensor:
        """The last `length` days of these samples: samples × length × 16, a copy."""
        day, ticker = which.T
        return self.x.unfold(0, length, 1)[day - length + 1, ticker].transpose(1, 2)

    def targets(self, which: torch.Tensor) -> torch.Tensor:
        """The scaled answers of these samples: samples × 2."""
        day, ticker = which.T
        return self.y[day, ticker]

    def unscaled(self, said: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """Turn scaled answers of these samples into returns and ranges, float64: … × samples × 2.

        Args:
            said: Of one model, samples × 2, or of several, models × samples × 2.
            which: Day and ticker of each sample.
        """
        ticker = which[:, 1]
        answer = said.double() * self.spread[ticker] + self.mean[ticker]
        return torch.stack([answer[..., 0], answer[..., 1].exp()], dim=-1)


@dataclass(frozen=True, eq=False, repr=False)
class Panel:
    """What is known each day, and what comes the day after. Gaps are NaN.

    Attributes:
        days: The calendar: every day on which some ticker was traded.
        tickers: The tickers, in the order of the tables.
        close: float64, days × tickers: the closing price, in dollars.
        values: float64, days × tickers × 8: `indicators`; the range as its logarithm.
        answers: float64, days × tickers × 2: tomorrow's return and logarithm of the range.
    """

    days: pd.DatetimeIndex
    tickers: list[str]
    close: torch.Tensor
    values: torch.Tensor
    answers: torch.Tensor

    def scaled(self, fold: Fold) -> Scaled:
        """Scale each ticker by its own mean and deviation over the days to fit."""
        past = self.values[fold.fit.start : fold.fit.stop]
        mean = past.nanmean(dim=0)
        spread = (past - mean).square().nanmean(dim=0).sqrt()
        mean[:, 0] = 0.0
        x = ((self.values - mean) / spread).clamp(-_CLIP, _CLIP).float()
        market = x.nanmean(dim=1, keepdim=True).expand_as(x)
        y = (self.answers - mean[:, :2]) / spread[:, :2]
        return Scaled(torch.cat([x, market], dim=2), y.float(), mean[:, :2], spread[:, :2])

    def errors(self, said: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Absolute errors of a forecast and of persistence, which says "as today".

        Args:
            said: Returns and ranges, as `Scaled.unscaled` gives them: … × samples × 2.
            which: Day and ticker of each sample.

        Returns:
            Two float64 tensors, … × samples × 2 and samples × 2: the error of tomorrow's close in
            dollars, and of its range.
        """
        day, ticker = which.T
        close, came = self.close[day, ticker], self.answers[day, ticker]
        now = torch.stack([torch.zeros_like(close), self.values[day, ticker, 1].exp()], dim=1)

        def off(guess: torch.Tensor) -> torch.Tensor:
            dollars = close * (guess[..., 0].exp() - came[:, 0].exp())
            return torch.stack([dollars, guess[..., 1] - came[:, 1].exp()], dim=-1).abs()

        return off(said), off(now)


def panel(tables: Mapping[str, pd.DataFrame]) -> Panel:
    """Put tickers on one calendar, with their indicators and with what comes the day after.

    Args:
        tables: Ticker → prices, as ``load`` gives them.

    Returns:
        The panel. A ticker that was not traded on some day has a gap there; nothing is filled.

    Raises:
        ValueError: There is no ticker, or a table lacks a column.
    """
    if not tables:
        raise ValueError("panel: there is no ticker to put on a calendar")
    by_day = {"axis": 1, "sort": True}  # a ticker may begin in the middle of another
    table = pd.concat({name: indicators(prices) for name, prices in tables.items()}, **by_day)
    close = pd.concat({name: prices["close"] for name, prices in tables.items()}, **by_day)
    values = torch.tensor(table.to_numpy()).reshape(len(table), len(tables), -1)
    values[..., 1] = values[..., 1].clamp(min=_SMALLEST).log()
    answers = values.roll(-1, dims=0)[..., :2].clone()
    answers[-1] = torch.nan
    return Panel(table.index, list(tables), torch.tensor(close.to_numpy()), values, answers)
