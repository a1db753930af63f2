"""Exercises of lesson 01: wrong answers are told apart, right ones written differently pass."""

import math
import os
import time

import pytest
import torch
import torch.distributed as dist

from course_lib.checks import lesson_01 as check
from course_lib.group import process_group

# ---- 1.1 · Find your place


def swaps_them(rank, ranks_per_node):
    return rank % ranks_per_node, rank // ranks_per_node


def believes_in_four_a_node(rank, ranks_per_node):
    return rank // 4, rank % 4


def divides_without_rounding(rank, ranks_per_node):
    return rank / ranks_per_node, rank % ranks_per_node


def leaves_a_float(rank, ranks_per_node):
    local_rank = rank % ranks_per_node
    return (rank - local_rank) / ranks_per_node, local_rank


def rounds_to_the_nearest(rank, ranks_per_node):
    return round(rank / ranks_per_node), rank % ranks_per_node


def counts_nodes_from_one(rank, ranks_per_node):
    return rank // ranks_per_node + 1, rank % ranks_per_node


def tells_the_node_only(rank, ranks_per_node):
    return rank // ranks_per_node


def answers_in_tensors(rank, ranks_per_node):
    rank = torch.tensor(rank)
    return rank // ranks_per_node, rank % ranks_per_node


def answers_in_words(rank, ranks_per_node):
    return f"node {rank // ranks_per_node}, local rank {rank % ranks_per_node}"


def takes_one_argument(rank):
    return divmod(rank, 4)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(swaps_them, "the node comes first", id="swapped"),
        pytest.param(believes_in_four_a_node, "rank 5, 2 a node", id="always 4 a node"),
        pytest.param(divides_without_rounding, "// divides", id="/"),
        pytest.param(leaves_a_float, "got (2.0, 3), not (2, 3)", id="float"),
        pytest.param(rounds_to_the_nearest, "got (3, 3), not (2, 3)", id="round"),
        pytest.param(counts_nodes_from_one, "got (3, 3), not (2, 3)", id="nodes from 1"),
        pytest.param(tells_the_node_only, "got 2, not (2, 3)", id="node only"),
        pytest.param(answers_in_tensors, "got (tensor(2), tensor(3))", id="tensors"),
        pytest.param(answers_in_words, "got 'node 2, local rank 3'", id="words"),
        pytest.param(takes_one_argument, "takes 1 positional argument but 2", id="one argument"),
    ],
)
def test_find_place_rejects(rejects, answer, says):
    rejects(check.find_place, answer, says)


def by_counting(rank, ranks_per_node):
    node = 0
    while rank >= ranks_per_node:
        node, rank = node + 1, rank - ranks_per_node
    return [node, rank]


def by_rounding_down(rank, ranks_per_node):
    node = math.floor(rank / ranks_per_node)
    return node, rank - node * ranks_per_node


def in_numpy(rank, ranks_per_node):
    import numpy as np

    return np.divmod(rank, ranks_per_node)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(divmod, id="divmod itself"),
        pytest.param(by_counting, id="counting, a list"),
        pytest.param(by_rounding_down, id="floor"),
        pytest.param(in_numpy, id="numpy"),
    ],
)
def test_find_place_accepts(accepts, answer):
    accepts(check.find_place, answer)


# ---- 1.2 · Meet without help


def join(rank, world_size, port):
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )


def stays_in_the_group(rank, world_size, port, value):
    join(rank, world_size, port)
    total = torch.tensor([value])
    dist.all_reduce(total)
    return total.item()


def does_not_add(rank, world_size, port, value):
    join(rank, world_size, port)
    dist.barrier()  # who leaves at once looks, to one still connecting, as if it had crashed
    dist.destroy_process_group()
    return value


def takes_the_largest(rank, world_size, port, value):
    join(rank, world_size, port)
    total = torch.tensor([value])
    dist.all_reduce(total, op=dist.ReduceOp.MAX)
    dist.destroy_process_group()
    return total.item()


def tells_rank_0_only(rank, world_size, port, value):
    join(rank, world_size, port)
    total = torch.tensor([value])
    dist.reduce(total, dst=0)
    dist.barrier()
    dist.destroy_process_group()
    return total.item() if rank == 0 else None


def returns_the_tensor(rank, world_size, port, value):
    join(rank, world_size, port)
    total = torch.tensor([value])
    dist.all_reduce(total)
    dist.destroy_process_group()
    return total


def rounds_the_values(rank, world_size, port, value):
    join(rank, world_size, port)
    total = torch.tensor([int(value)])
    dist.all_reduce(total)
    dist.destroy_process_group()
    return total.item()


def returns_what_all_reduce_returns(rank, world_size, port, value):
    join(rank, world_size, port)
    total = dist.all_reduce(torch.tensor([value]))
    dist.destroy_process_group()
    return total


def asks_the_environment(rank, world_size, port, value):
    dist.init_process_group("gloo")


def leaves_the_rank_out(rank, world_size, port, value):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}")


def picks_a_port_itself(rank, world_size, port, value):
    return summed(rank, world_size, 23456, value)


def lets_the_course_join(rank, world_size, port, value):
    with process_group():
        total = torch.tensor([value])
        dist.all_reduce(total)
    return total.item()


