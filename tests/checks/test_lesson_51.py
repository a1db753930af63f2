"""Exercises of lesson 51: wrong answers are told apart, right ones written differently pass."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed import all_reduce

from course_lib.checks import lesson_51 as check
from course_lib.checks._quantiles import CASES
from course_lib.checks._quantiles import which_mistake as which_quantile
from course_lib.checks._trade_offs import CASES as FLOWS
from course_lib.checks._trade_offs import which_mistake as which_choice
from course_lib.evaluation import sum_over_ranks

# ---- 51.1 · A threshold in four calls


def summed(counts):
    dist.all_reduce(counts)
    return counts


def up(share, n):
    return math.ceil(share * n)


def right(scores, share, *, number=up, total=summed, shifts=(24, 16, 8, 0), width=8):
    """By digits of the bits, so many at a time."""
    bits, known, wanted = scores.view(torch.int32).long(), 0, None
    for shift in shifts:
        counts = total(torch.bincount(bits >> shift & 2**width - 1, minlength=2**width))
        if wanted is None:
            wanted = number(share, counts.sum().item())
        up_to = counts.cumsum(dim=0)
        digit = min((up_to < wanted).sum().item(), 2**width - 1)
        wanted -= (up_to - counts)[digit].item()
        known = known << width | digit
        bits = bits[bits >> shift == known]
    return torch.tensor(known << shift, dtype=torch.int32).view(torch.float32).item()


def own(scores, share):
    return scores.sort().values[up(share, len(scores)) - 1].item() if len(scores) else math.nan


def mean_of_quantiles(scores, share):
    mine = own(scores, share)
    mine = [0.0, 0] if math.isnan(mine) else [mine, 1]
    total, ranks = summed(torch.tensor(mine, dtype=torch.float64)).tolist()
    return total / ranks


def mean_weighted_by_counts(scores, share):
    mine = 0.0 if not len(scores) else own(scores, share)
    both = torch.tensor([len(scores) * mine, len(scores)], dtype=torch.float64)
    total, n = summed(both).tolist()
    return total / n


def largest_quantile(scores, share):
    mine = torch.tensor(max(0.0, own(scores, share)) if len(scores) else 0.0)
    dist.all_reduce(mine, op=dist.ReduceOp.MAX)
    return mine.item()


def gathered(scores):
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, scores)
    return torch.cat(parts)


def gathers_objects(scores, share):
    return own(gathered(scores), share)


def interpolates(scores, share):
    return float(np.quantile(gathered(scores).double().numpy(), share))


def in_the_middle(scores, share):
    """Between the two neighbours where a whole number comes out, like a median."""
    ordered, at = gathered(scores).double().sort().values, share * len(gathered(scores))
    k = math.ceil(at)
    return ordered[k - 1 : k + 1 if k == at < len(ordered) else k].mean().item()


def gathers_padded(scores, share):
    most = torch.tensor([len(scores)])
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    mine = torch.full((most.item(),), torch.inf)
    mine[: len(scores)] = scores
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    everything = torch.cat(parts)
    return own(everything[everything.isfinite()], share)


def distinct_only(scores, share):
    return right(scores.unique(), share)


def each_rank_by_its_own_number(scores, share):
    """The counts are those of all, but the rank in them is this rank's alone."""
    wanted = up(share, len(scores)) * dist.get_world_size()
    return right(scores, share, number=lambda share, n: min(n, max(1, wanted)))


def floor(scores, share):
    return right(scores, share, number=lambda share, n: max(1, math.floor(share * n)))


def one_more(scores, share):
    return right(scores, share, number=lambda share, n: math.floor(share * n) + 1)


def from_0(scores, share):
    return right(scores, share, number=lambda share, n: math.ceil(share * (n - 1)) + 1)


def number_in_float32(scores, share):
    def number(share, n):
        return (torch.tensor(n, dtype=torch.float32) * share).ceil().int().item()

    return right(scores, share, number=number)


