"""Samples that know when their answer is known, and what is wrong with a split of them."""

from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

PARTS = ("fit", "valid", "test")


class Samples(NamedTuple):
    """A question of 40.2.

    Attributes:
        says: How a message names it.
        made: Days.
        answered: Days.
        days: First day of validation, first of the test, last of the test.
    """

    says: str
    made: list[int]
    answered: list[int]
    days: tuple[int, int, int]

    def parts(self) -> dict[str, list[int]]:
        """The right answer: positions of each part."""
        first_valid, first_test, last_test = self.days
        pairs = [*zip(self.made, self.answered, strict=True)]
        rules = {
            "fit": lambda m, a: a < first_valid,
            "valid": lambda m, a: first_valid <= m and a < first_test,
            "test": lambda m, a: first_test <= m <= last_test,
        }
        return {part: [i for i, x in enumerate(pairs) if rules[part](*x)] for part in PARTS}


def _daily(days: int, horizon: int) -> tuple[list[int], list[int]]:
    return [*range(days)], [*range(horizon, days + horizon)]


def _mixed(samples: int, days: int, horizons: Sequence[int]) -> tuple[list[int], list[int]]:
    dice = np.random.default_rng(40)
    made = dice.integers(0, days, samples)
    return made.tolist(), (made + dice.choice(horizons, samples)).tolist()


_BORDERS = (
    [9, 8, 10, 14, 12, 13, 15, 20, 21, 9, 14, 15, 10, 18],
    [10, 9, 12, 15, 14, 16, 16, 30, 22, 40, 25, 17, 15, 25],
)
CASES = (
    Samples("14 samples at the borders", *_BORDERS, (10, 15, 20)),
    Samples("answers after 1 day", *_daily(40, 1), (20, 30, 39)),
    Samples("answers after 20 days", *_daily(200, 20), (100, 150, 199)),
    Samples("after 1, 5 or 20, unordered", *_mixed(600, 300, (1, 5, 20)), (150, 200, 249)),
    Samples("nothing to fit", *_daily(30, 5), (0, 15, 29)),
    Samples("nothing to validate", *_daily(60, 20), (30, 45, 59)),
    Samples("nothing to test", *_daily(30, 5), (10, 40, 45)),
    Samples("no samples", [], [], (10, 20, 29)),
)


def too_careful(samples: Samples) -> int:
    """How many more samples of `fit` a gap as long as the longest answer would drop."""
    longest = max((a - m for m, a in zip(samples.made, samples.answered, strict=True)), default=0)
    fit = samples.parts()["fit"]
    return sum(samples.made[i] + longest >= samples.days[0] for i in fit)


def positions(part: Any) -> list[int] | str:
    """A part as a list of int, or what is wrong with it."""
    if isinstance(part, tuple) and len(part) == 1:
        return "np.where returns a tuple: np.flatnonzero(…) returns the positions"
    if hasattr(part, "tolist"):
        part = part.tolist()
    if not isinstance(part, list | tuple | set | range):
        return f"a part holds positions (got {part!r:.50})"
    part = [*part]
    if part and all(isinstance(x, bool) for x in part):
        return "positions are asked for, not True or False for each sample: np.flatnonzero(…)"
    if odd := [x for x in part if not isinstance(x, Integral) or isinstance(x, bool)]:
        return f"a part holds positions, whole numbers (got {odd[0]!r:.50})"
    return [int(x) for x in part]


def what_is_wrong(samples: Samples, got: dict[str, list[int]]) -> tuple[str, str]:
    """The part that is wrong and why; two empty strings if none is."""
    right = samples.parts()
    others = any({*got[part]} != {*right[part]} for part in PARTS)
    if others and (odd := _no_positions(got, samples)):
        return odd
    for part in PARTS:
        if twice := [i for i, times in Counter(got[part]).items() if times > 1]:
            return part, f"sample {twice[0]} is in it twice"
        if extra := [i for i in got[part] if i not in {*right[part]}]:
            i = max(extra, key=lambda i: samples.made[i])
            return part, f"{_sample(samples, i)}: {_why_not(part, samples, i)}{_more(extra)}"
        if lost := [i for i in right[part] if i not in {*got[part]}]:
            return part, f"{_sample(samples, lost[0])}: {_why(part, samples, lost)}{_more(lost)}"
    return "", ""


def _no_positions(got: dict[str, list[int]], samples: Samples) -> tuple[str, str] | None:
    made, right = samples.made, samples.parts()
    place = np.argsort(np.argsort(made, kind="stable"), kind="stable").tolist()
    for other, hint in (
        (made, "these are days: the positions of the samples are asked for"),
        (place, "these are positions in a sorted copy: say where the samples were before"),
    ):
        if all({*got[part]} == {other[i] for i in right[part]} for part in PARTS):
            return next(part for part in PARTS if {*got[part]} != {*right[part]}), hint
    for part in PARTS:
        if strange := [i for i in got[part] if not 0 <= i < len(made)]:
            hint = f"there is no sample {strange[0]}: they are numbered from 0"
            return part, f"{hint} to {len(made) - 1}" if made else "there are no samples"
    return None


def _why_not(part: str, samples: Samples, i: int) -> str:
    made, (first_valid, first_test, last_test) = samples.made[i], samples.days
    if part == "fit":
        if made >= first_valid:
            return f"made when validation has begun, on day {first_valid}"
        return f"the model is made before day {first_valid}, and does not know the answer yet"
    if part == "valid":
        if not first_valid <= made < first_test:
            return f"the validation part has the days from {first_valid} to {first_test - 1}"
        return f"the choice is made before day {first_test}, and the answer is not known yet"
    return f"the test part has the days from {first_test} to {last_test}"


def _why(part: str, samples: Samples, lost: list[int]) -> str:
    first_valid, first_test, last_test = samples.days
    if part == "fit":
        return f"its answer is known before day {first_valid}, so it may be learnt from"
    if part == "valid":
        return f"made from day {first_valid} on, and answered before day {first_test}: it may help"
    late = all(samples.answered[i] > last_test for i in lost)
    if late and any(samples.made[i] < last_test for i in lost):
        return "when its answer comes does not matter: a test is judged afterwards"
    return f"the test part has the days from {first_test} to {last_test}, both included"


def _sample(samples: Samples, i: int) -> str:
    return f"sample {i}, made on day {samples.made[i]} and answered on day {samples.answered[i]}"


def _more(samples: list[int]) -> str:
    return f" (and {len(samples) - 1:,} more)" if len(samples) > 1 else ""
