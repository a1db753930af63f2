"""Exercises of lesson 42: wrong answers are told apart, right ones written differently pass."""

import functools
import os
import random
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed import new_group

from course_lib.checks import lesson_42 as check
from course_lib.checks._rounds import fewest, most_at_once
from course_lib.checks._side_by_side import trained
from course_lib.evaluation import sum_over_ranks

# ---- 42.1 · Six models on four ranks: the plan


def in_equal_groups(sizes, ranks):
    """Rounds of so many models each, on all ranks."""
    rounds, first = [], 0
    for k in sizes:
        each = ranks // k
        rounds.append({first + i: [*range(i * each, i * each + each)] for i in range(k)})
        first += k
    return rounds


def divisors(ranks):
    return [k for k in range(1, ranks + 1) if ranks % k == 0]


@functools.lru_cache
def best_sizes(models, ranks):
    if not models:
        return ()
    options = [(k, *best_sizes(models - k, ranks)) for k in divisors(ranks) if k <= models]
    return min(options, key=len)


def right_plan(models, ranks):
    return in_equal_groups(sorted(best_sizes(models, ranks), reverse=True), ranks)


def right_groups(groups):
    made = {model: dist.new_group(members) for model, members in groups.items()}
    mine = next(model for model, members in groups.items() if dist.get_rank() in members)
    return mine, made[mine]


def all_share_each(models, ranks):
    return in_equal_groups([1] * models, ranks)


def as_many_as_possible(models, ranks):
    sizes = []
    while sum(sizes) < models:
        sizes.append(max(k for k in divisors(ranks) if k <= models - sum(sizes)))
    return in_equal_groups(sizes, ranks)


def half_as_many(models, ranks):
    sizes = []
    while sum(sizes) < models:
        sizes.append(max(k for k in divisors(ranks)[:2] if k <= models - sum(sizes)))
    return in_equal_groups(sizes, ranks)


def one_rank_each(models, ranks):
    return [
        {m: [m - first] for m in range(first, min(first + ranks, models))}
        for first in range(0, models, ranks)
    ]


def rest_on_all_ranks(models, ranks):
    rounds = []
    for first in range(0, models, ranks):
        left = range(first, min(first + ranks, models))
        parts = np.array_split(np.arange(ranks), len(left))
        rounds.append(dict(zip(left, parts, strict=True)))
    return rounds


def rest_in_groups_rounded_down(models, ranks):
    rounds = []
    for first in range(0, models, ranks):
        rounds += in_equal_groups([min(ranks, models - first)], ranks)
        rounds[-1] = {first + m: members for m, members in rounds[-1].items()}
    return rounds


