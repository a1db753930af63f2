"""What a lesson makes once: found again for the same things, whole or not there at all."""

import multiprocessing
from pathlib import Path

import pytest

from course_lib.data import _decoded
from course_lib.keeping import fingerprint, keep

MARK = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data"


def write(text: str):
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        ((["ab", "c"],), (["a", "bc"],)),
        ((["a", "b"],), (["b", "a"],)),
        ((["a"], ["b"]), (["a", "b"],)),
        (("a",), ("a", "")),
        ((b"a",), (b"b",)),
        (([],), ()),
    ],
)
def test_other_things_have_another_fingerprint(one, other):
    assert fingerprint(*one) != fingerprint(*other)
    assert fingerprint(*one) == fingerprint(*one)
    assert len(fingerprint(*one)) == 16


def test_a_list_and_its_texts_once_more_are_alike():
    assert (
        fingerprint("a", ["b", "ü"])
        == fingerprint("a", ("b", "ü"))
        == fingerprint(b"a", ["b", "ü"])
    )


def test_a_thing_is_made_once_and_found_again(folder):
    calls = []

    def make(path: Path) -> None:
        calls.append(path)
        path.write_text("made")

    first, again = keep("scores.json", MARK, make), keep("scores.json", MARK, make)
    assert first == again == folder / ".made" / f"scores-{MARK}.json"
    assert first.read_text() == "made"
    assert len(calls) == 1
    assert keep("scores.json", MARK[::-1], make) != first
    assert len(calls) == 2


def test_a_folder_is_kept_whole(folder):
    def make(path: Path) -> None:
        path.mkdir()
        (path / "one").write_text("1")

    assert (keep("things", MARK, make) / "one").read_text() == "1"


def test_what_fails_is_passed_on_and_leaves_nothing(folder):
    def make(path: Path) -> None:
        path.write_text("half of it")
        raise OSError("the disk of the thing that is read")

    with pytest.raises(OSError, match="the disk of the thing that is read"):
        keep("things", MARK, make)
    left = [p for p in (folder.parent).rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert left == []
    assert keep("things", MARK, write("now")).read_text() == "now"


def test_where_the_data_folder_takes_nothing_the_cache_folder_does(folder, tmp_path):
    folder.mkdir()
    (folder / ".made").write_text("a file where the folder would be")
    path = keep("things", MARK, write("made"))
    assert path.is_relative_to(tmp_path / "cache")
    assert keep("things", MARK, write("other")).read_text() == "made"


def test_where_nothing_can_be_stored_every_place_is_named(folder, monkeypatch):
    folder.mkdir()
    (folder / ".made").write_text("a file where the folder would be")
    monkeypatch.setattr(_decoded, "default_folder", lambda: folder)
    monkeypatch.setattr(_decoded, "_own_temporary_folder", lambda: folder)
    with pytest.raises(OSError, match=r"things can be stored nowhere.\n(.|\n)*set COURSE_DATA"):
        keep("things", MARK, write("made"))


@pytest.mark.parametrize(
    ("name", "mark"), [("", MARK), ("a/b", MARK), (".a", MARK), ("a", ".."), ("a", "")]
)
def test_a_name_that_is_none(folder, name, mark):
    with pytest.raises(ValueError, match="cannot be a part of a file's name"):
        keep(name, mark, write("made"))


def _slow(folder: str, barrier, made) -> None:
    def make(path: Path) -> None:
        with made.get_lock():
            made.value += 1
        path.write_text("made")

    barrier.wait(60)
    assert keep("things", MARK, make).read_text() == "made"


def test_of_several_processes_one_makes_it(folder):
    context = multiprocessing.get_context("fork")
    barrier, made = context.Barrier(3), context.Value("i", 0)
    ranks = [context.Process(target=_slow, args=(str(folder), barrier, made)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert made.value == 1
