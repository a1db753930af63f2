"""Bags of blocks that depend on a seed and a member, and what goes wrong when ranks draw them."""

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch


class Draw(NamedTuple):
    """A question of 42.3: ``answer(seed, members, blocks)``."""

    seed: int
    members: int
    blocks: int


Bags = dict[int, list[int]]

DRAWS = (
    Draw(0, 6, 40),
    Draw(1, 6, 40),
    Draw(5, 3, 9),
    Draw(2, 1, 6),
    Draw(0, 150, 40),
    Draw(1, 150, 40),
    Draw(0, 6, 40),  # once more
)


def stir(k: int) -> None:
    """Put the dice that all programs share into a state that belongs to ``k``."""
    torch.manual_seed(k)
    np.random.seed(k)
    random.seed(k)


def dice() -> list[Any]:
    """The states of those dice, to be compared."""
    name, keys, *rest = np.random.get_state()
    return [torch.get_rng_state().tolist(), (name, keys.tolist(), *rest), random.getstate()]


def bags_of(got: Any, draw: Draw, mine: range) -> Bags | str:
    """A rank's bags as lists, or what is wrong with them.

    Args:
        got: What the answer returned.
        draw: What it was asked.
        mine: The members of this rank.
    """
    if not isinstance(got, Mapping):
        return f"return a dict: member → its bag (got {got!r:.60})"
    if sorted(got) != [*mine]:
        return f"its members are {[*mine][:6]}, and the bags of {sorted(got)[:6]} came back"
    bags, size = {}, draw.blocks // 2
    for member, bag in got.items():
        if not isinstance(bag, torch.Tensor) or bag.dtype != torch.int64 or bag.dim() != 1:
            return f"a bag is a tensor of int64 in one row (member {member}: {bag!r:.60})"
        blocks = bag.tolist()
        if len(blocks) != size:
            return f"a bag has {size} of {draw.blocks} blocks (member {member} has {len(blocks)})"
        if len(set(blocks)) < size:
            return f"no block is in a bag twice (member {member}: {blocks!s:.60})"
        if not set(blocks) <= set(range(draw.blocks)):
            return f"blocks are numbered from 0 to {draw.blocks - 1} (member {member}: {blocks})"
        if blocks != sorted(blocks):
            return f"the blocks of a bag are in rising order (member {member}: {blocks!s:.60})"
        bags[int(member)] = blocks
    return bags


def why_others(alone: Sequence[Bags], now: Sequence[Bags], ranks: int) -> tuple[str, str]:
    """What has changed with the number of ranks, and a hint; two empty strings if nothing.

    Args:
        alone: The bags of each draw, drawn on one rank.
        now: The same, drawn on several.
        ranks: On how many.
    """
    for before, after, draw in zip(alone, now, DRAWS, strict=True):
        off = [member for member in range(draw.members) if before[member] != after[member]]
        if not off:
            continue
        hint = "make dice for each member, from seed and member, and from nothing else"
        if off[0] and after[off[0]] == before[off[0] // ranks]:
            hint = f"member {off[0]} has the bag that member {off[0] // ranks} had: dice that a "
            hint += "rank throws for one member after the other go on; make new ones for each"
        return f"member {off[0]} has the bag it has on 1 rank", hint
    return "", ""


def what_is_alike(bags: Sequence[Bags]) -> tuple[str, str]:
    """Which bags should differ and do not, or the other way round; two empty strings if none.

    Args:
        bags: Those of each draw, all members.
    """
    if bags[-1] != bags[0]:
        return "the same seed gives the same bags again", "does something go on between the calls?"
    seen: dict[tuple[int, ...], tuple[int, int]] = {}
    for draw, those in zip(DRAWS, bags, strict=True):
        for member, bag in those.items() if draw.blocks == 40 else ():
            other = seen.setdefault(tuple(bag), (draw.seed, member))
            if other != (draw.seed, member):
                says = "other members and other seeds have other bags"
                hint = f"member {member} of seed {draw.seed} has the bag of member {other[1]} of "
                return says, f"{hint}seed {other[0]}: one number that is made of two must tell them"
    return "", ""


def why_unfair(bags: Sequence[Bags]) -> str:
    """What is not random about 300 bags, or ``""``."""
    many = [bag for draw, those in zip(DRAWS, bags, strict=True) if draw.members == 150
            for bag in those.values()]  # fmt: skip
    times = torch.zeros(40)
    for bag in many:
        times[bag] += 1 / len(many)
    if times.min() < 0.3 or times.max() > 0.7:
        return f"block {int(times.argmin())} is in {times.min():.0%} of the bags: half is fair"
    neighbours = sum(b - a == 1 for bag in many for a, b in pairwise(bag)) / len(many)
    if not 8 < neighbours < 11:
        return "which blocks are in a bag together is no chance: draw each (torch.randperm)"
    return ""
