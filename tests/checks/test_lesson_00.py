"""Exercises of lesson 00: wrong answers are told apart, right ones written differently pass."""

import os

import pytest

from course_lib.checks import lesson_00 as check
from course_lib.group import process_group


def numbers() -> tuple[int, int]:
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


# ---- 0.1 · Roll call


def counts_from_one():
    return f"rank {int(os.environ['RANK']) + 1} of {os.environ['WORLD_SIZE']}"


def prints_it():
    print(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}")


def swaps_the_numbers():
    return f"rank {os.environ['WORLD_SIZE']} of {os.environ['RANK']}"


def believes_in_two_ranks():
    return f"rank {os.environ['RANK']} of 2"


def forgets_the_f():
    return "rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}"


def lower_case_name():
    return f"rank {os.environ['rank']} of {os.environ['world_size']}"  # noqa: SIM112


def adds_text_to_a_number():
    rank, world_size = numbers()
    return "rank " + rank + " of " + world_size


def calls_the_roll_alone():
    return [f"rank {r} of {os.environ['WORLD_SIZE']}" for r in range(numbers()[1])]


def asks_the_group_before_it_is_joined():
    import torch.distributed as dist

    return f"rank {dist.get_rank()} of {dist.get_world_size()}"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(counts_from_one, "ranks count from 0", id="counts from 1"),
        pytest.param(prints_it, "not returned", id="prints"),
        pytest.param(swaps_the_numbers, "rank 2 of 0", id="swapped"),
        pytest.param(believes_in_two_ranks, "3 ranks return 3 lines", id="always 2 ranks"),
        pytest.param(forgets_the_f, "RANK and WORLD_SIZE", id="no f-string"),
        pytest.param(lower_case_name, "RANK and WORLD_SIZE", id="lower case"),
        pytest.param(adds_text_to_a_number, "can only concatenate str", id="str + int"),
        pytest.param(calls_the_roll_alone, "got [['rank 0 of 2', ", id="the whole roll"),
        pytest.param(asks_the_group_before_it_is_joined, "RANK and WORLD_SIZE", id="no group"),
    ],
)
def test_roll_call_rejects(rejects, answer, says):
    rejects(check.roll_call, answer, says)


def with_getenv():
    return "rank {} of {}".format(os.getenv("RANK"), os.getenv("WORLD_SIZE"))


def with_a_process_group():
    with process_group() as pg:
        return f"rank {pg.rank} of {pg.world_size}"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(with_getenv, id="getenv and format"),
        pytest.param(lambda: "rank %d of %d" % numbers(), id="lambda, numbers"),  # noqa: UP031
        pytest.param(with_a_process_group, id="process group"),
    ],
)
def test_roll_call_accepts(accepts, answer):
    accepts(check.roll_call, answer)


# ---- 0.2 · Divide the work


def drops_the_remainder(n):
    rank, world_size = numbers()
    size = n // world_size
    return list(range(rank * size, (rank + 1) * size))


def rounds_up_and_runs_over(n):
    rank, world_size = numbers()
    size = -(-n // world_size)
    return list(range(rank * size, (rank + 1) * size))


def gives_the_last_what_is_left(n):
    rank, world_size = numbers()
    size = n // world_size
    end = n if rank == world_size - 1 else (rank + 1) * size
    return list(range(rank * size, end))


def takes_the_first_part_always(n):
    return list(range(n // numbers()[1]))


def takes_everything(n):
    return list(range(n))


def counts_items_from_one(n):
    rank, world_size = numbers()
    return list(range(rank + 1, n + 1, world_size))


def only_counts(n):
    rank, world_size = numbers()
    return len(range(rank, n, world_size))


def a_mask(n):
    rank, world_size = numbers()
    return [i % world_size == rank for i in range(n)]


def leaves_text_as_text(n):
    return list(range(os.environ["RANK"], n, os.environ["WORLD_SIZE"]))


def a_generator(n):
    rank, world_size = numbers()
    return (i for i in range(rank, n, world_size))


def stops_early(n):
    rank, world_size = numbers()
    return list(range(rank, n - 1, world_size))


def shares_the_shares_of_two(n):
    return list(range(numbers()[0], n, 2))


def prints_its_share(n):
    rank, world_size = numbers()
    print(list(range(rank, n, world_size)))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(drops_the_remainder, "nobody takes [9]", id="remainder dropped"),
        pytest.param(rounds_up_and_runs_over, "there is no item 10", id="runs over the end"),
        pytest.param(gives_the_last_what_is_left, "sizes are [2, 2, 2, 4]", id="uneven"),
        pytest.param(takes_the_first_part_always, "taken twice", id="same part everywhere"),
        pytest.param(takes_everything, "taken twice", id="everything"),
        pytest.param(counts_items_from_one, "numbered from 0", id="items from 1"),
        pytest.param(only_counts, "the indices themselves", id="a number"),
        pytest.param(a_mask, "the indices themselves", id="a mask"),
        pytest.param(leaves_text_as_text, "os.environ holds text", id="text"),
        pytest.param(a_generator, "return a list of whole numbers", id="a generator"),
        pytest.param(stops_early, "nobody takes [9]", id="one too few"),
        pytest.param(shares_the_shares_of_two, "3 ranks", id="always 2 ranks"),
        pytest.param(prints_its_share, "the indices themselves", id="prints"),
    ],
)
def test_my_share_rejects(rejects, answer, says):
    rejects(check.my_share, answer, says)


def contiguous(n):
    rank, world_size = numbers()
    return list(range(rank * n // world_size, (rank + 1) * n // world_size))


def the_remainder_first(n):
    rank, world_size = numbers()
    size, more = divmod(n, world_size)
    begin = rank * size + min(rank, more)
    return [begin + i for i in range(size + (rank < more))]


def array_split(n):
    import numpy as np

    rank, world_size = numbers()
    return np.array_split(np.arange(n), world_size)[rank]


def a_set(n):
    rank, world_size = numbers()
    return {i for i in range(n) if i % world_size == world_size - 1 - rank}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(contiguous, id="contiguous"),
        pytest.param(the_remainder_first, id="remainder first"),
        pytest.param(array_split, id="numpy"),
        pytest.param(a_set, id="a set, dealt from the last rank"),
    ],
)
def test_my_share_accepts(accepts, answer):
    accepts(check.my_share, answer)
