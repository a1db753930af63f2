"""The one way in which every data set of the course is found.

A data set is looked for in this order, and the reader is told which step it came from:

1. the file or folder a person downloaded by hand, under the publisher's own name, in
   `data_folder()` (where several publishers have the data, the first of their names that is there);
2. a download from the publisher into that same folder, so that next time step 1 finds it;
3. with ``source="auto"`` only: a synthetic stand-in, announced so that nobody can miss it.

Invariants:

- ``source="real"`` never reaches step 3: it raises `DataNotFound`, which says what to do.
- A file that is there but damaged is `DataDamaged` for every source that looks at it; it is never
  passed over for a download or a stand-in.
- A download appears under its final name whole or not at all. One process downloads while the
  others on this machine wait, then find its file: see `course_lib.data._storing`.

A data set's module describes its publisher with a `Publication` and calls `load_table`, or `locate`
where the data are no table. The publisher's step is a function: for a single file it calls
`course_lib.data._download.download`, for others a library made for the data set.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from course_lib.data._storing import store

if TYPE_CHECKING:
    import pandas as pd

SOURCES = ("auto", "real", "synthetic")


class DataNotFound(FileNotFoundError):
    """Real data were asked for and cannot be had; the text says how to get them."""


class DataDamaged(ValueError):
    """A data file is there but wrong; the text names the file and the fault."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A table and where it came from.

    Attributes:
        frame: The rows, as the publisher has them. A new one with each load: change it freely.
        origin: ``"real"`` or ``"synthetic"``. Figures and results carry it on.
        path: The file or folder it was read from; None for a stand-in.
    """

    frame: "pd.DataFrame"
    origin: str
    path: Path | None

    def __repr__(self) -> str:
        rows, columns = self.frame.shape
        where = f", {self.path}" if self.path else ""
        return f"Dataset({rows:,} rows × {columns} columns, {self.origin}{where})"


@dataclass(frozen=True)
class Publication:
    """A data set as its publisher gives it out.

    Attributes:
        title: What readers call it: ``"California housing"``.
        file: The publisher's own name of the file or folder.
        where: Where a person gets it: an address, what else to do with it, another address.
        fetch: The publisher's step: ``fetch(path)`` makes the checked file or folder under the
            temporary name ``path``, or raises an `OSError` whose text says why not.
        packed: The publisher's name of an archive that a person may put there instead, if any.
        others: Names under which the same data may lie there too, looked for in this order when
            `file` is not there.
        stored: The name under which a download is stored, where it is not `file`; looked for last.
    """

    title: str
    file: str
    where: str
    fetch: Callable[[Path], None]
    packed: str | None = None
    others: tuple[str, ...] = ()
    stored: str | None = None


def check_source(source: str) -> None:
    """Refuse what is no `source` with a `ValueError`."""
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(map(repr, SOURCES))}, not {source!r}")


def offline() -> str:
    """Return why nothing may be downloaded: ``COURSE_OFFLINE`` is set; "" where it may."""
    wish = os.environ.get("COURSE_OFFLINE", "").lower()
    return "" if wish in ("", "0", "false", "no") else "not tried, because COURSE_OFFLINE is set"


def data_folder() -> Path:
    """Return the folder where data are looked for and kept; it need not exist yet.

    ``$COURSE_DATA``, or ``torch-distributed-course`` in the user's cache folder.

    Raises:
        NotADirectoryError: Something else than a folder has that name.
    """
    if chosen := os.environ.get("COURSE_DATA"):
        folder, says = Path(chosen).expanduser().absolute(), "COURSE_DATA names"
    else:
        folder, says = default_folder(), "The course keeps its data in"
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise NotADirectoryError(
            f"{says} {folder}, and that is not a folder. "
            "Set COURSE_DATA to the folder that holds the data files."
        )
    return folder


def default_folder() -> Path:
    """Return the course's folder in the user's cache folder; it need not exist yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = cache if cache.is_absolute() else Path.home() / ".cache"  # as the XDG rule has it
    return cache / "torch-distributed-course"


