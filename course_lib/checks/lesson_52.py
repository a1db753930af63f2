"""Questions for the exercises of lesson 52: a budget of false alarms, a second that is complete."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist

from course_lib.checks import _budgets, _watermarks
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._one_sum import SPARE, Answered, answered
from course_lib.checks._patterns import WHO_IS_DONE
from course_lib.group import process_group

_MOST_CALLS, _MOST_NUMBERS = 64, 1_100  # of 52.1: room for one bit a call, or one byte


class _Judged(NamedTuple):
    """What one rank got for one question, and whether its numbers are as before."""

    answered: Answered
    untouched: bool


@exercise("52.1 · At most k false alarms an hour")
def alarm_threshold(ask: Ask, answer) -> None:
    """``answer(scores, minutes, per_hour) -> float``: a threshold that keeps a promise."""
    hint = "a rank may have fewer scores than alarms are allowed, or none; all ranks make the same "
    hint += "calls, with as many numbers of the same type"
    for n in (1, 2, 3, 4):
        cases = [case for case in _budgets.CASES if len(case.counts) == n]
        answers = ask.run(_promised, answer, cases, nprocs=n, hint=hint + WHO_IS_DONE)
        for case, ranks in zip(cases, zip(*answers, strict=True), strict=True):
            says, right = f"{_count(n, 'rank')}, {case.says}", case.exact()
            _unchanged(ask, says, ranks, "scores", "sort() makes new ones, sort_() does not")
            got = [one.answered.got for one in ranks]
            line = f"{says}: everyone has {right:.6g}, for {_count(case.allowed, 'alarm')} at most"
            if why := _budgets.which_mistake(case, got):
                ask.that(False, line, f"{why} (got {got!s:.90})")
            most = max(case.allowed + 1, _MOST_NUMBERS)
            aim = "only the loudest scores of a rank can matter, and counts can be added up: what "
            aim += "travels must not grow with the scores"
            _traffic(ask, says, ranks, (_MOST_CALLS, most), aim)
            print(f"✓ {line}")
    print("✓ what a rank hands in does not grow with its scores")


def _promised(answer, cases: Sequence[_budgets.Scores]) -> list[_Judged]:
    with process_group() as pg:
        results = []
        for case in cases:
            given = case.of(pg.rank)
            one = answered(answer, given, case.minutes, case.per_hour, case=case.says)
            results.append(_Judged(one, torch.equal(given, case.of(pg.rank))))
            dist.barrier()
        return results


@exercise("52.2 · When is a second complete?")
def complete(ask: Ask, answer) -> None:
    """``answer(counts, seen_until, told) -> new_told, totals``: what all ranks are done with."""
    hint = "all ranks make the same calls with as many numbers: they may have seen different "
    hint += "seconds, so they first have to agree on which are told"
    for n in (1, 2, 3, 4):
        ticks = [tick for tick in _watermarks.CASES if len(tick.seen) == n]
        answers = ask.run(_told, answer, ticks, nprocs=n, hint=hint + WHO_IS_DONE)
        for tick, ranks in zip(ticks, zip(*answers, strict=True), strict=True):
            says, (until, totals) = f"{_count(n, 'rank')}, {tick.says}", tick.exact()
            why = "all_reduce writes into what it is given, and a slice is a view: clone() it"
            _unchanged(ask, says, ranks, "counts", why)
            for rank, one in enumerate(ranks):
                if why := _watermarks.odd_form(one.answered.got):
                    ask.that(False, f"{says}: an int and a tensor come back", f"rank {rank}: {why}")
            got = [(one.answered.got[0], one.answered.got[1].tolist()) for one in ranks]
            new = ", ".join(map(str, totals)) or "nothing new"
            line = f"{says}: seen {_and(tick.seen)}, told {tick.told} before and {until} now: {new}"
            if why := _watermarks.which_mistake(tick, got):
                ask.that(False, line, f"{why} (got {got!s:.90})")
            aim = "besides seen_until, only the counts of the seconds that are told have to travel"
            _traffic(ask, says, ranks, (2, len(totals) + 1), aim)
            print(f"✓ {line}")
    print("✓ in two calls at most, of as many numbers as there are new seconds")


def _told(answer, ticks: Sequence[_watermarks.Tick]) -> list[_Judged]:
    with process_group() as pg:
        results = []
        for tick in ticks:
            given = tick.of(pg.rank)
            one = answered(answer, given, tick.seen[pg.rank], tick.told, case=tick.says)
            results.append(_Judged(one, torch.equal(given, tick.of(pg.rank))))
            dist.barrier()
        return results


def _unchanged(ask: Ask, says: str, ranks: Sequence[_Judged], what: str, why: str) -> None:
    """No rank's numbers have been written into; silent if so."""
    if touched := [rank for rank, one in enumerate(ranks) if not one.untouched]:
        ask.that(
            False, f"{says}: the {what} are as before", f"rank {touched[0]} has changed: {why}"
        )


def _traffic(
    ask: Ask, says: str, ranks: Sequence[_Judged], most: tuple[int, int], aim: str
) -> None:
    """Few collectives, of few numbers in all; silent if so. A rank alone may do anything."""
    most_calls, most_numbers = most
    for rank, (one, _) in enumerate(ranks if len(ranks) > 1 else ()):
        calls, record = one.calls, one.record
        called = f"rank {rank} made {len(calls)}: {', '.join(map(str, calls[:3])) or 'none'}"
        called += ", …" * (len(calls) > 3)
        if record.sent or record.received:
            why = "a collective tells each rank what it needs, and no message has to be sent"
            ask.that(False, f"{says}: no messages", why)
        if unknown := [call.name for call in calls if call.numbers is None]:
            why = f"{unknown[0]} is not needed: all_reduce, all_gather, … take tensors"
            ask.that(False, f"{says}: ranks exchange tensors ({called})", why)
        for operation in (o for o in record.operations if o.end is None):
            why = f"nobody waits for the {operation.name}: keep its handle, and call wait() on it"
            ask.that(False, f"{says}: every handle is waited for", why)
        if len(calls) > most_calls:
            why = "every call takes its time, however little it sends: what is known at the same "
            why += "time fits into one tensor"
            ask.that(False, f"{says}: {most_calls} calls at most ({called})", why)
        numbers = sum(call.numbers for call in calls)
        if numbers > most_numbers + SPARE:
            line = f"{says}: a rank hands in {most_numbers:,} numbers at most (rank {rank}: "
            ask.that(False, f"{line}{numbers:,})", aim)


def _and(seen: Sequence[int]) -> str:
    return " and ".join(map(str, seen)) if len(seen) < 3 else ", ".join(map(str, seen))


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
