"""Training steps that a data-parallel model is asked for, and what DDP makes of them.

The model's weights and inputs are whole numbers, and so are its gradients: they, their sums, and
halves and quarters of these are exact in float32 in any order. On 2 and 4 ranks an answer has to
agree with DistributedDataParallel in every bit, whatever its buckets are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

# Buckets of 31, 20, 30 and 24 numbers: messages that are confused differ in length.
BUCKET_BYTES = 136
ALL = ("spare", "idle")
Gradients = dict[str, torch.Tensor]


class Branches(nn.Module):
    """A model of five layers; ``uses`` says which of two are used, and in which order."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.middle = nn.Linear(6, 4, bias=False)
        self.spare = nn.Linear(4, 4)
        self.idle = nn.Linear(4, 4, bias=False)
        self.last = nn.Linear(4, 3)
        self.register_buffer("shift", torch.zeros(3))
        draw = torch.Generator().manual_seed(seed)
        for tensor in self.state_dict().values():
            tensor.copy_(torch.randint(-2, 3, tensor.shape, generator=draw))

    def forward(self, inputs: torch.Tensor, uses: Sequence[str]) -> torch.Tensor:
        """Of inputs (rows, 4), outputs (rows, 3)."""
        hidden = self.middle(self.first(inputs))
        branches = [getattr(self, name)(hidden) for name in uses]
        return self.last(sum(branches, hidden)) + self.shift


class Step(NamedTuple):
    """A training step: what each rank's micro-batches use, and what else happens.

    Attributes:
        case: How a message names it.
        uses: Rank → for each micro-batch, the branches it uses.
        overlap: Hint if buckets leave too late.
        nested: The first micro-batch is in a ``no_sync`` inside ``no_sync``.
        after_error: An error has ended a ``no_sync`` before.
        unused: DDP has to look for parameters that are not used.
    """

    case: str
    uses: Callable[[int], list[tuple[str, ...]]]
    overlap: str
    nested: bool = False
    after_error: bool = False
    unused: bool = False


_LOOP = "when one leaves, the next may have been complete for long: ask again, in a loop"
_COUNT = "a gradient that comes inside no_sync does not count: missing is about the last backward"
STEPS = (
    Step("a step", lambda rank: [ALL], "ready sends a bucket when its last gradient has come"),
    Step("the next step", lambda rank: [ALL], "finish has to begin to count anew: start()"),
    Step("buckets that fill in another order", lambda rank: [ALL[:: (-1) ** rank]], _LOOP),
    Step("three micro-batches", lambda rank: [ALL] * 3, _COUNT),
    Step("no_sync inside no_sync", lambda rank: [ALL] * 3, _COUNT, nested=True),
    Step(
        "a step after an error inside no_sync",
        lambda rank: [ALL],
        "sync has to be put back after an error, too: try … finally",
        after_error=True,
    ),
    Step(
        "a parameter that rank 1 does not use",
        lambda rank: [("idle",) if rank == 1 else ALL],
        _LOOP,
        unused=True,
    ),
    Step("a parameter that nobody uses", lambda rank: [ALL[:1]], _LOOP, unused=True),
    Step(
        "a parameter that only the first micro-batch uses",
        lambda rank: [ALL, ALL[:1]],
        _COUNT,
        unused=True,
    ),
)


def inputs_of(rank: int, number: int, batch: int) -> torch.Tensor:
    """A micro-batch, whole numbers of shape (5, 7): inputs, and what their outputs count."""
    draw = torch.Generator().manual_seed(1000 * number + 10 * batch + rank)
    return torch.randint(-2, 3, (5, 7), generator=draw).float()


def batches(step: Step, number: int, rank: int) -> list[tuple]:
    """A rank's micro-batches in a step: numbers, and the branches they go through."""
    return [(inputs_of(rank, number, batch), uses) for batch, uses in enumerate(step.uses(rank))]


def backward(model: nn.Module, batch: tuple) -> None:
    """Forward and backward of a micro-batch."""
    numbers, uses = batch
    inputs, weights = numbers.split([4, 3], dim=1)
    (model(inputs, uses) * weights).sum().backward()


def accumulate(model: nn.Module, quiet: list[tuple], nested: bool) -> None:
    """Take micro-batches inside ``no_sync``, the first one doubly so if ``nested``."""
    if not quiet:
        return
    with model.no_sync():
        if nested:
            with model.no_sync():
                backward(model, quiet[0])
        for batch in quiet[nested:]:
            backward(model, batch)


def of_ddp(step: Step, number: int) -> Gradients:
    """The gradients torch's DistributedDataParallel comes to in a step, by name."""
    ddp = _ddp(step.unused)
    ddp.zero_grad()
    *quiet, last = batches(step, number, dist.get_rank())
    accumulate(ddp, quiet, step.nested)
    backward(ddp, last)
    return _named(ddp.module)


@functools.cache  # in a rank, which has one process group in its life
def _ddp(unused: bool) -> nn.Module:
    module = Branches(0)
    if unused:  # one parameter is unused for sure: without any, DDP prints a long warning
        module.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    return nn.parallel.DistributedDataParallel(module, find_unused_parameters=unused)


def of_one(step: Step, number: int, rank: int) -> list[Gradients]:
    """Of a rank alone: the gradients of each of its micro-batches."""
    found = []
    for batch in batches(step, number, rank):
        module = Branches(0)
        backward(module, batch)
        found.append(_named(module))
    return found


def _named(module: nn.Module) -> Gradients:
    """The gradients by name; a copy, with zeros for none."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in module.named_parameters()
    }