def load_table(
    publication: Publication,
    source: str,
    *,
    read: Callable[[Path], "pd.DataFrame"],
    make: Callable[[], "pd.DataFrame"],
) -> Dataset:
    """Find a data set that is a table, read it, and say what was used.

    Args:
        publication: What to look for.
        source: ``"auto"``, ``"real"`` or ``"synthetic"``, as in `locate`.
        read: Reads and checks the file; raises what `damaged` returns when it is wrong.
        make: Makes the synthetic stand-in.

    Raises:
        ValueError: An unknown `source`.
        DataNotFound: ``source="real"``, and there is neither a file nor a download.
        DataDamaged: The file is there, but it cannot be read or is not what it should be.
        NotADirectoryError: See `data_folder`.
    """
    path = locate(publication, source)
    try:
        frame = make() if path is None else read(path)
    except OSError as error:
        raise damaged(path, f"it cannot be read: {error.strerror or error}") from error
    print(
        f"{publication.title}: {len(frame):,} rows "
        + (f"from {path}" if path else "made up by the course (synthetic)"),
        flush=True,
    )
    return Dataset(frame, "real" if path else "synthetic", path)


def locate(publication: Publication, source: str) -> Path | None:
    """Return where the data set lies, after downloading it if need be; None for the stand-in.

    None comes only after the announcement of the stand-in has been printed.

    Raises:
        ValueError: An unknown `source`.
        DataNotFound: ``source="real"``, and there is neither a file nor a download.
        NotADirectoryError: See `data_folder`.
    """
    check_source(source)
    if source == "synthetic":
        announce_stand_in(publication, 'source="synthetic" asked for it.')
        return None
    if there := lying(publication):
        return there
    path = data_folder() / publication.file
    kept = data_folder() / (publication.stored or publication.file)
    lacking = "no such file" if os.path.isdir(path.parent) else "no such folder"
    try:
        fetch(publication, kept)
    except OSError as error:
        story = _STORY.format(
            path=" or ".join([str(path), *publication.others]),
            lacking=lacking,
            error=error,
            file=publication.file,
            where=publication.where.replace("\n", "\n" + 15 * " "),
            folder=path.parent,
        )
        if source == "real":
            raise DataNotFound(
                f'{publication.title} is not here, and source="real" takes no stand-in.\n{story}'
            ) from error
        announce_stand_in(publication, "the real data are not here.\n" + story)
        return None
    return kept


def lying(publication: Publication) -> Path | None:
    """Return the file or folder that lies in the data folder already; None if none does.

    A dangling link counts as there: reading it then names the fault.

    Raises:
        NotADirectoryError: See `data_folder`.
    """
    names = (publication.file, *publication.others, publication.stored)
    paths = (data_folder() / name for name in names if name)
    return next((path for path in paths if os.path.lexists(path)), None)


def damaged(path: Path, fault: str) -> DataDamaged:
    """Return the error for a file that is there but wrong: its name, the fault, the way out."""
    return DataDamaged(
        f"{path}: {fault}\n"
        f"Put a fresh copy there, or delete {path.name} and the course will look for another."
    )


_STORY = """\
  Looked for:  {path} ({lacking})
  Download:    {error}
  What to do:  get {file} from {where}
               and put it, under that name, into the folder {folder}
               (or set COURSE_DATA to the folder where it lies)."""


def announce_stand_in(publication: Publication, why: str) -> None:
    """Say, so that nobody can miss it, that made-up data stand for these, and why."""
    rule = "=" * 78
    print(
        f"{rule}\n"
        f"SYNTHETIC DATA: this is not {publication.title}, but a stand-in made up by the course.\n"
        "No number and no figure made from it says anything about the real world.\n"
        f"Why: {why}\n"
        f"{rule}",
        flush=True,
    )


def fetch(publication: Publication, path: Path) -> None:
    """Take the publisher's step for `path`: one process at a time, whole or not at all.

    Raises:
        OSError: ``COURSE_OFFLINE`` is set; or what the publisher's step or `store` raises.
    """
    if why := offline():
        raise OSError(why)
    store(path, publication.fetch, title=publication.title, doing="downloading it")
