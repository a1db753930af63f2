"""Remove what the course's commands have made: executed notebooks, scripts, caches, downloads.

Deleting is the one thing that cannot be taken back, so: everything is listed with its size first;
without a clear yes nothing happens; links are never followed (a folder that is a link is left
alone); nothing outside the course's folder is touched but, with ``--data``, the course's own cache
folder; and data in the folder that COURSE_DATA names are a person's own and stay.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from course_lib._lessons import LessonError

# Where Python and Jupyter leave caches. Named one by one: .venv, and what else lies beside, is not
# walked through.
_PLACES = ("course_lib", "notebooks", "exercises", "solutions", "sources", "tests", "tools", "docs")
_CACHES = {"__pycache__", ".ipynb_checkpoints"}
_TOP_CACHES = (".ipynb_checkpoints", ".pytest_cache", ".ruff_cache")


class Heap(NamedTuple):
    """Folders and files of one kind, and how much they hold."""

    what: str
    paths: list[Path]

    def describe(self) -> str:
        """``executed notebooks: 12 notebooks and 3 other files, 4.2 MB``, with the places."""
        files = [file for path in self.paths for file in _files(path)]
        notebooks = sum(file.suffix == ".ipynb" for file in files)
        others = len(files) - notebooks
        counts = [
            f"{n} {name}" for n, name in ((notebooks, "notebooks"), (others, "other files")) if n
        ]
        size = sum(file.lstat().st_size for file in files)
        amount = f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
        places = [str(path) for path in self.paths[:3]]
        if len(self.paths) > 3:
            places.append(f"… and {len(self.paths) - 3} more folders")
        lines = "".join(f"\n    {place}" for place in places)
        return f"  {self.what}: {' and '.join(counts) or 'empty'}, {amount}{lines}"


def clean(root: Path, *, with_data: bool = False, ask: bool = True) -> int:
    """List what can be removed, ask, and remove it.

    Args:
        root: The course's folder.
        with_data: Downloaded and unpacked data as well.
        ask: Ask on the terminal first. If there is none, nothing is removed.

    Returns:
        0 when it is removed, or a person said no; 1 when something could not be removed; 2 when
        there was nobody to ask.

    Raises:
        LessonError: ``root`` is not the course's folder.
    """
    root = root.resolve()
    if not (root / "course_lib" / "cli.py").is_file():  # any project may have notebooks/ and runs/
        raise LessonError(
            f"{root} is not the course's folder (it has no course_lib/cli.py), so nothing is "
            "removed. Go into that folder, or name it with --root."
        )
    heaps, left = find_heaps(root, with_data)
    for path, why in left:
        print(f"  left alone: {path} ({why})")
    if not heaps:
        print("There is nothing to remove.")
        return 0
    print("To be removed:")
    for heap in heaps:
        print(heap.describe())
    sys.stdout.flush()
    if ask:
        if not sys.stdin.isatty():
            print("Nothing is removed: there is no terminal to ask on. --yes removes it.")
            return 2
        if not _yes("Remove all of this? It cannot be taken back. [y/N] "):
            print("Nothing is removed.")
            return 0
    return _remove(path for heap in heaps for path in heap.paths)


def find_heaps(root: Path, with_data: bool) -> tuple[list[Heap], list[tuple[Path, str]]]:
    """What there is to remove, and what is left alone although it has such a name, with why."""
    data = [path for path in (root / ".cache").glob("*") if path.name == "data"]
    kinds = {
        "executed notebooks": [root / "runs"],
        "scripts": [root / "scripts"],
        "caches": [
            *sorted(path for path in _children(root / ".cache") if path not in data),
            *(root / name for name in _TOP_CACHES),
            *_caches_below(root),
        ],
    }
    if with_data:
        kinds["data"] = [*data, _default_data_folder()]
    heaps, left = [], []
    for what, paths in kinds.items():
        removable = []
        for path in filter(os.path.lexists, paths):
            if why := _reason_to_leave(path, root):
                left.append((path, why))
            else:
                removable.append(path)
        if removable:
            heaps.append(Heap(what, removable))
    return heaps, left


def _reason_to_leave(path: Path, root: Path) -> str | None:
    if path.is_symlink():
        return "it is a link"
    if own := os.environ.get("COURSE_DATA"):
        own, here = Path(own).expanduser().resolve(), path.resolve()
        inside = here.is_relative_to(own) and not root.is_relative_to(own)
        if inside or own.is_relative_to(here):
            return "COURSE_DATA names it: the data are yours"
    return None


def _default_data_folder() -> Path:
    """Where data are kept if COURSE_DATA names no folder."""
    from course_lib.data._finding import data_folder

    own = os.environ.pop("COURSE_DATA", None)
    try:
        return data_folder()
    finally:
        if own is not None:
            os.environ["COURSE_DATA"] = own


def _children(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        yield from folder.iterdir()


def _caches_below(root: Path) -> Iterator[Path]:
    for place in _PLACES:
        if (root / place).is_symlink():
            continue
        for folder, names, _ in os.walk(root / place):  # walks into no link
            found = sorted(_CACHES & set(names))
            names[:] = [name for name in names if name not in found]
            yield from (Path(folder, name) for name in found)


def _files(path: Path) -> Iterator[Path]:
    """The files in a folder, and the links, which are removed and not followed."""
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    for folder, names, files in os.walk(path):
        yield from (Path(folder, name) for name in files)
        yield from (Path(folder, name) for name in names if Path(folder, name).is_symlink())


def _yes(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _remove(paths: Iterator[Path]) -> int:
    failures = []
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)  # follows no link, and withstands being led astray by one
            else:
                path.unlink()
        except OSError as error:
            failures.append(f"{error.filename or path}: {error.strerror}")
    for failure in failures:
        print(f"course: could not be removed: {failure}", file=sys.stderr)
    if not failures:
        print("Removed.")
    return 1 if failures else 0
