"""Exercises of lesson 03: wrong answers are told apart, right ones written differently pass."""

import math
from contextlib import suppress
from functools import partial
from time import monotonic

import pytest
import torch
import torch.distributed as dist
from torch.distributed import P2POp, batch_isend_irecv, irecv, isend, recv, send

from course_lib.checks import lesson_03 as check

# ---- 3.1 · Broadcast from messages


def star(tensor, src):
    if dist.get_rank() != src:
        dist.recv(tensor, src=src)
        return
    for rank in range(dist.get_world_size()):
        if rank != src:
            dist.send(tensor, dst=rank)


def chain(tensor, src):
    """Each passes it on to the next; the source's left neighbour keeps it."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if rank != src:
        recv(tensor, src=(rank - 1) % ranks)
    if (rank + 1) % ranks != src:
        send(tensor, dst=(rank + 1) % ranks)


def tree(tensor, src):
    ranks = dist.get_world_size()
    place, step = (dist.get_rank() - src) % ranks, 1
    while step < ranks:
        if place < step and place + step < ranks:
            dist.send(tensor, (place + step + src) % ranks)
        elif step <= place < 2 * step:
            dist.recv(tensor, (place - step + src) % ranks)
        step *= 2


def all_offered(tensor, src):
    if dist.get_rank() == src:
        others = [r for r in range(dist.get_world_size()) if r != src]
        for work in [isend(tensor, dst=r) for r in others]:
            work.wait()
    else:
        irecv(tensor, src=src).wait()


def with_the_collective(tensor, src):
    dist.broadcast(tensor, src=src)


def with_all_reduce(tensor, src):
    if dist.get_rank() != src:
        tensor.zero_()
    dist.all_reduce(tensor)


def always_from_rank_0(tensor, src):
    star(tensor, 0)


def returns_it(tensor, src):
    got = tensor.clone()
    star(got, src)
    return got


def back_and_forth(tensor, src):
    """The source sends, and gets a receipt of the same size."""
    star(tensor, src)
    if dist.get_rank() != src:
        dist.send(tensor, dst=src)
        return
    for rank in range(dist.get_world_size()):
        if rank != src:
            dist.recv(torch.empty_like(tensor), src=rank)


def forgets_the_last(tensor, src):
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    if rank == src:
        for other in range(dist.get_world_size()):
            if other not in (src, last):
                dist.send(tensor, dst=other)
    elif rank != last:
        dist.recv(tensor, src=src)


def for_even_worlds(tensor, src):
    if dist.get_world_size() % 2 == 0:
        star(tensor, src)


def hangs_at_three(tensor, src):
    """Waits for a neighbour that never sends, but only if there are three."""
    if dist.get_world_size() == 3 and dist.get_rank() != src:
        dist.recv(tensor, src=3 - src - dist.get_rank())
    else:
        star(tensor, src)


def number_by_number(tensor, src):
    for one in tensor.view(-1):
        star(one, src)


KEPT = []  # handles: a message whose handle is thrown away may never arrive


def never_waits(tensor, src):
    if dist.get_rank() != src:
        dist.recv(tensor, src=src)
        return
    for rank in range(dist.get_world_size()):
        if rank != src:
            KEPT.append(dist.isend(tensor, dst=rank))


def crashes(tensor, src):
    return tensor / "src"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(with_the_collective, "dist.broadcast was called at", id="the collective"),
        pytest.param(with_all_reduce, "dist.all_reduce was called at", id="all_reduce"),
        pytest.param(always_from_rank_0, "the source is src", id="root 0 only"),
        pytest.param(returns_it, "put into the tensor that was passed", id="returns it"),
        pytest.param(back_and_forth, "1 message (got 2)", id="receipts"),
        pytest.param(forgets_the_last, "all hold rank 0's numbers", id="off by one"),
        pytest.param(for_even_worlds, "3 ranks, src=0: all hold", id="even sizes only"),
        pytest.param(number_by_number, "1 message (got 5)", id="many messages"),
        pytest.param(never_waits, "nobody waited for the isend at", id="no wait"),
        pytest.param(crashes, "raised TypeError", id="raises"),
    ],
)
def test_broadcast_rejects(rejects, answer, says):
    rejects(check.my_broadcast, answer, says)


@pytest.mark.slow
@pytest.mark.faults
def test_a_hang_at_three_ranks_is_reported_with_its_line(rejects):
    """With the patience that learners get: control returns in time."""
    begin = monotonic()
    rejects(check.my_broadcast, hangs_at_three, "still in recv, test_lesson_03.py, line")
    assert monotonic() - begin < 60  # 15 s on a quiet machine


@pytest.mark.parametrize("answer", [star, chain, tree, all_offered, partial(star)])
def test_broadcast_accepts(accepts, answer):
    accepts(check.my_broadcast, answer)


# ---- 3.2 · Scatter and gather from messages


def deal(room, pieces, src):
    if dist.get_rank() != src:
        dist.recv(room, src=src)
        return
    for rank, piece in enumerate(pieces):
        room.copy_(piece) if rank == src else dist.send(piece, dst=rank)


def collect(tensor, dst):
    if dist.get_rank() != dst:
        dist.send(tensor, dst=dst)
        return None
    pieces = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    for rank, piece in enumerate(pieces):
        piece.copy_(tensor) if rank == dst else dist.recv(piece, src=rank)
    return pieces


def dist_scatter(room, pieces, src):
    dist.scatter(room, pieces, src=src)


def deal_without_own(room, pieces, src):
    if dist.get_rank() != src:
        dist.recv(room, src=src)
        return
    for rank, piece in enumerate(pieces):
        if rank != src:
            dist.send(piece, dst=rank)


def deal_everything(room, pieces, src):
    """All pieces to everyone, who picks its own."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    every = torch.stack(pieces) if rank == src else room.new_empty((ranks, *room.shape))
    star(every, src)
    room.copy_(every[rank])


