"""Walks forward over ranks: series with their folds, a model that notes what it learns from.

No two answers of a series are alike, so those that a model was given tell the days they are of.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from course_lib.data.stocks import Fold, walk_forward

_PENALTY = 4.0  # with it, the scale of the inputs matters


class Walk(NamedTuple):
    """A question of 41.2.

    Attributes:
        says: How a message names it.
        ranks: World size.
        days: How many there are.
        folds: What is walked.
    """

    says: str
    ranks: int
    days: int
    folds: tuple[Fold, ...]

    def given(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs (days × 3), tomorrow's values and today's (days), float64."""
        dice = torch.Generator().manual_seed(self.days)
        noise = torch.randn(self.days + 1, 4, generator=dice, dtype=torch.float64)
        wild = torch.linspace(1, 3, self.days + 1, dtype=torch.float64)  # later days are wilder
        steps, value = wild * (0.7 * noise[:, 0] + 0.7 * noise[:, 3]), [3.0]
        for step in steps.tolist():
            value.append(1 + 0.8 * value[-1] + step)
        value = torch.tensor(value[1:], dtype=torch.float64)
        x = noise[1:, :3] + torch.linspace(0, 0.6, self.days)[:, None]
        x[:, 1], x[:, 2] = 300 + 40 * x[:, 1], value[:-1] / 100
        return x, value[1:].clone(), value[:-1].clone()


def _rolling() -> tuple[Fold, ...]:
    """Folds that forget old days, with test parts of unequal length."""
    return (
        Fold(range(10, 60), range(62, 70), range(72, 100)),
        Fold(range(40, 88), range(90, 98), range(100, 107)),
        Fold(range(50, 95), range(97, 105), range(107, 150)),
        Fold(range(90, 140), range(142, 148), range(150, 153)),
    )


WALKS = (
    Walk("3 folds", 1, 140, tuple(walk_forward(140, folds=3, test=20, valid=12, purge=3))),
    Walk("4 folds", 2, 180, tuple(walk_forward(180, folds=4, test=22, valid=14, purge=3))),
    Walk("5 folds", 2, 200, tuple(walk_forward(200, folds=5, test=21, valid=13, purge=2))),
    Walk("4 folds of unequal length", 3, 160, _rolling()),
    Walk("3 folds", 4, 150, tuple(walk_forward(150, folds=3, test=18, valid=11, purge=4))),
    Walk("1 fold", 4, 90, tuple(walk_forward(90, folds=1, test=15, valid=10, purge=2))),
)


