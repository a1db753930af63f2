"""Questions for the exercises of lesson 31: a rate that rises and falls, and one for each depth."""

from collections.abc import Callable

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from course_lib.checks._dealt_steps import RUNS, Run, Trained, train, which_count
from course_lib.checks._depths import BASES, MODELS, Grouped, bert, grouped
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._layer_rates import (
    few,
    right_decays,
    right_rates,
    same,
    which_decays,
    which_order,
    which_rates,
)
from course_lib.checks._warm_ups import (
    BREAKS,
    PEAK,
    PLANS,
    Rates,
    alike,
    follow,
    share,
    which_shares,
)
from course_lib.group import process_group

RATES = ((0.01, 0.8), (0.2, 0.5), (0.003, 1.0))


@exercise("31.1 · Warm up, and come to rest at the last step")
def warm_up(ask: Ask, count_steps, schedule) -> None:
    """``count_steps(texts, rows, accumulate, epochs, world_size) -> int`` and ``warm_up``."""
    hint = "warm may be 0, and it may be steps; there may be a single step"
    ranks = ask.run(_follow_all, schedule, nprocs=2, hint=hint)
    for k, plan in enumerate(PLANS):
        for rank, rates in enumerate(ranks):
            if why := which_shares(rates[k], plan):
                got = ", ".join(f"{row[0]:.3g}" for row in rates[k][:12])
                ask.that(False, f"{plan}: the rates (rank {rank} got {got}, …)", why)
        print(f"✓ {plan}")
    hint = "all that it needs to go on has to be in its state_dict(), in numbers that can be saved"
    resumed = ask.run(_follow_cut, schedule, nprocs=1, hint=hint)[0]
    for cut, rates in zip(BREAKS, resumed, strict=True):
        hint = (
            "what is counted elsewhere begins anew: compute the rate from the scheduler's own step"
        )
        if which_shares(rates, PLANS[-1]):
            ask.that(False, f"saved after {cut} of {PLANS[-1].steps} steps, it goes on", hint)
    print(f"✓ saved after {', '.join(map(str, BREAKS))} steps, made anew and loaded, it goes on")
    hint = (
        "count_steps is called on all ranks with the same arguments, and warm_up with what it says"
    )
    for n in (1, 2, 3):
        runs = [run for run in RUNS if run.ranks == n]
        ranks = ask.run(_train_all, count_steps, schedule, runs, nprocs=n, hint=hint)
        for run, trained in zip(runs, zip(*ranks, strict=True), strict=True):
            _one_run(ask, run, trained)


def _one_run(ask: Ask, run: Run, ranks: tuple[Trained, ...]) -> None:
    says = f"{run}: {run.steps} steps"
    for rank, one in enumerate(ranks):
        if type(one.counted) is not int or one.counted != run.steps:
            what = f"{says} (rank {rank} counted {one.counted!r:.40})"
            ask.that(False, what, which_count(one.counted, run))
    for rank, one in enumerate(ranks):
        expected = [PEAK * share(run.steps, run.steps // 5, k) for k in range(run.steps + 1)]
        if not alike(one.rates, expected):
            hint = "in a run the rates have to be those of the plans above"
            ask.that(False, f"{says}, the last with more than 0, then 0 (rank {rank})", hint)
        if one.weights != ranks[0].weights:
            ask.that(False, f"{says}: one model on all ranks", "the ranks' rates differ")
    print(f"✓ {says}, the last with a rate of {ranks[0].rates[-2]:.2g}, then 0")


def _follow_all(schedule: Callable) -> list[Rates]:
    with process_group():
        return [follow(schedule, plan) for plan in PLANS]


def _follow_cut(schedule: Callable) -> list[Rates]:
    return [follow(schedule, PLANS[-1], cut) for cut in BREAKS]


def _train_all(count: Callable, schedule: Callable, runs: list[Run]) -> list[Trained]:
    with process_group():
        return [train(count, schedule, run) for run in runs]


@exercise("31.2 · A rate for each layer")
def layer_groups(ask: Ask, answer) -> None:
    """``answer(model, rate, shrink) -> groups``: what torch's AdamW makes of them."""
    hint = "a list of {'params': …, 'lr': …}, with each parameter in one of them"
    alone = ask.run(_group_all, answer, nprocs=1, hint=hint)[0]
    for case, make in MODELS.items():
        for (rate, shrink), got in zip(RATES, alone[case], strict=True):
            _one_model(ask, f"{case}, rate {rate:g}, shrink {shrink:g}", make(), got, rate, shrink)
        rate, shrink = RATES[0]
        print(f"✓ {case}: {few(right_rates(make(), rate, shrink))}")
    print("✓ biases and weights of LayerNorms do not decay, all others do as the optimizer says")
    hint = "DDP puts module. in front of each name"
    ranks = ask.run(_group_wrapped, answer, nprocs=2, hint=hint)
    for case, make in MODELS.items():
        for rank, results in enumerate(ranks):
            says = f"{case}, in DDP (rank {rank})"
            _one_model(ask, says, make(), results[case], *RATES[0])
            hint = which_order(results[case].order, ranks[0][case].order)
            if hint:
                ask.that(False, f"{case}, in DDP: one order on all ranks", hint)
    print("✓ in DDP, on 2 ranks, the same")
    for results in ranks:
        first, *others = (results[base] for base in BASES)
        for base, other in zip(BASES[1:], others, strict=True):
            _one_model(ask, f"an encoder called {base}", bert(4, base), other, *RATES[0])
            if hint := which_order(first.order, other.order):
                ask.that(False, "one order, in all ranks and in each run", hint)
    print("✓ in one order, in all ranks and in each run: an optimizer's state goes by numbers")


def _one_model(
    ask: Ask, says: str, model: nn.Module, got: Grouped, rate: float, shrink: float
) -> None:
    if got.wrong:
        ask.that(False, f"{says}: what is to be trained is in one group each", got.wrong)
    right = right_rates(model, rate, shrink)
    if not same(got.rates, right):
        what = f"{says}: {few(right)} (got {few(got.rates)})"
        ask.that(False, what, which_rates(got.rates, model, rate, shrink))
    decays = right_decays(model)
    if got.decays != decays:
        what = f"{says}: biases and norms do not decay, all others do"
        ask.that(False, what, which_decays(got.decays, decays))


def _group_all(answer: Callable) -> dict[str, list[Grouped]]:
    return {
        case: [grouped(answer, make(), rate, shrink) for rate, shrink in RATES]
        for case, make in MODELS.items()
    }


def _group_wrapped(answer: Callable) -> dict[str, Grouped]:
    results = {}
    with process_group() as pg:
        # Other places in memory on each rank: whatever goes by them gets another order.
        models = [[nn.Linear(2, 2) for _ in range(101 * pg.rank)]]
        for case, make in MODELS.items():
            models.append(DistributedDataParallel(make()))
            results[case] = grouped(answer, models[-1], *RATES[0])
    for base in BASES:
        models.append(bert(4, base))
        results[base] = grouped(answer, models[-1], *RATES[0])
    return results