def counts_in_float32(scores, share):
    return right(scores, share, total=lambda counts: summed(counts.float()))


def above(scores, share):
    return right(scores, 1 - share, number=lambda share, n: max(1, up(share, n)))


def three_bytes(scores, share):
    return right(scores, share, shifts=(24, 16, 8))


def by_values(scores, share):
    """Halve the range of the values, thirty times."""
    top = scores.max() if len(scores) else torch.tensor(0.0)
    dist.all_reduce(top, op=dist.ReduceOp.MAX)
    low, high = 0.0, top.item()
    wanted = up(share, summed(torch.tensor(len(scores))).item())
    for _ in range(30):
        middle = (low + high) / 2
        enough = summed((scores <= middle).sum()).item() >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def bit_by_bit(scores, share):
    """As the lesson does."""
    wanted = up(share, summed(torch.tensor(len(scores))).item())
    bits, low, high = scores.view(torch.int32), 0, 2**31 - 1
    while low < high:
        middle = (low + high) // 2
        if summed((bits <= middle).sum()).item() >= wanted:
            high = middle
        else:
            low = middle + 1
    return torch.tensor(low, dtype=torch.int32).view(torch.float32).item()


def two_bytes_a_call(scores, share):
    return right(scores, share, shifts=(16, 0), width=16)


def only_rank_0(scores, share):
    found = right(scores, share)
    return found if dist.get_rank() == 0 else None


def by_reduce(scores, share):
    def total(counts):
        dist.reduce(counts, dst=0)
        return counts

    return right(scores, share, total=total)


def a_tensor(scores, share):
    return torch.tensor(right(scores, share))


def a_numpy_float(scores, share):
    return np.float32(right(scores, share))


def empty_stays_away(scores, share):
    return right(scores, share) if len(scores) else 0.0


def sorts_in_place(scores, share):
    scores.copy_(scores.sort().values)
    return right(scores, share)


def nobody_waits(scores, share):
    def total(counts):
        work = dist.all_reduce(counts, async_op=True)
        while not work.is_completed():
            pass
        return counts

    return right(scores, share, total=total)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (own, "quantile of this rank's scores"),
        (mean_of_quantiles, "cannot be averaged"),
        (mean_weighted_by_counts, "cannot be averaged"),
        (largest_quantile, "cannot be averaged"),
        (gathers_objects, "scores stay where they are"),
        (gathers_padded, "must not grow with the scores"),
        (interpolates, "no interpolation"),
        (in_the_middle, "no interpolation"),
        (distinct_only, "equal scores count one by one"),
        (each_rank_by_its_own_number, "ranks differ"),
        (floor, "has number 8: ceil(share × 9), from 1 (too few"),
        (one_more, "has number 4: ceil(share × 8), from 1 (a smaller one"),
        (from_0, "has number 4: ceil(share × 8)"),
        (number_in_float32, "In float32 the product"),
        (counts_in_float32, "float32 cannot count beyond"),
        (above, "shall lie at or below"),
        (three_bytes, "its first 24 bits are right"),
        (by_values, "nearly: go on until all 31 bits"),
        (bit_by_bit, "5 calls at most"),
        (two_bytes_a_call, "counts of one byte are 256"),
        (only_rank_0, "only rank 0 has it"),
        (by_reduce, "ranks differ"),
        (a_tensor, "tensor.item()"),
        (a_numpy_float, "float(…)"),
        (empty_stays_away, "also one without scores"),
        (sorts_in_place, "the scores are as before"),
        (nobody_waits, "nobody waits for the all_reduce"),
    ],
)
def test_global_threshold_rejects(rejects, answer, says):
    rejects(check.global_threshold, answer, says)


def waits_for_a_message(scores, share):
    if not len(scores):
        dist.recv(torch.zeros(2), src=0)
    return right(scores, share)


@pytest.mark.faults
def test_global_threshold_names_the_rank_that_hangs(verdict, impatient):
    said = verdict(check.global_threshold, waits_for_a_message)
    assert "it hangs" in said
    assert "test_lesson_51.py, line" in said


