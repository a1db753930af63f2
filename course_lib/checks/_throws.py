"""Throws of coins for pictures: asked for, and compared between epochs and seeds."""

import itertools
import random
from collections.abc import Callable, Sequence

import numpy
import torch
import torch.distributed as dist

PICTURES = 2_000
RUNS = [(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2, 3, 10, 100)]
# Shares and correlations of 2,000 throws stray by 0.011 and 0.022 (one standard deviation). What
# is compared are 400,000 numbers: coins keep within six of these, and the bounds lie at nine.
NEAR_HALF, _LIKE = 0.1, 0.2
_calls = itertools.count()


def thrown(
    answer: Callable[..., torch.Tensor], rows: torch.Tensor, k: int, pictures: int = PICTURES
) -> tuple[torch.Tensor | None, str]:
    """Ask once, on a rank, with other global dice than in any other call and on any other rank.

    Args:
        answer: The learner's function.
        rows: Numbers of pictures, int64 of shape (n,).
        k: Number of the run: its seed and epoch are ``RUNS[k]``.
        pictures: How many there are in all.

    Returns:
        The throws, bool of shape (n,), or None where they are something else; and what is wrong
        with them, or ``""``.
    """
    chance = 1_000 * dist.get_rank() + next(_calls)
    torch.manual_seed(chance)
    numpy.random.seed(chance)
    random.seed(chance)
    seed, epoch = RUNS[k]
    before, given = torch.get_rng_state(), rows.clone()
    got = answer(given, pictures, epoch, seed)
    if not isinstance(got, torch.Tensor):
        return None, f"return a tensor of bool (got {got!r:.60})"
    if got.dtype != torch.bool:
        return None, f"return a tensor of bool, as torch.rand(…) < 0.5 is (got {got.dtype})"
    if got.shape != rows.shape:
        return None, f"one bool for each of {len(rows)} rows (got the shape {tuple(got.shape)})"
    if got.device != rows.device:
        return None, f"the result is on {got.device}, the rows on {rows.device}"
    if not torch.equal(torch.get_rng_state(), before):
        return None, "torch's global dice were thrown, or seeded: take a torch.Generator()"
    return got, "" if torch.equal(given, rows) else "the rows have changed: sort a copy"


def why_other(name: str, got: torch.Tensor, throw: torch.Tensor, rows: torch.Tensor) -> str:
    """Why the same pictures may have other throws in another batch.

    Args:
        name: What is special about the batch.
        got: Its throws.
        throw: Those of all pictures, asked for in their order.
        rows: The pictures in the batch.
    """
    if name == "called again":
        return "the same call gave another result: seed your dice in every call, from its arguments"
    if torch.equal(got, throw[: len(rows)]):
        return (
            "the k-th row gets the k-th throw, whichever picture it is: look up the rows among all"
        )
    return f"{name}, a picture has another throw: what else is in the batch must not matter"


def alike(throws: Sequence[torch.Tensor]) -> str:
    """Which two runs' throws have to do with each other, or what pattern is in one.

    Args:
        throws: Those of all pictures, a run after the other.

    Returns:
        A hint; ``""`` if all could have been made with coins.
    """
    signs = torch.stack(list(throws)).double() * 2 - 1
    waves = torch.fft.rfft(signs - signs.mean(dim=1, keepdim=True))
    # [a, b, s]: run a against run b, shifted by s pictures; 1 is the same, -1 the contrary
    like = torch.fft.irfft(waves[:, None].conj() * waves[None], n=PICTURES) / PICTURES
    own = like.diagonal().T.clone()
    own[:, 0] = 0
    if own.abs().max() > _LIKE:
        k, shift = divmod(int(own.abs().argmax()), PICTURES)
        shift = min(shift, PICTURES - shift)
        hint = f"there is a pattern in {epoch_of(k)}: a picture's throw foretells that of the one "
        return hint + f"{shift} further on. Throw coins, a rule of your own will not do"
    pairs = [(a, b) for b in range(len(RUNS)) for a in range(b)]
    same = [pair for pair in pairs if like[*pair, 0] > _LIKE]
    if same:
        return _which_are_the_same(same)
    for a, b in pairs:
        shift = int(like[a, b].abs().argmax())
        if like[a, b, shift].abs() > _LIKE:
            how = f"only shifted by {shift} pictures" if shift else "only the other way round"
            return f"{epoch_of(b)} has the throws of {epoch_of(a)}, {how}: throw anew"
    return ""


def _which_are_the_same(same: list[tuple[int, int]]) -> str:
    runs = [(RUNS[a], RUNS[b]) for a, b in same]
    if all(((0, e), (1, e)) in runs for e in (0, 1, 2)):
        return "all seeds flip the same pictures, or nearly so: throw other dice for each seed"
    if all(((s, 0), (s, 1)) in runs for s in (0, 1, 2)):
        return "all epochs flip the same pictures, or nearly so: throw other dice for each epoch"
    (a, b), *_ = same
    hint = f"{epoch_of(a)} flips what {epoch_of(b)} flips, or nearly so: "
    return hint + "make one number of seed and epoch that no other pair has"


def epoch_of(k: int) -> str:
    """How a message names a run."""
    seed, epoch = RUNS[k]
    return f"epoch {epoch} of seed {seed}"
