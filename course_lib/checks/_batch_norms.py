"""Activations on several ranks to be normalised together, and what goes wrong with it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F


class Batch(NamedTuple):
    """Activations of one question.

    Attributes:
        pictures: How many each rank has.
        shape: Channels, height and width.
        mean: About where the channels lie; the last one, where there are several.
        eps: As passed on; None for the default.
    """

    pictures: tuple[int, ...]
    shape: tuple[int, int, int]
    mean: float = 0.0
    eps: float | None = None

    def __str__(self) -> str:
        *some, last = self.pictures
        ranks = f"{', '.join(map(str, some))} and {last} pictures" if some else f"{last} pictures"
        about = f", a channel about {self.mean:,g}" if self.mean else ""
        eps = f", eps={self.eps:g}" if self.eps else ""
        return f"{ranks} of {' × '.join(map(str, self.shape))}{about}{eps}"

    def of_ranks(self) -> list[torch.Tensor]:
        """Each rank's part; ranks and channels differ in mean and spread unless ``mean`` is set."""
        dice = torch.Generator().manual_seed(sum(self.pictures))
        channels = torch.arange(float(self.shape[0]))[:, None, None]
        parts = [torch.randn(n, *self.shape, generator=dice) for n in self.pictures]
        if self.mean:
            return [part + self.mean * (channels == channels.max()) for part in parts]
        return [part * (1 + r % 2 + channels) + r - channels for r, part in enumerate(parts)]


BATCHES = (
    Batch((6,), (3, 2, 3)),
    Batch((4, 4), (3, 2, 3)),
    Batch((5, 2), (2, 3, 1)),
    Batch((3, 0), (2, 2, 2)),
    Batch((4, 3), (2, 2, 2), eps=0.5),
    Batch((1, 4, 2), (1, 1, 1)),
    Batch((7, 9, 5), (2, 2, 2), mean=1_000.0),
    Batch((0, 2, 0, 1), (5, 1, 2)),
)


def why_other(got: Any, batch: Batch, rank: int) -> str:
    """On the rank itself: what is wrong with its activations.

    Args:
        got: What the answer returned.
        batch: What it was asked.
        rank: This one.

    Returns:
        A hint, or ``""``.
    """
    parts = batch.of_ranks()
    if not isinstance(got, torch.Tensor):
        return f"return a tensor (got {got!r:.60})"
    if got.shape != parts[rank].shape:
        return f"x has the shape {tuple(parts[rank].shape)}, what came back {tuple(got.shape)}"
    if got.dtype != torch.float32:
        return f"return float32, as x is, not {got.dtype}: .float() at the end"
    whole, eps = torch.cat(parts).double(), batch.eps or 1e-5
    right = F.batch_norm(whole, None, None, training=True, eps=eps).split(batch.pictures)[rank]
    if _near(got, right):
        return ""
    if got.isnan().any() and 0 in batch.pictures:
        return "it has NaN: a rank without pictures adds sums of 0, and the mean of nothing is NaN"
    if batch.mean:
        apart = (got - right).abs().max()
        return f"wrong by up to {apart:.2g} where the mean is large: square and add in float64"
    mine = parts[rank].double()
    for hint, mean, root in _mistakes(parts, rank, eps):
        if _near(got, (mine - mean) / root):
            return hint
    return "add up sums, squares and counts of all ranks, then divide once, channel by channel"


def _near(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(got.double(), expected, rtol=0, atol=1e-4)


def _mistakes(
    parts: Sequence[torch.Tensor], rank: int, eps: float
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Hints, each with the mean and the root of the mistake it is about."""
    whole, mine = torch.cat(list(parts)).double(), parts[rank].double()
    some = [part.double() for part in parts if len(part)]
    mean, variance = _mean(whole), _mean(whole.square()) - _mean(whole).square()
    root, count = (variance + eps).sqrt(), whole.numel() / whole.shape[1]
    unbiased = (variance * count / (count - 1) + eps).sqrt()
    own = _mean(mine), (_mean(mine.square()) - _mean(mine).square() + eps).sqrt()
    means = torch.stack([_mean(part) for part in some]).mean(0)
    squares = torch.stack([_mean(part.square()) for part in some]).mean(0)
    inside = torch.stack([_mean(part.square()) - _mean(part).square() for part in some]).mean(0)
    weighted = sum(_mean((p - _mean(p)).square()) * len(p) for p in some) / len(whole)
    at_once = whole.mean(), (whole.var(correction=0) + eps).sqrt()
    pixel = whole.mean(0), (whole.var(dim=0, correction=0) + eps).sqrt()
    a_rank = "a mean of the ranks' means weighs all ranks alike: add up sums and counts instead"
    forgets = "a mean of the ranks' variances forgets that their means differ: add up squares"
    yield "that is this rank's batch only: all_reduce the sums before you divide", *own
    yield "divide the variance by the count, not by one less (correction=0)", mean, unbiased
    yield "eps belongs under the root: sqrt(variance + eps)", mean, variance.sqrt() + eps
    yield "eps is an argument: add the one that is passed", mean, (variance + 1e-5).sqrt()
    yield a_rank, means, (squares - means.square() + eps).sqrt()
    yield forgets, means, (inside + eps).sqrt()
    yield forgets, mean, (inside + eps).sqrt()
    yield forgets, mean, (weighted + eps).sqrt()
    yield "the root is missing: divide by sqrt(variance + eps)", mean, variance + eps
    yield "divide by the root of the variance, too", mean, torch.ones(())
    yield "subtract the mean, too", torch.zeros(()), root
    yield "each channel has a mean and a variance of its own", *at_once
    yield "a channel has one mean, over all pictures, rows and columns: dim=(0, 2, 3)", *pixel


def _mean(x: torch.Tensor) -> torch.Tensor:
    """Of each channel, in a shape that goes with a picture."""
    return x.mean(dim=(0, 2, 3))[:, None, None]
