"""Flows on several ranks and thresholds to choose from, and what is chosen by usual mistakes."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

Choice = tuple[float, float, float] | None  # threshold, precision, recall
_Rank = tuple[Sequence[float], Sequence[float]]  # scores of normal flows, of attacks


class _Point(NamedTuple):
    """What a threshold does."""

    threshold: float
    alarms: int
    hits: int
    attacks: int

    def precision(self, of_nothing: float = math.nan) -> float:
        return self.hits / self.alarms if self.alarms else of_nothing

    def choice(self) -> Choice:
        recall = self.hits / self.attacks if self.attacks else math.nan
        return self.threshold, self.precision(), recall


class Flows(NamedTuple):
    """A question of 51.2.

    Attributes:
        says: How a message names it.
        ranks: Scores of each rank's normal flows and of its attacks.
        candidates: Thresholds, in the order in which they are given; floats of 32 bits.
        precision: At least.
    """

    says: str
    ranks: tuple[_Rank, ...]
    candidates: tuple[float, ...]
    precision: float

    def of(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One rank's scores, float32, and labels, int64, in disorder."""
        normals, attacks = self.ranks[rank]
        order = torch.randperm(
            len(normals) + len(attacks), generator=torch.Generator().manual_seed(rank)
        )
        label = torch.tensor([0] * len(normals) + [1] * len(attacks), dtype=torch.long)
        return torch.tensor([*normals, *attacks], dtype=torch.float32)[order], label[order]

    def points(
        self, ranks: Sequence[_Rank] | None = None, alarm: Callable = torch.gt
    ) -> list[_Point]:
        """What each candidate does, in the given order, on all ranks or on these."""
        normals, attacks = map(_joined, zip(*(ranks or self.ranks), strict=True))
        points = []
        for limit in torch.tensor(self.candidates, dtype=torch.float32):
            hits, wrong = (int(alarm(part, limit).sum()) for part in (attacks, normals))
            points.append(_Point(limit.item(), hits + wrong, hits, len(attacks)))
        return points

    def exact(self) -> Choice:
        """What is to be chosen."""
        return _choose(self.points(), self.precision)


def _many() -> Flows:
    dice, ranks = torch.Generator().manual_seed(5), []
    for normals, attacks in ((700, 200), (0, 0), (30, 10), (1500, 350)):
        x = torch.rand(normals + attacks, generator=dice)
        x[normals:] += 0.6 * x[normals:].sqrt()
        x = (64 * x).round() / 64
        ranks.append((x[:normals].tolist(), x[normals:].tolist()))
    limits = (torch.randperm(48, generator=dice)[:19] / 32).tolist()
    return Flows("2,790 flows, 20 candidates", tuple(ranks), (*limits, limits[3]), 0.55)


_NOBODY: _Rank = ((), ())
CASES = (
    Flows("9 flows", (((1, 2, 3, 5), (4, 6, 7, 8, 9)),), (4, 9.5, 0.5, 3, 5, 8), 0.4),
    Flows(
        "7 + 5 flows, a precision that is just reached",
        (((1, 2, 3, 4.5), (4, 5, 6)), ((1, 2.5), (5, 6, 7))),
        (1, 4, 2.625, 2.75, 2, 5.5),
        0.75,
    ),
    Flows("no candidate precise enough", (((1, 2, 3), (2.5,)), ((4, 5), (3, 4.5))), (6, 0, 4), 0.8),
    Flows("one rank without flows", (((1, 2, 5), (3, 4, 6, 6.5)), _NOBODY), (2, 9, 0, 4, 3), 0.65),
    Flows("ranks of 21, 3 and 6 flows", (
        ([x / 10 for x in range(4, 16)], [x / 10 for x in range(11, 20)]),
        ((0.2,), (1.1, 1.4)),
        ((1.2, 0.9, 1.6, 0.8), (1.9, 0.7)),
    ), (0.45, 0.85, 1.05, 1.25, 1.35, 1.45), 0.6),
    Flows("no attack anywhere", (((1, 2), ()), ((3,), ()), _NOBODY), (0, 2, 5), 0.5),
    Flows(
        "precision that falls and rises again",
        (((6.5, 6), (5, 4.5)), ((6.2,), (7, 5.2)), _NOBODY, ((1, 1.5), (7.5, 4, 3.5))),
        (7, 6.4, 5.8, 4.2, 3, 0.5),
        0.65,
    ),
    Flows("9 of 10 alarms right", (
        ((1, 2), (5, 5.5, 6)), ((6,), (4, 7)), ((3,), (8, 8.5)), ((), (9, 9.5, 2.5)),
    ), (0, 3.5, 7.5, 2.2), 0.9),
    _many(),
)  # fmt: skip


def odd_form(got: Any) -> str:
    """What is wrong with a result as an object; ``""`` if nothing is."""
    if got is None:
        return ""
    if not isinstance(got, list | tuple) or len(got) != 3:
        return f"return threshold, precision, recall, or None (got {got!r:.60})"
    for name, one in zip(("threshold", "precision", "recall"), got, strict=True):
        if not isinstance(one, float | int) or isinstance(one, bool):
            return f"the {name} is a plain float: tensor.item() (got {one!r:.50})"
    return ""


