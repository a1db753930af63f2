"""Movie reviews: found in three forms, checked row by row, split, cleaned; and the stand-in."""

import csv
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import datasets
import loopback_publisher as answers
import numpy as np
import pandas as pd
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled
from loopback_publisher import Publisher

from course_lib import cli, machine
from course_lib.data import DataDamaged, DataNotFound, _imdb_files, _imdb_hub, imdb
from course_lib.data._imdb_splits import seeded_split
from course_lib.data._imdb_stand_in import make_stand_in

REAL = Path(os.environ.get("COURSE_DATA", "/nowhere")).absolute() / "IMDB Dataset.csv"
HERE = REAL.exists() and REAL.with_name("imdb_index.csv").exists()
NAMES = ("negative", "positive")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The data folder of a reader without a network."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture(scope="module")
def table():
    """40 training and 40 test rows, with two markup-only oddities that a file must keep."""
    table = make_stand_in(40)
    table.loc[3, "text"] = 'She said, "a ""classic""",\nand left. \x85 é <br />'
    return table


def write_csv(folder, table, name="IMDB Dataset.csv"):
    path = folder / name
    rows = pd.DataFrame({"review": table["text"], "sentiment": [NAMES[i] for i in table["label"]]})
    rows.to_csv(path, index=False, encoding="utf-8")
    return path


def write_index(folder, table, name="imdb_index.csv", **changed):
    index = pd.DataFrame({"row": range(len(table)), "split": table["split"].to_numpy()})
    index["review_id"] = index.index
    index["rating"], index["movie"] = table["rating"].to_numpy(), table["movie"].to_numpy()
    for column, (row, value) in changed.items():
        index[column] = index[column].astype(object)
        index.loc[row, column] = value
    index.to_csv(folder / name, index=False)
    return folder / name


def write_folder(folder, table, *, films=True):
    """Write the publisher's folder; return the rows in the order in which they are read."""
    for split in ("train", "test"):
        for label, short in enumerate(("neg", "pos")):
            part = folder / "aclImdb" / split / short
            part.mkdir(parents=True)
            rows = table[(table["split"] == split) & (table["label"] == label)]
            for number, row in enumerate(rows.itertuples()):
                (part / f"{number}_{row.rating}.txt").write_bytes(row.text.encode())
            if films:
                lines = [f"http://www.example.org/title/{film}/usercomments" for film in rows.movie]
                (part.parent / f"urls_{short}.txt").write_text("\n".join(lines) + "\n")
    (folder / "aclImdb" / "README").write_text("as in the real one")
    order = table.assign(first=table["split"] == "test")
    order = order.sort_values(["first", "label"], kind="stable").drop(columns="first")
    return order.reset_index(drop=True)


# --- what is found ------------------------------------------------------------------------------


