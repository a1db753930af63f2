"""Texts to token ids once, each rank its share: what lesson 30 writes out, for those after it.

Invariants:

- The ids are those of the tokenizer called plainly, in the order of the texts, whatever the number
  of ranks.
- A piece is known by the texts it lies beside and by the mark of its tokenizer. What is there is
  found by any number of ranks, and nothing is launched when nothing is missing.
- Names and marks are those of lesson 30: what it has made is found here.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course_lib.group import process_group
from course_lib.keeping import fingerprint, keep
from course_lib.launcher import launch
from course_lib.reporting import progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PIECES = 20


def tokenise(
    texts: Sequence[str],
    tokenizer: "PreTrainedTokenizerFast",
    special_tokens: bool = False,
    **options,
) -> list[np.ndarray]:
    """Return the token ids of every text; what is missing is made on several ranks, and kept.

    Args:
        texts: A list or a column of a frame.
        tokenizer: A fast tokenizer that lies in a folder: its ``name_or_path`` names it.
        special_tokens: Whether it adds what it puts around a text (``[CLS]`` … ``[SEP]``).
        **options: For `launch`: ``nprocs``, ``start_method``.

    Returns:
        One int64 array a text, as long as the text has tokens: nothing is cut.

    Raises:
        ValueError: The tokenizer lies in no folder, so that a rank could not load it.
        RankError: A rank failed.
        OSError: It can be stored nowhere.
    """
    texts, place = list(texts), Path(tokenizer.name_or_path)
    if not tokenizer.name_or_path or not place.is_dir():
        raise ValueError(
            f"tokenise: {tokenizer.name_or_path!r} is no folder, and ranks load the tokenizer from "
            "where its name_or_path says: save it first (tokenizer.save_pretrained(folder)) and "
            "load it from there"
        )
    if not texts:
        return []
    folder = keep("imdb-texts", fingerprint(texts), lambda path: _write(texts, path))
    mark, pieces = _mark(tokenizer, special_tokens), min(PIECES, len(texts))
    files = [folder / f"ids-{mark}-{k}-of-{pieces}.arrow" for k in range(pieces)]
    missing = [k for k, file in enumerate(files) if not file.exists()]
    if missing:
        launch(_encode, missing, files, mark, str(place.resolve()), special_tokens, **options)
    return [row for file in files for row in _read(file)]


def _write(texts: list[str], path: Path) -> None:
    from datasets import Dataset

    with _no_bars():
        Dataset.from_dict({"text": texts}).save_to_disk(path)


def _mark(tokenizer: "PreTrainedTokenizerFast", special_tokens: bool) -> str:
    from tokenizers import Tokenizer

    # A call with padding or truncation leaves its wish in the tokenizer; it is no part of the ids.
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    return fingerprint(plain.to_str(), *(["special tokens"] if special_tokens else []))


def _encode(
    missing: list[int], files: list[Path], mark: str, place: str, special_tokens: bool
) -> int:
    """Make every N-th missing piece: what a rank does."""
    from datasets import load_from_disk
    from transformers import AutoTokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a rank has one core

    def ids(part: dict) -> dict:
        found = words(part["text"], add_special_tokens=special_tokens, verbose=False)
        return {"ids": found["input_ids"]}

    with process_group() as pg, _no_bars():  # the rank's own bar is enough
        words = AutoTokenizer.from_pretrained(place)
        reviews = load_from_disk(files[0].parent)
        mine = missing[pg.rank :: pg.world_size]
        for k in progress(mine, "tokenising"):
            piece = reviews.shard(len(files), k, contiguous=True)
            how = {"cache_file_name": str(files[k]), "new_fingerprint": f"{mark}-{k}"}
            piece.map(ids, batched=True, remove_columns=["text"], **how)
        return len(mine)


def _read(file: Path) -> list[np.ndarray]:
    from datasets import Dataset

    rows = []
    for chunk in Dataset.from_file(str(file)).data.column("ids").chunks:
        values = chunk.values.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
        rows += [values[begin:end] for begin, end in pairwise(chunk.offsets.tolist())]
    return rows


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """The bars of the `datasets` library are off, and afterwards as they were."""
    import datasets

    were_on = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_on:
            datasets.enable_progress_bars()
