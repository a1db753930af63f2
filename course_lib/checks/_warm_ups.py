"""Schedules that 31.1 asks for, an optimizer that follows them, and what goes wrong with them.

A rate is told as a share of its group's peak.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

BEYOND = 2  # steps more than planned
PEAK = 0.01
Rates = list[list[float]]  # step, group


class Plan(NamedTuple):
    """A schedule: how many steps, how many of them to warm up, the peak of each group."""

    steps: int
    warm: int
    peaks: tuple[float, ...] = (PEAK,)

    def __str__(self) -> str:
        peaks = ", ".join(f"{peak:g}" for peak in self.peaks)
        steps = f"{self.steps} step{'s'[: self.steps > 1]}"
        return f"{steps}, {self.warm} to warm up, peak{'s'[: len(self.peaks) > 1]} {peaks}"

    def shares(self, of: Callable[[int, int, int], float] | None = None) -> list[float]:
        """Of step 1 and those that follow, up to ``BEYOND`` the last."""
        of = of or share
        return [of(self.steps, self.warm, done) for done in range(self.steps + BEYOND)]


PLANS = (
    Plan(10, 4),
    Plan(12, 0),
    Plan(6, 6),
    Plan(7, 1),
    Plan(9, 8),
    Plan(1, 0),
    Plan(1, 1),
    Plan(20, 5, (0.002, 0.05, 0.3)),
)
BREAKS = (3, 5, 12)  # steps done in the last plan before the run is cut off


def share(steps: int, warm: int, done: int) -> float:
    """Of the peak, for the step after ``done`` steps."""
    if done < warm:
        return (done + 1) / warm
    return max(steps - done, 0) / max(steps - warm, 1)


def follow(schedule: Callable, plan: Plan, cut: int = 0) -> Rates:
    """Take all steps of a plan and ``BEYOND``, and note the rates; called in a rank.

    Args:
        schedule: The learner's ``warm_up``.
        plan: What is asked.
        cut: After so many steps everything is saved, made anew and loaded. 0: never.
    """
    optimizer, rates = _optimizer(plan), []
    moves = schedule(optimizer, plan.steps, plan.warm)
    for done in range(plan.steps + BEYOND):
        if cut and done == cut:
            saved = _through_a_file([optimizer.state_dict(), moves.state_dict()])
            optimizer = _optimizer(plan)
            moves = schedule(optimizer, plan.steps, plan.warm)
            optimizer.load_state_dict(saved[0])
            moves.load_state_dict(saved[1])
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        moves.step()
    return rates


def _optimizer(plan: Plan) -> torch.optim.Optimizer:
    groups = [{"params": [torch.ones(1, requires_grad=True)], "lr": peak} for peak in plan.peaks]
    for group in groups:
        group["params"][0].grad = torch.ones(1)
    return torch.optim.SGD(groups)


def _through_a_file(states: list) -> list:
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def alike(got: Sequence[float], expected: Sequence[float]) -> bool:
    """Whether the rates are, within float32."""
    return len(got) == len(expected) and all(
        math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9) for a, b in zip(got, expected, strict=True)
    )


def which_shares(rates: Rates, plan: Plan) -> str:
    """Why rates are wrong; ``""`` if they are right."""
    shares = [[row[group] / peak for row in rates] for group, peak in enumerate(plan.peaks)]
    wrong = [k for k, one in enumerate(shares) if not alike(one, plan.shares())]
    if not wrong:
        return ""
    group = wrong[0]
    if len(plan.peaks) > 1 and len({round(rate, 9) for rate in rates[1]}) == 1:
        return "all groups have one rate now: each rises to the rate that it was made with"
    if len(wrong) < len(plan.peaks) and max(shares[group]) - min(shares[group]) < 1e-9:
        return f"group {group} does not move: the schedule is for every group"
    planned = shares[group][: plan.steps]
    if alike(planned, plan.shares()[: plan.steps]) and min(shares[group]) >= 0:
        return "after the last step the rate is 0, and stays so, also where all steps warm up"
    for hint, of in _SCHEDULES.items():
        if alike(shares[group], plan.shares(of)):
            return hint
    if max(shares[group]) > 1 + 1e-6:
        return "no rate is higher than the one that the group was made with"
    return "1/warm, 2/warm, … 1 of the peak, then n/n, (n-1)/n, … 1/n in the n steps that remain"


def _unlike(rise: Callable | None = None, fall: Callable | None = None) -> Callable:
    def of(steps: int, warm: int, done: int) -> float:
        part = rise if done < warm else fall
        return part(steps, warm, done) if part else share(steps, warm, done)

    return of


def _cosine(steps: int, warm: int, done: int) -> float:
    gone = min((done - warm) / max(steps - warm, 1), 1)
    return (1 + math.cos(math.pi * gone)) / 2


_LATE = "the first step has the whole rate: the schedule sets it when it is made, not in step()"
_OWN = "steps are those that all ranks take together: the number of ranks has no part in them"
_SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "step 1 has a rate of 0, so it learns nothing: it has 1/warm of the peak": _unlike(
        rise=lambda steps, warm, done: done / warm
    ),
    "the last warm step has the whole peak: 1/warm, 2/warm, …, not 1/(warm + 1)": _unlike(
        rise=lambda steps, warm, done: (done + 1) / (warm + 1)
    ),
    "the rate has to rise in the first steps": _unlike(rise=lambda *_: 1.0),
    "it rises in a straight line": _unlike(rise=lambda steps, warm, done: ((done + 1) / warm) ** 2),
    "after the warm-up it has to fall": _unlike(fall=lambda *_: 1.0),
    "the last step has a rate of 0, so it learns nothing: the step after it would have 0": _unlike(
        fall=lambda steps, warm, done: max(steps - 1 - done, 0) / max(steps - 1 - warm, 1)
    ),
    "the first step after the warm-up has the whole peak, and then it falls": _unlike(
        fall=lambda steps, warm, done: max(steps - 1 - done, 0) / max(steps - warm, 1)
    ),
    "it falls from the peak: n/n, (n-1)/n, … where n steps remain after the warm-up": _unlike(
        fall=lambda steps, warm, done: max(steps - done, 0) / steps
    ),
    "below 0 an optimizer climbs: after the last step it stays at 0": _unlike(
        fall=lambda steps, warm, done: (steps - done) / max(steps - warm, 1)
    ),
    "it falls in a straight line, not as a cosine": _unlike(fall=_cosine),
    _LATE: lambda steps, warm, done: share(steps, warm, done - 1) if done else 1.0,
    _OWN: lambda steps, warm, done: share(2 * steps, 2 * warm, done),
    f"{_OWN} ": lambda steps, warm, done: share(2 * steps, warm, done),
    f"{_OWN}  ": lambda steps, warm, done: share(steps, warm, 2 * done),
}
