"""Things a lesson makes once and needs again: a vocabulary, token ids, an encoder, a slow score.

Invariants:

- A thing is known by its name and by a fingerprint of what it was made from. Made from something
  else it is another thing: what is out of date is never found.
- It is there whole or not at all, made by one process of the machine while the others wait.
- What is kept is plain files; what reads them decides whether to trust them. Nothing is unpickled
  here.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from course_lib.data._decoded import places
from course_lib.data._storing import store

FOLDER = ".made"


def fingerprint(*parts: str | bytes | Iterable[str]) -> str:
    """Return 16 hexadecimal digits that change when any part of what is given does.

    Args:
        parts: Texts, bytes, or any number of texts: a list, a column of a frame.
    """
    digest = hashlib.sha256()
    for part in parts:
        texts = [part] if isinstance(part, str | bytes) else part
        for text in texts:
            raw = text.encode() if isinstance(text, str) else text
            digest.update(len(raw).to_bytes(8, "little"))  # so that "ab", "c" is not "a", "bc"
            digest.update(raw)
        digest.update(b"\xff" * 8)  # no text is that long: here a part ends
    return digest.hexdigest()[:16]


def keep(name: str, mark: str, make: Callable[[Path], None]) -> Path:
    """Return the path of a kept file or folder, after making it if it is not there.

    It lies in ``.made`` in the data folder; where nothing can be stored there, in the user's cache
    folder, or else in the system's folder for temporary files. ``course clean --data`` removes it.

    Args:
        name: What its name begins with: ``"imdb-tokens"``. A suffix (``"scores.json"``) stays last.
        mark: The `fingerprint` of everything it is made from.
        make: ``make(path)`` writes it as a file or a folder under the path it is given. What it
            raises is passed on, and nothing is kept.

    Raises:
        ValueError: The name or the mark is no plain part of a file's name.
        OSError: It can be stored nowhere; the text says where it was tried, and what to do.
    """
    for part in (name, mark):
        if not part or Path(part).name != part or part.startswith("."):
            raise ValueError(f"keep: {part!r} cannot be a part of a file's name")
    stem, dot, suffix = name.partition(".")
    faults, failed = [], []

    def made(part: Path) -> None:
        try:
            make(part)
        except BaseException as error:
            failed.append(error)  # its own fault, not the folder's: no other place helps
            raise

    for place in places(FOLDER):
        path = place / f"{stem}-{mark}{dot}{suffix}"
        if path.exists():
            return path
        try:
            store(path, made, title=name, doing="making it")
        except OSError as error:
            if failed:
                raise
            faults.append(f"  {place}: {error.strerror or error}")
        else:
            return path
    raise OSError(
        f"{name} can be stored nowhere.\n"
        + "\n".join(faults)
        + "\nMake room, or set COURSE_DATA to a folder that you may write to."
    )
