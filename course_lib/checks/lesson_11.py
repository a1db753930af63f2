"""Questions for the exercises of lesson 11."""

import math
from collections.abc import Sequence
from numbers import Integral

import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from course_lib.checks._engine import Ask, exercise
from course_lib.evaluation import shard_indices
from course_lib.group import process_group


@exercise("11.1 · The exact RMSE")
def exact_rmse(ask: Ask, answer) -> None:
    """``answer(predicted, actual) -> float``, called in a group with this rank's rows."""
    hint = "all ranks must call the same collectives in the same order, with rows or without"
    for n, *sizes in ((1, 9), (2, 9), (3, 10), (4, 4128, 3)):
        tables = [_prices(rows) for rows in sizes]
        answers = ask.run(_with_my_parts, answer, tables, nprocs=n, hint=hint)
        for (predicted, actual), got in zip(tables, zip(*answers, strict=True), strict=True):
            rows = len(actual)
            parts = [shard_indices(rows, r, n) for r in range(n)]
            errors = [(predicted[p] - actual[p]).double() for p in parts]
            exact = torch.cat(errors).square().mean().sqrt().item()
            each = [e.square().mean().sqrt().item() for e in errors]
            ask.that(
                _close(got, [exact] * n),
                f"{rows:,} rows on {_count(n, 'rank')}: everyone has {exact:,.2f}",
                f"{_what_went_wrong(got, exact, each, rows)} (got {list(got)})",
            )


def _prices(rows: int) -> torch.Tensor:
    """Predicted and actual prices in whole dollars, shape (2, rows).

    Float32 subtracts them exactly, so it does not matter who converts before and who after.
    """
    noise = torch.randn(2, rows, generator=torch.Generator().manual_seed(rows))
    return (2e5 + 1e5 * noise).round()


def _with_my_parts(answer, tables):
    with process_group() as pg:
        got = []
        for predicted, actual in tables:
            mine = shard_indices(len(actual), pg.rank, pg.world_size)
            got.append(answer(predicted[mine], actual[mine]))
            dist.barrier()  # whoever left out a collective must not end before the others
        return got


def _what_went_wrong(got: tuple, exact: float, each: list[float], rows: int) -> str:
    n = len(each)
    if any(isinstance(g, torch.Tensor) for g in got):
        return "return a plain float: tensor.item()"
    if _close(got, [exact] * n, 1e-4):
        return "nearly: square and sum in float64, squared dollars are too large for float32"
    if _close(got[:1], [exact]):
        return "only rank 0 has it; all_reduce tells every rank, and every rank returns it"
    if _close(got, each):
        return "every rank reports its own part: use dist.all_reduce before you divide"
    if _close(got, [sum(each) / n] * n, 1e-6):
        return "that is the mean of the ranks' RMSEs; a mean of roots is not the root of the mean"
    if _close(got, [math.sqrt(sum(e * e for e in each) / n)] * n, 1e-6):
        return "that weighs all ranks alike although they hold unequally many rows"
    if _close(got, [exact**2] * n, 1e-4):
        return "that is the mean of the squares; the root is missing"
    if _close(got, [exact * math.sqrt(rows)] * n, 1e-4):
        return "that is the root of the sum; divide by the number of rows first"
    if any(isinstance(g, float) and math.isnan(g) for g in got):
        return "the mean of no rows is NaN: a rank without rows adds a sum of 0 and a count of 0"
    return "add up squared errors and counts over all ranks, then divide, then take the root"


def _close(got: Sequence, expected: list[float], relative: float = 1e-9) -> bool:
    return all(
        isinstance(g, float) and math.isclose(g, e, rel_tol=relative)
        for g, e in zip(got, expected, strict=True)
    )