@pytest.mark.skipif(not HERE, reason="the real data are not here")
def test_the_real_reviews(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA", str(REAL.parent))
    found = imdb.load("real")
    assert (found.origin, found.path, found.split) == ("real", REAL, "official")
    assert capsys.readouterr().out == (
        f"IMDb reviews: 50,000 rows from {REAL}, the official split (imdb_index.csv): "
        "25,000 train, 25,000 test\n"
    )
    for part in (found.train, found.test):
        assert len(part) == 25_000
        assert part["label"].sum() == 12_500
        assert list(part.index[[0, -1]]) == [0, 24_999]
    assert found.frame["text"].nunique() == 49_582
    assert ((found.frame["rating"] > 5) == (found.frame["label"] == 1)).all()
    assert len(set(found.train["movie"]) & set(found.test["movie"])) == 1

    twice = imdb.duplicates(found.frame)
    assert [len(twice.train), len(twice.test), len(twice.test_in_train)] == [96, 199, 123]
    assert twice.contradictions == 0

    fit, valid = imdb.validation(found.train)
    assert (len(fit), len(valid)) == (20_000, 5_000)
    rows = found.train.iloc[valid]
    assert rows["label"].sum() == 2_500
    others = found.train.iloc[fit]
    for column in ("movie", "text"):
        assert not set(rows[column]) & set(others[column])

    marked = found.frame["text"][found.frame["text"].str.contains("[\x80-\x9f&<]")]
    cleaned = imdb.clean_all(marked.iloc[:3_000])
    assert not cleaned.str.contains("<br|[\x00-\x1f\x7f-\x9f]|&#").any()
    assert cleaned.tolist() == [imdb.clean(text) for text in cleaned]


@pytest.mark.skipif(not HERE, reason="the real data are not here")
def test_the_real_file_without_its_index_is_split_by_the_course(folder, capsys):
    (folder / REAL.name).symlink_to(REAL)
    found = imdb.load("real")
    assert found.split == "seeded"
    assert "a split of the course's own (seed 42; there is no imdb_index.csv beside it)" in (
        capsys.readouterr().out
    )
    for part in (found.train, found.test):
        assert (len(part), part["label"].sum()) == (25_000, 12_500)
    assert len(imdb.duplicates(found.frame).test_in_train) == 0
    assert list(found.frame) == ["text", "label", "split"]


@pytest.mark.parametrize("source", ["auto", "real"])
def test_the_one_file_with_its_index(folder, table, source, capsys):
    path = write_csv(folder, table)
    write_index(folder, table)
    found = imdb.load(source)
    pd.testing.assert_frame_equal(found.frame, table)
    assert (found.origin, found.path, found.split) == ("real", path, "official")
    assert capsys.readouterr().out == (
        f"IMDb reviews: 80 rows from {path}, the official split (imdb_index.csv): "
        "40 train, 40 test\nNote: all reviews that were published are 50,000.\n"
    )
    pd.testing.assert_frame_equal(found.test, table.iloc[40:].reset_index(drop=True))
    pd.testing.assert_frame_equal(found.train, table.iloc[:40])
    assert re.fullmatch(
        r"Reviews\(40 train and 40 test rows, official split, real, 0\.[01] MB, .*\)", repr(found)
    )


def test_no_note_is_printed_when_all_rows_are_there(folder, table, monkeypatch, capsys):
    monkeypatch.setattr(imdb, "ROWS", len(table))
    write_csv(folder, table)
    imdb.load("real")
    assert "Note" not in capsys.readouterr().out


@pytest.mark.parametrize("films", [True, False])
def test_the_publishers_folder(folder, table, films, capsys):
    wanted = write_folder(folder, table, films=films)
    (folder / "aclImdb" / "test" / "pos" / ".DS_Store").write_text("not a review")
    found = imdb.load("real")
    wanted = wanted if films else wanted.drop(columns="movie")
    pd.testing.assert_frame_equal(found.frame, wanted)
    assert (found.path, found.split) == (folder / "aclImdb", "official")
    assert f"80 rows from {folder / 'aclImdb'}, its own split: 40 train" in capsys.readouterr().out


def test_reviews_of_a_folder_come_by_number_and_not_by_name(folder, table):
    write_folder(folder, table)
    ten = folder / "aclImdb" / "train" / "pos" / "10_9.txt"
    two = folder / "aclImdb" / "train" / "pos" / "2_9.txt"
    for path in ten.parent.glob("*.txt"):
        if path.name.startswith(("10_", "2_")):
            path.unlink()
    ten.write_text("the tenth")
    two.write_text("the second")
    positive = imdb.load("real").train.query("label == 1")["text"].tolist()
    assert positive.index("the second") == 2
    assert positive.index("the tenth") == 10


def test_the_one_file_comes_before_the_folder_and_the_folder_before_the_download(folder, table):
    keep(folder, table)
    assert imdb.load("real").path == folder / "stanfordnlp_imdb"
    write_folder(folder, table)
    assert imdb.load("real").path == folder / "aclImdb"
    path = write_csv(folder, table)
    assert imdb.load("real").path == path
    path.write_text("damaged")
    with pytest.raises(DataDamaged):  # and not the folder instead
        imdb.load("auto")


@pytest.mark.parametrize("source", ["Real", "", None])
def test_an_unknown_source_is_refused_with_the_choices(source):
    with pytest.raises(ValueError, match="'auto', 'real', 'synthetic', not " + repr(source)):
        imdb.load(source)


def test_real_says_what_to_get_from_where_and_where_to_put_it(folder):
    with pytest.raises(DataNotFound) as caught:
        imdb.load("real")
    story = str(caught.value)
    assert f"Looked for:  {folder / 'IMDB Dataset.csv'} or aclImdb (no such file)" in story
    assert "not tried, because COURSE_OFFLINE is set" in story
    assert f"get IMDB Dataset.csv from {imdb.KAGGLE} (unpacked),\n" in story
    assert f"or the folder aclImdb (unpacked) from {imdb.AUTHORS}\n" in story
    assert f"into the folder {folder}\n" in story
    assert list(folder.iterdir()) == []


def test_a_set_travels_whole(folder, table):
    write_csv(folder, table)
    found = imdb.load("real")
    other = pickle.loads(pickle.dumps(found))
    pd.testing.assert_frame_equal(other.frame, found.frame)
    assert (other.path, other.split) == (found.path, found.split)


# --- the split of the one file ------------------------------------------------------------------


WRONG_INDEX = {
    "another order": (
        {"rating": (5, 10)},
        "for row 5 it has the rating 10, but there the review is negative: it is the index of a",
    ),
    "another row": ({"row": (7, 8)}, "line 9 has the row '8' where 7 should be"),
    "another split": ({"split": (2, "val")}, "line 4: the split 'val' is not train or test"),
    "a rating of 5": ({"rating": (1, 5)}, "line 3: '5' is no rating of 1 to 4 or 7 to 10"),
    "no film": ({"movie": (0, "Jaws")}, "line 2: 'Jaws' is no film (tt and a number)"),
}


@pytest.mark.parametrize(("changed", "reason"), WRONG_INDEX.values(), ids=WRONG_INDEX)
def test_an_index_that_does_not_fit_is_told_and_not_used(folder, table, changed, reason, capsys):
    table = table.sort_values("label", kind="stable").reset_index(drop=True)
    write_csv(folder, table)
    index = write_index(folder, table, **changed)
    found = imdb.load("real")
    assert found.split == "seeded"
    assert list(found.frame) == ["text", "label", "split"]
    said = capsys.readouterr().out
    assert f"a split of the course's own (seed 42; {index}: " in said
    assert reason in said


def test_an_index_of_a_smaller_file_is_not_used(folder, table, capsys):
    write_csv(folder, table)
    write_index(folder, table.iloc[:70])
    found = imdb.load("real")
    assert found.split == "seeded"
    assert "it lists 70 rows, and the file has 80" in capsys.readouterr().out
    chosen = seeded_split(found.frame["text"], found.frame["label"])
    assert (found.frame["split"] == "test").tolist() == chosen.tolist()


def test_a_file_shorter_than_its_index_is_cut_off(folder, table):
    path = write_csv(folder, table.iloc[:70])
    write_index(folder, table)
    refused(
        f"{path}: it has 70 rows, but imdb_index.csv beside it lists 80: the file was cut off",
        "or take imdb_index.csv away if it is not of this file",
    )


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"<html>", b"row,split\n0,train\n"])
def test_an_index_that_is_none_is_no_damage_of_the_reviews(folder, table, content, capsys):
    write_csv(folder, table)
    (folder / "imdb_index.csv").write_bytes(content)
    assert imdb.load("real").split == "seeded"
    assert f"seed 42; {folder / 'imdb_index.csv'}: " in capsys.readouterr().out


