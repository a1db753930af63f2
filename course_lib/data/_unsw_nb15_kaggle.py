"""Network flows from Kaggle by the `kagglehub` library, kept in the data folder.

The library keeps what it downloads in a cache of its own. What the course keeps is a copy of the
files it needs, so that the next time needs neither Kaggle nor the library.

The library asks Kaggle without any limit of time, the course does not: see `_in_time`.
"""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from course_lib.data import _unsw_nb15_files as files
from course_lib.data import _unsw_nb15_raw as raw
from course_lib.data._download import (
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    DownloadFailed,
    reach,
    root_cause,
)
from course_lib.data._finding import DataDamaged
from course_lib.data._storing import turn

NAME = "mohammadami/unsw-nb15"
FOLDER = "mohammadami_unsw-nb15"  # the official pair
RAW_FOLDER = f"{FOLDER}_raw"
URL = "https://api.kaggle.com/"


def fetch(part: Path) -> None:
    """Download the set and copy its official pair into the new folder `part`, under its own names.

    Raises:
        DownloadFailed: It cannot be had, is not what it should be, or cannot be stored.
    """
    _keep(part, _pair_of)


def fetch_raw(part: Path) -> None:
    """Download the set and copy its raw parts into the new folder `part`; see `fetch`."""
    _keep(part, _raw_of)


def _keep(part: Path, choose: Callable[[Path], dict[str, Path]]) -> None:
    """Download, and copy what `choose` finds there: name → file."""
    reach(URL, "Kaggle")
    try:
        # For both folders in turn: the library's own cache is no place for two processes.
        with turn(
            part.with_name(f"{FOLDER}.kagglehub"),
            "UNSW-NB15 flows: another process asks Kaggle; waiting.",
        ):
            chosen = choose(_download())
            part.mkdir()
            for name, path in chosen.items():
                shutil.copyfile(path, part / name)
    except DownloadFailed:
        raise
    except OSError as error:
        raise DownloadFailed(
            f"it cannot be stored in {part.parent}: {error.strerror or error}"
        ) from error


def _download() -> Path:
    """Let the library download the set, or find it in its cache; return the folder."""
    try:
        import kagglehub
    except ImportError as error:
        raise DownloadFailed("not tried: the library kagglehub is not installed") from error
    print(f"UNSW-NB15 flows: downloading {NAME} with the kagglehub library", flush=True)
    try:
        with _in_time(), _quiet():
            return Path(kagglehub.dataset_download(NAME))
    except Exception as error:  # of whatever that library and those below it raise
        cause = root_cause(error)
        answered = getattr(error, "response", None) is not None  # one of 404 counts as False
        shown = error if answered else cause
        story = " ".join(str(shown).split())[:300]
        raise DownloadFailed(
            f"the kagglehub library could not load {NAME}: {type(shown).__name__}: {story}"
        ) from error


def _pair_of(folder: Path) -> dict[str, Path]:
    """Return the official pair among the files of a folder, after reading all of both."""
    wanted = {name: sorted(folder.rglob(name)) for name in files.FILES}
    if missing := [name for name, found in wanted.items() if not found]:
        raise DownloadFailed(f"{NAME} has no {' and no '.join(missing)}, but {_names(folder)}")
    chosen = {name: found[0] for name, found in wanted.items()}
    try:
        files.read_parts([*chosen.values()])
    except DataDamaged as error:
        raise DownloadFailed(f"{NAME} is damaged: {str(error).splitlines()[0]}") from error
    return chosen


def _raw_of(folder: Path) -> dict[str, Path]:
    """Return the raw parts among the files of a folder, after a look at the first rows of each."""
    found = {name: sorted(folder.rglob(name))[:1] for name in raw.PARTS}
    chosen = {name: path for name, paths in found.items() for path in paths}
    if not chosen:
        raise DownloadFailed(f"{NAME} has no raw files ({raw.PARTS[0]}, …), but {_names(folder)}")
    try:
        for path in chosen.values():
            raw.read(path, most=1_000)
    except DataDamaged as error:
        raise DownloadFailed(f"{NAME} is damaged: {str(error).splitlines()[0]}") from error
    return chosen


def _names(folder: Path) -> str:
    names = sorted(path.name for path in folder.rglob("*") if path.is_file())
    return f"{', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else "nothing"


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """Let no request within wait longer than the course does: the library names no limits."""
    import requests

    send = requests.Session.send

    def send_in_time(self, request, **options):
        options["timeout"] = options.get("timeout") or (CONNECT_TIMEOUT, READ_TIMEOUT)
        return send(self, request, **options)

    requests.Session.send = send_in_time
    try:
        yield
    finally:
        requests.Session.send = send


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Show the library's bar, but not what it tells its logger: long names of its own files."""
    logger = logging.getLogger("kagglehub")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
