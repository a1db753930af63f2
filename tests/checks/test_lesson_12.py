"""Exercises of lesson 12: wrong answers are told apart, right ones written differently pass."""

import heapq
import math
import random

import numpy as np
import pytest
import torch
import torch.distributed as dist

from course_lib.checks import lesson_12 as check
from course_lib.checks._plans import best_time, time_of

# ---- 12.1 · Deal out trials of known length


def greedily(order, costs, ranks):
    """Each trial of ``order`` to the rank that has least so far."""
    plan = [[] for _ in range(ranks)]
    for trial in order:
        min(plan, key=lambda part: sum(costs[t] for t in part)).append(trial)
    return plan


def longest_first(costs):
    return sorted(range(len(costs)), key=lambda i: -costs[i])


def in_turn(costs, ranks):
    return [list(range(len(costs)))[r::ranks] for r in range(ranks)]


def in_blocks(costs, ranks):
    return [part.tolist() for part in np.array_split(np.arange(len(costs)), ranks)]


def in_the_order_given(costs, ranks):
    return greedily(range(len(costs)), costs, ranks)


def shortest_first(costs, ranks):
    return greedily(longest_first(costs)[::-1], costs, ranks)


def sorted_then_in_turn(costs, ranks):
    order = longest_first(costs)
    return [order[r::ranks] for r in range(ranks)]


def back_and_forth(costs, ranks):
    plan = [[] for _ in range(ranks)]
    for place, trial in enumerate(longest_first(costs)):
        lap, step = divmod(place, ranks)
        plan[step if lap % 2 == 0 else ranks - 1 - step].append(trial)
    return plan


def by_number_of_trials(costs, ranks):
    plan = [[] for _ in range(ranks)]
    for trial in longest_first(costs):
        min(plan, key=len).append(trial)
    return plan


def all_to_the_first(costs, ranks):
    return [list(range(len(costs))), *([] for _ in range(ranks - 1))]


def deals_costs(costs, ranks):
    return [[costs[i] for i in part] for part in greedily(longest_first(costs), costs, ranks)]


def loses_the_last(costs, ranks):
    return greedily(longest_first(costs)[:-1], costs, ranks)


def leaves_out_idle_ranks(costs, ranks):
    return [part for part in greedily(longest_first(costs), costs, ranks) if part]


def says_who_takes_each(costs, ranks):
    plan = greedily(longest_first(costs), costs, ranks)
    return [next(r for r in range(ranks) if i in plan[r]) for i in range(len(costs))]


def sorts_what_it_was_given(costs, ranks):
    order = longest_first(costs)
    plan = greedily(order, costs, ranks)
    costs.sort()
    return plan


def by_chance(costs, ranks):
    order = longest_first(costs)
    random.seed()
    plan = greedily(order, costs, ranks)
    random.shuffle(plan)
    return plan


def own_part_only(costs, ranks):
    import os

    return [greedily(longest_first(costs), costs, ranks)[int(os.environ["RANK"]) % ranks]]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(in_turn, "that is dealt in turn", id="in turn"),
        pytest.param(in_blocks, "has least so far", id="blocks"),
        pytest.param(in_the_order_given, "deal that one out first", id="order given"),
        pytest.param(shortest_first, "deal that one out first", id="shortest first"),
        pytest.param(sorted_then_in_turn, "has least so far", id="sorted, in turn"),
        pytest.param(back_and_forth, "has least so far", id="back and forth"),
        pytest.param(by_number_of_trials, "has least so far", id="by number"),
        pytest.param(all_to_the_first, "deal that one out first", id="all to one"),
        pytest.param(deals_costs, "not their costs", id="costs"),
        pytest.param(loses_the_last, "every trial from 0 to 7", id="one lost"),
        pytest.param(leaves_out_idle_ranks, "gets an empty list", id="no empty lists"),
        pytest.param(says_who_takes_each, "one list of trial numbers", id="flat"),
        pytest.param(sorts_what_it_was_given, "sort a copy", id="in place"),
        pytest.param(by_chance, "not on the rank, nor on chance", id="chance"),
        pytest.param(own_part_only, "not on the rank, nor on chance", id="own part"),
    ],
)
def test_deal_rejects(rejects, answer, says):
    rejects(check.deal, answer, says)


