"""Questions for the exercises of lesson 02.

Each check looks at the value that comes out and at what was sent by whom: the answer runs inside
``trace``, on real ranks. What it concludes never depends on how quick they are.
"""

import time
from collections import Counter
from math import prod
from numbers import Real
from typing import Any

import torch
import torch.distributed as dist

from course_lib._operations import Trace
from course_lib.checks._engine import Ask, exercise
from course_lib.group import process_group
from course_lib.tracing import trace

_LISTEN = "for every message, ask who is listening at that moment"
_TOKENS = (((1,), torch.float32), ((2, 3), torch.int64), ((250_000,), torch.float32))


def _record(answer, *arguments) -> tuple[Any, Trace]:
    """Call the answer in the group, with its messages noted; all ranks begin and end together."""
    dist.barrier()
    with trace(names=getattr(answer, "__globals__", None)) as mine:
        got = answer(*arguments)
    for o in (o for o in mine.operations if o.end is None):
        # Gloo forgets a message whose handle is gone: the other side would wait for ever.
        where = f" in line {o.frame.line}" if o.frame else ""
        raise RuntimeError(f"the {o.name}{where} is not waited for: keep its handle, and wait()")
    dist.barrier()
    return got, mine


@exercise("2.1 · Ping-pong")
def ping_pong(ask: Ask, answer) -> None:
    """``answer(rounds, start) -> number``: ranks 0 and 1 add one in turn, the others watch."""
    for n, rounds, start in ((2, 1, 5), (3, 3, 40), (4, 6, -2)):
        hint = f"{_LISTEN}: rank 0 begins with a send, rank 1 with a recv, the others with neither"
        got = ask.run(_played, answer, rounds, start, nprocs=n, hint=hint)
        values, traces = [value for value, _ in got], [mine for _, mine in got]
        case, end = f"{n} ranks, {_count(rounds, 'round')}", start + 2 * rounds
        _only_messages(ask, traces, case)
        ask.that(
            all(_is(value, end) for value in values[:2]),
            f"{case}: from {start} to {end}, on rank 0 and on rank 1",
            f"{_why_not(values[:2], start, rounds)} (got {values[:2]!r:.90})",
        )
        if any(value is not None for value in values[2:]):
            ask.that(False, f"{case}: who watches returns None", f"got {values[2:]!r:.90}")
        goal = {(0, 1): rounds, (1, 0): rounds}
        ask.that(
            _sent(traces) == goal,
            f"{case}: {_count(rounds, 'message')} each way",
            f"sent was {_told(traces)}; a round is one message there and one back",
        )


def _played(answer, rounds: int, start: int):
    with process_group() as pg:
        return _record(answer, rounds, start if pg.rank == 0 else None)


def _why_not(values: list, start: int, rounds: int) -> str:
    if any(isinstance(value, torch.Tensor) for value in values):
        return "return a plain number: tensor.item()"
    if any(value is None for value in values):
        return "both players return the number as it was when the last round was over"
    if _is(values[0], start + rounds):
        return "both add one: rank 0 before it sends, rank 1 before it sends back"
    if _is(values[0], start + 2 * rounds):
        return "rank 0 has it; rank 1 returns what it sent back last"
    return "each adds one to the number that it received, then sends that; rank 0 begins"


@exercise("2.2 · Speak in order")
def speak_in_order(ask: Ask, answer) -> None:
    """``answer(say)``: rank r calls ``say()`` after rank r - 1 has."""
    hint = f"{_LISTEN}. Rank 0 receives nothing, and the last rank sends nothing"
    for n in (2, 3, 4):
        got = ask.run(_spoken, answer, nprocs=n, hint=hint)
        said, traces = [times for times, _ in got], [mine for _, mine in got]
        case, calls = f"{n} ranks", [len(times) for times in said]
        if calls != [1] * n:
            ask.that(False, f"{case}: each speaks once", f"calls of say() on each rank: {calls}")
        _only_messages(ask, traces, case)
        why = "each rank needs word from the rank before it, and nobody needs anything else"
        if not _sent(traces):
            why = "without one, nobody knows who has spoken; to sleep is to guess"
        ask.that(
            _sent(traces) == {(r, r + 1): 1 for r in range(n - 1)},
            f"{case}: {_count(n - 1, 'message')} in all, from each rank to the next",
            f"sent was {_told(traces)}: {why}",
        )
        # By the order of calls within each rank, which no luck with the clock can mend.
        moments = [moment for (moment,) in said]
        early = [r for r in range(n) if any(o.end > moments[r] for o in traces[r].received)]
        late = [r for r in range(n) if any(o.begin < moments[r] for o in traces[r].sent)]
        why = f"rank {late[0]} sends before it has called say()" if late else ""
        why = f"rank {early[0]} calls say() before its message has come" if early else why
        order = sorted(range(n), key=lambda r: moments[r])
        if why:
            hint = f"{why}: receive, speak, send (this time the order was {order})"
            ask.that(False, f"{case}: one after the other", hint)
        print(f"✓ {case}: one after the other, in the order {', '.join(map(str, order))}")