def with_a_count_first(scores, share):
    """Five calls, the sums in float64."""
    n = summed(torch.tensor(len(scores))).item()
    return right(scores, share, number=lambda share, _: up(share, n), total=sum_over_ranks)


def by_edges(scores, share):
    """How many lie at or below each of 1,000 edges between two bit patterns."""
    bits, low, high = scores.view(torch.int32).sort().values.long(), -1, 2**31 - 1
    wanted = None
    while high - low > 1:  # the float lies above low, at or below high
        inner = torch.linspace(low, high, 1002, dtype=torch.float64).long()
        counts = torch.searchsorted(bits, inner, right=True)
        all_reduce(counts)
        wanted = wanted or int(np.ceil(share * counts[-1].item()))
        first = int(np.searchsorted(counts.numpy(), wanted))
        low, high = inner[first - 1].item(), inner[first].item()
    return float(np.array([high], dtype=np.int32).view(np.float32)[0])


def in_numpy(scores, share):
    bits, keep, prefix, number = scores.numpy().view(np.uint32), slice(None), 0, 0
    for shift in (24, 16, 8, 0):
        counts, _ = np.histogram(bits[keep] >> shift & 255, bins=np.arange(257))
        counts = torch.from_numpy(counts)
        dist.all_reduce(counts, async_op=True).wait()
        number = number or up(share, int(counts.sum()))
        up_to = np.cumsum(counts.numpy())
        byte = int(np.argmax(up_to >= number))
        number -= int(up_to[byte] - counts[byte])
        prefix = prefix * 256 + byte
        keep = bits >> shift == prefix
    return float(np.uint32(prefix).view(np.float32))


@pytest.mark.parametrize("answer", [right, with_a_count_first, by_edges, in_numpy])
def test_global_threshold_accepts(accepts, answer):
    accepts(check.global_threshold, answer)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_the_threshold_is_numpys(case):
    exact = np.quantile(case.all().numpy(), case.share, method="inverted_cdf").item()
    assert case.exact() == exact
    assert which_quantile(case, [exact] * len(case.counts)) == ""
    assert torch.equal(torch.cat([*map(case.of, range(len(case.counts)))]), case.all())


# ---- 51.2 · Precision or recall


def counted(scores, attack, candidates, *, alarm=torch.gt):
    """Alarms and hits of each candidate, and the attacks."""
    alarms = alarm(scores, candidates[:, None])
    hits = alarms & (attack == 1)
    return torch.cat([alarms.sum(1), hits.sum(1), attack.sum()[None]])


def points(counts, candidates):
    *both, attacks = counts.tolist()
    k = len(candidates)
    each = zip(candidates.tolist(), both[:k], both[k:], strict=True)
    return [(limit, alarms, hits, attacks) for limit, alarms, hits in each]


def precise(point, of_nothing=math.nan):
    return point[2] / point[1] if point[1] else of_nothing


def told(point):
    return point and (point[0], precise(point, 0.0), point[2] / point[3])


def highest_recall(good):
    return max(good, key=lambda one: (one[2], one[0]), default=None)


def choice(
    *,
    alarm=torch.gt,
    total=summed,
    enough=lambda point, least: precise(point) >= least,
    best=highest_recall,
    say=told,
    sort=lambda points: points,
):
    def answer(scores, attack, candidates, precision):
        counts = total(counted(scores, attack, candidates, alarm=alarm))
        some = sort(points(counts, candidates))
        return say(best([one for one in some if enough(one, precision)]))

    return answer


def until_it_fails(scores, attack, candidates, precision):
    counts = summed(counted(scores, attack, candidates))
    best = None
    for point in sorted(points(counts, candidates), reverse=True):
        if not precise(point, 1.0) >= precision:
            break
        best = point if point[1] and (best is None or point[2] > best[2]) else best
    return told(best)


