"""Checkpoints of encoders that can be fine-tuned: in a folder, or on the Hugging Face hub by name.

Why not the library's own ``from_pretrained(name)``: it waits long for a dead line, lets N ranks
ask for the same files N times, unpickles where there is nothing better, and fills gaps in what it
finds with random numbers.

Invariants:

- Every file is looked at before a folder is returned (`course_lib._checkpoint_files`): what `find`
  returns can be loaded, and only a classifier's own weights, its head, may be missing from it. What
  is there but wrong is an error.
- Nothing is unpickled, and no code that comes with a checkpoint is run.
- One process of the machine downloads; the others wait, then find the folder, whole.
- With ``COURSE_OFFLINE=1`` nothing is downloaded.
"""

import os
import re
from pathlib import Path

from course_lib._checkpoint_files import CONFIG, WANTED, Lacking, Unfit, brief, inspect, quiet
from course_lib.data import _finding
from course_lib.data._download import CONNECT_TIMEOUT, READ_TIMEOUT, DownloadFailed
from course_lib.data._hub import ask
from course_lib.data._storing import remove


def find(name: str) -> Path | None:
    """Find a checkpoint of an encoder that can be fine-tuned to classify texts; say what was found.

    It is looked for in ``$COURSE_DATA/models``, under its whole name or the last part of it; in the
    cache of the Hugging Face hub; and on the hub, from where it gets into ``$COURSE_DATA/models``.

    Args:
        name: A name on the hub (``"distilbert-base-uncased"``), or the path of a folder.

    Returns:
        The folder, with all that ``from_pretrained`` of a model and of a tokenizer want; or None,
        if nothing has that name, and then the reader has been told what to do.

    Raises:
        DataDamaged: It is there, but a file is missing, cut off, or does not fit the others; the
            text names it.
        DataNotFound: `name` is a path, and there is nothing.
        ValueError: `name` is neither a path nor can anything on the hub have that name.
        NotADirectoryError: ``COURSE_DATA`` names something else than a folder.
    """
    from huggingface_hub import constants

    name = os.fspath(name)
    if _is_path(name):
        folder = Path(name).expanduser().absolute()
        if not os.path.lexists(folder):
            raise _finding.DataNotFound(f"{folder}: no such folder.\n{_ADVICE}")
        return _checked(name, folder)
    _refuse_impossible(name)
    models = _finding.data_folder() / "models"
    kept = models / name
    for folder in (kept, models / kept.name):
        if os.path.lexists(folder):
            return _checked(name, folder)
    cached, lacks = _cached(name), "not in it"
    if cached:
        try:
            return _checked(name, cached)
        except _finding.DataDamaged as error:  # the library caches file by file, as they are asked
            if not isinstance(error.__cause__, Lacking):
                raise
            lacks = f"in it, {error.__cause__}"
    url = f"{constants.ENDPOINT}/{name}"
    what = _finding.Publication(name, name, url, lambda part: _download(name, part))
    try:
        _finding.fetch(what, kept)
    except OSError as error:
        cache = constants.HF_HUB_CACHE
        story = dict(name=name, kept=kept, cache=cache, lacks=lacks, error=error, url=url)
        print(_STORY.format(**story), flush=True)
        return None
    return _checked(name, kept)


_ADVICE = """\
Give the folder that holds a checkpoint's config.json, model.safetensors and tokenizer files,
or a checkpoint's name on the Hugging Face hub, such as "distilbert-base-uncased"."""

_STORY = """\
NO CHECKPOINT: {name} is not here.
  Looked for:  {kept} (no such folder),
               and in the hub's cache {cache} ({lacks})
  Download:    {error}
  What to do:  get config.json, model.safetensors and the tokenizer's files from {url}
               and put them into that folder; or give the path of a folder that holds them.
               (COURSE_DATA and HF_HOME say where the first two lie.)"""


def _is_path(name: str) -> bool:
    written = name.startswith(("/", ".", "~")) or re.match(r"[A-Za-z]:", name)
    return bool(written) or os.path.isdir(name)


def _refuse_impossible(name: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(
            f"{name!r} is no folder here, and nothing on the Hugging Face hub can be called that.\n"
            + _ADVICE
        ) from error


def _cached(name: str) -> Path | None:
    """Where the hub's cache has at least the configuration."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, CONFIG)
    return Path(found).parent if isinstance(found, str) else None


def _download(name: str, part: Path) -> None:
    """Download a checkpoint into the new folder `part`, and look at every file."""
    known = ask("models", name, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
    if known is None:
        raise DownloadFailed("not tried, because HF_HUB_OFFLINE is set")
    print(f"{name}: downloading it from the Hugging Face hub; this may take minutes", flush=True)
    notes = part / ".cache"  # the library's own, of no use later
    try:
        with quiet():
            from huggingface_hub import snapshot_download

            snapshot_download(known, local_dir=part, cache_dir=notes, allow_patterns=WANTED)
        remove(notes)
        inspect(part)
    except Unfit as fault:
        raise DownloadFailed(f"what the hub has cannot be used: {fault}") from fault
    except Exception as error:  # of whatever that library and those below it raise
        why = brief(error.__cause__ or error)  # the outer one often says: check your connection
        raise DownloadFailed(f"the hub's library could not get it: {why}") from error


def _checked(name: str, folder: Path) -> Path:
    try:
        print(f"{name}: {inspect(folder)}: {folder}", flush=True)
    except Unfit as fault:
        raise _finding.damaged(folder, str(fault)) from fault
    return folder
