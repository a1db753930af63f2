"""Training runs whose steps 31.1 has counted, on any number of ranks, and wrong ways to count them.

Batches are dealt as in the lesson: a text is in one batch of an epoch, and the last batch has what
is left, perhaps nothing on a rank, which takes the step with the others all the same.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from course_lib.checks._warm_ups import PEAK


class Run(NamedTuple):
    """A training run: how many texts, how they are dealt, how often."""

    ranks: int
    texts: int
    rows: int
    accumulate: int
    epochs: int

    @property
    def whole(self) -> int:
        """Texts of all ranks in a step."""
        return self.ranks * self.rows * self.accumulate

    @property
    def steps(self) -> int:
        """Those of all epochs."""
        return self.epochs * math.ceil(self.texts / self.whole)

    def __str__(self) -> str:
        ranks = f"{self.ranks} rank{'s'[: self.ranks > 1]} × {self.rows} texts"
        times = f" × {self.accumulate} micro-batches" if self.accumulate > 1 else ""
        return f"{ranks}{times}, {self.texts} texts, {self.epochs} epochs"


RUNS = (
    *(Run(*deal, 3) for deal in ((1, 49, 6, 2), (2, 49, 6, 1), (2, 49, 3, 2), (3, 49, 2, 2))),
    *(Run(*deal, 2) for deal in ((1, 48, 12, 1), (2, 48, 2, 3), (3, 48, 4, 1))),
    *(Run(*deal, 4) for deal in ((1, 7, 4, 3), (2, 7, 2, 3), (3, 7, 1, 4))),
)


class Trained(NamedTuple):
    """What a run came to on one rank.

    Attributes:
        counted: What the learner's ``count_steps`` says.
        rates: The rate of each step that the optimizer took, and the one after the last; nothing
            if ``counted`` is wrong.
        weights: Those of the model at the end.
    """

    counted: Any
    rates: list[float]
    weights: list[float]


def train(count: Callable, schedule: Callable, run: Run) -> Trained:
    """Train a tiny model as ``run`` says; called on all ranks, inside a group."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    counted = count(run.texts, run.rows, run.accumulate, run.epochs, ranks)
    right = torch.tensor(counted == run.steps, dtype=torch.int64)
    dist.all_reduce(right, op=dist.ReduceOp.MIN)
    if not right:  # on some rank: it would leave the others alone
        return Trained(counted, [], [])
    weights = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=PEAK)
    moves = schedule(optimizer, counted, counted // 5)
    whole, rates = run.whole, []
    for _ in range(run.epochs):
        for start in range(0, run.texts, whole):
            mine = range(start + rank, min(start + whole, run.texts), ranks)
            weights.grad = torch.zeros(2)
            for first in range(0, len(mine), run.rows):  # a micro-batch
                texts = torch.tensor(mine[first : first + run.rows]).float()
                ((weights[0] * texts / 50 + weights[1] - 1) ** 2).sum().backward()
            dist.all_reduce(weights.grad)
            weights.grad /= min(whole, run.texts - start)
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            moves.step()
    after = float(optimizer.param_groups[0]["lr"])
    return Trained(counted, [*rates, after], weights.tolist())


def which_count(got: Any, run: Run) -> str:
    """Why a number of steps is not the one that is taken."""
    if isinstance(got, bool) or not isinstance(got, int):
        return "return a whole number: the last batch of an epoch is a step, however small it is"
    return next(
        (hint for hint, value in _counts(run) if value == got),
        "a step takes rows · accumulate · world_size texts; an epoch's last step what is left",
    )


def _counts(run: Run) -> Iterator[tuple[str, int]]:
    ranks, texts, rows, accumulate, epochs = run
    own, whole, taken = rows * accumulate, run.whole, run.steps
    yield "that is one epoch", taken // epochs
    yield "what is left at the end of an epoch is a step, too: round up", epochs * (texts // whole)
    yield (
        "an epoch begins with a batch of its own: round up each epoch, not their sum",
        math.ceil(epochs * texts / whole),
    )
    yield (
        "the ranks share the texts: a step takes those of all of them",
        epochs * math.ceil(texts / own),
    )
    yield "each step is taken by all ranks together, so it counts once", taken * ranks
    yield "once divided by world_size is enough", math.ceil(taken / ranks)
    yield "once divided by world_size is enough", epochs * math.ceil(texts / whole / ranks)
    yield (
        "those are micro-batches: the optimizer takes a step after several",
        epochs * math.ceil(texts / rows / ranks),
    )
    yield "those are micro-batches: the optimizer takes a step after several", taken * accumulate
    yield "those are texts: a step takes many", epochs * texts
    yield "a batch has as many texts as rows, accumulate and world_size say", epochs * ranks
