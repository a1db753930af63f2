"""Plans that deal trials to ranks: how long one takes, and how long the best one would.

The best plan is found by trying all that are worth it, so this is for a dozen trials at most.
"""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any


def time_of(plan: Iterable[Iterable[int]], costs: Sequence[float]) -> float:
    """When the last rank is done.

    Args:
        plan: For each rank the numbers of its trials.
        costs: What each trial takes, in seconds.

    Returns:
        Seconds; 0 without ranks.
    """
    return max((sum(costs[trial] for trial in part) for part in plan), default=0)


def best_time(costs: Sequence[float], ranks: int) -> float:
    """The time that the best of all plans takes.

    Args:
        costs: What each trial takes, in seconds.
        ranks: How many ranks there are, at least 1.

    Returns:
        Seconds; 0 without trials.
    """
    order, best = sorted(costs, reverse=True), [sum(costs)]

    def place(i: int, loads: tuple[float, ...]) -> None:
        if max(loads) >= best[0]:
            return
        if i == len(order):
            best[0] = max(loads)
            return
        for load in set(loads):
            rank = loads.index(load)
            place(i + 1, (*loads[:rank], load + order[i], *loads[rank + 1 :]))

    if costs:
        place(0, (0,) * ranks)
    return best[0]


def plain(plan: Any) -> Any:
    """A plan as a list of lists of int, where it is one in another guise.

    Args:
        plan: What a learner's function returned: arrays, tensors, tuples, sets and ranges of whole
            numbers count as lists. Anything else stays as it is.
    """
    if hasattr(plan, "tolist"):
        plan = plan.tolist()
    if isinstance(plan, list | tuple | set | range):
        return [plain(part) for part in plan]
    return int(plan) if isinstance(plan, Integral) else plan
