"""Questions for the exercises of lesson 11."""

import math

import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from course_lib.checks._engine import Ask, exercise
from course_lib.evaluation import shard_indices
from course_lib.group import process_group


@exercise("11.1 · The exact RMSE")
def exact_rmse(ask: Ask, answer) -> None:
    """``answer(predicted, actual) -> float``, called in a group with this rank's part of the rows."""
    for n, rows in ((1, 9), (2, 9), (3, 10), (4, 4128), (4, 3)):
        noise = torch.randn(2, rows, generator=torch.Generator().manual_seed(rows))
        predicted, actual = 2e5 + 1e5 * noise
        got = ask.run(_with_my_part, answer, predicted, actual, nprocs=n)
        parts = [shard_indices(rows, r, n) for r in range(n)]
        errors = [(predicted[p] - actual[p]).double() for p in parts]
        exact = torch.cat(errors).square().mean().sqrt().item()
        each = [e.square().mean().sqrt().item() for e in errors]
        hint = "add up the squared errors and the counts over all ranks, then divide, then take the root"
        if any(isinstance(g, torch.Tensor) for g in got):
            hint = "return a plain float: tensor.item()"
        elif _close(got, each) and n > 1:
            hint = "every rank reports its own part: use dist.all_reduce before you divide"
        elif _close(got, [sum(each) / n] * n):
            hint = (
                "that is the mean of the ranks' RMSEs; a mean of roots is not the root of the mean"
            )
        elif _close(got, [math.sqrt(sum(e * e for e in each) / n)] * n):
            hint = "that weighs all ranks alike although they hold unequally many rows"
        elif _close(got, [exact] * n, 1e-4):
            hint = "nearly: sum in float64, squared dollars are too large for float32"
        ask.that(
            _close(got, [exact] * n),
            f"{rows:,} rows on {n} rank{'s' * (n > 1)}: everyone has {exact:,.2f}",
            f"{hint} (got {got})",
        )


def _with_my_part(answer, predicted, actual):
    with process_group() as pg:
        mine = shard_indices(len(actual), pg.rank, pg.world_size)
        got = answer(predicted[mine], actual[mine])
        dist.barrier()  # whoever left out a collective must not end before the others
        return got


def _close(got: list, expected: list[float], relative: float = 1e-9) -> bool:
    return all(
        isinstance(g, float) and math.isclose(g, e, rel_tol=relative)
        for g, e in zip(got, expected, strict=True)
    )


@exercise("11.2 · Counted twice")
def counted_twice(ask: Ask, answer) -> None:
    """``answer(rows, world_size) -> list[int]``: the rows ``DistributedSampler`` deals out again."""
    cases = [(10, 4), (12, 4), (4128, 5), (7, 3), (9, 2), (1, 4), (5, 1)]
    (lists,) = ask.run(_each, answer, cases, nprocs=1)
    for (rows, world_size), got in zip(cases, lists, strict=True):
        dealt = [
            i
            for r in range(world_size)
            for i in DistributedSampler(range(rows), world_size, r, shuffle=False)
        ]
        for i in range(rows):
            dealt.remove(i)
        hint = "all ranks get equally many: how many rows are missing to the next multiple of N?"
        if isinstance(got, int) and not isinstance(got, bool):
            hint = "the rows themselves are asked for, not how many they are"
        elif isinstance(got, list) and len(got) == len(dealt):
            hint = "the number is right; the sampler takes them from the beginning, over and over"
        got = sorted(got) if isinstance(got, list | tuple | range) else got
        says = f"{rows:,} rows on {world_size} rank{'s' * (world_size > 1)}: {len(dealt)} once more"
        ask.equal(list(got) if isinstance(got, tuple) else got, sorted(dealt), says, hint)


@exercise("11.3 · The rate when the batch grows")
def rate_at(ask: Ask, answer) -> None:
    """``answer(step, rate, world_size, warmup) -> float``: linear scaling with linear warm-up."""
    for rate, n, warmup in ((0.1, 4, 10), (0.002, 1, 5), (0.01, 8, 100), (0.3, 2, 0)):
        steps = sorted({0, 1, warmup // 2, warmup, warmup + 1, 10 * warmup + 3})
        cases = [(step, rate, n, warmup) for step in steps]
        (got,) = ask.run(_each, answer, cases, nprocs=1)
        ramp = [min(step / warmup, 1.0) if warmup else 1.0 for step in steps]
        expected = [rate + (n * rate - rate) * share for share in ramp]
        hint = f"at step 0 the rate of one rank, from step {warmup} on {n} times as much"
        if got == [n * rate] * len(steps) and n > 1 and warmup:
            hint = "scaled, but at once: the first steps are the dangerous ones, warm up"
        elif len(got) > 1 and isinstance(got[0], float) and got[0] == 0.0:
            hint = "start from the rate of one rank, not from zero"
        says = f"rate {rate:g}, {n} rank{'s' * (n > 1)}, {warmup} steps of warm-up: steps {steps}"
        ask.close(got, expected, says, hint, relative=1e-9)


def _each(answer, cases):
    return [answer(*case) for case in cases]