@exercise("11.2 · Counted twice")
def counted_twice(ask: Ask, answer) -> None:
    """``answer(rows, world_size) -> list[int]``: what ``DistributedSampler`` deals again."""
    cases = [(10, 4), (12, 4), (4128, 5), (7, 3), (9, 2), (1, 4), (2, 5), (5, 1)]
    (lists,) = ask.run(_each, answer, cases, nprocs=1)
    for (rows, world_size), got in zip(cases, lists, strict=True):
        dealt = [
            i
            for r in range(world_size)
            for i in DistributedSampler(range(rows), world_size, r, shuffle=False)
        ]
        for i in range(rows):
            dealt.remove(i)
        if hasattr(got, "tolist"):  # an array, a tensor, a NumPy number
            got = got.tolist()
        got = sorted(got) if isinstance(got, list | tuple | range | set) else got
        hint = "all ranks get equally many: how many rows are missing to the next multiple of N?"
        if isinstance(got, Integral) and not isinstance(got, bool):
            hint = "the rows themselves are asked for, not how many they are"
        elif not isinstance(got, list):
            hint = "return a list of row numbers"
        elif any(isinstance(i, float) for i in got):
            hint = "row numbers are whole numbers: // divides without a fraction"
        elif not dealt:
            hint = "here the rows divide evenly, nothing is dealt again: return an empty list"
        elif len(got) == len(dealt):
            hint = "the number is right; the sampler takes them from the beginning, over and over"
        elif rows < world_size:
            hint = "fewer rows than ranks: a row that is dealt three times stands here twice"
        ask.equal(
            got,
            sorted(dealt),
            f"{_count(rows, 'row')} on {_count(world_size, 'rank')}: {len(dealt)} once more",
            hint,
        )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n > 1)}"


@exercise("11.3 · The rate when the batch grows")
def rate_at(ask: Ask, answer) -> None:
    """``answer(step, rate, world_size, warmup) -> float``: linear scaling with linear warm-up."""
    for rate, n, warmup in ((0.1, 4, 10), (0.002, 1, 5), (0.01, 8, 100)):
        steps = sorted({0, 1, warmup // 2, warmup, warmup + 1, 10 * warmup + 3})
        got = _rates(ask, answer, steps, rate, n, warmup)
        shares = [min(step / warmup, 1.0) for step in steps]
        ask.close(
            got,
            [rate + (n - 1) * rate * share for share in shares],
            f"rate {rate:g}, {_count(n, 'rank')}, {warmup} steps of warm-up: steps {steps}",
            _which_rule(got, rate, n, warmup, shares),
        )
    rate, n, steps = 0.3, 2, [0, 1, 3]
    hint = "warmup=0 means no warm-up: the scaled rate from step 0 on, and nothing to divide by"
    got = _rates(ask, answer, steps, rate, n, 0, hint=hint)
    says = f"rate {rate:g}, {n} ranks, no warm-up: steps {steps}"
    ask.close(got, [n * rate] * len(steps), says, hint)


def _rates(ask: Ask, answer, steps, rate, n, warmup, hint: str = "") -> list:
    cases = [(step, rate, n, warmup) for step in steps]
    (got,) = ask.run(_each, answer, cases, nprocs=1, hint=hint)
    return got


def _which_rule(got: list, rate: float, n: int, warmup: int, shares: list[float]) -> str:
    if any(isinstance(g, torch.Tensor) for g in got):
        return "return a plain float: tensor.item()"
    if not all(isinstance(g, int | float) for g in got):
        return "return one number for every step"

    def is_like(expected) -> bool:
        return all(math.isclose(g, e, rel_tol=1e-6) for g, e in zip(got, expected, strict=True))

    if is_like([rate] * len(got)):
        return f"that never grows: {n} ranks make a step on {n} times as many rows"
    if is_like([n * rate] * len(got)):
        return "scaled, but at once: the first steps are the dangerous ones, warm up"
    if math.isclose(got[0], 0.0, abs_tol=1e-12):
        return "start from the rate of one rank, not from zero"
    if math.isclose(got[-1], math.sqrt(n) * rate, rel_tol=1e-6):
        return f"that is the rule of the square root; here the rate grows {n} times"
    if math.isclose(got[-1], rate / n, rel_tol=1e-6):
        return f"{n} times as large, not as small: multiply by the number of ranks"
    if got[-1] > n * rate * (1 + 1e-6):
        return f"the warm-up ends: from step {warmup} on the rate stays at {n} times"
    if is_like([rate * n**share for share in shares]):
        return "rise in a straight line: the same amount every step"
    return f"at step 0 the rate of one rank, from step {warmup} on {n} times as much"


def _each(answer, cases):
    return [answer(*case) for case in cases]
