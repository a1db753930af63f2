"""Questions for the exercises of lesson 23: efficiency from many runs, where a step's time goes.

A mistake may look like another one in a single table. So a hint is taken from those that fit the
table that is wrong, and of these it is the one that fits most of the others as well.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
import torch.distributed as dist

from course_lib.checks._engine import Ask, exercise
from course_lib.checks._one_sum import Answered, answered
from course_lib.checks._patterns import WHO_IS_DONE
from course_lib.checks._speeds import MISTAKES, WITH_ONE_RANK, WITHOUT_ONE, Run, ratios
from course_lib.checks._waits import NAMES, STEPS, Parts, Times, mistakes, right
from course_lib.group import process_group


@exercise("23.1 · Efficiency from a heap of runs")
def efficiencies(ask: Ask, answer) -> None:
    """``answer(runs) -> {ranks: efficiency}``: medians of the speed a rank, to the smallest's."""
    none_with_one = "compare with the smallest world size there is: here no run has one rank"
    for tables, hint in ((WITH_ONE_RANK, ""), (WITHOUT_ONE, none_with_one)):
        (answers,) = ask.run(_each, answer, list(tables.values()), nprocs=1, hint=hint)
        fits = [
            [hint for hint, rule in MISTAKES.items() if not problem and _like(got, rule(runs))]
            for runs, (got, problem) in zip(tables.values(), answers, strict=True)
        ]
        for k, (name, runs) in enumerate(tables.items()):
            (got, problem), expected = answers[k], ratios(runs)
            says = f"{name}: {_short(expected)}"
            if problem:
                ask.that(False, says, f"{problem} (got {got!s:.90})")
            if got.keys() != expected.keys():
                hint = f"one entry for each world size there is, and no other (got {[*got]})"
                ask.that(False, says, hint)
            hint = "median of samples / seconds / ranks, over that of the smallest world size"
            hint = f"{_likeliest(fits, k, hint)} (got {_short(got)})"
            ask.that(_like(got, expected), says, hint)


def _each(answer, tables: list[list[Run]]) -> list[tuple[Any, str]]:
    results = []
    for runs in tables:
        got = answer([*runs])
        problem = _odd_form(got)
        if not problem and not all(_is(key, Integral) for key in got):
            problem = "its keys are world sizes: plain ints"
        results.append((repr(got) if problem else dict(got), problem))
    return results


def _odd_form(got: Any) -> str:
    """What is wrong with the form of a result; ``""`` if it is a dict of plain numbers."""
    if not isinstance(got, dict):
        return "return a dict"
    if any(isinstance(x, torch.Tensor) for x in (*got, *got.values())):
        return "plain numbers are asked for, not tensors: tensor.item()"
    return "" if all(_is(x, int | float) for x in got.values()) else "its values are plain floats"


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _like(got: dict[int, float], expected: dict[int, float]) -> bool:
    return got.keys() == expected.keys() and all(
        math.isclose(got[n], expected[n], rel_tol=1e-6) for n in expected
    )


def _likeliest(fits: list[list[str]], k: int, otherwise: str) -> str:
    """Of the hints that fit table k, the one that fits most tables."""
    return max(fits[k], key=lambda hint: sum(hint in one for one in fits), default=otherwise)


def _short(shares: dict[int, float]) -> str:
    return ", ".join(f"{n} → {share:.4g}" for n, share in sorted(shares.items()))


