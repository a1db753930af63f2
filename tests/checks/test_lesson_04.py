"""Exercises of lesson 04: wrong answers are told apart, right ones written differently pass."""

import math
import re
from time import monotonic

import pytest
import torch
import torch.distributed as dist
from torch.distributed import P2POp, batch_isend_irecv, irecv, isend

from course_lib.checks import lesson_04 as check

# ---- 4.1 · A ring for any length


def swap(out, into, to=1):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    work = dist.isend(out, dst=(rank + to) % ranks)
    dist.recv(into, src=(rank - to) % ranks)
    work.wait()


def ring(tensor, to=1, cut=torch.tensor_split, first=0, steps=None):
    """The two halves of a ring; what may go wrong are its arguments."""
    rank, ranks = to * dist.get_rank(), dist.get_world_size()
    pieces = cut(tensor, ranks)
    for step in range(ranks - 1):
        into = pieces[(rank - step - 1 + first) % ranks]
        room = torch.empty_like(into)
        swap(pieces[(rank - step + first) % ranks], room, to)
        into += room
    for step in range(ranks - 1 if steps is None else steps(ranks)):
        into = pieces[(rank - step + first) % ranks]
        room = torch.empty_like(into)
        swap(pieces[(rank - step + 1 + first) % ranks], room, to)
        into.copy_(room)


def to_the_left(tensor):
    ring(tensor, to=-1)


def starts_elsewhere(tensor):
    ring(tensor, first=2)


def padded(tensor):
    """Fills up to a multiple of N, in a buffer of its own, with offers on both sides."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    size = -(-len(tensor) // ranks)
    buffer = torch.zeros(ranks, size, dtype=tensor.dtype)
    buffer.view(-1)[: len(tensor)] = tensor
    for step in range(2 * ranks - 2):
        out, into = buffer[(rank - step) % ranks], buffer[(rank - step - 1) % ranks]
        room = torch.empty_like(into)
        receiving = irecv(room, src=(rank - 1) % ranks)
        isend(out, dst=(rank + 1) % ranks).wait()
        receiving.wait()
        into[:] = room + into if step < ranks - 1 else room
    tensor.copy_(buffer.view(-1)[: len(tensor)])


def by_slices_in_batches(tensor):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    edge = [len(tensor) * r // ranks for r in range(ranks + 1)]
    right, left = (rank + 1) % ranks, (rank - 1) % ranks
    for half in ("add", "copy"):
        for step in range(ranks - 1):
            i, j = ((rank - step + (half == "copy") - k) % ranks for k in (0, 1))
            out, into = tensor[edge[i] : edge[i + 1]], tensor[edge[j] : edge[j + 1]]
            room = torch.empty_like(into)
            ops = [P2POp(isend, out.clone(), right), P2POp(irecv, room, left)]
            for work in batch_isend_irecv(ops):
                work.wait()
            tensor[edge[j] : edge[j + 1]] = room + into if half == "add" else room


def skips_empty_pieces(tensor):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    pieces = [tensor[r::ranks].clone() for r in range(ranks)]  # every N-th number is a piece
    for step in range(2 * ranks - 2):
        i, j = (rank - step) % ranks, (rank - step - 1) % ranks
        works, room = [], torch.empty_like(pieces[j])
        if len(pieces[i]):
            works.append(dist.isend(pieces[i], (rank + 1) % ranks))
        if len(room):
            dist.recv(room, (rank - 1) % ranks)
        for work in works:
            work.wait()
        pieces[j] = pieces[j] + room if step < ranks - 1 else room
    for r in range(ranks):
        tensor[r::ranks] = pieces[r]


@pytest.mark.parametrize(
    "answer",
    [ring, to_the_left, starts_elsewhere, padded, by_slices_in_batches, skips_empty_pieces],
)
def test_ring_all_reduce_accepts(accepts, answer):
    accepts(check.ring_all_reduce, answer)


def with_the_collective(tensor):
    dist.all_reduce(tensor)


def with_reduce_scatter_inside(tensor):
    ranks = dist.get_world_size()
    size = -(-len(tensor) // ranks)
    whole = torch.zeros(ranks * size, dtype=tensor.dtype)
    whole[: len(tensor)] = tensor
    part = torch.empty(size, dtype=tensor.dtype)
    dist.reduce_scatter_tensor(part, whole)
    dist.all_gather_into_tensor(whole, part)
    tensor.copy_(whole[: len(tensor)])


def whole_tensor_each_step(tensor):
    """The ring of lesson 02: right, with N times the bytes."""
    moving, arrived = tensor.clone(), torch.empty_like(tensor)
    for _ in range(dist.get_world_size() - 1):
        swap(moving, arrived)
        moving = arrived.clone()
        tensor += moving


def equal_pieces_only(tensor):
    """Numbers left over are in no piece."""
    size = len(tensor) // dist.get_world_size()
    ring(tensor, cut=lambda t, ranks: t[: size * ranks].split(size) if size else [t[:0]] * ranks)


def with_chunk(tensor):
    """torch.chunk may give fewer pieces than asked for: 9 numbers on 4 ranks."""
    ring(tensor, cut=torch.chunk)


def with_view(tensor):
    ring(tensor, cut=lambda t, ranks: t.view(ranks, -1))


def a_step_too_few(tensor):
    ring(tensor, steps=lambda ranks: ranks - 2)


def a_step_too_many(tensor):
    ring(tensor, steps=lambda ranks: ranks)


def off_by_one_piece(tensor):
    """The second half starts with the piece that is not complete."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    pieces = tensor.tensor_split(ranks)
    for step in range(2 * ranks - 2):
        shift = int(step >= ranks - 1)
        into = pieces[(rank - step - 1 - shift) % ranks]
        room = torch.empty_like(into)
        swap(pieces[(rank - step - shift) % ranks], room)
        into.copy_(room if shift else room + into)