def rounds_of_equal_length(models, ranks):
    rounds = -(-models // ranks) or 1
    parts = np.array_split(np.arange(models), rounds)
    return [
        dict(zip(part.tolist(), np.array_split(np.arange(ranks), len(part)), strict=True))
        for part in parts
        if len(part)
    ]


def loses_the_last(models, ranks):
    return right_plan(max(models - 1, 0), ranks)


def trains_the_first_again(models, ranks):
    return [*right_plan(models, ranks), {0: [*range(ranks)]}]


def models_from_one(models, ranks):
    return [{m + 1: g for m, g in one.items()} for one in right_plan(models, ranks)]


def ranks_from_one(models, ranks):
    plan = right_plan(models, ranks)
    return [{m: [r + 1 for r in g] for m, g in one.items()} for one in plan]


def the_same_ranks_for_all(models, ranks):
    plan = right_plan(models, ranks)
    return [{m: [*range(len(g))] for m, g in one.items()} for one in plan]


def models_without_ranks(models, ranks):
    return [{m: [r] if (r := m % ranks) < 3 else [] for m in range(models)}]


def models_of_each_rank(models, ranks):
    return [{r: m for m, g in one.items() for r in g} for one in right_plan(models, ranks)]


def lists_of_groups(models, ranks):
    return [[*one.values()] for one in right_plan(models, ranks)]


def pairs(models, ranks):
    return [[*one.items()] for one in right_plan(models, ranks)]


def one_dict(models, ranks):
    return {m: g for one in right_plan(models, ranks) for m, g in one.items()}


def names_of_models(models, ranks):
    return [{f"model {m}": g for m, g in one.items()} for one in right_plan(models, ranks)]


def with_an_empty_round(models, ranks):
    return [*right_plan(models, ranks), {}]


def at_least_one_round(models, ranks):
    return right_plan(models, ranks) or [{}]


def by_chance(models, ranks):
    random.seed()
    order = random.sample(range(models), models)
    return [{order[m]: g for m, g in one.items()} for one in right_plan(models, ranks)]


def own_part_only(models, ranks):
    rank = int(os.environ["RANK"])
    plan = right_plan(models, ranks)
    return [{m: g for m, g in one.items() if rank in g} for one in plan]


def needs_a_group(models, ranks):
    return right_plan(models, dist.get_world_size())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(all_share_each, "more of them at once do", id="all share each"),
        pytest.param(as_many_as_possible, "try smaller first rounds, too", id="greedy"),
        pytest.param(half_as_many, "which numbers of models can go at once", id="half as many"),
        pytest.param(one_rank_each, "round 2: rank 2 is idle", id="idle"),
        pytest.param(rest_on_all_ranks, "a group of 2 waits for one of 1", id="unequal"),
        pytest.param(rest_in_groups_rounded_down, "rank 3 is idle", id="rounded down"),
        pytest.param(rounds_of_equal_length, "a group of 2 waits for one of 1", id="3 + 3"),
        pytest.param(loses_the_last, "model 5 is in none", id="one lost"),
        pytest.param(trains_the_first_again, "model 0 is in 2", id="twice"),
        pytest.param(models_from_one, "there is no model 6", id="models from 1"),
        pytest.param(ranks_from_one, "there is no rank 4", id="ranks from 1"),
        pytest.param(the_same_ranks_for_all, "rank 0 is named 4 times", id="overlap"),
        pytest.param(models_without_ranks, "model 3 has no rank", id="no rank"),
        pytest.param(models_of_each_rank, "a list of numbers (model 0: 0)", id="rank → model"),
        pytest.param(lists_of_groups, "a round is a dict", id="lists"),
        pytest.param(pairs, "a round is a dict", id="pairs"),
        pytest.param(one_dict, "return a list of rounds", id="one dict"),
        pytest.param(names_of_models, "numbers of models (got 'model 0')", id="names"),
        pytest.param(with_an_empty_round, "it has no model; leave it out", id="empty round"),
        pytest.param(at_least_one_round, "0 models on 2 ranks", id="no models"),
        pytest.param(by_chance, "nor on chance", id="chance"),
        pytest.param(own_part_only, "not on the rank", id="own part"),
        pytest.param(needs_a_group, "ValueError", id="needs a group"),
        pytest.param(lambda *_: None, "return a list of rounds (got None)", id="None"),
    ],
)
def test_plan_rejects(rejects, answer, says):
    rejects(functools.partial(with_groups, right_groups), answer, says)


def with_groups(my_group, plan):
    check.plan(plan, my_group)


def with_plan(plan, my_group):
    check.plan(plan, my_group)


def short_rounds_first(models, ranks):
    return in_equal_groups(sorted(best_sizes(models, ranks)), ranks)


def every_nth_rank(models, ranks):
    """Groups of ranks that do not lie side by side, models from the last to the first."""
    plan = right_plan(models, ranks)
    return [{models - 1 - m: range(k, ranks, len(one)) for k, m in enumerate(one)} for one in plan]


def in_other_types(models, ranks):
    plan = right_plan(models, ranks)
    return tuple(OrderedDict((np.int64(m), np.array(g)) for m, g in one.items()) for one in plan)


def as_sets(models, ranks):
    return [{m: frozenset(g) for m, g in one.items()} for one in right_plan(models, ranks)]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(short_rounds_first, id="short rounds first"),
        pytest.param(every_nth_rank, id="every N-th rank"),
        pytest.param(in_other_types, id="tuple, OrderedDict, numpy"),
        pytest.param(as_sets, id="sets"),
    ],
)
def test_plan_accepts(accepts, answer):
    accepts(functools.partial(with_groups, right_groups), answer)


def test_the_fewest_rounds_are_the_fewest():
    for ranks in (1, 4, 5, 6, 12, 20):
        for models in range(25):
            assert fewest(models, ranks) == len(best_sizes(models, ranks))
            assert fewest(models, ranks) <= most_at_once(models, ranks)
    assert fewest(8, 20) < most_at_once(8, 20)


# ---- and the groups


