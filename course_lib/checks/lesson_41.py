"""Questions for the exercises of lesson 41: a scale from the past, a walk forward over ranks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist

from course_lib.checks import _scales, _walk_ratios
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._one_sum import SPARE, Answered, answered, one_all_reduce
from course_lib.checks._patterns import WHO_IS_DONE
from course_lib.checks._walks import WALKS, Learnt, Line, Walk, changed, how_dealt, learnt
from course_lib.group import process_group


class _Scaled(NamedTuple):
    """What one rank made of one panel.

    Attributes:
        pair: Means and spreads, or what is wrong with them.
        elsewhere: Days that were changed → the same again.
        untouched: Whether the panel is as before.
        first: What was called for ``pair``.
    """

    pair: torch.Tensor | str
    elsewhere: dict[str, torch.Tensor | str]
    untouched: bool
    first: Answered


@exercise("41.1 · One scale, from the past of all ranks")
def past_scale(ask: Ask, answer) -> None:
    """``answer(panel, fit) -> mean, spread``: over all ranks, from the days of ``fit``."""
    hint = "all ranks make the same calls with as many numbers, also one without tickers"
    for n in (1, 2, 3, 4):
        cases = [case for case in _scales.CASES if len(case.tickers) == n]
        answers = ask.run(_scaled, answer, cases, nprocs=n, hint=hint + WHO_IS_DONE)
        for case, ranks in zip(cases, zip(*answers, strict=True), strict=True):
            says = f"{_ranks(n)}, {case.says}"
            _one_panel(ask, says, case, ranks)
            if n > 1:
                _few_calls(ask, says, ranks)
            print(f"✓ {says}: mean and spread of the {_numbers(case):,} numbers of fit")
    print("✓ other days change nothing, and numbers that are large and close together are no harm")
    print("✓ with two small collectives at most")


def _one_panel(ask: Ask, says: str, case: _scales.Case, ranks: Sequence[_Scaled]) -> None:
    """Right on all ranks, with whatever numbers outside of ``fit``; silent if so."""
    for rank, one in enumerate(ranks):
        if not one.untouched:
            ask.that(False, f"{says}: the panel is as before", f"rank {rank} has changed it")
        if isinstance(one.pair, str):
            ask.that(False, f"{says}: mean and spread come back", f"rank {rank}: {one.pair}")
    for when in ranks[0].elsewhere:
        for rank, one in enumerate(ranks):
            other = one.elsewhere[when]
            if isinstance(other, str) or not torch.allclose(
                other, one.pair, rtol=1e-12, atol=0, equal_nan=True
            ):
                hint = f"rank {rank}: other numbers {when} them change the scale: take "
                hint += "panel[fit.start : fit.stop] before you do anything else"
                ask.that(False, f"{says}: only the days of fit count", hint)
    what, hint = _scales.which_mistake(case, [one.pair for one in ranks])
    if what:
        ask.that(False, f"{says}: {what}", hint)


def _few_calls(ask: Ask, says: str, ranks: Sequence[_Scaled]) -> None:
    """Two collectives at most, of a few numbers; silent if so."""
    for rank, (_, calls, record) in enumerate(one.first for one in ranks):
        called = f"rank {rank} called {', '.join(map(str, calls)) or 'no collective'}"
        if record.sent or record.received:
            hint = "no message has to be sent: all_reduce tells each rank the sum"
            ask.that(False, f"{says}: two collectives at most ({called})", hint)
        for call in (call for call in record.operations if call.end is None):
            hint = f"nobody waits for the {call.name}: keep its handle, and call wait() on it"
            ask.that(False, f"{says}: every handle is waited for", hint)
        if len(calls) > 2:
            hint = "sums and counts fit into one tensor (torch.stack), and the squares follow"
            ask.that(False, f"{says}: two collectives at most ({called})", hint)
        most = 3 * _scales.FEATURES + SPARE
        if any(call.numbers is None or call.numbers > most for call in calls):
            hint = "a sum, a count and squares of each feature are enough, in tensors"
            ask.that(False, f"{says}: few numbers travel ({called})", hint)


def _scaled(answer, cases: Sequence[_scales.Case]) -> list[_Scaled]:
    with process_group() as pg:
        results = []
        for case in cases:
            panel = case.part(case.panel(), pg.rank)
            given = panel.clone()
            first = answered(answer, given, case.fit, case=case.says)
            elsewhere = {}
            for when, other in case.elsewhere().items():
                part = case.part(other, pg.rank)
                again = answered(answer, part, case.fit, case=case.says)
                elsewhere[when] = _scales.pair_of(again.got)
            pair = _scales.pair_of(first.got)
            same = torch.equal(given.nan_to_num(0.5), panel.nan_to_num(0.5))
            results.append(_Scaled(pair, elsewhere, same, first._replace(got=None)))
            dist.barrier()
        return results


def _numbers(case: _scales.Case) -> int:
    return int(case.panel()[case.fit.start : case.fit.stop].isfinite().sum())


class _Walked(NamedTuple):
    """What one rank did for one walk."""

    answered: Answered
    learnt: list[Learnt]
    changed: str


@exercise("41.2 · Walk forward, fold by fold and rank by rank")
def walk_ratio(ask: Ask, answer) -> None:
    """``answer(learn, x, y, today, folds) -> float``: error over persistence's, of all folds."""
    hint = "ranks are in different folds, so none can wait for another there: all of them make one "
    hint += "call at the end, also a rank without a fold"
    for n in (1, 2, 3, 4):
        walks = [walk for walk in WALKS if walk.ranks == n]
        answers = ask.run(_walked, answer, walks, nprocs=n, hint=hint + WHO_IS_DONE)
        for walk, ranks in zip(walks, zip(*answers, strict=True), strict=True):
            says = f"{_ranks(n)}, {walk.says}"
            for rank, one in enumerate(ranks):
                if one.changed:
                    ask.that(False, f"{says}: x, y and today are as before", one.changed)
                for fit in one.learnt:
                    if fit.wrong:
                        ask.that(False, f"{says}: {fit.wrong}", f"rank {rank}: {fit.hint}")
            if hint_dealt := how_dealt(walk, [one.learnt for one in ranks]):
                ask.that(False, f"{says}: each is learnt once, by turns", hint_dealt)
            right, got = _walk_ratios.exact(walk), [one.answered.got for one in ranks]
            if not all(_walk_ratios.close(one, right) for one in got):
                why = f"{_walk_ratios.which_mistake(walk, got)} (got {got!s:.90})"
                ask.that(False, f"{says}: everyone has {right:.6f}", why)
            one_all_reduce(ask, [one.answered for one in ranks], 2, says, "its two sums of errors")
            dealt = " + ".join(str(len(one.learnt)) for one in ranks)
            print(f"✓ {says}, dealt {dealt}: everyone has {right:.6f}")
    print("✓ each model, and its scale, from the days of its own fit")
    print("✓ with one all_reduce of two sums")


def _walked(answer, walks: Sequence[Walk]) -> list[_Walked]:
    with process_group():
        results = []
        for walk in walks:
            learn, given = Line(), walk.given()
            one = answered(answer, learn, *given, walk.folds, case=walk.says)
            results.append(_Walked(one, learnt(walk, learn.seen), changed(walk, given)))
            dist.barrier()
        return results


def _ranks(n: int) -> str:
    return "1 rank" if n == 1 else f"{n} ranks"
