"""What in the traces of several ranks belongs together.

The k-th message from a to b (with one tag, in one group) is what b's k-th matching receive gets.
The k-th collective of a group on one rank meets the k-th on every other: nothing but the order
decides, so two that differ in name have met by mistake.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from course_lib._operations import Operation, Trace


@dataclass(frozen=True)
class Match:
    """Operations that met.

    Attributes:
        operations: Sender and receiver, or a collective's calls by rank. A message nobody received
            (or sent), and a collective that some never called, has fewer.
        complete: Whether all sides are there, and of the same kind.
    """

    operations: tuple[Operation, ...]
    complete: bool

    @property
    def ready(self) -> float:
        """When the last side had come: until then the others waited."""
        return max(operation.begin for operation in self.operations)


def match(traces: Sequence[Trace]) -> list[Match]:
    """Find what met, in the order in which it began.

    Args:
        traces: One trace of each rank, in any order.
    """
    sends: dict[tuple, list[Operation]] = defaultdict(list)
    receives: dict[tuple, list[Operation]] = defaultdict(list)
    collectives: dict[tuple, dict[int, list[Operation]]] = defaultdict(lambda: defaultdict(list))
    for trace in traces:
        for o in trace.operations:
            if o.sends:
                sends[o.rank, o.peer, o.tag, o.group].append(o)
            elif o.receives:
                receives[o.peer, o.rank, o.tag, o.group].append(o)
            else:
                collectives[o.group][o.rank].append(o)
    found = []
    for key in sends.keys() | receives.keys():
        ours, theirs = sends.get(key, []), receives.get(key, [])
        for i in range(max(len(ours), len(theirs))):
            pair = (*ours[i : i + 1], *theirs[i : i + 1])
            found.append(Match(pair, len(pair) == 2))
    for group, by_rank in collectives.items():
        for i in range(max(map(len, by_rank.values()))):
            calls = tuple(o for rank in group for o in by_rank.get(rank, [])[i : i + 1])
            alike = len({(o.name, o.peer) for o in calls}) == 1
            found.append(Match(calls, alike and len(calls) == len(group)))
    return sorted(found, key=lambda m: min(o.begin for o in m.operations))


def matches(traces: Sequence[Trace]) -> pd.DataFrame:
    """What met, as a table: one row a message or collective, in order.

    Returns:
        Columns: ``what``, ``ranks``, ``bytes`` (of one side), ``begin, ms`` (since the traces
        began), ``took, ms`` (from the first call to the last return), ``where`` (the first
        caller's line), and ``complete``.
    """
    start = min((t.begin for t in traces), default=0.0)
    rows = []
    for m in match(traces):
        first = min(m.operations, key=lambda o: o.begin)
        names = list(dict.fromkeys(o.name for o in m.operations))
        last = max((o.end or o.returned) for o in m.operations)
        rows.append(
            {
                "what": " → ".join(names) if not first.is_collective else " / ".join(names),
                "ranks": _ranks(m),
                "bytes": max(o.nbytes for o in m.operations),
                "begin, ms": 1e3 * (first.begin - start),
                "took, ms": 1e3 * (last - first.begin),
                "where": first.where,
                "complete": m.complete,
            }
        )
    columns = ["what", "ranks", "bytes", "begin, ms", "took, ms", "where", "complete"]
    return pd.DataFrame(rows, columns=columns)


def summary(traces: Sequence[Trace]) -> pd.DataFrame:
    """Messages, bytes and time of each rank.

    Returns:
        One row a rank: messages and bytes sent and received, collectives and the bytes put into
        them, and milliseconds in which the rank was waiting for others, communicating, and doing
        anything else.
    """
    rows, met = {}, match(traces)
    for trace in sorted(traces, key=lambda t: t.rank):
        parts = {"waiting": 0.0, "communicating": 0.0}
        for segment in segments(trace, met):
            parts[segment.kind] += segment.end - segment.begin
        rest = trace.end - trace.begin - sum(parts.values())
        rows[f"rank {trace.rank}"] = {
            "messages sent": len(trace.sent),
            "bytes sent": sum(o.nbytes for o in trace.sent),
            "messages received": len(trace.received),
            "bytes received": sum(o.nbytes for o in trace.received),
            "collectives": len(trace.collectives),
            "bytes in collectives": sum(o.nbytes for o in trace.collectives),
            "waiting, ms": 1e3 * parts["waiting"],
            "communicating, ms": 1e3 * parts["communicating"],
            "else, ms": 1e3 * rest,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


@dataclass(frozen=True)
class Segment:
    """A stretch of time that a rank spent inside an operation.

    Attributes:
        operation: The operation.
        kind: ``"waiting"`` (another side had not come yet) or ``"communicating"``.
        begin: In seconds of the machine's monotonic clock.
        end: Likewise.
    """

    operation: Operation
    kind: str
    begin: float
    end: float


def segments(trace: Trace, met: Sequence[Match]) -> list[Segment]:
    """The time a rank spent inside operations, split where the last partner came."""
    ready = {id(o): m.ready if m.complete else o.returned for m in met for o in m.operations}
    found = []
    for o in trace.operations:
        spans = [(o.begin, o.returned)]
        if o.waited is not None and o.end is not None:
            spans.append((o.waited, o.end))
        for begin, end in spans:
            turn = min(max(ready.get(id(o), begin), begin), end)
            found.append(Segment(o, "waiting", begin, turn))
            found.append(Segment(o, "communicating", turn, end))
    return [segment for segment in found if segment.end > segment.begin]


def _ranks(m: Match) -> str:
    first = m.operations[0]
    if first.is_collective:
        return ", ".join(str(o.rank) for o in m.operations)
    source = first.rank if first.sends else first.peer
    target = first.peer if first.sends else first.rank
    return f"{'?' if source is None else source} → {target}"
