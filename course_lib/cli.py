"""The ``course`` command: work with the lessons from a terminal.

``course run 11 -p world_size=4`` executes a lesson as a learner's Run All would, and ends with the
numbers it recorded. Exit codes: 0 when all went well, 1 when a cell failed, 2 when the command
cannot be carried out as it stands, 130 after an interrupt.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from nbformat import NotebookNode

from course_lib import _lessons, _running

_LONGEST_ERROR = 40  # lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code.

    Args:
        arguments: The words after ``course``; ``sys.argv[1:]`` by default.
    """
    options = _parser().parse_args(arguments)
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
    run = commands.add_parser(
        "run",
        help="execute a lesson and print its results",
        description="Execute a lesson from end to end; print the numbers it recorded.",
        epilog="Data are looked for in $COURSE_DATA. Example: course run 11 -p world_size=4",
    )
    run.add_argument("lesson", help="its number (11), its name, or the path of a notebook")
    run.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a name of the lesson's parameters cell; may be repeated",
    )
    run.add_argument("--root", type=Path, help="the course's folder (default: found from here)")
    run.add_argument("--out", type=Path, help="where executed notebooks go (default: ROOT/runs)")
    run.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    root = (options.root or _lessons.find_root()).absolute()
    source = _lessons.find_lesson(options.lesson, root)
    values = _lessons.parse_values(options.parameter, _lessons.read_parameters(source))
    if data := os.environ.get("COURSE_DATA"):  # the kernel runs in another folder than this shell
        os.environ["COURSE_DATA"] = str(Path(data).expanduser().absolute())
    given = ", ".join(f"{name}={value!r}" for name, value in values.items())
    print(f"Running {source.stem}" + (f" with {given}" if given else ""), flush=True)
    try:
        notebook = _running.run_notebook(source, values, options.out or root / "runs")
    except _running.LessonFailed as failure:
        _print_failure(failure)
        return 130 if failure.interrupted else 1
    _print_results(notebook)
    return 0


def _print_failure(failure: _running.LessonFailed) -> None:
    lines = failure.text.splitlines()
    if len(lines) > _LONGEST_ERROR:
        left_out = f"… {len(lines) - _LONGEST_ERROR} lines more in the notebook …"
        lines[5 : len(lines) - _LONGEST_ERROR + 5] = [left_out]
    if failure.interrupted:
        story = f"Interrupted in {failure.cell}. The kernel has been ended."
    else:
        story = f"The lesson failed in {failure.cell}:\n\n" + textwrap.indent(
            "\n".join(lines), "  "
        )
    print(f"\n{story}\n\nAs far as it came, it is in {failure.path}", file=sys.stderr)


def _print_results(notebook: NotebookNode) -> None:
    from course_lib.results import MIME  # brings pandas: not for --help

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    records = [output.data for output in outputs if MIME in output.get("data", {})]
    papermill = notebook.metadata.papermill
    print(f"\nDone in {papermill.duration:.0f} s. ", end="")
    print("Results:\n" if records else "The lesson records no results.")
    for record in records:
        print(textwrap.indent(record["text/plain"], "  "))
    if any(record[MIME].get("data_origin") == "synthetic" for record in records):
        print(_SYNTHETIC)
    print(f"\nExecuted notebook: {papermill.output_path}")


_SYNTHETIC = """
  !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!
  !!  SYNTHETIC DATA. These numbers come from a small stand-in that the     !!
  !!  course made up, and say nothing about the real world. The executed    !!
  !!  notebook tells which file to get, and from where. Put it in a folder  !!
  !!  and name that folder: COURSE_DATA=/path/to/folder                     !!
  !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"""


if __name__ == "__main__":
    sys.exit(main())
