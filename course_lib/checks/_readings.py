"""Reviews dealt to ranks, what attention makes of each alone, and what goes wrong with padding.

The vectors of a token depend on the token and its place only. So whatever table a review is in, its
vectors are those it has alone, if nobody listens to padding.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

_LENGTHS = (6, 1, 0, 9, 3, 12, 2, 7, 4, 3)
REVIEWS = [[1 + (7 * k + 5 * i) % 30 for i in range(n)] for k, n in enumerate(_LENGTHS)]
_HEADS, _SIZE, _GARBAGE = 2, 8, 1e4
NEAR = 1e-6

TABLE = "ids are int64 and real is bool, one row a review, as wide as the longest one"
FORM = "attention returns float32 in the shape of value, and changes nothing it is given"
ALONE = "each review gets the vectors it has alone"
EMPTY = "a text that is all padding gets zeros, and nothing is NaN"
PADDED = "what stands in padded places changes nothing"
GRADIENTS = "gradients are those of each review alone, and exactly 0 where there is padding"


class Deal(NamedTuple):
    """Which rank has which reviews, and how that came about."""

    says: str
    ranks: tuple[tuple[int, ...], ...]


DEALS = (
    Deal("dealt in turn", ((0, 2, 4, 6, 8), (1, 3, 5, 7, 9))),
    Deal("dealt in a row", ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))),
    Deal("the empty one apart", ((2,), (9, 8, 7, 6, 5, 4, 3, 1, 0))),
    Deal("dealt in turn", ((0, 3, 6, 9), (1, 4, 7), (2, 5, 8))),
    Deal("by length, one rank without reviews", ((), (2, 1, 6, 4, 9), (8, 0, 7, 3, 5))),
)


class Reading(NamedTuple):
    """What one rank made of its share.

    Attributes:
        table: Rows and columns.
        wrong: Which of the properties does not hold, or ``""``.
        hint: Why.
        vectors: Review → what it got, of shape (heads, tokens, size).
    """

    table: tuple[int, int]
    wrong: str
    hint: str
    vectors: dict[int, torch.Tensor]


def words_of(ids: torch.Tensor) -> torch.Tensor:
    """Queries, keys and values of a table: (3, texts, heads, tokens, size), float32."""
    dice = torch.Generator().manual_seed(30)
    words = 0.5 * torch.randn(31, 3, _HEADS, _SIZE, generator=dice)
    places = 0.5 * torch.randn(max(_LENGTHS), 3, _HEADS, _SIZE, generator=dice)
    return (words[ids] + places[: ids.shape[1]]).permute(2, 0, 3, 1, 4).contiguous()


def alone(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention without padding."""
    return (query @ key.mT / _SIZE**0.5).softmax(dim=-1) @ value


def vectors_of(k: int) -> torch.Tensor:
    """What review k gets in a table of its own, in float64."""
    return alone(*words_of(torch.tensor([REVIEWS[k]], dtype=torch.int64)).double())[0]


def near(got: torch.Tensor, expected: torch.Tensor, within: float = NEAR) -> bool:
    """Whether the numbers are; NaN is near nothing."""
    return torch.allclose(got.double(), expected.double(), rtol=0, atol=within)


def read(collate: Callable, attention: Callable, share: tuple[int, ...]) -> Reading:
    """Put the questions about one share to the two functions.

    Args:
        collate: The learner's.
        attention: The learner's.
        share: Numbers of reviews.

    Returns:
        The reading; its vectors are not yet compared.
    """
    mine = [REVIEWS[k] for k in share]
    given = [list(review) for review in mine]
    made = collate(given)
    hint = _why_no_table(made, mine)
    if not hint and given != mine:
        hint = "the reviews have changed: fill up a copy, the caller still needs them"
    shape = len(mine), max(map(len, mine), default=0)
    if hint:
        return Reading(shape, TABLE, hint, {})
    ids, real = made
    if not ids.numel():  # nobody here to listen to anybody
        return Reading(shape, "", "", {})
    words = words_of(ids)
    passed = [*words.clone(), real.clone()]
    got = attention(*passed)
    hint = _why_no_vectors(got, words)
    if not hint and not all(map(torch.equal, passed, [*words, real])):
        hint = "query, key, value and real are not to be changed: work on copies"
    if hint:
        return Reading(shape, FORM, hint, {})
    vectors = {k: one[:, : len(REVIEWS[k])].detach() for k, one in zip(share, got, strict=True)}
    wrong, hint = "", _why_other(got, words, real)
    if not hint:
        wrong, hint = _at_the_edge(attention, got, words, real)
    return Reading(shape, wrong, hint, vectors)


def _why_no_table(made: Any, mine: list[list[int]]) -> str:
    if not isinstance(made, tuple | list) or len(made) != 2:
        return "return two tensors: ids, real"
    shape = len(mine), max(map(len, mine), default=0)
    for name, one, dtype in zip(("ids", "real"), made, (torch.int64, torch.bool), strict=True):
        if not isinstance(one, torch.Tensor):
            return f"{name} has to be a tensor (got {one!r:.50})"
        if one.dtype != dtype:
            return f"{name} has to be of {dtype}, not {one.dtype}"
        if one.shape != shape:
            hint = f"{name} has the shape {(*one.shape,)}, and the longest of {shape[0]} reviews "
            return hint + f"has {shape[1]} tokens: {shape}"
    padded = [review + [0] * (shape[1] - len(review)) for review in mine]
    rows = [torch.tensor(row, dtype=torch.int64) for row in padded]
    ids, real = made
    if real.numel() and torch.equal(real, torch.stack(rows) == 0):
        return "real is True where there is a token, False where there is padding"
    for k, (row, review) in enumerate(zip(rows, mine, strict=True)):
        if not torch.equal(ids[k], row):
            return f"row {k} of ids: the review, then 0s (got {ids[k].tolist()}, of {review})"
        if torch.equal(real[k], row != 0):
            continue
        return f"row {k} of real: True for {len(review)} tokens (got {real[k].tolist()})"
    return ""


