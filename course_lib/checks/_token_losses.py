"""Micro-batches of tokens dealt to ranks, and what becomes of a loss that is averaged wrongly.

Loss and gradient are handled as one vector, the loss first: what is a mistake for one is one for
the other, and shows as the same factor.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib.checks._gradients import about, near

IGNORED, STALE = -100, 1.0  # a target that does not count; what .grad holds beforehand
_WORDS, _WIDTH, _CLASSES = 11, 6, 5
NUMBERS = _WORDS * _WIDTH + (_WIDTH + 1) * _CLASSES  # of weights: what one sending takes
MicroBatches = list[tuple[torch.Tensor, torch.Tensor]]


class Case(NamedTuple):
    """A step: rank → its micro-batches, each as (texts, tokens a text, tokens that count)."""

    says: str
    ranks: tuple[tuple[tuple[int, int, int], ...], ...]

    def given(self, rank: int) -> MicroBatches:
        """A rank's micro-batches; no two of a rank are of one shape."""
        return [
            _micro_batch(*shape, seed=100 * len(self.ranks) + 10 * rank + k)
            for k, shape in enumerate(self.ranks[rank])
        ]


# One launch each. Those in which all ranks have equally many come first: a rank that sends too
# often is then found by counting, and not by a call that nobody answers.
ROUNDS = (
    (Case("three micro-batches", (((2, 5, 7), (3, 4, 1), (1, 6, 4)),)),),
    (
        Case("11 tokens and 2", (((3, 5, 11),), ((2, 4, 2),))),
        Case("two micro-batches each", (((2, 6, 9), (2, 3, 1)), ((1, 4, 4), (3, 5, 2)))),
    ),
    (
        Case("micro-batches without a token", (((2, 4, 0), (2, 5, 6)), ((1, 3, 3), (2, 6, 0)))),
        Case("a rank without a token", (((3, 4, 0),), ((2, 5, 8),))),
        Case("no token anywhere", (((2, 3, 0), (1, 4, 0)), ((1, 2, 0), (2, 2, 0)))),
    ),
    (
        Case(
            "1, 3 and 2 micro-batches",
            (((2, 7, 12),), ((1, 3, 1), (2, 4, 0), (2, 5, 3)), ((3, 4, 0), (1, 6, 0))),
        ),
    ),
    (Case("6, 0, 1 and 13 tokens", (((2, 4, 6),), ((1, 5, 0),), ((2, 2, 1),), ((3, 6, 13),))),),
)  # fmt: skip


def _micro_batch(texts: int, tokens: int, counted: int, seed: int) -> tuple[Any, Any]:
    """Ids and targets, int64 of shape (texts, tokens)."""
    dice = torch.Generator().manual_seed(seed)
    inputs, targets = (
        torch.randint(most, (texts, tokens), generator=dice) for most in (_WORDS, _CLASSES)
    )
    targets.view(-1)[torch.randperm(targets.numel(), generator=dice)[counted:]] = IGNORED
    return inputs, targets


class Scorer(nn.Module):
    """Scores of shape (texts, tokens, classes) for ids of shape (texts, tokens).

    Attributes:
        seen: ``("forward", shape)`` and ``("backward", shape)``, as they came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.word, self.score = nn.Embedding(_WORDS, _WIDTH), nn.Linear(_WIDTH, _CLASSES)
        dice, self.seen = torch.Generator().manual_seed(32), []
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=dice)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The scores."""
        scores, shape = self.score(self.word(inputs)), (*inputs.shape,)
        self.seen.append(("forward", shape))
        if scores.requires_grad:
            scores.register_hook(lambda _: self.seen.append(("backward", shape)))
        return scores


def wrapped() -> nn.parallel.DistributedDataParallel:
    """A ``Scorer`` in DDP, in one bucket, with old gradients; what it sends can be seen."""
    model = nn.parallel.DistributedDataParallel(Scorer())
    model.register_comm_hook(None, _average)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, STALE)
    return model