def adds_in_both_halves(tensor):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    pieces = tensor.tensor_split(ranks)
    for step in range(2 * ranks - 2):
        into = pieces[(rank - step - 1) % ranks]
        room = torch.empty_like(into)
        swap(pieces[(rank - step) % ranks], room)
        into += room


def receives_at_its_own_length(tensor):
    """Room as long as what it sends: fits only where all pieces are equal."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    pieces = list(tensor.tensor_split(ranks))
    for step in range(2 * ranks - 2):
        out, j = pieces[(rank - step) % ranks], (rank - step - 1) % ranks
        room = torch.empty_like(out)
        swap(out, room)
        pieces[j].copy_(room if step >= ranks - 1 else room + pieces[j])


def straight_to_everyone(tensor):
    """Each is the chair of a piece, without a ring: as many messages, of the same size."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    pieces = tensor.tensor_split(ranks)
    others = [(rank + k) % ranks for k in range(1, ranks)]
    rooms = {r: torch.empty_like(pieces[rank]) for r in others}
    works = [isend(pieces[r].clone(), r) for r in others] + [irecv(rooms[r], r) for r in others]
    for work in works:
        work.wait()
    for room in rooms.values():
        pieces[rank].add_(room)
    works = [isend(pieces[rank], r) for r in others] + [irecv(pieces[r], r) for r in others]
    for work in works:
        work.wait()


def for_even_worlds(tensor):
    if dist.get_world_size() % 2 == 0:
        ring(tensor)


