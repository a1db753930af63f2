"""Questions for the exercises of lesson 20: throws of coins, and one exact number for all ranks."""

import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from course_lib.checks._alike import names_of, same_calls_everywhere
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._one_sum import Answered, answered, one_all_reduce
from course_lib.checks._patterns import WHO_IS_DONE
from course_lib.checks._throws import NEAR_HALF, PICTURES, RUNS, alike, epoch_of, thrown, why_other
from course_lib.group import process_group
from course_lib.tracing import trace


@exercise("20.1 · The same flips for any number of ranks")
def flipped(ask: Ask, answer) -> None:
    """``answer(rows, pictures, epoch, seed) -> bool tensor``: one throw a picture and epoch."""
    problem, throws, differs = ask.run(_alone, answer, nprocs=1)[0]
    ask.that(not problem, "a bool for each row; torch's global dice are left alone", problem)
    says = "the same picture, epoch and seed: the same throw, whatever else is in the batch"
    ask.that(not differs, says, differs)
    shares = [throw.float().mean().item() for throw in throws]
    odd = max(range(len(RUNS)), key=lambda k: abs(shares[k] - 0.5))
    says = f"about half of {PICTURES:,} pictures are flipped"
    hint = f"in {epoch_of(odd)} {shares[odd]:.0%} are: of torch.rand's numbers half are < 0.5"
    ask.that(abs(shares[odd] - 0.5) < NEAR_HALF, says, hint)
    hint = alike(throws)
    ask.that(not hint, "other ones in each epoch and for each seed, without a pattern", hint)
    for n in (2, 3, 4):
        ranks = ask.run(_dealt, answer, nprocs=n, hint="a rank can decide without the others")
        says = f"{n} ranks: together they flip what one process flips"
        for rank, (problem, called, dealt) in enumerate(ranks):
            if problem:
                ask.that(False, says, f"rank {rank}: {problem}")
            if called:
                hint = f"rank {rank} called {called[0]}: a rank can decide without the others"
                ask.that(False, says, hint)
            for k, rows, got in dealt:
                if not torch.equal(got, throws[k][rows]):
                    hint = f"rank {rank} has other throws in {epoch_of(k)}: the dice may depend on "
                    hint += "seed and epoch, not on the rank or on how many there are"
                    ask.that(False, says, hint)
        print(f"✓ {says}")


def _alone(answer):
    """What is wrong with the form of a result, the throws of all runs, and what changes them."""
    with process_group():
        every, throws = torch.arange(PICTURES), []
        for k in range(len(RUNS)):
            got, problem = thrown(answer, every, k)
            if problem:
                return problem, throws, ""
            throws.append(got)
        order = torch.randperm(PICTURES, generator=torch.Generator().manual_seed(20))
        batches = {
            "called again": every,
            "in another order": order,
            "in a batch of 64": order[:64],
            "with one row three times": torch.tensor([5, 5, 1_999, 7, 5]),
            "alone in its batch": torch.tensor([1_999]),
            "without rows": order[:0],
        }
        for k in (3, 8):
            for name, rows in batches.items():
                got, problem = thrown(answer, rows, k)
                if problem:
                    return f"{name}: {problem}", throws, ""
                if not torch.equal(got, throws[k][rows]):
                    return "", throws, why_other(name, got, throws[k], rows)
        _, problem = thrown(answer, torch.tensor([0, 0]), 0, pictures=1)
        return f"with one picture in all: {problem}" if problem else "", throws, ""


def _dealt(answer):
    """What this rank's dealing was answered, run by run and batch by batch."""
    names, dealt, problem = names_of(answer), [], ""
    with process_group() as pg:
        with same_calls_everywhere(names, "flipped"), trace(names) as record:
            for k in (1, 6):
                seed, epoch = RUNS[k]
                sampler = DistributedSampler(range(PICTURES), pg.world_size, pg.rank, seed=seed)
                sampler.set_epoch(epoch)
                for rows in torch.tensor(list(sampler)).tensor_split(5):
                    got, found = thrown(answer, rows, k)
                    problem = problem or found
                    dealt.append((k, rows, got))
        dist.barrier()
        return problem, [o.name for o in record.operations], dealt


# Ranks, and how many pictures there are, and which of them are right.
_TESTS: list[tuple[int, list[tuple[int, Callable[[int], bool]]]]] = [
    (1, [(7, lambda i: i % 3 != 1)]),
    (2, [(10, lambda i: i in (0, 3, 5, 8, 9)), (7, lambda i: i in (0, 3, 5, 6))]),
    (3, [(10, lambda i: i in (0, 1, 4, 7, 9)), (2, lambda i: i == 0), (5, lambda i: True)]),
    (4, [(1, lambda i: True), (6, lambda i: False), (5_001, lambda i: i % 7 > 1 or i < 9)]),
]