def test_the_seeded_split_is_balanced_and_keeps_texts_together():
    texts = pd.Series([f"review {row % 90}" for row in range(100)])
    labels = pd.Series([row % 2 for row in range(100)])
    chosen = seeded_split(texts, labels)
    assert chosen.sum() == 50
    assert labels[chosen].sum() == 25
    assert not set(texts[chosen]) & set(texts[~chosen])


def test_a_text_is_never_torn_apart_to_fill_a_half():
    texts = pd.Series([f"review {row // 2}" for row in range(10)])
    chosen = seeded_split(texts, pd.Series([1] * 10))
    assert chosen.sum() == 4  # five would be two reviews and a half
    assert not set(texts[chosen]) & set(texts[~chosen])


def test_the_seeded_split_follows_the_texts_and_not_their_order():
    table = make_stand_in(300)
    mixed = table.sample(frac=1, random_state=1)
    first = set(table["text"][seeded_split(table["text"], table["label"])])
    second = set(mixed["text"][seeded_split(mixed["text"], mixed["label"])])
    assert first == second
    assert 0.4 < np.mean(table["split"][table["text"].isin(first)] == "train") < 0.6


def test_the_seeded_split_never_changes():
    texts = pd.Series([f"text {n}" for n in range(12)])
    chosen = seeded_split(texts, pd.Series([0, 1] * 6))
    assert np.flatnonzero(chosen).tolist() == [4, 5, 6, 9, 10, 11]


# --- what is damaged ----------------------------------------------------------------------------


def refused(*words):
    """Load, and compare the text of the error."""
    for source in ("auto", "real"):
        with pytest.raises(DataDamaged) as caught:
            imdb.load(source)
        for word in words:
            assert word in str(caught.value)


DAMAGED_FILES = {
    "wrong columns": ("text,label\na,1\n", "line 1 is not the header; it should name review, sen"),
    "one wrong column": ("review,label\na,1\n", "missing: sentiment; unknown: label"),
    "another label": (
        "review,sentiment\nFine,positive\nSo so,neutral\n",
        "line 3: the sentiment is 'neutral'; it must be positive or negative",
    ),
    "a label in capitals": ("review,sentiment\nFine,Positive\n", "line 2: the sentiment is 'Posi"),
    "a number for a label": ("review,sentiment\nFine,1\n", "line 2: the sentiment is '1'"),
    "cut in a label": (
        "review,sentiment\nFine,positive\nBad,nega",
        "line 3: the sentiment is 'nega'",
    ),
    "an empty review": (
        "review,sentiment\nFine,positive\n,negative\n",
        "line 3: the review is empty\n",
    ),
    "blanks": ('review,sentiment\n" \n ",negative\n', "line 2: the review is empty\n"),
    "markup alone": (
        "review,sentiment\n<br /> <i></i>&nbsp;\x81,negative\n",
        "line 2: the review is empty but for markup",
    ),
    "a zero byte": ("review,sentiment\nFi\0ne,positive\n", "line 2: the review holds a byte that"),
    "cut in a quote": (
        'review,sentiment\nFine,positive\n"It was good, and then',
        "the row that begins in line 3 is not CSV: unexpected end of data",
    ),
    "cut after the review": (
        'review,sentiment\nFine,positive\n"Bad"',
        "line 3 has 1 fields instead of 2 (the last row: the file was cut off)",
    ),
    "nothing": ("", "it is empty"),
    "a header alone": ("review,sentiment\n", "it has a header, but no rows"),
    "a web page": ("<!DOCTYPE html><title>Sign in</title>", "it is a web page"),
}


