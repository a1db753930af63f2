"""Rows that lie on several ranks, their mean and covariance, and what goes wrong with them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

Pair = tuple[torch.Tensor, torch.Tensor]
Guess = torch.Tensor | list[torch.Tensor] | None  # of all ranks, of each, or whatever it may be

DIGITS = 1e-9  # of a covariance, relative to the product of two standard deviations
MEAN_DIGITS = 1e-12  # of a mean, relative to the largest number in its column

_PLAIN = ((0.5, 1.0), (-2.0, 3.0), (4.0, 0.5))
_FAR = ((1_421_927_414.0, 900.0), (3.0, 2.0), (-60_000_000.0, 40.0))


class Rows(NamedTuple):
    """A question of 50.1.

    Attributes:
        says: How a message names it.
        rows: How many there are on each rank.
        columns: About where each column lies, and how widely it is spread.
        dtype: Of the rows.
    """

    says: str
    rows: tuple[int, ...]
    columns: tuple[tuple[float, float], ...] = _PLAIN
    dtype: torch.dtype = torch.float32

    def of_ranks(self) -> list[torch.Tensor]:
        """Of each rank: rows × features. The features are correlated, and ranks lie apart."""
        features, dice = len(self.columns), torch.Generator().manual_seed(sum(self.rows))
        centre, spread = torch.tensor(self.columns, dtype=torch.float64).T
        x = torch.randn(sum(self.rows), features, dtype=torch.float64, generator=dice)
        x = x + 0.5 * x.roll(1, dims=1)
        x += 0.7 * torch.arange(len(self.rows)).repeat_interleave(torch.tensor(self.rows))[:, None]
        return list((centre + spread * x).to(self.dtype).split(self.rows))

    def far(self) -> bool:
        """Whether a column lies so far from 0 that squares lose what is asked for."""
        return any(abs(centre) > 1e4 * spread > 0 for centre, spread in self.columns)


_CONSTANT = (*_PLAIN[:2], (0.1, 0.0))
_MILLIONS = ((1e6, 1.0), (-3e6, 2.0), (0.0, 1.0), (2e6, 5.0))
CASES = (
    Rows("9 rows", (9,)),
    Rows("times of 40 flows", (40,), _FAR, torch.float64),
    Rows("rows 5 + 2", (5, 2)),
    Rows("rows 4 + 4, one feature", (4, 4), _PLAIN[1:2]),
    Rows("times of flows 40 + 25", (40, 25), _FAR, torch.float64),
    Rows("a constant column, rows 6 + 1 + 3", (6, 1, 3), _CONSTANT, torch.float64),
    Rows("times of flows 0 + 30 + 12", (0, 30, 12), _FAR, torch.float64),
    Rows("two rows, 1 + 0 + 0 + 1", (1, 0, 0, 1)),
    Rows("millions in float32, rows 9 + 0 + 2 + 14", (9, 0, 2, 14), _MILLIONS),
    Rows("rows 0 + 1,500 + 900 + 600", (0, 1500, 900, 600)),
)


def numbers(case: Rows) -> int:
    """How many numbers may reach a rank: a count, sums and products, and twice one a feature."""
    d = len(case.columns)
    return (1 + d + d * d) + (2 * d + 1)


def exact(case: Rows) -> Pair:
    """Mean (features) and covariance (features × features) over all rows, float64."""
    x = torch.cat(case.of_ranks()).double()
    return x[0] + (x - x[0]).mean(dim=0), _products(x - x[0]) / (len(x) - 1)


def odd_form(got: Any, case: Rows) -> str:
    """What is wrong with a result as an object, or ``""``."""
    d = len(case.columns)
    if not isinstance(got, list | tuple) or len(got) != 2:
        return f"return a pair of tensors: mean, covariance (got {got!r:.60})"
    for name, one, shape in zip(("mean", "covariance"), got, ([d], [d, d]), strict=True):
        if not isinstance(one, torch.Tensor):
            return f"the {name} is no tensor: {one!r:.60}"
        if [*one.shape] != shape:
            why = " (torch.cov of one feature is a plain number)" * (one.ndim == 0)
            return f"the {name} has the shape {[*one.shape]}, not {shape}{why}"
        if one.dtype != torch.float64:
            return f"the {name} is {one.dtype}, not torch.float64: begin with x.double()"
    return ""


def which_mistake(case: Rows, results: Sequence[Pair]) -> tuple[str, str]:
    """What is not right, and a hint; two empty strings if all is.

    Args:
        case: The question.
        results: Mean and covariance on each rank, of the right form.
    """
    right, room = exact(case), _room(case, 0.0, DIGITS)
    off = [
        [r for r, got in enumerate(results) if not _within(got[k], right[k], room[k])]
        for k in (0, 1)
    ]
    if not off[0] and not off[1]:
        return "", ""
    k = 0 if off[0] else 1
    rank, what = off[k][0], ("mean", "covariance")[k]
    says, each = f"all have the {what} of all rows", [*zip(*results, strict=True)]
    rough = _room(case, 1e-6, 1e-6)
    for hint, *guesses in _mistakes(case):
        if all(map(_like, each, guesses, rough)):
            return says, f"rank {rank}: {hint}"
    if any(one.isnan().any() or one.isinf().any() for one in each[k]):
        hint = "it has NaN or infinity"
        if 0 in case.rows:
            hint += ": a rank without rows has no mean and no largest row, but sums, which are 0"
        return says, f"rank {rank}: {hint}"
    if len(off[k]) < len(results):
        return says, f"rank {rank} has not got it, and others have: all need the same"
    if k and case.far():
        return says, f"rank {rank}: {_cancelled(case)}"
    if _like(each[k], right[k], _room(case, 1e-3, 1e-3)[k]):
        hint = "nearly; begin with x.double(), before anything is subtracted"
        if case.dtype == torch.float64:
            hint = "nearly; what is subtracted has to lie near the rows, one for each column"
        return says, f"rank {rank}: {hint}"
    return says, f"rank {rank}: {_GENERIC[k]}"


_GENERIC = (
    "add up the rows, and how many there are, over all ranks; then divide once",
    "the products of what rows are away from the mean of all, added up over all, by n − 1",
)


def _cancelled(case: Rows) -> str:
    hint = "the mean is huge beside the spread, and what is left of a difference of two huge sums "
    hint += "is rounding: subtract a value near the rows first, one for each column, the same one "
    hint += "on all ranks"
    if 0 in case.rows[:-1]:
        hint += f" (rank {case.rows.index(0)} has no rows, and so knows none)"
    return hint


def _mistakes(case: Rows) -> Iterator[tuple[str, Guess, Guess]]:
    """Hints, each with the mean and the covariance of the mistake it is about."""
    ranks, x = [part.double() for part in case.of_ranks()], torch.cat(case.of_ranks()).double()
    (mean, covariance), n, some = exact(case), len(x), [part for part in ranks if len(part)]
    means = [part.mean(dim=0) for part in ranks]  # NaN without rows
    here = [part.mean(dim=0) for part in some]
    nothing, none = torch.zeros_like(mean), torch.zeros_like(covariance)
    own_shift = "every rank has subtracted a value of its own, and such sums do not add up: "
    own_shift += "agree about one first"
    for pick in (lambda p: p.mean(0), lambda p: p[0], lambda p: p[-1], _least, _most):
        shifts = [pick(part) if len(part) else nothing for part in ranks]
        if len(some) > 1:
            moved = torch.cat([part - s for part, s in zip(ranks, shifts, strict=True)])
            centre = moved.mean(dim=0)
            yield own_shift, [s + centre for s in shifts], _products(moved) / (n - 1)
            yield own_shift, mean, _products(moved) / (n - 1)
        for s in [*shifts, mean]:
            yield "add to the mean what you have subtracted from the rows", mean - s, covariance
    yield "that is the sum of the rows: divide by their number", mean * n, None
    yield "that is divided by the number of ranks, not of rows", mean * n / len(ranks), None
    if len(ranks) > 1:
        weighs = "that is the mean of the ranks' means, in which few rows weigh as much as many: "
        weighs += "add up sums, and counts"
        yield "that is of its own rows only: add up over the ranks first", means, None
        yield "that is of its own rows only", [m.nan_to_num(0.0) for m in means], None
        yield weighs, sum(here) / len(here), None
        yield weighs, sum(here) / len(ranks), None
        yield "a rank without rows has no mean (NaN), but a sum, which is 0", sum(means), None
    yield "divide by n − 1, not by n", mean, covariance * (n - 1) / n
    yield "that is the sum of products: divide it by n − 1", mean, covariance * (n - 1)
    raw, away = x.T @ x, torch.outer(mean, mean)
    if not case.far():
        no_mean = "that forgets the mean: take n·m·mᵀ from the sum of products"
        yield no_mean, mean, raw / (n - 1)
        yield no_mean, mean, raw / n
        both = "take n·m·mᵀ from the sum of products, then divide the difference by n − 1"
        yield both, mean, raw / (n - 1) - away
        yield both, mean, (raw - away) / (n - 1)
    if len(ranks) > 1:
        own = [torch.cov(part.T).reshape(none.shape) if len(part) > 1 else none for part in ranks]
        real = [c for c, part in zip(own, ranks, strict=True) if len(part) > 1] or [none]
        within = "covariances of ranks cannot be averaged: the ranks' means differ, too; add up "
        within += "products"
        yield "that is of its own rows only: add up over the ranks first", mean, own
        yield within, mean, sum(real) / len(real)
        yield within, mean, sum(own) / len(ranks)
        yield within, mean, sum(len(p) * c for p, c in zip(ranks, own, strict=True)) / n
        yield within, mean, sum((len(p) - 1) * c for p, c in zip(ranks, own, strict=True)) / n
        centred = sum(_products(part) for part in some)
        for by in {n, n - 1, max(n - len(ranks), 1), max(n - len(some), 1)}:
            yield within, mean, centred / by
    root = covariance.diag().sqrt()
    yield (
        "that is the correlation: do not divide by the spreads",
        mean,
        covariance / root.outer(root),
    )


def _least(part: torch.Tensor) -> torch.Tensor:
    return part.amin(dim=0)


def _most(part: torch.Tensor) -> torch.Tensor:
    return part.amax(dim=0)


def _products(x: torch.Tensor) -> torch.Tensor:
    """Of what the rows are away from their mean, added up: features × features."""
    away = x - x.mean(dim=0)
    return away.T @ away


def _room(case: Rows, of_mean: float, of_covariance: float) -> Pair:
    """How far a mean and a covariance may be off: by rounding, and by shares of the spreads."""
    x = torch.cat(case.of_ranks()).double()
    spread, size = x.std(dim=0), x.abs().amax(dim=0)
    last = 8 * torch.finfo(torch.float64).eps * size  # a mean may be off by its last digits
    rounding = last.outer(spread) + spread.outer(last) + last.outer(last)
    room = of_covariance * spread.outer(spread) + rounding
    return MEAN_DIGITS * size + of_mean * spread, room


def _like(got: Sequence[torch.Tensor], guess: Guess, room: torch.Tensor) -> bool:
    if guess is None:
        return True
    guesses = guess if isinstance(guess, list) else [guess] * len(got)
    return all(_within(a, b, room) for a, b in zip(got, guesses, strict=True))


def _within(got: torch.Tensor, expected: torch.Tensor, room: torch.Tensor) -> bool:
    apart = (got - expected).abs()
    return bool(((got.isnan() & expected.isnan()) | (apart <= room)).all())
