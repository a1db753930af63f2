"""Normal scores on several ranks, false alarms that are allowed, and thresholds by usual mistakes.

Two budgets are whole numbers that come out a little smaller for whoever divides before multiplying.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

NOTHING_BELOW = -1.0  # the threshold if all scores may raise an alarm


class Scores(NamedTuple):
    """A question of 52.1.

    Attributes:
        says: How a message names it.
        counts: How many scores each rank has.
        per_hour: False alarms allowed an hour.
        minutes: In which the scores came.
        kind: ``"usual"``, ``"few"`` (three values, 0 among them), ``"equal"`` or ``"loud"`` (all
            scores of the last rank lie above those of the others).
    """

    says: str
    counts: tuple[int, ...]
    per_hour: int
    minutes: int
    kind: str = "usual"

    @property
    def allowed(self) -> int:
        """How many alarms there may be over all ranks."""
        return self.per_hour * self.minutes // 60

    def of(self, rank: int) -> torch.Tensor:
        """What one rank has: float32, in disorder."""
        return self.all().split(self.counts)[rank].clone()

    def all(self) -> torch.Tensor:
        """The scores of all ranks, in rank order."""
        n, dice = sum(self.counts), torch.Generator().manual_seed(sum(self.counts) + 4)
        noise = torch.rand(n, generator=dice)
        if self.kind == "few":
            return torch.tensor([0.0, 0.5, 2.0])[(3 * noise).long()]
        if self.kind == "equal":
            return torch.full((n,), 0.3)
        if self.kind == "loud":
            noise[n - self.counts[-1] :] += 1
        return noise.square()

    def exact(self) -> float:
        """The threshold."""
        return _after(self.all(), self.allowed)


CASES = (
    Scores("9 scores", (9,), 60, 2),
    Scores("45 an hour in 2 minutes", (8,), 45, 2),
    Scores("138 an hour in 50 minutes", (120,), 138, 50),  # 138 / 60 * 50 < 115
    Scores("75 an hour in 44 minutes", (60,), 75, 44),  # 75 * (44 / 60) < 55
    Scores("30 + 17 scores", (30, 17), 60, 4),
    Scores("20 an hour in 2 minutes", (6, 5), 20, 2),
    Scores("100 an hour in 3 minutes", (40, 25), 100, 3),
    Scores("only three values", (9, 7), 180, 2, "few"),
    Scores("no scores at all", (0, 0), 60, 3),
    Scores("one rank without scores", (7, 0, 5), 60, 4),
    Scores("a budget larger than what any rank has", (5, 3, 4), 120, 4),
    Scores("more allowed than scores", (4, 0, 3), 600, 1),
    Scores("as many allowed as scores", (2, 1, 1), 240, 1),
    Scores("one score more than allowed", (3, 2, 1), 100, 3),
    Scores("the last rank is the loudest", (12, 9, 4, 10), 60, 5, "loud"),
    Scores("all scores equal", (3, 3, 0, 3), 60, 2, "equal"),
    Scores("12,300 scores", (9_000, 0, 3_000, 300), 3_000, 3),
)  # fmt: skip


def which_mistake(case: Scores, got: Sequence[Any]) -> str:
    """Why the ranks' results are wrong; ``""`` if they are not."""
    right, n = case.exact(), sum(case.counts)
    if any(isinstance(one, torch.Tensor) for one in got):
        return "return a plain float: tensor.item()"
    floats = [isinstance(one, float) for one in got]
    if not all(floats):
        first = floats[0] and got[0] == right
        return "only rank 0 has it: every rank returns it" * first or "return a float: float(…)"
    if all(one == right for one in got):
        return ""
    if n <= case.allowed:
        return (
            f"all {n} scores may raise an alarm ({case.allowed} are allowed), and so they do: "
            + (f"{NOTHING_BELOW} lies below every score, 0 does not")
        )
    for hint, guess in _mistakes(case):
        guesses = guess if isinstance(guess, list) else [guess] * len(got)
        harmless = all(one == right for one in guesses)
        if not harmless and [*got] == guesses:
            return hint
    if got[0] == right:
        return "right on rank 0 only: all ranks decide by what came from all of them"
    if len({*got}) > 1:
        return "ranks differ: each must decide by what came from all ranks, never by its own scores"
    return _by_alarms(case, got[0])