@pytest.mark.parametrize(("content", "fault"), DAMAGED_FILES.values(), ids=DAMAGED_FILES)
def test_a_damaged_file_is_named_with_the_line(folder, content, fault):
    path = folder / "IMDB Dataset.csv"
    path.write_text(content, encoding="utf-8")
    refused(f"{path}: ", fault, "Put a fresh copy there, or delete IMDB Dataset.csv")


def test_a_file_in_another_code_is_named_with_the_line(folder):
    (folder / "IMDB Dataset.csv").write_bytes(b"review,sentiment\nFine\x85,positive\n")
    refused("line 2 is not UTF-8 text: it holds the byte 0x85")


def test_a_folder_or_a_link_to_nothing_under_the_files_name(folder):
    path = folder / "IMDB Dataset.csv"
    path.symlink_to(folder / "gone")
    refused(f"{path}: it cannot be read: No such file or directory")
    path.unlink()
    path.mkdir()
    refused(f"{path}: it cannot be read: Is a directory")


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def empty(name):
    return lambda folder: [path.unlink() for path in (folder / name).iterdir()]


DAMAGED_FOLDERS = {
    "a class is missing": (
        rename("train/pos", "train/positive"),
        "aclImdb/train/pos: it is missing, or not a folder\n",
    ),
    "a split is missing": (rename("test", "more"), "aclImdb/test/neg: it is missing"),
    "a class without reviews": (empty("test/neg"), "aclImdb/test/neg: it has no reviews"),
    "a name without rating": (
        write("train/neg/17.txt", b"Bad"),
        "train/neg/17.txt: its name is not NUMBER_RATING.txt",
    ),
    "another file": (write("test/pos/notes.md", b"x"), "notes.md: its name is not NUMBER_RATING"),
    "a rating of the other class": (
        write("train/neg/99_8.txt", b"Bad"),
        "train/neg/99_8.txt: a rating of 8 is not negative",
    ),
    "a rating of 5": (write("test/pos/99_5.txt", b"x"), "99_5.txt: a rating of 5 is not positive"),
    "a number twice": (
        lambda folder: [write(f"train/pos/99_{n}.txt", b"x")(folder) for n in (7, 8)],
        "has the same number",
    ),
    "an empty review": (write("test/neg/99_1.txt", b" "), "99_1.txt: the review is empty\n"),
    "another code": (
        write("test/neg/99_1.txt", b"caf\xe9"),
        "99_1.txt: it is not UTF-8 text: it holds the byte 0xe9",
    ),
    "a folder for a file": (
        lambda folder: (folder / "test/neg/99_1.txt").mkdir(),
        "99_1.txt: it cannot be read: Is a directory",
    ),
    "fewer reviews than listed": (
        lambda folder: next((folder / "train/pos").glob("19_*")).unlink(),
        "urls_pos.txt: it lists 20 reviews, and pos beside it has 19: unpacking ended early",
    ),
}


@pytest.mark.parametrize(("damage", "fault"), DAMAGED_FOLDERS.values(), ids=DAMAGED_FOLDERS)
def test_what_is_wrong_in_the_folder_is_named(folder, table, damage, fault):
    write_folder(folder, table)
    damage(folder / "aclImdb")
    refused(fault, "or delete the whole folder aclImdb and the course will look for another copy")


def test_a_folder_in_the_folder_is_pointed_out(folder, table):
    (folder / "aclImdb").mkdir()
    write_folder(folder / "aclImdb", table)
    refused("train/neg: it is missing, or not a folder; aclImdb lies in a second folder of that")


def test_no_folder_under_the_folders_name(folder):
    (folder / "aclImdb").write_text("x")
    refused("aclImdb/train/neg: it is missing")


def test_a_list_of_films_that_is_none_is_no_damage(folder, table):
    write_folder(folder, table)
    (folder / "aclImdb" / "test" / "urls_neg.txt").write_text("no films\n" * 3)
    assert "movie" not in imdb.load("real").frame


# --- the hub ------------------------------------------------------------------------------------


def hub_set(table, **changed):
    """What `datasets.load_dataset` returns: three splits, texts and labels named neg and pos."""
    features = datasets.Features(
        text=datasets.Value("string"),
        label=changed.pop("label", datasets.ClassLabel(names=["neg", "pos"])),
    )
    splits = {
        split: datasets.Dataset.from_dict(
            {name: rows[name].tolist() for name in ("text", "label")}, features=features
        )
        for split, rows in table.groupby("split", sort=False)
    }
    rest = {"text": ["neither"], "label": [-1]}
    splits["unsupervised"] = datasets.Dataset.from_dict(rest, features=features)
    return datasets.DatasetDict({**splits, **changed})