def with_a_heap(costs, ranks):
    heap = [(0.0, rank, []) for rank in range(ranks)]
    for trial in np.argsort(-np.array(costs), kind="stable"):
        load, rank, part = heapq.heappop(heap)
        part.append(trial)
        heapq.heappush(heap, (load + costs[trial], rank, part))
    return [part for _, _, part in sorted(heap, key=lambda entry: entry[1])]


def as_tuples_of_sets(costs, ranks):
    return tuple({*part} for part in greedily(longest_first(costs), costs, ranks))


def the_best_of_all(costs, ranks):
    """Fill the ranks up to a limit, and raise the limit until all fits."""
    limit = max([sum(costs) / ranks, *costs], default=0)
    while True:
        plan = [[] for _ in range(ranks)]
        for trial in longest_first(costs):
            fits = (p for p in plan if sum(costs[t] for t in p) + costs[trial] <= limit + 1e-9)
            next(fits, []).append(trial)
        if sum(map(len, plan)) == len(costs):
            return plan
        limit *= 1.01


def in_torch(costs, ranks):
    loads, plan = torch.zeros(ranks), [[] for _ in range(ranks)]
    for trial in torch.tensor(costs).argsort(descending=True, stable=True):
        rank = int(loads.argmin())
        plan[rank].append(int(trial))
        loads[rank] += costs[trial]
    return plan


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(with_a_heap, id="heap, numpy numbers"),
        pytest.param(as_tuples_of_sets, id="tuples, sets"),
        pytest.param(the_best_of_all, id="fills up"),
        pytest.param(in_torch, id="torch"),
    ],
)
def test_deal_accepts(accepts, answer):
    accepts(check.deal, answer)


@pytest.mark.parametrize(
    ("costs", "ranks", "best"),
    [([3, 3, 2, 2, 2], 2, 6), ([5, 1, 1], 3, 5), ([], 2, 0), ([2, 2, 2], 1, 6), ([1.5], 4, 1.5)],
)
def test_the_best_time_is_the_best(costs, ranks, best):
    assert best_time(costs, ranks) == best
    assert time_of(greedily(longest_first(costs), costs, ranks), costs) >= best


# ---- 12.2 · Only the best travels


def scores_of_all(score):
    scores = [None] * dist.get_world_size()
    dist.all_gather_object(scores, score)
    return scores


def sort_key(scores):
    return lambda rank: (math.isnan(scores[rank]), scores[rank], rank)


def winner_of(scores):
    return min(range(len(scores)), key=sort_key(scores))


def broadcast_all(weights, src):
    for tensor in weights.values():
        dist.broadcast(tensor, src=src)
    return weights


def keeps_its_own(score, weights):
    return min(scores_of_all(score)), weights


def always_rank_0(score, weights):
    scores = scores_of_all(score)
    return scores[winner_of(scores)], broadcast_all(weights, 0)


def the_largest_wins(score, weights):
    scores = scores_of_all(score)
    src = max(range(len(scores)), key=scores.__getitem__)
    return scores[src], broadcast_all(weights, src)


def the_last_of_equals(score, weights):
    scores = scores_of_all(score)
    src = min(range(len(scores)), key=lambda r: (math.isnan(scores[r]), scores[r], -r))
    return scores[src], broadcast_all(weights, src)


def nan_wins(score, weights):
    scores = scores_of_all(score)
    src = scores.index(min(scores)) if not math.isnan(scores[0]) else 0
    return scores[src], broadcast_all(weights, src)


def gathers_everything(score, weights):
    pairs = scores_of_all((score, weights))
    return pairs[winner_of([s for s, _ in pairs])]


def gathers_tensors(score, weights):
    src = winner_of(scores := scores_of_all(score))
    for name, tensor in weights.items():
        everyone = [torch.empty_like(tensor) for _ in scores]
        dist.all_gather(everyone, tensor)
        weights[name] = everyone[src]
    return scores[src], weights


def adds_zeros(score, weights):
    src = winner_of(scores := scores_of_all(score))
    for tensor in weights.values():
        if dist.get_rank() != src:
            tensor.zero_()
        dist.all_reduce(tensor)
    return scores[src], weights


def the_first_tensor_only(score, weights):
    src = winner_of(scores := scores_of_all(score))
    dist.broadcast(next(iter(weights.values())), src=src)
    return scores[src], weights


