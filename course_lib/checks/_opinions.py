"""Predictions of members that lie on different ranks, and what goes wrong with their average."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

Pair = tuple[torch.Tensor, torch.Tensor]


class Opinions(NamedTuple):
    """A question of 42.2.

    Attributes:
        says: How a message names it.
        members: How many there are on each rank.
        samples: How many things they were asked.
        agree: Whether all of them say the same.
    """

    says: str
    members: tuple[int, ...]
    samples: int
    agree: bool = False

    def said(self) -> list[torch.Tensor]:
        """Of each rank, float32: members × samples × 2. About 0 and about −4, as the lesson's."""
        dice = torch.Generator().manual_seed(self.samples)
        truth = torch.tensor([0.0, -4.1]) + 0.1 * torch.randn(self.samples, 2, generator=dice)
        total = sum(self.members)
        own = 0.05 * torch.randn(total, self.samples, 2, generator=dice)
        own += torch.linspace(-0.2, 0.2, total)[:, None, None]  # ranks have means of their own
        return list((truth + (0 if self.agree else 1) * own).split(self.members))


CASES = (
    Opinions("3 members", (3,), 4),
    Opinions("3 members and 1", (3, 1), 5),
    Opinions("members who agree", (30, 19), 60, agree=True),
    Opinions("members 2 + 0 + 5", (2, 0, 5), 7),
    Opinions("one member in all", (0, 1, 0), 3),
    Opinions("six on four ranks", (2, 2, 1, 1), 1),
    Opinions("members 0 + 4 + 1 + 40", (0, 4, 1, 40), 33),
)


def numbers(case: Opinions) -> int:
    """How many numbers a rank has to send: two sums of each answer, and a count."""
    return 4 * case.samples + 1


def exact(case: Opinions) -> Pair:
    """Mean and standard deviation over all members, float64: samples × 2."""
    said = torch.cat(case.said()).double()
    return said.mean(dim=0), said.std(dim=0, correction=0)


def odd_form(got: Any, case: Opinions) -> str:
    """What is wrong with a result as an object, or ``""``."""
    if not isinstance(got, list | tuple) or len(got) != 2:
        return f"return a pair of tensors: mean, spread (got {got!r:.60})"
    for name, one in zip(("mean", "spread"), got, strict=True):
        if not isinstance(one, torch.Tensor):
            return f"the {name} is no tensor: {one!r:.60}"
        if one.shape != (case.samples, 2):
            return f"the {name} has the shape {[*one.shape]}, not [{case.samples}, 2]"
        if one.dtype != torch.float64:
            return f"the {name} is {one.dtype}, not torch.float64: begin with said.double()"
    return ""


def which_mistake(case: Opinions, results: Sequence[Pair]) -> tuple[str, str]:
    """What is not right, and a hint; two empty strings if all is.

    Args:
        case: The question.
        results: Mean and spread on each rank, of the right form.
    """
    right = exact(case)
    for k, what in enumerate(("mean", "spread")):
        off = [r for r, got in enumerate(results) if not _close(got[k], right[k], _digits(k))]
        if not off:
            continue
        says = f"all have the {what} over all members"
        rank, got = off[0], [pair[k] for pair in results]
        for hint, guess in (_of_means, _of_spreads)[k](case):
            guesses = guess if isinstance(guess, list) else [guess] * len(got)
            if all(_close(one, right[k], 1e-4) for one in guesses):
                continue  # this case does not tell them apart
            if all(_close(a, b, 1e-5) for a, b in zip(got, guesses, strict=True)):
                return says, f"rank {rank}: {hint}"
        if any(one.isnan().any() for one in got):
            return says, f"rank {rank} has NaN: {_WHY_NAN[k]}"
        if all(_close(a, right[k], 1e-3) for a in got):
            return says, f"rank {rank}: nearly; begin with said.double(), before anything is added"
        if len(off) < len(results):
            return says, f"rank {rank} has not got it, and others have: all need the same"
        return says, f"rank {rank}: {_GENERIC[k]}"
    return "", ""


_WHY_NAN = (
    "a rank without members has no mean, but it has a sum, which is 0",
    "rounding may leave a number a little below zero; clamp(min=0) before the root",
)
_GENERIC = (
    "add up what members say, and how many there are, over all ranks; then divide once",
    "the root of (the mean of the squares less the square of the mean), over all members",
)


def _digits(k: int) -> float:
    return (1e-10, 1e-7)[k]  # a root of a difference of squares has half as many digits


def _close(got: torch.Tensor, expected: torch.Tensor, relative: float) -> bool:
    """Up to a share of the largest number that members say, about 4."""
    apart = (got - expected).abs()
    same = got.isnan() & expected.isnan()
    return bool((same | (apart <= relative * 4)).all())


def _of_means(case: Opinions) -> Iterator[tuple[str, torch.Tensor | list[torch.Tensor]]]:
    """Hints, each with the mean that comes out by the mistake it is about."""
    said, ranks = [one.double() for one in case.said()], len(case.members)
    mean, total = exact(case)[0], sum(case.members)
    own = [one.mean(dim=0) for one in said]
    some = [one for one in own if not one.isnan().any()]
    yield "that is the sum over the members: divide by their number", mean * total
    yield "that is the mean of its own members only", own
    hint = (
        "that is the mean of the ranks' means, which weighs a rank with one member like one with "
    )
    hint += "many: add up sums, and counts"
    yield hint, sum(some) / len(some)
    yield hint, sum(some) / ranks
    yield "a rank without members has no mean (NaN), but it has a sum, which is 0", sum(own) / ranks
    each = [one.sum(dim=0) / max(len(one), 1) for one in said]
    yield "that is the mean of its own members only", each
    yield "that is the sum of the ranks' means: add up sums, and counts", sum(each)


def _of_spreads(case: Opinions) -> Iterator[tuple[str, torch.Tensor | list[torch.Tensor]]]:
    said, ranks = [one.double() for one in case.said()], len(case.members)
    everyone, total = torch.cat(said), sum(case.members)
    mean, spread = exact(case)
    if total > 1:
        hint = "that divides by members − 1: the population's divides by their number"
        yield hint, spread * (total / (total - 1)) ** 0.5
    elif total == 1:
        yield "one member has a spread of 0: divide by the number, not by it − 1", mean * torch.nan
    yield "that is the variance: take its root", spread.square()
    yield (
        "that is the root of the mean square: take off the square of the mean",
        (everyone.square().mean(dim=0).sqrt()),
    )
    own = [one.std(dim=0, correction=0) for one in said]
    none = torch.zeros(case.samples, 2, dtype=torch.float64)
    filled = [std.nan_to_num(0.0) for std in own]
    yield "that is the spread of its own members only", own
    yield "that is the spread of its own members only", filled
    some = [std for std in own if not std.isnan().any()]
    within = "spreads of ranks cannot be averaged: the ranks' means differ, too; add up squares"
    yield within, sum(some) / len(some)
    yield within, sum(filled) / ranks
    yield within, sum(own) / ranks
    weighed = sum((len(one) * std.square() for one, std in zip(said, filled, strict=True)), none)
    yield within, (weighed / total).sqrt()
    yield within, (sum(std.square() for std in filled) / ranks).sqrt()
    means = torch.stack([one.mean(dim=0) for one in said if len(one)])
    yield "that is the spread of the ranks' means, not of the members", means.std(0, correction=0)
    yield (
        "that is the mean distance from the mean, not the root of the mean square",
        ((everyone - mean).abs().mean(dim=0)),
    )