def deal_to_the_next(room, pieces, src):
    """Off by one: the piece of the next rank."""
    deal(room, pieces and pieces[1:] + pieces[:1], src)


def deal_from_rank_0(room, pieces, src):
    deal(room, pieces or [room] * dist.get_world_size(), 0)


def deal_into_a_new_room(room, pieces, src):
    deal(room.clone(), pieces, src)


def deal_to_itself(room, pieces, src):
    for rank, piece in enumerate(pieces or []):
        dist.send(piece, dst=rank)
    dist.recv(room, src=src)


def deal_with_batches(room, pieces, src):
    if dist.get_rank() != src:
        operations = [P2POp(irecv, room, src)]
    else:
        room.copy_(pieces[src])
        operations = [P2POp(isend, p, r) for r, p in enumerate(pieces) if r != src]
    for work in batch_isend_irecv(operations):
        work.wait()


def deal_backwards(room, pieces, src):
    if pieces is None:
        irecv(room, src=src).wait()
        return
    for rank in reversed(range(len(pieces))):
        if rank != src:
            send(pieces[rank], dst=rank)
    room[...] = pieces[src]


def deal_with_tags(room, pieces, src):
    rank = dist.get_rank()
    if rank == src:
        works = [isend(p, dst=r, tag=r) for r, p in enumerate(pieces) if r != src]
        room.copy_(pieces[rank])
        for work in works:
            work.wait()
    else:
        recv(room, src=src, tag=rank)


def dist_gather(tensor, dst):
    room = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.gather(tensor, room if dist.get_rank() == dst else None, dst=dst)
    return room if dist.get_rank() == dst else None


def collect_first_come(tensor, dst):
    if dist.get_rank() != dst:
        dist.send(tensor, dst=dst)
        return None
    others = [r for r in range(dist.get_world_size()) if r != dst]
    pieces = [tensor.clone()]
    for rank in others:
        pieces.append(torch.empty_like(tensor))
        dist.recv(pieces[-1], src=rank)
    return pieces


def collect_in_one_tensor(tensor, dst):
    if dist.get_rank() != dst:
        dist.send(tensor, dst=dst)
        return None
    room, pieces = torch.empty_like(tensor), []
    for rank in range(dist.get_world_size()):
        if rank != dst:
            dist.recv(room, src=rank)
        pieces.append(tensor if rank == dst else room)
    return pieces


def collect_without_own(tensor, dst):
    pieces = collect(tensor, dst)
    return pieces and [torch.zeros_like(p) if r == dst else p for r, p in enumerate(pieces)]


