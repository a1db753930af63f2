"""Questions for the exercises of lesson 40: nothing looks ahead, and windows are dealt as views."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch.distributed as dist

from course_lib.checks import _look_backs, _purges, _stretches
from course_lib.checks._alike import names_of, same_calls_everywhere
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._patterns import WHO_IS_DONE
from course_lib.group import process_group
from course_lib.tracing import trace

_PATIENCE = {"deadline": 120, "timeout": 60}  # an answer may go through a year day by day


@exercise("40.1 · Find and remove the look-aheads")
def honest_features(ask: Ask, answer) -> None:
    """``answer(table) -> DataFrame``: six columns, each day from the days up to it."""
    whole, questions = [_look_backs.PLAIN, _look_backs.GAPPY], _look_backs.questions()
    tables = [*whole, *(question.table for question in questions)]
    ((answers, untouched),) = ask.run(_computed, answer, tables, nprocs=1, **_PATIENCE)
    form = next(filter(None, map(_look_backs.odd_form, answers, tables)), "")
    ask.that(not form, f"six columns come back: {', '.join(_look_backs.COLUMNS)}", form)
    ask.that(untouched, "the table that was passed in is unchanged", "work on a copy")
    usual, says, changed = dict(zip(map(id, whole), answers, strict=False)), "", answers[2:]
    for k, (question, got) in enumerate(zip(questions, changed, strict=True)):
        says = f"{question.says}: all days up to it are as before"
        hint = _look_backs.why_ahead(question, got, usual[id(question.like)])
        if hint or question.says not in [other.says for other in questions[k + 1 :]]:
            ask.that(not hint, says, hint)
    right = [*map(_look_backs.expected, whole)]
    for name in _look_backs.COLUMNS:
        for table, got, true in zip(whole, answers, right, strict=False):
            if hint := _look_backs.why_other(name, got[name], true[name], table):
                ask.that(False, f"{name} is what it should be", hint)
        known = [int(true[name].notna().sum()) for true in right]
        says = f"{name}: all {known[0]} numbers without gaps, all {known[1]} with gaps"
        print(f"✓ {says}")
    _short_pasts(ask, answer)


def _short_pasts(ask: Ask, answer) -> None:
    tables, says = _look_backs.short_ones(), "one day, no price yet, a month: NaN where too short"
    hint = "a table may have few days, and none with a price"
    ((answers, _),) = ask.run(_computed, answer, tables, nprocs=1, hint=hint, **_PATIENCE)
    for table, got in zip(tables, answers, strict=True):
        if form := _look_backs.odd_form(got, table):
            ask.that(False, says, form)
        true = _look_backs.expected(table)
        for name in _look_backs.COLUMNS:
            if why := _look_backs.why_other(name, got[name], true[name], table):
                ask.that(False, says, f"{name} of {len(table)} days: {why}")
    print(f"✓ {says}")


def _computed(answer, tables: Sequence[pd.DataFrame]) -> tuple[list[Any], bool]:
    answers, untouched = [], True
    for table in tables:
        given = table.copy()
        answers.append(answer(given))
        untouched = untouched and given.equals(table)
    return answers, untouched


@exercise("40.2 · A split that knows when answers are known")
def purged_split(ask: Ask, answer) -> None:
    """``answer(made, answered, first_valid, first_test, last_test) -> fit, valid, test``."""
    hint = "a part may be empty, and so may the samples"
    (answers,) = ask.run(_divided, answer, nprocs=1, hint=hint)
    for samples, (got, untouched) in zip(_purges.CASES, answers, strict=True):
        if not isinstance(got, list | tuple) or len(got) != 3:
            hint = f"return fit, valid, test (got {got!r:.60})"
            ask.that(False, f"{samples.says}: three arrays come back", hint)
        parts = dict(zip(_purges.PARTS, map(_purges.positions, got), strict=True))
        for name, part in parts.items():
            if isinstance(part, str):
                ask.that(False, f"{samples.says}: {name} holds positions", part)
        name, hint = _purges.what_is_wrong(samples, parts)
        if name:
            ask.that(False, f"{samples.says}: {name} is right", hint)
        if not untouched:
            ask.that(False, f"{samples.says}: the samples are as before", "sort a copy")
        sizes = " / ".join(str(len(part)) for part in parts.values())
        print(f"✓ {samples.says}: {sizes} to fit / validate / test")
    saved = max(_purges.CASES, key=_purges.too_careful)
    more = f"a gap as long as the longest answer drops {_purges.too_careful(saved)} more to fit"
    print(f"✓ no sample is dropped in vain ({saved.says}: {more})")


def _divided(answer) -> list[tuple[Any, bool]]:
    results = []
    for samples in _purges.CASES:
        made, answered = (np.array(x, dtype=np.int64) for x in (samples.made, samples.answered))
        given = made.copy(), answered.copy()
        got = answer(*given, *samples.days)
        untouched = np.array_equal(given[0], made) and np.array_equal(given[1], answered)
        results.append((got, untouched))
    return results


@exercise("40.3 · Deal windows, not tickers")
def my_windows(ask: Ask, answer) -> None:
    """``answer(tables, length) -> pieces``: views, equally many windows on each rank."""
    hint = "a table may be shorter than a window, there may be fewer windows than ranks, and none"
    for n in (1, 2, 3, 4):
        answers = ask.run(_dealt, answer, nprocs=n, hint=hint + WHO_IS_DONE)
        for case, ranks in zip(_stretches.CASES, zip(*answers, strict=True), strict=True):
            says = f"{_ranks(n)}, {case.says}"
            for rank, (pieces, untouched, called) in enumerate(ranks):
                if not untouched:
                    why = f"rank {rank} has changed them"
                    ask.that(False, f"{says}: the tables are as before", why)
                if isinstance(pieces, str):
                    ask.that(False, f"{says}: pieces are views", f"rank {rank}, {pieces}")
                if called:
                    why = f"rank {rank} called {called[0]}: all have the same tables, and so each "
                    ask.that(False, f"{says}: nothing is sent", why + "can count for itself")
            all_pieces = [pieces for pieces, _, _ in ranks]
            wrong, why = _stretches.what_is_wrong(case, all_pieces)
            if wrong:
                ask.that(False, f"{says}: {wrong}", why)
            each = " + ".join(str(sum(p.count for p in pieces)) for pieces in all_pieces)
            if sum(case.windows()) > 3:
                print(f"✓ {says}: {each} windows in {sum(map(len, all_pieces))} pieces")
        few = [case.says for case in _stretches.CASES if sum(case.windows()) <= 3]
        print(f"✓ {_ranks(n)}, {', '.join(few)}")
    print("✓ every window on one rank, and no byte of them copied")


def _dealt(answer) -> list[tuple[Any, bool, list[str]]]:
    names, results = names_of(answer), []
    with process_group():
        for case in _stretches.CASES:
            tables = case.tables()
            with same_calls_everywhere(names, case.says), trace(names) as record:
                pieces = answer(tables, case.length)
            untouched = len(tables) == len(case.days) and all(map(_same, tables, case.tables()))
            found = _stretches.stretches(pieces, tables, case.length)
            results.append((found, untouched, [o.name for o in record.operations]))
            dist.barrier()
        return results


def _same(a, b) -> bool:
    return a.shape == b.shape and bool((a == b).all())


def _ranks(n: int) -> str:
    return "1 rank" if n == 1 else f"{n} ranks"
