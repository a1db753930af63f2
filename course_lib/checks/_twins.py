"""Flows among which some repeat others, and what is wrong with a split of them."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

COLUMNS = ("proto", "service", "sbytes", "dur")
Flow = tuple[str, str, int, float]


class Flows(NamedTuple):
    """A question of 50.2.

    Attributes:
        says: How a message names it.
        flows: The features of each row.
        kinds: Of each row.
    """

    says: str
    flows: list[Flow]
    kinds: list[str]

    def given(self) -> tuple[pd.DataFrame, pd.Series]:
        """Features and kinds. Their index is not the position of the rows."""
        features = pd.DataFrame(self.flows, columns=[*COLUMNS], index=self.labels())
        kinds = pd.Series(self.kinds, index=features.index, name="attack_cat", dtype=object)
        return features.astype({"sbytes": "int64", "dur": "float64"}), kinds

    def labels(self) -> list[int]:
        """The index of the rows."""
        return np.random.default_rng(50).permutation(len(self.flows)).tolist()

    def first(self) -> list[int]:
        """Of each row, the first one that has the same features."""
        places: dict[Flow, int] = {}
        return [places.setdefault(flow, i) for i, flow in enumerate(self.flows)]

    def stay(self) -> list[int]:
        """The rows that repeat no earlier one."""
        return [i for i, first in enumerate(self.first()) if i == first]


def _own(kinds: dict[str, int]) -> tuple[list[Flow], list[str]]:
    """So many flows of each kind, no two alike, though they differ in one feature at most times."""
    flows, names = [], []
    for kind, count in kinds.items():
        for _ in range(count):
            i = len(flows)
            first = ("tcp", "udp", "arp")[i % 3], ("-", "dns")[i // 3 % 2]
            flows.append((*first, 100 + i // 12, 0.5 + 0.25 * (i // 6 % 2)))
            names.append(kind)
    return flows, names


def _repeating(says: str, kinds: dict[str, int], repeats: int, strangers: int) -> Flows:
    """With repeats of the same kind and of another one; a kind `Echo` has nothing else."""
    flows, names = _own(kinds)
    dice, n = np.random.default_rng(len(flows)), len(flows)
    for i in dice.integers(0, n, repeats):
        flows.append(flows[i])
        names.append(names[i])
    for i in dice.integers(0, n, strangers):
        flows.append(flows[i])
        names.append(next(kind for kind in kinds if kind != names[i]))
    flows, names = flows + flows[:2], [*names, "Echo", "Echo"]
    last = len(flows) - 2  # the repeats of `Echo` come last, so that none of them is a first
    order = [*dice.permutation(last).tolist(), last, last + 1]
    return Flows(says, [flows[i] for i in order], [names[i] for i in order])


_ALIKE = [("tcp", "1", 1, 1.0), ("tcp", "11", 1, 1.0), ("tcp1", "1", 1, 1.0), ("tcp", "1", 11, 1.0)]
_ALIKE += [("tcp", "1", 1, 1.0000001), ("udp", "1", 2, 0.0), ("udp", "1", 0, 2.0)]
USUAL = _repeating(
    "flows of six kinds",
    {"Normal": 40, "Exploits": 25, "Fuzzers": 9, "DoS": 2, "Worms": 1},
    repeats=60,
    strangers=20,
)
CASES = (
    USUAL,
    Flows("no flow twice", *_own({"Normal": 7, "Exploits": 6})),
    Flows("nearly alike", _ALIKE * 2, ["Normal"] * 3 + ["DoS"] * 4 + ["DoS"] * 7),
    Flows("one flow, 30 times", [("udp", "dns", 146, 0.001)] * 30, ["Normal", "Generic"] * 15),
    Flows("five kinds, a flow of each", *_own(dict.fromkeys("ABCDE", 1))),
    Flows("one flow", *_own({"Normal": 1})),
    Flows("no flow", [], []),
)
SEEDS = 40


def what_is_wrong(case: Flows, train: Sequence[int], test: Sequence[int]) -> tuple[str, str]:
    """What a split does not hold, and a hint; two empty strings if it holds everything.

    Args:
        case: What was to be split.
        train: Positions.
        test: Positions.
    """
    wrong = _what_is_wrong(case, train, test)
    place = {label: i for i, label in enumerate(case.labels())}
    for hint, meant in (
        ("these are labels of the index; positions are asked for, as of .iloc", place.get),
        ("positions count from 0, and these from 1", lambda i: i - 1),
    ):
        parts = [[*map(meant, part)] for part in (train, test)]
        if wrong[0] and not _what_is_wrong(case, *parts)[0]:
            return wrong[0], hint
    return wrong


def _what_is_wrong(case: Flows, train: Sequence[int], test: Sequence[int]) -> tuple[str, str]:
    taken, first, kinds = [*train, *test], case.first(), case.kinds
    if outside := [i for i in taken if i not in range(len(first))]:
        return "parts hold positions of rows", f"there is no row {outside[0]}: count from 0"
    if twice := [i for i, times in Counter(taken).items() if times > 1]:
        return "no row is taken twice", f"row {twice[0]} is"
    if shared := {first[i] for i in train} & {first[i] for i in test}:
        a = next(i for i in train if first[i] in shared)
        b = next(i for i in test if first[i] == first[a])
        says = "no flow is on both sides"
        return says, f"row {a}, to train, and row {b}, to test, are twins. {_why_twins(case, a, b)}"
    says = "of equal flows the first stays, and no other"
    one: dict[int, int] = {}
    for i in taken:
        if first[i] in one:
            a, b = sorted((one[first[i]], i))
            return says, f"rows {a} and {b} are twins, on one side. {_why_twins(case, a, b)}"
        one[first[i]] = i
    if lost := [i for i in case.stay() if i not in one]:
        return says, f"row {lost[0]} is in neither part{_why_lost(case, lost)}"
    if late := [i for i in taken if first[i] != i]:
        i = min(late)
        return says, f"row {first[i]} has the same features as row {i}, and comes before it"
    for kind, count in Counter(kinds[i] for i in taken).items():
        here, there = (sum(kinds[i] == kind for i in part) for part in (train, test))
        if count == 1 and there:
            return "a kind with one row is for training", f"{kind} is in the test part"
        if abs(here - there) > 1:
            hint = f"{kind}: {here} to train and {there} to test. Deal kind by kind, and after the "
            return "half of each kind is on each side", f"{hint}repeats are gone"
    return "", ""


def _why_twins(case: Flows, a: int, b: int) -> str:
    if case.kinds[a] != case.kinds[b]:
        return (
            f"(As {case.kinds[a]} and as {case.kinds[b]}: the kind is the answer, and no feature. "
            "Look for repeats in the features alone)"
        )
    return "Look for repeats among all rows, before anything is divided"


def _why_lost(case: Flows, lost: Sequence[int]) -> str:
    rows, of_kind = Counter(case.first()), _counts(case)
    if all(of_kind[case.kinds[i]] == 1 for i in lost):
        return f": {case.kinds[lost[0]]} is rare, but no reason to leave it out"
    if all((i in lost) == (rows[i] > 1) for i in case.stay()):
        return ": it has twins, and of these the first stays"
    return ", and it repeats no earlier one: each column counts, and to the last digit"


def what_seeds_do(case: Flows, splits: Sequence[tuple], again: tuple) -> tuple[str, str]:
    """What is wrong with splits by the seeds 0, 1, …; two empty strings if nothing is.

    Args:
        case: What was to be split.
        splits: Pairs of positions, one of each seed.
        again: By the seed 0 once more.
    """
    tests = [frozenset(test) for _, test in splits]
    if frozenset(again[1]) != tests[0]:
        hint = "two calls with the seed 0 differ: np.random.default_rng(seed), made in each call"
        return "the same seed gives the same split", hint
    says, number = "another seed gives another split", len(set(tests))
    if number == 1:
        return says, "all seeds give the same one: the seed has to decide who goes where"
    if number < len(tests):
        return says, f"{len(tests)} seeds give {number}"
    singles = [kind for kind, count in _counts(case).items() if count == 1]
    for i in case.stay():
        times = sum(i in test for test in tests)
        if times in (0, len(tests)) and case.kinds[i] not in singles:
            side = "the test part" if times else "the training part"
            hint = f"row {i} is in {side}, whatever the seed: shuffle within each kind"
            return "the seed decides for each flow", hint
    return "", ""


def _counts(case: Flows) -> Counter:
    return Counter(case.kinds[i] for i in case.stay())
