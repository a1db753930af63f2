"""Steps of several ranks, where their time went, and what comes out by a mistake.

All times are seconds of a clock that has counted for weeks; float32 tells eighths of a second apart
there, and the ranks arrive milliseconds after each other.
"""

import struct
from collections.abc import Iterator

Times = tuple[float, float, float]  # of one rank: began, arrived, ended
Parts = tuple[float, float, float]  # computing, waiting, communicating
NAMES = ("computing", "waiting", "communicating")

_BASE = 2_000_000.4
_WHOLE_SECOND = 1_234_567.95  # the ranks arrive before and after the next one

STEPS: dict[int, dict[str, list[Times]]] = {
    2: {
        "rank 1 arrives 7 ms after rank 0": [
            (_BASE, _BASE + 0.0301, _BASE + 0.0452),
            (_BASE + 0.0002, _BASE + 0.0371, _BASE + 0.0449),
        ],
        "rank 0 is the last": [
            (_BASE + 0.0007, _BASE + 0.0935, _BASE + 0.0991),
            (_BASE + 0.0001, _BASE + 0.0214, _BASE + 0.0987),
        ],
    },
    3: {
        "a straggler in the middle": [
            (_WHOLE_SECOND, _WHOLE_SECOND + 0.0203, _WHOLE_SECOND + 0.1418),
            (_WHOLE_SECOND + 0.0011, _WHOLE_SECOND + 0.1314, _WHOLE_SECOND + 0.1422),
            (_WHOLE_SECOND + 0.0004, _WHOLE_SECOND + 0.0207, _WHOLE_SECOND + 0.1415),
        ],
        "the last had begun late": [
            (_BASE, _BASE + 0.0604, _BASE + 0.0758),
            (_BASE + 0.0503, _BASE + 0.0712, _BASE + 0.0761),
            (_BASE + 0.0202, _BASE + 0.0398, _BASE + 0.0755),
        ],
        "all arrive at once": [
            (_BASE + 0.001 * rank, _BASE + 0.02, _BASE + 0.3 + 0.001 * rank) for rank in range(3)
        ],
    },
    4: {
        "two that share a core are late": [
            (_BASE + 0.0003, _BASE + 0.0402, _BASE + 0.0933),
            (_BASE + 0.0001, _BASE + 0.0811, _BASE + 0.0931),
            (_BASE + 0.0006, _BASE + 0.0834, _BASE + 0.0936),
            (_BASE, _BASE + 0.0415, _BASE + 0.0929),
        ],
        "one does not compute": [
            (_BASE + 0.2, _BASE + 0.2, _BASE + 0.2444),
            (_BASE + 0.0802, _BASE + 0.1612, _BASE + 0.2442),
            (_BASE + 0.0801, _BASE + 0.2431, _BASE + 0.2446),
            (_BASE + 0.0804, _BASE + 0.2007, _BASE + 0.2441),
        ],
    },
}


def split(times: Times, last: float) -> Parts:
    """The three parts of a rank's step.

    Args:
        times: Of this rank.
        last: When the last rank arrived.
    """
    began, arrived, ended = times
    return arrived - began, last - arrived, ended - last


def right(step: list[Times]) -> list[Parts]:
    """Each rank's parts of a step."""
    last = max(arrived for _, arrived, _ in step)
    return [split(times, last) for times in step]


def mistakes(step: list[Times]) -> Iterator[tuple[str, list[Parts]]]:
    """Hints, each with the ranks' parts that come out by the mistake it is about."""
    began, arrived, ended = zip(*step, strict=True)
    coarse = "after two weeks a float32 tells only eighths of a second apart: use float64"
    longest = max(a - b for a, b in zip(arrived, began, strict=True))
    n, same = len(step), "the last to arrive may be any rank: all_reduce the arrivals with MAX"
    not_added = "no time of a clock: arrivals are not added up, the last is wanted: op=MAX"
    for hint, last in (
        (coarse, _float32(max(arrived))),
        ("that is the first to arrive: MAX, not MIN", min(arrived)),
        (f"a sum of arrivals is {not_added}", sum(arrived)),
        (f"a mean of arrivals is {not_added}", sum(arrived) / n),
        ("that is the last rank's `ended`: who waits, waits for the last to arrive", max(ended)),
        ("that is the first rank's `ended`: who waits, waits for the last to arrive", min(ended)),
        (f"rank 0's arrival was taken for the last: {same}", arrived[0]),
        (f"rank N - 1's arrival was taken for the last: {same}", arrived[-1]),
    ):
        yield hint, [split(times, last) for times in step]
    hint = "each rank takes its own arrival for the last (right on the last rank only): "
    yield f"{hint}all_reduce the arrivals with MAX", [split(t, t[1]) for t in step]
    hint = "who computed longest need not arrive last, for ranks begin at different times: "
    yield f"{hint}compare arrivals", [split(t, t[0] + longest) for t in step]
    rough = [tuple(map(_float32, times)) for times in step]
    yield coarse, right(rough)
    parts = right(step)
    hint = "`waiting` and `communicating` are exchanged: waiting comes first"
    yield hint, [(c, m, w) for c, w, m in parts]
    hint = "that is the whole time in the collective: communicating begins when the last arrives"
    yield hint, [(c, w, w + m) for c, w, m in parts]
    yield hint, [(c, w + m, m) for c, w, m in parts]
    hint = "waiting is negative: the last arrival minus this rank's"
    yield hint, [(c, -w, m) for c, w, m in parts]
    hint = "computing ends when this rank arrives, not when the last does"
    yield hint, [(c + w, w, m) for c, w, m in parts]
    hint = "this rank's own `ended`, not the last rank's"
    yield hint, [(c, w, max(ended) - max(arrived)) for c, w, _ in parts]
    hint = "seconds are asked for"
    yield hint, [(1e3 * c, 1e3 * w, 1e3 * m) for c, w, m in parts]


def _float32(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]
