"""Exercises of lesson 20: wrong answers are told apart, right ones written differently pass."""

import random
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed import all_reduce

from course_lib.checks import lesson_20 as check
from course_lib.checks._throws import PICTURES, RUNS, alike
from course_lib.evaluation import sum_over_ranks

# ---- 20.1 · The same flips for any number of ranks


def dice_of(number):
    return torch.Generator().manual_seed(number)


def coins(pictures, number):
    return torch.rand(pictures, generator=dice_of(number)) < 0.5


def for_all(rows, pictures, epoch, seed):
    return coins(pictures, 1_000_003 * seed + epoch)[rows]


def own_dice_for_each_rank(rows, pictures, epoch, seed):
    return coins(pictures, 1_000_003 * seed + 1_009 * epoch + dist.get_rank())[rows]


def depends_on_how_many_there_are(rows, pictures, epoch, seed):
    return coins(pictures, (1_000_003 * seed + epoch) * dist.get_world_size())[rows]


def one_throw_a_row(rows, pictures, epoch, seed):
    return coins(len(rows), 1_000_003 * seed + epoch)


def in_sorted_order(rows, pictures, epoch, seed):
    return coins(len(rows), 1_000_003 * seed + epoch)[rows.argsort().argsort()]


def sorts_the_rows_themselves(rows, pictures, epoch, seed):
    order = rows.argsort()
    found = torch.empty(len(rows), dtype=torch.bool)
    found[order] = for_all(rows[order], pictures, epoch, seed)
    rows.copy_(rows.sort().values)
    return found


def adds_seed_and_epoch(rows, pictures, epoch, seed):
    return coins(pictures, seed + epoch)[rows]


def ten_epochs_a_seed(rows, pictures, epoch, seed):
    return coins(pictures, 10 * seed + epoch)[rows]


def multiplies_seed_and_epoch(rows, pictures, epoch, seed):
    return coins(pictures, seed * epoch)[rows]


def ignores_the_epoch(rows, pictures, epoch, seed):
    return coins(pictures, seed)[rows]


def ignores_the_seed(rows, pictures, epoch, seed):
    return coins(pictures, epoch)[rows]


def seeds_the_global_dice(rows, pictures, epoch, seed):
    torch.manual_seed(1_000_003 * seed + epoch)
    return torch.rand(pictures)[rows] < 0.5


def throws_the_global_dice(rows, pictures, epoch, seed):
    return torch.rand(pictures)[rows] < 0.5


def throws_those_of_numpy(rows, pictures, epoch, seed):
    return torch.from_numpy(np.random.rand(pictures))[rows] < 0.5


def seeded_from_the_global_dice(rows, pictures, epoch, seed):
    return coins(pictures, torch.initial_seed() + 1_000_003 * seed + epoch)[rows]


going_on = {}


def dice_that_go_on(rows, pictures, epoch, seed):
    dice = going_on.setdefault((seed, epoch), dice_of(1_000_003 * seed + epoch))
    return torch.rand(pictures, generator=dice)[rows] < 0.5


def every_second(rows, pictures, epoch, seed):
    return (rows + epoch) % 2 == 0


def the_first_half(rows, pictures, epoch, seed):
    return (rows + 389 * epoch + 577 * seed) % pictures < pictures // 2


def bits_of_a_product(rows, pictures, epoch, seed):
    return (rows * 2_654_435_761 + epoch * 40_503 + seed * 97) % 2**32 < 2**31


def shifted(rows, pictures, epoch, seed):
    return coins(pictures, 20)[(rows + 317 * epoch + 101 * seed) % pictures]