def mine_in(groups):
    return next(model for model, members in groups.items() if dist.get_rank() in members)


def only_its_own(groups):
    mine = mine_in(groups)
    return mine, dist.new_group(groups[mine])


def its_own_first(groups):
    mine = mine_in(groups)
    group = dist.new_group(groups[mine])
    for model, members in groups.items():
        if model != mine:
            dist.new_group(members)
    return mine, group


def only_of_several_ranks(groups):
    mine = mine_in(groups)
    return mine, dist.new_group(groups[mine]) if len(groups[mine]) > 1 else None


def the_last_one(groups):
    for members in groups.values():
        group = dist.new_group(members)
    return mine_in(groups), group


def the_first_one(groups):
    made = [dist.new_group(members) for members in groups.values()]
    return mine_in(groups), made[0]


def of_all_ranks(groups):
    return mine_in(groups), dist.group.WORLD


def counts_the_groups(groups):
    model, group = right_groups(groups)
    return [*groups].index(model), group


def by_first_member(groups):
    """A rank that is not the first of its group gets the group of another."""
    made = {members[0]: dist.new_group(members) for members in groups.values()}
    return mine_in(groups), made.get(dist.get_rank(), next(iter(made.values())))


def group_first(groups):
    return right_groups(groups)[::-1]


def only_the_group(groups):
    return right_groups(groups)[1]


def members_of_the_group(groups):
    model, _ = right_groups(groups)
    return model, groups[model]


def only_rank_0_makes_them(groups):
    if dist.get_rank() == 0:
        return right_groups(groups)
    return mine_in(groups), None


def falls_off_the_end(groups):
    for model, members in groups.items():
        if dist.get_rank() in members:
            return model, dist.new_group(members)
        dist.new_group(members)


@pytest.mark.parametrize(
    ("my_group", "says"),
    [
        pytest.param(only_its_own, "all ranks call new_group for every group", id="own"),
        pytest.param(its_own_first, "RuntimeError: group 1 is [", id="own first"),
        pytest.param(only_of_several_ranks, "its group is None", id="None for one"),
        pytest.param(the_last_one, "to a rank that is not in it", id="last"),
        pytest.param(the_first_one, "to a rank that is not in it", id="first"),
        pytest.param(of_all_ranks, "in its group are ranks [0, 1], and [0] share", id="WORLD"),
        pytest.param(counts_the_groups, "shares model 2, and the model returned is 0", id="index"),
        pytest.param(by_first_member, "to a rank that is not in it", id="first member"),
        pytest.param(group_first, "the model comes first", id="exchanged"),
        pytest.param(only_the_group, "return a pair", id="no pair"),
        pytest.param(members_of_the_group, "as new_group gives it (got [0])", id="members"),
        pytest.param(lambda groups: None, "return a pair: a model", id="None"),
    ],
)
def test_my_group_rejects(rejects, my_group, says):
    rejects(functools.partial(with_plan, right_plan), my_group, says)


@pytest.mark.faults
@pytest.mark.parametrize("my_group", [only_rank_0_makes_them, falls_off_the_end])
def test_my_group_survives_ranks_that_do_not_come(verdict, impatient, my_group):
    said = verdict(check.plan, right_plan, my_group)
    assert said.count("✗") == 1
    assert "hint: all ranks call new_group" in said


def until_it_is_mine(groups):
    made, mine = [], None
    for number, members in enumerate(sorted(groups.values(), reverse=True)):
        made.append(new_group(ranks=members))
        mine = number if dist.get_rank() in members else mine
    return torch.tensor(mine_in(groups)), made[mine]


def by_enumeration(groups):
    group, _ = dist.new_subgroups_by_enumeration([*groups.values()])
    return mine_in(groups), group


def local_ones(groups):
    mine = mine_in(groups)
    return mine, dist.new_group(groups[mine], use_local_synchronization=True)


_made = {}


def once_for_all(groups):
    """A group that was there before is not made anew."""
    for members in map(tuple, groups.values()):
        if members not in _made and len(members) < dist.get_world_size():
            _made[members] = dist.new_group(members)
    mine = mine_in(groups)
    return [mine, _made.get(tuple(groups[mine]), dist.group.WORLD)]


