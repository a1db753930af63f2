"""What `course run` says at the end: the numbers of a run, or where it failed and why."""

import sys
import textwrap

from nbformat import NotebookNode

from course_lib._running import LessonFailed

_LONGEST_ERROR = 40  # lines


def print_failure(failure: LessonFailed) -> None:
    """Say which cell failed and with which error, or that the run was interrupted."""
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


def print_results(notebook: NotebookNode) -> None:
    """Print what an executed notebook recorded, how long it took, and where it lies."""
    from course_lib.results import MIME  # brings pandas: not for --help

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    records = [output.data for output in outputs if MIME in output.get("data", {})]
    papermill = notebook.metadata.papermill
    print(f"\nDone in {papermill.duration:.0f} s. ", end="")
    print("Results:\n" if records else "The lesson records no results.")
    for record in records:
        print(textwrap.indent(record["text/plain"], "  "))
    if any(record[MIME].get("data_origin") == "synthetic" for record in records):
        print(SYNTHETIC)
    print(f"\nExecuted notebook: {papermill.output_path}")


SYNTHETIC = """
  !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!
  !!  SYNTHETIC DATA. These numbers come from a small stand-in that the     !!
  !!  course made up, and say nothing about the real world.                 !!
  !!  `.venv/bin/course data` fetches the real data, or tells which file to !!
  !!  get from where. Files in a folder of yours: COURSE_DATA=/path/to/it   !!
  !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"""