def in_turns(rows, pictures, epoch, seed):
    return coins(pictures, 1_000_003 * seed + epoch // 2)[rows] ^ bool(epoch % 2)


def a_few_anew(rows, pictures, epoch, seed):
    anew = torch.rand(pictures, generator=dice_of(1_000_003 * seed + epoch + 9)) < 0.3
    return torch.where(anew, coins(pictures, 1_000_003 * seed + epoch), coins(pictures, 7))[rows]


def seldom(rows, pictures, epoch, seed):
    return torch.rand(pictures, generator=dice_of(1_000_003 * seed + epoch))[rows] < 0.3


def normal_throws(rows, pictures, epoch, seed):
    return torch.randn(pictures, generator=dice_of(1_000_003 * seed + epoch))[rows] < 0.5


def never(rows, pictures, epoch, seed):
    return torch.zeros(len(rows), dtype=torch.bool)


def as_floats(rows, pictures, epoch, seed):
    return for_all(rows, pictures, epoch, seed).float()


def as_ints(rows, pictures, epoch, seed):
    return for_all(rows, pictures, epoch, seed).long()


def as_a_list(rows, pictures, epoch, seed):
    return for_all(rows, pictures, epoch, seed).tolist()


def of_all_pictures(rows, pictures, epoch, seed):
    return coins(pictures, 1_000_003 * seed + epoch)


def as_a_column(rows, pictures, epoch, seed):
    return for_all(rows, pictures, epoch, seed)[:, None]


def only_the_flipped_ones(rows, pictures, epoch, seed):
    return rows[for_all(rows, pictures, epoch, seed)]


def told_by_rank_0(rows, pictures, epoch, seed):
    throws = coins(pictures, 1_000_003 * seed + epoch)
    dist.broadcast(throws, src=0)
    return throws[rows]


def meets_some_of_the_others(rows, pictures, epoch, seed):
    if dist.get_rank() > 0:
        dist.barrier()
    return for_all(rows, pictures, epoch, seed)


def without_a_batch_it_fails(rows, pictures, epoch, seed):
    assert rows.min() >= 0
    return for_all(rows, pictures, epoch, seed)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(own_dice_for_each_rank, "rank 1 has other throws", id="dice for each rank"),
        pytest.param(depends_on_how_many_there_are, "on how many there are", id="world size"),
        pytest.param(one_throw_a_row, "the k-th row gets the k-th throw", id="len(rows) throws"),
        pytest.param(in_sorted_order, "in a batch of 64, a picture has another", id="sorted"),
        pytest.param(sorts_the_rows_themselves, "the rows have changed", id="sorts in place"),
        pytest.param(adds_seed_and_epoch, "epoch 1 of seed 0 flips what epoch 0 of", id="sum"),
        pytest.param(ten_epochs_a_seed, "one number of seed and epoch", id="10 * seed + epoch"),
        pytest.param(multiplies_seed_and_epoch, "one number of seed and epoch", id="product"),
        pytest.param(ignores_the_epoch, "all epochs flip the same", id="no epoch"),
        pytest.param(ignores_the_seed, "all seeds flip the same", id="no seed"),
        pytest.param(seeds_the_global_dice, "take a torch.Generator()", id="manual_seed"),
        pytest.param(throws_the_global_dice, "take a torch.Generator()", id="global dice"),
        pytest.param(throws_those_of_numpy, "seed your dice in every call", id="numpy's dice"),
        pytest.param(seeded_from_the_global_dice, "seed your dice in every", id="initial_seed"),
        pytest.param(dice_that_go_on, "seed your dice in every call", id="dice that go on"),
        pytest.param(every_second, "foretells that of the one 1 further on", id="parity"),
        pytest.param(the_first_half, "there is a pattern", id="the first half"),
        pytest.param(bits_of_a_product, "there is a pattern", id="a product"),
        pytest.param(shifted, "only shifted by", id="shifted"),
        pytest.param(in_turns, "only the other way round", id="in turns"),
        pytest.param(a_few_anew, "or nearly so", id="a few anew"),
        pytest.param(seldom, "of torch.rand's numbers half are < 0.5", id="30 %"),
        pytest.param(normal_throws, "of torch.rand's numbers half are < 0.5", id="randn"),
        pytest.param(never, "0% are", id="never"),
        pytest.param(as_floats, "return a tensor of bool", id="floats"),
        pytest.param(as_ints, "return a tensor of bool", id="ints"),
        pytest.param(as_a_list, "return a tensor of bool", id="a list"),
        pytest.param(of_all_pictures, "look up the rows among all", id="all pictures"),
        pytest.param(as_a_column, "one bool for each of 2000 rows", id="a column"),
        pytest.param(only_the_flipped_ones, "return a tensor of bool", id="row numbers"),
        pytest.param(told_by_rank_0, "a rank can decide without the others", id="broadcast"),
        pytest.param(meets_some_of_the_others, "rank 1 barrier", id="barrier"),
        pytest.param(without_a_batch_it_fails, "runs on 1 rank: rank 0 raised", id="no rows"),
    ],
)
def test_flipped_rejects(rejects, answer, says):
    rejects(check.flipped, answer, says)


def waits_for_the_others(rows, pictures, epoch, seed):
    if dist.get_rank() > 0:
        dist.recv(torch.zeros(1), src=0)
    return for_all(rows, pictures, epoch, seed)


@pytest.mark.faults
def test_flipped_rejects_a_rank_that_waits(rejects, impatient):
    rejects(check.flipped, waits_for_the_others, "it hangs")


