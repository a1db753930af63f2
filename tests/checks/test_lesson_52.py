"""Exercises of lesson 52: wrong answers are told apart, right ones written differently pass."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed import all_gather, all_reduce

from course_lib.checks import lesson_52 as check
from course_lib.checks._budgets import CASES as BUDGETS
from course_lib.checks._budgets import which_mistake as which_threshold
from course_lib.checks._watermarks import CASES as TICKS
from course_lib.checks._watermarks import which_mistake as which_second

# ---- 52.1 · At most k false alarms an hour


def down(minutes, per_hour):
    return per_hour * minutes // 60


def loudest(scores, count):
    """The `count` largest scores of each rank."""
    mine = torch.full((count,), -1.0)
    top = scores.topk(min(count, len(scores))).values
    mine[: len(top)] = top
    everybody = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, mine)
    return torch.cat(everybody)


def with_budget(budget=down, more=1):
    """The `budget + more`-th largest of all ranks' scores."""

    def answer(scores, minutes, per_hour):
        count = budget(minutes, per_hour) + more
        if not count:
            return math.inf
        return loudest(scores, count).sort(descending=True).values[count - 1].item()

    return answer


right = with_budget()


def own(scores, allowed):
    return scores.sort(descending=True).values[allowed].item() if allowed < len(scores) else -1.0


def budget_of_its_own(scores, minutes, per_hour):
    return own(scores, down(minutes, per_hour))


def share_of_its_own(scores, minutes, per_hour):
    return own(scores, down(minutes, per_hour) // dist.get_world_size())


def combined(part, op):
    def answer(scores, minutes, per_hour):
        allowed = down(minutes, per_hour) // (dist.get_world_size() if part else 1)
        mine = torch.tensor(own(scores, allowed), dtype=torch.float64)
        dist.all_reduce(mine, op=op)
        return mine.item() / (dist.get_world_size() if op == dist.ReduceOp.SUM else 1)

    return answer


def as_minutes_of_all(minutes, per_hour):
    return per_hour * minutes * dist.get_world_size() // 60


def by_seconds(minutes, per_hour):
    return int(per_hour / 3600 * (60 * minutes))


def topk_fails(scores, minutes, per_hour):
    count = down(minutes, per_hour) + 1
    mine = scores.topk(count).values
    everybody = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, mine)
    return torch.cat(everybody).sort(descending=True).values[count - 1].item()


def as_many_as_it_has(scores, minutes, per_hour):
    """Without padding, the ranks send different sizes."""
    count = down(minutes, per_hour) + 1
    mine = scores.topk(min(count, len(scores))).values
    everybody = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, mine)
    return torch.cat(everybody).sort(descending=True).values[count - 1].item()


def padded_with(nothing):
    def answer(scores, minutes, per_hour):
        found = right(scores, minutes, per_hour)
        return nothing if found < 0 else found

    return answer


def without_ties(scores, minutes, per_hour):
    count = down(minutes, per_hour) + 1
    some = loudest(scores, count).unique().flip(0)
    return some[count - 1].item() if count <= len(some) else some[-1].item()


def at_or_above(scores, minutes, per_hour):
    """The lowest threshold for score >= threshold, between the floats."""
    found = right(scores, minutes, per_hour)
    return torch.nextafter(torch.tensor(found), torch.tensor(math.inf)).item()


def at_or_above_a_score(scores, minutes, per_hour):
    allowed = down(minutes, per_hour)
    some = loudest(scores, allowed + 1)
    few = [one for one in some.tolist() if (some >= one).sum() <= allowed]
    return min(few, default=math.inf)


def in_the_middle(scores, minutes, per_hour):
    count = down(minutes, per_hour) + 1
    some = loudest(scores, count).sort(descending=True).values
    return some[max(count - 2, 0) : count].mean().item()


def quietest(scores, minutes, per_hour):
    return max(-1.0, -right(-scores, minutes, per_hour))


def gathered(scores):
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, scores)
    return torch.cat(parts)


def gathers_objects(scores, minutes, per_hour):
    return own(gathered(scores), down(minutes, per_hour))


def gathers_everything(scores, minutes, per_hour):
    most = torch.tensor(len(scores))
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    if not most:
        return -1.0
    return own(loudest(scores, most.item()), down(minutes, per_hour))


