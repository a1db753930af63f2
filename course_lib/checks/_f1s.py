"""Answers on several ranks whose F1 is asked for, and what goes wrong with it."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch


class Counts(NamedTuple):
    """How many reviews of each kind there are: hit or missed, false alarm or rightly passed."""

    hits: int
    false_alarms: int
    missed: int
    passed: int

    def f1(self) -> float:
        """2·TP ÷ (2·TP + FP + FN), or 0.0 where that is 0 ÷ 0."""
        return 2 * self.hits / max(2 * self.hits + self.false_alarms + self.missed, 1)

    def answers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``(predicted, actual)``, in disorder."""
        kinds = torch.repeat_interleave(torch.arange(4), torch.tensor(self))
        kinds = kinds[torch.randperm(len(kinds), generator=torch.Generator().manual_seed(1))]
        return (kinds < 2).long(), (kinds % 2 == 0).long()


class Parts(NamedTuple):
    """A question of 30.2: what each rank has."""

    says: str
    ranks: tuple[Counts, ...]

    def whole(self) -> Counts:
        """Of all ranks together."""
        return _added(self.ranks)


_NONE = Counts(0, 0, 0, 0)
PARTS = (
    Parts("11 reviews and 1", (Counts(4, 2, 3, 2), Counts(1, 0, 0, 0))),
    Parts("one without reviews", (Counts(2, 1, 2, 3), _NONE)),
    Parts("no positives anywhere", (Counts(0, 0, 0, 3), Counts(0, 0, 0, 2))),
    Parts("without positives, without reviews", (Counts(4, 0, 3, 2), Counts(0, 1, 0, 5), _NONE)),
    Parts("no positive review found", (Counts(0, 0, 2, 1), Counts(0, 3, 0, 0), Counts(0, 0, 1, 1))),
    Parts("all right", (Counts(1, 0, 0, 1), Counts(0, 0, 0, 2), Counts(3, 0, 0, 0), _NONE)),
    Parts(
        "thousands of reviews",
        (Counts(900, 301, 77, 1_000), Counts(2_101, 5, 400, 13), _NONE, Counts(1, 2_500, 3, 9)),
    ),
)  # fmt: skip


def close(got: Any, expected: float) -> bool:
    """Whether it is a float, and that one."""
    return isinstance(got, float) and math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-15)


def which_mistake(got: Sequence[Any], parts: Parts) -> str:
    """Why results may be wrong.

    Args:
        got: What each rank's answer returned.
        parts: What it was asked.
    """
    exact = parts.whole().f1()
    if any(isinstance(one, torch.Tensor) for one in got):
        return "return a plain float: tensor.item()"
    if close(got[0], exact) and not all(isinstance(one, float) for one in got):
        return "only rank 0 has it; all_reduce tells every rank, and every rank returns it"
    if not all(isinstance(one, float) for one in got):
        return "return a float, also where it is 0.0"
    if any(math.isnan(one) for one in got):
        return "0 / 0 is NaN, and F1 is 0.0 where no review is positive and none was called so"
    if _like(got, [exact] * len(got)):
        return "nearly: divide whole numbers, or in float64"
    for hint, guess in _mistakes(parts):
        if _like(got, guess if isinstance(guess, list) else [guess] * len(got)):
            return hint
    if close(got[0], exact):
        return "only rank 0 has it; all_reduce tells every rank, and every rank returns it"
    return "count TP, FP and FN, add up those of all ranks, divide once: 2·TP ÷ (2·TP + FP + FN)"


def _mistakes(parts: Parts) -> Iterator[tuple[str, float | list[float]]]:
    """Hints, each with what comes out by the mistake it is about, on all ranks or on each."""
    ranks, whole = parts.ranks, parts.whole()
    hits, false_alarms, missed, passed = whole
    n, some, own = len(ranks), [rank for rank in ranks if sum(rank)], [r.f1() for r in ranks]
    if not hits + false_alarms + missed:
        yield "0.0 is asked for where no review is positive and none was called so", 1.0
    yield "that is this rank's part only: all_reduce the counts before you divide", own
    weighs = "a mean of the ranks' F1s is not the F1: it weighs 1 review like 11. Add up counts"
    yield weighs, sum(own) / n
    yield weighs, sum(own) / len(some)
    yield "F1s cannot be added, and counts can: all_reduce counts, then divide", sum(own)
    for weight in (sum, lambda r: r.hits + r.missed, lambda r: r.hits + r.false_alarms):
        mean = sum(r.f1() * weight(r) for r in ranks) / max(sum(map(weight, ranks)), 1)
        yield "no mean of the ranks' F1s is the F1, however they are weighed: add up counts", mean
    precision, recall = hits / max(hits + false_alarms, 1), hits / max(hits + missed, 1)
    yield "that is the accuracy: right negatives do not count in F1", (hits + passed) / sum(whole)
    yield "that is the precision: missed reviews (FN) belong to it, too", precision
    yield "that is the recall: false alarms (FP) belong to it, too", recall
    yield "F1 is no plain mean of precision and recall, but 2PR ÷ (P + R)", (precision + recall) / 2
    yield "TP counts twice, above and below", hits / max(hits + false_alarms + missed, 1)
    negative = Counts(passed, missed, false_alarms, hits).f1()
    yield "that is F1 of the negative class: 1 is positive", negative
    yield (
        "that is a mean over both classes: F1 of the class 1 is asked for",
        (whole.f1() + negative) / 2,
    )
    precisions = sum(r.hits / max(r.hits + r.false_alarms, 1) for r in ranks) / n
    recalls = sum(r.hits / max(r.hits + r.missed, 1) for r in ranks) / n
    both = 2 * precisions * recalls / max(precisions + recalls, 1e-9)
    yield "means of the ranks' precisions and recalls weigh all ranks alike: add up counts", both


def _like(got: Sequence[float], guess: Sequence[float]) -> bool:
    return all(
        math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9) for a, b in zip(got, guess, strict=True)
    )


def _added(ranks: Sequence[Counts]) -> Counts:
    return Counts(*map(sum, zip(*ranks, strict=True)))
