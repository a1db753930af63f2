"""Run lessons on real data and hold their recorded numbers against the targets: ``make quality``.

Each lesson runs at preset ``quick`` with ``source=real``, once a seed, as ``course run`` would; the
median over the seeds is judged. The targets are in ``targets.toml``. Exit codes: 0 all met, 1 one
missed or not run, 2 the real data are not there, 130 interrupted.
"""

import argparse
import math
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from course_lib import _lessons, _running
from course_lib.results import collect_results

ROOT = Path(__file__).parents[1]
TARGETS = Path(__file__).with_name("targets.toml")
HEAD = ("lesson", "number", "target", "measured: median (all seeds)", "ranks", "data", "verdict")


class Number(NamedTuple):
    """A number that a lesson records, and its bar."""

    lesson: int
    name: str
    at_most: float = math.inf
    at_least: float = -math.inf
    says: str = ""

    @property
    def is_judged(self) -> bool:
        """Whether it has a bar at all."""
        return math.isfinite(self.at_most) or math.isfinite(self.at_least)

    @property
    def target(self) -> str:
        """The bar as the table shows it."""
        if not self.is_judged:
            return "–"
        return f"≤ {self.at_most:,g}" if math.isfinite(self.at_most) else f"≥ {self.at_least:,g}"

    def verdict(self, values: Sequence[float], origins: set[str]) -> str:
        """``met``, ``missed``, or why it is neither; ``watched`` where there is no bar."""
        if not origins:
            return "not run"
        if not values:
            return "not recorded"
        if origins != {"real"}:
            return "not real"
        if not self.is_judged:
            return "watched"
        return "met" if self.at_least <= median(values) <= self.at_most else "missed"


def read_targets(path: Path = TARGETS) -> tuple[list[Number], dict[str, float]]:
    """The numbers with their bars, and the limits in seconds."""
    given = tomllib.loads(path.read_text(encoding="utf-8"))
    return [Number(**entry) for entry in given["number"]], given["limits"]


def with_limits(numbers: Sequence[Number], limits: Mapping[str, float]) -> list[Number]:
    """Add to each lesson how long its training and the whole of it may take."""
    added = []
    for lesson in dict.fromkeys(number.lesson for number in numbers):
        whole = limits["project_lesson_seconds" if 10 <= lesson < 60 else "lesson_seconds"]
        added += [n for n in numbers if n.lesson == lesson]
        added += [
            Number(lesson, "train_seconds", limits["train_seconds"]),
            Number(lesson, "lesson_seconds", whole),
        ]
    return added


def judge(numbers: Sequence[Number], runs: Mapping[int, Sequence[Mapping]]) -> list[list[str]]:
    """The rows of the table.

    Args:
        numbers: What to look for.
        runs: Lesson → the recorded results of each seed's run.
    """
    rows = []
    for number in numbers:
        done = runs.get(number.lesson, [])
        values = [run[number.name] for run in done if _is_number(run.get(number.name))]
        origins = {str(run.get("data_origin")) for run in done}
        ranks = {str(run.get("world_size")) for run in done}
        words = number.verdict(values, origins)
        each = ", ".join(f"{value:,.6g}" for value in values)
        rows.append(
            [
                f"{number.lesson:02d}",
                number.name,
                number.target,
                f"{median(values):,.6g} ({each})" if values else "–",
                ", ".join(sorted(ranks)) or "–",
                ", ".join(sorted(origins)) or "–",
                words,
            ]
        )
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def main(words: Sequence[str] | None = None) -> int:
    """Run, judge, print; return the exit code."""
    options = _parser().parse_args(words)
    numbers, limits = read_targets()
    numbers = [n for n in numbers if options.lessons is None or n.lesson in options.lessons]
    if not numbers:
        print("quality: no lesson of this number has an entry in targets.toml", file=sys.stderr)
        return 2
    os.environ.pop("COURSE_PRESET", None)  # it would count more than the parameter
    runs, missing = {}, []
    try:
        for lesson in dict.fromkeys(number.lesson for number in numbers):
            runs[lesson] = _run(lesson, options, missing)
    except KeyboardInterrupt:
        print("\nquality: interrupted.", file=sys.stderr)
        return 130
    rows = judge(with_limits(numbers, limits), runs)
    print(f"\n{_table(rows)}\n")
    print(f"preset quick, seeds {options.seeds}; load of the machine now: {os.getloadavg()[0]:.1f}")
    if missing:
        print("\nReal data are missing:", *missing, sep="\n\n", file=sys.stderr)
        return 2
    return int(any(row[-1] not in ("met", "watched") for row in rows))


def _run(lesson: int, options: argparse.Namespace, missing: list[str]) -> list[dict]:
    """One lesson with every seed: what each run recorded, or nothing if one of them failed."""
    done = []
    try:
        source = _lessons.find_lesson(str(lesson), ROOT)
        parameters = _lessons.read_parameters(source)
        for seed in options.seeds:
            pairs = ["preset=quick", "source=real", f"seed={seed}"]
            pairs = [pair for pair in pairs if pair.partition("=")[0] in parameters]
            values = _lessons.parse_values(pairs, parameters)
            print(f"Running {source.stem} with {', '.join(pairs)}", flush=True)
            papermill = _running.run_notebook(source, values, options.out).metadata.papermill
            (row,) = collect_results(papermill.output_path).to_dict("records")
            done.append(row | {"lesson_seconds": papermill.duration})
        return done
    except _lessons.LessonError as error:
        print(f"quality: {error}", file=sys.stderr)
    except _running.LessonFailed as failure:
        if failure.interrupted:
            raise KeyboardInterrupt from None
        if "DataNotFound" in failure.text:
            missing.append(failure.text[failure.text.rindex("DataNotFound") :])
        print(f"quality: lesson {lesson} failed in {failure}\n{failure.path}", file=sys.stderr)
    return []


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in [HEAD, *rows]) for i in range(len(HEAD))]
    lines = [HEAD, ["-" * width for width in widths], *rows]
    padded = [[c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make quality ARGS=…", description=__doc__)
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="default: 0,1,2")
    parser.add_argument("--lessons", type=_numbers, help="default: all that have targets")
    parser.add_argument("--out", type=Path, default=ROOT / "runs", help="for executed notebooks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