def mean_of_precisions(scores, attack, candidates, precision):
    counts = counted(scores, attack, candidates)
    k = len(candidates)
    own = counts[k : 2 * k].double() / counts[:k].clamp(min=1)
    both = summed(torch.cat([own, counts.double()]))
    means = (both[:k] / dist.get_world_size()).tolist()
    some = zip(means, points(both[k:], candidates), strict=True)
    good = [(p[2], p[0], mean, p[3]) for mean, p in some if mean >= precision]
    hits, limit, mean, attacks = max(good, default=(0, None, 0, 0))
    return None if limit is None else (limit, mean, hits / max(attacks, 1))


def quiet_normals_are_hits(scores, attack, candidates, precision):
    alarms = scores > candidates[:, None]
    agree = alarms == attack.bool()
    counts = summed(torch.cat([alarms.sum(1), agree.sum(1), attack.sum()[None]]))
    good = [one for one in points(counts, candidates) if precise(one) >= precision]
    return told(highest_recall(good))


def normals_are_attacks(scores, attack, candidates, precision):
    return choice()(scores, 1 - attack, candidates, precision)


def recall_on_own(scores, attack, candidates, precision):
    found = choice()(scores, attack, candidates, precision)
    if found is None:
        return None
    caught = ((scores > found[0]) & (attack == 1)).sum() / attack.sum().clamp(min=1)
    return found[0], found[1], caught.item()


def in_float32(scores, attack, candidates, precision):
    counts = summed(counted(scores, attack, candidates).float())
    k = len(candidates)
    found = choice(total=lambda _: counts)(scores, attack, candidates, precision)
    if found is None:
        return None
    at = candidates.tolist().index(found[0])
    return found[0], (counts[k + at] / counts[at]).item(), (counts[k + at] / counts[-1]).item()


def a_call_a_candidate(scores, attack, candidates, precision):
    counts = [summed(counted(scores, attack, limit[None])) for limit in candidates]
    some = [points(one, limit[None])[0] for one, limit in zip(counts, candidates, strict=True)]
    return told(highest_recall([one for one in some if precise(one) >= precision]))


def gathers_flows(scores, attack, candidates, precision):
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (scores, attack))
    scores, attack = map(torch.cat, zip(*parts, strict=True))
    return choice(total=lambda counts: counts)(scores, attack, candidates, precision)


def empty_rank_stays_away(scores, attack, candidates, precision):
    return choice()(scores, attack, candidates, precision) if len(scores) else None


def rank_0_chooses(scores, attack, candidates, precision):
    found = choice()(scores, attack, candidates, precision)
    return found if dist.get_rank() == 0 else None


def in_given_order(good):
    return max(good, key=lambda one: one[2], default=None)


