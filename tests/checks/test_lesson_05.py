"""Exercises of lesson 05: wrong answers are told apart, right ones written differently pass."""

import time

import pytest
import torch
import torch.distributed as dist
from torch.distributed import all_gather, all_reduce, new_group
from torch.distributed.device_mesh import init_device_mesh

from course_lib.checks import lesson_05 as check

# ---- 5.1 · Along the row, down the column


def members(rank, rows, columns):
    row, column = divmod(rank, columns)
    return [row * columns + c for c in range(columns)], [r * columns + column for r in range(rows)]


def groups(rows, columns):
    """All groups, made on all ranks: this rank's row and its column."""
    rank = dist.get_rank()
    in_rows = [dist.new_group(members(r * columns, rows, columns)[0]) for r in range(rows)]
    in_columns = [dist.new_group(members(c, rows, columns)[1]) for c in range(columns)]
    return in_rows[rank // columns], in_columns[rank % columns]


def sums_in(in_row, in_column, numbers):
    row, column = numbers.clone(), numbers.clone()
    dist.all_reduce(row, group=in_row)
    dist.all_reduce(column, group=in_column)
    return row, column


def with_all_groups(numbers, rows, columns):
    return sums_in(*groups(rows, columns), numbers)


def gathers_from_all(numbers, rows, columns):
    everyone = [torch.empty_like(numbers) for _ in range(rows * columns)]
    dist.all_gather(everyone, numbers)
    own = members(dist.get_rank(), rows, columns)
    return tuple(sum(everyone[r] for r in ranks) for ranks in own)


def exchanged(numbers, rows, columns):
    return with_all_groups(numbers, rows, columns)[::-1]


def numbered_by_columns(numbers, rows, columns):
    """Takes rank r to be in row r % rows: the same on small grids."""
    rank, grid = dist.get_rank(), torch.arange(rows * columns).reshape(columns, rows).T
    in_rows = [dist.new_group(ranks) for ranks in grid.tolist()]
    in_columns = [dist.new_group(ranks) for ranks in grid.T.tolist()]
    return sums_in(in_rows[rank % rows], in_columns[rank // rows], numbers)


def without_copies(numbers, rows, columns):
    in_row, in_column = groups(rows, columns)
    total = numbers.clone()
    dist.all_reduce(total, group=in_row)
    row = total.clone()
    dist.all_reduce(total, group=in_column)
    return row, total


def members_only(numbers, rows, columns):
    row, column = members(dist.get_rank(), rows, columns)
    return sums_in(dist.new_group(row), dist.new_group(column), numbers)


def own_groups_first(numbers, rows, columns):
    rank, ranks = dist.get_rank(), range(rows * columns)
    made = {}
    for other in [rank, *ranks]:
        for one in map(tuple, members(other, rows, columns)):
            if one not in made:
                made[one] = new_group(one)
    row, column = members(rank, rows, columns)
    return sums_in(made[tuple(row)], made[tuple(column)], numbers)


def rank_0_makes_none(numbers, rows, columns):
    if dist.get_rank() == 0:
        return numbers, numbers
    return with_all_groups(numbers, rows, columns)


def in_the_numbers_themselves(numbers, rows, columns):
    in_row, in_column = groups(rows, columns)
    column = numbers.clone()
    dist.all_reduce(numbers, group=in_row)
    dist.all_reduce(column, group=in_column)
    return numbers, column


def on_the_first_only(numbers, rows, columns):
    in_row, in_column = groups(rows, columns)
    row, column = numbers.clone(), numbers.clone()
    dist.reduce(row, group_dst=0, group=in_row)
    dist.reduce(column, group_dst=0, group=in_column)
    return row, column


def with_barriers(numbers, rows, columns):
    found = with_all_groups(numbers, rows, columns)
    dist.barrier()
    return found


def one_sum(numbers, rows, columns):
    return with_all_groups(numbers, rows, columns)[0]


def as_floats(numbers, rows, columns):
    return with_all_groups(numbers.float(), rows, columns)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(gathers_from_all, "all_gather among [0, 1, 2, 3]", id="gathers all"),
        pytest.param(exchanged, "the two are exchanged", id="exchanged"),
        pytest.param(numbered_by_columns, "4 ranks in 2 rows", id="column by column"),
        pytest.param(without_copies, "begins with a copy", id="no copies"),
        pytest.param(members_only, "all ranks call new_group for every group", id="members only"),
        pytest.param(own_groups_first, "group 1 is [", id="own groups first"),
        pytest.param(rank_0_makes_none, "2 ranks: it hangs", id="rank 0 stays away"),
        pytest.param(in_the_numbers_themselves, "numbers is as before", id="changes numbers"),
        pytest.param(on_the_first_only, "in the sum are those of ranks", id="reduce"),
        pytest.param(with_barriers, "barrier among", id="a barrier more"),
        pytest.param(one_sum, "return a pair", id="one sum"),
        pytest.param(as_floats, "no tensor of int64", id="floats"),
    ],
)
def test_grid_sums_rejects(impatient, rejects, answer, says):
    rejects(check.grid_sums, answer, says)


def with_a_mesh(numbers, rows, columns):
    mesh = init_device_mesh("cpu", (rows, columns))
    return sums_in(mesh.get_group(1), mesh.get_group(0), numbers)


def with_enumerations(numbers, rows, columns):
    grid = torch.arange(rows * columns).reshape(rows, columns)
    row, _ = dist.new_subgroups_by_enumeration(grid.tolist())
    column, _ = dist.new_subgroups_by_enumeration(grid.T.tolist())
    return sums_in(row, column, numbers)


def gathered_in_the_groups(numbers, rows, columns):
    """Names imported by themselves; and who is alone calls nothing."""
    found = []
    for k in (0, 1):
        ours = members(dist.get_rank(), rows, columns)[k]
        every = sorted({tuple(members(r, rows, columns)[k]) for r in range(rows * columns)})
        made = {ranks: new_group(ranks=ranks) for ranks in every}
        room = [numbers.clone() for _ in ours]
        if len(ours) > 1:
            all_gather(room, numbers, made[tuple(ours)])
        found.append(torch.stack(room).sum(0))
    return found


def both_at_once(numbers, rows, columns):
    sums = numbers.clone(), numbers.clone()
    made = groups(rows, columns)
    works = [dist.all_reduce(s, group=g, async_op=True) for s, g in zip(sums, made, strict=True)]
    for work in works:
        work.wait()
    return sums


@pytest.mark.parametrize(
    "answer",
    [with_all_groups, with_a_mesh, with_enumerations, gathered_in_the_groups, both_at_once],
)
def test_grid_sums_accepts(accepts, answer):
    accepts(check.grid_sums, answer)


# ---- 5.2 · Find the missing wait


def offered(first, second):
    return [dist.all_reduce(gradient, async_op=True) for gradient in (first, second)]


def divided(first, second, batch):
    return first / dist.get_world_size(), second / dist.get_world_size(), batch


def with_a_list(first, second, prepare):
    works = offered(first, second)
    batch = prepare()
    for work in works:
        work.wait()
    return divided(first, second, batch)


def waits_for_the_last(first, second, prepare):
    for gradient in (first, second):
        work = dist.all_reduce(gradient, async_op=True)
    batch = prepare()
    work.wait()
    return divided(first, second, batch)


def waits_for_none(first, second, prepare):
    offered(first, second)
    batch = prepare()
    time.sleep(0.3)  # long enough, as it happens
    return divided(first, second, batch)


def waits_on_rank_0(first, second, prepare):
    works, batch = offered(first, second), prepare()
    for work in works if dist.get_rank() == 0 else works[:1]:
        work.wait()
    return divided(first, second, batch)


def at_once(first, second, prepare):
    dist.all_reduce(first)
    dist.all_reduce(second)
    return divided(first, second, prepare())


def one_after_the_other(first, second, prepare):
    dist.all_reduce(first, async_op=True).wait()
    work = dist.all_reduce(second, async_op=True)
    batch = prepare()
    work.wait()
    return divided(first, second, batch)


def prepares_first(first, second, prepare):
    batch = prepare()
    for work in offered(first, second):
        work.wait()
    return divided(first, second, batch)


def prepares_last(first, second, prepare):
    for work in offered(first, second):
        work.wait()
    return divided(first, second, prepare())


def reads_before_it_waits(first, second, prepare):
    works = offered(first, second)
    found = divided(first, second, prepare())
    for work in works:
        work.wait()
    return found


def without_division(first, second, prepare):
    averages = with_a_list(first, second, prepare)
    return *(x * dist.get_world_size() for x in averages[:2]), averages[2]


def divided_twice(first, second, prepare):
    return divided(*with_a_list(first, second, prepare))


def without_the_batch(first, second, prepare):
    return with_a_list(first, second, prepare)[:2]


def prepares_twice(first, second, prepare):
    prepare()
    return with_a_list(first, second, prepare)


def by_gathering(first, second, prepare):
    rooms = [[torch.empty_like(x) for _ in range(dist.get_world_size())] for x in (first, second)]
    works = [
        dist.all_gather(r, x, async_op=True) for r, x in zip(rooms, (first, second), strict=True)
    ]
    batch = prepare()
    for work in works:
        work.wait()
    return *(torch.stack(room).mean(0) for room in rooms), batch


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(waits_for_the_last, "nobody waits for the all_reduce", id="the last only"),
        pytest.param(waits_for_none, "nobody waits for the all_reduce", id="none"),
        pytest.param(waits_on_rank_0, "every handle is waited for", id="rank 0 only"),
        pytest.param(at_once, "async_op=True lets a call return", id="not asynchronous"),
        pytest.param(one_after_the_other, "before prepare() is done", id="one by one"),
        pytest.param(prepares_first, "offer both before you call prepare()", id="prepares first"),
        pytest.param(prepares_last, "it waits before prepare() is done", id="prepares last"),
        pytest.param(reads_before_it_waits, "divide after wait()", id="reads early"),
        pytest.param(without_division, "that is the sum", id="no division"),
        pytest.param(divided_twice, "it is divided twice", id="divided twice"),
        pytest.param(without_the_batch, "return three things", id="no batch"),
        pytest.param(prepares_twice, "2 times", id="prepares twice"),
        pytest.param(by_gathering, "called was all_gather", id="all_gather"),
    ],
)
def test_average_both_rejects(impatient, rejects, answer, says):
    rejects(check.average_both, answer, says)