@exercise("23.2 · Why is it slower?")
def where_the_time_goes(ask: Ask, answer) -> None:
    """``answer(began, arrived, ended) -> dict``: three parts, by one all_reduce of one number."""
    hint = "all ranks make the same calls, whether they came first or last" + WHO_IS_DONE
    for n in (2, 3, 4):
        steps = list(STEPS[n].values())
        answers = ask.run(_split, answer, steps, nprocs=n, hint=hint)
        asked = [*zip(*answers, strict=True)]
        fits = [
            [hint for hint, parts in mistakes(step) if _all_near(ranks, parts)]
            for step, ranks in zip(steps, asked, strict=True)
        ]
        for k, (name, step) in enumerate(STEPS[n].items()):
            case, ranks, expected = f"{n} ranks, {name}", asked[k], right(step)
            for rank, one in enumerate(ranks):
                got, problem = one.got
                says = f"{case}: rank {rank} has {_milliseconds(expected[rank])}"
                if problem:
                    ask.that(False, says, f"{problem} (got {got!s:.90})")
                _every_handle_is_waited_for(ask, one, case)
                if not _near(got, expected[rank]):
                    hint = _likeliest(fits, k, _which_ranks(ranks, expected))
                    ask.that(False, says, f"{hint} (got {_milliseconds(got)})")
            print(f"✓ {case}: waiting {', '.join(f'{1e3 * w:.1f}' for _, w, _ in expected)} ms")
        for name, ranks in zip(STEPS[n], asked, strict=True):
            _one_number(ask, ranks, f"{n} ranks, {name}")
    print("✓ with one all_reduce of one number")


def _split(answer, steps: list[list[Times]]) -> list[Answered]:
    with process_group() as pg:
        results = []
        for step in steps:
            one = answered(answer, *step[pg.rank], case=f"{pg.world_size} ranks")
            problem = _odd_form(one.got)
            if not problem and set(one.got) != set(NAMES):
                problem = f"its keys are {', '.join(NAMES)}"
            got = repr(one.got) if problem else tuple(one.got[name] for name in NAMES)
            results.append(one._replace(got=(got, problem)))
            dist.barrier()
        return results


def _milliseconds(parts: Parts) -> str:
    return ", ".join(f"{name} {1e3 * x:.3f}" for name, x in zip(NAMES, parts, strict=True)) + " ms"


def _near(got: Parts, expected: Parts) -> bool:
    """Within a microsecond; over an hour, which comes from a mistake, as float32 has it."""
    return all(
        math.isclose(g, e, abs_tol=1e-6, rel_tol=1e-6 if abs(e) > 3600 else 0.0)
        for g, e in zip(got, expected, strict=True)
    )


def _all_near(ranks: Sequence[Answered], parts: list[Parts]) -> bool:
    return all(
        not problem and _near(got, expected)
        for ((got, problem), _, _), expected in zip(ranks, parts, strict=True)
    )


def _which_ranks(ranks: Sequence[Answered], expected: list[Parts]) -> str:
    """The hint if no known mistake fits."""
    gots = [one.got[0] for one in ranks]
    if not all(isinstance(got, tuple) for got in gots):
        return "every rank returns its three parts"
    if any(abs(part) > 3600 for got in gots for part in got):
        return "the clock has been read already: split the times given, without looking again"
    having = [r for r, got in enumerate(gots) if _near(got, expected[r])]
    if having:
        return f"right on rank {having[0]} only; all_reduce tells every rank the last arrival"
    return "waiting is last - arrived, communicating ended - last; last: the greatest `arrived`"


def _every_handle_is_waited_for(ask: Ask, one: Answered, case: str) -> None:
    for call in one.record.operations:
        if call.end is None:
            at = f" at {call.where}" if call.where else ""
            hint = f"nobody waits for the {call.name}{at}: keep its handle, and call wait() on it"
            ask.that(False, f"{case}: every handle is waited for", hint)


def _one_number(ask: Ask, ranks: Sequence[Answered], case: str) -> None:
    """One all_reduce of one number on each rank; silent if so."""
    for rank, (_, calls, record) in enumerate(ranks):
        names = [operation.name for operation in record.operations]
        numbers = [call.numbers for call in calls]
        if names == ["all_reduce"] and numbers == [1]:
            continue
        listed = ", ".join(map(str, calls) if len(calls) == len(names) else names) or "nothing"
        says = f"{case}: one all_reduce of one number, and nothing else (rank {rank}: {listed})"
        hint = "every call takes its time: one all_reduce with op=MAX is enough"
        if any("gather" in name for name in names):
            hint = "right, but each rank gets all N arrivals and needs one of them: all_reduce "
            hint += "with op=MAX"
        elif names == ["all_reduce"]:
            hint = "right, but more travels than has to: the last arrival is the greatest, so one "
            hint += "number and op=MAX are enough"
        elif record.sent or record.received:
            hint = "no message has to be sent: all_reduce with op=MAX tells every rank"
        ask.that(False, says, hint)
