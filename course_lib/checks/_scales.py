"""Tickers on several ranks whose past gives one scale, and what becomes of a scale taken wrongly.

Means and spreads are handled as a tensor of shape (2, features), float64. One feature is far from
0 for its spread: a variance that is the difference of two large numbers shows there.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

FAR, FEATURES = 2, 4
_LEVELS = torch.tensor([0.001, 0.0, 4e6, 13.0], dtype=torch.float64)
_SPREADS = torch.tensor([0.02, 6.0, 5.0, 0.7], dtype=torch.float64)
Guesses = Iterator[tuple[str, torch.Tensor | list[torch.Tensor]]]


class Case(NamedTuple):
    """A question of 41.1.

    Attributes:
        says: How a message names it.
        tickers: How many each rank has.
        fit: The days that give the scale.
        days: How many there are.
        last: What the last feature is like: ``"usual"``, ``"constant"`` or ``"unknown"`` before
            the end of ``fit``.
        late: The last tickers, as many as this, have no number before the end of ``fit``.
    """

    says: str
    tickers: tuple[int, ...]
    fit: range
    days: int
    last: str = "usual"
    late: int = 0

    def panel(self) -> torch.Tensor:
        """Days × tickers of all ranks × features, float32, with gaps."""
        dice, n = torch.Generator().manual_seed(self.days), sum(self.tickers)
        shape = (self.days, n, FEATURES)
        noise = torch.randn(shape, generator=dice, dtype=torch.float64)
        noise += torch.linspace(-1, 2, self.days)[:, None, None]  # other times, other numbers
        panel = _LEVELS + _SPREADS * noise
        panel[..., 1] += 40.0 * torch.arange(1, n + 1)  # prices: each ticker has a level
        panel[torch.rand(shape, generator=dice) < 0.1] = torch.nan
        panel[: self.days // 3, 1::3] = torch.nan  # they come to the exchange late
        if self.last == "constant":
            panel[..., -1] = panel[..., -1].clamp(0.3, 0.3)
        if self.last == "unknown":
            panel[: self.fit.stop, :, -1] = torch.nan
        panel[: self.fit.stop, n - self.late :] = torch.nan
        return panel.float()

    def elsewhere(self) -> dict[str, torch.Tensor]:
        """The same panel with other numbers outside of ``fit``: which days → panel."""
        after, before = self.panel(), self.panel()
        after[self.fit.stop :] = 3 * after[self.fit.stop :].nan_to_num(7.0) + 1
        before[: self.fit.start] = 5.0
        return {"after": after} | ({"before": before} if self.fit.start else {})

    def part(self, panel: torch.Tensor, rank: int) -> torch.Tensor:
        """What a rank has of a panel: days × its tickers × features."""
        return panel.split(self.tickers, dim=1)[rank].clone()


CASES = (
    Case("4 tickers", (4,), range(0, 40), 60),
    Case("5 tickers and 2", (5, 2), range(0, 45), 70),
    Case("a rank without tickers", (3, 0), range(0, 30), 50),
    Case("days to fit that begin later", (1, 4, 2), range(25, 75), 100),
    Case("a feature unknown before the end of fit", (2, 1, 3), range(0, 33), 55, "unknown"),
    Case("a feature that never changes", (2, 4), range(0, 31), 40, "constant"),
    Case("tickers that come after fit", (3, 2, 0, 2), range(0, 41), 64, late=2),
)  # fmt: skip


def pair_of(got: Any) -> torch.Tensor | str:
    """What an answer returned, as one tensor; or what is wrong with it as an object."""
    if not isinstance(got, list | tuple | torch.Tensor) or len(got) != 2:
        return f"return mean and spread, two tensors (got {got!r:.60})"
    for name, one in zip(("mean", "spread"), got, strict=True):
        if not isinstance(one, torch.Tensor):
            return f"the {name} is a tensor (got {one!r:.50})"
        if one.shape != (FEATURES,):
            return f"the {name} has the shape {[*one.shape]}: one number for each feature"
        if one.dtype != torch.float64:
            return f"the {name} holds {one.dtype}: add up and return float64, as the panel is not"
    return torch.stack([*got]).detach()


def exact(case: Case) -> torch.Tensor:
    """Means and spreads of one process that has all tickers."""
    rows = _rows(case.panel(), case.fit)
    return torch.stack([_mean(rows), _spread(rows)])


def near(got: torch.Tensor, right: torch.Tensor, relative: float = 1e-9) -> torch.Tensor:
    """Where means and spreads agree; a spread may also be off by 1e-12 of the mean."""
    slack = relative * right.abs()
    slack[1] += 1e-3 * relative * right[0].abs()
    off = (got - right).abs()
    return (off <= slack) | (got.isnan() & right.isnan())


def which_mistake(case: Case, got: Sequence[torch.Tensor]) -> tuple[str, str]:
    """What is wrong on which rank, and why it may be; two empty strings if nothing is."""
    right, ranks = exact(case), range(len(got))
    for which, name in enumerate(("mean", "spread")):
        off = [rank for rank in ranks if not near(got[rank], right)[which].all()]
        if not off:
            continue
        rank = off[0]
        wrong = (~near(got[rank], right)[which]).nonzero().flatten().tolist()
        values = f"{got[rank][which][wrong[0]]:.9g}, not {right[which][wrong[0]]:.9g}"
        says = f"the {name} (rank {rank} has {values}, of feature {wrong[0]})"
        return says, _why(case, which, got, right, wrong)
    return "", ""


def _why(
    case: Case, which: int, got: Sequence[torch.Tensor], right: torch.Tensor, wrong: list[int]
) -> str:
    rows = [one[which] for one in got]
    known = ~right[which].isnan()
    for hint, guess in _of_mean(case) if which == 0 else _of_spread(case):
        guesses = guess if isinstance(guess, list) else [guess] * len(rows)
        if all(_like(row, one, known) for row, one in zip(rows, guesses, strict=True)):
            return hint
    if not known[wrong].any():
        return "where the past of no rank has a number, mean and spread are NaN: 0 / 0"
    if which == 1 and (wrong == [FAR] or (case.last == "constant" and {*wrong} <= {FAR, 3})):
        hint = "the mean of squares less the square of the mean: two large numbers, nearly equal. "
        return hint + "Know the mean first, then add up squares of deviations from it, in float64"
    if near(got[0], right)[which].all():
        return "right on rank 0 only: all_reduce tells every rank the sum"
    if any(row[known].isnan().any() for row in rows):
        return "NaN: a gap is no number (nansum), and a rank may have none at all: add up, count"
    if all(_like(row, right[which], known, 1e-4) for row in rows):
        return "nearly: float32 holds seven digits; .double() comes before the sum"
    return "add up numbers and count them over all ranks, divide; then the same with squares"


def _like(row: torch.Tensor, guess: torch.Tensor, known: torch.Tensor, close=1e-6) -> bool:
    row, guess = row[known], guess[known]
    return torch.allclose(row, guess, rtol=close, atol=1e-9, equal_nan=True)


_OWN = "that is this rank's part only: all_reduce sums and counts before you divide"
_RANKS = "a mean over ranks weighs all of them alike, also one of few tickers: add up and count"
_TICKERS = "a mean over tickers weighs them alike, also one of few days: add up numbers and count"
_PLACES = "gaps are no numbers: count what isfinite(), not all places"
_LESS = "the last day of fit belongs to it, too: fit.stop is the day after"
_SUM = "that is the sum: divide by how many numbers there are, on all ranks"


def _of_mean(case: Case) -> Guesses:
    """Hints, each with what the means become by the mistake, on all ranks or on each."""
    rows, own, tickers = _cut(case)
    means = torch.stack([_mean(one) for one in own])
    if len(own) > 1:
        yield _OWN, [*means]
        yield _RANKS, means.nanmean(dim=0)
        yield _RANKS, means.mean(dim=0)
        yield _RANKS, means.nan_to_num().mean(dim=0)
    yield _TICKERS, torch.stack([_mean(one) for one in tickers]).nanmean(dim=0)
    yield _PLACES, rows.nan_to_num().mean(dim=0)
    yield _LESS, _mean(_rows(case.panel(), range(case.fit.start, case.fit.stop - 1)))
    yield _SUM, rows.nansum(dim=0)
    yield "the mean comes first, then the spread", _spread(rows)


def _of_spread(case: Case) -> Guesses:
    """The same of spreads, where the means are right."""
    rows, own, tickers = _cut(case)
    mean, count = _mean(rows), rows.isfinite().sum(dim=0)
    squares = (rows - mean).square().nansum(dim=0)
    yield "divide by the count, not by the count less 1", (squares / (count - 1)).sqrt()
    yield "that is the variance: the root is missing", squares / count
    yield _SUM, squares.sqrt()
    yield _PLACES, (squares / len(rows)).sqrt()
    with_zeros = (rows.nan_to_num() - mean).square().sum(dim=0)
    for n in (count, len(rows)):
        hint = "a gap is no number, and no 0 either: leave it out of the squares, too"
        yield hint, (with_zeros / n).sqrt()
    yield "deviations *from the mean* are squared", (rows.square().nansum(dim=0) / count).sqrt()
    spreads = torch.stack([_spread(one) for one in own])
    if len(own) > 1:
        yield _OWN, [*spreads]
        yield _OWN, [((one - mean).square().nanmean(dim=0)).sqrt() for one in own]
        yield _OWN, [((one - mean).square().nansum(dim=0) / count).sqrt() for one in own]
        yield _RANKS, spreads.nanmean(dim=0)
        yield _RANKS, spreads.square().nanmean(dim=0).sqrt()
    within = "deviate from the mean of all ranks: one rank's mean, or ticker's, hides how far apart"
    for parts in (own, tickers):
        inside = sum((one - _mean(one)).square().nansum(dim=0) for one in parts)
        yield f"{within} they are", (inside / count).sqrt()


def _cut(case: Case) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Rows of the past: all, those of each rank, those of each ticker."""
    panel = case.panel()
    own = [_rows(case.part(panel, rank), case.fit) for rank in range(len(case.tickers))]
    return _rows(panel, case.fit), own, [_rows(one, case.fit) for one in panel.split(1, dim=1)]


def _rows(panel: torch.Tensor, fit: range) -> torch.Tensor:
    return panel[fit.start : fit.stop].double().flatten(0, 1)


def _mean(rows: torch.Tensor) -> torch.Tensor:
    return rows.nansum(dim=0) / rows.isfinite().sum(dim=0)


def _spread(rows: torch.Tensor) -> torch.Tensor:
    return ((rows - _mean(rows)).square().nansum(dim=0) / rows.isfinite().sum(dim=0)).sqrt()