@pytest.mark.parametrize(
    "my_group",
    [
        pytest.param(until_it_is_mine, id="by name, from the last"),
        pytest.param(by_enumeration, id="new_subgroups_by_enumeration"),
        pytest.param(local_ones, id="use_local_synchronization"),
        pytest.param(once_for_all, id="kept, WORLD"),
    ],
)
def test_my_group_accepts(accepts, my_group):
    accepts(functools.partial(with_plan, right_plan), my_group)


def test_a_plan_is_judged_before_there_are_groups(verdict):
    def stub(groups):
        raise NotImplementedError

    said = verdict(check.plan, right_plan, stub)
    assert "✓ 8 models on 20 ranks: 4 + 4" in said
    assert said.endswith("\n○ not done yet\n")


def test_a_tiny_model_learns_and_differs_from_the_next():
    assert trained(0, None).shape == (4,)
    assert not torch.allclose(trained(0, None), trained(1, None))


# ---- 42.2 · Average opinions that lie on different ranks


def sums_of(said):
    return said.double().sum(dim=0), said.double().square().sum(dim=0)


def averaged(said, count=None):
    """Sums, squares and a count in one tensor, added up over ranks."""
    plain, squares = sums_of(said)
    count = torch.tensor([len(said)]).double() if count is None else count
    everything = torch.cat([plain.flatten(), squares.flatten(), count])
    dist.all_reduce(everything)
    mean, square = (everything[:-1] / everything[-1]).reshape(2, *plain.shape)
    return mean, square


def opinions(said):
    mean, square = averaged(said)
    return mean, (square - mean.square()).clamp(min=0).sqrt()


def over_ranks(numbers):
    numbers = numbers.clone()
    dist.all_reduce(numbers)
    return numbers


def mean_of_means(said):
    said = said.double()
    own = torch.stack([said.mean(dim=0), said.std(dim=0, correction=0)])
    return tuple(over_ranks(own) / dist.get_world_size())


def mean_of_means_that_are(said):
    """Ranks without members do not count, all others count alike."""
    said = said.double()
    own = torch.stack([said.sum(dim=0), said.square().sum(dim=0)]) / max(len(said), 1)
    everything = over_ranks(torch.cat([own.flatten(), torch.tensor([float(len(said) > 0)])]))
    mean, square = (everything[:-1] / everything[-1]).view_as(own)
    return mean, (square - mean.square()).clamp(min=0).sqrt()


def divides_by_ranks(said):
    mean, spread = opinions(said)
    total = over_ranks(torch.tensor(float(len(said))))
    return mean * total / dist.get_world_size(), spread


def only_sums(said):
    mean, spread = opinions(said)
    return mean * over_ranks(torch.tensor(len(said))), spread


def its_own(said):
    return said.double().mean(dim=0), said.double().std(dim=0, correction=0)


def spread_of_its_own(said):
    return opinions(said)[0], said.double().std(dim=0, correction=0).nan_to_num(0)


def mean_of_spreads(said):
    """The mean is right; of the spreads each rank's own weighs as many as it has members."""
    own = said.double().var(dim=0, correction=0).nan_to_num(0) * len(said)
    plain, _ = sums_of(said)
    count = torch.tensor([len(said)]).double()
    everything = over_ranks(torch.cat([plain.flatten(), own.flatten(), count]))
    mean, variance = (everything[:-1] / everything[-1]).reshape(2, *plain.shape)
    return mean, variance.sqrt()


def of_a_sample(said):
    plain, squares = sums_of(said)
    count = torch.tensor([len(said)]).double()
    everything = over_ranks(torch.cat([plain.flatten(), squares.flatten(), count]))
    n = everything[-1]
    plain, squares = everything[:-1].reshape(2, *plain.shape)
    return plain / n, ((squares - plain.square() / n) / (n - 1)).clamp(min=0).sqrt()


def variance(said):
    mean, spread = opinions(said)
    return mean, spread.square()


def root_mean_square(said):
    mean, square = averaged(said)
    return mean, square.sqrt()


def without_clamp(said):
    mean, square = averaged(said)
    return mean, (square - mean.square()).sqrt()


def in_float32(said):
    plain, squares = said.sum(dim=0), said.square().sum(dim=0)
    everything = torch.cat([plain.flatten(), squares.flatten(), torch.tensor([len(said)])])
    dist.all_reduce(everything)
    mean, square = (everything[:-1] / everything[-1]).reshape(2, *plain.shape).double()
    return mean, (square - mean.square()).clamp(min=0).sqrt()