def lowest_of_equals(good):
    return min(good, key=lambda one: (-one[2], one[0]), default=None)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(choice(total=lambda c: c), "this rank's part only", id="own"),
        pytest.param(mean_of_precisions, "mean of the ranks' precisions", id="means"),
        pytest.param(choice(alarm=torch.ge), "is no alarm: score > threshold", id="≥"),
        pytest.param(choice(alarm=torch.lt), "*above* the threshold", id="below"),
        pytest.param(choice(enough=lambda p, x: precise(p) > x), "it may be just that", id=">"),
        pytest.param(choice(enough=lambda p, x: precise(p, 1.0) >= x), "0 ÷ 0", id="0/0 is 1"),
        pytest.param(choice(enough=lambda p, x: True), "not precise enough", id="any"),
        pytest.param(
            choice(enough=lambda p, x: p[2] / p[1] >= x), "may raise no alarm", id="divides by 0"
        ),
        pytest.param(choice(best=lambda g: max(g, default=None)), "highest threshold", id="top"),
        pytest.param(
            choice(best=lambda good: max(good, key=precise, default=None)),
            "the most precise one",
            id="precise",
        ),
        pytest.param(choice(best=lambda g: next(iter(g), None)), "first in the list", id="first"),
        pytest.param(choice(best=in_given_order), "of equal recall the highest", id="order"),
        pytest.param(choice(best=lowest_of_equals), "of equal recall the highest", id="lowest"),
        pytest.param(until_it_fails, "fall and rise again", id="stops"),
        pytest.param(quiet_normals_are_hits, "count alarms, hits", id="agree"),
        pytest.param(normals_are_attacks, "1 is an attack", id="normals"),
        pytest.param(recall_on_own, "the threshold is right", id="own recall"),
        pytest.param(in_float32, "nearly", id="float32"),
        pytest.param(
            choice(say=lambda p: p and (p[0], p[2] / p[3], precise(p))), "comes before", id="swaps"
        ),
        pytest.param(choice(say=lambda p: p and p[0]), "precision, recall, or None", id="one"),
        pytest.param(
            choice(say=lambda p: p and (*map(torch.tensor, told(p)),)),
            "tensor.item()",
            id="tensors",
        ),
        pytest.param(
            choice(say=lambda p: told(p) or (math.inf, 0.0, 0.0)), "None is asked for", id="inf"
        ),
        pytest.param(a_call_a_candidate, "into one tensor", id="calls"),
        pytest.param(gathers_flows, "all_reduce only their sum", id="gathers"),
        pytest.param(empty_rank_stays_away, "all ranks make one call", id="stays away"),
        pytest.param(rank_0_chooses, "only rank 0 has it", id="rank 0"),
    ],
)
def test_best_threshold_rejects(rejects, answer, says):
    rejects(check.best_threshold, answer, says)


def by_confusion(scores, attack, candidates, precision):
    """Four counts a candidate, in float64."""
    cells = []
    for limit in candidates:
        cells.append(torch.bincount(2 * attack + (scores > limit), minlength=4))
    best = None
    for limit, counts in zip(candidates.tolist(), sum_over_ranks(torch.stack(cells)), strict=True):
        _, false, missed, hits = counts.tolist()
        if hits and hits >= precision * (hits + false) - 1e-9:
            best = max(best or (0, 0, 0), (hits / (hits + missed), limit, hits / (hits + false)))
    return best and [best[1], best[2], best[0]]


def all_at_once(scores, attack, candidates, precision):
    """Sorted, and no loop over candidates."""
    limits = candidates.sort(descending=True).values
    hits, false = (
        len(part) - torch.searchsorted(part.sort().values, limits, right=True)
        for part in (scores[attack == 1], scores[attack == 0])
    )
    sums = torch.cat([hits, false, torch.tensor([(attack == 1).sum()])]).double()
    all_reduce(sums)
    hits, false, attacks = sums.split([len(limits), len(limits), 1])
    precisions, recalls = hits / (hits + false), hits / attacks
    recalls[~(precisions >= precision)] = -1
    k = int(np.argmax(recalls.numpy()))
    if recalls[k] < 0:
        return None
    return limits[k].item(), precisions[k].item(), recalls[k].item()


@pytest.mark.parametrize("answer", [choice(), by_confusion, all_at_once])
def test_best_threshold_accepts(accepts, answer):
    accepts(check.best_threshold, answer)


def test_the_flows_have_all_edges():
    chosen = [case.exact() for case in FLOWS]
    assert chosen.count(None) == 2
    assert any(one and one[1] == case.precision for one, case in zip(chosen, FLOWS, strict=True))
    for case, one in zip(FLOWS, chosen, strict=True):
        assert which_choice(case, [one] * len(case.ranks)) == ""
        assert all(limit == np.float32(limit) for limit, *_ in case.points())
    assert any(not point.alarms for case in FLOWS for point in case.points())
    assert any(len({*case.candidates}) < len(case.candidates) for case in FLOWS)


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["global_threshold", "best_threshold"])
def test_a_stub_is_not_done_yet(verdict, name):
    assert "○ not done yet" in verdict(getattr(check, name), stub)