def hangs_at_three(tensor):
    """Even ranks listen first: at three, two neighbours stand in send."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if ranks != 3:
        return ring(tensor)
    dist.recv(torch.empty_like(tensor), src=(rank - 1) % ranks)


def returns_the_sum(tensor):
    total = tensor.clone()
    ring(total)
    return total


def divides(tensor):
    ring(tensor)
    tensor.div_(
        dist.get_world_size(), rounding_mode=None if tensor.is_floating_point() else "floor"
    )


def barrier_for_wait(tensor):
    """A barrier at the end, where each step should wait for its message."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    pieces, kept = tensor.tensor_split(ranks), []
    for step in range(2 * ranks - 2):
        into = pieces[(rank - step - 1) % ranks]
        room = torch.empty_like(into)
        kept.append(dist.isend(pieces[(rank - step) % ranks].clone(), (rank + 1) % ranks))
        dist.recv(room, (rank - 1) % ranks)
        into.copy_(room if step >= ranks - 1 else room + into)
    dist.barrier()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(with_the_collective, "dist.all_reduce was called", id="all_reduce"),
        pytest.param(with_reduce_scatter_inside, "dist.reduce_scatter_tensor was", id="halves"),
        pytest.param(whole_tensor_each_step, "a message carried 12", id="whole tensor"),
        pytest.param(equal_pieces_only, "those left over", id="left over"),
        pytest.param(with_chunk, "IndexError", id="chunk"),
        pytest.param(with_view, "invalid for input of size 11", id="view"),
        pytest.param(a_step_too_few, "wrong at place", id="a step too few"),
        pytest.param(a_step_too_many, "2 messages a rank (rank 0 sent 3)", id="one too many"),
        pytest.param(off_by_one_piece, "wrong at place", id="off by one"),
        pytest.param(adds_in_both_halves, "wrong at place", id="adds twice"),
        pytest.param(receives_at_its_own_length, "how long a piece is", id="unequal room"),
        pytest.param(straight_to_everyone, "to one neighbour", id="no ring"),
        pytest.param(for_even_worlds, "still has its own numbers", id="even only"),
        pytest.param(hangs_at_three, "runs on 3 ranks: it hangs", id="deadlock at 3"),
        pytest.param(returns_the_sum, "the sum was returned", id="returned"),
        pytest.param(divides, "that is the mean", id="mean"),
        pytest.param(barrier_for_wait, "dist.barrier was called", id="barrier"),
    ],
)
def test_ring_all_reduce_rejects(impatient, rejects, answer, says):
    rejects(check.ring_all_reduce, answer, says)


def test_a_hang_returns_control_and_says_where(verdict):
    begin = monotonic()
    said = verdict(check.ring_all_reduce, hangs_at_three)
    assert monotonic() - begin < 15
    assert re.search(r"in `?recv.*line \d+", said), said


# ---- 4.2 · A tree broadcast


def tree(tensor, src):
    """Doubling: in round k the first 2^k places know."""
    ranks = dist.get_world_size()
    place, known = (dist.get_rank() - src) % ranks, 1
    while known < ranks:
        if place < known and place + known < ranks:
            dist.send(tensor, (place + known + src) % ranks)
        elif known <= place < 2 * known:
            dist.recv(tensor, (place - known + src) % ranks)
        known *= 2