def _average(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    numbers = bucket.buffer().div_(dist.get_world_size())
    dist.all_reduce(numbers)
    done = torch.futures.Future()
    done.set_result(numbers)
    return done


def gradient_of(model: nn.Module) -> torch.Tensor | str:
    """All gradients in one row, or what is wrong with one of them as an object."""
    for name, parameter in model.module.named_parameters():
        if problem := about(parameter, parameter.grad):
            return f"{name} {problem}"
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def kept_too_long(seen: Sequence[tuple], given: MicroBatches) -> bool:
    """Whether a forward came while an earlier micro-batch, with tokens, had yet to go backward."""
    empty = {(*ids.shape,) for ids, targets in given if not (targets != IGNORED).any()}
    waiting: set[tuple] = set()
    for what, shape in seen:
        if what == "backward":
            waiting.discard(shape)
        elif waiting - empty:
            return True
        else:
            waiting.add(shape)
    return False


class _Part(NamedTuple):
    """Of one micro-batch: loss and gradient added up over its tokens, and how many there are."""

    sums: torch.Tensor
    counted: int
    places: int
    texts: int
    all_places: torch.Tensor  # sums in which ignored targets count as class 0


def _parts(case: Case) -> list[list[_Part]]:
    model = Scorer().double()

    def sums(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
        gradient = torch.autograd.grad(loss, [*model.parameters()])
        return torch.cat([loss.detach()[None], *(g.flatten() for g in gradient)])

    return [
        [
            _Part(
                sums(inputs, targets),
                int((targets != IGNORED).sum()),
                targets.numel(),
                len(targets),
                sums(inputs, targets.clamp(min=0)),
            )
            for inputs, targets in case.given(rank)
        ]
        for rank in range(len(case.ranks))
    ]


def exact(case: Case) -> torch.Tensor:
    """Loss and gradient of one process that has all tokens in one batch, in float64."""
    parts = [part for rank in _parts(case) for part in rank]
    return sum(part.sums for part in parts) / max(sum(part.counted for part in parts), 1)


_FACTOR_GRADIENT = "DDP's mean divides by the number of ranks as well: undo it, times N"
_FACTOR_LOSS = "the loss of all is a plain sum over ranks, divided by all tokens: no N in it"
_LAST_GRADIENT = "that is the last micro-batch only: clear .grad once, for backward adds to it"
_LAST_LOSS = "that is the last micro-batch only: add up the losses of all"
_PADDING = "places with the target -100 do not count: (targets != -100).sum()"
_MEANS = "that is a mean of means, in which one token of few weighs more than one of many"


def which_mistake(case: Case, got: Sequence[torch.Tensor], of_loss: bool) -> str:
    """Why the ranks' losses, or gradients, may be wrong.

    Args:
        case: What was asked.
        got: Of each rank: a row of numbers.
        of_loss: Whether those are losses.
    """
    if any(one.isnan().any() for one in got):
        return "NaN: the mean over no tokens is 0 / 0. Add up, and divide by max(tokens of all, 1)"
    where = slice(0, 1) if of_loss else slice(1, None)
    for hint, guess in _mistakes(case, of_loss):
        rows = guess if isinstance(guess, list) else [guess] * len(got)
        pairs = zip(got, rows, strict=True)
        if all(near(one.double(), row[where], 1e-4) for one, row in pairs):
            return hint
    if near(got[0].double(), exact(case)[where], 2e-2):
        if all(near(one.double(), exact(case)[where], 2e-2) for one in got):
            return "nearly: stay in float32"
        return "right on rank 0 only: all_reduce tells every rank the sum"
    return "add up the losses of tokens that count, and divide once, by their number on all ranks"


def _mistakes(case: Case, of_loss: bool) -> Iterator[tuple[str, Any]]:
    """Hints, each with what comes out by the mistake, on all ranks or on each."""
    ranks, n = _parts(case), len(case.ranks)
    every = [part for rank in ranks for part in rank]
    own = [sum(part.sums for part in rank) for rank in ranks]
    counts = [sum(part.counted for part in rank) for rank in ranks]
    total, whole, right = max(sum(counts), 1), sum(own), exact(case)
    factor = _FACTOR_LOSS if of_loss else _FACTOR_GRADIENT
    yield f"1/N of it: {factor}", right / n
    twice = factor if of_loss else "multiply by the number of ranks once: DDP has divided once"
    yield f"N times of it: {twice}", right * n
    if not of_loss:
        old = "what .grad held before is still in it: begin with model.zero_grad()"
        yield old, right + STALE
        yield old, right / n + STALE
    alone = "that is this rank's part only: "
    alone += "all_reduce the loss" if of_loss else "the last backward is outside of no_sync"
    if n > 1:
        for scale in (1 / total, n / total, 1.0):
            yield alone, [one * scale for one in own]
        yield alone, [one / max(count, 1) for one, count in zip(own, counts, strict=True)]
    if not of_loss and n > 1:
        early = "gradients are sent too early: all backwards but the last are inside of no_sync"
        firsts = [rank[0].sums for rank in ranks]
        pairs = zip(own, firsts, strict=True)
        yield early, [(sum(firsts) + n * (one - first)) / total for one, first in pairs]
    means = [[part.sums / max(part.counted, 1) for part in rank] for rank in ranks]
    by_rank = sum(one / max(count, 1) for one, count in zip(own, counts, strict=True))
    by_micro = sum(one / len(rank) for one, rank in zip(own, ranks, strict=True))
    last = sum(rank[-1].sums for rank in ranks)
    all_places = sum(part.all_places for part in every)
    places, texts = sum(part.places for part in every), sum(part.texts for part in every)
    for scale in (1 / n, 1.0, n):
        yield _MEANS, scale * sum(sum(rank) / len(rank) for rank in means)
        yield _MEANS, scale * by_rank
        yield f"{_MEANS}, and added up", scale * sum(sum(rank) for rank in means)
        yield (
            "that is a sum: divide by the number of tokens that count, of all ranks",
            scale * whole,
        )
        yield _LAST_LOSS if of_loss else _LAST_GRADIENT, scale * last / total
        yield (
            "divide by tokens: the number of micro-batches is no part of it",
            scale * by_micro / total,
        )
        for sums, number in ((whole, places), (all_places, total), (all_places, places)):
            yield _PADDING, scale * sums / number
        yield "divide by the number of tokens, not of texts", scale * whole / texts
