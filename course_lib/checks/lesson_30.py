"""Questions for the exercises of lesson 30: padding nobody hears, and F1 by one all_reduce."""

from collections.abc import Sequence

import torch.distributed as dist

from course_lib.checks._alike import names_of, same_calls_everywhere
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._f1s import PARTS, Parts, close, which_mistake
from course_lib.checks._one_sum import answered, one_all_reduce
from course_lib.checks._patterns import WHO_IS_DONE
from course_lib.checks._readings import (
    ALONE,
    DEALS,
    EMPTY,
    GRADIENTS,
    PADDED,
    Deal,
    Reading,
    near,
    read,
    vectors_of,
)
from course_lib.group import process_group
from course_lib.tracing import trace

_ALONE_TOO = "a rank pads and masks its own share, without the others"


@exercise("30.1 · Pad and mask right")
def pad_and_mask(ask: Ask, collate, attention) -> None:
    """``collate(reviews) -> ids, real``, ``attention(query, key, value, real) -> tensor``."""
    hint = "a review may be empty, and a rank's list of reviews, too"
    for n in (2, 3):
        deals = [deal for deal in DEALS if len(deal.ranks) == n]
        answers = ask.run(_read, collate, attention, deals, nprocs=n, hint=hint)
        for deal, ranks in zip(deals, zip(*answers, strict=True), strict=True):
            case = f"{n} ranks, {deal.says}"
            for rank, (reading, called) in enumerate(ranks):
                _one_share(ask, f"{case}: ", rank, reading, called)
            tables = [" × ".join(map(str, reading.table)) for reading, _ in ranks]
            print(f"✓ {case}, into tables of {', '.join(tables)}: {ALONE}")
    for says in (EMPTY, PADDED, GRADIENTS):
        print(f"✓ {says}")


def _one_share(ask: Ask, case: str, rank: int, reading: Reading, called: list[str]) -> None:
    hint = f"rank {rank}: {reading.hint}"
    if reading.wrong:
        ask.that(False, case + reading.wrong, hint)
    for k, got in reading.vectors.items():
        if not near(got, vectors_of(k)):
            ask.that(False, case + ALONE, hint)
    if called:
        hint = f"rank {rank} called {called[0]}: {_ALONE_TOO}"
        ask.that(False, f"{case}nothing is sent", hint)


def _read(collate, attention, deals: Sequence[Deal]) -> list[tuple[Reading, list[str]]]:
    names, results = names_of(attention) or names_of(collate), []
    with process_group() as pg:
        for deal in deals:
            with same_calls_everywhere(names, deal.says), trace(names) as record:
                reading = read(collate, attention, deal.ranks[pg.rank])
            results.append((reading, [o.name for o in record.operations]))
            dist.barrier()
    return results


@exercise("30.2 · F1 from counts")
def f1_over_ranks(ask: Ask, answer) -> None:
    """``answer(predicted, actual) -> float``: from the counts of all ranks, by one all_reduce."""
    hint = "all ranks make the same calls with as many numbers, also one without reviews"
    for n in (2, 3, 4):
        cases = [parts for parts in PARTS if len(parts.ranks) == n]
        answers = ask.run(_scored, answer, cases, nprocs=n, hint=hint + WHO_IS_DONE)
        for parts, ranks in zip(cases, zip(*answers, strict=True), strict=True):
            exact, got = parts.whole().f1(), [one.got for one in ranks]
            case = f"{n} ranks, {parts.says}"
            if not all(close(one, exact) for one in got):
                says = f"{case}: everyone has {exact:.6g}"
                ask.that(False, says, f"{which_mistake(got, parts)} (got {got!s:.90})")
            one_all_reduce(ask, [*ranks], 4, case, "its hits, false alarms and misses")
            print(f"✓ {case}: everyone has {exact:.6g}")
    print("✓ with one all_reduce of a few counts")


def _scored(answer, cases: Sequence[Parts]):
    with process_group() as pg:
        results = []
        for parts in cases:
            predicted, actual = parts.ranks[pg.rank].answers()
            results.append(answered(answer, predicted, actual, case=parts.says))
            dist.barrier()
        return results
