"""Weights that torchvision publishes, where they can be had; None, said so, where they cannot.

Why not torchvision's own ``weights=``: it trusts whatever lies in torch's cache, waits for a dead
line for minutes, and lets N ranks download the same file N times. The file and its place are the
same, ``$TORCH_HOME/hub/checkpoints``, so what one of the two has downloaded serves the other.

Invariants:

- A file's name holds the beginning of its SHA-256. It is compared before anything is read, also for
  a file that somebody put there. A file that is there but wrong is an error that names it: it is
  never passed over.
- One process of the machine downloads; the others wait, then find the file, whole.
- With ``COURSE_OFFLINE=1`` nothing is downloaded.
"""

import hashlib
import http.client
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError

from course_lib.data import _finding
from course_lib.data._download import CONNECT_TIMEOUT, DownloadFailed

if TYPE_CHECKING:
    import torch
    from torchvision.models import Weights, WeightsEnum


def load(
    builder: "Callable[..., torch.nn.Module]",
    weights: "Weights | WeightsEnum | None" = None,
) -> "dict[str, torch.Tensor] | None":
    """Find the weights of a torchvision model, and say what was found.

    Args:
        builder: The function that makes the model: ``torchvision.models.resnet18``.
        weights: Which of its weights; None for those torchvision recommends.

    Returns:
        A ``state_dict`` on the CPU that fits ``builder()``; or None, if there is no file and no
        download, and then the reader has been told what to do.

    Raises:
        DataDamaged: The file is there, but it is cut off, another one, or does not fit the model;
            the text names it.
    """
    import torch
    from torchvision.models import get_model_weights

    weights = weights or get_model_weights(builder).DEFAULT
    path = _folder() / weights.url.rsplit("/", 1)[-1]
    title = f"torchvision's weights of {builder.__name__}"
    if not os.path.lexists(path):
        what = _finding.Publication(title, path.name, weights.url, lambda to: _get(weights.url, to))
        try:
            _finding.fetch(what, path)
        except OSError as error:
            print(_STORY.format(title=title, path=path, error=error, url=weights.url), flush=True)
            return None
    try:
        _compare(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _finding.DataDamaged:
        raise
    except OSError as error:
        raise _finding.damaged(path, f"it cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever the unpickler makes of it
        raise _finding.damaged(path, f"it holds no weights: {type(error).__name__}") from error
    with torch.device("meta"):
        model = builder(num_classes=len(weights.meta["categories"]))
    if fault := _misfit(found, model.state_dict()):
        raise _finding.damaged(path, f"it does not fit {builder.__name__}: {fault}")
    print(f"{title}: {path}", flush=True)
    return found


_STORY = """\
NO PRETRAINED WEIGHTS: {title} are not here.
  Looked for:  {path} (no such file)
  Download:    {error}
  What to do:  get {url}
               and put it there under that name, or set TORCH_HOME to the folder that has
               it in hub/checkpoints."""


def _folder() -> Path:
    import torch

    return Path(torch.hub.get_dir()).expanduser() / "checkpoints"


def _beginning(name: str) -> str:
    """The beginning of the SHA-256 that the name of a file promises; "" for none."""
    from torch.hub import HASH_REGEX

    found = HASH_REGEX.search(name)
    return found.group(1) if found else ""


def _get(url: str, to: Path) -> None:
    """Download `url` with torch's own loader, which shows a bar and compares the SHA-256."""
    from torch.hub import download_url_to_file

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT)  # the loader has no limit of its own
    try:
        download_url_to_file(url, str(to), _beginning(url.rsplit("/", 1)[-1]))
    except (RuntimeError, http.client.HTTPException) as error:  # the first is a wrong SHA-256
        raise DownloadFailed(f"what came is not the file: {error}") from error
    except OSError as error:
        told = not isinstance(error, HTTPError) and getattr(error, "reason", None)
        raise DownloadFailed(str(told or error)) from error
    finally:
        socket.setdefaulttimeout(before)


def _compare(path: Path) -> None:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    right = _beginning(path.name)
    if not digest.startswith(right):
        size = path.stat().st_size
        raise _finding.damaged(
            path,
            f"it is cut off or another file: its sha256 begins with {digest[: len(right)]}, not "
            f"with the {right} of its name ({size:,} bytes)",
        )


def _misfit(found: object, wanted: "dict[str, torch.Tensor]") -> str:
    """What is wrong with the names or the shapes; "" for nothing."""
    if not isinstance(found, dict):
        return f"it holds a {type(found).__name__}, not a state_dict"
    for name in [*wanted, *found]:
        if name not in found:
            if name.endswith("num_batches_tracked"):  # files of 2017 lack it, and nothing needs it
                continue
            return f"{name} is missing"
        if name not in wanted:
            return f"{name} is unknown to it"
        has, needs = tuple(getattr(found[name], "shape", "?")), tuple(wanted[name].shape)
        if has != needs:
            return f"{name} has shape {has}, not {needs}"
    return ""
