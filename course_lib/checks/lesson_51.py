"""Questions for the exercises of lesson 51: a threshold that all agree on, precision or recall."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist

from course_lib.checks import _quantiles, _trade_offs
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._one_sum import SPARE, Answered, answered, few_calls, one_all_reduce
from course_lib.checks._patterns import WHO_IS_DONE
from course_lib.group import process_group

_MOST_CALLS, _MOST_NUMBERS = 5, 1_100


class _Agreed(NamedTuple):
    """What one rank got for one question, and whether its scores are as before."""

    answered: Answered
    untouched: bool


@exercise("51.1 · A threshold in four calls")
def global_threshold(ask: Ask, answer) -> None:
    """``answer(scores, share) -> float``: a quantile over ranks, exact, by counting."""
    hint = "all ranks make the same calls with as many numbers of the same type, also one without "
    hint += "scores"
    runs = [(n, [case for case in _quantiles.CASES if len(case.counts) == n]) for n in (1, 2, 3, 4)]
    for n, cases in [*runs, (2, [_quantiles.LARGE])]:
        patience = {"timeout": 40} if cases == [_quantiles.LARGE] else {}
        answers = ask.run(_agreed, answer, cases, nprocs=n, hint=hint + WHO_IS_DONE, **patience)
        for case, ranks in zip(cases, zip(*answers, strict=True), strict=True):
            says, right = f"{_ranks(n)}, {case.says}", case.exact()
            if touched := [r for r, one in enumerate(ranks) if not one.untouched]:
                why = f"rank {touched[0]} has changed them: sort() makes new ones, sort_() does not"
                ask.that(False, f"{says}: the scores are as before", why)
            got = [one.answered.got for one in ranks]
            if why := _quantiles.which_mistake(case, got):
                ask.that(False, f"{says}: everyone has {right:.9g}", f"{why} (got {got!s:.90})")
            _few_numbers(ask, says, [one.answered for one in ranks])
            print(f"✓ {says}: everyone has {right:.9g}")
    print(f"✓ in {_MOST_CALLS} calls at most, of so many numbers however many scores there are")


def _few_numbers(ask: Ask, says: str, ranks: Sequence[Answered]) -> None:
    """Few collectives that bring a rank few numbers; silent if so. A rank alone may do anything."""
    hint = "a call that asks for one count halves the range; one that asks for 256 counts makes it "
    hint += "256 times as small, and takes hardly longer"
    for rank, arrive in enumerate(
        few_calls(ask, ranks, _MOST_CALLS, says, ("scores", "counts"), hint)
    ):
        if max(arrive, default=0) > _MOST_NUMBERS + SPARE:
            hint = "what travels must not grow with the scores: counts of one byte are 256 numbers"
            came = f"rank {rank} got {max(arrive):,}"
            ask.that(False, f"{says}: {_MOST_NUMBERS:,} numbers a call at most ({came})", hint)


def _agreed(answer, cases: Sequence[_quantiles.Scores]) -> list[_Agreed]:
    with process_group() as pg:
        results = []
        for case in cases:
            given = case.of(pg.rank)
            one = answered(answer, given, case.share, case=case.says)
            results.append(_Agreed(one, torch.equal(given, case.of(pg.rank))))
            dist.barrier()
        return results


@exercise("51.2 · Precision or recall")
def best_threshold(ask: Ask, answer) -> None:
    """``answer(scores, attack, candidates, precision) -> threshold, precision, recall``."""
    hint = "a rank may have no flows, there may be no attack, and a threshold may raise no alarm; "
    hint += "all ranks make one call, with as many numbers"
    for n in (1, 2, 3, 4):
        cases = [case for case in _trade_offs.CASES if len(case.ranks) == n]
        answers = ask.run(_chosen, answer, cases, nprocs=n, hint=hint + WHO_IS_DONE)
        for case, ranks in zip(cases, zip(*answers, strict=True), strict=True):
            says, right = f"{_ranks(n)}, {case.says}", case.exact()
            for rank, one in enumerate(ranks):
                if why := _trade_offs.odd_form(one.got):
                    ask.that(False, f"{says}: a choice comes back", f"rank {rank}: {why}")
            got = [one.got for one in ranks]
            chosen = "None"
            if right:
                chosen = f"{right[0]:.4g}, with precision {right[1]:.3f} and recall {right[2]:.3f}"
            if why := _trade_offs.which_mistake(case, got):
                why = f"{why} (got {got!s:.90})"
                ask.that(False, f"{says}, at least {case.precision:g}: {chosen}", why)
            aim = "two counts of each candidate, and that of the attacks"
            one_all_reduce(ask, list(ranks), 4 * len(case.candidates), says, aim)
            print(f"✓ {says}, at least {case.precision:g}: {chosen}")
    print("✓ with one all_reduce of counts")


def _chosen(answer, cases: Sequence[_trade_offs.Flows]) -> list[Answered]:
    with process_group() as pg:
        results = []
        for case in cases:
            scores, attack = case.of(pg.rank)
            limits = torch.tensor(case.candidates, dtype=torch.float32)
            given = scores, attack, limits, case.precision
            results.append(answered(answer, *given, case=case.says))
            dist.barrier()
        return results


def _ranks(n: int) -> str:
    return "1 rank" if n == 1 else f"{n} ranks"
