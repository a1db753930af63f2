"""The files of CIFAR-10: unpack the publisher's archive, check every file, read them.

The files are pickles, which can run any code when they are read. So the order is fixed: checksums
first, all of them, against the lists that torchvision carries; only then does torchvision's own
loader read; then the content is looked at too.

Invariants:

- Of an archive only the expected files are written, under names chosen here; an archive whose
  checksum is not the publisher's is not even opened.
- Whatever is wrong is `DataDamaged` with the name of the file.
"""

import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from course_lib.data._download import DownloadFailed, download
from course_lib.data._finding import DataDamaged, DataNotFound, damaged, data_folder
from course_lib.data._storing import store

TITLE = "CIFAR-10"
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
SIZE = 170_498_071  # bytes
IMAGES = {"train": 50_000, "test": 10_000}
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def checksums() -> dict[str, str]:
    """Return the MD5 of each file, as torchvision lists them: name → 32 hexadecimal digits."""
    from torchvision.datasets import CIFAR10

    listed = dict([*CIFAR10.train_list, *CIFAR10.test_list])
    return {**listed, CIFAR10.meta["filename"]: CIFAR10.meta["md5"]}


def fetch(part: Path) -> None:
    """Download the archive and unpack it into the new folder `part`.

    Raises:
        OSError: It cannot be had, or not be stored; the text says why.
    """
    part.mkdir()
    archive = part / ARCHIVE
    download(URL, archive, sha256=SHA256, size=SIZE, title=TITLE)
    try:
        unpack(archive, part)
    except DataDamaged as error:
        raise DownloadFailed(str(error)) from error
    archive.unlink()


def unpack_by_hand() -> None:
    """Unpack the archive that a person put into the data folder, if the files are not there yet.

    Raises:
        DataDamaged: The archive is not the publisher's.
        DataNotFound: It is, but it cannot be unpacked there.
        NotADirectoryError: See `data_folder`.
    """
    archive, folder = data_folder() / ARCHIVE, data_folder() / FOLDER
    if os.path.lexists(folder) or not os.path.lexists(archive):
        return

    def make(part: Path) -> None:
        _check_archive(archive)
        part.mkdir()
        unpack(archive, part)

    try:
        store(folder, make, title=TITLE, doing="unpacking it")
    except OSError as error:
        raise DataNotFound(
            f"{archive} is there, but it cannot be unpacked: {error}\n"
            f"Unpack it yourself, and set COURSE_DATA to the folder that then holds {FOLDER}."
        ) from error


def unpack(archive: Path, into: Path) -> None:
    """Write the files of CIFAR-10, and nothing else, from the archive into the folder `into`.

    Raises:
        DataDamaged: It is no such archive, it lacks a file, or it holds something that is not
            in the folder `FOLDER`.
        OSError: Nothing can be written.
    """
    wanted = set(checksums())
    try:
        with tarfile.open(archive, "r:gz") as packed:
            for member in packed:
                outer, *inner = PurePosixPath(member.name).parts or ("",)
                if outer != FOLDER or ".." in inner:
                    raise damaged(archive, f"it holds {member.name!r}, which is not {TITLE}'s")
                if len(inner) == 1 and inner[0] in wanted and member.isreg():
                    with packed.extractfile(member) as content, open(into / inner[0], "wb") as file:
                        shutil.copyfileobj(content, file)
                    wanted.remove(inner[0])
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(archive, f"it is no archive that can be unpacked: {error}") from error
    if wanted:
        raise damaged(archive, f"it lacks {', '.join(sorted(wanted))}")