@exercise("20.2 · A test set that does not divide")
def exact_accuracy(ask: Ask, answer) -> None:
    """``answer(right, pictures) -> float``: every picture once, by one all_reduce."""
    hint = "all ranks make the same calls, also one without pictures of its own" + WHO_IS_DONE
    for n, tests in _TESTS:
        cases = [[right(i) for i in range(pictures)] for pictures, right in tests]
        answers = ask.run(_evaluated, answer, cases, nprocs=n, hint=hint)
        for right, ranks in zip(cases, zip(*answers, strict=True), strict=True):
            pictures, exact = len(right), sum(right) / len(right)
            case = f"{_count(pictures, 'picture')} on {_count(n, 'rank')}"
            got = [one.got for one in ranks]
            if not _close(got, [exact] * n, 1e-12):
                hint = f"{_what_went_wrong(got, right, n)} (got {got!s:.90})"
                says = f"{case}, {sum(right):,} of them right: everyone has {exact:.6g}"
                ask.that(False, says, hint)
            one_all_reduce(ask, [*ranks], 2, case, "how many of its answers were right")
            print(f"✓ {case}, {sum(right):,} of them right: everyone has {exact:.6g}")
    print("✓ with one all_reduce of a few numbers")


def _evaluated(answer, cases: list[list[bool]]) -> list[Answered]:
    with process_group() as pg:
        results = []
        for right in cases:
            mine = torch.tensor(_dealt_to(pg.rank, right, pg.world_size))
            case = f"{_count(len(right), 'picture')} on {_count(pg.world_size, 'rank')}"
            results.append(answered(answer, mine, len(right), case=case))
            dist.barrier()
        return results


def _dealt_to(rank: int, right: list[bool], ranks: int) -> list[bool]:
    return [right[i] for i in DistributedSampler(right, ranks, rank, shuffle=False)]


def _what_went_wrong(got: list, right: list[bool], n: int) -> str:
    if any(isinstance(g, torch.Tensor) for g in got):
        return "return a plain float: tensor.item()"
    if not all(isinstance(g, float) for g in got[:1]):
        return "return a float"
    exact, pictures = sum(right) / len(right), len(right)
    dealt = [_dealt_to(rank, right, n) for rank in range(n)]
    once = [right[rank::n] for rank in range(n)]
    each, twice = len(dealt[0]), sum(map(sum, dealt))
    if _close(got, [exact] * n, 1e-6):
        return "nearly: divide whole numbers, or in float64"
    if n > 1 and _close(got[:1], [exact], 1e-12):
        return "only rank 0 has it; all_reduce tells every rank, and every rank returns it"
    in_a_row = sum(d for r, part in enumerate(dealt) for d in part[: max(pictures - r * each, 0)])
    without_last = sum(sum(part[:-1]) for part in dealt)
    mean_of_means = sum(sum(part) / max(len(part), 1) for part in once) / n
    guesses = {
        "that counts pictures dealt again: the k-th of rank r is r + k * N": twice / (n * each),
        "divided by the pictures there are, but some are counted twice": twice / pictures,
        "every picture once, but divided by all that were dealt": sum(right) / (n * each),
        "that is a number of right answers: divide it": float(sum(right)),
        "rank r has not the pictures from r * n on, but r, r + N, r + 2N …": in_a_row / pictures,
        "each rank has left out its last picture, also where it is its own": without_last
        / pictures,
        "a mean of the ranks' means weighs all ranks alike: add up, then divide": mean_of_means,
    }
    for hint, guess in guesses.items():
        if _close(got, [guess] * n, 1e-6):
            return hint
    if n > 1 and any(_close(got, [sum(p) / (len(p) or 1) for p in x], 1e-6) for x in (dealt, once)):
        return "every rank reports its own part: all_reduce the count before you divide"
    if any(isinstance(g, float) and math.isnan(g) for g in got):
        return "a rank without pictures of its own adds 0, and the mean of nothing is NaN"
    return "count the right ones among r, r + N, r + 2N, … below pictures, add up, divide"


def _close(got: list, expected: list[float], relative: float) -> bool:
    return all(
        isinstance(g, float) and math.isclose(g, e, rel_tol=relative, abs_tol=1e-15)
        for g, e in zip(got, expected, strict=True)
    )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