def with_avg(first, second, prepare):
    one = all_reduce(first, op=dist.ReduceOp.AVG, async_op=True)
    two = all_reduce(second, op=dist.ReduceOp.AVG, async_op=True)
    batch = prepare()
    two.wait()
    one.wait()
    return [first, second, batch]


def the_second_first(first, second, prepare):
    works = offered(second, first)
    batch = prepare()
    while works:
        works.pop().wait()
    return divided(first, second, batch)


def of_copies(first, second, prepare):
    sums = first.clone(), second.clone()
    works = {name: work for name, work in zip("ab", offered(*sums), strict=True)}
    batch = prepare()
    works["a"].wait()
    works["b"].wait()
    return *(x.div_(dist.get_world_size()) for x in sums), batch


@pytest.mark.parametrize("answer", [with_a_list, with_avg, the_second_first, of_copies])
def test_average_both_accepts(accepts, answer):
    accepts(check.average_both, answer)


# ---- 5.3 · Save once


def tell(problem):
    """What rank 0 says, on all ranks."""
    told = [problem]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def attempt(save):
    if dist.get_rank() == 0:
        try:
            save()
        except OSError as error:
            return str(error)
    return None


def with_a_broadcast(save, load):
    problem = tell(attempt(save))
    if problem:
        raise RuntimeError(f"not saved: {problem}")
    loaded = load()
    dist.barrier()
    return loaded


