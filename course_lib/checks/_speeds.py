"""Runs on several numbers of ranks, their efficiencies, and what comes out by a mistake.

Numbers of the tables are chosen so that two mistakes are never alike in all of them.
"""

import statistics
from collections.abc import Callable
from functools import partial

Run = tuple[int, int, float]  # ranks, samples of all ranks together, seconds
WITH_ONE_RANK: dict[str, list[Run]] = {
    "strong scaling": [(1, 50_000, 40.0), (2, 50_000, 22.0), (4, 50_000, 14.5)],
    "weak scaling": [(1, 9_000, 8.0), (2, 18_000, 9.1), (4, 36_000, 11.4), (16, 144_000, 17.3)],
    "one of three runs disturbed": [
        *((1, 6_000, seconds) for seconds in (5.0, 5.2, 5.1)),
        *((2, 6_000, seconds) for seconds in (3.1, 31.0, 2.9)),
    ],
    "one of five runs lucky": [
        *((1, 800, seconds) for seconds in (4.4, 4.0, 4.2, 4.6, 4.1)),
        *((3, 800, seconds) for seconds in (2.1, 2.3, 0.7, 2.2, 2.4)),
    ],
    "four runs and two": [
        *((1, 700, seconds) for seconds in (2.9, 2.0, 3.7, 2.2)),
        *((2, 700, seconds) for seconds in (2.0, 1.3)),
    ],
    "out of order, of unequal size": [
        *((4, 900, 1.3), (1, 400, 1.9), (2, 900, 2.6), (1, 950, 4.1), (4, 120, 0.2)),
        *((2, 300, 0.8), (1, 220, 0.9), (4, 640, 1.1), (2, 770, 1.7)),
    ],
    "two ranks more than twice as fast": [(1, 500, 9.0), (2, 500, 4.1), (4, 500, 2.4)],
    "a single run": [(1, 640, 0.25)],
}
WITHOUT_ONE: dict[str, list[Run]] = {
    "none with one rank": [(4, 800, 2.5), (2, 400, 2.0), (8, 900, 1.9), (2, 420, 2.2)],
    "world sizes 12, 3 and 6": [(12, 900, 1.0), (3, 900, 2.9), (6, 900, 1.6), (6, 900, 1.9)],
    "four ranks only": [(4, 800, 2.5), (4, 800, 2.0)],
}


def ratios(
    runs: list[Run],
    speed: Callable[..., float] = lambda n, samples, seconds: samples / seconds / n,
    middle: Callable[..., float] = statistics.median,
    base: Callable[[dict], int] = min,
    last: Callable[[float], float] = float,
) -> dict[int, float]:
    """The efficiencies; or, with other arguments, what comes out by a mistake."""
    speeds: dict[int, list] = {}
    for n, samples, seconds in runs:
        speeds.setdefault(n, []).append(speed(n, samples, seconds))
    each = {n: middle(several) for n, several in speeds.items()}
    return {n: last(each[n] / each[base(each)]) for n in each}


def _of_columns(runs: list[Run], middle: Callable[..., float]) -> dict[int, float]:
    """From the middle samples and the middle seconds of a world size, each by itself."""
    columns: dict[int, list] = {}
    for n, *run in runs:
        columns.setdefault(n, []).append(run)
    one_each = [(n, *map(middle, zip(*several, strict=True))) for n, several in columns.items()]
    return ratios(one_each)


def _total(n: int, samples: int, seconds: float) -> float:
    return samples / seconds


def _divided_above_only(runs: list[Run]) -> dict[int, float]:
    return {n: speed_up / n for n, speed_up in ratios(runs, _total).items()}


_BY_TIME = "times compare only runs of as many samples, and in weak scaling these grow: divide "
_BY_TIME += "samples by seconds first, and speeds by each other"
_TWO = "of an even number of runs it is the mean of the two in the middle"
MISTAKES: dict[str, Callable[[list[Run]], dict[int, float]]] = {
    "that is the speed-up: of N ranks N times the speed is expected, so divide by ranks": partial(
        ratios, speed=_total
    ),
    "that is a mean, which one disturbed or lucky run moves: take the median": partial(
        ratios, middle=statistics.fmean
    ),
    "that is the best run, perhaps a lucky one: take the median": partial(ratios, middle=max),
    "that is the slowest run, perhaps a disturbed one: take the median": partial(
        ratios, middle=min
    ),
    f"{_TWO} (torch.median takes the lower one; quantile(0.5) does not)": partial(
        ratios, middle=statistics.median_low
    ),
    f"{_TWO}, not the upper one: sorted(x)[len(x) // 2] is right for an odd number only": partial(
        ratios, middle=statistics.median_high
    ),
    "that is the first run of each world size: take the median": partial(
        ratios, middle=lambda each: each[0]
    ),
    "that is the last run of each world size: does a later one replace those before?": partial(
        ratios, middle=lambda each: each[-1]
    ),
    _BY_TIME: partial(ratios, speed=lambda n, samples, seconds: 1 / seconds / n),
    f"{_BY_TIME}; then divide by ranks": partial(
        ratios, speed=lambda n, samples, seconds: 1 / seconds
    ),
    "a speed for each run, then the median of the speeds: not of samples and seconds": partial(
        _of_columns, middle=statistics.median
    ),
    "all runs in one sum, where a disturbed one weighs most: take the median of speeds": partial(
        _of_columns, middle=sum
    ),
    "runs come in any order: compare with the smallest world size, not the first": partial(
        ratios, base=lambda each: next(iter(each))
    ),
    "compare with the smallest world size, not with the largest": partial(ratios, base=max),
    "compare with the smallest world size, which need not be the fastest": partial(
        ratios, base=lambda each: max(each, key=each.__getitem__)
    ),
    "upside down: the speed of the smallest world size stands below": partial(
        ratios, last=lambda share: 1 / share
    ),
    "a share is asked for, not percent": partial(ratios, last=lambda share: 100 * share),
    "do not cut at 1: it happens that two ranks are more than twice as fast (caches)": partial(
        ratios, last=lambda share: min(share, 1.0)
    ),
    "the smallest world size has ranks, too: divide its speed by them as well": _divided_above_only,
}