def mixed(number):
    """A number's bits in disorder: 64 of them, as in splitmix64."""
    number = number ^ (number >> 30) & (2**34 - 1)
    number = number * -4658895280553007687
    number = number ^ (number >> 27) & (2**37 - 1)
    number = number * -7723592293110705685
    return number ^ (number >> 31) & (2**33 - 1)


def by_a_hash(rows, pictures, epoch, seed):
    number = mixed(torch.tensor(seed * 4_294_967_291 + epoch)) + rows * -7046029254386353131
    return mixed(number) < 0


def with_numpy(rows, pictures, epoch, seed):
    throws = np.random.default_rng([seed, epoch]).integers(0, 2, pictures, dtype=bool)
    return torch.from_numpy(throws)[rows]


def with_philox(rows, pictures, epoch, seed):
    dice = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return torch.from_numpy(dice.random(pictures) < 0.5)[rows]


def exactly_half(rows, pictures, epoch, seed):
    order = torch.randperm(pictures, generator=dice_of(1_000 * seed + epoch))
    return torch.isin(rows, order[: pictures // 2])


def dice_for_each_picture(rows, pictures, epoch, seed):
    dice = (random.Random(f"{seed} {epoch} {row}") for row in rows.tolist())
    return torch.tensor([one.random() < 0.5 for one in dice], dtype=torch.bool)


def a_generator_for_each_picture(rows, pictures, epoch, seed):
    found = torch.zeros(len(rows), dtype=torch.bool)
    for k, row in enumerate(rows.tolist()):
        dice = dice_of(row + pictures * (epoch + 1_000 * seed))
        found[k] = torch.randint(2, (1,), generator=dice).bool()
    return found


def with_a_fork(rows, pictures, epoch, seed):
    with torch.random.fork_rng():
        torch.manual_seed(1_000_003 * seed + epoch)
        return torch.rand(pictures)[rows] < 0.5


def one_epoch_after_the_other(rows, pictures, epoch, seed):
    dice = dice_of(seed)
    for _ in range(epoch + 1):
        throws = torch.bernoulli(torch.full((pictures,), 0.5), generator=dice)
    return throws.bool()[rows]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(for_all, id="one generator"),
        pytest.param(by_a_hash, id="a hash"),
        pytest.param(with_numpy, id="numpy"),
        pytest.param(with_philox, id="Philox"),
        pytest.param(exactly_half, id="randperm"),
        pytest.param(dice_for_each_picture, id="random"),
        pytest.param(a_generator_for_each_picture, id="generators"),
        pytest.param(with_a_fork, id="fork_rng"),
        pytest.param(one_epoch_after_the_other, id="epoch after epoch"),
    ],
)
def test_flipped_accepts(accepts, answer):
    accepts(check.flipped, answer)


def test_what_coins_threw_is_never_alike():
    """The bounds are far off: they hold for twenty other answers that throw coins."""
    for k in range(20):
        throws = [coins(PICTURES, 10_000 * k + r) for r in range(len(RUNS))]
        assert all(abs(throw.float().mean() - 0.5) < 0.07 for throw in throws)
        assert alike(throws) == ""


# ---- 20.2 · A test set that does not divide


def over_ranks(number, dtype=None):
    total = torch.as_tensor(number, dtype=dtype)
    all_reduce(total)
    return total.item()


def of_its_own(right, pictures):
    """The answers of the pictures that were dealt to this rank first."""
    dealt = dist.get_rank() + dist.get_world_size() * torch.arange(len(right))
    return right[dealt < pictures]


def counts_once(right, pictures):
    return over_ranks(of_its_own(right, pictures).sum()) / pictures


def mean_of_means(right, pictures):
    return over_ranks(right.double().mean()) / dist.get_world_size()


def mean_of_exact_means(right, pictures):
    own = of_its_own(right, pictures)
    return over_ranks(own.sum().double() / max(len(own), 1)) / dist.get_world_size()


def mean_of_no_pictures(right, pictures):
    return over_ranks(of_its_own(right, pictures).double().mean()) / dist.get_world_size()


def weighs_means_of_no_pictures(right, pictures):
    own = of_its_own(right, pictures)
    return over_ranks(own.double().mean() * len(own)) / pictures


def counts_twice(right, pictures):
    return over_ranks(right.sum()) / pictures


def counts_twice_all(right, pictures):
    both = torch.tensor([right.sum(), len(right)])
    dist.all_reduce(both)
    return (both[0] / both[1].double()).item()


def divides_by_all_that_were_dealt(right, pictures):
    count = over_ranks(of_its_own(right, pictures).sum())
    return count / (len(right) * dist.get_world_size())


