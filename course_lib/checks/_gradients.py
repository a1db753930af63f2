"""What is wrong with averaged gradients: compared with those of the mistakes one makes.

And the cases ``average_gradients`` is asked, in which ranks lack gradients that others have.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn

Guesses = Iterable[tuple[str, torch.Tensor]]


class Case(NamedTuple):
    """Which gradients there are.

    Attributes:
        says: How a message names it.
        dtype: Of all parameters.
        has: (parameter, rank, ranks) → whether that rank has a gradient for it.
    """

    says: str
    dtype: torch.dtype
    has: Callable[[int, int, int], bool]


def _some(p: int, rank: int, ranks: int) -> bool:
    return (True, rank > 0, rank == ranks - 1, False, rank % 2 == 0)[p]


CASES = (
    Case("all ranks have all gradients", torch.float32, lambda p, rank, ranks: True),
    Case("some ranks lack some gradients, and all lack one", torch.float32, _some),
    Case("rank 1 has no gradient at all", torch.float32, lambda p, rank, ranks: rank != 1),
    Case("numbers in float64", torch.float64, lambda p, rank, ranks: p != rank),
)
_SHAPES = ((4, 3), (5,), (), (2, 1, 3), (1,))
NUMBERS = sum(torch.Size(shape).numel() for shape in _SHAPES)  # 25: odd, and not divided by 3


def mistake(got: torch.Tensor, guesses: Guesses) -> str:
    """The first guess that explains what came out.

    Args:
        got: A gradient that is wrong.
        guesses: Pairs of a hint and the gradient one gets by that mistake.

    Returns:
        The hint; empty if none fits.
    """
    return next((hint for hint, numbers in guesses if near(got, numbers, 1e-4)), "")


def near(got: torch.Tensor, expected: torch.Tensor, relative: float) -> bool:
    """Whether two gradients agree, up to a share of the largest number in ``expected``.

    Relative to the largest, because the parts that are summed may cancel; with 0, exactly.
    """
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    if not relative or not expected.numel():
        return torch.equal(got, expected)
    apart = (got - expected).abs().max()
    return bool(apart <= relative * expected.abs().max())


def usual_mistakes(average: torch.Tensor, own: torch.Tensor, ranks: int) -> Guesses:
    """What becomes of a gradient by the mistakes that every average invites.

    Args:
        average: The right one.
        own: This rank's own.
        ranks: World size.
    """
    yield "that is the sum over the ranks: divide by their number", average * ranks
    yield "that is divided twice", average / ranks
    yield "that is this rank's own: nothing that arrived has been put into .grad", own
    early = "that is this rank's own, divided: read what has arrived after wait(), not before"
    yield early, own / ranks
    yield "that is zero", torch.zeros_like(average)
    if ranks != 2:
        yield "divide by the number of ranks, not by 2", average * ranks / 2


def about(parameter: torch.Tensor, gradient: object) -> str:
    """What is wrong with a gradient as an object: missing, of another shape or type; or ``""``."""
    if not isinstance(gradient, torch.Tensor):
        return "has no gradient: zeros where no rank has one"
    if gradient.shape != parameter.shape:
        return f"has a gradient of shape {[*gradient.shape]}: give it the parameter's, view_as"
    if gradient.dtype != parameter.dtype:
        return f"has a gradient of {gradient.dtype}, and is of {parameter.dtype} itself"
    return ""


def instead(names: Iterable[str]) -> str:
    """Why other collectives than all_reduce are not called for.

    Args:
        names: Those that were called.
    """
    if any("gather" in name for name in names):
        return "that brings each rank the numbers of all N ranks, and all_reduce only their sum"
    return "all_reduce is all that is needed: with it, each rank has the sum"


def parameters(k: int, rank: int, ranks: int) -> list[nn.Parameter]:
    """Those of a rank in case k, no two of their gradients' numbers alike."""
    found, case = [], CASES[k]
    for p, shape in enumerate(_SHAPES):
        numbers = torch.arange(torch.Size(shape).numel(), dtype=case.dtype).reshape(shape)
        parameter = nn.Parameter(numbers + k)
        if case.has(p, rank, ranks):
            parameter.grad = 0.3 * (numbers + 20 * p + 100 * (rank + 1) + k)
        found.append(parameter)
    return found


def what_is_wrong(k: int, everyone: Sequence[list], rank: int, returned: object) -> str:
    """What is wrong with a rank's gradients after they were averaged; ``""`` if nothing is.

    Args:
        k: Number of the case.
        everyone: Rank → its parameters; those of the others as they were before.
        rank: Whose have been averaged.
        returned: What the learner's function returned.
    """
    ranks, mine, digits = len(everyone), everyone[rank], 1e-12 if k == len(CASES) - 1 else 1e-6
    before = [*everyone[:rank], parameters(k, rank, ranks), *everyone[rank + 1 :]]
    had = [[torch.zeros_like(p) if p.grad is None else p.grad for p in one] for one in before]
    averages = [sum(each) / ranks for each in zip(*had, strict=True)]
    for p, parameter in enumerate(mine):
        if not torch.equal(parameter, before[rank][p]):
            return f"parameter {p} itself has changed: only its .grad is to be replaced"
        if wrong := about(parameter, parameter.grad):
            wrong += " (what is returned does not matter here)" * (returned is not None)
            return f"parameter {p}, of shape {[*parameter.shape]}, {wrong}"
    dealt = near(_sorted([p.grad for p in mine]), _sorted(averages), 1e-5)
    for p, (parameter, average) in enumerate(zip(mine, averages, strict=True)):
        if near(parameter.grad, average, digits):
            continue
        guesses = [*usual_mistakes(average, had[rank][p], ranks)]
        guesses += [("nearly: stay in the dtype of the gradients", average)]
        hint = mistake(parameter.grad, guesses)
        if not hint and dealt:
            hint = "all averages are there, in other places: deal out what was put together "
            hint += "in the same order"
        return f"the gradient of parameter {p}: {hint or 'it is not the average'}"
    return ""


def _sorted(gradients: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients]).sort().values
