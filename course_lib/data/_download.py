"""Download one file from its publisher, and keep it only if it is the right one.

Why not a bare ``urlretrieve``: a learner may sit behind a portal that answers every request with a
login page, on a line that goes dead half way, or in front of a full disk. Each of these has to end
in one sentence that a person can act on.

Invariants:

- Nothing waits in silence forever: there is a limit for connecting, another for a pause in between.
- When `download` returns, the file has the size and the SHA-256 that the course knows.
- Everything that can go wrong on the way is one kind of error, `DownloadFailed`.

One process at a time, temporary names and clearing up: see `course_lib.data._finding`.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

CONNECT_TIMEOUT = 5.0  # seconds within which the publisher must have accepted the connection
READ_TIMEOUT = 30.0  # seconds without a byte after which a download is given up


class DownloadFailed(OSError):
    """The publisher's file could not be had; the text says why, in one sentence."""


def download(
    url: str,
    to: Path,
    *,
    sha256: str,
    size: int,
    title: str,
    connect_timeout: float = CONNECT_TIMEOUT,
    read_timeout: float = READ_TIMEOUT,
) -> None:
    """Stream `url` into the file `to`, with a bar, and check what came.

    Args:
        url: Where the publisher keeps the file.
        to: A temporary name. After an error an incomplete file may lie there.
        sha256: The checksum it must have, as 64 hexadecimal digits.
        size: The length it must have, in bytes.
        title: What the bar is called.
        connect_timeout: Seconds allowed for each attempt to connect.
        read_timeout: Seconds of silence allowed once connected.

    Raises:
        DownloadFailed: No connection, silence, a status other than 200, too many or too few
            bytes, another checksum, or no room to store them.
    """
    import requests  # here, so that importing a data set stays cheap

    host = urlsplit(url).hostname
    try:
        with requests.get(
            url,
            stream=True,
            timeout=(connect_timeout, read_timeout),
            headers={"Accept-Encoding": "identity"},  # count and check the file's own bytes
        ) as response:
            if response.status_code != 200:
                raise DownloadFailed(f"{host} answered {response.status_code} {response.reason}")
            got, found = _store(response.iter_content(1 << 16), to, size=size, title=title)
    except DownloadFailed:
        raise
    except requests.ConnectTimeout as error:
        raise DownloadFailed(f"{host} did not answer within {connect_timeout:g} s") from error
    except requests.RequestException as error:
        cause = root_cause(error)
        if isinstance(cause, TimeoutError):
            raise DownloadFailed(f"nothing came from {host} for {read_timeout:g} s") from error
        reason = getattr(cause, "strerror", None) or cause
        raise DownloadFailed(f"the connection to {host} failed: {reason}") from error
    except OSError as error:
        reason = error.strerror or error
        raise DownloadFailed(f"it cannot be stored in {to.parent}: {reason}") from error

    if got != size:
        at_least = "at least " if got > size else ""
        raise DownloadFailed(f"{host} sent {at_least}{got:,} bytes where the file has {size:,}")
    if found != sha256:
        raise DownloadFailed(
            f"what {host} sent is not the file the course knows: "
            f"its sha256 is {found} instead of {sha256}"
        )


def _store(chunks: Iterable[bytes], to: Path, *, size: int, title: str) -> tuple[int, str]:
    """Write `chunks` to the file `to`; return how many bytes came and their SHA-256.

    Ends early once more than `size` bytes have come, so that a wrong answer cannot fill the disk.
    """
    from tqdm import tqdm  # the plain one: widgets are saved frozen at 0 %

    got, digest = 0, hashlib.sha256()
    with (
        open(to, "wb") as file,
        tqdm(total=size, unit="B", unit_scale=True, desc=title) as bar,
    ):
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            got += len(chunk)
            bar.update(len(chunk))
            if got > size:
                break
    return got, digest.hexdigest()


def reach(url: str, name: str) -> None:
    """Ask a server for anything, before a library with more patience than the course does.

    Args:
        url: Any of its pages. Whatever it answers is well.
        name: What readers call it.

    Raises:
        DownloadFailed: There is no connection.
    """
    import requests

    try:
        requests.get(url, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), stream=True).close()
    except requests.RequestException as error:
        cause = root_cause(error)
        reason = getattr(cause, "strerror", None) or cause
        raise DownloadFailed(f"{name} cannot be reached: {reason}") from error


def root_cause(error: BaseException) -> BaseException:
    """Return the error at the bottom: network libraries wrap a short one into several long ones."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error
