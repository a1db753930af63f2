"""Questions for the exercises of lesson 04."""

import math

import torch
import torch.distributed as dist

from course_lib._operations import Trace
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._patterns import (
    WHO_IS_DONE,
    by_messages_only,
    one_message_each,
    same_tensor,
    traced,
)
from course_lib.group import process_group

# Lengths that all, some and none of the world sizes divide, and one shorter than some of them.
_LENGTHS = ((12, torch.float32), (11, torch.float32), (9, torch.int64), (3, torch.float32))
_ORDER = ("naive", "tree", "ring")


def _numbers(rank: int, call: int) -> torch.Tensor:
    """What rank has in a call: no two numbers alike, not all of them exact sums in floats."""
    length, dtype = _LENGTHS[call % len(_LENGTHS)]
    scale = 0.3 if dtype.is_floating_point else 3
    return (scale * (100 * (rank + 1) + torch.arange(length))).to(dtype)


@exercise("4.1 · A ring for any length")
def ring_all_reduce(ask: Ask, answer) -> None:
    """``answer(tensor) -> None``, in place; 2(N - 1) messages a rank of 1/N of the tensor."""
    hint = "if all stand in send, nobody listens: offer, receive, then wait; and sender and "
    hint += "receiver have to agree on how long a piece is" + WHO_IS_DONE
    alone = "one rank has no neighbour, and nobody sends to itself: nothing is to be done then"
    for n in (2, 3, 4, 1):
        got = ask.run(_sum_over_ranks, answer, nprocs=n, hint=hint if n > 1 else alone)
        for call, (length, _) in enumerate(_LENGTHS):
            case = f"{n} rank{'s' * (n > 1)}, {length} numbers"
            for rank, calls in enumerate(got):
                tensor, expected, returned, _ = calls[call]
                if not _equal(tensor, expected):
                    hint = _what_is_wrong_with_sum(tensor, expected, returned, rank, n, call)
                    ask.that(False, f"{case}: all have the sum of all_reduce", hint)
            _around_the_ring(ask, [calls[call][3] for calls in got], call, case)
        if n == 1:
            print("✓ 1 rank: its numbers stay as they are, no message")
            continue
        print(f"✓ {n} ranks: the sum of torch's all_reduce, whether or not {n} divides the length")
        print(f"✓ {n} ranks: each sends {2 * (n - 1)}, of 1/{n} of the tensor, to one neighbour")


def _sum_over_ranks(answer):
    with process_group() as pg:
        calls = []
        for call in range(len(_LENGTHS)):
            tensor, expected = _numbers(pg.rank, call), _numbers(pg.rank, call)
            dist.all_reduce(expected)
            returned, mine = traced(answer, tensor)
            calls.append((tensor, expected, returned, mine))
            dist.barrier()
        return calls


def _equal(got, expected: torch.Tensor) -> bool:
    return (
        isinstance(got, torch.Tensor)
        and got.shape == expected.shape
        and torch.allclose(got.double(), expected.double(), rtol=1e-5, atol=0)
    )


def _what_is_wrong_with_sum(tensor, expected, returned, rank: int, n: int, call: int) -> str:
    if _equal(returned, expected):
        return "the sum was returned, but has to be put into the tensor that was passed"
    if tensor.shape != expected.shape:
        return f"the tensor on rank {rank} has now shape {list(tensor.shape)}: keep its length"
    if _equal(tensor, _numbers(rank, call)):
        return f"rank {rank} still has its own numbers: is what arrives put back into the tensor?"
    close = torch.isclose(tensor.double(), expected.double(), rtol=1e-5, atol=0)
    wrong = (~close).nonzero().flatten().tolist()
    whole = len(expected) // n * n
    if len(expected) % n and wrong[0] >= whole:
        hint = f"the first {whole} numbers are right; those left over, where N does not divide "
        return hint + "the length, belong to a piece, too"
    if _equal(tensor, expected / n):
        return "that is the mean: all_reduce adds up, and does not divide"
    hint = f"on rank {rank} wrong at place {', '.join(map(str, wrong[:4]))}: "
    return hint + "in N - 1 steps each piece collects all ranks, in N - 1 more all ranks get it"


