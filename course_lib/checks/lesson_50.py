"""Questions for the exercises of lesson 50: sums that do not cancel, and no twin across a split."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from course_lib.checks import _covariances, _twins
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._one_sum import SPARE, Answered, answered, few_calls
from course_lib.checks._patterns import WHO_IS_DONE
from course_lib.checks._purges import positions
from course_lib.group import process_group

_MOST_CALLS = 3


class _Pooled(NamedTuple):
    """What one rank got for one question.

    Attributes:
        answered: What was called, and the pair that was returned, or what is wrong with it.
        untouched: Whether the rows are as before.
    """

    answered: Answered
    untouched: bool


@exercise("50.1 · Mean and covariance over ranks")
def mean_and_covariance(ask: Ask, answer) -> None:
    """``answer(x) -> mean, covariance``: over the rows of all ranks, also far from 0."""
    calls = "all ranks make the same calls with as many numbers of the same type, also one without "
    calls += "rows" + WHO_IS_DONE
    for n in (1, 2, 3, 4):
        cases = [case for case in _covariances.CASES if len(case.rows) == n]
        answers = ask.run(_pooled, answer, cases, nprocs=n, hint=calls if n > 1 else "")
        for case, ranks in zip(cases, zip(*answers, strict=True), strict=True):
            says = f"{_count(n, 'rank')}, {case.says}"
            for rank, one in enumerate(ranks):
                if isinstance(one.answered.got, str):
                    why = f"rank {rank}: {one.answered.got}"
                    ask.that(False, f"{says}: mean and covariance come back", why)
            results = [one.answered.got for one in ranks]
            what, why = _covariances.which_mistake(case, results)
            if what:
                ask.that(False, f"{says}: {what}", why)
            if touched := [r for r, one in enumerate(ranks) if not one.untouched]:
                why = f"rank {touched[0]} has changed it: x.double() copies nothing where x is "
                ask.that(False, f"{says}: x is as before", why + "float64; subtract without _")
            _few_numbers(ask, says, case, [one.answered for one in ranks])
            print(f"✓ {says}: mean and covariance of {_count(len(case.columns), 'feature')}")
    print(f"✓ {_MOST_CALLS} calls at most, of so many numbers whatever the rows")


def _few_numbers(ask: Ask, says: str, case: _covariances.Rows, ranks: Sequence[Answered]) -> None:
    """Few collectives that bring a rank few numbers; silent if so. A rank alone may do anything."""
    hint = "what is added up at the same time fits into one tensor: torch.cat"
    most = _covariances.numbers(case)
    for rank, arrive in enumerate(few_calls(ask, ranks, _MOST_CALLS, says, ("rows", "sums"), hint)):
        if sum(arrive) > most + SPARE * len(arrive):
            hint = "rows stay where they are, and sums are added up on the way: a count, a sum of "
            hint += "each feature, a sum of each pair; and a value to subtract"
            came = f"rank {rank} got {sum(arrive):,}"
            ask.that(False, f"{says}: {most} numbers at most reach a rank ({came})", hint)


def _pooled(answer, cases: Sequence[_covariances.Rows]) -> list[_Pooled]:
    with process_group() as pg:
        results = []
        for case in cases:
            x = case.of_ranks()[pg.rank]
            given = x.clone()
            one = answered(answer, given, case=case.says)
            got: Any = _covariances.odd_form(one.got, case) or one.got
            results.append(_Pooled(one._replace(got=got), torch.equal(given, x)))
            dist.barrier()
        return results


@exercise("50.2 · A split that shares no flow")
def split_without_twins(ask: Ask, answer) -> None:
    """``answer(features, kind, seed) -> train, test``: positions; no flow is on both sides."""
    hint = "a kind may have one row, or none that repeats no earlier one, and there may be no rows"
    ranks = ask.run(_divided, answer, nprocs=2, hint=hint)
    splits, untouched = ranks[0]
    for case, got in zip(_twins.CASES, splits, strict=False):
        _one_split(ask, case, got)
    by_seed = splits[len(_twins.CASES) :]
    for seed, got in enumerate(by_seed):
        _one_split(ask, _twins.USUAL, got, seed)
    *by_seed, again = by_seed
    says, hint = _twins.what_seeds_do(_twins.USUAL, by_seed, again)
    ask.that(not says, says or f"{len(by_seed)} seeds, as many splits; one seed, one split", hint)
    hint = "work on copies"
    ask.that(untouched, "the features and kinds that were passed in are unchanged", hint)
    same = all(map(_same_parts, splits, ranks[1][0]))
    hint = "a split may depend on features, kinds and seed: not on the rank, nor on chance"
    ask.that(same, "two ranks that split for themselves come to the same", hint)


def _one_split(ask: Ask, case: _twins.Flows, got: Any, seed: int | None = None) -> None:
    name = case.says if seed is None else f"{case.says}, seed {seed}"
    if isinstance(got, str):
        ask.that(False, f"{name}: train and test hold positions", got)
    says, hint = _twins.what_is_wrong(case, *got)
    if says:
        ask.that(False, f"{name}: {says}", hint)
    if seed is None:
        rows, (train, test) = _count(len(case.flows), "row"), map(len, got)
        left = len(case.flows) - train - test
        print(f"✓ {name}: {rows}, {train} to train, {test} to test, {left} left out")


def _divided(answer) -> tuple[list[Any], bool]:
    """Of the cases, then of the usual one by each seed, and by the first one again."""
    splits, untouched = [], True
    questions = [(case, 7) for case in _twins.CASES]
    questions += [(_twins.USUAL, seed) for seed in (*range(_twins.SEEDS), 0)]
    for case, seed in questions:
        features, kind = case.given()
        splits.append(_parts(answer(features, kind, seed)))
        same = zip((features, kind), case.given(), strict=True)
        untouched = untouched and all(a.equals(b) for a, b in same)
    return splits, untouched


def _parts(got: Any) -> tuple[list[int], list[int]] | str:
    if isinstance(got, np.ndarray) and got.ndim == 2:
        got = [*got]
    if not isinstance(got, list | tuple) or len(got) != 2:
        return f"return train, test (got {got!r:.60})"
    train, test = map(positions, got)
    for part in (train, test):
        if isinstance(part, str):
            return part
    return train, test


def _same_parts(one: tuple, other: tuple) -> bool:
    return [{*part} for part in one] == [{*part} for part in other]


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
