"""Text to numbers: a vocabulary learnt from training texts, and token ids cut to one length.

Invariants:

- A vocabulary is learnt from the texts that are given and from nothing else: give it training
  texts. What was learnt is kept, so that all lessons of a machine count the same tokens.
- Token 0 is padding, in every vocabulary made here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course_lib.keeping import fingerprint, keep

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def learn_vocabulary(texts: Sequence[str], size: int = 8192) -> "PreTrainedTokenizerFast":
    """Learn the pieces of words (WordPiece) that are common in these texts.

    What was learnt is kept, and found again for the same texts and size.

    Args:
        texts: Training texts, a list or a column of a frame.
        size: How many different tokens there will be, at most; 0 to 4 are the special ones.

    Returns:
        A tokenizer of the `transformers` library: lower case, ``[PAD]`` is token 0. Its
        ``name_or_path`` is the folder where it is kept.

    Raises:
        ValueError: No text, or a size that leaves no room for pieces.
        OSError: It can be stored nowhere.
    """
    from transformers import PreTrainedTokenizerFast

    texts = list(texts)
    if not texts or size < 300:
        raise ValueError(
            f"{len(texts)} texts, size={size}: a vocabulary is learnt from at least one text, and "
            "needs a size of 300 or more (the letters alone take about 200)"
        )

    def make(folder: Path) -> None:
        PreTrainedTokenizerFast(tokenizer_object=_learn(texts, size), **SPECIAL).save_pretrained(
            folder
        )

    folder = keep("vocabulary", fingerprint("WordPiece, lower case", str(size), texts), make)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def cut_and_pad(
    ids: Sequence[Sequence[int]], longest: int, padding: int = 0
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Put texts of any length into one table: long ones lose their middle, short ones are filled.

    Reviewers say what they think at the beginning or at the end: so a long text keeps its first
    ``longest // 2`` tokens and as many of its last ones as there is room for.

    Args:
        ids: Token ids, one sequence a text, none of them below 0 or the padding.
        longest: How many tokens of a text stay, 2 or more.
        padding: The id that fills a row up: a checkpoint's own ``pad_token_id``.

    Returns:
        The ids, int32 of shape ``(texts, longest)``, and how many of each row are no padding,
        int64 of shape ``(texts,)``.

    Raises:
        ValueError: A text without a token, or with an id that is no token's; `longest` below 2.
    """
    import torch

    if longest < 2:
        raise ValueError(f"longest={longest}: at least 2 tokens of a text must stay")
    table = np.full((len(ids), longest), padding, dtype=np.int32)
    lengths = np.zeros(len(ids), dtype=np.int64)
    head = longest // 2
    for row, text in enumerate(ids):
        found = np.asarray(text, dtype=np.int64)
        if not len(found):
            raise ValueError(f"text {row} has no token: a table has no empty rows")
        if found.min() < 0 or (found == padding).any():
            fault = int(found[(found < 0) | (found == padding)][0])
            raise ValueError(f"text {row} has the id {fault}: {padding} is kept for the padding")
        if len(found) > longest:
            found = np.concatenate([found[:head], found[head - longest :]])
        table[row, : len(found)] = found
        lengths[row] = len(found)
    return torch.from_numpy(table), torch.from_numpy(lengths)


def length_buckets(
    rows: "torch.Tensor", lengths: "torch.Tensor", size: int, seed: int, stretch: int = 50
) -> list["torch.Tensor"]:
    """Deal rows to batches of texts of like length, in random order: what lesson 30 writes out.

    The rows are shuffled, stretches of them are sorted by length and cut into batches, and the
    batches are shuffled. Torch's global random numbers are neither used nor changed.

    Args:
        rows: Numbers of texts, int64 of shape ``(texts,)``.
        lengths: The length of every text there is, by its number.
        size: Texts in a batch. What is left over at the end of a stretch stays out.
        seed: The same seed deals alike on all ranks.
        stretch: How many batches are sorted together; 1 does not sort across batches.

    Returns:
        The batches, each int64 of shape ``(size,)``.
    """
    import torch

    dice = torch.Generator().manual_seed(seed)
    rows, found = rows[torch.randperm(len(rows), generator=dice)], []
    for part in rows.split(stretch * size):
        alike = part[lengths[part].argsort()]
        found += [batch for batch in alike.split(size) if len(batch) == size]
    return [found[k] for k in torch.randperm(len(found), generator=dice)]


def _learn(texts: list[str], size: int):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer
