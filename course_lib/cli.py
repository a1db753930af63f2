"""The ``course`` command: work with the lessons from a terminal.

``course run 11 -p world_size=4`` executes a lesson as a learner's Run All would, and ends with the
numbers it recorded; ``course sweep`` does so for every combination of values; ``course doctor``
looks at the machine, ``course data`` at the data sets, and ``course clean`` tidies up. Each
command's work is in a module of its own; here is the command line.

Exit codes: 0 when all went well, 1 when some of it failed (a cell, a data set), 2 when the command
cannot be carried out as it stands, 130 after an interrupt.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from course_lib import _lessons


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code.

    Args:
        arguments: The words after ``course``; ``sys.argv[1:]`` by default.
    """
    options = _parser().parse_args(arguments)
    if data := os.environ.get("COURSE_DATA"):  # a kernel runs in another folder than this shell
        os.environ["COURSE_DATA"] = str(Path(data).expanduser().absolute())
    try:
        return options.command(options)
    except _lessons.LessonError as error:
        print(f"course: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("course: interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="course", description="Work with the course's lessons.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    doctor = _command(commands, _doctor, "doctor", "look at what this machine has and lacks")

    data = _command(commands, _data, "data", "download the data sets, or check those there are")
    data.add_argument("names", nargs="*", metavar="NAME", help="a data set (default: all)")
    data.add_argument("--verify", action="store_true", help="check only; download nothing")

    run = _command(commands, _run, "run", "execute a lesson and print its results")
    run.add_argument("lesson", help="its number (11), its name, or the path of a notebook")
    _add_parameter(run, "NAME=VALUE", "set a name of the lesson's parameters cell")
    run.epilog = "Data are looked for in $COURSE_DATA. Example: course run 11 -p world_size=4"

    sweep = _command(commands, _sweep, "sweep", "execute a lesson for every combination of values")
    what = sweep.add_mutually_exclusive_group(required=True)
    what.add_argument("lesson", nargs="?", help="its number, its name, or a notebook's path")
    what.add_argument(
        "--continue", type=Path, dest="folder", metavar="FOLDER", help="do what a sweep left undone"
    )
    _add_parameter(sweep, "NAME=A,B,…", "the values of a parameter; a comma separates")
    sweep.add_argument(
        "--show",
        metavar="RESULT",
        help="the recorded number to draw (default: a test_…, or the first besides times)",
    )
    sweep.epilog = (
        "The figure's axis is the last parameter given that takes several numbers; a seed repeats "
        "runs and is no axis. Example: course sweep 11 -p world_size=1,2,4 -p seed=0,1,2"
    )

    clean = _command(commands, _clean, "clean", "remove executed notebooks, scripts and caches")
    clean.add_argument("--data", action="store_true", help="downloaded data as well")
    clean.add_argument("--yes", action="store_true", help="do not ask")

    for command in (doctor, run, sweep, clean):
        command.add_argument("--root", type=Path, help="the course's folder (default: found)")
    for command in (run, sweep):
        command.add_argument("--out", type=Path, help="where results go (default: ROOT/runs)")
    return parser


def _command(commands, function, name: str, does: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
    parser.set_defaults(command=function)
    return parser


def _add_parameter(parser: argparse.ArgumentParser, form: str, does: str) -> None:
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar=form,
        help=f"{does}; may be repeated",
    )


def _root(options: argparse.Namespace) -> Path:
    return (options.root or _lessons.find_root()).absolute()


def _run(options: argparse.Namespace) -> int:
    from course_lib import _run_report, _running

    root = _root(options)
    source = _lessons.find_lesson(options.lesson, root)
    values = _lessons.parse_values(options.parameter, _lessons.read_parameters(source))
    given = ", ".join(f"{name}={value!r}" for name, value in values.items())
    print(f"Running {source.stem}" + (f" with {given}" if given else ""), flush=True)
    try:
        notebook = _running.run_notebook(source, values, options.out or root / "runs")
    except _running.LessonFailed as failure:
        _run_report.print_failure(failure)
        return 130 if failure.interrupted else 1
    _run_report.print_results(notebook)
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from course_lib import _sweep, _sweep_plan

    if options.folder:
        if options.parameter or options.out:
            raise _lessons.LessonError("--continue takes parameters and place from the folder.")
        return _sweep.sweep(_sweep_plan.read_plan(options.folder), options.show)
    root = _root(options)
    source = _lessons.find_lesson(options.lesson, root)
    parameters = _lessons.read_parameters(source)
    grid = _lessons.parse_grid(options.parameter, parameters)
    if not grid:
        there = "\n".join(f"  {p}" for p in parameters.values()) or "  (none)"
        raise _lessons.LessonError(
            f"Say what to sweep over: -p NAME=A,B,C. The lesson's parameters are:\n{there}"
        )
    plan = _sweep_plan.make_plan(source, grid, options.out or root / "runs")
    return _sweep.sweep(plan, options.show)


def _doctor(options: argparse.Namespace) -> int:
    from course_lib._doctor import examine, print_findings

    return print_findings(examine(_root(options)))


def _data(options: argparse.Namespace) -> int:
    from course_lib._fetching import fetch

    return fetch(options.names, verify_only=options.verify)


def _clean(options: argparse.Namespace) -> int:
    from course_lib._tidy import clean

    return clean(_root(options), with_data=options.data, ask=not options.yes)


if __name__ == "__main__":
    sys.exit(main())