def keep(folder, table):
    """Store the reviews as a download does."""
    (folder / "stanfordnlp_imdb").mkdir()
    parts = {split: rows for split, rows in table.groupby("split", sort=False)}
    _imdb_hub._write(folder / "stanfordnlp_imdb", parts)


def knows_it(publisher, handler):
    body = json.dumps({"id": "stanfordnlp/imdb", "private": False}).encode()
    answers.send(handler, body, length=len(body))


@pytest.fixture
def hub(monkeypatch):
    """A hub on loopback, asked by a course that may download: ``hub.answer``, ``hub.asked``."""
    monkeypatch.delenv("COURSE_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_imdb_hub, "ROWS", 80)
    with Publisher() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url.removesuffix("/numbers.csv"))
        running.answer = knows_it
        yield running


@pytest.fixture
def library(monkeypatch):
    """Say what `datasets.load_dataset` does; returns the list of what it was asked."""

    def says(outcome):
        asked = []

        def load_dataset(*args, **options):
            asked.append((args, options))
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return says


def test_a_download_is_kept_and_found_again(folder, table, hub, library, monkeypatch, capsys):
    asked = library(hub_set(table))
    found = imdb.load("auto")
    assert asked == [(("stanfordnlp/imdb",), {})]
    kept = folder / "stanfordnlp_imdb"
    assert (found.origin, found.path, found.split) == ("real", kept, "official")
    pd.testing.assert_frame_equal(found.frame, table[["text", "label", "split"]])
    said = capsys.readouterr().out
    assert "IMDb reviews: downloading stanfordnlp/imdb with the datasets library\n" in said
    assert f"80 rows from {kept}, the official split: 40 train, 40 test" in said
    assert not are_progress_bars_disabled()

    again = library(AssertionError("asked a second time"))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    pd.testing.assert_frame_equal(imdb.load("real").frame, found.frame)
    assert (again, hub.gets) == ([], 1)
    assert sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock")) == [kept.name]


def test_nothing_is_asked_offline(hub, library, monkeypatch, capsys):
    asked = library(AssertionError("asked"))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    assert imdb.load("auto").origin == "synthetic"
    assert (asked, hub.gets) == ([], 0)


