"""Questions for the exercises of lesson 03."""

import torch
import torch.distributed as dist

from course_lib.checks._engine import Ask, exercise
from course_lib.checks._patterns import (
    WHO_IS_DONE,
    one_message_each,
    same_tensor,
    to_the_right_only,
    traced,
)
from course_lib.group import process_group

_WORLDS = (2, 3, 4)
_KINDS = ((torch.float32, (5,)), (torch.int64, (2, 3)))  # of tensors that are sent


def _piece(rank: int, kind: int) -> torch.Tensor:
    """Numbers that tell whose they are."""
    dtype, shape = _KINDS[kind % len(_KINDS)]
    count = torch.Size(shape).numel()
    return (100 * (rank + 1) + torch.arange(count)).to(dtype).reshape(shape)


def _roots(ranks: int) -> list[int]:
    return [0, ranks - 1, ranks // 2] if ranks > 2 else [0, 1]


@exercise("3.1 · Broadcast from messages")
def my_broadcast(ask: Ask, answer) -> None:
    """``answer(tensor, src) -> None``, in place; N - 1 messages in all."""
    hint = "every rank but src has to receive once, from a rank that sends to it at that moment"
    hint += WHO_IS_DONE
    for n in _WORLDS:
        got = ask.run(_broadcast, answer, nprocs=n, hint=hint)
        for call, src in enumerate(_roots(n)):
            expected = _piece(src, call)
            right = [same_tensor(rank[call][0], expected) for rank in got]
            if not all(right):
                hint = _what_is_wrong_with_broadcast(right, got, call, src, expected)
                ask.that(False, f"{n} ranks, src={src}: all hold rank {src}'s numbers", hint)
            traces = [rank[call][2] for rank in got]
            one_message_each(ask, traces, expected.nbytes, f"{n} ranks, src={src}")
        print(f"✓ {n} ranks: all hold the numbers of src, whichever rank that is")
        print(f"✓ {n} ranks: {n - 1} message{'s' * (n > 2)} for each broadcast, no collective")


def _broadcast(answer):
    with process_group() as pg:
        calls = []
        for call, src in enumerate(_roots(pg.world_size)):
            tensor = _piece(pg.rank, call)
            returned, mine = traced(answer, tensor, src)
            calls.append((tensor, returned, mine))
            dist.barrier()
        return calls


def _what_is_wrong_with_broadcast(right, got, call, src, expected) -> str:
    returned = [rank[call][1] for rank in got]
    if all(same_tensor(r, expected) for i, r in enumerate(returned) if not right[i]):
        return "the numbers were returned, but have to be put into the tensor that was passed"
    if src and all(same_tensor(rank[call][0], _piece(0, call)) for rank in got):
        return "all hold rank 0's: the source is src, whichever rank that is"
    if not right[src]:
        return f"the numbers of rank {src} itself have changed: the source only sends"
    return f"wrong on rank {right.index(False)}: it must receive what began on rank {src}"


@exercise("3.2 · Scatter and gather from messages")
def scatter_and_gather(ask: Ask, scatter, gather) -> None:
    """``scatter(room, pieces, src) -> None`` and ``gather(tensor, dst) -> list | None``."""
    hint = "whoever receives needs one that sends to it at that moment; nobody sends to itself"
    for n in _WORLDS:
        got = ask.run(_scatter_and_gather, scatter, gather, nprocs=n, hint=hint + WHO_IS_DONE)
        for call, root in enumerate(_roots(n)):
            for half, name, judge in ((0, "scatter", _scattered), (1, "gather", _gathered)):
                case = f"{name} on {n} ranks, {('src', 'dst')[half]}={root}"
                judge(ask, [rank[call][half][0] for rank in got], root, call, case)
                traces = [rank[call][half][1] for rank in got]
                one_message_each(ask, traces, _piece(0, call).nbytes, case)
        messages = f"{n - 1} message{'s' * (n > 2)} each time, no collective"
        print(f"✓ {n} ranks: scatter gives every rank its piece; {messages}")
        print(f"✓ {n} ranks: gather collects all, in rank order; {messages}")


def _scatter_and_gather(scatter, gather):
    with process_group() as pg:
        calls = []
        for call, root in enumerate(_roots(pg.world_size)):
            pieces = [_piece(r, call) for r in range(pg.world_size)] if pg.rank == root else None
            room = torch.full_like(_piece(0, call), -1)
            scattered = (room, traced(scatter, room, pieces, root)[1])
            dist.barrier()
            calls.append((scattered, traced(gather, _piece(pg.rank, call), root)))
            dist.barrier()
        return calls


def _scattered(ask: Ask, rooms: list, src: int, call: int, case: str) -> None:
    wrong = [r for r, room in enumerate(rooms) if not same_tensor(room, _piece(r, call))]
    if not wrong:
        return
    hint = f"rank {wrong[0]} has not got piece number {wrong[0]}"
    if wrong == [src]:
        hint = f"rank {src}, the source, has not put its own piece into its room"
    elif same_tensor(rooms[wrong[0]], torch.full_like(rooms[wrong[0]], -1)):
        hint = f"nothing is in the room of rank {wrong[0]}: receive into room itself"
    ask.that(False, f"{case}: every rank has its piece", hint)


def _gathered(ask: Ask, held: list, dst: int, call: int, case: str) -> None:
    expected = [_piece(r, call) for r in range(len(held))]
    got = held[dst]
    says = f"{case}: dst has the pieces of all, in rank order"
    if not isinstance(got, list | tuple) or len(got) != len(expected):
        ask.that(False, says, f"rank {dst} returns a list of {len(expected)} tensors, one a rank")
    right = [same_tensor(piece, whole) for piece, whole in zip(got, expected, strict=True)]
    hint = f"piece number {right.index(False) if False in right else 0} is not that of its rank"
    if any(same_tensor(got[0], whole) for whole in expected[1:]):
        hint = "the pieces are not in rank order: number r is that of rank r"
    elif right == [r != dst for r in range(len(right))]:
        hint = f"rank {dst}'s own piece is missing: it does not travel, copy it"
    elif len({piece.data_ptr() for piece in got if isinstance(piece, torch.Tensor)}) < len(got):
        hint = "all entries are one tensor, which each message overwrites: a tensor for each rank"
    if not all(right):
        ask.that(False, says, hint)
    others = [r for r, value in enumerate(held) if r != dst and value is not None]
    if others:
        ask.that(False, f"{case}: the others get None", f"rank {others[0]} returned a value")


@exercise("3.3 · All-gather on a ring")
def ring_all_gather(ask: Ask, answer) -> None:
    """``answer(mine) -> Tensor [N, *shape]``: N - 1 messages a rank, to the right neighbour."""
    hint = "if all stand in send, nobody listens: offer, receive, then wait" + WHO_IS_DONE
    for n in _WORLDS:
        got = ask.run(_all_gather, answer, nprocs=n, hint=hint)
        for call in range(len(_KINDS)):
            expected = torch.stack([_piece(r, call) for r in range(n)])
            for rank, calls in enumerate(got):
                _one_ranks_ring(ask, rank, calls[call], expected, call)
            traces = [calls[call][2] for calls in got]
            to_the_right_only(ask, traces, _piece(0, call).nbytes, f"{n} ranks")
        print(f"✓ {n} ranks: each has the pieces of all, in rank order")
        print(f"✓ {n} ranks: each sends {n - 1}, of one piece, all to its right neighbour")


def _all_gather(answer):
    with process_group() as pg:
        calls = []
        for call in range(len(_KINDS)):
            mine = _piece(pg.rank, call)
            got, record = traced(answer, mine)
            calls.append((got, same_tensor(mine, _piece(pg.rank, call)), record))
            dist.barrier()
        return calls


def _one_ranks_ring(ask: Ask, rank: int, result: tuple, expected: torch.Tensor, call: int) -> None:
    got, unchanged, _ = result
    n = len(expected)
    says = f"{n} ranks: rank {rank} has the pieces of all, in rank order"
    if not same_tensor(got, expected):
        shape = list(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
        hint = f"a tensor of shape {list(expected.shape)} and type {expected.dtype} (got {shape})"
        if isinstance(got, torch.Tensor) and got.shape == expected.shape:
            kind = expected.dtype
            hint = f"the pieces are {kind}, the result is {got.dtype}"
            wrong = [r for r in range(n) if not torch.equal(got[r].to(kind), expected[r])]
            if wrong:
                hint = f"entry {wrong[0]} is not rank {wrong[0]}'s piece: what arrives in round k "
                hint += "(from 1) began on rank - k, around the ring"
        ask.that(False, says, hint)
    if not unchanged:
        ask.that(False, f"{n} ranks: mine is as before", "receive into a tensor of your own")


@exercise("3.4 · The mean of all rows")
def mean_of_all_rows(ask: Ask, answer) -> None:
    """``answer(rows) -> float``: one all_reduce of two numbers."""
    cases = {
        (4, 4): "2 ranks with 4 rows each",
        (1, 6, 3): "3 ranks with 1, 6 and 3 rows",
        (5, 0, 2, 9): "4 ranks with 5, 0, 2 and 9 rows",
    }
    calls = "all ranks make the same calls, also one without rows" + WHO_IS_DONE
    for counts, case in cases.items():
        got = ask.run(_mean, answer, counts, nprocs=len(counts), hint=calls)
        every = torch.cat([_rows(rank, counts) for rank in range(len(counts))]).double()
        expected = every.mean().item()
        means = [value for value, _ in got]
        ask.close(
            means,
            [expected] * len(counts),
            f"{case}: all get {expected:.4f}",
            _what_is_wrong_with_mean(means, counts, every),
            relative=1e-5,
        )
        for trace in (trace for _, trace in got):
            made = [o.name for o in trace.operations]
            if made != ["all_reduce"]:
                says = f"{case}: one all_reduce a rank (got {', '.join(made) or 'none'})"
                ask.that(False, says, "put the sum and the count into one tensor of two numbers")
            size = trace.operations[0].nbytes
            hint = "two numbers are enough: the sum of the rows, and how many there are"
            if size > 16:
                ask.that(False, f"{case}: two numbers travel (got {size} bytes)", hint)
    print("✓ one all_reduce of two numbers")


def _rows(rank: int, counts: tuple[int, ...]) -> torch.Tensor:
    return 10.0 * rank + torch.arange(counts[rank], dtype=torch.float32) ** 2 + 1


def _mean(answer, counts: tuple[int, ...]):
    with process_group() as pg:
        got = traced(answer, _rows(pg.rank, counts))
        dist.barrier()
        return got


def _what_is_wrong_with_mean(means: list, counts: tuple, every: torch.Tensor) -> str:
    if not all(isinstance(mean, float) for mean in means):
        return "return a plain float: .item()"
    if any(mean != mean for mean in means):
        return "the mean of no rows is NaN, and NaN spreads: add up sums and counts instead"
    if abs(means[0] - every.sum().item()) < 1e-3:
        return "that is the sum of all rows: divide it by their number"
    each = [_rows(rank, counts).double() for rank in range(len(counts))]
    own = [rows.mean().item() if len(rows) else 0.0 for rows in each]
    if abs(means[0] - sum(own) / len(own)) < 1e-3:
        return "that is the mean of the ranks' means, in which few rows weigh as much as many"
    if all(abs(a - b) < 1e-3 for a, b in zip(means, own, strict=True)):
        return "that is each rank's own mean: nothing has been exchanged"
    return "the sum over all ranks, divided by the number of rows of all ranks"
