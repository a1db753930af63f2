"""Make a file or a folder whole or not at all, by one process of the machine while others wait.

Why: N ranks may ask for the same data at the same moment, and any of them may be killed half way.

Invariants:

- Under its final name a thing is whole or absent: it is made under a temporary name in the same
  folder, and then renamed.
- One process makes it. The others wait, and then find it made.
- A process that dies leaves its lock to the operating system, and its temporary file or folder to
  be overwritten by the next.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def store(
    path: Path,
    make: Callable[[Path], None],
    *,
    title: str,
    doing: str,
    there: Callable[[Path], bool] = os.path.lexists,
) -> None:
    """Make `path`, unless it is there by the time this process may.

    Args:
        path: The file or folder; the folder it lies in is made if need be.
        make: ``make(part)`` makes it under the temporary name ``part``.
        title: What readers call it.
        doing: What another process is doing that has to be waited for: ``"downloading it"``.
        there: Says whether `path` is there as it should be. What is there otherwise is replaced.

    Raises:
        OSError: Nothing can be stored there; or what `make` raises.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(turn(path, f"{title}: another process is {doing}; waiting."))
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"not tried: nothing can be stored in {path.parent}: {reason}") from error
        if there(path):  # another process made it while this one waited
            return
        part = path.with_name(f".{path.name}.part")  # in the same folder: the rename is atomic
        remove(part)  # a process that was killed may have left one
        try:
            make(part)
            if not there(path):  # a person may have put it there meanwhile
                remove(path)
                os.replace(part, path)
        finally:
            remove(part)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def turn(path: Path, waiting: str) -> Iterator[None]:
    """Wait for the turn to work on `path`; the system ends the turn of a process that dies."""
    with open(path.with_name(f".{path.name}.lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