def waits_for_one_more(rank, world_size, port, value):
    join(rank, world_size + 1, port)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(stays_in_the_group, "destroy_process_group", id="stays"),
        pytest.param(does_not_add, "own value only", id="does not add"),
        pytest.param(takes_the_largest, "sums unless told otherwise", id="MAX"),
        pytest.param(tells_rank_0_only, "tells every rank", id="reduce"),
        pytest.param(returns_the_tensor, "tensor.item()", id="a tensor"),
        pytest.param(rounds_the_values, "got [11, 11], not [11.5, 11.5]", id="rounds"),
        pytest.param(returns_what_all_reduce_returns, "got [None, None]", id="no result"),
        pytest.param(asks_the_environment, "nothing is left in the environment", id="env://"),
        pytest.param(leaves_the_rank_out, "rank and world_size here", id="no rank"),
        pytest.param(picks_a_port_itself, "with the port given", id="a port of its own"),
        pytest.param(lets_the_course_join, "own value only", id="process_group"),
    ],
)
def test_meet_and_add_rejects(rejects, answer, says):
    rejects(check.meet_and_add, answer, says)


@pytest.mark.faults
def test_meet_and_add_rejects_a_group_that_never_fills(rejects, impatient):
    rejects(check.meet_and_add, waits_for_one_more, "init_process_group, test_lesson_01.py, line")


def summed(rank, world_size, port, value):
    join(rank, world_size, port)
    try:
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)
    finally:
        dist.destroy_process_group()


def through_the_environment(rank, world_size, port, value):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
    dist.init_process_group("gloo")
    values = [None] * world_size
    dist.all_gather_object(values, value)
    dist.destroy_process_group()
    return sum(values)


def with_a_store(rank, world_size, port, value):
    store = dist.TCPStore("127.0.0.1", port, world_size, is_master=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    mine, parts = torch.tensor([value]), [torch.zeros(1) for _ in range(world_size)]
    dist.all_gather(parts, mine)
    dist.barrier()
    dist.destroy_process_group()
    return torch.cat(parts).sum().item()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(summed, id="float64, finally"),
        pytest.param(through_the_environment, id="environment, objects"),
        pytest.param(with_a_store, id="store, all_gather"),
    ],
)
def test_meet_and_add_accepts(accepts, answer):
    accepts(check.meet_and_add, answer)


# ---- 1.3 · The same under every launcher


def draw(seed):
    return torch.randn(1000, generator=torch.Generator().manual_seed(seed))


def over_ranks(number):
    total = torch.as_tensor(number)
    dist.all_reduce(total)
    return total.item()


def keeps_its_own_mean(seed):
    return draw(seed + dist.get_rank()).mean().item()


def forgets_the_ranks_when_dividing(seed):
    return over_ranks(draw(seed + dist.get_rank()).sum()) / 1000


def seeds_all_alike(seed):
    return over_ranks(draw(seed).mean()) / dist.get_world_size()


def does_not_seed(seed):
    return over_ranks(torch.randn(1000).mean()) / dist.get_world_size()


def seeds_with_the_time(seed):
    return over_ranks(draw(time.time_ns() % 10**9).mean()) / dist.get_world_size()


def draws_uniform_numbers(seed):
    generator = torch.Generator().manual_seed(seed + dist.get_rank())
    return over_ranks(torch.rand(1000, generator=generator).mean()) / dist.get_world_size()


def returns_a_tensor(seed):
    total = draw(seed + dist.get_rank()).sum()
    dist.all_reduce(total)
    return total / (1000 * dist.get_world_size())


def reduces_to_rank_0(seed):
    total = draw(seed + dist.get_rank()).sum()
    dist.reduce(total, dst=0)
    return total.item() / (1000 * dist.get_world_size())


def joins_a_second_time(seed):
    dist.init_process_group("gloo")


def leaves_the_group(seed):
    mean = mean_over_all(seed)
    dist.destroy_process_group()
    return mean


def asks_the_clock_a_little(seed):
    return mean_over_all(seed) + time.time_ns() % 1000 * 1e-10


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(keeps_its_own_mean, "have not talked", id="own mean"),
        pytest.param(forgets_the_ranks_when_dividing, "3 times the mean", id="a sum"),
        pytest.param(seeds_all_alike, "the same numbers", id="one seed"),
        pytest.param(does_not_seed, "manual_seed(seed + r)", id="no seed"),
        pytest.param(seeds_with_the_time, "manual_seed(seed + r)", id="time"),
        pytest.param(draws_uniform_numbers, "torch.randn(1000", id="rand"),
        pytest.param(returns_a_tensor, "tensor.item()", id="a tensor"),
        pytest.param(reduces_to_rank_0, "only rank 0 has it", id="reduce"),
        pytest.param(joins_a_second_time, "joined and left for you", id="joins again"),
        pytest.param(leaves_the_group, "joined and left for you", id="leaves"),
        pytest.param(asks_the_clock_a_little, "bit for bit", id="clock"),
    ],
)
def test_mean_of_noise_rejects(rejects, answer, says):
    rejects(check.mean_of_noise, answer, says)


def mean_over_all(seed):
    torch.manual_seed(seed + dist.get_rank())
    return over_ranks(torch.randn(1000).mean()) / dist.get_world_size()


def with_avg(seed):
    mean = draw(seed + dist.get_rank()).mean()
    dist.all_reduce(mean, op=dist.ReduceOp.AVG)
    return float(mean)


def gathers_everything(seed):
    mine = draw(seed + dist.get_rank())
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    return torch.cat(everyone).double().mean().item()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(mean_over_all, id="global generator"),
        pytest.param(with_avg, id="AVG"),
        pytest.param(gathers_everything, id="all_gather, float64"),
    ],
)
def test_mean_of_noise_accepts(accepts, answer):
    accepts(check.mean_of_noise, answer)