def _by_alarms(case: Scores, got: float) -> str:
    """What is wrong with a threshold, by the alarms it makes."""
    alarms = int((case.all() > got).sum())
    made = f"it makes {alarms} alarms over all ranks, and {case.allowed} are allowed"
    if alarms > case.allowed:
        return made
    if not (case.all() == got).any():
        return f"{made}; but it is none of the scores, and the lowest score that does is asked for"
    return f"{made}: a lower score keeps the promise, too"


def _mistakes(case: Scores) -> Iterator[tuple[str, Any]]:
    """Hints, each with what comes out by the mistake, on all ranks or on each."""
    scores, allowed, ranks = case.all(), case.allowed, len(case.counts)
    hint = "equal scores are as many alarms: none of them is left out"
    for distinct in (scores.unique(), torch.cat([case.of(r).unique() for r in range(ranks)])):
        yield hint, _after(distinct, allowed)
        if len(distinct) <= allowed:  # too few are left: somebody takes the last one
            yield hint, distinct.min().item()
    yield from _of_parts(case)
    k, m = case.per_hour, case.minutes
    for text, product in ((f"{k} / 60 * {m}", k / 60 * m), (f"{k} * ({m} / 60)", k * (m / 60))):
        if (less := int(product)) < allowed:
            hint = f"{text} is {product} in floats, {less} rounded down; {allowed} are allowed: "
            hint += "multiply before you divide, and whole numbers stay whole"
            yield hint, _after(scores, less)
    exact = case.per_hour * case.minutes / 60
    by_hour = f"{case.per_hour} an hour are {exact:.3g} in {case.minutes} minutes, "
    if allowed != exact:
        by_hour += f"and {allowed} is allowed: rounded down, or the promise is broken"
        yield by_hour, _after(scores, allowed + 1)
    else:
        by_hour += "over all ranks"
    if ranks > 1:
        hint = f"{by_hour}: the ranks watch the same minutes at the same time, so {ranks} of them "
        yield hint + "do not make more of them", _after(scores, int(exact * ranks))
    for wrong in (
        case.per_hour * case.minutes,
        case.per_hour,
        case.per_hour // 60 * case.minutes,
        case.per_hour // case.minutes,
        case.per_hour * 60 // case.minutes,
        case.per_hour * case.minutes // 3600,
    ):
        if abs(wrong - allowed) > 1 or wrong == 0:
            yield by_hour, _after(scores, wrong)
    threshold = _after(scores, allowed)
    above = int((scores > threshold).sum())
    if louder := scores[scores > threshold].tolist():
        lies = int((scores > min(louder)).sum())
        quiet = f"only {lies} lie above it, and {allowed} are allowed: a score *at* the threshold "
        quiet += f"raises no alarm (>, not >=), so it may be that with number {allowed + 1}"
        yield quiet, min(louder)
        if allowed > above:  # of equal ones at the edge, only some would be allowed
            yield quiet, _after(scores, above - 1)
    yield (
        "a score *at* the threshold raises no alarm, so the threshold may be that score itself",
        torch.nextafter(torch.tensor(threshold), torch.tensor(math.inf)).item(),
    )
    yield (
        "those are the quietest: an alarm is a score above the threshold",
        -_after(-scores, allowed),
    )


def _of_parts(case: Scores) -> Iterator[tuple[str, Any]]:
    """What comes out if each rank looks for a threshold of its own."""
    ranks = len(case.counts)
    if ranks == 1:
        return
    own, share = [case.of(rank) for rank in range(ranks)], case.allowed / ranks
    whole = "a threshold from this rank's scores alone: every rank would make all the alarms that "
    whole += "are allowed for all of them together"
    shares = "no rank has a share of the budget of its own: a loud one may use all of it"
    budgets = (case.allowed, whole), (math.floor(share), shares), (math.ceil(share), shares)
    for budget, hint in budgets:
        mine = [_after(part, budget) for part in own]
        if len({*mine}) > 1:
            yield hint, mine
        some = [one for one in mine if one != NOTHING_BELOW]
        for guess in {*some, sum(mine) / ranks, sum(some) / max(len(some), 1)}:
            yield "thresholds of ranks cannot be combined, their loudest scores can: " + hint, guess


def _after(scores: torch.Tensor, allowed: int) -> float:
    """The lowest score above which ``allowed`` lie at most, or −1."""
    if allowed >= len(scores):
        return NOTHING_BELOW
    return scores.sort(descending=True).values[allowed].item()
