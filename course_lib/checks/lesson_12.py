"""Questions for the exercises of lesson 12."""

import time
from collections import Counter
from datetime import timedelta

import torch
import torch.distributed as dist

from course_lib.checks._engine import Ask, exercise
from course_lib.checks._plans import best_time, plain, time_of
from course_lib.checks._traffic import count_what_is_sent
from course_lib.group import process_group

# Costs and ranks. In each, another careless way of dealing takes more than 4/3 of the best time.
_PLANS = (
    ([1.0, 4.0] * 4, 2),  # in turn: all the long ones to one rank
    ([2.0, 1.5, 2.0, 2.5, 2.0, 2.0, 6.0], 3),  # in the order given: the long one comes last
    ([9.0, 2.0, 2.0, 2.0, 2.0, 1.0], 2),  # sorted, then back and forth
    ([7.0, 1.0, 6.0, 2.0, 5.0, 3.0, 4.0, 2.0, 3.5], 3),
    ([3, 3, 2, 2, 2], 2),
    ([0.5, 2.0], 4),
    ([], 2),
)


@exercise("12.1 · Deal out trials of known length")
def deal(ask: Ask, answer) -> None:
    """``answer(costs, ranks) -> list[list[int]]``: at most 4/3 of the best plan's time."""
    plans = ask.run(_all_plans, answer, _PLANS, nprocs=3)
    ask.that(
        all(repr(rank) == repr(plans[0]) for rank in plans),
        "three ranks come to the same plans",
        "the plan may depend on the arguments only: not on the rank, nor on chance",
    )
    for (costs, ranks), (plan, unchanged) in zip(_PLANS, plans[0], strict=True):
        case = f"{_count(len(costs), 'trial')} on {ranks} ranks"
        if not unchanged:
            ask.that(False, f"{case}: the costs are as before", "sort a copy: sorted(…)")
        _is_a_plan(ask, plan, costs, ranks, case)
        took, best = time_of(plan, costs), best_time(costs, ranks)
        in_turn = time_of([range(r, len(costs), ranks) for r in range(ranks)], costs)
        ask.that(
            took <= best * 4 / 3 + 1e-9,
            f"{case}: done after {took:g} s (the best plan {best:g}, dealt in turn {in_turn:g})",
            _why_so_slow(plan, costs, ranks, took),
        )


def _all_plans(answer, cases):
    plans = []
    for costs, ranks in cases:
        given = list(costs)
        plan = plain(answer(given, ranks))
        plans.append((plan, given == list(costs)))
    return plans


def _is_a_plan(ask: Ask, plan, costs: list[float], ranks: int, case: str) -> None:
    lists = isinstance(plan, list) and all(isinstance(part, list) for part in plan)
    hint = f"return one list of trial numbers for each rank (got {plan!r:.80})"
    if lists and len(plan) < ranks:
        hint = "a rank without trials gets an empty list"
    if not lists or len(plan) != ranks:
        ask.that(False, f"{case}: {ranks} lists", hint)
    dealt = Counter(trial for part in plan for trial in part)
    if dealt != Counter(range(len(costs))):
        hint = f"every trial from 0 to {len(costs) - 1} to exactly one rank (got {plan!r:.80})"
        if dealt == Counter(costs):
            hint = "the numbers of the trials are asked for, not their costs"
        ask.that(False, f"{case}: every trial once", hint)


def _why_so_slow(plan, costs: list[float], ranks: int, took: float) -> str:
    if plan == [[*range(r, len(costs), ranks)] for r in range(ranks)]:
        return "that is dealt in turn: equally many trials each, but not equally long ones"
    loads = [sum(costs[trial] for trial in part) for part in plan]
    slowest = plan[loads.index(took)]
    if len(slowest) > 1 and max(costs) in [costs[trial] for trial in slowest]:
        return (
            "whoever has the longest trial has too much else: deal that one out first, then each "
            "next one to the rank that has least so far"
        )
    return "each trial to the rank that has least to do so far, the longest trial first"


@exercise("12.2 · Only the best travels")
def share_best(ask: Ask, answer) -> None:
    """``answer(score, weights) -> (score, weights)``, called in a group; the best of all ranks."""
    nan = float("nan")
    hint = "all ranks must call the same collectives in the same order, with the same src"
    cases = {
        (3.5, 2.25): "2 ranks, rank 1 is the best",
        (2.0, 3.0, 1.5, 4.0): "4 ranks, rank 2 is the best",
        (7.0, 5.0, 5.0): "3 ranks, two of them equally good",
        (nan, 4.0, 6.0): "3 ranks, and the first has NaN",
    }
    for scores, case in cases.items():
        n, best = len(scores), min(s for s in scores if s == s)
        winner = scores.index(best)
        got = ask.run(_shared, answer, scores, nprocs=n, hint=hint)
        pairs = [pair for pair, _ in got]
        expected = _weights(winner)
        right = [_is_pair(p) and _same_weights(p[1], expected) for p in pairs]
        ask.that(
            all(right) and all(p[0] == best for p in pairs),
            f"{case}: all have its score, {best:g}, and its weights",
            _what_is_wrong(pairs, right, scores, winner),
        )
        size = sum(t.nbytes for t in expected.values())
        ask.that(
            not any(sent > size / 10 for r, (_, sent) in enumerate(got) if r != winner),
            f"{case}: only its weights travel ({size // 1024} KiB)",
            "other ranks sent their weights, too, and nobody needs them: exchange the scores "
            "first, then broadcast from the winner",
        )


