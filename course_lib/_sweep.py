"""Run a lesson once for every combination of some of its parameters' values.

``course sweep 11 -p world_size=1,2,4 -p seed=0,1,2`` runs lesson 11 nine times, one after the
other, because each run may use the whole machine.

Invariants: a run that fails loses no other run; an interrupt ends the run at work and keeps those
before it; however a sweep stops, what is done is reported, and ``--continue`` does the rest.
"""

import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from course_lib import _running
from course_lib._lessons import LessonError
from course_lib._sweep_plan import Plan, Run, alone_in, code_of, find_runs, keep, key

_LONGEST_NAME = 100  # characters of a notebook's name before the time: file systems allow 255 bytes


def sweep(plan: Plan, show: str | None = None) -> int:
    """Do what a plan has left to do; then print, save and draw the results.

    Args:
        plan: A new one, or one of a sweep that was begun.
        show: The recorded number to draw; chosen by itself if None.

    Returns:
        0 when every combination has a successful run, 1 when some have none, 130 after an
        interrupt.

    Raises:
        LessonError: The sweep cannot go on (a full disk, no kernel), or another one works in the
            folder. What was done before is reported first.
    """
    with alone_in(plan.folder):
        runs = find_runs(plan)
        combinations = plan.combinations()
        done = [c for c in combinations if key(c) in runs and not runs[key(c)].failed]
        _announce(plan, len(combinations), len(done))
        stopped: BaseException | None = None
        try:
            _run_all(plan, [c for c in combinations if c not in done], len(done), runs)
        except (KeyboardInterrupt, LessonError) as reason:
            stopped = reason
        missing = sum(key(c) not in runs or runs[key(c)].failed for c in combinations)
        with _no_more_interrupts() if stopped else contextlib.nullcontext():
            if isinstance(stopped, KeyboardInterrupt):
                print(f"\nInterrupted{stopped}.", file=sys.stderr, flush=True)
            _report(plan, runs, show)
            if missing:
                folder = shlex.quote(os.path.relpath(plan.folder))
                print(
                    f"\n{missing} of {len(combinations)} runs have not succeeded yet. Go on with:"
                )
                print(f"  course sweep --continue {folder}", flush=True)
    if isinstance(stopped, KeyboardInterrupt):
        return 130
    if stopped:
        raise stopped
    return 1 if missing else 0


@contextlib.contextmanager
def _no_more_interrupts() -> Iterator[None]:
    """Let the report of an interrupted sweep come, though the key be pressed again and again."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _announce(plan: Plan, total: int, done: int) -> None:
    grid = " × ".join(f"{name}={','.join(map(str, v))}" for name, v in plan.grid.items())
    print(f"Sweep of {plan.source.stem}: {grid}")
    print(f"{total} runs" + (f", {done} of them done before" if done else "") + f": {plan.folder}")
    if code_of(plan.source) != plan.code:
        print(
            "! The lesson's code has changed since this sweep began: its earlier runs and those "
            "to come may not be comparable."
        )
    sys.stdout.flush()


def _run_all(plan: Plan, todo: list[dict], done: int, runs: dict[str, Run]) -> None:
    """Run what is to do, with a bar over all of it, and enter each run into ``runs``.

    Raises:
        KeyboardInterrupt: With words that say where it came: ``in In [2], under "Training"``.
        LessonError: The machine refuses to go on.
    """
    from tqdm import tqdm

    form = "{desc} |{bar:12}| {n} of {total} done in {elapsed}, {remaining} to go"
    total = done + len(todo)
    look = {"bar_format": form, "smoothing": 0, "position": 0}
    # disable=None: no bars in a log file, where each step of one would be a line
    with tqdm(desc="Sweep", total=total, initial=done, disable=None, **look) as bar:
        for number, combination in enumerate(todo, start=done + 1):
            what = plan.describe(combination)
            bar.set_description_str(f"Run {number} of {total}: {what}")
            try:
                notebook = _running.run_notebook(
                    plan.source,
                    combination,
                    plan.folder,
                    name=_file_name(what),
                    desc="  its cells",
                    position=1,
                    leave=False,
                    disable=None,
                )
            except _running.LessonFailed as failure:
                keep(runs, key(combination), Run(failure.path, failed=True))
                if failure.interrupted:
                    bar.leave = False
                    where = f" in {failure.cell}, in the run of {what}. The kernel has been ended"
                    raise KeyboardInterrupt(where) from failure
                _say(f"✗ {number} of {total}, {what}: failed in {failure.cell}: {failure.line}")
            else:
                papermill = notebook.metadata.papermill
                keep(runs, key(combination), Run(Path(papermill.output_path), failed=False))
                _say(f"✓ {number} of {total}, {what}: {papermill.duration:.0f} s")
            bar.update()


def _say(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line)  # above the bars
    sys.stdout.flush()


def _file_name(what: str) -> str:
    """A combination as the beginning of a file's name: ``world_size=2-seed=0``."""
    return re.sub(r"[^\w.+=-]+", "_", what.replace(", ", "-"))[:_LONGEST_NAME]


def _report(plan: Plan, runs: dict[str, Run], show: str | None) -> None:
    from course_lib._sweep_report import report  # brings pandas and matplotlib

    there = [runs[key(c)].path for c in plan.combinations() if key(c) in runs]
    if not there:
        print("\nNo run has come to an end yet.")
        return
    try:
        report(plan, there, show)
    except OSError as error:
        raise LessonError(
            f"The table and the figure cannot be written to {plan.folder}: "
            f"{error.strerror or error}. The executed notebooks are there: mend that, then "
            f"course sweep --continue {shlex.quote(str(plan.folder))}"
        ) from error