class Line:
    """A ridge regression: learns in one go, the same from the same rows.

    Attributes:
        seen: Inputs and answers of each time it learnt.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Learn; what comes back predicts one number a row."""
        if x.ndim != 2 or y.shape != x.shape[:1]:
            raise ValueError(
                f"learn(x, y) takes rows × features and as many answers, not {_two(x, y)}"
            )
        self.seen.append((x.detach().clone(), y.detach().clone()))
        inputs = _with_ones(x)
        square = inputs.T @ inputs + _PENALTY * torch.eye(inputs.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve(square, inputs.T @ y)
        return lambda rows: _with_ones(rows) @ weights


def _two(x: torch.Tensor, y: torch.Tensor) -> str:
    return f"{[*x.shape]} and {[*y.shape]}"


def _with_ones(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)


class Learnt(NamedTuple):
    """One time that a model learnt on a rank: of which fold (-1: none), and what is wrong."""

    fold: int
    wrong: str
    hint: str


def learnt(walk: Walk, seen: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[Learnt]:
    """What a rank's models have learnt from."""
    x, y, _ = walk.given()
    day_of, found = {value: day for day, value in enumerate(y.tolist())}, []
    for rows, answers in seen:
        days = [day_of.get(value, -1) for value in answers.tolist()]
        folds = [k for k, fold in enumerate(walk.folds) if sorted(days) == [*fold.fit]]
        if not folds:
            found.append(Learnt(-1, "each model learns from the days of its fit", _why(walk, days)))
            continue
        fold = walk.folds[folds[0]]
        hint = (
            _scaled_how(walk, rows, days, fold)
            if rows.shape == x[days].shape
            else (f"x has the shape {[*rows.shape]}: all features, and nothing else")
        )
        found.append(Learnt(folds[0], "inputs are scaled by the days of fit" if hint else "", hint))
    return found


def _why(walk: Walk, days: list[int]) -> str:
    if -1 in days:
        return "y is learnt as it is, neither scaled nor shifted"
    if len({*days}) < len(days):
        return f"day {Counter(days).most_common(1)[0][0]} is in it more than once"
    if not days:
        return "there is no day to learn from"
    first, last = min(days), max(days)
    got = f"it learnt from days {first} to {last}"
    if len(days) == walk.days:
        return f"{got}: these are all; a fold knows those of its fit"
    for k, fold in enumerate(walk.folds):
        fit = f"fit of fold {k} has those from {fold.fit.start} to {fold.fit.stop - 1}"
        starts = first <= fold.fit.start or first == fold.test.start
        if starts and last == fold.test.stop - 1:
            return f"{got}, and {fit}: these are days it is judged on"
        if first == fold.fit.start and last in (fold.valid.stop - 1, fold.test.start - 1):
            return f"{got}, and {fit}: validation days are for choices, and none is made here"
        if first == fold.fit.start and abs(last - fold.fit.stop + 1) == 1:
            return f"{got}, and {fit}: x[fold.fit.start : fold.fit.stop]"
        if first < fold.fit.start and last == fold.fit.stop - 1:
            return f"{got}, and {fit}: it does not begin with the first day"
    return f"{got}, which is the fit of no fold"


def scale(x: torch.Tensor, days: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (population) of each feature over some days."""
    part = x[days.start : days.stop]
    return part.mean(dim=0), part.std(dim=0, correction=0)


def _scaled_how(walk: Walk, rows: torch.Tensor, days: list[int], fold: Fold) -> str:
    x, *_ = walk.given()
    mean, spread = scale(x, fold.fit)
    if _near(rows, (x[days] - mean) / spread):
        return ""
    for hint, (mean, spread) in _scales(walk, x, fold):
        if _near(rows, (x[days] - mean) / spread):
            return hint
    return "(x - mean) / spread, both of each feature, of the days of fit"


def _scales(walk: Walk, x: torch.Tensor, fold: Fold) -> Iterator[tuple[str, tuple]]:
    zero, one = torch.zeros(1), torch.ones(1)
    mean, spread = scale(x, fold.fit)
    yield "x came as it was: scale it, by mean and spread of the days of fit", (zero, one)
    yield "divide by the spread, too", (mean, one)
    yield "subtract the mean, too", (zero, spread)
    yield "that is the variance: the root is missing", (mean, spread.square())
    ahead = "mean and spread know days after fit: take them from the days of fit, anew in each fold"
    for last in (walk.days, fold.valid.stop, fold.test.start, fold.test.stop):
        for first in {0, fold.fit.start}:
            yield ahead, scale(x, range(first, last))
    for part in (fold.valid, fold.test):
        yield ahead, scale(x, part)
    for other in walk.folds:
        yield "that is the scale of another fold: take it anew in each", scale(x, other.fit)
    yield "fit does not begin with the first day", scale(x, range(0, fold.fit.stop))
    n = len(fold.fit)
    yield "divide by the count, not by the count less 1", (mean, spread * (n / (n - 1)) ** 0.5)
    part = x[fold.fit.start : fold.fit.stop]
    whole = part.mean().expand(1), part.std(correction=0).expand(1)
    yield "each feature has its own mean and spread: dim=0", whole
    low, high = part.amin(dim=0), part.amax(dim=0)
    yield "by mean and spread, not by the extremes", (low, high - low)


def _near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a.double(), b, rtol=1e-7, atol=1e-7)


def how_dealt(walk: Walk, ranks: Sequence[Sequence[Learnt]]) -> str:
    """What is wrong with who learns which fold; ``""`` if nothing is."""
    times = Counter(one.fold for rank in ranks for one in rank)
    every = range(len(walk.folds))
    if lost := [k for k in every if not times[k]]:
        return f"fold {lost[0]} is learnt on no rank: each needs a model of its own"
    if twice := [k for k in every if times[k] > 1]:
        hint = f"fold {twice[0]} is learnt {times[twice[0]]} times"
        return f"{hint}: rank r of N takes folds[r::N], and leaves the others to the others"
    counts = [len(rank) for rank in ranks]
    if max(counts) - min(counts) > 1:
        return f"the ranks learn {counts} folds: rank r of N takes folds[r::N]"
    return ""


def changed(walk: Walk, given: Sequence[Any]) -> str:
    """Which of the tensors given an answer has changed; ``""`` if none."""
    for name, a, b in zip(("x", "y", "today"), given, walk.given(), strict=True):
        if not torch.equal(a, b):
            return f"{name} has changed: the next fold needs it as it was, so scale a copy"
    return ""