def adds_in_float32(said):
    plain, squares = said.sum(dim=0).double(), said.square().sum(dim=0).double()
    count = torch.tensor([len(said)]).double()
    everything = over_ranks(torch.cat([plain.flatten(), squares.flatten(), count]))
    mean, square = (everything[:-1] / everything[-1]).reshape(2, *plain.shape)
    return mean, (square - mean.square()).clamp(min=0).sqrt()


def returns_float32(said):
    return tuple(one.float() for one in opinions(said))


def returns_one_tensor(said):
    return torch.cat(opinions(said))


def returns_the_mean(said):
    return opinions(said)[0]


def exchanged(said):
    return opinions(said)[::-1]


def a_list_of_numbers(said):
    return [one.tolist() for one in opinions(said)]


def one_number(said):
    mean, spread = opinions(said)
    return mean.mean(), spread.mean()


def in_two_rounds(said):
    said = said.double()
    count, total = over_ranks(torch.tensor(len(said))), over_ranks(said.sum(dim=0))
    mean = total / count
    return mean, (over_ranks((said - mean).square().sum(dim=0)) / count).sqrt()


def count_on_its_own(said):
    plain, squares = sums_of(said)
    sums, count = over_ranks(torch.stack([plain, squares])), over_ranks(torch.tensor(len(said)))
    mean, square = sums / count
    return mean, (square - mean.square()).clamp(min=0).sqrt()


def gathers_all(said):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, said)
    said = torch.cat(everyone).double()
    return said.mean(dim=0), said.std(dim=0, correction=0)


def gathers_sums(said):
    mine = torch.stack(sums_of(said))
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    return opinions(said)


def a_table_of_zeros(said):
    """As in the lesson: every member of every rank has a place. One all_reduce, of too much."""
    place, ranks = dist.get_rank(), dist.get_world_size()
    table = torch.zeros(ranks, 50, *said.shape[1:], dtype=torch.float64)
    there = torch.zeros(ranks, 50, dtype=torch.float64)
    table[place, : len(said)], there[place, : len(said)] = said.double(), 1
    everything = over_ranks(torch.cat([table.flatten(), there.flatten()]))
    table = everything[: table.numel()].view_as(table)
    said = table[everything[-there.numel() :].view_as(there) == 1]
    return said.mean(dim=0), said.std(dim=0, correction=0)


def rank_0_tells(said):
    plain, squares = sums_of(said)
    count = torch.tensor([len(said)]).double()
    everything = torch.cat([plain.flatten(), squares.flatten(), count])
    dist.reduce(everything, dst=0)
    dist.broadcast(everything, src=0)
    mean, square = (everything[:-1] / everything[-1]).reshape(2, *plain.shape)
    return mean, (square - mean.square()).clamp(min=0).sqrt()


def stays_away(said):
    return opinions(said) if len(said) else (said.sum(dim=0).double(), said.sum(dim=0).double())


def only_rank_0_returns(said):
    pair = opinions(said)
    return pair if dist.get_rank() == 0 else None


def others_get_zeros(said):
    mean, spread = opinions(said)
    return (mean, spread) if dist.get_rank() == 0 else (0 * mean, 0 * spread)


def writes_into_it(said):
    pair = opinions(said)
    said -= pair[0].float()
    return pair


def stumbles_over_none(said):
    return opinions(torch.stack(list(said)))