def forgets_the_counter(score, weights):
    src = winner_of(scores := scores_of_all(score))
    for tensor in weights.values():
        if tensor.is_floating_point():
            dist.broadcast(tensor, src=src)
    return scores[src], weights


def returns_its_own_score(score, weights):
    return score, broadcast_all(weights, winner_of(scores_of_all(score)))


def returns_weights_only(score, weights):
    return broadcast_all(weights, winner_of(scores_of_all(score)))


def only_the_winner_returns(score, weights):
    src = winner_of(scores := scores_of_all(score))
    broadcast_all(weights, src)
    return (scores[src], weights) if dist.get_rank() == src else None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(keeps_its_own, "still has its own weights", id="own"),
        pytest.param(always_rank_0, "rank 0 has won", id="src=0"),
        pytest.param(the_largest_wins, "the smallest score wins", id="max"),
        pytest.param(the_last_of_equals, "that of the lowest rank wins", id="ties"),
        pytest.param(nan_wins, "NaN has won", id="NaN"),
        pytest.param(gathers_everything, "sent their weights, too", id="objects"),
        pytest.param(gathers_tensors, "sent their weights, too", id="all_gather"),
        pytest.param(adds_zeros, "sent their weights, too", id="all_reduce"),
        pytest.param(the_first_tensor_only, "broadcast every tensor", id="first tensor"),
        pytest.param(forgets_the_counter, "broadcast every tensor", id="floats only"),
        pytest.param(returns_its_own_score, "the score is not", id="own score"),
        pytest.param(returns_weights_only, "every rank returns a pair", id="no pair"),
        pytest.param(only_the_winner_returns, "every rank returns a pair", id="None"),
    ],
)
def test_share_best_rejects(rejects, answer, says):
    rejects(check.share_best, answer, says)


def broadcasts_on_the_winner_alone(score, weights):
    src = winner_of(scores := scores_of_all(score))
    if dist.get_rank() == src:
        broadcast_all(weights, src)
    return scores[src], weights


def everyone_prefers_itself(score, weights):
    return score, broadcast_all(weights, dist.get_rank())


@pytest.mark.faults
@pytest.mark.parametrize("answer", [broadcasts_on_the_winner_alone, everyone_prefers_itself])
def test_share_best_rejects_ranks_that_disagree(verdict, impatient, answer):
    said = verdict(check.share_best, answer)

    assert said.count("✗") == 1
    assert "hint: " in said


def with_reductions(score, weights):
    mine = math.inf if math.isnan(score) else score
    best = torch.tensor(mine, dtype=torch.float64)
    dist.all_reduce(best, op=dist.ReduceOp.MIN)
    rank = dist.get_rank() if mine == best else dist.get_world_size()
    src = torch.tensor(rank)
    dist.all_reduce(src, op=dist.ReduceOp.MIN)
    return best.item(), broadcast_all(weights, int(src))


def as_one_object(score, weights):
    src = winner_of(scores_of_all(score))
    pair = [(score, weights)] if dist.get_rank() == src else [None]
    dist.broadcast_object_list(pair, src=src)
    return pair[0]


def rank_0_decides(score, weights):
    n = dist.get_world_size()
    scores = [None] * n if dist.get_rank() == 0 else None
    dist.gather_object(score, scores, dst=0)
    said = [(winner_of(scores), scores[winner_of(scores)])] if scores else [None]
    dist.broadcast_object_list(said, src=0)
    src, best = said[0]
    return [best, broadcast_all(weights, src)]


def from_hand_to_hand(score, weights):
    src = winner_of(scores := scores_of_all(score))
    for tensor in weights.values():
        if dist.get_rank() == src:
            for other in set(range(len(scores))) - {src}:
                dist.send(tensor, dst=other)
        else:
            dist.recv(tensor, src=src)
    return torch.tensor(scores[src]), weights


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(with_reductions, id="reductions"),
        pytest.param(as_one_object, id="one object"),
        pytest.param(rank_0_decides, id="rank 0 decides"),
        pytest.param(from_hand_to_hand, id="send, recv"),
    ],
)
def test_share_best_accepts(accepts, answer):
    accepts(check.share_best, answer)


# ---- 12.3 · A queue without a manager


def fetch(store):
    return store.add("next", 1) - 1