def all_save(save, load):
    save()
    dist.barrier()
    return load()


def a_race(save, load):
    attempt(save)
    loaded = load()
    dist.barrier()
    return loaded


def a_nap(save, load):
    if dist.get_rank() == 0:
        save()
    time.sleep(0.01)
    return load()


def goes_on_at_once(save, load):
    problem = tell(attempt(save))
    if problem:
        raise RuntimeError(problem)
    return load()


def rank_0_raises_alone(save, load):
    if dist.get_rank() == 0:
        save()
    dist.barrier()
    loaded = load()
    dist.barrier()
    return loaded


def swallows_the_error(save, load):
    if tell(attempt(save)):
        return None
    return with_a_broadcast(lambda: None, load)


def only_rank_0_raises(save, load):
    problem = tell(attempt(save))
    if problem is None:
        return with_a_broadcast(lambda: None, load)
    if dist.get_rank() == 0:
        raise RuntimeError(problem)
    return None


def says_not_why(save, load):
    problem = tell(attempt(save))
    if problem:
        raise RuntimeError("rank 0 could not save")
    loaded = load()
    dist.barrier()
    return loaded


def loads_all_the_same(save, load):
    problem = tell(attempt(save))
    loaded = load()
    dist.barrier()
    if problem:
        raise RuntimeError(problem)
    return loaded