def _around_the_ring(ask: Ask, traces: list[Trace], call: int, case: str) -> None:
    by_messages_only(ask, traces, case)
    n, (length, dtype) = len(traces), _LENGTHS[call]
    longest = math.ceil(length / n)
    steps = {(o.peer - t.rank) % n for t in traces for o in t.sent}
    if len(steps) > 1 or not steps <= {1, (n - 1) % n}:
        far = next(t for t in traces if {o.peer for o in t.sent} - {(t.rank + 1) % n})
        peers = ", ".join(str(p) for p in sorted({o.peer for o in far.sent}))
        hint = f"rank {far.rank} sent to rank {peers}; on its right is rank {(far.rank + 1) % n}"
        ask.that(False, f"{case}: messages go to one neighbour in the ring", hint)
    for one in traces:
        size = max((o.nbytes // dtype.itemsize for o in one.sent), default=0)
        if size > longest:
            hint = f"1/{n} of the tensor is at most {longest} numbers, and a message carried {size}"
            ask.that(False, f"{case}: a message has 1/{n} of the tensor", hint)
    for one in traces:
        sent, enough = len(one.sent), 2 * (n - 1)
        # A piece may be empty where there are fewer numbers than ranks: it need not be sent.
        if sent > enough or (sent < enough and length >= n):
            hint = "N - 1 steps until each piece is complete somewhere, N - 1 until all have it"
            says = f"{case}: {enough} messages a rank (rank {one.rank} sent {sent})"
            ask.that(False, says, hint)


@exercise("4.2 · A tree broadcast")
def tree_broadcast(ask: Ask, answer) -> None:
    """``answer(tensor, src) -> None``, in place; the source sends as many as there are rounds."""
    hint = "every rank but src receives once, from a rank that has the numbers and sends to it "
    hint += "at that moment" + WHO_IS_DONE
    alone = "one rank has all that it needs, and nobody sends to itself"
    for n in (2, 3, 4, 5, 1):
        rounds = math.ceil(math.log2(n))
        got = ask.run(_broadcast, answer, nprocs=n, hint=hint if n > 1 else alone)
        for call, src in enumerate(_sources(n)):
            case = f"{n} rank{'s' * (n > 1)}, src={src}"
            expected = _numbers(src, call)
            right = [same_tensor(rank[call][0], expected) for rank in got]
            if not all(right):
                hint = _what_is_wrong_with_broadcast(got, right, call, src)
                ask.that(False, f"{case}: all hold rank {src}'s numbers", hint)
            traces = [rank[call][2] for rank in got]
            one_message_each(ask, traces, expected.nbytes, case)
            _down_the_tree(ask, traces, src, rounds, case)
        messages = f"{rounds} message{'s' * (rounds != 1)}"
        if n == 1:
            print("✓ 1 rank: its numbers stay as they are, no message")
            continue
        print(f"✓ {n} ranks: all hold the numbers of src, whichever rank that is")
        print(f"✓ {n} ranks: the source sends {messages}, and every other rank receives one")


def _sources(ranks: int) -> list[int]:
    return sorted({0, ranks - 1, ranks // 2})


def _broadcast(answer):
    with process_group() as pg:
        calls = []
        for call, src in enumerate(_sources(pg.world_size)):
            tensor = _numbers(pg.rank, call)
            returned, mine = traced(answer, tensor, src)
            calls.append((tensor, returned, mine))
            dist.barrier()
        return calls


def _what_is_wrong_with_broadcast(got: list, right: list[bool], call: int, src: int) -> str:
    expected = _numbers(src, call)
    if all(same_tensor(rank[call][1], expected) for rank in got):
        return "the numbers were returned, but have to be put into the tensor that was passed"
    if src and all(same_tensor(rank[call][0], _numbers(0, call)) for rank in got):
        return "all hold rank 0's: count places from src, (rank - src) % N"
    if not right[src]:
        return f"the numbers of rank {src} itself have changed: the source only sends"
    wrong = right.index(False)
    if not any(o.receives for o in got[wrong][call][2].operations):
        return f"rank {wrong} has received nothing: who sends to the last ones, for any N?"
    return f"rank {wrong} has numbers that are not rank {src}'s: pass on only what has arrived"


def _down_the_tree(ask: Ask, traces: list[Trace], src: int, rounds: int, case: str) -> None:
    for one in traces:
        enough = int(one.rank != src)
        if len(one.received) != enough:
            says = f"{case}: rank {one.rank} receives {enough} (got {len(one.received)})"
            ask.that(False, says, "the source receives nothing, everybody else one message")
    sent = len(traces[src].sent)
    if sent != rounds:
        hint = "the source speaks in every round, and whoever has the numbers helps it: how many "
        hint += "rounds until all have them, if their number doubles in each?"
        ask.that(False, f"{case}: the source sends {rounds} (got {sent})", hint)
    arrived, todo = {src: 0}, [src]
    for rank in todo:  # which grows: ranks send after they have received
        for k, message in enumerate(traces[rank].sent, 1):
            arrived[message.peer] = arrived[rank] + k
            todo.append(message.peer)
    last = max(arrived, key=arrived.get)
    if arrived[last] > rounds:
        hint = f"rank {last} gets it in round {arrived[last]}: in each round *all* that have the "
        ask.that(False, f"{case}: done in {rounds} rounds", hint + "numbers pass them on")


@exercise("4.3 · Choose by size")
def choose_by_size(ask: Ask, cheapest, crossing) -> None:
    """``cheapest(alpha, beta, nbytes, ranks) -> str``, ``crossing(…) -> float``."""
    alpha, beta = 2.0**-15, 2.0**-30  # about 31 µs and 1 ns; ties are exact in these
    sizes = {2: (8, 2**20), 3: (1024,), 4: (20_000, 30_000), 5: (14_000, 16_000)}
    sizes |= {64: (0, 300_000, 400_000), 1000: (8, 10**6, 10**8)}
    cases = [(alpha, beta, nbytes, n) for n in sizes for nbytes in sizes[n]]
    cases += [(alpha / 100, beta, 10_000, 64), (alpha, 16 * beta, 30_000, 64)]
    cases += [(alpha, beta, nbytes, n) for nbytes, n in ((0, 2), (0, 3), (0, 1), (4096, 1))]  # ties
    chosen = ask.run(_each, cheapest, cases, nprocs=1)[0]
    for case, got in zip(cases, chosen, strict=True):
        costs = _seconds(*case)
        expected = min(_ORDER, key=costs.get)
        if got == expected:
            continue
        ranks = "1 rank" if case[3] == 1 else f"{case[3]:,} ranks"
        says = f"{ranks}, {case[2]:,} bytes: {expected} (got {got!r})"
        hint = ", ".join(f"{name} {1e6 * cost:,.1f} µs" for name, cost in costs.items())
        hint += f"; ⌈log₂ N⌉ = {math.ceil(math.log2(case[3]))}"
        if got in _ORDER and costs[got] == costs[expected]:
            hint += ": of those that cost the same, the first"
        ask.that(False, says, f"α {1e6 * case[0]:.3g} µs, β {1e9 * case[1]:.3g} ns: {hint}")
    print(f"✓ the cheapest of three, in {len(cases)} cases on 1 to 1,000 ranks")
    cases = [(alpha, beta, n) for n in (2, 3, 4, 5, 8, 64, 1000)] + [(2 * alpha, beta / 8, 16)]
    found = ask.run(_each, crossing, cases, nprocs=1)[0]
    for (a, b, n), got in zip(cases, found, strict=True):
        levels = math.ceil(math.log2(n))
        expected = a * (n - 1 - levels) / (b * (levels - (n - 1) / n))
        hint = "up to 3 ranks both have as many steps: the ring is cheaper from the first byte on"
        if expected:
            hint = "set the two formulas equal: the steps that the ring has more cost α each, "
            hint += "the bytes that it has less at the busiest rank β each"
        right = isinstance(got, int | float) and math.isclose(got, expected, rel_tol=1e-6)
        if not right:
            says = f"{n} ranks, α {1e6 * a:.3g} µs, β {1e9 * b:.3g} ns: "
            ask.that(False, says + f"crossing at {expected:,.0f} bytes (got {got!r})", hint)
    print(f"✓ the size from which the ring is cheaper, in {len(cases)} cases")


def _each(answer, cases: list[tuple]) -> list:
    return [answer(*case) for case in cases]


def _seconds(alpha: float, beta: float, nbytes: int, ranks: int) -> dict[str, float]:
    levels, whole = math.ceil(math.log2(ranks)), alpha + beta * nbytes
    ring = 2 * (ranks - 1) * (alpha + beta * nbytes / ranks)
    return {"naive": 2 * (ranks - 1) * whole, "tree": 2 * levels * whole, "ring": ring}
