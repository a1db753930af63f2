"""A vocabulary from training texts, and token ids cut to one length."""

import pytest
import torch

from course_lib.tokens import cut_and_pad, learn_vocabulary, length_buckets

TEXTS = ["A good film, a good evening.", "Not a good film!", "An evening lost, a café found."] * 20


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    return tmp_path


def test_common_words_are_one_token_and_unknown_ones_are_pieces():
    tokenizer = learn_vocabulary(TEXTS, 300)
    assert tokenizer.tokenize("Good FILM") == ["good", "film"]
    assert len(tokenizer.tokenize("goodfilm")) > 1
    assert tokenizer.tokenize("☃") == ["[UNK]"]
    assert tokenizer.pad_token_id == 0
    assert tokenizer.mask_token_id == 4
    assert len(tokenizer) <= 300


def test_what_was_learnt_is_kept(folder):
    first = learn_vocabulary(TEXTS, 300)
    kept = [path for path in (folder / ".made").iterdir() if path.is_dir()]
    assert [str(path) for path in kept] == [first.name_or_path]
    before = kept[0].stat().st_mtime_ns
    again = learn_vocabulary(TEXTS, 300)
    assert again.get_vocab() == first.get_vocab()
    assert kept[0].stat().st_mtime_ns == before
    learn_vocabulary([*TEXTS, "another text"], 300)
    learn_vocabulary(TEXTS, 301)
    assert len([path for path in (folder / ".made").iterdir() if path.is_dir()]) == 3


@pytest.mark.parametrize(("texts", "size"), [([], 8192), (TEXTS, 299)])
def test_nothing_to_learn_from(texts, size):
    with pytest.raises(ValueError, match="at least one text"):
        learn_vocabulary(texts, size)


def test_long_texts_lose_their_middle_and_short_ones_are_padded():
    table, lengths = cut_and_pad([[1, 2], list(range(1, 10)), [7, 8, 9, 10, 11]], 5)
    assert table.tolist() == [[1, 2, 0, 0, 0], [1, 2, 7, 8, 9], [7, 8, 9, 10, 11]]
    assert lengths.tolist() == [2, 5, 5]
    assert table.dtype == torch.int32
    assert lengths.dtype == torch.int64


def test_buckets_hold_texts_of_like_length_and_all_ranks_deal_alike():
    lengths = torch.randint(1, 300, (1000,), generator=torch.Generator().manual_seed(0))
    rows = torch.arange(0, 1000, 2)
    before = torch.get_rng_state()
    found = length_buckets(rows, lengths, 20, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(batch) for batch in found] == [20] * 25
    assert torch.equal(torch.cat(found).sort().values, rows)
    spread = [(lengths[batch].max() - lengths[batch].min()).item() for batch in found]
    assert max(spread) < 40  # of 300: all 25 batches were sorted together
    firsts = [lengths[batch[0]].item() for batch in found]
    assert firsts != sorted(firsts)  # and then shuffled
    again = length_buckets(rows, lengths, 20, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    other = length_buckets(rows, lengths, 20, seed=8)
    assert not all(torch.equal(a, b) for a, b in zip(found, other, strict=True))
    assert len(length_buckets(rows[:70], lengths, 20, seed=7, stretch=1)) == 3  # 10 stay out


def test_a_checkpoint_pads_with_its_own_id():
    table, lengths = cut_and_pad([[0, 5, 2], [0, 2]], 4, padding=1)
    assert table.tolist() == [[0, 5, 2, 1], [0, 2, 1, 1]]
    assert lengths.tolist() == [3, 2]
    with pytest.raises(ValueError, match="text 0 has the id 1: 1 is kept for the padding"):
        cut_and_pad([[0, 1]], 4, padding=1)


@pytest.mark.parametrize(
    ("ids", "longest", "says"),
    [
        ([[1], []], 4, "text 1 has no token"),
        ([[1, 0, 2]], 4, "text 0 has the id 0: 0 is kept for the padding"),
        ([[1, -1, 2]], 4, "text 0 has the id -1: 0 is kept for the padding"),
        ([[1]], 1, "longest=1: at least 2"),
    ],
)
def test_texts_that_make_no_row(ids, longest, says):
    with pytest.raises(ValueError, match=says):
        cut_and_pad(ids, longest)
