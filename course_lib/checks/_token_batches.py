"""Texts that are dealt by length, and what is wrong with a plan that deals them."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

Plan = list[list[list[int]]]  # step → rank → numbers of texts
FULL, ALIKE = 0.85, 0.10  # goals: share of the room that holds tokens; excess of the slowest rank


class Texts(NamedTuple):
    """A question of 32.2: lengths of texts, and how many places a rank's batch may have.

    Attributes:
        says: How a message names it.
        lengths: In tokens.
        room: Places.
        many: Whether there are enough texts for the goals to be fair.
    """

    says: str
    lengths: list[int]
    room: int
    many: bool = False


def _like_reviews(n: int) -> list[int]:
    """Many short ones and few long ones, 8 to 160 tokens, in disorder."""
    dice = torch.Generator().manual_seed(32)
    return (30 * torch.randn(n, generator=dice).mul(0.7).exp()).int().clamp(8, 160).tolist()


TEXTS = (
    Texts("3,000 texts", _like_reviews(3000), 1280, many=True),
    Texts("all of one length", [16] * 101, 160),
    Texts("one long text", [3] * 40 + [64] + [3] * 9, 64),
    Texts("room for one long text", [50, 49, 48, 47, 46, 45, 44], 50),
    Texts("one text", [5], 20),
    Texts("no texts", [], 20),
)
TOO_LONG = Texts("a text of 21 tokens in room for 20", [5, 21, 3], 20)


def odd_form(plan: Any, ranks: int) -> str:
    """What is wrong with a plan as an object; ``""`` if nothing is."""
    if not isinstance(plan, list):
        return f"return a list of steps (got {plan!r:.60})"
    for k, step in enumerate(plan):
        if not isinstance(step, list) or not all(isinstance(batch, list) for batch in step):
            return (
                f"a step is a list of batches, and a batch a list of texts (step {k}: {step!s:.50})"
            )
        if len(step) != ranks:
            return f"a step has one batch for each of the {ranks} ranks (step {k} has {len(step)})"
        if odd := [x for batch in step for x in batch if type(x) is not int]:
            return f"a batch holds numbers of texts (step {k} has {odd[0]!r:.50})"
    return ""


def broken_promise(plan: Plan, texts: Texts) -> tuple[str, str]:
    """The property that does not hold, and a hint; two empty strings if all do."""
    times = Counter(text for step in plan for batch in step for text in batch)
    each = "every text is in one batch of one rank"
    if strange := [text for text in times if not 0 <= text < len(texts.lengths)]:
        return (
            each,
            f"there is no text {strange[0]}: lengths has those from 0 on",
        )
    if lost := [text for text in range(len(texts.lengths)) if text not in times]:
        hint = f"{len(lost)} texts are in none, text {lost[0]} of {texts.lengths[lost[0]]} tokens "
        return each, hint + "for one: what is left over at the end is dealt as well"
    if twice := [text for text, n in times.items() if n > 1]:
        return each, f"{len(twice)} texts are there twice, text {twice[0]} for one: do not fill up"
    for k, step in enumerate(plan):
        for rank, batch in enumerate(step):
            if places(batch, texts) > texts.room:
                return _too_large(k, rank, batch, texts)
    empty = [k for k, step in enumerate(plan) if not all(step)]
    waits = "in one step at most is a rank without texts"
    if any(not any(step) for step in plan):
        return waits, f"step {next(k for k in empty if not any(plan[k]))} has no texts on any rank"
    if len(empty) > 1:
        hint = f"there are {len(empty)}: put together what all ranks read in a step, then deal it "
        return waits, hint + "out, so that only what is left over at the very end is uneven"
    return "", ""


def _too_large(step: int, rank: int, batch: list[int], texts: Texts) -> tuple[str, str]:
    longest = max(texts.lengths[text] for text in batch)
    hint = f"step {step}, rank {rank}: {len(batch)} texts × {longest} = {places(batch, texts)} "
    hint += f"places, and there is room for {texts.room}"
    if sum(texts.lengths[text] for text in batch) <= texts.room:
        hint += "; padding takes places, too: texts × longest, not the sum of the lengths"
    return "no batch has more places than there is room for", hint


def missed_goal(plan: Plan, texts: Texts) -> tuple[str, str]:
    """The goal that many texts fall short of, and a hint; two empty strings if none."""
    ranks = len(plan[0])
    excess, full = slowest(plan, texts), fullness(plan, texts)
    says = f"the ranks read texts of like length in a step: the slowest {ALIKE:.0%} above the mean"
    if excess > ALIKE:
        hint = f"it is {excess:.0%} above: one bucket a step, from which all ranks take their texts"
        return f"{says} at most", hint
    says = f"at least {FULL:.0%} of the room holds tokens"
    if full >= FULL:
        return "", ""
    batches = [batch for step in plan for batch in step]
    taken = sum(places(batch, texts) for batch in batches)
    hint = f"it is {full:.0%}, in {len(plan)} steps: "
    if sum(texts.lengths) / taken < FULL:
        return says, f"{hint}{1 - sum(texts.lengths) / taken:.0%} of what is read is padding: sort"
    hint += f"batches take {taken / len(plan) / ranks:.0f} of {texts.room} places on average; "
    return says, f"{hint}room // longest texts fit on *each* rank"


def places(batch: Sequence[int], texts: Texts) -> int:
    """Texts times the longest of them."""
    return len(batch) * max((texts.lengths[text] for text in batch), default=0)


def slowest(plan: Plan, texts: Texts) -> float:
    """By how much the ranks' largest batches exceed the mean, in what attention computes.

    That is texts × longest²: batches of equally many places, some of short and some of long texts,
    take unequally long.
    """
    work = [
        [places(batch, texts) * max((texts.lengths[t] for t in batch), default=0) for batch in step]
        for step in plan
    ]
    return sum(map(max, work)) * len(plan[0]) / sum(map(sum, work)) - 1


def fullness(plan: Plan, texts: Texts) -> float:
    """Tokens divided by the places that all batches might have."""
    return sum(texts.lengths) / (len(plan) * len(plan[0]) * texts.room)


def why_no_shuffle(epochs: Sequence[Plan], again: Plan, texts: Texts) -> tuple[str, str]:
    """What is wrong with the plans of several epochs, the first of them made again."""
    if again != epochs[0]:
        hint = "seed a generator of your own with the epoch, and draw from nothing else"
        return "the same epoch has the same plan, whenever it is made", hint
    longest = [max(texts.lengths[t] for batch in step for t in batch) for step in epochs[0]]
    rises = [b > a for a, b in itertools.pairwise(longest) if a != b]
    says = "the steps come in random order"
    if len(set(rises)) < 2:
        return says, "they come by length: a model sees all long texts at one end of the epoch"
    if any(epochs[0] == other for other in epochs[1:]):
        return "each epoch has another order", "epoch seeds the dice"
    shapes = [[_shape(step, texts) for step in plan] for plan in epochs]
    if all(shapes[0] == other for other in shapes[1:]):
        hint = "shuffling the texts is not enough, where sorting undoes it: shuffle the steps"
        return "each epoch has another order", hint
    return "", ""


def _shape(step: list[list[int]], texts: Texts) -> list[int]:
    return sorted(texts.lengths[text] for batch in step for text in batch)