def _why_no_vectors(got: Any, words: torch.Tensor) -> str:
    if not isinstance(got, torch.Tensor):
        return f"attention returns a tensor (got {got!r:.50})"
    if got.shape != words.shape[1:]:
        return f"value has the shape {(*words.shape[1:],)}, and what came back {(*got.shape,)}"
    return "" if got.dtype == torch.float32 else f"return float32, as value is, not {got.dtype}"


def _why_other(got: torch.Tensor, words: torch.Tensor, real: torch.Tensor) -> str:
    """A hint if real tokens got other vectors than alone, or ``""``."""
    padded = ~real[:, None, :, None]
    if near(got.masked_fill(padded, 0), _each_alone(*words.double(), real)):
        return ""
    for hint, guess in _mistakes(*words, real):
        if near(got.masked_fill(padded, 0), guess.masked_fill(padded, 0), 1e-4):
            return hint
    return "mask the scores of padded keys with minus infinity, softmax over the keys, then @ value"


def _mistakes(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, real: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Hints, each with what comes out by the mistake it is about."""
    keys, nothing = real[:, None, None, :], float("-inf")
    raw = query @ key.mT
    scores = raw / _SIZE**0.5
    hidden = scores.masked_fill(~keys, nothing)
    heard = "padding is listened to: hide its keys, real[:, None, None, :], before the softmax"
    yield heard, scores.softmax(-1) @ value
    after = "mask before the softmax: afterwards the shares of the real tokens add up to less than "
    yield after + "one", (scores.softmax(-1) * keys) @ value
    a_score = "a score of 0 is a score like others, exp(0) = 1: padding needs minus infinity"
    yield a_score, (scores * keys).softmax(-1) @ value
    yield "divide by sqrt(size)", raw.masked_fill(~keys, nothing).softmax(-1) @ value
    by_size = (hidden / _SIZE**0.5).softmax(-1)
    yield "divide by sqrt(size), not by size", by_size @ value
    inverted = scores.masked_fill(keys, nothing).softmax(-1).nan_to_num() @ value
    yield "that listens to padding only: real is True for tokens, so mask ~real", inverted
    down = "the shares of a query's keys add up to one: softmax(dim=-1)"
    yield down, hidden.softmax(-2).nan_to_num() @ value
    asked = scores.mT.masked_fill(~keys, nothing).softmax(-1)
    yield "each query listens to the keys: query @ key.transpose(-2, -1)", asked @ value


def _at_the_edge(
    attention: Callable, got: torch.Tensor, words: torch.Tensor, real: torch.Tensor
) -> tuple[str, str]:
    """The property that does not hold and why, of what a single tame table does not show."""
    empty, padded = ~real.any(dim=1), ~real[:, None, :, None]
    if got.isnan().any():
        hint = "where every score is minus infinity, softmax is 0 / 0: put 0 in the place of NaN"
        return EMPTY, hint
    if got[empty].any():
        return EMPTY, "softmax shares out 1 among whatever there is: without real tokens, make it 0"
    dice = torch.Generator().manual_seed(31)
    full = torch.where(padded, _GARBAGE * torch.randn(words.shape, generator=dice), words)
    leaves = [one.clone().requires_grad_() for one in full]
    again = attention(*leaves, real.clone())
    if not again.isfinite().all():
        return PADDED, "exp of a large score is infinite, and inf · 0 is NaN: mask before exp"
    if not near(again * ~padded, _each_alone(*full.double(), real)) or again[empty].any():
        return PADDED, "a share of padding has to be exactly 0, not small: masked_fill, not + or ·"
    if not again.requires_grad:
        return GRADIENTS, "gradients have to flow back: no detach(), no_grad() or numpy()"
    return GRADIENTS * bool(hint := _why_gradients(again, leaves, real)), hint


def _why_gradients(got: torch.Tensor, leaves: list[torch.Tensor], real: torch.Tensor) -> str:
    dice, padded = torch.Generator().manual_seed(32), ~real[:, None, :, None]
    pull = torch.randn(got.shape, generator=dice) * ~padded
    found = torch.autograd.grad(got, leaves, pull, allow_unused=True)
    twins = [leaf.detach().double().requires_grad_() for leaf in leaves]
    right = torch.autograd.grad(_each_alone(*twins, real), twins, pull.double())
    for name, grad, expected in zip(("query", "key", "value"), found, right, strict=True):
        if grad is None:
            return f"no gradient reaches {name}: no detach() and no no_grad() on the way"
        if grad.isnan().any():
            hint = "take it out of the shares before they meet the values"
            if name != "value":
                hint = (
                    "masked_fill cuts off the way back to a score, adding minus infinity does not"
                )
            return f"the gradient of {name} has NaN: in backward, NaN · 0 is NaN again; {hint}"
        if (grad * padded).any():
            return f"the gradient of {name} is not 0 in padded places"
        if not near(grad, expected, 1e-5):
            return f"the gradient of {name} is another one: is each step differentiable?"
    return ""


def _each_alone(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """``alone`` for each row of a table; zeros where there is padding."""
    whole = torch.zeros_like(query)
    for t, n in enumerate(real.sum(dim=1).tolist()):
        whole[t, :, :n] = alone(query[t, :, :n], key[t, :, :n], value[t, :, :n])
    return whole