def which_mistake(case: Flows, got: Sequence[Choice]) -> str:
    """Why the ranks' results are wrong; ``""`` if they are not."""
    right = case.exact()
    if all(_same(one, right) for one in got):
        return ""
    if all(_same(one, right, 1e-5) for one in got):
        return "nearly: divide whole numbers, or in float64"
    for hint, guess in _mistakes(case):
        guesses = guess if isinstance(guess, list) else [guess] * len(got)
        harmless = all(_same(one, right) for one in guesses)
        if not harmless and all(_same(*pair, 1e-5) for pair in zip(got, guesses, strict=True)):
            return hint
    if _same(got[0], right) and not all(got):
        return "only rank 0 has it: all_reduce tells every rank the counts, and each one chooses"
    one = next(one for one in got if not _same(one, right))
    if right is None:
        return "None is asked for: no candidate raises alarms of which that share is right"
    if one is None:
        return f"{right[0]:g} is a candidate that is precise enough, over all ranks"
    if one[0] == right[0]:
        if _same((one[0], one[2], one[1]), right, 1e-5):
            return "precision comes before recall"
        return "the threshold is right: precision is hits ÷ alarms, recall hits ÷ attacks, of all"
    return "count alarms, hits and attacks of all ranks, divide once, and then choose"


def _mistakes(case: Flows) -> Iterator[tuple[str, Choice | list[Choice]]]:
    """Hints, each with what is chosen by the mistake, on all ranks or on each."""
    points, least = case.points(), case.precision
    good = [one for one in points if one.precision() >= least]
    down = sorted(points, key=lambda one: -one.threshold)
    if len(case.ranks) > 1:
        own = [_choose(case.points([rank]), least) for rank in case.ranks]
        yield "that is this rank's part only: all_reduce the counts, then choose", own
        means = "a mean of the ranks' precisions is not the precision: it weighs an alarm of one "
        means += "rank like ten of another. Add up counts, and divide once"
        each = [case.points([rank]) for rank in case.ranks]
        for of_nothing, over in ((0.0, len(each)), (math.nan, None), (1.0, len(each))):
            yield means, _by_means(points, each, least, of_nothing, over)
    inclusive = case.points(alarm=torch.ge)
    yield "a score at the threshold is no alarm: score > threshold", _choose(inclusive, least)
    more = [one for one in good if one.precision() > least]
    yield "at least that precision: it may be just that, >=", _highest_recall(more)
    last = min(good, key=lambda one: (-one.hits, one.threshold), default=None)
    yield "of equal recall the highest threshold: it raises the fewest alarms", _of(last)
    first = max(good, key=lambda one: one.hits, default=None)
    yield "of equal recall the highest threshold, in whatever order they are given", _of(first)
    highest = max(good, key=lambda one: one.threshold, default=None)
    recall = "among those that are precise enough, the highest *recall* is asked for"
    yield f"that is the highest threshold: {recall}", _of(highest)
    precise = max(good, key=lambda one: (one.precision(), one.hits), default=None)
    yield f"that is the most precise one: {recall}", _of(precise)
    yield f"that is the first in the list: {recall}", _of(next(iter(good), None))
    stop = next((k for k, one in enumerate(down) if not one.precision() >= least), len(down))
    falls = "precision can fall and rise again as the threshold goes down: look at all of them"
    yield falls, _highest_recall(down[:stop])
    nothing = [one for one in points if one.precision(1.0) >= least]
    none = "without any alarm there is no precision (0 ÷ 0), and that threshold is not chosen"
    for silent in [one for one in nothing if not one.hits] if not good else ():
        yield none, (silent.threshold, 1.0, 0.0)
        yield none, (silent.threshold, 0.0, 0.0)
    swapped = case.points([(attacks, normals) for normals, attacks in case.ranks])
    yield "1 is an attack, and 0 is normal", _choose(swapped, least)
    below = case.points(alarm=torch.lt)
    yield "an alarm is a score *above* the threshold", _choose(below, least)
    yield f"it is not precise enough: {recall}", _highest_recall(points)


def _choose(points: Sequence[_Point], least: float) -> Choice:
    return _highest_recall([one for one in points if one.precision() >= least])


def _highest_recall(points: Sequence[_Point]) -> Choice:
    return _of(max(points, key=lambda one: (one.hits, one.threshold), default=None))


def _of(point: _Point | None) -> Choice:
    return point.choice() if point else None


def _by_means(
    points: list[_Point],
    each: list[list[_Point]],
    least: float,
    of_nothing: float,
    over: int | None,
) -> Choice:
    """What is chosen by means of precisions; those told are the means, and the recall of all."""
    best = None
    for k, point in enumerate(points):
        own = [rank[k].precision(of_nothing) for rank in each]
        there = [one for one in own if not math.isnan(one)]
        mean = sum(there) / (over or max(len(there), 1))
        key = (point.hits, point.threshold)
        if mean >= least and (best is None or key > best[0]):
            best = key, (point.threshold, mean, point.hits / max(point.attacks, 1))
    return best and best[1]


def _same(one: Choice, other: Choice, relative: float = 1e-9) -> bool:
    if one is None or other is None:
        return one is other
    return one[0] == other[0] and all(
        math.isclose(a, b, rel_tol=relative) for a, b in zip(one[1:], other[1:], strict=True)
    )


def _joined(parts: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.cat([torch.tensor(part, dtype=torch.float32) for part in parts])