def rank_0_loads_for_all(save, load):
    problem = tell(attempt(save))
    if problem:
        raise RuntimeError(problem)
    return tell(load() if dist.get_rank() == 0 else None)


def returns_nothing(save, load):
    with_a_broadcast(save, load)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(all_save, "on rank 0 only", id="all save"),
        pytest.param(a_race, "began to load before rank 0 had saved", id="race"),
        pytest.param(a_nap, "began to load before rank 0 had saved", id="sleeps"),
        pytest.param(goes_on_at_once, "while rank 1 was still loading", id="goes on at once"),
        pytest.param(rank_0_raises_alone, "2 ranks: it hangs", id="deadlock"),
        pytest.param(swallows_the_error, "rank 0 raises nothing", id="swallowed"),
        pytest.param(only_rank_0_raises, "rank 1 raises nothing", id="only rank 0 raises"),
        pytest.param(says_not_why, "does not contain", id="says not why"),
        pytest.param(loads_all_the_same, "loads although nothing was saved", id="loads"),
        pytest.param(rank_0_loads_for_all, "rank 1 called load 0 times", id="rank 0 loads"),
        pytest.param(returns_nothing, "not what load returned", id="returns nothing"),
    ],
)
def test_save_once_rejects(impatient, rejects, answer, says):
    rejects(check.save_once, answer, says)


def with_a_gather(save, load):
    said = [None] * dist.get_world_size()
    dist.all_gather_object(said, attempt(save))
    problems = [problem for problem in said if problem]
    if problems:
        raise RuntimeError(*problems)
    loaded = load()
    dist.all_reduce(torch.zeros(1))
    return loaded


def with_messages(save, load):
    ranks = range(1, dist.get_world_size())
    if dist.get_rank() == 0:
        problem = [attempt(save)]
        for rank in ranks:
            dist.send_object_list(problem, dst=rank)
    else:
        problem = [None]
        dist.recv_object_list(problem, src=0)
    if problem[0] is not None:
        raise OSError(problem[0])
    try:
        return load()
    finally:
        dist.monitored_barrier()


def with_a_flag(save, load):
    problem = attempt(save)
    failed = torch.tensor(0 if problem is None else 1)
    dist.all_reduce(failed, op=dist.ReduceOp.MAX)
    if failed:
        raise RuntimeError(tell(problem))
    work = [load(), dist.barrier(async_op=True)]
    work[1].wait()
    return work[0]


@pytest.mark.parametrize("answer", [with_a_broadcast, with_a_gather, with_messages, with_a_flag])
def test_save_once_accepts(accepts, answer):
    accepts(check.save_once, answer)


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["grid_sums", "average_both", "save_once"])
def test_a_stub_is_not_done_yet(verdict, name):
    assert "○ not done yet" in verdict(getattr(check, name), stub)
