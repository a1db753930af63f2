"""Plans that deal models to groups of ranks in rounds: how long they take, what is wrong with them.

Training a model takes one rank one unit of time, and g ranks 1/g. A plan takes models ÷ ranks units
exactly when nobody is idle and the groups of each round are equally large: then the number of a
round's models divides that of the ranks, and only the number of rounds is left to choose.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from numbers import Integral
from typing import Any

Rounds = list[dict[int, list[int]]]

# Models and ranks.
CASES = (
    (6, 4),
    (7, 4),
    (2, 4),
    (3, 2),
    (4, 3),
    (5, 6),
    (2, 5),  # prime, and fewer models than ranks
    (9, 7),
    (8, 20),  # as many as possible at once is not best
    (3, 1),
    (0, 2),
)


def rounds_of(plan: Any) -> Rounds | str:
    """A plan in plain lists, dicts and ints, or what is wrong with its form.

    Args:
        plan: What a learner's function returned: a group may be any collection of whole numbers.
    """
    if not isinstance(plan, list | tuple):
        return f"return a list of rounds (got {plan!r:.60})"
    rounds: Rounds = []
    for number, one in enumerate(plan, start=1):
        if not isinstance(one, Mapping):
            return f"a round is a dict: model → list of its ranks (round {number} is {one!r:.60})"
        groups = {}
        for model, members in one.items():
            ranks = _whole_numbers(members)
            if ranks is None:
                return f"a model's ranks are a list of numbers (model {model}: {members!r:.60})"
            if not isinstance(model, Integral) or isinstance(model, bool):
                return f"the keys of a round are numbers of models (got {model!r:.60})"
            groups[int(model)] = ranks
        rounds.append(groups)
    return rounds


def _whole_numbers(members: Any) -> list[int] | None:
    if hasattr(members, "tolist"):
        members = members.tolist()
    if not isinstance(members, list | tuple | set | frozenset | range):
        return None
    plain = all(isinstance(r, Integral) and not isinstance(r, bool) for r in members)
    return [int(r) for r in members] if plain else None


def units(rounds: Rounds) -> Fraction:
    """The time a plan takes; each round as long as its smallest group needs."""
    return sum((Fraction(1, min(map(len, one.values()))) for one in rounds), Fraction(0))


def fewest(models: int, ranks: int) -> int:
    """The fewest rounds in which nobody is idle and nobody waits."""
    at_once = [k for k in range(1, ranks + 1) if ranks % k == 0]
    best = [0]
    for m in range(1, models + 1):
        best.append(1 + min(best[m - k] for k in at_once if k <= m))
    return best[models]


def most_at_once(models: int, ranks: int) -> int:
    """The rounds of one who always takes as many models as divide the ranks."""
    rounds = 0
    while models:
        models -= max(k for k in range(1, models + 1) if ranks % k == 0)
        rounds += 1
    return rounds


def what_is_wrong(rounds: Rounds, models: int, ranks: int) -> tuple[str, str]:
    """What a plan does not hold, and a hint; two empty strings if it is a best one.

    Args:
        rounds: The plan.
        models: How many models are to be trained.
        ranks: How many ranks there are.
    """
    for number, one in enumerate(rounds, start=1):
        if hint := _odd_round(one, models, ranks):
            return "every rank is in one group of a round at most", f"round {number}: {hint}"
    planned = Counter(model for one in rounds for model in one)
    if missing := [model for model in range(models) if not planned[model]]:
        says = f"every model from 0 to {models - 1} is in one round"
        return says, f"model {missing[0]} is in none"
    if twice := [model for model, times in planned.items() if times > 1]:
        says = f"every model from 0 to {models - 1} is in one round"
        return says, f"model {twice[0]} is in {planned[twice[0]]}"
    goal, took = Fraction(models, ranks), units(rounds)
    if took > goal:
        says = f"done after {float(goal):.4g} units of time (yours takes {float(took):.4g})"
        wasted = (_waste(one, ranks) for one in rounds)
        return says, next(f"round {k}: {why}" for k, why in enumerate(wasted, start=1) if why)
    if len(rounds) > fewest(models, ranks):
        says = f"{fewest(models, ranks)} rounds (yours has {len(rounds)})"
        return says, _why_so_many(rounds, models, ranks)
    return "", ""


def _odd_round(one: Mapping[int, Sequence[int]], models: int, ranks: int) -> str:
    if not one:
        return "it has no model; leave it out"
    for model, members in one.items():
        if model not in range(models):
            return f"there is no model {model}: they are numbered from 0"
        if not members:
            return f"model {model} has no rank"
        if outside := [r for r in members if r not in range(ranks)]:
            return f"there is no rank {outside[0]}: they are numbered from 0"
    busy = Counter(rank for members in one.values() for rank in members)
    twice = [rank for rank, times in busy.items() if times > 1]
    return f"rank {twice[0]} is named {busy[twice[0]]} times" if twice else ""


def _waste(one: Mapping[int, Sequence[int]], ranks: int) -> str:
    """Who idles or waits in a round, or ``""``."""
    idle = sorted(set(range(ranks)).difference(*one.values()))
    if idle:
        return f"rank {idle[0]} is idle, while it might share a model"
    sizes = sorted(map(len, one.values()))
    if sizes[0] < sizes[-1]:
        waits = f"a group of {sizes[-1]} waits for one of {sizes[0]}"
        return f"{waits}; with equal groups nobody waits. How many models may a round have, then?"
    return ""


def _why_so_many(rounds: Rounds, models: int, ranks: int) -> str:
    if len(rounds) == models:
        return (
            "all ranks share one model after the other: nobody idles, but more of them at once do "
            "not idle either, and send fewer gradients"
        )
    if len(rounds) == most_at_once(models, ranks):
        return (
            "to take as many models as possible first leaves a rest here that needs many rounds: "
            "try smaller first rounds, too"
        )
    return "which numbers of models can go at once, and how many of such numbers add up to all?"
