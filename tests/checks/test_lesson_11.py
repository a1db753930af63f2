"""Exercises of lesson 11: wrong answers are told apart, right ones written differently pass."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from course_lib.checks import lesson_11 as check
from course_lib.evaluation import rmse_over_ranks

# ---- 11.1 · The exact RMSE


def over_ranks(*numbers, dtype=torch.float64):
    total = torch.tensor(numbers, dtype=dtype)
    dist.all_reduce(total)
    return total.tolist()


def squares(predicted, actual):
    return (predicted - actual).double().square()


def own_part_only(predicted, actual):
    return squares(predicted, actual).mean().sqrt().item()


def averages_the_roots(predicted, actual):
    (total,) = over_ranks(squares(predicted, actual).mean().sqrt())
    return total / dist.get_world_size()


def averages_the_means(predicted, actual):
    mean = squares(predicted, actual).mean()
    dist.all_reduce(mean, op=dist.ReduceOp.AVG)
    return mean.sqrt().item()


def adds_in_float32(predicted, actual):
    squared = (predicted - actual).square().sum()
    total, count = over_ranks(squared, len(actual), dtype=torch.float32)
    return math.sqrt(total / count)


def squares_in_float32(predicted, actual):
    total, count = over_ranks((predicted - actual).square().double().sum(), len(actual))
    return math.sqrt(total / count)


def returns_the_tensor(predicted, actual):
    sums = torch.stack([squares(predicted, actual).sum(), torch.tensor(len(actual)).double()])
    dist.all_reduce(sums)
    return (sums[0] / sums[1]).sqrt()


def forgets_the_root(predicted, actual):
    total, count = over_ranks(squares(predicted, actual).sum(), len(actual))
    return total / count


def forgets_to_divide(predicted, actual):
    (total,) = over_ranks(squares(predicted, actual).sum())
    return math.sqrt(total)


def divides_by_its_own_rows(predicted, actual):
    (total,) = over_ranks(squares(predicted, actual).sum())
    return math.sqrt(total / max(len(actual), 1))


def tells_rank_0_only(predicted, actual):
    sums = torch.stack([squares(predicted, actual).sum(), torch.tensor(len(actual)).double()])
    dist.reduce(sums, dst=0)
    return (sums[0] / sums[1]).sqrt().item()


def returns_on_rank_0_only(predicted, actual):
    value = with_sums(predicted, actual)
    return value if dist.get_rank() == 0 else None


def weighs_the_mean_of_no_rows(predicted, actual):
    mean, rows = squares(predicted, actual).mean(), len(actual)
    total, count = over_ranks(mean * rows, rows)
    return math.sqrt(total / count)


def divides_by_its_empty_part(predicted, actual):
    rows = len(actual)
    mean = squares(predicted, actual).sum().item() / rows
    total, count = over_ranks(mean * rows, rows)
    return math.sqrt(total / count)


def swallows_the_sign(predicted, actual):
    total, count = over_ranks((predicted - actual).double().abs().sum(), len(actual))
    return total / count


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(own_part_only, "every rank reports its own part", id="own part"),
        pytest.param(averages_the_roots, "the mean of the ranks' RMSEs", id="mean of roots"),
        pytest.param(averages_the_means, "weighs all ranks alike", id="mean of means"),
        pytest.param(adds_in_float32, "nearly: square and sum in float64", id="float32"),
        pytest.param(squares_in_float32, "nearly: square and sum in float64", id="squares"),
        pytest.param(returns_the_tensor, "tensor.item()", id="a tensor"),
        pytest.param(forgets_the_root, "the root is missing", id="no root"),
        pytest.param(forgets_to_divide, "the root of the sum", id="no division"),
        pytest.param(divides_by_its_own_rows, "add up squared errors and counts", id="own count"),
        pytest.param(tells_rank_0_only, "only rank 0 has it", id="reduce"),
        pytest.param(returns_on_rank_0_only, "only rank 0 has it", id="rank 0 returns"),
        pytest.param(weighs_the_mean_of_no_rows, "a rank without rows adds", id="NaN"),
        pytest.param(divides_by_its_empty_part, "raised ZeroDivisionError", id="division by 0"),
        pytest.param(swallows_the_sign, "add up squared errors", id="MAE"),
    ],
)
def test_exact_rmse_rejects(rejects, answer, says):
    rejects(check.exact_rmse, answer, says)


def on_rank_0_alone(predicted, actual):
    total = squares(predicted, actual).sum()
    if dist.get_rank() == 0:
        dist.all_reduce(total)
    return math.sqrt(total / len(actual))


def without_the_empty_rank(predicted, actual):
    return with_sums(predicted, actual) if len(actual) else 0.0


@pytest.mark.faults
@pytest.mark.parametrize("answer", [on_rank_0_alone, without_the_empty_rank])
def test_exact_rmse_rejects_a_rank_that_stays_away(rejects, impatient, answer):
    rejects(check.exact_rmse, answer, "hint: all ranks must call the same collectives")


def with_sums(predicted, actual):
    total, count = over_ranks(((predicted.double() - actual.double()) ** 2).sum(), len(actual))
    return (total / count) ** 0.5


def gathers_every_error(predicted, actual):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (predicted - actual).tolist())
    return math.sqrt(np.mean([error**2 for part in everyone for error in part]))


def with_numpy_and_two_collectives(predicted, actual):
    error = predicted.numpy().astype("float64") - actual.numpy()
    total, count = torch.tensor(error @ error), torch.tensor(len(error))
    dist.all_reduce(total)
    dist.all_reduce(count)
    return np.sqrt(total.numpy() / count.numpy())


def from_rank_0(predicted, actual):
    sums = torch.stack([squares(predicted, actual).sum(), torch.tensor(float(len(actual)))])
    sums = sums.double()
    dist.reduce(sums, dst=0)
    dist.broadcast(sums, src=0)
    return torch.sqrt(sums[0] / sums[1]).item()


def weighs_the_means(predicted, actual):
    rows = len(actual)
    mean = squares(predicted, actual).mean() if rows else 0.0
    (count,) = over_ranks(rows)
    return math.sqrt(over_ranks(mean * rows / count)[0])


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(with_sums, id="float64 first"),
        pytest.param(gathers_every_error, id="objects"),
        pytest.param(with_numpy_and_two_collectives, id="numpy"),
        pytest.param(from_rank_0, id="reduce, broadcast"),
        pytest.param(weighs_the_means, id="weighted means"),
        pytest.param(rmse_over_ranks, id="the course's own"),
    ],
)
def test_exact_rmse_accepts(accepts, answer):
    accepts(check.exact_rmse, answer)


# ---- 11.2 · Counted twice


def returns_the_count(rows, world_size):
    return -rows % world_size


def does_not_go_round(rows, world_size):
    return list(range(-rows % world_size))


def slices_once(rows, world_size):
    return list(range(rows))[: -rows % world_size]


def adds_a_row_to_each_rank(rows, world_size):
    return [i % rows for i in range(world_size - rows % world_size)]


def takes_the_left_over(rows, world_size):
    return [i % rows for i in range(rows % world_size)]


def takes_the_last_rows(rows, world_size):
    return [rows - 1 - i % rows for i in range(-rows % world_size)]


def repeats_the_first_row(rows, world_size):
    return [0] * (-rows % world_size)


def counts_from_one(rows, world_size):
    return [i % rows + 1 for i in range(-rows % world_size)]


def tells_each_row_once(rows, world_size):
    return {i % rows for i in range(-rows % world_size)}


def returns_floats(rows, world_size):
    return [float(i % rows) for i in range(-rows % world_size)]


def returns_nothing(rows, world_size):
    print(-rows % world_size)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(returns_the_count, "not how many they are", id="count"),
        pytest.param(does_not_go_round, "1 row on 4 ranks", id="not round"),
        pytest.param(slices_once, "dealt three times stands here twice", id="slice"),
        pytest.param(adds_a_row_to_each_rank, "return an empty list", id="when it divides"),
        pytest.param(takes_the_left_over, "missing to the next multiple", id="left over"),
        pytest.param(takes_the_last_rows, "from the beginning", id="last rows"),
        pytest.param(repeats_the_first_row, "from the beginning", id="first row"),
        pytest.param(counts_from_one, "from the beginning", id="from 1"),
        pytest.param(tells_each_row_once, "dealt three times stands here twice", id="set"),
        pytest.param(returns_floats, "row numbers are whole numbers", id="floats"),
        pytest.param(returns_nothing, "return a list of row numbers", id="None"),
    ],
)
def test_counted_twice_rejects(rejects, answer, says):
    rejects(check.counted_twice, answer, says)


def asks_the_sampler(rows, world_size):
    samplers = [DistributedSampler(range(rows), world_size, r, False) for r in range(world_size)]
    dealt = Counter(i for sampler in samplers for i in sampler)
    return [i for i, times in dealt.items() for _ in range(times - 1)]


def goes_round(rows, world_size):
    a_rank = math.ceil(rows / world_size)
    return tuple(i % rows for i in range(rows, a_rank * world_size))


def backwards_in_numpy(rows, world_size):
    return np.arange(-rows % world_size)[::-1] % rows


def in_torch(rows, world_size):
    return torch.arange((world_size - rows % world_size) % world_size) % rows


def a_range_where_it_can(rows, world_size):
    missing = -rows % world_size
    return range(missing) if missing <= rows else (list(range(rows)) * world_size)[:missing]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(asks_the_sampler, id="the sampler itself"),
        pytest.param(goes_round, id="ceil, a tuple"),
        pytest.param(backwards_in_numpy, id="numpy, another order"),
        pytest.param(in_torch, id="a tensor"),
        pytest.param(a_range_where_it_can, id="a range"),
    ],
)
def test_counted_twice_accepts(accepts, answer):
    accepts(check.counted_twice, answer)


# ---- 11.3 · The rate when the batch grows


def share_of(step, warmup):
    return min(step / warmup, 1.0) if warmup else 1.0


def does_not_warm_up(step, rate, world_size, warmup):
    return rate * world_size


def never_grows(step, rate, world_size, warmup):
    return rate


def starts_from_zero(step, rate, world_size, warmup):
    return rate * world_size * share_of(step, warmup)


def counts_steps_from_one(step, rate, world_size, warmup):
    return rate * (1 + (world_size - 1) * share_of(step + 1, warmup))


def divides_by_no_steps(step, rate, world_size, warmup):
    return rate * (1 + (world_size - 1) * min(step / warmup, 1))


def skips_scaling_without_warm_up(step, rate, world_size, warmup):
    return rate * (1 + (world_size - 1) * share_of(step, warmup)) if warmup else rate


def takes_the_square_root(step, rate, world_size, warmup):
    return rate * (1 + (math.sqrt(world_size) - 1) * share_of(step, warmup))


def never_stops_rising(step, rate, world_size, warmup):
    return rate * (1 + (world_size - 1) * step / warmup)


def rises_in_a_curve(step, rate, world_size, warmup):
    return rate * world_size ** share_of(step, warmup)


def jumps_at_the_end(step, rate, world_size, warmup):
    return rate if step < warmup else rate * world_size


def adds_a_whole_rate_too_much(step, rate, world_size, warmup):
    return rate * (1 + world_size * share_of(step, warmup))


def divides_by_the_ranks(step, rate, world_size, warmup):
    return rate / (1 + (world_size - 1) * share_of(step, warmup))


def returns_a_tensor(step, rate, world_size, warmup):
    return torch.tensor(rate * (1 + (world_size - 1) * share_of(step, warmup)))


def returns_after_the_warm_up_only(step, rate, world_size, warmup):
    if step >= warmup:
        return rate * world_size


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(does_not_warm_up, "scaled, but at once", id="no warm-up"),
        pytest.param(never_grows, "that never grows", id="constant"),
        pytest.param(starts_from_zero, "not from zero", id="from 0"),
        pytest.param(counts_steps_from_one, "at step 0 the rate of one rank", id="step + 1"),
        pytest.param(divides_by_no_steps, "warmup=0 means no warm-up", id="division by 0"),
        pytest.param(skips_scaling_without_warm_up, "warmup=0 means no warm-up", id="warmup=0"),
        pytest.param(takes_the_square_root, "the rule of the square root", id="sqrt"),
        pytest.param(never_stops_rising, "the warm-up ends", id="no end"),
        pytest.param(rises_in_a_curve, "in a straight line", id="a curve"),
        pytest.param(jumps_at_the_end, "from step 10 on 4 times as much", id="a jump"),
        pytest.param(adds_a_whole_rate_too_much, "the rate stays at 4 times", id="N + 1"),
        pytest.param(divides_by_the_ranks, "multiply by the number", id="divides"),
        pytest.param(returns_a_tensor, "tensor.item()", id="a tensor"),
        pytest.param(returns_after_the_warm_up_only, "one number for every step", id="None"),
    ],
)
def test_rate_at_rejects(rejects, answer, says):
    rejects(check.rate_at, answer, says)


def in_two_branches(step, rate, world_size, warmup):
    if step >= warmup:
        return world_size * rate
    return ((warmup - step) * rate + step * world_size * rate) / warmup


def by_interpolation(step, rate, world_size, warmup):
    if warmup == 0:
        return np.float32(rate * world_size)
    return np.interp(step, [0, warmup], [rate, rate * world_size])


def with_a_scheduler(step, rate, world_size, warmup):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=rate * world_size)
    scheduler = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1 / world_size if warmup else 1.0, total_iters=max(warmup, 1)
    )
    for _ in range(step):
        optimizer.step()
        scheduler.step()
    return scheduler.get_last_lr()[0]


def in_float32(step, rate, world_size, warmup):
    share = torch.tensor(step / max(warmup, 1)).clamp(max=1) if warmup else torch.ones(())
    return torch.lerp(torch.tensor(rate), torch.tensor(rate * world_size), share).item()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(in_two_branches, id="two branches"),
        pytest.param(by_interpolation, id="numpy"),
        pytest.param(with_a_scheduler, id="LinearLR"),
        pytest.param(in_float32, id="float32"),
    ],
)
def test_rate_at_accepts(accepts, answer):
    accepts(check.rate_at, answer)