def waits_for_nobody(said):
    plain, squares = sums_of(said)
    count = torch.tensor([len(said)]).double()
    everything = torch.cat([plain.flatten(), squares.flatten(), count])
    work = dist.all_reduce(everything, async_op=True)
    while not work.is_completed():
        pass
    mean, square = (everything[:-1] / everything[-1]).reshape(2, *plain.shape)
    return mean, (square - mean.square()).clamp(min=0).sqrt()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(mean_of_means, "the mean of the ranks' means", id="mean of means"),
        pytest.param(mean_of_means_that_are, "the mean of the ranks' means", id="of some means"),
        pytest.param(divides_by_ranks, "divide by their number", id="by ranks"),
        pytest.param(only_sums, "divide by their number", id="sum"),
        pytest.param(its_own, "the mean of its own members only", id="own"),
        pytest.param(spread_of_its_own, "the spread of its own members only", id="own spread"),
        pytest.param(mean_of_spreads, "spreads of ranks cannot be averaged", id="within ranks"),
        pytest.param(of_a_sample, "divides by members − 1", id="n − 1"),
        pytest.param(variance, "that is the variance", id="variance"),
        pytest.param(root_mean_square, "take off the square of the mean", id="no mean"),
        pytest.param(without_clamp, "a little below zero", id="no clamp"),
        pytest.param(in_float32, "nearly; begin with said.double()", id="float32"),
        pytest.param(adds_in_float32, "nearly; begin with said.double()", id="late float64"),
        pytest.param(returns_float32, "the mean is torch.float32", id="returns float32"),
        pytest.param(returns_one_tensor, "return a pair of tensors", id="one tensor"),
        pytest.param(returns_the_mean, "return a pair of tensors", id="mean only"),
        pytest.param(exchanged, "the mean over all members", id="exchanged"),
        pytest.param(a_list_of_numbers, "the mean is no tensor", id="lists"),
        pytest.param(one_number, "the mean has the shape []", id="one number"),
        pytest.param(in_two_rounds, "the mean of the squares needs no mean", id="two rounds"),
        pytest.param(count_on_its_own, "fit into one tensor", id="two calls"),
        pytest.param(gathers_all, "all_reduce only their sum", id="gather objects"),
        pytest.param(gathers_sums, "all_reduce only their sum", id="gather sums"),
        pytest.param(a_table_of_zeros, "few numbers travel", id="table of zeros"),
        pytest.param(rank_0_tells, "all_reduce is all that is needed", id="reduce, broadcast"),
        pytest.param(stays_away, "also one without members", id="stays away"),
        pytest.param(only_rank_0_returns, "return a pair of tensors", id="rank 0 only"),
        pytest.param(others_get_zeros, "all need the same", id="zeros elsewhere"),
        pytest.param(writes_into_it, "has changed it", id="in place"),
        pytest.param(stumbles_over_none, "also one without members", id="stack"),
        pytest.param(waits_for_nobody, "nobody waits for the all_reduce", id="no wait"),
        pytest.param(lambda said: None, "return a pair of tensors", id="None"),
    ],
)
def test_ensemble_mean_rejects(rejects, answer, says):
    rejects(check.ensemble_mean, answer, says)


def with_sum_over_ranks(said):
    said = said.double()
    sums = torch.stack([said.sum(dim=0), said.square().sum(dim=0)])
    everything = sum_over_ranks(torch.cat([sums.flatten(), torch.tensor([float(len(said))])]))
    mean, square = (everything[:-1] / everything[-1]).view_as(sums)
    return [mean, (square - mean * mean).relu() ** 0.5]


def member_by_member(said):
    everything = torch.zeros(2 * said.shape[1] * 2 + 1, dtype=torch.float64)
    for member in said.double().flatten(1):
        everything += torch.cat([torch.ones(1), member, member**2])
    work = dist.all_reduce(everything, async_op=True)
    work.wait()
    mean, square = everything[1:].view(2, -1, 2) / everything[0]
    return mean, torch.sqrt(torch.clamp(square - mean**2, min=0.0))


def in_numpy(said):
    numbers = said.numpy().astype(np.float64)
    sums = np.concatenate([numbers.sum(0).ravel(), (numbers**2).sum(0).ravel(), [len(numbers)]])
    everything = torch.from_numpy(sums)
    dist.all_reduce(everything)
    mean, square = (sums[:-1] / sums[-1]).reshape(2, *numbers.shape[1:])
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return torch.from_numpy(mean), torch.from_numpy(spread)


def around_a_number_all_know(said):
    """Deviations from −2, say, are as good as the numbers."""
    mean, square = averaged(said.double() + 2)
    return mean - 2, (square - mean.square()).clamp(min=0).sqrt()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(opinions, id="one tensor"),
        pytest.param(with_sum_over_ranks, id="sum_over_ranks"),
        pytest.param(member_by_member, id="one by one, async"),
        pytest.param(in_numpy, id="numpy"),
        pytest.param(around_a_number_all_know, id="shifted"),
    ],
)
def test_ensemble_mean_accepts(accepts, answer):
    accepts(check.ensemble_mean, answer)


def waits_for_ever(said):
    while dist.get_rank():
        pass
    return opinions(said)