def _spoken(answer):
    moments = []
    with process_group():
        _, mine = _record(answer, lambda: moments.append(time.monotonic()))
    return moments, mine


@exercise("2.3 · Mend the ring")
def pass_on(ask: Ask, answer) -> None:
    """``answer(token, rounds) -> token``: every rank passes a token on, ``rounds`` times."""
    for n, rounds in ((2, 1), (4, 5), (3, 2), (5, 7), (1, 2)):
        case = f"{_count(n, 'rank')}, {_count(rounds, 'round')}"
        hint = f"{_LISTEN}; if all begin with send, nobody is. After rank {n - 1} comes rank 0"
        if n == 1:
            hint = "a rank alone has nobody to send to: it keeps its token"
        got = ask.run(_passed_on, answer, rounds, nprocs=n, hint=hint)
        goal = {(r, (r + 1) % n): rounds for r in range(n)} if n > 1 else {}
        for i, (shape, dtype) in enumerate(_TOKENS):
            what = f"{_count(prod(shape), 'number')} of {str(dtype).removeprefix('torch.')} each"
            holders, traces = [rank[i][0] for rank in got], [rank[i][1] for rank in got]
            others = {o.name for t in traces for o in t.operations} - {"send", "recv"}
            if others:
                hint = "there is an order in which send and recv do it alone: somebody listens"
                names = ", ".join(sorted(others))
                ask.that(False, f"{case}: with send and recv only, not {names}", hint)
            if holders != [(r - rounds) % n for r in range(n)]:
                hint = _what_they_hold(holders, rounds)
                ask.that(False, f"{case}, {what}: tokens move on by {rounds}", hint)
            if _sent(traces) != goal:
                hint = f"sent was {_told(traces)}; a round is one message from each to the next"
                ask.that(False, f"{case}, {what}: {_count(rounds, 'message')} from each", hint)
        each = f"{_count(rounds, 'message')} from each" if n > 1 else "none sent"
        print(f"✓ {case}: tokens of 1, 6 and 250,000 numbers move on by {rounds}, {each}")


def _passed_on(answer, rounds: int):
    with process_group() as pg:
        found = []
        for token in _TOKENS:
            got, mine = _record(answer, _token(pg.rank, *token), rounds)
            found.append((_whose(got, token, pg.world_size), mine))
        return found


def _token(rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return (torch.arange(prod(shape)) + 1_000_000 * rank).reshape(shape).to(dtype)


def _whose(got, token: tuple, ranks: int) -> int | str:
    """The rank whose token this is, or words for what it is."""
    if not isinstance(got, torch.Tensor):
        return f"{got!r:.40}"
    for rank in range(ranks):
        expected = _token(rank, *token)
        if got.dtype == expected.dtype and torch.equal(got, expected):
            return rank
    return f"a tensor with {got.numel():,} numbers of {got.dtype} that is nobody's token"


def _what_they_hold(holders: list, rounds: int) -> str:
    n = len(holders)
    if any(isinstance(holder, str) for holder in holders):
        return f"return the token that came last, whole and unchanged (got {holders})"
    shown = f"rank 0 to {n - 1} hold the tokens of ranks {holders}"
    if holders == [*range(n)]:
        return f"each has its own token: send on what has arrived, and return that ({shown})"
    if holders == [(r - 1) % n for r in range(n)]:
        return f"that is one round: what has arrived is what goes on in the next one ({shown})"
    if holders == [(r + rounds) % n for r in range(n)]:
        return f"they move the wrong way: send to rank + 1, receive from rank - 1 ({shown})"
    return f"after a round, a rank holds the token of the rank before it ({shown})"


def _only_messages(ask: Ask, traces: list[Trace], case: str) -> None:
    used = sorted({o.name for t in traces for o in t.collectives})
    if used:
        hint = "in that all ranks take part; here two ranks at a time do, with send and recv"
        ask.that(False, f"{case}: messages only, not {', '.join(used)}", hint)


def _sent(traces: list[Trace]) -> Counter:
    """How many messages went from whom to whom."""
    return Counter((t.rank, o.peer) for t in traces for o in t.sent)


def _told(traces: list[Trace]) -> str:
    sent = [f"{k} from {a} to {b}" for (a, b), k in sorted(_sent(traces).items())]
    return ", ".join(sent) or "no message"


def _is(value, expected: int) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and value == expected


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