def test_the_librarys_own_offline_switch_leaves_its_cache(hub, library, table, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    library(hub_set(table))
    assert imdb.load("real").origin == "real"
    assert hub.gets == 0


def plain_hub(publisher, handler):
    body = b'{"id": "somebody/else"}'
    answers.send(handler, body, length=len(body))


UNREACHABLE = {
    "not there": (answers.not_found, "127.0.0.1 answered 404 Not Found"),
    "forbidden": (answers.forbidden, "127.0.0.1 answered 403 Forbidden"),
    "a login page": (answers.login_page, "127.0.0.1 did not answer as the hub does"),
    "another set": (plain_hub, "127.0.0.1 answered about 'somebody/else' instead of stanford"),
    "hangs up": (answers.hangs_up, "the connection to 127.0.0.1 failed: "),
}


@pytest.mark.parametrize(("answer", "reason"), UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_hub_that_is_none_is_found_out_before_the_library_tries(
    folder, hub, library, answer, reason, capsys
):
    asked = library(AssertionError("the library was asked"))
    hub.answer = answer
    assert imdb.load("auto").origin == "synthetic"
    assert reason in capsys.readouterr().out
    with pytest.raises(DataNotFound, match=re.escape(reason)):
        imdb.load("real")
    assert asked == []


def test_a_hub_that_refuses_the_connection(hub, library, monkeypatch):
    library(AssertionError("the library was asked"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        DataNotFound, match=r"connection to 127\.0\.0\.1 failed: Connection refused"
    ):
        imdb.load("real")


def test_a_hub_that_is_silent(hub, library, monkeypatch):
    library(AssertionError("the library was asked"))
    monkeypatch.setattr(_imdb_hub, "READ_TIMEOUT", 0.2)
    hub.answer = answers.silent
    with pytest.raises(DataNotFound, match=r"the connection to 127\.0\.0\.1 failed: timed out"):
        imdb.load("real")


def test_the_course_waits_no_longer_than_for_other_data(hub, library, monkeypatch):
    import requests

    def get(url, timeout):
        assert timeout == (5.0, 30.0)
        raise requests.ConnectTimeout

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(DataNotFound, match="did not answer within 5 s"):
        imdb.load("real")


LIBRARY_ERRORS = {  # as datasets 5.2 raises them
    "no connection": ConnectionError("Couldn't reach 'stanfordnlp/imdb' on the Hub (ConnectError)"),
    "not on the hub": datasets.exceptions.DatasetNotFoundError("Dataset 'x' doesn't exist on"),
    "not built": datasets.exceptions.DatasetGenerationError("An error occurred while generating"),
    "a failed check": ValueError("NonMatchingSplitsSizesError"),
    "a full disk": OSError(28, "No space left on device"),
}


@pytest.mark.parametrize("error", LIBRARY_ERRORS.values(), ids=LIBRARY_ERRORS)
def test_an_error_of_the_library_is_one_line_and_leaves_nothing(
    folder, hub, library, error, capsys
):
    library(error)
    line = f"the datasets library could not load stanfordnlp/imdb: {type(error).__name__}: {error}"
    with pytest.raises(DataNotFound) as caught:
        imdb.load("real")
    assert line in str(caught.value)
    assert imdb.load("auto").origin == "synthetic"
    assert line in capsys.readouterr().out
    assert not are_progress_bars_disabled()
    assert [p.name for p in folder.iterdir() if not p.name.endswith(".lock")] == []


def one(column, value):
    """A training split with a value in place of the first."""

    def change(table):
        table = table.astype(object)
        table.loc[0, column] = value
        return hub_set(table)

    return change


WRONG_SETS = {
    "a row too few": (lambda t: hub_set(t.iloc[1:]), "other numbers of reviews in train: label"),
    "a label too often": (
        lambda t: one("label", 1 - t["label"][0])(t),
        "other numbers of reviews in train: label",
    ),
    "an empty review": (one("text", " "), "stanfordnlp/imdb, split train: the review is empty"),
    "no text": (one("text", None), "stanfordnlp/imdb, split train: a review is no text"),
    "other labels": (
        lambda t: hub_set(t, label=datasets.ClassLabel(names=["pos", "neg"])),
        "other labels: pos, neg",
    ),
    "no test split": (
        lambda t: datasets.DatasetDict(train=hub_set(t)["train"]),
        "no split test, but train",
    ),
    "other columns": (
        lambda t: datasets.DatasetDict(
            {name: part.rename_column("text", "review") for name, part in hub_set(t).items()}
        ),
        "other columns: review, label",
    ),
}


@pytest.mark.parametrize(("make", "reason"), WRONG_SETS.values(), ids=WRONG_SETS)
def test_a_download_that_is_another_set_is_not_kept(folder, table, hub, library, make, reason):
    library(make(table))
    with pytest.raises(DataNotFound, match=re.escape(reason)):
        imdb.load("real")
    assert not (folder / "stanfordnlp_imdb").exists()


def test_labels_may_be_plain_numbers(table, hub, library):
    library(hub_set(table, label=datasets.Value("int64")))
    assert len(imdb.load("real").frame) == 80


def test_an_interrupt_is_an_interrupt(folder, hub, library):
    library(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        imdb.load("auto")
    assert not are_progress_bars_disabled()
    assert [p.name for p in folder.iterdir() if not p.name.endswith(".lock")] == []


DAMAGED_KEPT = {
    "a changed byte": (
        lambda f: (f / "reviews.csv").write_bytes((f / "reviews.csv").read_bytes() + b"\n"),
        "reviews.csv has changed since it was stored",
    ),
    "no reviews": (lambda f: (f / "reviews.csv").unlink(), "it cannot be read: No such file"),
    "no contents": (lambda f: (f / "contents.json").unlink(), "it cannot be read: No such file"),
    "other contents": (write("contents.json", b"[]"), "its contents.json is damaged"),
    "half of the contents": (write("contents.json", b'{"sha'), "its contents.json is damaged"),
}


@pytest.mark.parametrize(("damage", "fault"), DAMAGED_KEPT.values(), ids=DAMAGED_KEPT)
def test_a_kept_download_that_is_damaged(folder, table, damage, fault):
    keep(folder, table)
    damage(folder / "stanfordnlp_imdb")
    refused(f"{folder / 'stanfordnlp_imdb'}: ", fault, "or delete stanfordnlp_imdb")


# --- cleaning -----------------------------------------------------------------------------------


CLEANED = {
    "A film.<br /><br />Good.": "A film. Good.",
    "One<BR>two<br/>three</br >four": "One two three four",
    "<p class='x'>See <a href=\"http://a.b/?c=d&e\">this</a>.</p>": "See this .",
    "<em>Very</em> <font size=2 color='red'>good</font><!-- not\nme -->!": "Very good !",
    "I <3 it, 5 < 6 > 4, <grin> <SPOILER> <bad> <i think so>": None,
    "<http://x.y> <<sigh>> <-- look --> <...>": None,
    "AT&T, R&B; L&H; &bogus; & &amp": "AT&T, R&B; L&H; &bogus; & &amp",
    "Ond&#345;ej &amp; Alt&#x131; &quot;x&quot;&hellip;&nbsp;end": 'Ondřej & Alt\u0131 "x"… end',
    "&amp;amp;lt;br /&amp;gt;twice &#150; &lt;3": "twice – <3",
    "Wait\x85 a dash \x96 or \x97, \x93so\x94": "Wait… a dash – or —, “so”",
    "\x91it\x92 costs 5\x80": "\u2018it\u2019 costs 5€",
    "\x8ei\x9eek, Peli\x9aky, caf\xe9": "Žižek, Pelišky, café",
    ":\x8d \x81\x8f\x90\x9d!": ": !",
    "\x08\x08A bath,\x10 their \x1bown\x7f\0": "A bath, their own",
    "soft\xadly zero\u200bwidth \ufeffmark\u2060": "softly zerowidth mark",
    "\tmany \r\n\n  blanks\xa0\u3000here\u2028": "many blanks here",
    "\uf0b7 one \uf04a": "one",
    "naïve 日本語 😀 – ok…": None,
    "<br /> <i></i>&nbsp;": "",
    "": "",
}


@pytest.mark.parametrize(("text", "wanted"), CLEANED.items())
def test_cleaning_takes_markup_away_and_leaves_words(text, wanted):
    wanted = text if wanted is None else wanted
    assert imdb.clean(text) == wanted
    assert imdb.clean(wanted) == wanted


def test_every_byte_of_code_page_1252_becomes_its_character():
    for byte in range(0x80, 0xA0):
        meant = bytes([byte]).decode("cp1252", errors="ignore")
        assert imdb.clean(f"a{chr(byte)}b") == (f"a{meant}b" if meant else "a b")


def test_cleaning_twice_is_cleaning_once():
    rng = np.random.default_rng(0)
    pieces = [
        "<",
        ">",
        "&",
        ";",
        "amp",
        "lt",
        "i",
        "br",
        " ",
        "/",
        "\x85",
        "x",
        "#60",
        "<i>",
        "!--",
    ]
    for _ in range(3_000):
        text = "".join(rng.choice(pieces, rng.integers(1, 14)))
        once = imdb.clean(text)
        assert imdb.clean(once) == once, text


def test_cleaning_ends_soon_whatever_it_is_given():
    for text in ("<" * 100_000, "<a " + "b=c " * 50_000, "&amp;" * 50_000, "<i " * 50_000 + ">"):
        assert imdb.clean(text)


def test_many_texts_are_cleaned_alike_and_keep_their_index():
    texts = pd.Series(["a<br />b", "\x85"], index=[7, 3], name="text", dtype="str")
    cleaned = imdb.clean_all(texts)
    pd.testing.assert_series_equal(
        cleaned, pd.Series(["a b", "…"], index=[7, 3], name="text", dtype="str")
    )
    assert texts.tolist() == ["a<br />b", "\x85"]
    assert imdb.clean_all(["a<br />b", "c"]) == ["a b", "c"]
    assert imdb.clean_all(text for text in ("x ", "y")) == ["x", "y"]
    assert imdb.clean_all([]) == []


@pytest.mark.parametrize("wrong", [None, 3.0, b"bytes"])
def test_what_is_no_text_is_not_cleaned(wrong):
    with pytest.raises(TypeError, match=f"text of one review, not {type(wrong).__name__}"):
        imdb.clean(wrong)


# --- repeats and validation ---------------------------------------------------------------------


def test_repeats_are_counted_within_their_split():
    frame = pd.DataFrame(
        [
            ("a", 0, "test"),
            ("b", 1, "train"),
            ("a", 0, "train"),
            ("a", 1, "train"),
            ("c", 0, "test"),
            ("c", 0, "test"),
            ("b", 1, "test"),
        ],
        columns=["text", "label", "split"],
    )
    found = imdb.duplicates(frame)
    assert found.train.tolist() == [2]
    assert found.test.tolist() == [2]
    assert found.test_in_train.tolist() == [0, 3]
    assert found.contradictions == 1
    assert repr(found) == (
        "Duplicates(1 training rows and 1 test rows repeat an earlier one; 2 test rows are in the "
        "training split too; 1 texts have both labels)"
    )
    other = imdb.duplicates(frame.assign(same="x"), "same")
    assert (len(other.train), len(other.test), len(other.test_in_train)) == (2, 3, 4)


@pytest.mark.parametrize("column", ["text", "split", "label"])
def test_a_frame_without_a_column_is_refused(column):
    frame = make_stand_in(20).drop(columns=column)
    with pytest.raises(ValueError, match=f"no column {column}"):
        imdb.duplicates(frame)
    if column != "split":
        with pytest.raises(ValueError, match=f"no column {column}"):
            imdb.validation(frame)


@pytest.mark.parametrize("films", [True, False])
def test_validation_rows_are_a_fifth_and_share_nothing_with_the_rest(films):
    train = make_stand_in(1_000).query("split == 'train'")
    train = train if films else train.drop(columns=["movie", "rating"])
    fit, valid = imdb.validation(train)
    assert (len(fit), len(valid)) == (800, 200)
    assert fit.dtype == valid.dtype == np.int64
    assert sorted([*fit, *valid]) == list(range(1_000))
    assert list(valid) == sorted(valid)
    assert train["label"].iloc[valid].sum() == 100
    for column in ("movie", "text") if films else ("text",):
        assert not set(train[column].iloc[valid]) & set(train[column].iloc[fit])


def test_films_joined_by_a_text_stay_together():
    rows = [(f"only {n}", n % 2, f"tt{n}") for n in range(60)]
    chain = [(f"link {n // 2}", 1, f"tt{60 + (n + 1) // 2}") for n in range(10)]
    train = pd.DataFrame(rows + chain, columns=["text", "label", "movie"])
    _, valid = imdb.validation(train)
    assert sum(row >= 60 for row in valid) in (0, 10)


def test_validation_follows_the_texts_and_not_their_order():
    train = make_stand_in(500).query("split == 'train'")
    mixed = train.sample(frac=1, random_state=3)
    first, second = imdb.validation(train)[1], imdb.validation(mixed)[1]
    assert set(train["text"].iloc[first]) == set(mixed["text"].iloc[second])


def test_validation_never_takes_test_rows():
    with pytest.raises(ValueError, match="the training rows only"):
        imdb.validation(make_stand_in(20))


# --- the stand-in -------------------------------------------------------------------------------


def test_a_stand_in_is_announced_and_looks_like_the_real_set(capsys):
    found = imdb.load("synthetic")
    said = capsys.readouterr().out
    assert "SYNTHETIC DATA: this is not IMDb reviews" in said
    assert said.endswith(
        "IMDb reviews: 4,000 rows made up by the course (synthetic), split at random: "
        "2,000 train, 2,000 test\n"
    )
    assert (found.origin, found.path, found.split) == ("synthetic", None, "seeded")
    frame = found.frame
    assert list(frame) == ["text", "label", "split", "rating", "movie"]
    assert frame.dtypes.astype(str).tolist() == ["str", "int64", "str", "int64", "str"]
    assert frame.groupby(["split", "label"]).size().tolist() == [1_000] * 4
    assert ((frame["rating"] > 5) == (frame["label"] == 1)).all()
    assert set(frame["rating"]) == {1, 2, 3, 4, 7, 8, 9, 10}
    assert not set(found.train["movie"]) & set(found.test["movie"])
    words = frame["text"].str.split().str.len()
    assert words.min() >= 20
    assert 400 <= words.max() <= 440
    assert 0.3 < frame["text"].str.contains("<br />").mean() < 0.7
    assert frame["text"].str.contains("[\x85\x96]").sum() > 50
    twice = imdb.duplicates(frame)
    assert min(len(twice.train), len(twice.test), len(twice.test_in_train)) > 5
    assert twice.contradictions == 0


def test_the_stand_in_is_the_same_every_time():
    pd.testing.assert_frame_equal(make_stand_in(50), make_stand_in(50))


def test_words_say_most_of_a_made_up_review_and_their_order_more():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    frame = make_stand_in()
    train, test = (frame[frame["split"] == split] for split in ("train", "test"))
    scores = []
    for longest in (1, 2):
        words = TfidfVectorizer(ngram_range=(1, longest), sublinear_tf=True)
        known = words.fit_transform(imdb.clean_all(train["text"]))
        model = LogisticRegression(C=5, max_iter=500).fit(known, train["label"])
        scores.append(model.score(words.transform(imdb.clean_all(test["text"])), test["label"]))
    assert 0.84 < scores[0] < 0.92
    assert scores[0] + 0.01 < scores[1] < 0.96


# --- the commands -------------------------------------------------------------------------------


def test_course_data_verifies_whichever_form_is_there(folder, table, capsys):
    write_folder(folder, table)
    assert machine.found_data()["IMDb reviews"] == str(folder / "aclImdb")
    assert cli.main(["data", "--verify", "imdb"]) == 0
    assert "✓ imdb: real and right, 0." in capsys.readouterr().out
    path = write_csv(folder, table)
    assert machine.found_data()["IMDb reviews"] == str(path)
    path.write_text("review,sentiment\n,negative\n")
    assert cli.main(["data", "--verify", "imdb"]) == 1
    assert "line 2: the review is empty" in capsys.readouterr().err


def test_the_stand_in_costs_no_library():
    code = (
        "import sys; from course_lib.data import imdb; imdb.load('synthetic')\n"
        "print([m for m in ('datasets', 'requests', 'torch', 'sklearn') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.stdout.splitlines()[-1:] == ["[]"], answer.stderr


def test_the_files_name_their_columns_as_the_frames_do(folder, table):
    path = write_csv(folder, table)
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["review", "sentiment"]
    assert tuple(imdb.load("real").frame) == _imdb_files.COLUMNS[:3]