def dealt_beforehand(store, trials, run):
    return {trial: run(trial) for trial in range(dist.get_rank(), trials, dist.get_world_size())}


def two_at_a_time(store, trials, run):
    scores = {}
    while (first := store.add("next", 2) - 2) < trials:
        scores |= {trial: run(trial) for trial in (first, first + 1) if trial < trials}
    return scores


def counts_from_one(store, trials, run):
    scores = {}
    while (trial := store.add("next", 1)) <= trials:
        scores[trial] = run(trial)
    return scores


def leaves_out_the_first(store, trials, run):
    scores = {}
    while (trial := store.add("next", 1)) < trials:
        scores[trial] = run(trial)
    return scores


def one_too_many(store, trials, run):
    scores = {}
    while (trial := fetch(store)) <= trials:
        scores[trial] = run(trial)
    return scores


def looks_then_raises(store, trials, run):
    scores = {}
    while (trial := store.add("next", 0)) < trials:
        store.add("next", 1)
        scores[trial] = run(trial)
    return scores


def everyone_runs_all(store, trials, run):
    return {trial: run(trial) for trial in range(trials)}


def counts_for_itself(store, trials, run):
    scores = {}
    while (trial := store.add(f"next of {dist.get_rank()}", 1) - 1) < trials:
        scores[trial] = run(trial)
    return scores


def returns_a_list(store, trials, run):
    return list(dealt_right(store, trials, run).values())


def forgets_the_scores(store, trials, run):
    while (trial := fetch(store)) < trials:
        run(trial)
    return {}


def gathers_all(store, trials, run):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, dealt_right(store, trials, run))
    return {trial: score for scores in everyone for trial, score in scores.items()}


def one_each(store, trials, run):
    trial = fetch(store)
    return {trial: run(trial)} if trial < trials else {}


def dealt_right(store, trials, run):
    scores = {}
    while (trial := fetch(store)) < trials:
        scores[trial] = run(trial)
    return scores


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(dealt_beforehand, "must not hold any in reserve", id="in turn"),
        pytest.param(two_at_a_time, "must not hold any in reserve", id="two at a time"),
        pytest.param(counts_from_one, "begins with 1", id="from 1"),
        pytest.param(leaves_out_the_first, "never begun", id="not 0"),
        pytest.param(one_too_many, "begins with 1", id="one too many"),
        pytest.param(looks_then_raises, "must be one step", id="a race"),
        pytest.param(everyone_runs_all, "more than once", id="all"),
        pytest.param(counts_for_itself, "more than once", id="own counter"),
        pytest.param(returns_a_list, "return a dict", id="a list"),
        pytest.param(forgets_the_scores, "return a dict", id="empty"),
        pytest.param(gathers_all, "not those of the other ranks", id="everybody's"),
        pytest.param(one_each, "never begun", id="one each"),
    ],
)
def test_work_off_rejects(rejects, answer, says):
    rejects(check.work_off, answer, says)


def waits_for_a_key(store, trials, run):
    store.get("go")
    return dealt_right(store, trials, run)


@pytest.mark.faults
def test_work_off_survives_an_answer_that_waits_for_nothing(rejects, impatient):
    rejects(check.work_off, waits_for_a_key, "it hangs")


def claims_each(store, trials, run):
    return {t: run(t) for t in range(trials) if store.add(f"claimed {t}", 1) == 1}


def from_the_end(store, trials, run):
    scores = {}
    while (trial := trials - store.add("taken", 1)) >= 0:
        scores[trial] = run(trial)
    return scores


def down_to_zero(store, trials, run):
    def fetched():
        while (trial := store.add("left", -1) + trials) >= 0:
            yield trial

    return {trial: run(trial) for trial in fetched()}


def by_compare_set(store, trials, run):
    scores = {}
    for trial in range(trials):
        if (
            store.compare_set(f"owner {trial}", "", str(dist.get_rank()))
            == str(dist.get_rank()).encode()
        ):
            scores[trial] = run(trial)
    return scores


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(claims_each, id="a counter a trial"),
        pytest.param(from_the_end, id="from the end"),
        pytest.param(down_to_zero, id="a generator"),
        pytest.param(by_compare_set, id="compare_set"),
    ],
)
def test_work_off_accepts(accepts, answer):
    accepts(check.work_off, answer)