def weighs_with_those_dealt_again(right, pictures):
    weighted = right.double().mean() * len(right) / (dist.get_world_size() * len(right))
    return over_ranks(weighted)


def drops_the_last(right, pictures):
    return over_ranks(right[:-1].sum()) / pictures


def drops_the_last_but_on_rank_0(right, pictures):
    return over_ranks((right[:-1] if dist.get_rank() else right).sum()) / pictures


def in_a_row(right, pictures):
    dealt = dist.get_rank() * len(right) + torch.arange(len(right))
    return over_ranks(right[dealt < pictures].sum()) / pictures


def off_by_one(right, pictures):
    dealt = dist.get_rank() + dist.get_world_size() * torch.arange(len(right))
    return over_ranks(right[dealt <= pictures].sum()) / pictures


def its_own_part(right, pictures):
    return right.double().mean().item()


def its_own_pictures(right, pictures):
    own = of_its_own(right, pictures)
    return own.sum().item() / max(len(own), 1)


def tells_rank_0(right, pictures):
    count = of_its_own(right, pictures).sum()
    dist.reduce(count, dst=0)
    return count.item() / pictures


def returns_on_rank_0(right, pictures):
    found = counts_once(right, pictures)
    return found if dist.get_rank() == 0 else None


def returns_a_tensor(right, pictures):
    count = of_its_own(right, pictures).sum()
    dist.all_reduce(count)
    return count / pictures


def returns_the_count(right, pictures):
    return float(over_ranks(of_its_own(right, pictures).sum()))


def returns_a_fraction(right, pictures):
    return Fraction(over_ranks(of_its_own(right, pictures).sum()), pictures)


def in_float32(right, pictures):
    return over_ranks(of_its_own(right, pictures).float().sum() / pictures)


def in_bytes(right, pictures):
    return over_ranks(of_its_own(right, pictures).sum(), torch.uint8) / pictures


def gathers_every_answer(right, pictures):
    everyone = [torch.empty_like(right) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, right)
    return torch.stack(everyone).T.flatten()[:pictures].sum().item() / pictures


def gathers_objects(right, pictures):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, of_its_own(right, pictures).sum().item())
    return sum(everyone) / pictures


def adds_up_every_picture(right, pictures):
    everyone = torch.zeros(pictures)
    own = of_its_own(right, pictures)
    everyone[dist.get_rank() :: dist.get_world_size()] = own.float()
    dist.all_reduce(everyone)
    return everyone.double().sum().item() / pictures


def two_calls(right, pictures):
    own = of_its_own(right, pictures)
    return over_ranks(own.sum()) / over_ranks(len(own))


def reduces_and_tells(right, pictures):
    count = of_its_own(right, pictures).sum()
    dist.reduce(count, dst=0)
    dist.broadcast(count, src=0)
    return count.item() / pictures


def collects_messages(right, pictures):
    count = of_its_own(right, pictures).sum()
    for other in range(1, dist.get_world_size()):
        if dist.get_rank() == 0:
            more = torch.zeros_like(count)
            dist.recv(more, other)
            count += more
        elif dist.get_rank() == other:
            dist.send(count, 0)
    dist.broadcast(count, 0)
    return count.item() / pictures


def does_not_wait(right, pictures):
    count = of_its_own(right, pictures).sum()
    dist.all_reduce(count, async_op=True)
    return count.item() / pictures


def rank_0_alone(right, pictures):
    count = of_its_own(right, pictures).sum()
    if dist.get_rank() == 0:
        dist.all_reduce(count)
    return count.item() / pictures


def only_who_has_pictures(right, pictures):
    own = of_its_own(right, pictures)
    return over_ranks(own.sum()) / pictures if len(own) else 0.0