def halving(tensor, src):
    """The farthest first, by bits."""
    ranks = dist.get_world_size()
    place = (dist.get_rank() - src) % ranks
    low = place & -place or 1 << (ranks - 1).bit_length()
    if place:
        dist.recv(tensor, (place - low + src) % ranks)
    while (low := low // 2) >= 1:
        if place + low < ranks:
            dist.send(tensor, (place + low + src) % ranks)


def by_recursion(tensor, src):
    """Whoever leads a range hands its upper part to another leader."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    order = [src, *(r for r in range(ranks) if r != src)]

    def hand_on(range_):
        if len(range_) > 1:
            middle = (len(range_) + 1) // 2
            if rank == range_[0]:
                isend(tensor, dst=range_[middle]).wait()
            elif rank == range_[middle]:
                irecv(tensor, src=range_[0]).wait()
            hand_on(range_[:middle] if rank in range_[:middle] else range_[middle:])

    hand_on(order)


def with_a_plan(tensor, src):
    """Made beforehand, the same on all ranks; ranks swap places with rank 0."""
    ranks = dist.get_world_size()
    rank, names = dist.get_rank(), list(range(ranks))
    names[0], names[src] = src, 0
    plan, known = [], 1
    while known < ranks:
        plan += [(names[i], names[i + known]) for i in range(min(known, ranks - known))]
        known += min(known, ranks - known)
    for giver, taker in plan:
        if rank == giver:
            dist.send(tensor, dst=taker)
        if rank == taker:
            dist.recv(tensor, src=giver)


@pytest.mark.parametrize("answer", [tree, halving, by_recursion, with_a_plan])
def test_tree_broadcast_accepts(accepts, answer):
    accepts(check.tree_broadcast, answer)


def star(tensor, src):
    if dist.get_rank() != src:
        return dist.recv(tensor, src=src)
    for rank in range(dist.get_world_size()):
        if rank != src:
            dist.send(tensor, dst=rank)


def chain(tensor, src):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if rank != src:
        dist.recv(tensor, src=(rank - 1) % ranks)
    if (rank + 1) % ranks != src:
        dist.send(tensor, dst=(rank + 1) % ranks)


def source_0_only(tensor, src):
    tree(tensor, 0)


def powers_of_two_only(tensor, src):
    """Ranks beyond the last power of two get nothing."""
    ranks, known = dist.get_world_size(), 1
    place = (dist.get_rank() - src) % ranks
    while 2 * known <= ranks:
        if place < known:
            dist.send(tensor, (place + known + src) % ranks)
        elif place < 2 * known:
            dist.recv(tensor, (place - known + src) % ranks)
        known *= 2


def wraps_around(tensor, src):
    """No test of whether the partner exists: at three, place 1 sends to place 0."""
    ranks, known = dist.get_world_size(), 1
    place = (dist.get_rank() - src) % ranks
    while known < ranks:
        if place < known:
            dist.send(tensor, (place + known + src) % ranks)
        elif place < 2 * known:
            dist.recv(tensor, (place - known + src) % ranks)
        known *= 2


def dist_broadcast(tensor, src):
    dist.broadcast(tensor, src=src)


def sends_it_twice(tensor, src):
    tree(tensor, src)
    tree(tensor, src)


def a_long_branch(tensor, src):
    """Two or three from the source, as it should; the others stand in a chain behind the last."""
    ranks, rounds = dist.get_world_size(), math.ceil(math.log2(dist.get_world_size()))
    place = (dist.get_rank() - src) % ranks
    if 0 < place <= rounds:
        dist.recv(tensor, src)
    if place == 0:
        for other in range(1, rounds + 1):
            dist.send(tensor, (src + other) % ranks)
    if place > rounds:
        dist.recv(tensor, (src + place - 1) % ranks)
    if rounds <= place < ranks - 1:
        dist.send(tensor, (src + place + 1) % ranks)


def returns_it(tensor, src):
    got = tensor.clone()
    tree(got, src)
    return got


def hangs_at_five(tensor, src):
    if dist.get_world_size() == 5 and dist.get_rank() != src:
        dist.recv(tensor, src=(dist.get_rank() - 1) % 5)
    else:
        tree(tensor, src)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(star, "the source sends 2 (got 3)", id="star"),
        pytest.param(chain, "the source sends 2 (got 1)", id="chain"),
        pytest.param(source_0_only, "count places from src", id="source 0 only"),
        pytest.param(powers_of_two_only, "has received nothing", id="powers of two"),
        pytest.param(wraps_around, "runs on 3 ranks: it hangs", id="wraps around"),
        pytest.param(dist_broadcast, "dist.broadcast was called", id="dist.broadcast"),
        pytest.param(sends_it_twice, "1 message (got 2)", id="twice"),
        pytest.param(a_long_branch, "gets it in round 3", id="a long branch"),
        pytest.param(returns_it, "the numbers were returned", id="returned"),
        pytest.param(hangs_at_five, "runs on 5 ranks: it hangs", id="deadlock at 5"),
    ],
)
def test_tree_broadcast_rejects(impatient, rejects, answer, says):
    rejects(check.tree_broadcast, answer, says)


# ---- 4.3 · Choose by size


def seconds(alpha, beta, nbytes, ranks, levels=None, part=None, back=2):
    levels = math.ceil(math.log2(ranks)) if levels is None else levels(ranks)
    part = nbytes / ranks if part is None else part(nbytes, ranks)
    return {
        "naive": back * (ranks - 1) * (alpha + beta * nbytes),
        "tree": 2 * levels * (alpha + beta * nbytes),
        "ring": 2 * (ranks - 1) * (alpha + beta * part),
    }


def cheapest(*case, **changes):
    costs = seconds(*case, **changes)
    return min(costs, key=costs.get)


def cheapest_in_branches(alpha, beta, nbytes, ranks):
    levels = (ranks - 1).bit_length()
    ring = (ranks - 1) * alpha + (ranks - 1) * beta * nbytes / ranks
    if ring < levels * (alpha + beta * nbytes):
        return "ring"
    return "tree" if levels < ranks - 1 else "naive"


def cheapest_sorted(alpha, beta, nbytes, ranks):
    costs = seconds(alpha, beta, nbytes, ranks)
    return sorted((cost, i, name) for i, (name, cost) in enumerate(costs.items()))[0][2]


def crossing(alpha, beta, ranks):
    levels = math.ceil(math.log2(ranks))
    return alpha * (ranks - 1 - levels) / (beta * (levels - (ranks - 1) / ranks))


def crossing_by_search(alpha, beta, ranks):
    def ring_wins(nbytes):
        costs = seconds(alpha, beta, nbytes, ranks)
        return costs["ring"] < costs["tree"]

    if ring_wins(1e-3):
        return 0
    low, high = 0.0, 1e12
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if ring_wins(middle) else (middle, high)
    return high


def crossing_from_two_lines(alpha, beta, ranks):
    """Where two straight lines meet, each from its values at 0 and at 1 GB."""
    (t0, r0), (t1, r1) = (
        (costs["tree"], costs["ring"])
        for costs in (seconds(alpha, beta, n, ranks) for n in (0, 1e9))
    )
    return max(0.0, 1e9 * (r0 - t0) / ((r0 - t0) + (t1 - r1)))


@pytest.mark.parametrize(
    ("choose", "cross"),
    [
        (cheapest, crossing),
        (cheapest_in_branches, crossing_by_search),
        (cheapest_sorted, crossing_from_two_lines),
    ],
)
def test_choose_by_size_accepts(accepts, choose, cross):
    accepts(lambda answer: check.choose_by_size(answer, cross), choose)


def floor_of_log(*case):
    return cheapest(*case, levels=lambda ranks: int(math.log2(ranks)))


def natural_log(*case):
    return cheapest(*case, levels=lambda ranks: math.ceil(math.log(ranks)))


def whole_tensor_in_the_ring(*case):
    return cheapest(*case, part=lambda nbytes, ranks: nbytes)


def rounded_down(*case):
    return cheapest(*case, part=lambda nbytes, ranks: nbytes // 2**20)


def naive_one_way(*case):
    return cheapest(*case, back=1)


def last_of_equals(*case):
    costs = seconds(*case)
    return min(reversed(costs), key=costs.get)


def returns_the_time(*case):
    return min(seconds(*case).values())


def always_ring(*case):
    return "ring"


def without_one_rank(alpha, beta, nbytes, ranks):
    if ranks == 1:
        raise ValueError("one rank has nobody to talk to")
    return cheapest(alpha, beta, nbytes, ranks)


def upside_down(alpha, beta, ranks):
    return 1 / crossing(alpha, beta, ranks) if ranks > 3 else 0.0


def in_messages_only(alpha, beta, ranks):
    return alpha / beta * (ranks - 1 - math.ceil(math.log2(ranks)))


def none_for_few(alpha, beta, ranks):
    return crossing(alpha, beta, ranks) if ranks > 3 else None


@pytest.mark.parametrize(
    ("choose", "cross", "says"),
    [
        pytest.param(floor_of_log, crossing, "⌈log₂ N⌉ = 2", id="floor"),
        pytest.param(natural_log, crossing, "(got 'tree')", id="natural log"),
        pytest.param(whole_tensor_in_the_ring, crossing, "2 ranks, 8 bytes: ring", id="whole"),
        pytest.param(rounded_down, crossing, "(got 'ring')", id="rounded"),
        pytest.param(naive_one_way, crossing, "(got 'naive')", id="one way"),
        pytest.param(last_of_equals, crossing, "the first", id="last of equals"),
        pytest.param(returns_the_time, crossing, "2 ranks, 8 bytes: ring", id="a time"),
        pytest.param(always_ring, crossing, "(got 'ring')", id="always ring"),
        pytest.param(without_one_rank, crossing, "nobody to talk to", id="from 2"),
        pytest.param(cheapest, upside_down, "set the two formulas equal", id="upside down"),
        pytest.param(cheapest, in_messages_only, "set the two formulas", id="one denominator"),
        pytest.param(cheapest, none_for_few, "from the first byte on", id="None"),
    ],
)
def test_choose_by_size_rejects(rejects, choose, cross, says):
    rejects(lambda answer: check.choose_by_size(answer, cross), choose, says)


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["ring_all_reduce", "tree_broadcast"])
def test_a_stub_is_not_done_yet(verdict, name):
    assert "○ not done yet" in verdict(getattr(check, name), stub)


@pytest.mark.parametrize("pair", [(stub, stub), (cheapest, stub), (stub, crossing)])
def test_a_stub_of_two_is_not_done_yet(verdict, pair):
    assert "○ not done yet" in verdict(check.choose_by_size, *pair)
