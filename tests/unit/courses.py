"""A course of tiny notebooks, for the tests of the `course` command."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat


def write(course: Path, name: str, *cells: str) -> Path:
    """Write a notebook. A cell that begins with # is prose; one that begins with tags: has tags."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    for cell in cells:
        if cell.startswith("#"):
            notebook.cells.append(nbformat.v4.new_markdown_cell(cell))
            continue
        tags = []
        if cell.startswith("tags:"):
            first, cell = cell.split("\n", 1)
            tags = first.removeprefix("tags:").split()
        notebook.cells.append(nbformat.v4.new_code_cell(cell, metadata={"tags": tags}))
    path = course / "notebooks" / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


class Shell:
    """A running `course …`, in a session of its own, that ends with the block."""

    def __init__(self, *words: object, **environment: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "course_lib.cli", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def send(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Wait for the end: exit code, and all that was said."""
        said, _ = self.process.communicate(timeout=120)
        return self.process.returncode, said
