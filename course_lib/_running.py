"""Run a notebook from end to end with papermill, and leave no doubt how it ended.

Added to papermill is what it leaves to its caller: a cell tagged ``raises-exception`` may raise,
and a run that stops half-way says in its notebook where.

Invariants: the lesson's own file is never written to; a run never overwrites an earlier one; the
kernel is this interpreter's, and it has ended when ``run_notebook`` returns or raises.
"""

import contextlib
import errno
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode

from course_lib._lessons import LessonError

KERNEL = "python3"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LOG_LINES = 20
_START_SECONDS = 180  # a cold disk under load; a kernel usually answers within two


class LessonFailed(Exception):
    """A cell of the lesson failed, or the run was interrupted.

    Attributes:
        cell: Which one, as a reader finds it: ``In [7], under "One step"``.
        line: What went wrong, on one line: ``KeyError: 'label 17'``.
        text: The error's whole text, without colours.
        path: The half-executed notebook.
        interrupted: Whether an interrupt ended the run.
    """

    def __init__(self, cell: str, line: str, text: str, path: Path, interrupted: bool = False):
        super().__init__(f"{cell}: {line}")
        self.cell, self.line, self.text = cell, line, text
        self.path, self.interrupted = path, interrupted


def run_notebook(
    source: Path,
    values: dict[str, object],
    folder: Path,
    name: str | None = None,
    **bar: object,
) -> NotebookNode:
    """Execute a notebook in its own folder, with a progress bar; keep the result in ``folder``.

    Args:
        source: The notebook; it is only read.
        values: Parameters, as ``parse_values`` returns them.
        folder: Where the executed notebook goes, under ``name`` and the time.
        name: How the executed notebook's name begins; the lesson's name by default.
        **bar: Options of the tqdm bar.

    Returns:
        The executed notebook; ``metadata.papermill.output_path`` says where it lies and
        ``metadata.papermill.duration`` how many seconds it took.

    Raises:
        LessonError: The folder cannot be written to, the disk is full, there is no kernel or it
            does not start.
        LessonFailed: A cell raised, the kernel died, or the run was interrupted.
    """
    from papermill import execute_notebook

    # papermill would warn of every `int | None`, and repeat below what we say ourselves.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    choose_own_kernel()
    path = _new_file(folder, name or source.stem)
    with tempfile.TemporaryFile() as log, _explained(path, log):
        # Prepared and executed in two steps, because execute_notebook alone takes the errors of
        # cells tagged raises-exception for failures.
        notebook = execute_notebook(
            source, path, values, kernel_name=KERNEL, language="python", prepare_only=True
        )
        interrupted = _execute(notebook, source, path, log, {"desc": source.stem, **bar})
    for index, cell in enumerate(notebook.cells):
        if cell.metadata.papermill.exception:
            line, text = _error(cell)
            raise LessonFailed(_where(notebook, index), line, text, path, interrupted)
    return notebook


def choose_own_kernel() -> None:
    """Let ``python3`` be this environment's kernel, whatever lies in the user's home."""
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"


def _execute(
    notebook: NotebookNode, source: Path, path: Path, log: BinaryIO, bar: dict[str, object]
) -> bool:
    """Run a prepared notebook to its end, or mark where it stopped; say if it was interrupted."""
    from nbclient.exceptions import DeadKernelError
    from papermill.engines import papermill_engines

    try:
        papermill_engines.execute_notebook_with_engine(
            None,
            notebook,
            kernel_name=KERNEL,
            output_path=str(path),
            start_timeout=_START_SECONDS,
            progress_bar=bar,
            resources={"metadata": {"path": str(source.parent)}},
            kernel_manager_class=_kernels_that_write_to(log),
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    except KeyboardInterrupt:
        # The cell's own last error comes when nobody waits for it any more: no news to anyone.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        _mark(notebook, path, "KeyboardInterrupt", "the run was interrupted here")
        return True
    except DeadKernelError:
        story = "the kernel died here: killed, out of memory, or crashed"
        _mark(notebook, path, "DeadKernelError", f"{story}\n{_end_of(log)}".rstrip())
    return False


@contextlib.contextmanager
def _explained(path: Path, log: BinaryIO) -> Iterator[None]:
    """Turn what the machine refuses into an error that says what to do."""
    from jupyter_client.kernelspec import NoSuchKernel

    try:
        yield
    except NoSuchKernel as error:
        raise LessonError(
            f"There is no kernel named {KERNEL} in this environment ({sys.prefix}). "
            f"Install it: {sys.executable} -m pip install ipykernel"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LessonError(
                f"The disk is full: {path} could not be written to its end. "
                "Make room (`course clean`), or choose another folder with --out."
            ) from error
        raise LessonError(f"The run could not go on: {error}\n{_end_of(log)}".rstrip()) from error
    except RuntimeError as error:  # a kernel that does not answer
        raise LessonError(
            f"The run could not go on: {error}\n{_end_of(log)}".rstrip()
            + "\n`course doctor` says what is missing."
        ) from error


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


def _error(cell: NotebookNode) -> tuple[str, str]:
    """What a failed cell says: its error on one line, and the whole of it."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if not errors:
        return ("the cell failed without a message",) * 2
    line = f"{errors[-1].ename}: {errors[-1].evalue}"
    text = "\n".join(errors[-1].traceback) or line
    return _ANSI.sub("", line).splitlines()[0], _ANSI.sub("", text)