def collect_on_all(tensor, dst):
    """An all-gather: right on dst, and far too much."""
    return [collect(tensor, r) for r in range(dist.get_world_size())][dst] or [tensor]


def collect_with_offers(tensor, dst):
    if dist.get_rank() != dst:
        isend(tensor, dst).wait()
        return None
    pieces = [tensor.clone() for _ in range(dist.get_world_size())]
    for work in [irecv(p, r) for r, p in enumerate(pieces) if r != dst]:
        work.wait()
    return pieces


def collect_from_anyone(tensor, dst):
    if dist.get_rank() != dst:
        dist.send(tensor, dst)
        return None
    pieces = {dst: tensor}
    while len(pieces) < dist.get_world_size():
        room = torch.empty_like(tensor)
        pieces[dist.recv(room)] = room
    return tuple(pieces[rank] for rank in sorted(pieces))


def collect_in_a_block(tensor, dst):
    ranks = dist.get_world_size()
    if dist.get_rank() != dst:
        dist.send(tensor, dst)
        return None
    block = torch.empty((ranks, *tensor.shape), dtype=tensor.dtype)
    block[dst] = tensor
    for rank in [*range(dst), *range(dst + 1, ranks)]:
        dist.recv(block[rank], rank)
    return list(block)


@pytest.mark.parametrize(
    ("scatter", "gather", "says"),
    [
        pytest.param(dist_scatter, collect, "dist.scatter was called", id="dist.scatter"),
        pytest.param(deal_without_own, collect, "its own piece into its room", id="own piece"),
        pytest.param(deal_everything, collect, "a piece has 20 bytes", id="all to everyone"),
        pytest.param(deal_to_the_next, collect, "has not got piece number", id="off by one"),
        pytest.param(deal_from_rank_0, collect, "src=1: every rank", id="root 0 only"),
        pytest.param(deal_into_a_new_room, collect, "receive into room itself", id="new room"),
        pytest.param(deal_to_itself, collect, "nobody sends to itself", id="to itself"),
        pytest.param(deal, dist_gather, "dist.gather was called", id="dist.gather"),
        pytest.param(deal, collect_first_come, "not in rank order", id="own first"),
        pytest.param(deal, collect_in_one_tensor, "a tensor for each rank", id="one tensor"),
        pytest.param(deal, collect_without_own, "own piece is missing", id="own is lost"),
        pytest.param(deal, collect_on_all, "the others get None", id="gathered on all"),
    ],
)
def test_scatter_and_gather_rejects(impatient, rejects, scatter, gather, says):
    rejects(lambda answer: check.scatter_and_gather(answer, gather), scatter, says)


@pytest.mark.parametrize(
    ("scatter", "gather"),
    [
        (deal_with_batches, collect_with_offers),
        (deal_backwards, collect_from_anyone),
        (deal_with_tags, collect_in_a_block),
    ],
)
def test_scatter_and_gather_accepts(accepts, scatter, gather):
    accepts(lambda answer: check.scatter_and_gather(answer, gather), scatter)


# ---- 3.3 · All-gather on a ring


def ring(mine, to=1, rounds=None):
    """Pieces move ``to`` places to the right in each round."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    everything = torch.empty((ranks, *mine.shape), dtype=mine.dtype)
    everything[rank] = mine
    moving = mine.clone()
    for step in range(1, ranks if rounds is None else rounds(ranks)):
        work = dist.isend(moving, dst=(rank + to) % ranks)
        arrived = torch.empty_like(mine)
        dist.recv(arrived, src=(rank - to) % ranks)
        work.wait()
        moving = arrived
        everything[(rank - to * step) % ranks] = moving
    return everything


def dist_all_gather(mine):
    room = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(room, mine)
    return torch.stack(room)


def to_the_left(mine):
    return ring(mine, to=-1)


def one_round_too_many(mine):
    return ring(mine, rounds=lambda ranks: ranks + 1)


def one_round_too_few(mine):
    return ring(mine, rounds=lambda ranks: ranks - 1)


def off_by_one(mine):
    return ring(mine).roll(1, 0)


def in_order_of_arrival(mine):
    rank = dist.get_rank()
    return ring(mine).flip(0).roll(rank + 1, 0)


def straight_to_everyone(mine):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    everything = torch.stack([mine] * ranks)
    others = [r for r in range(ranks) if r != rank]
    works = [dist.isend(mine, dst=r) for r in others]
    works += [dist.irecv(everything[r], src=r) for r in others]
    for work in works:
        work.wait()
    return everything


def the_whole_buffer(mine):
    """Sends everything it has in each round."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    everything = torch.zeros((ranks, *mine.shape), dtype=mine.dtype)
    everything[rank] = mine
    for _ in range(ranks - 1):
        work = dist.isend(everything.clone(), dst=(rank + 1) % ranks)
        arrived = torch.empty_like(everything)
        dist.recv(arrived, src=(rank - 1) % ranks)
        work.wait()
        everything = torch.maximum(everything, arrived)
    return everything