def check(folder: Path) -> None:
    """Compare every file in the folder with its checksum.

    Raises:
        DataDamaged: A file is missing, unreadable, or not the publisher's byte for byte.
    """
    if not folder.is_dir():
        raise damaged(folder, "it is not a folder")
    for name, right in checksums().items():
        path = folder / name
        try:
            found = _digest(path, "md5")
        except FileNotFoundError as error:
            deeper = (folder / FOLDER / name).is_file()
            hint = f"; {FOLDER} lies in a second folder of that name" if deeper else ""
            raise _wrong(path, f"it is missing{hint}") from error
        except OSError as error:
            raise _wrong(path, f"it cannot be read: {error.strerror or error}") from error
        if found != right:
            size = path.stat().st_size
            raise _wrong(
                path, f"it is damaged: its md5 is {found} instead of {right} ({size:,} bytes)"
            )


def read(folder: Path) -> dict[str, np.ndarray]:
    """Read the files, which `check` has passed, and look at what they hold.

    Returns:
        ``train_images`` and ``test_images``: uint8, N × 3 × 32 × 32; ``train_labels`` and
        ``test_labels``: int64, N. In the publisher's order.

    Raises:
        DataDamaged: Their content is not what it should be.
    """
    from torchvision.datasets import CIFAR10

    arrays = {}
    for part, listed in (("train", CIFAR10.train_list), ("test", CIFAR10.test_list)):
        try:
            found = CIFAR10(folder.parent, train=part == "train", download=False)
            names, images = tuple(found.classes), found.data.transpose(0, 3, 1, 2)
            labels = np.asarray(found.targets, dtype=np.int64)
        except Exception as error:  # of whatever a pickle may hold
            fault = f"torchvision cannot read the {part} files: {type(error).__name__}: {error}"
            raise damaged(folder, fault) from error
        if names != CLASSES:
            raise _wrong(folder / CIFAR10.meta["filename"], f"it names other classes: {names}")
        paths = [folder / name for name, _ in listed]
        _check_content(paths, IMAGES[part], images, labels)
        arrays[f"{part}_images"] = np.ascontiguousarray(images)
        arrays[f"{part}_labels"] = labels
    return arrays


def _check_content(paths: list[Path], n: int, images: np.ndarray, labels: np.ndarray) -> None:
    """Refuse images or labels that are not CIFAR-10's: `n` of them, spread evenly over files."""
    where = paths[0] if len(paths) == 1 else paths[0].parent
    if images.dtype != np.uint8 or len(images) != n:
        raise _wrong(where, f"it has {len(images):,} {images.dtype} images instead of {n:,} uint8")
    if len(labels) != n:
        raise _wrong(where, f"it has {len(labels):,} labels for {n:,} images")
    wrong = (labels < 0) | (labels >= len(CLASSES))
    if wrong.any():
        at = int(wrong.argmax())
        file, row = divmod(at, n // len(paths))
        raise _wrong(
            paths[file], f"image {row:,} has the label {labels[at]}; labels go from 0 to 9"
        )
    counts = np.bincount(labels, minlength=len(CLASSES))
    for name, count in zip(CLASSES, counts, strict=True):
        if count != n // len(CLASSES):
            fault = f"class {name} has {count:,} images instead of {n // len(CLASSES):,}"
            raise _wrong(where, fault)


def _check_archive(archive: Path) -> None:
    """Refuse an archive that is not the publisher's, before it is opened."""
    try:
        size, found = archive.stat().st_size, _digest(archive, "sha256")
    except OSError as error:
        raise damaged(archive, f"it cannot be read: {error.strerror or error}") from error
    if size != SIZE:
        raise damaged(archive, f"it has {size:,} bytes instead of {SIZE:,}")
    if found != SHA256:
        raise damaged(archive, f"it is damaged: its sha256 is {found} instead of {SHA256}")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:  # none of this is about secrets: where MD5 is forbidden, it runs
        new = getattr(hashlib, algorithm)
        return hashlib.file_digest(file, lambda: new(usedforsecurity=False)).hexdigest()


def _wrong(path: Path, fault: str) -> DataDamaged:
    """Return the error for a file of the folder: its name, the fault, the way out."""
    return DataDamaged(
        f"{path}: {fault}\n"
        f"Put a fresh copy there, or delete the whole folder {FOLDER} and the course will look for "
        "another."
    )
