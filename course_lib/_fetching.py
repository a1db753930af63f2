"""Fetch the data sets of the course, or check those that are there.

The loaders do the work: each looks in the data folder, downloads what is missing, and checks every
byte or value it reads. Here they are asked for real data, one after the other, and none that fails
keeps the others from being tried.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from course_lib._lessons import LessonError


def fetch(names: Iterable[str], verify_only: bool = False) -> int:
    """Load data sets as real, and say what is there.

    Args:
        names: Modules of ``course_lib.data``; all of them if there is none.
        verify_only: Download nothing; what is not there is a failure.

    Returns:
        0 when every one is there and right, else 1.

    Raises:
        LessonError: There is no data set of a name.
    """
    from course_lib import data

    there = data._DATA_SETS
    wanted = list(dict.fromkeys(names)) or list(there)
    for name in wanted:
        if name not in there:
            raise LessonError(f"There is no data set {name}. There are: {', '.join(there)}")
    failed = []
    with _offline() if verify_only else contextlib.nullcontext():
        for name in wanted:
            print(f"{name}:", flush=True)
            try:
                _fetch_one(name)
            except Exception as error:  # of a loader and its libraries: the next set may be well
                failed.append(name)
                known = isinstance(error, OSError | data.DataDamaged)  # DataNotFound is an OSError
                story = str(error) if known else f"{type(error).__name__}: {error}"
                sys.stdout.flush()
                print(f"✗ {name}: {story}", file=sys.stderr, flush=True)
    if failed:
        print(f"\nNot there, or not right: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def _fetch_one(name: str) -> None:
    from course_lib import data
    from course_lib.data._finding import lying

    module = getattr(data, name)
    module.load(source="real")  # says itself what it found, how much, and where
    path = lying(module.PUBLICATION)
    print(f"✓ {name}: real and right, {size_of(path) / 1e6:,.1f} MB", flush=True)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    before = os.environ.get("COURSE_OFFLINE")
    os.environ["COURSE_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COURSE_OFFLINE"]
        else:
            os.environ["COURSE_OFFLINE"] = before
