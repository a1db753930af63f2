"""Who sent what to whom while an answer ran: the communication pattern, beside the value.

``traced`` calls an answer inside a rank and returns what it did; the other functions put the
questions that several exercises share. What bypasses torch.distributed's functions (its private
ones, the store) is not seen, and so shows as messages that are missing.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from course_lib._operations import Operation, Trace
from course_lib.checks._engine import Ask
from course_lib.tracing import trace

# Ends the hint to a run that hangs: a rank may be named at a line that is none of the learner's.
WHO_IS_DONE = " (a rank without a line of yours above is done, and waits for the others)"


def traced(answer: Callable[..., Any], *args: Any) -> tuple[Any, Trace]:
    """Call an answer inside a rank.

    Args:
        answer: The learner's function.
        *args: Its arguments.

    Returns:
        What it returned, and what it sent and received.
    """
    plain = inspect.unwrap(answer)
    plain = getattr(plain, "func", plain)  # of a partial
    with trace(names=getattr(plain, "__globals__", None)) as mine:
        got = answer(*args)
    return got, mine


def by_messages_only(ask: Ask, traces: Sequence[Trace], case: str) -> None:
    """No collective was called, and every offer was waited for; silent if so.

    Args:
        ask: What the check asks with.
        traces: One of each rank.
        case: Begins the line that says what is wrong.
    """
    for operation in (o for t in traces for o in t.collectives):
        hint = f"dist.{operation.name} was called{_at(operation)}: send and recv have to do here"
        ask.that(False, f"{case}: only messages, no collective", hint)
    for operation in (o for t in traces for o in t.operations if o.end is None):
        hint = f"nobody waited for the {operation.name}{_at(operation)}: call wait() on its handle"
        ask.that(False, f"{case}: every offer is waited for", hint)


def one_message_each(ask: Ask, traces: Sequence[Trace], nbytes: int, case: str) -> None:
    """By messages only: one for every rank but one, of one piece each; silent if so.

    Args:
        ask: What the check asks with.
        traces: One of each rank.
        nbytes: Size of a piece.
        case: Begins the line that says what is wrong.
    """
    by_messages_only(ask, traces, case)
    sent, enough = sum(len(t.sent) for t in traces), len(traces) - 1
    if sent != enough:
        hint = f"{enough} of the ranks need one message each, and no rank needs two"
        if enough == 1:
            hint = "one rank needs one message, and no rank needs two"
        ask.that(False, f"{case}: {_messages(enough)} (got {sent})", hint)
    _one_piece(ask, traces, nbytes, case, "no message needs to carry more")


def to_the_right_only(ask: Ask, traces: Sequence[Trace], nbytes: int, case: str) -> None:
    """Each of N ranks sends N - 1 pieces, all to its right neighbour; silent if so.

    Args:
        ask: What the check asks with.
        traces: One of each rank.
        nbytes: Size of a piece.
        case: Begins the line that says what is wrong.
    """
    by_messages_only(ask, traces, case)
    n = len(traces)
    for one in traces:
        right = (one.rank + 1) % n
        others = sorted({o.peer for o in one.sent} - {right})
        if others:
            hint = f"rank {one.rank} sent to rank {others[0]}; on its right is rank {right}"
            ask.that(False, f"{case}: messages go to the right neighbour only", hint)
        sent = len(one.sent)
        if sent != n - 1:
            hint = "after N - 1 rounds everybody has every piece; the Nth would bring its own back"
            says = f"{case}: {_messages(n - 1)} a rank (rank {one.rank} sent {sent})"
            ask.that(False, says, hint)
    _one_piece(ask, traces, nbytes, case, "pass on only what arrived last")


def same_tensor(got: Any, expected: torch.Tensor) -> bool:
    """Whether ``got`` is a tensor of the same shape, type and numbers."""
    return (
        isinstance(got, torch.Tensor)
        and got.shape == expected.shape
        and got.dtype == expected.dtype
        and torch.equal(got, expected)
    )


def _one_piece(ask: Ask, traces: Sequence[Trace], nbytes: int, case: str, advice: str) -> None:
    sizes = {o.nbytes for t in traces for o in t.sent} - {nbytes}
    if sizes:
        hint = f"a piece has {nbytes} bytes, and a message of {max(sizes)} was sent: {advice}"
        ask.that(False, f"{case}: one piece a message", hint)


def _messages(n: int) -> str:
    return f"{n} message{'s' * (n != 1)}"


def _at(operation: Operation) -> str:
    return f" at {operation.where}" if operation.where else ""