def sends_all_that_it_has(right, pictures):
    own = of_its_own(right, pictures).float()
    dist.all_reduce(own)
    return own.sum().item() / pictures


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(mean_of_means, "that counts pictures dealt again", id="mean of means"),
        pytest.param(mean_of_exact_means, "weighs all ranks alike", id="mean of exact means"),
        pytest.param(mean_of_no_pictures, "weighs all ranks alike", id="NaN"),
        pytest.param(weighs_means_of_no_pictures, "mean of nothing is NaN", id="0 * NaN"),
        pytest.param(counts_twice, "some are counted twice", id="twice"),
        pytest.param(counts_twice_all, "that counts pictures dealt again", id="twice, of all"),
        pytest.param(divides_by_all_that_were_dealt, "by all that were dealt", id="of all"),
        pytest.param(weighs_with_those_dealt_again, "counts pictures dealt again", id="weights"),
        pytest.param(drops_the_last, "has left out its last picture", id="drops the last"),
        pytest.param(drops_the_last_but_on_rank_0, "10 pictures on 2 ranks", id="not on rank 0"),
        pytest.param(in_a_row, "not the pictures from r * n on", id="in a row"),
        pytest.param(off_by_one, "some are counted twice", id="off by one"),
        pytest.param(its_own_part, "every rank reports its own part", id="own part"),
        pytest.param(its_own_pictures, "every rank reports its own part", id="own pictures"),
        pytest.param(tells_rank_0, "only rank 0 has it", id="reduce"),
        pytest.param(returns_on_rank_0, "only rank 0 has it", id="rank 0 returns"),
        pytest.param(returns_a_tensor, "tensor.item()", id="a tensor"),
        pytest.param(returns_the_count, "a number of right answers: divide", id="count"),
        pytest.param(returns_a_fraction, "return a float", id="a fraction"),
        pytest.param(in_float32, "nearly: divide whole numbers", id="float32"),
        pytest.param(in_bytes, "count the right ones", id="uint8"),
        pytest.param(gathers_every_answer, "that brings each rank the numbers", id="all_gather"),
        pytest.param(gathers_objects, "that brings each rank the numbers", id="objects"),
        pytest.param(adds_up_every_picture, "few numbers travel", id="one a picture"),
        pytest.param(two_calls, "into one tensor", id="two calls"),
        pytest.param(reduces_and_tells, "broadcast, reduce: all_reduce is all", id="broadcast"),
        pytest.param(collects_messages, "no message has to be sent", id="messages"),
        pytest.param(does_not_wait, "hint", id="does not wait"),
        pytest.param(rank_0_alone, "rank 1 nothing more", id="rank 0 alone"),
        pytest.param(only_who_has_pictures, "rank 2 nothing more", id="without the empty rank"),
        pytest.param(sends_all_that_it_has, "all_reduce of 4 numbers", id="unequal sizes"),
    ],
)
def test_exact_accuracy_rejects(rejects, answer, says):
    rejects(check.exact_accuracy, answer, says)


def waits_for_a_message(right, pictures):
    count = of_its_own(right, pictures).sum()
    if dist.get_rank() == 1:
        dist.recv(torch.zeros(1), src=0)
    dist.all_reduce(count)
    return count.item() / pictures


@pytest.mark.faults
def test_exact_accuracy_names_the_rank_that_hangs(verdict, impatient):
    said = verdict(check.exact_accuracy, waits_for_a_message)
    assert "it hangs" in said
    assert "rank 1" in said
    assert "test_lesson_20.py, line" in said


def in_float64(right, pictures):
    return over_ranks(of_its_own(right, pictures).double().sum() / pictures)


def without_the_last_row(right, pictures):
    """Only in the last row are pictures dealt again: to the ranks from the rest of N on."""
    rest, count = pictures % dist.get_world_size(), int(right.sum())
    if rest and dist.get_rank() >= rest:
        count -= int(right[-1])
    return over_ranks(count) / pictures


def right_ones_and_pictures(right, pictures):
    own = of_its_own(right, pictures)
    both = torch.tensor([own.sum(), len(own)], dtype=torch.float64)
    work = dist.all_reduce(both, async_op=True)
    work.wait()
    return np.divide(*both.numpy())


def with_a_slice(right, pictures):
    return over_ranks(
        right[: len(range(dist.get_rank(), pictures, dist.get_world_size()))].sum()
    ) / (pictures)


def with_the_courses_own(right, pictures):
    own = of_its_own(right, pictures)
    sums = sum_over_ranks({"right": own.sum().item(), "pictures": len(own)})
    return sums["right"] / sums["pictures"]


def alone_without_a_call(right, pictures):
    if dist.get_world_size() == 1:
        return right.sum().item() / pictures
    return counts_once(right, pictures)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(counts_once, id="whole numbers"),
        pytest.param(in_float64, id="float64"),
        pytest.param(without_the_last_row, id="the last row"),
        pytest.param(right_ones_and_pictures, id="both counts"),
        pytest.param(with_a_slice, id="a slice"),
        pytest.param(with_the_courses_own, id="sum_over_ranks"),
        pytest.param(alone_without_a_call, id="alone"),
    ],
)
def test_exact_accuracy_accepts(accepts, answer):
    accepts(check.exact_accuracy, answer)


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["flipped", "exact_accuracy"])
def test_a_stub_is_not_done_yet(verdict, name):
    assert "○ not done yet" in verdict(getattr(check, name), stub)
