"""For exercises in which one all_reduce, or a few calls, of few numbers is enough: what was called.

What each rank calls is compared before it is sent, so a rank that stays away is an error, which
says so, and seldom a rank that waits. More numbers than needed may travel, up to ``SPARE``: an
answer may use ``sum_over_ranks`` of ``course_lib.evaluation``, which sends three of its own along.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from course_lib._operations import Trace
from course_lib.checks._alike import Call, names_of, same_calls_everywhere
from course_lib.checks._engine import Ask
from course_lib.checks._gradients import instead
from course_lib.checks._patterns import traced

SPARE = 3


class Answered(NamedTuple):
    """What one rank got, and what it called for it.

    Attributes:
        got: What the answer returned.
        calls: The collectives of all ranks, with how many numbers they took.
        record: Everything it called, with times and lines.
    """

    got: Any
    calls: list[Call]
    record: Trace


def answered(answer: Callable[..., Any], *args: Any, case: str) -> Answered:
    """Call an answer inside a rank; all ranks do.

    Args:
        answer: The learner's function.
        *args: Its arguments on this rank.
        case: Begins the error's text if the ranks' calls differ.
    """
    with same_calls_everywhere(names_of(answer), case, late=0) as calls:
        got, record = traced(answer, *args)
    return Answered(got, calls, record)


def one_all_reduce(ask: Ask, ranks: list[Answered], numbers: int, case: str, aim: str) -> None:
    """One all_reduce of ``numbers`` at most, besides ``SPARE``; silent if so.

    A rank alone may call what it likes: it has nobody to save the time of.

    Args:
        ask: What the check asks with.
        ranks: What each rank called.
        numbers: How many numbers have to travel at most.
        case: Begins the line that says what is wrong.
        aim: Which numbers those are, for the hint: ``"its right answers"``.
    """
    for rank, (_, calls, record) in enumerate(ranks):
        names = [o.name for o in record.operations]
        called = ", ".join(map(str, calls) if len(calls) == len(names) else names) or "nothing"
        says = f"{case}: one all_reduce, and nothing else (rank {rank} called {called})"
        if len(ranks) == 1:
            return
        if record.sent or record.received:
            ask.that(False, says, "no message has to be sent: all_reduce tells each rank the sum")
        if others := {name for name in names if not name.startswith("all_reduce")}:
            ask.that(False, says, f"{', '.join(sorted(others))}: {instead(others)}")
        if not names:
            ask.that(False, says, "no call was seen: dist.all_reduce tells each rank the sum")
        if len(names) > 1:
            hint = "every call takes its time, however little it sends: put all that is added up "
            ask.that(False, says, f"{hint}into one tensor (torch.cat or torch.stack)")
        (call,) = record.operations
        if call.end is None:
            at = f" at {call.where}" if call.where else ""
            hint = f"nobody waits for the {call.name}{at}: keep its handle, and call wait() on it"
            ask.that(False, f"{case}: every handle is waited for", hint)
        if sum(one.numbers or 0 for one in calls) > numbers + SPARE:
            hint = f"a rank has to send {aim}, and no more"
            ask.that(False, f"{case}: few numbers travel (rank {rank} called {called})", hint)


def few_calls(
    ask: Ask, ranks: Sequence[Answered], most: int, case: str, what: tuple[str, str], hint: str
) -> list[list[int]]:
    """``most`` collectives of tensors, and each waited for; silent if so.

    Args:
        ask: What the check asks with.
        ranks: What each rank called. A rank alone may call what it likes.
        most: How many calls there may be on a rank.
        case: Begins the line that says what is wrong.
        what: What stays where it is, and what is exchanged: ``("scores", "counts")``.
        hint: How to do with so few calls.

    Returns:
        Of each rank, how many numbers each of its calls brings it; nothing of a rank alone.
    """
    stay, go = what
    arrive = []
    for rank, (_, calls, record) in enumerate(ranks if len(ranks) > 1 else ()):
        called = f"rank {rank} made {len(calls)}: {', '.join(map(str, calls[:3])) or 'none'}"
        called += ", …" * (len(calls) > 3)
        if record.sent or record.received:
            why = "all_reduce tells each rank the sum, and no message has to be sent"
            ask.that(False, f"{case}: no messages", why)
        if unknown := [call.name for call in calls if call.numbers is None]:
            why = f"{unknown[0]} is not needed, and {stay} stay where they are: all_reduce adds up"
            ask.that(False, f"{case}: {go} are exchanged, as tensors ({called})", why)
        for operation in (o for o in record.operations if o.end is None):
            why = f"nobody waits for the {operation.name}: keep its handle, and call wait() on it"
            ask.that(False, f"{case}: every handle is waited for", why)
        if len(calls) > most:
            ask.that(False, f"{case}: {most} calls at most ({called})", hint)
        arrive.append([c.numbers * (len(ranks) if "gather" in c.name else 1) for c in calls])
    return arrive
