"""What a sweep is to run, and what of it has been run: a folder that says both.

A sweep's folder holds its plan (``sweep.json``) and one executed notebook a run. The notebooks are
the only record of what was done: each carries its parameters, and shows whether it came to its end.
So a sweep that was interrupted, killed or cut off by a power failure goes on from what is there.

Invariants: the plan is written once, whole or not at all; a half-executed notebook is no success;
of several runs of one combination a successful one counts, else the latest; one process at a time
works in a folder.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from course_lib._files import write_whole
from course_lib._lessons import LessonError, find_root

PLAN = "sweep.json"


class Run(NamedTuple):
    """An executed notebook of a sweep."""

    path: Path
    failed: bool


@dataclass(frozen=True)
class Plan:
    """A lesson, and the values each of its swept parameters takes.

    Attributes:
        source: The lesson's notebook.
        grid: Parameter → its values, in the order of the command line.
        folder: Where the plan and the executed notebooks lie.
        code: A checksum of the lesson's code cells when the sweep began.
    """

    source: Path
    grid: dict[str, list]
    folder: Path
    code: str

    def combinations(self) -> list[dict[str, object]]:
        """Every combination of values; the last parameter changes fastest."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]

    def swept(self) -> list[str]:
        """The parameters that take more than one value; all of them if none does."""
        return [name for name, values in self.grid.items() if len(values) > 1] or list(self.grid)

    def describe(self, combination: dict[str, object]) -> str:
        """What sets a combination apart from the others: ``world_size=2, seed=0``."""
        return ", ".join(f"{name}={combination[name]}" for name in self.swept())


def key(combination: dict[str, object]) -> str:
    """A combination as a text that is equal for equal values: ``1`` and ``1.0`` differ."""
    return json.dumps(combination, sort_keys=True)


def make_plan(source: Path, grid: dict[str, list], out: Path) -> Plan:
    """Begin a sweep: make its folder in ``out`` and write its plan there.

    Raises:
        LessonError: The folder cannot be written to.
    """
    name = f"sweep-{source.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
            with contextlib.suppress(FileExistsError):
                folder = out.absolute() / f"{name}{suffix}"
                folder.mkdir()
                break
        else:
            raise LessonError(f"{out} has too many sweeps of this second.")
        plan = Plan(source, grid, folder, code_of(source))
        story = {"lesson": str(source), "code_sha256": plan.code, "grid": grid}
        write_whole(folder / PLAN, (json.dumps(story, indent=2) + "\n").encode())
    except OSError as error:
        raise LessonError(
            f"The sweep cannot be written to {out}: {error.strerror}. "
            "Choose another folder with --out."
        ) from error
    return plan


def read_plan(folder: Path) -> Plan:
    """The plan of a sweep that was begun.

    Raises:
        LessonError: The folder holds no sweep, its plan is damaged, or its lesson is gone.
    """
    path = folder.absolute() / PLAN
    try:
        story = json.loads(path.read_text(encoding="utf-8"))
        source, grid, code = Path(story["lesson"]), story["grid"], story["code_sha256"]
        if not grid or not all(isinstance(values, list) and values for values in grid.values()):
            raise ValueError("it has no grid")
    except OSError as error:
        raise LessonError(
            f"{folder} is not the folder of a sweep: {PLAN} in it cannot be read "
            f"({error.strerror}). Such a folder is named sweep-LESSON-TIME."
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise LessonError(f"{path} is damaged: {error!r}. Begin a new sweep.") from error
    if not source.is_file():  # the course may have moved, and the sweep with it
        source = find_root(path.parent) / "notebooks" / source.name
    if not source.is_file():
        raise LessonError(f"The lesson of this sweep is no longer there: {story['lesson']}")
    return Plan(source, grid, path.parent, code)


def find_runs(plan: Plan) -> dict[str, Run]:
    """The run that counts of each combination that was tried, by the combination's `key`.

    A file that a killed run left without an end, so that it is no notebook, is renamed to
    ``….ipynb.broken``: ``collect_results`` can then read the folder.
    """
    from course_lib.results import collect_results  # brings pandas: not for --help

    runs: dict[str, Run] = {}
    for path in sorted(plan.folder.glob("*.ipynb"), key=lambda path: path.stat().st_mtime_ns):
        try:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            values = notebook["metadata"]["papermill"]["parameters"]
            run = Run(path, bool(collect_results(path).failed[0]))
        except (ValueError, LookupError, TypeError):
            path.rename(path.with_name(path.name + ".broken"))
            continue
        keep(runs, key({name: values.get(name) for name in plan.grid}), run)
    return runs


def keep(runs: dict[str, Run], combination: str, run: Run) -> None:
    """Enter a run, the latest so far, if it is the one that counts."""
    if combination not in runs or runs[combination].failed or not run.failed:
        runs[combination] = run


def code_of(source: Path) -> str:
    """A checksum of a notebook's code: prose may change without making old runs doubtful."""
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of a folder; the system lets them in again if this process dies.

    Raises:
        LessonError: Another process works in it.
    """
    with open(folder / PLAN, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LessonError(f"Another `course sweep` is at work in {folder}.") from error
        yield
