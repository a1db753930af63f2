"""Make a report of what was measured: plain data for JSON, tables for people."""

import argparse
from dataclasses import dataclass, field

from . import launches, tracing_cost, trainings, verdicts

# Seconds, bytes, rows a second, seconds of an operation, a share of the machine.
KINDS = ("first", "again", "memory", "ready", "rate", "plain", "traced", "load")


@dataclass
class Measured:
    """All that was measured.

    Attributes:
        starters: The ways to start ranks.
        trainers: The ways to train.
        rounds: For each round: kind → name → number. What failed is not there.
        trained: The last training of each way.
        failures: Name → what went wrong.
    """

    starters: list[str]
    trainers: list[str]
    rounds: list[dict[str, dict[str, float]]] = field(default_factory=list)
    trained: dict[str, trainings.Trained] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def column(self, kind: str, name: str) -> list[float | None]:
        """One number a round, None where there is none."""
        return [found[kind].get(name) for found in self.rounds]

    def spread(self, kind: str, name: str, form: str, scale: float = 1.0) -> str:
        """The column's median and range, as text."""
        there = [value * scale for value in self.column(kind, name) if value is not None]
        return verdicts.Spread.of(there).text(form)


def why_void(trained: dict[str, trainings.Trained], differences: dict[str, float]) -> str:
    """Why the trainings cannot be compared; empty when they can."""
    if any(value > trainings.TOLERANCE for value in differences.values()):
        return "the trainings found other losses"
    if len({count for run in trained.values() for count in run.threads}) > 1:
        return "the trainings used different numbers of threads"
    return ""


def summary(options: argparse.Namespace, measured: Measured) -> dict:
    """Everything found, as plain data."""
    trained = measured.trained
    differences = trainings.differences(trained) if trainings.BARE in trained else {}
    void = why_void(trained, differences)
    compared = (launches.COURSE, launches.SPAWN)
    judged = verdicts.judge(
        {k: {n: measured.column(k, n) for n in compared} for k in ("again", "memory", "ready")},
        {name: measured.column("rate", name) for name in measured.trainers},
        void,
    )
    number = "{:.1e}".format
    return {
        "machine": _machine(options, measured.rounds),
        "options": {k: str(v) for k, v in vars(options).items()},
        "rounds": measured.rounds,
        "loss differences": differences,
        "threads": {name: run.threads for name, run in trained.items()},
        "void": void,
        "verdicts": [verdict.row() for verdict in judged],
        "failures": measured.failures,
        "starts": [
            [
                name,
                measured.spread("first", name, ".2f").split(" ")[0],
                measured.spread("again", name, ".3f"),
                measured.spread("memory", name, ".0f", 1e-6).split(" ")[0],
                measured.spread("ready", name, ".0f", 1e-6).split(" ")[0],
            ]
            for name in measured.starters
        ],
        "rates": [
            [
                name,
                measured.spread("rate", name, ",.0f"),
                number(differences[name]) if name in differences else "–",
            ]
            for name in measured.trainers
        ],
        "trace": [_cost(name, measured) for name in tracing_cost.NAMES],
    }


def _cost(name: str, measured: Measured) -> list[str]:
    plain, traced = (measured.column(kind, name) for kind in ("plain", "traced"))
    added = [1e6 * (t - p) for p, t in zip(plain, traced, strict=True) if p and t]
    return [
        name,
        measured.spread("plain", name, ".0f", 1e6),
        measured.spread("traced", name, ".0f", 1e6),
        verdicts.Spread.of(added).text(".0f"),
        verdicts.ratios(traced, plain).text(".2f"),
    ]


def _machine(options: argparse.Namespace, rounds: list[dict]) -> dict[str, str]:
    from course_lib.machine import machine_facts

    wanted = ("CPU cores", "memory", "GPUs", "Python", "torch")
    facts = {name: fact for name, fact in machine_facts().items() if name in wanted}
    load = [found["load"]["others"] for found in rounds]
    facts["other programs took"] = f"{min(load):.0%} to {max(load):.0%} of it, by rounds"
    facts["ranks"] = f"{options.nprocs} on {options.device}, {options.threads} thread(s) each"
    return facts


def text(found: dict) -> str:
    """The tables, in Markdown."""
    starts = ["an empty function", "first, s", "again, s", "PSS a rank, MB", "with an optimizer"]
    rates = ["lesson 11's training", "rows a second", "largest difference of losses"]
    costs = ["an operation on rank 0, µs", "plain", "with trace()", "added", "ratio"]
    parts = [
        "; ".join(f"{name}: {fact}" for name, fact in found["machine"].items()) + ".",
        f"Medians of {len(found['rounds'])} interleaved rounds (smallest to largest). Every "
        "training uses that number of threads; torchrun by itself would take one a rank.",
        verdicts.table(starts, found["starts"]),
        verdicts.table(rates, found["rates"]),
        verdicts.table(costs, found["trace"]),
        verdicts.table(["ratio of the same round", "median", "bar", "verdict"], found["verdicts"]),
    ]
    if found["void"]:
        parts.append(f"VOID: {found['void']}: the rates cannot be compared.")
    parts += [f"FAILED: {name}: {why}" for name, why in found["failures"].items()]
    return "\n\n".join(parts) + "\n"