def _weights(rank: int) -> dict[str, torch.Tensor]:
    """A state dict of a few tensors, of two types, that tells whose it is."""
    generator = torch.Generator().manual_seed(rank)
    return {
        "0.weight": torch.randn(64, 256, generator=generator),
        "0.bias": torch.randn(64, generator=generator),
        "1.steps": torch.tensor(2**40 + rank),  # a counter, as BatchNorm has one
        "2.weight": torch.randn(1, 64, generator=generator),
    }


def _shared(answer, scores: tuple):
    with process_group() as pg:
        sent = count_what_is_sent()
        got = answer(scores[pg.rank], _weights(pg.rank))
        here = sum(sent)
        dist.barrier()  # whoever left out a collective must not end before the others
        return got, here


def _is_pair(value) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _same_weights(got, expected: dict) -> bool:
    return (
        isinstance(got, dict)
        and set(got) == set(expected)
        and all(isinstance(t, torch.Tensor) for t in got.values())
        and all(got[k].dtype == t.dtype and torch.equal(got[k], t) for k, t in expected.items())
    )


def _what_is_wrong(pairs: list, right: list[bool], scores: tuple, winner: int) -> str:
    if not all(_is_pair(pair) for pair in pairs):
        return "every rank returns a pair: the best score, and its weights"
    shown = f"(scores {list(scores)}, got {[pair[0] for pair in pairs]})"
    holders = [_whose(pair[1], len(scores)) for pair in pairs]
    if all(right):
        return f"the weights are right, the score is not: it is the winner's, a float {shown}"
    if holders == [*range(len(scores))]:
        return f"every rank still has its own weights: broadcast overwrites, on all ranks {shown}"
    if right[winner] and None in holders:
        return "part of the weights is the winner's, part is not: broadcast every tensor of them"
    if len(set(holders)) == 1 and holders[0] is not None:
        other = holders[0]
        if scores[other] != scores[other]:
            return "NaN has won: nothing is smaller than NaN, so min may return it; put it last"
        if scores[other] == scores[winner]:
            return "of equal scores, that of the lowest rank wins"
        return f"rank {other} has won; the smallest score wins {shown}"
    return f"all ranks must end up with the weights of rank {winner} {shown}"


def _whose(weights, ranks: int) -> int | None:
    return next((r for r in range(ranks) if _same_weights(weights, _weights(r))), None)


@exercise("12.3 · A queue without a manager")
def work_off(ask: Ask, answer) -> None:
    """``answer(store, trials, run) -> {trial: score}``, called on every rank."""
    for n, trials in ((2, 7), (3, 8), (4, 9), (3, 2), (1, 3)):
        case = f"{_count(trials, 'trial')} on {_count(n, 'rank')}"
        hint = "fetch one trial, run it, then fetch the next: a rank must not hold any in reserve"
        got = ask.run(_worked_off, answer, trials, nprocs=n, hint=hint)
        times = Counter(trial for _, ran in got for trial in ran)
        wrong = [trial for trial in times if trial not in range(trials)]
        hint = f"{wrong} were run: add returns the value after adding, so it begins with 1"
        ask.that(not wrong, f"{case}: there is no trial but 0 to {trials - 1}", hint)
        twice = [trial for trial in times if times[trial] > 1]
        never = [trial for trial in range(trials) if trial not in times]
        hint = f"trials {never} were never run: does yours begin with trial 0?"
        if twice:
            hint = f"trials {twice} were run more than once: to look and to raise must be one step"
        ask.that(not twice and not never, f"{case}: each is run once", hint)
        hint = "return a dict: the trials that this rank ran, each with what run(trial) returned"
        expected = [{trial: _score(trial) for trial in ran} for _, ran in got]
        answers = [scores for scores, _ in got]
        if all(isinstance(a, dict) for a in answers) and len({*map(len, answers)}) == 1 < n:
            hint += "; not those of the other ranks"
        ask.that(answers == expected, f"{case}: each rank has the scores of its own", hint)
        if 1 < n < trials:
            print(f"✓ {case}: while one trial was long, the others did all the rest")


def _score(trial: int) -> float:
    return 100.0 - trial


def _worked_off(answer, trials: int):
    """One trial, whichever is begun first, lasts until all others are done."""
    with process_group() as pg:
        store, _, _ = next(dist.rendezvous("env://"))
        ours, theirs = dist.PrefixStore("check", store), dist.PrefixStore("answer", store)
        ran = []

        def run(trial: int) -> float:
            ran.append(trial)
            if ours.add("begun", 1) > 1 or pg.world_size == 1:
                if ours.add("done", 1) == trials - 1:
                    ours.set("others are done", "")
            elif trials > 1:
                try:
                    ours.wait(["others are done"], timedelta(seconds=5))
                except RuntimeError:
                    raise RuntimeError(f"trial {trial} was long, and others never begun") from None
            return _score(trial)

        dist.barrier()
        got = answer(_SlowToRead(theirs), trials, run)
        dist.barrier()
        return got, ran


class _SlowToRead:
    """A store in which much can happen between a look and the next step."""

    def __init__(self, store) -> None:
        self._store = store

    def __getattr__(self, name: str):
        def slowly(*args, **kwargs):
            value = getattr(self._store, name)(*args, **kwargs)
            if name == "get" or (name == "add" and 0 in args):
                time.sleep(0.05)
            return value

        return slowly


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
