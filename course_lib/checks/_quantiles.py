"""Scores on several ranks whose quantile is asked for, and what comes out by usual mistakes.

Products of a share and a count are either exact or far from a whole number, so that it does not
matter in which order somebody rounds; with the one exception that float32 gets wrong.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch


class Scores(NamedTuple):
    """A question of 51.1.

    Attributes:
        says: How a message names it.
        counts: How many each rank has.
        share: Of all scores, to lie at or below the threshold.
        kind: ``"usual"``, ``"wide"`` (from 1e-40 to 1e30), ``"few"`` (three values, 0 among them),
            ``"equal"``, ``"close"`` (neighbours among floats) or ``"large"`` (ones, then a two).
    """

    says: str
    counts: tuple[int, ...]
    share: float
    kind: str = "usual"

    def of(self, rank: int) -> torch.Tensor:
        """What one rank has: float32, in disorder. Ranks lie apart."""
        if self.kind == "large":
            return torch.full((self.counts[rank],), 1.0 + rank)
        return self.all().split(self.counts)[rank].clone()

    def all(self) -> torch.Tensor:
        """The scores of all ranks, in rank order; not for the large ones."""
        n, dice = sum(self.counts), torch.Generator().manual_seed(sum(self.counts))
        rank = torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts))
        noise = torch.rand(n, generator=dice, dtype=torch.float64)
        if self.kind == "wide":
            return (10.0 ** (70 * noise - 40)).float()
        if self.kind == "few":
            return torch.tensor([0.0, 0.5, 2.0])[(3 * noise**3).long()]
        if self.kind == "equal":
            return torch.full((n,), 0.3)
        if self.kind == "close":
            return (torch.tensor(0x3F7FFFF0, dtype=torch.int32) + (40 * noise).int()).view(
                torch.float32
            )
        return (0.1 + noise.square() + 0.2 * rank).float()

    def exact(self) -> float:
        """The threshold."""
        return 2.0 if self.kind == "large" else _at(self.all(), self.share)


CASES = (
    Scores("9 scores", (9,), 0.8),
    Scores("8 scores, half of them", (8,), 0.5),
    Scores("a single score", (1,), 0.5),
    Scores("8 + 8 scores, half of them", (8, 8), 0.5),
    Scores("30 + 3 scores from 1e-40 to 1e30", (30, 3), 0.75, "wide"),
    Scores("20 + 12 scores, many of them equal", (20, 12), 0.8, "few"),
    Scores("one rank without scores", (7, 0, 5), 0.9),
    Scores("all scores equal", (4, 4, 4), 0.25, "equal"),
    Scores("scores that differ in their last bits", (10, 6, 11), 0.7, "close"),
    Scores("a share of 1", (3, 0, 9, 1), 1.0),
    Scores("a share of a billionth", (5, 2, 0, 6), 1e-9, "few"),
    Scores("39,999 scores, one in 20,000 above", (20_000, 0, 19_000, 999), 0.99995),
)  # fmt: skip
LARGE = Scores("16,777,216 + 1 scores", (2**24, 1), 1.0, "large")  # one more than float32 counts


def which_mistake(case: Scores, got: Sequence[Any]) -> str:
    """Why the ranks' results are wrong; ``""`` if they are not."""
    right = case.exact()
    if any(isinstance(one, torch.Tensor) for one in got):
        return "return a plain float: tensor.item()"
    floats = [isinstance(one, float) for one in got]
    if not all(floats):
        first = floats[0] and got[0] == right
        return "only rank 0 has it: every rank returns it" * first or "return a float: float(…)"
    if all(one == right for one in got):
        return ""
    if case.kind == "large":
        return "float32 cannot count beyond 16,777,216: add up whole numbers, int64"
    for hint, guess in _mistakes(case):
        guesses = guess if isinstance(guess, list) else [guess] * len(got)
        harmless = all(_like(one, right) for one in guesses)
        if not harmless and all(map(_like, got, guesses)):
            return hint
    for hint, guess in _off_in_bits(right):
        if all(one == guess for one in got):
            return hint
    if got[0] == right:
        return "right on rank 0 only: all ranks go by the counts of all, and arrive at one float"
    if len({*got}) > 1:
        return "ranks differ: each must decide by counts of all ranks, never by its own"
    if any(math.isclose(one, right, rel_tol=1e-3) for one in got):
        return "nearly: go on until all 31 bits are known; a score of some rank comes out"
    return "count how many scores of all ranks begin alike, and find out in which group it lies"


def _mistakes(case: Scores) -> Iterator[tuple[str, Any]]:
    """Hints, each with what comes out by the mistake, on all ranks or on each."""
    scores, share, n = case.all(), case.share, sum(case.counts)
    own = [case.of(rank) for rank in range(len(case.counts))]
    here = [part for part in own if len(part)]
    if len(own) > 1:
        mine = [_at(part, share) if len(part) else math.nan for part in own]
        some = [one for one in mine if not math.isnan(one)]
        yield "that is the quantile of this rank's scores: counts of all ranks have to decide", mine
        means = "quantiles cannot be averaged: neither a mean nor the largest of the ranks' "
        means += "quantiles is that of all scores. Counts can be added"
        for way in ("inverted_cdf", "linear", "higher", "lower"):
            each = [float(np.quantile(part.double().numpy(), share, method=way)) for part in here]
            weighted = sum(q * len(part) for q, part in zip(each, here, strict=True)) / n
            for guess in (np.mean(each), sum(each) / len(own), weighted, np.median(each)):
                yield means, float(guess)
        yield means, max(some)
        yield means, min(some)
    ordered, k = scores.sort().values, _number(share, n)
    whole = share * n == int(share * n)
    less = f"of {n:,} scores the one asked for has number {k:,}: ceil(share × {n:,}), from 1"
    if n > 10_000:
        less += ". In float32 the product loses what lies behind the point"
    for other in (k - 1, k + 1):
        if 0 < other <= n and ordered[other - 1] != ordered[k - 1]:
            why = "too few lie at or below this one" if other < k else "a smaller one is enough"
            yield f"{less} ({why})", ordered[other - 1].item()
    for distinct in (scores.unique(), torch.cat([part.unique() for part in own])):
        yield "equal scores count one by one, none of them is left out", _at(distinct, share)
    middle = "a threshold between two scores: no interpolation, a score itself comes out"
    for numbers in (scores.double().numpy(), scores.numpy()):
        for way in ("linear", "averaged_inverted_cdf", "midpoint", "weibull"):
            if way != "averaged_inverted_cdf" or whole:
                yield middle, float(np.quantile(numbers, share, method=way))
    yield "that share lies above it, and shall lie at or below it", _at(scores, 1 - share)


def _off_in_bits(right: float) -> Iterator[tuple[str, float]]:
    """Hints, each with a float whose bits are nearly those of the right one."""
    bits = torch.tensor(right).view(torch.int32).item()
    others = [(f"its first {32 - n} bits are right: go on", bits >> n << n) for n in (8, 16, 24)]
    others += [("the float next to it: an end of the range is one off", bits + k) for k in (-1, 1)]
    for hint, other in others:
        yield hint, torch.tensor(max(0, other), dtype=torch.int32).view(torch.float32).item()


def _at(scores: torch.Tensor, share: float) -> float:
    return scores.sort().values[_number(share, len(scores)) - 1].item()


def _number(share: float, n: int) -> int:
    """Which score it is in ascending order, from 1."""
    return max(1, math.ceil(share * n))


def _like(one: float, guess: float) -> bool:
    return math.isclose(one, guess, rel_tol=2e-7) or (math.isnan(one) and math.isnan(guess))
