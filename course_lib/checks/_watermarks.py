"""Alarms that ranks have counted so far, up to which second all are done, and usual mistakes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

Told = tuple[int, list[int]]  # up to which second, and the totals that are new


class Tick(NamedTuple):
    """A question of 52.2: a moment in the life of some ranks.

    Attributes:
        says: How a message names it.
        counts: What each rank has counted in each second so far.
        seen: The seconds each rank is done with.
        told: The seconds that have been told before.
    """

    says: str
    counts: tuple[tuple[int, ...], ...]
    seen: tuple[int, ...]
    told: int

    def of(self, rank: int) -> torch.Tensor:
        """What one rank has counted: int64 of shape (seconds,)."""
        return torch.tensor(self.counts[rank], dtype=torch.int64)

    def exact(self) -> Told:
        """What is to be told."""
        return self.between(self.told, max(self.told, min(self.seen)))

    def between(self, start: int, stop: int) -> Told:
        """What is told if these seconds are."""
        totals = [sum(second) for second in zip(*self.counts, strict=True)]
        return stop, totals[start:stop]


def _story() -> list[Tick]:
    """Seconds go by; ranks fall behind and catch up; rank 1 starts again from second 3."""
    dice, seconds = torch.Generator().manual_seed(52), 12
    full = torch.randint(0, 4, (3, seconds), generator=dice)
    ticks, told = [], 0
    for number, seen in enumerate([(2, 3, 1), (5, 6, 3), (7, 3, 3), (9, 5, 8), (12, 12, 12)], 1):
        some = full.clone()
        for rank, until in enumerate(seen):
            some[rank, until : until + 1].clamp_(max=1)  # a second it is amid
            some[rank, until + 1 :] = 0
        counts = tuple(tuple(row) for row in some.tolist())
        ticks.append(Tick(f"tick {number} of a run", counts, seen, told))
        told = ticks[-1].exact()[0]
    return ticks


_MANY = 3_000_000_001
CASES = (
    Tick("4 of 6 seconds seen", ((1, 0, 2, 4, 3, 0),), (4,), 1),
    Tick("rank 0 behind", ((0, 2, 4, 0, 0, 0, 0), (3, 1, 0, 2, 5, 1, 2)), (2, 6), 0),
    Tick("rank 1 behind", ((3, 1, 0, 2, 5, 1), (0, 2, 4, 1, 0, 0)), (5, 3), 0),
    Tick("nothing new", ((3, 1, 2, 2, 5, 1), (1, 2, 4, 1, 2, 0)), (5, 3), 3),
    Tick("rank 1 has seen nothing yet", ((2, 1, 3, 0), (0, 0, 0, 0)), (3, 0), 0),
    Tick("rank 0 is behind, and without alarms", (
        (0, 0, 0, 0, 0, 0, 0), (1, 4, 2, 0, 3, 2, 1), (5, 1, 1, 2, 0, 3, 0)), (4, 7, 6), 1),
    Tick("rank 1 went back", (
        (1, 1, 2, 3, 1, 4, 2, 0), (2, 5, 1, 0, 0, 0, 0, 0), (3, 0, 1, 1, 2, 1, 0, 0),
    ), (7, 2, 6), 4),
    *_story(),
    Tick("all have seen everything", (
        (1, 0, 3, 2, 2), (0, 1, 0, 2, 1), (2, 2, 1, 3, 0), (1, 1, 1, 0, 4)), (5, 5, 5, 5), 2),
    Tick("many alarms", (
        (2, _MANY, 2**24, 5, 1), (1, _MANY, 1, 6, 0), (1, 4, 0, 2, 2), (0, 0, 0, 1, 3),
    ), (4, 5, 3, 4), 1),
)  # fmt: skip


def odd_form(got: Any) -> str:
    """What is wrong with a result as an object; ``""`` if nothing is."""
    if not isinstance(got, list | tuple) or len(got) != 2:
        return f"return new_told, totals (got {got!r:.60})"
    until, totals = got
    if not isinstance(until, int) or isinstance(until, bool):
        return f"new_told is a plain int: int(…) (got {until!r:.50})"
    if not isinstance(totals, torch.Tensor) or totals.dim() != 1:
        return f"totals is a tensor of shape (seconds,) (got {totals!r:.60})"
    if totals.dtype != torch.int64:
        return f"totals are whole numbers, torch.int64 (got {totals.dtype})"
    return ""


def which_mistake(tick: Tick, got: Sequence[Told]) -> str:
    """Why the ranks' results are wrong; ``""`` if they are not."""
    right = tick.exact()
    if all(one == right for one in got):
        return ""
    for hint, guess in _mistakes(tick):
        guesses = guess if isinstance(guess, list) else [guess] * len(got)
        if guesses != [right] * len(got) and list(got) == guesses:
            return hint
    rank, (until, totals) = next((r, one) for r, one in enumerate(got) if one != right)
    if until < tick.told:
        return f"{tick.told} seconds have been told already: new_told never falls"
    if until > right[0]:
        late = min(range(len(tick.seen)), key=tick.seen.__getitem__)
        return f"rank {late} has seen {tick.seen[late]} seconds: no second after them is complete"
    if until < right[0]:
        return f"all ranks have seen {right[0]} seconds, and rank {rank} tells {until}"
    if len(totals) != len(right[1]):
        new = f"{tick.told} to {until - 1}" if until > tick.told else "none"
        return f"the new seconds are {new}: counts[told:new_told]"
    return f"add up what all ranks have counted in each new second, in whole numbers (rank {rank})"


