"""Mistakes on several ranks to be counted together, and what goes wrong with it."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class Matrix(NamedTuple):
    """A question of 21.2: each rank's mistakes, ``{(actual, predicted): count}``."""

    says: str
    classes: int
    ranks: tuple[dict[tuple[int, int], int], ...]


MATRICES = (
    Matrix("three classes", 3, ({(0, 1): 2, (1, 0): 4, (2, 2): 9, (2, 0): 3},)),
    Matrix("two classes, no mistake", 2, ({(0, 0): 3, (1, 1): 2},)),
    Matrix(
        "third on each rank, first in sum",
        5,
        (
            {(0, 1): 6, (2, 1): 5, (3, 4): 4, (1, 1): 9},
            {(4, 0): 6, (1, 3): 5, (3, 4): 4, (0, 0): 9, (4, 4): 2},
        ),
    ),
    Matrix("one class each way, one rank without pictures", 2, ({(1, 0): 3, (0, 0): 4}, {})),
    Matrix(
        "there and back again",
        4,
        ({(0, 2): 5, (2, 0): 5, (3, 1): 6}, {(3, 1): 1, (2, 3): 6, (1, 1): 3}, {(0, 2): 0}),
    ),
    Matrix(
        "equally many",
        6,
        ({(5, 1): 4, (3, 3): 7}, {}, {(2, 5): 4, (4, 0): 2, (2, 3): 4, (4, 1): 1}),
    ),
    Matrix(
        "many pictures",
        10,
        (
            {(3, 5): 900, (9, 1): 301, (0, 0): 3_000},
            {(3, 5): 700, (5, 3): 1_350, (9, 9): 2_000},
            {(3, 5): 1, (9, 1): 1_250, (1, 9): 280},
            {(3, 5): 450, (5, 3): 150, (2, 7): 99},
        ),
    ),
)


def counted(ranks: Sequence[dict], classes: int) -> dict[tuple[int, int], int]:
    """The counts of all ranks together, for every pair of classes in order, also where it is 0."""
    every = [(a, p) for a in range(classes) for p in range(classes)]
    return {pair: sum(rank.get(pair, 0) for rank in ranks) for pair in every}


def worst(counts: dict[tuple[int, int], int], diagonal: bool = False) -> list[tuple]:
    """The two most frequent pairs; of equals, those that come first in ``counts``.

    Args:
        counts: How often ``(actual, predicted)`` happened.
        diagonal: Whether right answers count as well.

    Returns:
        Two triples ``(actual, predicted, count)``.
    """
    pairs = [(a, p, count) for (a, p), count in counts.items() if diagonal or a != p]
    return sorted(pairs, key=lambda pair: -pair[2])[:2]


def same(got: Any, expected: list[tuple]) -> bool:
    """Whether these are the same plain ints, in lists or tuples."""
    return _plain(got) == [list(pair) for pair in expected]


def _plain(got: Any) -> list[list[int]] | None:
    """As lists of plain ints, or None if it is nothing of the kind."""
    if not isinstance(got, list | tuple) or not all(isinstance(x, list | tuple) for x in got):
        return None
    pairs = [list(pair) for pair in got]
    return pairs if all(type(number) is int for pair in pairs for number in pair) else None


def which_mistake(got: Any, matrix: Matrix, rank: int) -> str:
    """Why a result may be wrong.

    Args:
        got: What the answer returned.
        matrix: What it was asked.
        rank: On which rank.
    """
    counts = counted(matrix.ranks, matrix.classes)
    expected = worst(counts)
    if not isinstance(got, list | tuple) or len(got) != 2:
        return "return two triples, also where only one thing, or nothing, is taken for another"
    if not all(isinstance(pair, list | tuple) and len(pair) == 3 for pair in got):
        return "return two triples: (actual, predicted, count)"
    pairs = _plain(got)
    if pairs is None:
        return "plain ints are asked for, and no mean: int(number), tensor.item() or .tolist()"
    if pairs == [list(pair) for pair in expected[::-1]] and pairs[0][2] != pairs[1][2]:
        return "the more frequent one comes first"
    of_equals = "of equals the smaller actual class comes first, then the smaller predicted one"
    if sorted(pairs) == sorted(map(list, expected)):
        return of_equals
    for hint, guess in _mistakes(matrix, counts, rank):
        if pairs == [list(pair) for pair in guess] and guess != expected:
            return hint
    if [pair[2] for pair in pairs] == [pair[2] for pair in expected]:
        return of_equals
    return "count into a matrix of C × C, actual by predicted, and add up those of all ranks"


def _mistakes(matrix: Matrix, counts: dict, rank: int) -> Iterator[tuple[str, list[tuple]]]:
    """Hints, each with what comes out by the mistake it is about."""
    expected = worst(counts)
    columns = {(p, a): counts[a, p] for p, a in counts}
    yield "the two are exchanged: (actual, predicted, count)", [(p, a, c) for a, p, c in expected]
    yield "the two are exchanged: (actual, predicted, count)", worst(columns)
    yield "the diagonal has the right answers: leave it out", worst(counts, diagonal=True)
    own = [worst(counted([one], matrix.classes)) for one in matrix.ranks]
    yield "that is this rank's part only: all_reduce the matrix before you look", own[rank]
    merged = dict.fromkeys(counts, 0)
    for a, p, count in itertools.chain(*own):
        merged[a, p] += count
    yield "what is third on every rank may be first in sum: add up whole matrices", worst(merged)
    both = {(a, p): counts[a, p] + counts[p, a] for a, p in counts if a != p}
    half = {(a, p): count for (a, p), count in both.items() if a < p}
    for pairs in (both, half):
        yield "cats taken for dogs are not dogs taken for cats: keep the two apart", worst(pairs)
    mean = [(a, p, c // len(matrix.ranks)) for a, p, c in expected]
    yield "that is a mean of the ranks' counts: add them up, and do not divide", mean
    yield (
        "those are the two least frequent ones: sort by -count, or reverse",
        [(a, p, c) for (a, p), c in sorted(counts.items(), key=lambda pair: pair[1]) if a != p][:2],
    )