def in_floats(mine):
    return ring(mine).float()


def as_a_list(mine):
    return list(ring(mine))


def overwrites_mine(mine):
    everything = ring(mine)
    mine.zero_()
    return everything


def all_send_first(mine):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    dist.send(mine, dst=(rank + 1) % ranks)
    return mine


def even_ranks_first(mine):
    """Even ranks speak, odd ranks listen: at three, two even ones are neighbours."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    everything = torch.stack([mine] * ranks)
    right, left = (rank + 1) % ranks, (rank - 1) % ranks
    for step in range(ranks - 1):
        out, back = everything[(rank - step) % ranks], everything[(left - step) % ranks]
        if rank % 2 == 0:
            dist.send(out, dst=right)
            dist.recv(back, src=left)
        else:
            arrived = torch.empty_like(out)
            dist.recv(arrived, src=left)
            dist.send(out, dst=right)
            back.copy_(arrived)
    return everything


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(dist_all_gather, "dist.all_gather was called", id="dist.all_gather"),
        pytest.param(to_the_left, "on its right is rank 1", id="to the left"),
        pytest.param(one_round_too_many, "(rank 0 sent 2)", id="a round too many"),
        pytest.param(one_round_too_few, "is not rank", id="a round too few"),
        pytest.param(off_by_one, "entry 0 is not rank 0's piece", id="off by one"),
        pytest.param(in_order_of_arrival, "is not rank", id="order of arrival"),
        pytest.param(straight_to_everyone, "on its right is rank", id="no ring"),
        pytest.param(the_whole_buffer, "pass on only what arrived last", id="whole buffer"),
        pytest.param(in_floats, "the result is torch.float32", id="type"),
        pytest.param(as_a_list, "got list", id="a list"),
        pytest.param(overwrites_mine, "mine is as before", id="overwrites"),
        pytest.param(all_send_first, "2 ranks: it hangs", id="all send"),
    ],
)
def test_ring_all_gather_rejects(impatient, rejects, answer, says):
    rejects(check.ring_all_gather, answer, says)


def in_place_with_offers(mine):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    everything = torch.stack([mine] * ranks)
    for step in range(ranks - 1):
        here, there = (rank - step) % ranks, (rank - step - 1) % ranks
        receiving = irecv(everything[there], src=(rank - 1) % ranks)
        isend(everything[here], dst=(rank + 1) % ranks).wait()
        receiving.wait()
    return everything


def with_batches(mine):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    pieces = {rank: mine}
    for step in range(ranks - 1):
        room, moving = torch.empty_like(mine), pieces[(rank - step) % ranks]
        right, left = (rank + 1) % ranks, (rank - 1) % ranks
        for work in batch_isend_irecv([P2POp(isend, moving, right), P2POp(irecv, room, left)]):
            work.wait()
        pieces[(rank - step - 1) % ranks] = room
    return torch.stack([pieces[r] for r in range(ranks)])


def rank_0_listens_first(mine):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    gathered = [mine] * ranks
    for step in range(ranks - 1):
        arrived, moving = torch.empty_like(mine), gathered[(rank - step) % ranks]
        turns = [partial(recv, arrived, (rank - 1) % ranks)]
        turns.insert(0 if rank else 1, partial(send, moving, (rank + 1) % ranks))
        for turn in turns:
            turn()
        gathered[(rank - step - 1) % ranks] = arrived
    return torch.cat([piece[None] for piece in gathered])


@pytest.mark.parametrize(
    "answer", [ring, in_place_with_offers, with_batches, rank_0_listens_first, even_ranks_first]
)
def test_ring_all_gather_accepts(accepts, answer):
    accepts(check.ring_all_gather, answer)


# ---- 3.4 · The mean of all rows


def add_over_ranks(*numbers):
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def mean_of_means(rows):
    mean = rows.mean() if len(rows) else torch.tensor(0.0)
    dist.all_reduce(mean, op=dist.ReduceOp.AVG)
    return mean.item()


def mean_of_means_with_nan(rows):
    mean = rows.mean()
    dist.all_reduce(mean)
    return mean.item() / dist.get_world_size()


def without_division(rows):
    return add_over_ranks(rows.sum().item(), len(rows))[0]


def own_mean(rows):
    total = torch.tensor([rows.sum().item(), len(rows)])
    dist.all_reduce(total.clone())
    return (total[0] / total[1].clamp(min=1)).item()


def two_calls(rows):
    total = rows.sum()
    count = torch.tensor(len(rows))
    dist.all_reduce(total)
    dist.all_reduce(count)
    return (total / count).item()


def gathers_all_rows(rows):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, rows)
    return torch.cat(everyone).mean().item()


def pads_the_rows(rows):
    padded = torch.zeros(2, 16)
    padded[0, : len(rows)] = rows
    padded[1, : len(rows)] = 1
    dist.all_reduce(padded)
    return (padded[0].sum() / padded[1].sum()).item()


def on_rank_0_only(rows):
    total, count = add_over_ranks(rows.sum().item(), len(rows))
    return total / count if dist.get_rank() == 0 else None


def a_tensor(rows):
    total = torch.tensor([rows.sum(), len(rows)])
    dist.all_reduce(total)
    return total[0] / total[1]


def empty_ranks_stay_away(rows):
    if not len(rows):
        return math.nan
    total, count = add_over_ranks(rows.sum().item(), len(rows))
    return total / count


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(mean_of_means, "mean of the ranks' means", id="mean of means"),
        pytest.param(mean_of_means_with_nan, "mean of the ranks' means", id="NaN"),
        pytest.param(without_division, "divide it by their number", id="no division"),
        pytest.param(own_mean, "nothing has been exchanged", id="own mean"),
        pytest.param(two_calls, "got all_reduce, all_reduce", id="two calls"),
        pytest.param(gathers_all_rows, "got all_gather_object", id="gathers rows"),
        pytest.param(pads_the_rows, "two numbers are enough", id="pads"),
        pytest.param(on_rank_0_only, "return a plain float", id="rank 0 only"),
        pytest.param(a_tensor, "return a plain float", id="a tensor"),
        pytest.param(empty_ranks_stay_away, "also one without rows", id="stays away"),
    ],
)
def test_mean_of_all_rows_rejects(impatient, rejects, answer, says):
    rejects(check.mean_of_all_rows, answer, says)


def in_numbers(rows):
    total, count = add_over_ranks(rows.sum().item(), len(rows))
    return total / count


def in_float32(rows):
    pair = torch.stack([rows.sum(), torch.ones_like(rows).sum()])
    dist.all_reduce(pair, op=dist.ReduceOp.SUM)
    return float(pair[0] / pair[1])


def averaged_then_divided(rows):
    pair = torch.tensor([sum(rows.tolist()), float(rows.numel())])
    work = dist.all_reduce(pair, op=dist.ReduceOp.AVG, async_op=True)
    with suppress(ZeroDivisionError):
        work.wait()
        return pair[0].item() / pair[1].item()


@pytest.mark.parametrize("answer", [in_numbers, in_float32, averaged_then_divided])
def test_mean_of_all_rows_accepts(accepts, answer):
    accepts(check.mean_of_all_rows, answer)


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["my_broadcast", "ring_all_gather", "mean_of_all_rows"])
def test_a_stub_is_not_done_yet(verdict, name):
    assert "○ not done yet" in verdict(getattr(check, name), stub)


def test_a_stub_of_two_is_not_done_yet(verdict):
    assert "○ not done yet" in verdict(check.scatter_and_gather, deal, stub)
