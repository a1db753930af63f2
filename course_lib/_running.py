"""Run a notebook from end to end with papermill, and leave no doubt how it ended.

Added to papermill is what it leaves to its caller: a cell tagged ``raises-exception`` may raise,
and a run that stops half-way says in its notebook where.

Invariants: the lesson's own file is never written to; a run never overwrites an earlier one; the
kernel is this interpreter's, and it has ended when ``run_notebook`` returns or raises.
"""

import contextlib
import logging
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode

from course_lib._lessons import LessonError

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LOG_LINES = 20
_START_SECONDS = 180  # a cold disk under load; a kernel usually answers within two


class LessonFailed(Exception):
    """A cell of the lesson failed, or the run was interrupted.

    Attributes:
        cell: Which one, as a reader finds it: ``In [7], under "One step"``.
        text: The error's own text, without colours.
        path: The half-executed notebook.
        interrupted: Whether an interrupt ended the run.
    """

    def __init__(self, cell: str, text: str, path: Path, interrupted: bool = False):
        super().__init__(f"{cell}: {text}")
        self.cell, self.text, self.path, self.interrupted = cell, text, path, interrupted


def run_notebook(source: Path, values: dict[str, object], folder: Path) -> NotebookNode:
    """Execute a notebook in its own folder, with a progress bar; keep the result in ``folder``.

    Args:
        source: The notebook; it is only read.
        values: Parameters, as ``parse_values`` returns them.
        folder: Where the executed notebook goes, under the lesson's name and the time.

    Returns:
        The executed notebook; ``metadata.papermill.output_path`` says where it lies and
        ``metadata.papermill.duration`` how many seconds it took.

    Raises:
        LessonError: The folder cannot be written to, the disk is full, the kernel does not start.
        LessonFailed: A cell raised, the kernel died, or the run was interrupted.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill import execute_notebook
    from papermill.engines import papermill_engines

    # papermill would warn of every `int | None`, and repeat below what we say ourselves.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    # The kernel named python3 is this environment's, whatever lies in the user's home.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    path = _new_file(folder, source.stem)
    # Prepared and executed in two steps, because execute_notebook alone takes the errors of cells
    # tagged raises-exception for failures.
    notebook = execute_notebook(
        source, path, values, kernel_name="python3", language="python", prepare_only=True
    )
    interrupted = False
    with tempfile.TemporaryFile() as log:
        try:
            papermill_engines.execute_notebook_with_engine(
                None,
                notebook,
                kernel_name="python3",
                output_path=str(path),
                start_timeout=_START_SECONDS,
                progress_bar={"desc": source.stem},
                resources={"metadata": {"path": str(source.parent)}},
                kernel_manager_class=_kernels_that_write_to(log),
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
            )
        except KeyboardInterrupt:
            interrupted = True
            # The cell's own last error comes when nobody waits for it any more: no news to anyone.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            _mark(notebook, path, "KeyboardInterrupt", "the run was interrupted here")
        except DeadKernelError:
            story = "the kernel died here: killed, out of memory, or crashed"
            _mark(notebook, path, "DeadKernelError", f"{story}\n{_end_of(log)}".rstrip())
        except (OSError, RuntimeError) as error:  # a full disk, a kernel that does not answer
            raise LessonError(f"The run could not go on: {error}\n{_end_of(log)}") from error
    for index, cell in enumerate(notebook.cells):
        if cell.metadata.papermill.exception:
            raise LessonFailed(_where(notebook, index), _error(cell), path, interrupted)
    return notebook


def _kernels_that_write_to(log: BinaryIO) -> type[AsyncKernelManager]:
    """Kernels whose own output goes to ``log``: the notebook has a copy, the terminal a bar."""

    class Kernels(AsyncKernelManager):
        def start_kernel(self, **options):
            return super().start_kernel(stdout=log, stderr=subprocess.STDOUT, **options)

    return Kernels


def _end_of(log: BinaryIO) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])


def _new_file(folder: Path, stem: str) -> Path:
    """An empty file of a name that no earlier run has."""
    name = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
            with contextlib.suppress(FileExistsError):
                path = folder.absolute() / f"{name}{suffix}.ipynb"
                path.touch(exist_ok=False)
                return path
    except OSError as error:
        raise LessonError(
            f"The executed notebook cannot be written to {folder}: {error.strerror}. "
            "Choose another folder with --out."
        ) from error
    raise LessonError(f"{folder} has too many runs of this second.")


def _mark(notebook: NotebookNode, path: Path, name: str, text: str) -> None:
    """Say in the notebook where it stopped: papermill leaves it looking complete."""
    begun = [c for c in notebook.cells if c.metadata.papermill.start_time and "outputs" in c]
    cell = begun[-1] if begun else next(c for c in notebook.cells if "outputs" in c)
    line = f"{name}: {text}"
    cell.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[line]))
    cell.metadata.papermill.update(exception=True, status="failed")
    notebook.metadata.papermill.exception = True
    nbformat.write(notebook, path)


def _where(notebook: NotebookNode, index: int) -> str:
    """``In [7], under "One step"``: how a reader finds the cell of this index."""
    number = sum("outputs" in cell for cell in notebook.cells[: index + 1])
    prose = "\n".join(c.source for c in notebook.cells[:index] if c.cell_type == "markdown")
    headings = re.findall(r"^#+ +(.+)$", prose, re.MULTILINE)
    return f"In [{number}]" + (f', under "{headings[-1].strip()}"' if headings else "")


def _error(cell: NotebookNode) -> str:
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if not errors:
        return "the cell failed without a message"
    lines = "\n".join(errors[-1].traceback) or f"{errors[-1].ename}: {errors[-1].evalue}"
    return _ANSI.sub("", lines)
