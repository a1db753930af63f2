"""Texts to token ids: any number of ranks gives the same, and what is there is found again."""

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from course_lib import tokenising
from course_lib.keeping import fingerprint, keep
from course_lib.tokenising import tokenise
from course_lib.tokens import learn_vocabulary

WORDS = [
    "a",
    "good",
    "film",
    "evening",
    "lost",
    "not",
    "the",
    "café",
    "found",
    "it",
    "was",
    "and",
    "bad",
]
TEXTS = [
    " ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 2 + i % 7)) + "!" * (i % 3)
    for i in range(53)
]
TEXTS[7] = ""  # a text may have no token


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def data_folder(folder, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(folder))


@pytest.fixture
def tokenizer():
    return learn_vocabulary(TEXTS, 300)


@pytest.fixture
def launches(monkeypatch):
    """What was launched: which pieces were missing, and with which options."""
    found, launch = [], tokenising.launch

    def noted(function, missing, *args, **options):
        found.append((missing, options))
        return launch(function, missing, *args, **options)

    monkeypatch.setattr(tokenising, "launch", noted)
    return found


def plainly(tokenizer, texts, **how):
    return tokenizer(texts, padding=False, truncation=False, **how)["input_ids"]


def as_lists(rows):
    assert all(isinstance(row, np.ndarray) and row.dtype == np.int64 for row in rows)
    return [row.tolist() for row in rows]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_any_number_of_ranks_gives_what_the_tokenizer_gives(ranks, tokenizer, launches):
    texts = [f"{text} {ranks}" for text in TEXTS]  # other texts: nothing of them is there
    expected = plainly(tokenizer, texts, add_special_tokens=False)
    assert as_lists(tokenise(texts, tokenizer, nprocs=ranks)) == expected
    assert launches == [(list(range(20)), {"nprocs": ranks})]
    assert as_lists(tokenise(texts, tokenizer, nprocs=4 - ranks)) == expected
    assert len(launches) == 1


def test_a_text_without_tokens_and_fewer_texts_than_pieces(tokenizer):
    texts = ["a good film", "", "lost"]
    rows = as_lists(tokenise(texts, tokenizer, nprocs=1))
    assert rows == plainly(tokenizer, texts, add_special_tokens=False)
    assert rows[1] == []
    assert tokenise([], tokenizer) == []


def test_only_missing_pieces_are_made(tokenizer, launches, folder):
    texts = [*TEXTS, "only here"]
    whole = as_lists(tokenise(texts, tokenizer, nprocs=1))
    (kept,) = {
        file.parent
        for file in folder.glob(".made/imdb-texts-*/*-of-20.arrow")
        if file.parent.name.endswith(fingerprint(texts))
    }
    for k in (3, 11):
        (file,) = kept.glob(f"ids-*-{k}-of-20.arrow")
        file.unlink()
    assert as_lists(tokenise(texts, tokenizer, nprocs=2)) == whole
    assert [missing for missing, _ in launches] == [list(range(20)), [3, 11]]


def test_a_changed_text_or_vocabulary_is_not_found(tokenizer, launches):
    texts = [*TEXTS, "one more"]
    other = learn_vocabulary([*TEXTS, "evenings, evenings, evenings"], 301)
    changed = [*TEXTS, "one moor"]
    for words, of in ((tokenizer, texts), (tokenizer, changed), (other, texts)):
        expected = plainly(words, of, add_special_tokens=False)
        assert as_lists(tokenise(of, words, nprocs=1)) == expected
    assert len(launches) == 3
    tokenise(texts, tokenizer, nprocs=1)
    assert len(launches) == 3


def test_special_tokens_are_another_thing(tokenizer, launches, tmp_path):
    backend = tokenizer.backend_tokenizer
    ends = [("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id)]
    backend.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]").save_pretrained(tmp_path)
    words = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for special in (False, True, False, True):
        rows = as_lists(tokenise(TEXTS, words, special, nprocs=1))
        assert rows == plainly(words, TEXTS, add_special_tokens=special)
    assert rows[7] == [tokenizer.cls_token_id, tokenizer.sep_token_id]
    assert len(launches) == 2


def test_an_earlier_call_with_padding_changes_nothing(tokenizer, launches):
    texts = [*TEXTS, "padded"]
    expected = plainly(tokenizer, texts, add_special_tokens=False)
    for _ in range(2):
        tokenizer(["a", "good film"], padding="max_length", truncation=True, max_length=3)
        assert as_lists(tokenise(texts, tokenizer, nprocs=1)) == expected
    tokenise(texts, learn_vocabulary(TEXTS, 300), nprocs=1)
    assert len(launches) == 1


def test_what_lesson_30_made_is_found(tokenizer, launches):
    from datasets import Dataset

    texts = [*TEXTS, "made in the lesson"]
    written = Dataset.from_dict({"text": texts}).save_to_disk
    folder = keep("imdb-texts", fingerprint(texts), written)
    mark = fingerprint(tokenizer.backend_tokenizer.to_str())
    part = Dataset.from_dict({"ids": [[5, 6]]})
    for k in range(20):
        file = str(folder / f"ids-{mark}-{k}-of-20.arrow")
        part.map(lambda row: row, cache_file_name=file, load_from_cache_file=False)
    assert as_lists(tokenise(texts, tokenizer, nprocs=1)) == [[5, 6]] * 20
    assert launches == []


def test_a_tokenizer_that_no_rank_could_load(tokenizer, launches):
    loose = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ValueError, match=r"is no folder.*save_pretrained"):
        tokenise(TEXTS, loose)
    assert launches == []
