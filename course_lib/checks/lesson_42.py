"""Questions for the exercises of lesson 42: nobody idles, and every opinion weighs the same."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist

from course_lib.checks import _bags, _opinions, _rounds
from course_lib.checks._alike import names_of, same_calls_everywhere
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._groups import same_groups_everywhere
from course_lib.checks._one_sum import Answered, answered, one_all_reduce
from course_lib.checks._patterns import WHO_IS_DONE
from course_lib.checks._side_by_side import Outcome, carry_out, trained
from course_lib.group import process_group
from course_lib.tracing import trace

_CARRIED_OUT = ((3, 2), (4, 3), (6, 4), (7, 4), (5, 6))  # of the cases, models and ranks


@exercise("42.1 · Six models on four ranks")
def plan(ask: Ask, answer, my_group) -> None:
    """``answer(models, ranks) -> rounds``; ``my_group(round) -> (model, group)`` on all ranks."""
    plans = ask.run(_all_plans, answer, nprocs=3)
    hint = "the plan may depend on the arguments only: not on the rank, nor on chance"
    ask.that(all(one == plans[0] for one in plans), "three ranks come to the same plans", hint)
    planned = dict(zip(_rounds.CASES, plans[0], strict=True))
    for (models, ranks), rounds in planned.items():
        case = _case(models, ranks)
        if isinstance(rounds, str):
            ask.that(False, f"{case}: rounds, with models and their ranks", rounds)
        says, hint = _rounds.what_is_wrong(rounds, models, ranks)
        if says:
            ask.that(False, f"{case}: {says}", hint)
        at_once = " + ".join(str(len(one)) for one in rounds) or "no round"
        print(f"✓ {case}: {at_once}, {float(_rounds.units(rounds)):.4g} units of time")
    hint = "all ranks call new_group for every group of the round, also for those of the others, "
    hint += "and in one order"
    for n in sorted({ranks for _, ranks in _CARRIED_OUT}):
        cases = [case for case in _CARRIED_OUT if case[1] == n]
        plans = [planned[case] for case in cases]
        answers = ask.run(_carried_out, my_group, plans, nprocs=n, hint=hint + WHO_IS_DONE)
        for case, rounds, outcomes in zip(cases, plans, zip(*answers, strict=True), strict=True):
            _as_planned(ask, _case(*case), rounds, outcomes)


def _all_plans(answer) -> list[_rounds.Rounds | str]:
    return [_rounds.rounds_of(answer(models, ranks)) for models, ranks in _rounds.CASES]


def _carried_out(my_group, plans: Sequence[_rounds.Rounds]) -> list[Outcome]:
    with process_group(), _same_groups_or_local_ones(my_group):
        outcomes = []
        for rounds in plans:
            outcomes.append(carry_out(my_group, rounds))
            if outcomes[-1].wrong:  # the groups of the ranks may differ by now
                break
        dist.barrier()
        return outcomes + [Outcome([], {})] * (len(plans) - len(outcomes))


@contextmanager
def _same_groups_or_local_ones(my_group) -> Iterator[None]:
    """As `same_groups_everywhere`; but whoever synchronises locally need not ask for all groups."""
    original = dist.new_group
    with same_groups_everywhere(my_group):
        compared = dist.new_group

        def new_group(*args, **kwargs):
            local = kwargs.get("use_local_synchronization")
            return (original if local else compared)(*args, **kwargs)

        with patch.object(dist, "new_group", new_group):
            yield


def _as_planned(ask: Ask, case: str, rounds: _rounds.Rounds, outcomes: Sequence[Outcome]) -> None:
    says = f"{case}, carried out"
    if wrong := next(filter(None, outcomes[0].wrong), ""):
        ask.that(False, f"{says}: each rank has its model and its group", wrong)
    for rank, outcome in enumerate(outcomes):
        for model, weights in outcome.weights.items():
            if not torch.allclose(weights, trained(model, None), rtol=1e-9):
                hint = f"rank {rank}: model {model} has other weights than one rank would give it"
                ask.that(False, f"{says}: each group trains its model", hint)
    sizes = " and ".join(str(len(next(iter(one.values())))) for one in rounds)
    print(f"✓ {says} in groups of {sizes}: each model as one rank would have trained it")


class _Averaged(NamedTuple):
    """What one rank got for one question.

    Attributes:
        answered: What was called, and the pair that was returned, or what is wrong with it.
        untouched: Whether the members' predictions are as before.
    """

    answered: Answered
    untouched: bool


@exercise("42.2 · Average opinions that lie on different ranks")
def ensemble_mean(ask: Ask, answer) -> None:
    """``answer(said) -> mean, spread``: over the members of all ranks, by one all_reduce."""
    hint = "all ranks make the same calls with as many numbers, also one without members"
    for n in (1, 2, 3, 4):
        cases = [case for case in _opinions.CASES if len(case.members) == n]
        answers = ask.run(_averaged, answer, cases, nprocs=n, hint=hint + WHO_IS_DONE)
        for case, ranks in zip(cases, zip(*answers, strict=True), strict=True):
            says = f"{_count(n, 'rank')}, {case.says}"
            results = [one.answered for one in ranks]
            for rank, one in enumerate(ranks):
                if not one.untouched:
                    ask.that(False, f"{says}: said is as before", f"rank {rank} has changed it")
                if isinstance(one.answered.got, str):
                    why = f"rank {rank}: {one.answered.got}"
                    ask.that(False, f"{says}: mean and spread come back", why)
            what, why = _opinions.which_mistake(case, [one.got for one in results])
            if what:
                ask.that(False, f"{says}: {what}", why)
            _one_call(ask, says, case, results)
            print(f"✓ {says}: mean and spread of {_count(case.samples, 'answer')}")
    print("✓ with one all_reduce of two sums and a count")


def _one_call(ask: Ask, says: str, case: _opinions.Opinions, results: list[Answered]) -> None:
    """One all_reduce of few numbers; silent if so."""
    names = [call.name for call in results[0].calls]
    if len(results) > 1 and names == ["all_reduce"] * len(names) and len(names) > 1:
        hint = "the mean of the squares needs no mean to begin with: sums, sums of squares and the "
        hint += "count fit into one tensor (torch.cat)"
        called = ", ".join(map(str, results[0].calls))
        ask.that(False, f"{says}: one all_reduce, and nothing else (called {called})", hint)
    one_all_reduce(ask, results, _opinions.numbers(case), says, "two sums of each answer, a count")


def _averaged(answer, cases: Sequence[_opinions.Opinions]) -> list[_Averaged]:
    with process_group() as pg:
        results = []
        for case in cases:
            said = case.said()[pg.rank]
            given = said.clone()
            one = answered(answer, given, case=case.says)
            got: Any = _opinions.odd_form(one.got, case) or one.got
            results.append(_Averaged(one._replace(got=got), torch.equal(given, said)))
            dist.barrier()
        return results


class _Drawn(NamedTuple):
    """The bags of one rank, or what is wrong with them; which dice it moved; what it called."""

    bags: _bags.Bags | str
    moved: bool
    called: list[str]


@exercise("42.3 · Bags that do not ask who draws them")
def my_bags(ask: Ask, answer) -> None:
    """``answer(seed, members, blocks) -> {member: bag}``: the same for every number of ranks."""
    alone: list[_bags.Bags] = []
    for n in (1, 2, 3, 4):
        answers = ask.run(_drawn, answer, nprocs=n, hint="a rank may have no members" + WHO_IS_DONE)
        for draw, ranks in zip(_bags.DRAWS, zip(*answers, strict=True), strict=True):
            _each_draws(ask, f"{_count(n, 'rank')}, {_count(draw.members, 'member')}", ranks)
        bags = [
            {m: bag for one in ranks for m, bag in one.bags.items()}
            for ranks in zip(*answers, strict=True)
        ]
        alone = alone or bags
        says, hint = _bags.why_others(alone, bags, n)
        if says:
            ask.that(False, f"{_count(n, 'rank')}: {says}", hint)
        if n == 1:
            says, hint = _bags.what_is_alike(bags)
            ask.that(not says, says or "a bag for every seed and member, no two alike", hint)
            hint = _bags.why_unfair(bags)
            ask.that(not hint, "every block is in about half of the bags, by chance", hint)
        else:
            print(f"✓ {_count(n, 'rank')}: each draws those of its members, and they are the same")
    print("✓ nothing is sent, and the dice that all share lie as before")


def _each_draws(ask: Ask, says: str, ranks: Sequence[_Drawn]) -> None:
    """Each rank has well-formed bags of its own members; silent if so."""
    for rank, one in enumerate(ranks):
        if one.called:
            hint = f"rank {rank} called {one.called[0]}: each can draw for its members alone"
            ask.that(False, f"{says}: nothing is sent", hint)
        if isinstance(one.bags, str):
            ask.that(False, f"{says}: a bag for each member", f"rank {rank}: {one.bags}")
        if one.moved:
            hint = "whatever is drawn from them next, weights for example, has changed: make dice "
            hint += "of your own, torch.Generator() or np.random.default_rng(…)"
            ask.that(False, f"{says}: the dice that all share lie as before", hint)


def _drawn(answer) -> list[_Drawn]:
    names, results = names_of(answer), []
    with process_group() as pg:
        for k, draw in enumerate(_bags.DRAWS):
            _bags.stir(10 * k + pg.rank)
            before = _bags.dice()
            with same_calls_everywhere(names, f"draw {k}"), trace(names) as record:
                got = answer(*draw)
            moved = _bags.dice() != before
            bags = _bags.bags_of(got, draw, range(pg.rank, draw.members, pg.world_size))
            results.append(_Drawn(bags, moved, [o.name for o in record.operations]))
            dist.barrier()
        return results


def _case(models: int, ranks: int) -> str:
    return f"{_count(models, 'model')} on {_count(ranks, 'rank')}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