@pytest.mark.faults
def test_ensemble_mean_survives_a_hang(rejects, impatient):
    rejects(check.ensemble_mean, waits_for_ever, "it hangs")


# ---- 42.3 · Bags that do not ask who draws them


def my_members(members):
    return range(dist.get_rank(), members, dist.get_world_size())


def half(order):
    return torch.as_tensor(order)[: len(order) // 2].sort().values


def by_seed(make):
    """An answer that draws each bag from a generator with the seed ``make(seed, member)``."""

    def answer(seed, members, blocks):
        bags = {}
        for member in my_members(members):
            dice = torch.Generator().manual_seed(make(seed, member))
            bags[member] = half(torch.randperm(blocks, generator=dice))
        return bags

    return answer


right_bags = by_seed(lambda seed, member: 1_000_003 * seed + member)


def changed(change):
    """The right bags, each changed."""

    def answer(seed, members, blocks):
        return {m: change(bag, blocks) for m, bag in right_bags(seed, members, blocks).items()}

    return answer


def seeds_the_global_dice(seed, members, blocks):
    bags = {}
    for member in my_members(members):
        torch.manual_seed(1_000_003 * seed + member)
        bags[member] = half(torch.randperm(blocks))
    return bags


def seeds_numpys_dice(seed, members, blocks):
    bags = {}
    for member in my_members(members):
        np.random.seed(1_000_003 * seed + member)
        bags[member] = half(np.random.permutation(blocks))
    return bags


def shuffles_with_pythons_dice(seed, members, blocks):
    bags = {}
    for member in my_members(members):
        random.seed(f"{seed}, {member}")
        bags[member] = half(random.sample(range(blocks), blocks))
    return bags


def reads_the_global_dice(seed, members, blocks):
    with torch.random.fork_rng():
        return {member: half(torch.randperm(blocks)) for member in my_members(members)}


def dice_of_a_rank(seed, members, blocks):
    dice = torch.Generator().manual_seed(seed)
    return {m: half(torch.randperm(blocks, generator=dice)) for m in my_members(members)}


def dice_of_each_rank(seed, members, blocks):
    dice = torch.Generator().manual_seed(1_000_003 * seed + dist.get_rank())
    return {m: half(torch.randperm(blocks, generator=dice)) for m in my_members(members)}


def dice_by_place(seed, members, blocks):
    bags = right_bags(seed, members, blocks)
    first = by_seed(lambda seed, member: 1_000_003 * seed + member // dist.get_world_size())
    return dict(zip(bags, first(seed, members, blocks).values(), strict=True))


def of_all_members(seed, members, blocks):
    return {m: half(np.random.default_rng([seed, m]).permutation(blocks)) for m in range(members)}


def counted_from_zero(seed, members, blocks):
    return dict(enumerate(right_bags(seed, members, blocks).values()))


def without_names(seed, members, blocks):
    return [*right_bags(seed, members, blocks).values()]


def close_together(seed, members, blocks):
    """From five eighths of the blocks, side by side."""
    bags = {}
    for member in my_members(members):
        dice = np.random.default_rng([seed, member])
        some = dice.permutation(5 * blocks // 8)[: blocks // 2]
        bags[member] = torch.tensor((some + dice.integers(blocks)) % blocks).sort().values
    return bags


def never_the_last(seed, members, blocks):
    bags = {}
    for member in my_members(members):
        order = np.random.default_rng([seed, member]).permutation(blocks - 1)
        bags[member] = torch.tensor(order)[: blocks // 2].sort().values
    return bags


def with_replacement(seed, members, blocks):
    bags = {}
    for member in my_members(members):
        drawn = np.random.default_rng([seed, member]).integers(blocks, size=blocks // 2)
        bags[member] = torch.tensor(drawn).sort().values
    return bags


def tells_the_others(seed, members, blocks):
    bags = [of_all_members(seed, members, blocks)]
    dist.broadcast_object_list(bags, src=0)
    return {member: bags[0][member] for member in my_members(members)}


def needs_members(seed, members, blocks):
    assert len(my_members(members)), "no members"
    return right_bags(seed, members, blocks)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(seeds_the_global_dice, "dice that all share lie as before", id="torch"),
        pytest.param(seeds_numpys_dice, "dice that all share lie as before", id="numpy"),
        pytest.param(shuffles_with_pythons_dice, "dice that all share lie as before", id="random"),
        pytest.param(reads_the_global_dice, "the same seed gives the same", id="unseeded"),
        pytest.param(dice_of_a_rank, "go on; make new ones for each", id="one after another"),
        pytest.param(dice_of_each_rank, "make dice for each member", id="seed + rank"),
        pytest.param(dice_by_place, "has the bag that member 0 had", id="by place"),
        pytest.param(by_seed(int.__add__), "of seed 1 has the bag of member 1 of", id="sum"),
        pytest.param(
            by_seed(lambda s, m: 100 * s + m), "member 100 of seed 0 has the bag", id="100"
        ),
        pytest.param(by_seed(lambda s, m: m), "has the bag of member 0 of seed 0", id="no seed"),
        pytest.param(by_seed(lambda s, m: s), "has the bag of member 0 of seed 0", id="no member"),
        pytest.param(of_all_members, "its members are [0, 2, 4], and", id="all members"),
        pytest.param(counted_from_zero, "the bags of [0, 1, 2] came back", id="counted"),
        pytest.param(without_names, "return a dict", id="list"),
        pytest.param(changed(lambda bag, _: bag.tolist()), "a tensor of int64", id="lists"),
        pytest.param(changed(lambda bag, _: bag.int()), "a tensor of int64", id="int32"),
        pytest.param(changed(lambda bag, _: bag.flip(0)), "in rising order", id="order"),
        pytest.param(changed(lambda bag, _: bag + 1), "numbered from 0 to", id="from 1"),
        pytest.param(changed(lambda bag, n: torch.arange(n)), "has 20 of 40 blocks", id="all"),
        pytest.param(close_together, "together is no chance", id="close together"),
        pytest.param(never_the_last, "block 39 is in 0% of the bags", id="never the last"),
        pytest.param(with_replacement, "no block is in a bag twice", id="twice"),
        pytest.param(tells_the_others, "called broadcast_object_list", id="broadcast"),
        pytest.param(needs_members, "a rank may have no members", id="no members"),
        pytest.param(lambda *_: None, "return a dict", id="None"),
    ],
)
def test_my_bags_rejects(rejects, answer, says):
    rejects(check.my_bags, answer, says)


def from_a_list_of_seeds(seed, members, blocks):
    dealt = of_all_members(seed, members, blocks)
    return {member: dealt[member] for member in my_members(members)}


def all_in_a_row(seed, members, blocks):
    """Dice that go on, but every rank throws for all members."""
    dice = torch.Generator().manual_seed(1_000_003 * seed)
    bags = [half(torch.randperm(blocks, generator=dice)) for _ in range(members)]
    return OrderedDict((member, bags[member]) for member in my_members(members))


def puts_the_dice_back(seed, members, blocks):
    with torch.random.fork_rng():
        return seeds_the_global_dice(seed, members, blocks)


def with_words(seed, members, blocks):
    bags = {}
    for member in my_members(members):
        taken = random.Random(f"{seed}, {member}").sample(range(blocks), blocks // 2)
        bags[member] = torch.tensor(sorted(taken))
    return bags


def by_keys(seed, members, blocks):
    """Those blocks whose random numbers are the smaller ones."""
    bags = {}
    for member in my_members(members):
        dice = torch.Generator().manual_seed(hash((seed, member)))
        keys = torch.rand(blocks, generator=dice)
        bags[member] = keys.argsort()[: blocks // 2].sort().values
    return bags


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(right_bags, id="a large factor"),
        pytest.param(from_a_list_of_seeds, id="numpy"),
        pytest.param(all_in_a_row, id="all in a row"),
        pytest.param(puts_the_dice_back, id="fork_rng"),
        pytest.param(with_words, id="random.Random"),
        pytest.param(by_keys, id="hash, argsort"),
    ],
)
def test_my_bags_accepts(accepts, answer):
    accepts(check.my_bags, answer)


# ---- whatever is passed

ASKS = [lambda answer: check.plan(answer, answer), check.ensemble_mean, check.my_bags]


@pytest.mark.parametrize("ask", ASKS)
def test_of_a_stub(verdict, ask):
    def stub(*_):
        raise NotImplementedError

    assert verdict(ask, stub).endswith("\n○ not done yet\n")


@pytest.mark.parametrize("ask", ASKS)
def test_of_what_is_no_function(verdict, ask):
    assert "a function is needed here" in verdict(ask, 7)
