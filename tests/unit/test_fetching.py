"""`course data`: every data set is tried, and each failure says what to do."""

import dataclasses
import os

import pytest

from course_lib import cli, data
from course_lib.data import housing
from course_lib.data._download import DownloadFailed
from course_lib.data._housing_stand_in import make_stand_in


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder, and one data set: the others have tests of their own."""
    monkeypatch.setattr(data, "_DATA_SETS", ("housing",))
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.delenv("COURSE_OFFLINE", raising=False)
    return tmp_path


@pytest.fixture
def publish(monkeypatch):
    """Say what the publisher does when it is asked for the file at a path."""

    def answer(fetch):
        published = dataclasses.replace(housing.PUBLICATION, fetch=fetch)
        monkeypatch.setattr(housing, "PUBLICATION", published)

    return answer


def give(path):
    make_stand_in(housing.ROWS).to_csv(path, index=False)


def refuse(path):
    raise DownloadFailed("the.publisher did not answer within 5 s")


def must_not_be_asked(path):
    raise AssertionError("the publisher was asked")


def test_what_is_missing_is_fetched_and_then_verified(folder, publish, capsys):
    publish(give)
    assert cli.main(["data"]) == 0
    said = capsys.readouterr().out
    assert f"20,640 rows from {folder / 'housing.csv'}" in said
    assert "✓ housing: real and right, 1." in said

    publish(must_not_be_asked)
    assert cli.main(["data", "--verify", "housing"]) == 0
    assert "✓ housing" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["data", "--verify"], ["data", "housing", "--verify"]])
def test_verify_downloads_nothing_and_says_what_to_get(folder, publish, capsys, words):
    publish(must_not_be_asked)
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert "✗ housing" in said
    assert "get housing.csv from https://" in said
    assert "Traceback" not in said
    assert "COURSE_OFFLINE" not in os.environ
    assert list(folder.iterdir()) == []


def test_a_damaged_file_is_named_and_not_replaced(folder, publish, capsys):
    publish(must_not_be_asked)
    (folder / "housing.csv").write_text("<html>Please log in")
    assert cli.main(["data"]) == 1
    said = capsys.readouterr().err
    assert f"✗ housing: {folder / 'housing.csv'}: it is a web page" in said


def test_one_data_set_that_fails_keeps_no_other_from_being_tried(
    folder, publish, monkeypatch, capsys
):
    class Broken:
        PUBLICATION = None

        def load(source):
            raise ZeroDivisionError("of a library")

    monkeypatch.setattr(data, "broken", Broken, raising=False)
    monkeypatch.setattr(data, "_DATA_SETS", ("broken", "housing"))
    publish(give)
    assert cli.main(["data"]) == 1
    said = capsys.readouterr()
    assert "✗ broken: ZeroDivisionError: of a library" in said.err
    assert "not right: broken." in said.err
    assert "✓ housing" in said.out


def test_a_publisher_that_does_not_answer_is_a_failure_with_a_way_out(folder, publish, capsys):
    publish(refuse)
    assert cli.main(["data", "housing"]) == 1
    said = capsys.readouterr().err
    assert "did not answer within 5 s" in said
    assert str(folder) in said


def test_an_unknown_name_is_answered_with_those_there_are(folder, publish, capsys):
    publish(must_not_be_asked)
    assert cli.main(["data", "housing", "houses"]) == 2
    assert "no data set houses. There are: housing" in capsys.readouterr().err


@pytest.mark.parametrize("name", data._DATA_SETS)
def test_every_data_set_says_what_the_commands_ask_it(name):
    module = getattr(data, name)
    assert module.PUBLICATION.title
    assert module.PUBLICATION.file
    assert "https://" in module.PUBLICATION.where
    assert callable(module.load)
