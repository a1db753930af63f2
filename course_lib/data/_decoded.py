"""Arrays that are decoded once on a machine, and mapped by every process that uses them.

Why: N ranks that each decode a set of images hold it N times, and spend N times the work on it.
Here the first process that needs it writes it to disk as plain arrays; every process maps those
files, so that the ranks of a machine share one copy in the system's page cache.

Invariants:

- What is mapped is what was stored: `keep` compares every byte with a checksum, `open_arrays` the
  sizes. What is cut off, changed or of another fingerprint is decoded again, never used.
- A mapping is copy-on-write: a process that writes into a tensor changes its own copy only.
- Only plain arrays are read: nothing is ever unpickled.
"""

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course_lib._files import write_whole
from course_lib.data._finding import data_folder, default_folder
from course_lib.data._storing import store

if TYPE_CHECKING:
    import torch

FOLDER = ".decoded"
_CONTENTS = "contents.json"  # fingerprint; of each array: its file's size and checksum
_FORMAT = "1"  # changes when the files are written in another way


def fingerprint(*parts: str) -> str:
    """Return 16 hexadecimal digits that change when any of `parts` does."""
    return hashlib.sha256("\0".join((_FORMAT, *parts)).encode()).hexdigest()[:16]


def keep(
    name: str, mark: str, decode: Callable[[], Mapping[str, np.ndarray]], *, title: str
) -> Path:
    """Return the folder of the decoded arrays, after decoding them if need be.

    It lies in the data folder; where nothing can be stored there, in the user's cache folder, or
    else in the system's folder for temporary files.

    Args:
        name: What the folder's name begins with.
        mark: The `fingerprint` of what the arrays are decoded from.
        decode: Decodes them; called only if no folder has them. It must raise no `OSError`, which
            here means that nothing can be stored.
        title: What readers call the data.

    Raises:
        OSError: They can be stored nowhere; the text says where it was tried, and what to do.
    """
    decoded: dict[str, np.ndarray] = {}

    def make(part: Path) -> None:
        part.mkdir()  # fails before any work is done where it must
        if not decoded:
            decoded.update(decode())
        _write(part, mark, decoded)

    def there(folder: Path) -> bool:
        return _fault(folder, mark, to_the_byte=True) is None

    faults = []
    for place in places():
        folder = place / f"{name}-{mark}"
        if there(folder):
            return folder
        try:
            store(folder, make, title=title, doing="decoding it", there=there)
        except OSError as error:
            faults.append(f"  {place}: {error.strerror or error}")
        else:
            return folder
    raise OSError(
        f"{title}: the decoded images can be stored nowhere.\n"
        + "\n".join(faults)
        + "\nMake room, or set COURSE_DATA to a folder that you may write to."
    )


def open_arrays(folder: Path, mark: str) -> dict[str, "torch.Tensor"]:
    """Map the arrays that `keep` stored.

    Returns:
        Name → tensor on the CPU, with the shape and the type the array had. Do not write into it:
        a write changes a copy that this process alone has.

    Raises:
        FileNotFoundError: They are no longer there as they were stored.
    """
    import torch

    if fault := _fault(folder, mark):
        raise FileNotFoundError(f"{folder}: {fault}. Call load() again: it makes them anew.")
    names = json.loads((folder / _CONTENTS).read_text())["files"]
    return {
        Path(name).stem: torch.from_numpy(np.load(folder / name, mmap_mode="c")) for name in names
    }


def places(name: str = FOLDER) -> Iterator[Path]:
    """Where a folder of this name may lie that the course makes for itself, the best first."""
    tried = set()
    for place in (data_folder, default_folder, _own_temporary_folder):
        try:
            folder = place() / name
        except (OSError, RuntimeError):  # no such folder for this user
            continue
        if folder not in tried:
            tried.add(folder)
            yield folder


def _own_temporary_folder() -> Path:
    """Return this user's folder among the temporary files, where others put files too.

    Raises:
        PermissionError: It belongs to somebody else, or others may write to it.
    """
    folder = Path(tempfile.gettempdir(), f"torch-distributed-course-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written to by others")
    return folder


def _write(folder: Path, mark: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays to files, safely on disk, and then what they hold."""
    files = {}
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        files[path.name] = {"size": path.stat().st_size, "crc32": _checksum(path)}
    contents = json.dumps({"fingerprint": mark, "files": files}, indent=1)
    write_whole(folder / _CONTENTS, contents.encode())


def _fault(folder: Path, mark: str, *, to_the_byte: bool = False) -> str | None:
    """Return what is wrong with a folder of decoded arrays; None if nothing is."""
    try:
        contents = json.loads((folder / _CONTENTS).read_text())
        if contents["fingerprint"] != mark:
            return "the decoded images are of other data"
        for name, known in contents["files"].items():
            path = folder / name
            if path.stat().st_size != known["size"]:
                return f"{name} has another size than when it was stored"
            if to_the_byte and _checksum(path) != known["crc32"]:
                return f"{name} has changed since it was stored"
    except OSError as error:
        return f"the decoded images cannot be read ({error.strerror or error})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{_CONTENTS} is damaged"
    return None


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
