"""Error over error, walked forward: the right ratio, and those that come out by usual mistakes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from course_lib.checks._walks import Line, Walk, scale
from course_lib.data.stocks import Fold


class _Errors(NamedTuple):
    """Of one fold, day by day: absolute errors of the model and of "as today"."""

    ours: torch.Tensor
    base: torch.Tensor

    def ratio(self) -> float:
        return (self.ours.sum() / self.base.sum()).item()


def exact(walk: Walk) -> float:
    """The ratio of one process that walks all folds."""
    return _pooled(_walked(walk))


def close(got: Any, right: float, relative: float = 1e-9) -> bool:
    """Whether it is a float, and that one."""
    return isinstance(got, float) and math.isclose(got, right, rel_tol=relative)


def which_mistake(walk: Walk, got: Sequence[Any]) -> str:
    """Why the ranks' results may be wrong."""
    right = exact(walk)
    if any(isinstance(one, torch.Tensor) for one in got):
        return "return a plain float: tensor.item()"
    if not all(isinstance(one, float) for one in got):
        if close(got[0], right):
            return "only rank 0 has it: every rank returns it"
        return "return a float, on every rank"
    if all(close(one, right, 1e-6) for one in got):
        return "nearly: stay in float64"
    for hint, guess in _mistakes(walk):
        guesses = guess if isinstance(guess, list) else [guess] * len(got)
        if all(_like(one, g) for one, g in zip(got, guesses, strict=True)):
            return hint
    if close(got[0], right):
        return "right on rank 0 only: all_reduce tells every rank the sums"
    if any(math.isnan(one) for one in got):
        return "NaN: a rank without a fold adds two zeros, and nobody divides before all is added"
    return "add up |predict(x) - y| and |today - y| over test days, folds and ranks; divide once"


def _mistakes(walk: Walk) -> Iterator[tuple[str, Any]]:
    """Hints, each with what comes out by the mistake, on all ranks or on each."""
    folds, n = _walked(walk), walk.ranks
    ratios = [fold.ratio() for fold in folds]
    dealt = [folds[rank::n] for rank in range(n)]
    own = [_pooled(part) if part else math.nan for part in dealt]
    some = [one for one in own if not math.isnan(one)]
    ours, base = (torch.cat(part) for part in zip(*folds, strict=True))
    means = "a mean of ratios is no ratio of sums: it weighs calm folds like wild ones, and few "
    means += "days like many. Add up errors of both kinds, and divide once"
    if n > 1:
        alone = "that is this rank's folds only: all_reduce both sums, then divide"
        yield alone, own
        yield alone, [0.0 if math.isnan(one) else one for one in own]
        yield means, sum(some) / len(some)
        yield means, sum(some) / n
        yield "ratios cannot be added, and errors can", sum(some)
    yield means, sum(ratios) / len(ratios)
    yield "ratios cannot be added, and errors can", sum(ratios)
    weights = [len(fold.ours) for fold in folds]
    yield means, sum(r * w for r, w in zip(ratios, weights, strict=True)) / sum(weights)
    by_fold = sum(f.ours.mean() for f in folds) / sum(f.base.mean() for f in folds)
    yield "a mean for each fold weighs 3 days like 43: add up the errors of days", by_fold.item()
    by_rank = [_Errors(*(torch.cat(e) for e in zip(*p, strict=True))) for p in dealt if p]
    by_rank = sum(p.ours.mean() for p in by_rank) / sum(p.base.mean() for p in by_rank)
    yield "a mean for each rank weighs all ranks alike: add up the errors of days", by_rank.item()
    squared = "absolute errors are asked for, not squared ones"
    squares = (ours.square().sum() / base.square().sum()).item()
    yield squared, squares
    yield squared, math.sqrt(squares)
    yield (
        "upside down: error of the model over error of “as today”",
        (base.sum() / ours.sum()).item(),
    )
    yield "that is what is won; the ratio is asked for", 1 - _pooled(folds)
    yield "that is an error: divide by the error of “as today”", ours.sum().item()
    yield "that is an error: divide by the error of “as today”", ours.mean().item()
    yield from _other_days(walk)
    yield from _other_scales(walk)
    yield from _other_bases(walk)


def _other_days(walk: Walk) -> Iterator[tuple[str, float]]:
    test = "judge on the days of test, from test.start to the one before test.stop"
    parts = (
        lambda f: f.valid,
        lambda f: f.fit,
        lambda f: range(f.valid.start, f.test.stop),
        lambda f: range(f.test.start, f.test.stop - 1),
        lambda f: range(f.test.start, walk.days),
        lambda f: range(f.fit.start, f.test.stop),
    )
    for part in parts:
        yield test, _pooled(_walked(walk, judged=part))


def _other_scales(walk: Walk) -> Iterator[tuple[str, float]]:
    x, *_ = walk.given()
    hint = "test inputs get the scale that the model has learnt with, that of fit"
    guesses = (
        lambda fold: scale(x, fold.test),
        lambda fold: scale(x, range(0, walk.days)),
        lambda fold: scale(x, range(fold.fit.start, fold.test.stop)),
        lambda fold: (torch.zeros(3), torch.ones(3)),
    )
    for scaled in guesses:
        yield f"{hint}, and no other", _pooled(_walked(walk, asked=scaled))


def _other_bases(walk: Walk) -> Iterator[tuple[str, float]]:
    x, y, today = walk.given()
    hint = "“as today” says today[d] for y[d], and is off by |today[d] - y[d]|"
    for said in (today.roll(1), torch.zeros_like(y), y.roll(-1)):
        yield hint, _pooled(_walked(walk, said=said))
    for k in (0, -1):
        for asked in (None, lambda fold: scale(x, fold.fit)):
            models = _walked(walk, model=walk.folds[k], asked=asked)
            yield "each fold is judged by its own model", _pooled(models)
    errors = [
        fold._replace(ours=moved) for fold, moved in zip(_walked(walk), _moved(walk), strict=True)
    ]
    yield "the model is off by |predict(x) - y|: today is no part of that", _pooled(errors)


def _moved(walk: Walk) -> list[torch.Tensor]:
    """How far predictions are from today, as if that were the error."""
    _, _, today = walk.given()
    return [errors.ours for errors in _walked(walk, truth=today)]


def _walked(
    walk: Walk, *, judged=lambda fold: fold.test, asked=None, said=None, truth=None,
    model: Fold | None = None,
) -> list[_Errors]:  # fmt: skip
    """The errors of each fold; a mistake passes what it does in another way."""
    x, y, today = walk.given()
    said, truth, found = today if said is None else said, y if truth is None else truth, []
    for fold in walk.folds:
        by = model or fold
        mean, spread = scale(x, by.fit)
        fit = slice(by.fit.start, by.fit.stop)
        predict = Line()((x[fit] - mean) / spread, y[fit])
        if asked:
            mean, spread = asked(fold)
        days = judged(fold)
        part = slice(days.start, days.stop)
        ours = (predict((x[part] - mean) / spread) - truth[part]).abs()
        found.append(_Errors(ours, (said[part] - y[part]).abs()))
    return found


def _pooled(folds: Sequence[_Errors]) -> float:
    ours, base = (torch.cat(part) for part in zip(*folds, strict=True))
    return (ours.sum() / base.sum()).item()


def _like(got: float, guess: float) -> bool:
    if math.isnan(got) or math.isnan(guess):
        return math.isnan(got) and math.isnan(guess)
    return math.isclose(got, guess, rel_tol=1e-6, abs_tol=1e-12)