def one_by_one(scores, minutes, per_hour):
    """The loudest of all, as often as there may be alarms; and then the next."""
    left = [*scores.sort().values.tolist()]
    for _ in range(down(minutes, per_hour) + 1):
        mine = left[-1] if left else -1.0
        each = torch.zeros(dist.get_world_size(), dtype=torch.float64)
        each[dist.get_rank()] = mine
        dist.all_reduce(each)
        if left and each.argmax() == dist.get_rank():
            left.pop()
    return each.max().item()


def rank_0_only(scores, minutes, per_hour):
    found = right(scores, minutes, per_hour)
    return found if dist.get_rank() == 0 else None


def others_by_own(scores, minutes, per_hour):
    found = right(scores, minutes, per_hour)
    return found if dist.get_rank() == 0 else own(scores, down(minutes, per_hour))


def a_tensor(scores, minutes, per_hour):
    return torch.tensor(right(scores, minutes, per_hour))


def empty_stays_away(scores, minutes, per_hour):
    return right(scores, minutes, per_hour) if len(scores) else -1.0


def sorts_in_place(scores, minutes, per_hour):
    scores.copy_(scores.sort().values)
    return right(scores, minutes, per_hour)


def nobody_waits(scores, minutes, per_hour):
    count = down(minutes, per_hour) + 1
    mine = torch.full((count,), -1.0)
    mine[: min(count, len(scores))] = scores.topk(min(count, len(scores))).values
    everybody = torch.empty(dist.get_world_size() * count)
    work = dist.all_gather_into_tensor(everybody, mine, async_op=True)
    while not work.is_completed():
        pass
    return everybody.sort(descending=True).values[count - 1].item()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(with_budget(more=0), "it may be that with number 3", id="allowed"),
        pytest.param(with_budget(more=2), "3 alarms over all ranks, and 2 are", id="one more"),
        pytest.param(at_or_above, "may be that score itself", id="≥"),
        pytest.param(at_or_above_a_score, "(>, not >=)", id="≥, scores"),
        pytest.param(budget_of_its_own, "every rank would make all", id="own"),
        pytest.param(share_of_its_own, "no rank has a share", id="share"),
        pytest.param(combined(False, dist.ReduceOp.MAX), "cannot be combined", id="max"),
        pytest.param(combined(False, dist.ReduceOp.MIN), "cannot be combined", id="min"),
        pytest.param(combined(True, dist.ReduceOp.MAX), "no rank has a share", id="share, max"),
        pytest.param(combined(True, dist.ReduceOp.SUM), "cannot be combined", id="share, mean"),
        pytest.param(with_budget(as_minutes_of_all), "same minutes at the same", id="N × m"),
        pytest.param(with_budget(lambda m, k: m * k), "are 2 in 2 minutes", id="a minute"),
        pytest.param(with_budget(lambda m, k: k), "are 2 in 2 minutes", id="an hour"),
        pytest.param(with_budget(lambda m, k: k * m // 3600), "are 2 in 2 min", id="seconds"),
        pytest.param(with_budget(lambda m, k: k // 60 * m), "are 1.5 in 2 min", id="60 first"),
        pytest.param(with_budget(lambda m, k: 60 * k // m), "are 2 in 2 min", id="60 k ÷ m"),
        pytest.param(with_budget(lambda m, k: -(-k * m // 60)), "rounded down", id="up"),
        pytest.param(with_budget(lambda m, k: round(k * m / 60)), "rounded down", id="nearest"),
        pytest.param(with_budget(lambda m, k: max(1, k * m // 60)), "rounded down", id="one"),
        pytest.param(with_budget(lambda m, k: int(k / 60 * m)), "before you div", id="÷ 60 × m"),
        pytest.param(with_budget(lambda m, k: int(k * (m / 60))), "before you div", id="m ÷ 60"),
        pytest.param(with_budget(by_seconds), "before you div", id="÷ 3600"),
        pytest.param(topk_fails, "fewer scores than alarms are allowed", id="topk"),
        pytest.param(as_many_as_it_has, "with as many numbers", id="sizes"),
        pytest.param(padded_with(0.0), "0 does not", id="0"),
        pytest.param(padded_with(-math.inf), "-1.0 lies below", id="-inf"),
        pytest.param(without_ties, "none of them is left out", id="unique"),
        pytest.param(in_the_middle, "none of the scores", id="middle"),
        pytest.param(quietest, "those are the quietest", id="quietest"),
        pytest.param(gathers_objects, "take tensors", id="objects"),
        pytest.param(gathers_everything, "must not grow", id="everything"),
        pytest.param(one_by_one, "64 calls at most", id="one by one"),
        pytest.param(rank_0_only, "only rank 0 has it", id="rank 0"),
        pytest.param(others_by_own, "right on rank 0 only", id="others"),
        pytest.param(a_tensor, "tensor.item()", id="tensor"),
        pytest.param(empty_stays_away, "or none; all ranks make", id="stays away"),
        pytest.param(sorts_in_place, "the scores are as before", id="in place"),
        pytest.param(nobody_waits, "nobody waits for the all_gather", id="no wait"),
    ],
)  # fmt: skip
def test_alarm_threshold_rejects(rejects, answer, says):
    rejects(check.alarm_threshold, answer, says)


def bit_by_bit(scores, minutes, per_hour):
    """Halve the range of bit patterns by counts; no score moves."""
    allowed, bits, low, high = down(minutes, per_hour), scores.view(torch.int32), -1, 2**31 - 1
    while high - low > 1:  # at high few enough lie above, at low too many; or nothing is known
        middle = (low + high) // 2
        above = (bits > middle).sum()
        all_reduce(above)
        low, high = (low, middle) if above <= allowed else (middle, high)
    everything = torch.tensor(len(scores))
    all_reduce(everything)
    return -1.0 if everything <= allowed else torch.tensor(high).int().view(torch.float32).item()


def byte_by_byte(scores, minutes, per_hour):
    """Counts of 256 groups, four times, from the top."""
    left, bits, known = per_hour * minutes / 60 // 1 + 1, scores.view(torch.int32).long(), 0
    for shift in (24, 16, 8, 0):
        counts = torch.bincount(bits >> shift & 255, minlength=256)
        all_reduce(counts)
        if shift == 24 and counts.sum() < left:
            return -1.0
        from_top = counts.flip(0).cumsum(0)
        byte = 255 - int((from_top < left).sum())
        left -= int(from_top[255 - byte] - counts[byte])
        known = known << 8 | byte
        bits = bits[bits >> shift == known]
    return torch.tensor(known, dtype=torch.int32).view(torch.float32).item()


def in_numpy(scores, minutes, per_hour):
    """Sort, cut, pad with what is no score."""
    count = int(per_hour * minutes / 60) + 1
    mine = np.full(count, -np.inf)
    loud = np.sort(scores.numpy())[::-1][:count]
    mine[: len(loud)] = loud
    parts = [torch.empty(count, dtype=torch.float64) for _ in range(dist.get_world_size())]
    all_gather(parts, torch.from_numpy(mine), async_op=True).wait()
    found = np.partition(np.concatenate(parts), -count)[-count]
    return float(found) if np.isfinite(found) else -1.0


def by_rank_0(scores, minutes, per_hour):
    """It finds the threshold, and tells it."""
    count, rank = down(minutes, per_hour) + 1, dist.get_rank()
    mine = torch.cat([scores, torch.full((count,), -1.0)]).topk(count).values
    parts = [torch.empty(count) for _ in range(dist.get_world_size())]
    dist.gather(mine, parts if rank == 0 else None, dst=0)
    found = torch.cat(parts).topk(count).values[-1:] if rank == 0 else torch.empty(1)
    dist.broadcast(found, src=0)
    return found.item()


@pytest.mark.parametrize("answer", [right, bit_by_bit, byte_by_byte, in_numpy, by_rank_0])
def test_alarm_threshold_accepts(accepts, answer):
    accepts(check.alarm_threshold, answer)


@pytest.mark.parametrize("case", BUDGETS, ids=lambda case: case.says)
def test_the_threshold_keeps_the_promise_and_no_lower_score_does(case):
    found, scores = case.exact(), case.all()
    assert (scores > found).sum() <= case.allowed
    assert all((scores > lower).sum() > case.allowed for lower in scores[scores < found])
    assert found in scores or len(scores) <= case.allowed
    assert which_threshold(case, [found] * len(case.counts)) == ""


# ---- 52.2 · When is a second complete?


def slowest(seen_until):
    seen = torch.tensor(seen_until)
    dist.all_reduce(seen, op=dist.ReduceOp.MIN)
    return seen.item()


def added_up(counts):
    counts = counts.clone()
    dist.all_reduce(counts)
    return counts


def tell(
    *,
    agree=slowest,
    until=lambda seen, told: max(seen, told),
    part=lambda counts, told, new: counts[told:new],
    total=added_up,
    say=lambda new, totals: (new, totals),
):
    def answer(counts, seen_until, told):
        new = until(agree(seen_until), told)
        return say(new, total(part(counts, told, new)))

    return answer


def fastest(seen_until):
    seen = torch.tensor(seen_until)
    dist.all_reduce(seen, op=dist.ReduceOp.MAX)
    return seen.item()


def mean(seen_until):
    seen = torch.tensor(seen_until)
    dist.all_reduce(seen)
    return seen.item() // dist.get_world_size()


def rounded_mean(seen_until):
    seen = torch.tensor(seen_until)
    dist.all_reduce(seen)
    return round(seen.item() / dist.get_world_size())


def median(seen_until):
    """torch's, which takes the lower one of two: with 2 ranks it is right."""
    seen = torch.empty(dist.get_world_size(), dtype=torch.int64)
    dist.all_gather_into_tensor(seen, torch.tensor([seen_until]))
    return seen.median().item()


def rank_0s(seen_until):
    seen = torch.tensor(seen_until)
    dist.broadcast(seen, src=0)
    return seen.item()


def own_after_the_sum(counts, seen_until, told):
    """All are added up, so nothing hangs; then each takes what it has seen itself."""
    new = max(told, seen_until)
    return new, added_up(counts)[told:new]


def tells_all_that_is_there(counts, seen_until, told):
    new = max(told, slowest(seen_until))
    return new, added_up(counts)[told:new]


def falls(counts, seen_until, told):
    """The right sums, and a second that goes back."""
    new = slowest(seen_until)
    return new, added_up(counts[told : max(told, new)])


def waits_for_more(counts, seen_until, told):
    """The second that has just become complete is not told yet."""
    new = max(told, slowest(seen_until) - 1)
    return new, added_up(counts[told:new])


def in_place(counts, seen_until, told):
    new = max(told, slowest(seen_until))
    dist.all_reduce(counts[told:new])
    return new, counts[told:new]


def in_place_twice(counts, seen_until, told):
    found = tell()(counts, seen_until, told)
    counts[told : found[0]] = 0  # they have been told
    return found


def second_by_second(counts, seen_until, told):
    new = max(told, slowest(seen_until))
    return new, torch.tensor([added_up(counts[s]).item() for s in range(told, new)]).long()


def sum_at_rank_0(counts):
    counts = counts.clone()
    dist.reduce(counts, dst=0)
    return counts


def in_float32(counts):
    return added_up(counts.float()).long()


def in_int32(counts):
    return added_up(counts.int()).long()


def times_ranks(counts):
    return counts * dist.get_world_size()


def mean_of_counts(counts):
    return added_up(counts) // dist.get_world_size()


def gathers_objects_of_all(counts, seen_until, told):
    each = [None] * dist.get_world_size()
    dist.all_gather_object(each, (seen_until, counts))
    new = max(told, min(seen for seen, _ in each))
    return new, sum(theirs for _, theirs in each)[told:new]


def ahead_stays_away(counts, seen_until, told):
    """Who has nothing new for the others does not call."""
    if seen_until <= told:
        return told, counts[:0]
    return tell()(counts, seen_until, told)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(tell(agree=fastest), "that is the fastest", id="max"),
        pytest.param(tell(agree=mean), "that is a mean", id="mean"),
        pytest.param(tell(agree=rounded_mean), "that is a mean", id="rounded mean"),
        pytest.param(tell(agree=median), "that is a median", id="median"),
        pytest.param(tell(agree=rank_0s), "that is rank 0", id="rank 0's"),
        pytest.param(tell(agree=lambda seen: seen), "first have to agree", id="own: sizes"),
        pytest.param(own_after_the_sum, "each rank itself", id="own"),
        pytest.param(tell(until=lambda seen, told: seen), "never falls", id="falls, both"),
        pytest.param(falls, "never falls", id="falls"),
        pytest.param(
            tell(until=lambda seen, told: max(told, seen + 1)), "stop before it", id="inclusive"
        ),
        pytest.param(
            tell(part=lambda counts, told, new: counts[told : new + 1]), "stop before", id="+ 1"
        ),
        pytest.param(waits_for_more, "also with that one", id="- 1"),
        pytest.param(tell(part=lambda counts, told, new: counts[:new]), "told before", id="from 0"),
        pytest.param(
            tell(part=lambda counts, told, new: counts[max(told - 1, 0) : new]),
            "told before",
            id="last one again",
        ),
        pytest.param(
            tell(part=lambda counts, told, new: counts[told + 1 : new]), "comes first", id="skips"
        ),
        pytest.param(
            tell(part=lambda counts, told, new: counts[told:]), "not complete", id="to the end"
        ),
        pytest.param(
            tell(part=lambda counts, told, new: counts), "the new seconds", id="all of them"
        ),
        pytest.param(tells_all_that_is_there, "the counts of the seconds that are told", id="much"),
        pytest.param(in_place, "counts are as before", id="in place"),
        pytest.param(in_place_twice, "counts are as before", id="sets to 0"),
        pytest.param(second_by_second, "2 calls at most", id="calls"),
        pytest.param(tell(total=lambda counts: counts.clone()), "has counted: add up", id="own"),
        pytest.param(tell(total=sum_at_rank_0), "rank 0 has the sums", id="reduce"),
        pytest.param(tell(total=times_ranks), "times the ranks", id="times"),
        pytest.param(tell(total=mean_of_counts), "no mean", id="mean of counts"),
        pytest.param(tell(total=in_float32), "in whole numbers", id="float32"),
        pytest.param(tell(total=in_int32), "in whole numbers", id="int32"),
        pytest.param(gathers_objects_of_all, "take tensors", id="objects"),
        pytest.param(ahead_stays_away, "first have to agree", id="stays away"),
        pytest.param(tell(say=lambda n, t: (torch.tensor(n), t)), "a plain int", id="tensor"),
        pytest.param(tell(say=lambda n, t: (np.int64(n), t)), "a plain int: int(…)", id="NumPy"),
        pytest.param(tell(say=lambda n, t: (n, t.tolist())), "of shape (seconds,)", id="list"),
        pytest.param(tell(say=lambda n, t: (n, t.double())), "torch.int64", id="float64"),
        pytest.param(tell(say=lambda n, t: t), "return new_told, totals", id="totals only"),
    ],
)
def test_complete_rejects(rejects, answer, says):
    rejects(check.complete, answer, says)


def skips_the_second_call(counts, seen_until, told):
    """All ranks know that there is nothing to add up."""
    limit = torch.tensor([-seen_until])
    all_reduce(limit, op=dist.ReduceOp.MAX)
    new = -int(limit)
    if new <= told:
        return told, torch.zeros(0, dtype=torch.int64)
    totals = torch.zeros(new - told, dtype=torch.float64) + counts[told:new]
    all_reduce(totals, async_op=True).wait()
    return new, totals.round().long()


def by_gathers(counts, seen_until, told):
    """Everybody's numbers, added up here."""
    seen = torch.empty(dist.get_world_size(), dtype=torch.int64)
    dist.all_gather_into_tensor(seen, torch.tensor([seen_until]))
    new = max([told, *[min(seen.tolist())]])
    parts = [torch.empty(new - told, dtype=torch.int64) for _ in seen]
    all_gather(parts, counts[told:new].contiguous())
    return [new, torch.stack(parts).sum(dim=0)]


@pytest.mark.parametrize("answer", [tell(), skips_the_second_call, by_gathers])
def test_complete_accepts(accepts, answer):
    accepts(check.complete, answer)


def waits_for_a_message(counts, seen_until, told):
    if seen_until < told:
        dist.recv(torch.zeros(2), src=0)
    return tell()(counts, seen_until, told)


@pytest.mark.faults
def test_complete_names_the_rank_that_hangs(verdict, impatient):
    said = verdict(check.complete, waits_for_a_message)
    assert "it hangs" in said
    assert "test_lesson_52.py, line" in said


def test_the_ticks_have_all_edges():
    assert any(tick.exact() == (tick.told, []) for tick in TICKS)
    assert any(min(tick.seen) < tick.told for tick in TICKS)
    assert any(min(tick.seen) == len(tick.counts[0]) for tick in TICKS)
    for tick in TICKS:
        assert {len(row) for row in tick.counts} == {len(tick.counts[0])}
        assert which_second(tick, [tick.exact()] * len(tick.seen)) == ""


def test_a_run_tells_each_second_once():
    run = [tick for tick in TICKS if "of a run" in tick.says]
    told = [total for tick in run for total in tick.exact()[1]]
    assert told == [sum(second) for second in zip(*run[-1].counts, strict=True)]
    assert [tick.told for tick in run[1:]] == [tick.exact()[0] for tick in run[:-1]]
    assert any(b < a for a, b in zip(run[1].seen, run[2].seen, strict=True))


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["alarm_threshold", "complete"])
def test_a_stub_is_not_done_yet(verdict, name):
    assert "○ not done yet" in verdict(getattr(check, name), stub)