def _mistakes(tick: Tick) -> Iterator[tuple[str, Told | list[Told]]]:
    """Hints, each with what comes out by the mistake, on all ranks or on each."""
    seen, told, ranks, slowest = tick.seen, tick.told, len(tick.seen), min(tick.seen)
    until, totals = tick.exact()
    falls = f"{told} seconds have been told already: new_told never falls, whoever goes back"
    twice = "those seconds have been told before: the new ones begin with second number told"
    for start, stop in ((told, slowest), (slowest, slowest), (slowest, told)):
        if slowest < told:
            yield falls, tick.between(start, stop)
    yield twice, tick.between(0, until)
    yield twice, tick.between(max(told - 1, 0), until)
    more = "seen_until is the first second that is *not* complete: stop before it"
    yield more, tick.between(told, min(until + 1, len(tick.counts[0])))
    yield more, (until, tick.between(told, until + 1)[1])
    yield more, (until + 1, totals)
    less = "all ranks are done with the seconds up to seen_until - 1, also with that one"
    yield less, tick.between(told, max(told, until - 1))
    yield "second number told is new: it comes first", tick.between(told + 1, until)
    yield "as long as the new seconds, not as all of them", (until, tick.between(0, None)[1])
    yield "the seconds after new_told are not complete", (until, tick.between(told, None)[1])
    if ranks > 1:
        hint = "a second is complete when the *slowest* rank is done with it: {}"
        # The later of two names for a number stays. Means go first: 2 ranks have told them apart.
        others = dict.fromkeys((sum(seen) // ranks, round(sum(seen) / ranks)), "that is a mean")
        others |= {sorted(seen)[ranks // 2]: "that is a median", max(seen): "that is the fastest"}
        others |= {seen[0]: "that is rank 0"}
        for other, what in others.items():
            if max(told, other) != until:
                yield hint.format(what), tick.between(told, max(told, other))
        own = [tick.between(told, max(told, mine)) for mine in seen]
        yield hint.format("that is each rank itself"), own
        parts = [(until, list(counts[told:until])) for counts in tick.counts]
        yield "that is what this rank has counted: add up over ranks", parts
        parts = [(until, [ranks * n for n in part]) for _, part in parts]
        yield "each rank's own counts, times the ranks: add up what the others have", parts
        yield "a sum of counts is asked for, no mean", (until, [n // ranks for n in totals])
        yield (
            "only rank 0 has the sums: all_reduce tells every rank",
            [
                (until, totals if not rank else list(tick.counts[rank][told:until]))
                for rank in range(ranks)
            ],
        )
