import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import loopback_publisher as answers
import pandas as pd
import pytest
from loopback_publisher import BODY, SHA256, Publisher

from course_lib.data._download import download
from course_lib.data._finding import (
    DataDamaged,
    DataNotFound,
    Publication,
    damaged,
    data_folder,
    load_table,
    locate,
)

DEADLINE = 60  # seconds until a test gives up on another process


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The data folder, not yet made, of a reader without any settings of their own."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("COURSE_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "data"


@pytest.fixture
def publisher():
    with Publisher() as running:
        yield running


def published(fetch):
    return Publication("Numbers", "numbers.csv", "https://example.invalid/numbers.csv", fetch)


def brings(text):
    return published(lambda path: path.write_text(text))


def fails_with(error):
    def fetch(path):
        path.write_text("half of i")
        raise error

    return published(fetch)


def from_server(publisher, **changed):
    return published(
        lambda path: download(
            publisher.url, path, sha256=SHA256, size=len(BODY), title="numbers", **changed
        )
    )


def never(path):
    raise AssertionError("nobody should have asked the publisher")


def load(publication, source):
    return load_table(
        publication, source, read=pd.read_csv, make=lambda: pd.DataFrame({"a": [7, 7, 7]})
    )


def left_in(folder):
    """What a reader finds there, without the lock, which is empty and stays."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


# --- the order ------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["auto", "real"])
def test_a_by_hand_file_comes_first(folder, source, capsys):
    folder.mkdir()
    (folder / "numbers.csv").write_text("a\n1\n2\n")
    found = load(published(never), source)
    assert found.frame["a"].tolist() == [1, 2]
    assert found.origin == "real"
    assert found.path == folder / "numbers.csv"
    assert capsys.readouterr().out == f"Numbers: 2 rows from {folder}/numbers.csv\n"
    assert left_in(folder) == ["numbers.csv"]


@pytest.mark.parametrize("source", ["auto", "real"])
def test_a_download_comes_second_and_is_kept(folder, source, capsys):
    found = load(brings("a\n1\n"), source)
    assert (found.origin, found.path) == ("real", folder / "numbers.csv")
    assert left_in(folder) == ["numbers.csv"]
    assert load(published(never), source).frame.equals(found.frame)
    assert "SYNTHETIC" not in capsys.readouterr().out


def test_a_folder_is_fetched_and_renamed_like_a_file(folder):
    def fetch(path):
        path.mkdir()
        (path / "one.csv").write_text("a\n1\n")

    assert locate(published(fetch), "real") == folder / "numbers.csv"
    assert left_in(folder) == ["numbers.csv"]
    assert (folder / "numbers.csv" / "one.csv").read_text() == "a\n1\n"


def test_auto_ends_with_a_stand_in_that_nobody_can_miss(folder, capsys):
    found = load(fails_with(OSError("the line is dead")), "auto")
    assert found.frame["a"].tolist() == [7, 7, 7]
    assert (found.origin, found.path) == ("synthetic", None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-2] == "=" * 78
    assert lines[1].startswith("SYNTHETIC DATA: this is not Numbers")
    assert any("Looked for" in line and f"{folder}/numbers.csv" in line for line in lines)
    assert any("Download" in line and "the line is dead" in line for line in lines)
    assert lines[-1] == "Numbers: 3 rows made up by the course (synthetic)"
    assert left_in(folder) == []


def test_real_refuses_the_stand_in_and_says_what_to_do(folder, capsys):
    with pytest.raises(DataNotFound) as caught:
        load(fails_with(OSError("the line is dead")), "real")
    story = str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    assert "the line is dead" in story
    assert "get numbers.csv from https://example.invalid/numbers.csv" in story
    assert f"into the folder {folder}\n" in story
    assert "COURSE_DATA" in story
    assert capsys.readouterr().out == ""
    assert left_in(folder) == []


def test_synthetic_looks_nowhere(folder, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA", "/dev/null")
    assert load(published(never), "synthetic").origin == "synthetic"
    assert "SYNTHETIC DATA" in capsys.readouterr().out
    assert not folder.exists()


@pytest.mark.parametrize("source", ["Real", "", None, 1, "fake"])
def test_an_unknown_source_is_refused_with_the_choices(folder, source):
    with pytest.raises(ValueError, match="'auto', 'real', 'synthetic', not " + repr(source)):
        load(published(never), source)
    assert not folder.exists()


@pytest.mark.parametrize("setting", ["1", "true", "yes"])
def test_offline_skips_the_download_and_says_so(folder, setting, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_OFFLINE", setting)
    with pytest.raises(DataNotFound, match="not tried, because COURSE_OFFLINE is set"):
        load(published(never), "real")
    assert load(published(never), "auto").origin == "synthetic"
    assert "not tried, because COURSE_OFFLINE is set" in capsys.readouterr().out
    assert not folder.exists()


@pytest.mark.parametrize("setting", ["0", "", "false"])
def test_offline_switched_off_downloads(setting, monkeypatch):
    monkeypatch.setenv("COURSE_OFFLINE", setting)
    assert load(brings("a\n1\n"), "real").origin == "real"


# --- damaged files --------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["auto", "real"])
def test_a_damaged_file_is_an_error_and_never_passed_over(folder, source, capsys):
    folder.mkdir()
    path = folder / "numbers.csv"
    path.write_text("x")

    def read(path):
        raise damaged(path, "line 1 is wrong")

    with pytest.raises(DataDamaged, match=rf"^{re.escape(str(path))}: line 1 is wrong\n") as caught:
        load_table(published(never), source, read=read, make=never)
    assert isinstance(caught.value, ValueError)
    assert "delete numbers.csv" in str(caught.value)
    assert path.read_text() == "x"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_link_to_nothing_is_a_damaged_file(folder, offline, monkeypatch):
    monkeypatch.setenv("COURSE_OFFLINE", offline)
    folder.mkdir()
    (folder / "numbers.csv").symlink_to(folder / "gone.csv")
    with pytest.raises(DataDamaged, match=r"numbers\.csv: it cannot be read: No such file"):
        load(published(never), "auto")


# --- folders --------------------------------------------------------------------------------


def test_the_folder_is_the_readers_choice_else_in_their_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COURSE_DATA", "~/my data")
    assert data_folder() == tmp_path / "my data"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_DATA", "here")
    assert data_folder() == tmp_path / "here"
    monkeypatch.setenv("COURSE_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/big")
    assert data_folder() == Path("/var/big/torch-distributed-course")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert data_folder() == tmp_path / ".cache" / "torch-distributed-course"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("COURSE_DATA")
    assert data_folder() == tmp_path / ".cache" / "torch-distributed-course"


@pytest.mark.parametrize("source", ["auto", "real"])
def test_course_data_that_names_a_file_is_an_error(folder, source):
    folder.write_text("a\n1\n")
    with pytest.raises(NotADirectoryError, match=f"COURSE_DATA names {folder}, .* not a folder"):
        load(published(never), source)


def cannot_be_stored(folder, capsys):
    """Both sources, where nothing can be written: an error, or the stand-in; each says where."""
    with pytest.raises(DataNotFound, match=f"nothing can be stored in {folder}: ") as caught:
        load(published(never), "real")
    assert f"into the folder {folder}\n" in str(caught.value)
    assert load(published(never), "auto").origin == "synthetic"
    told = capsys.readouterr().out
    assert "SYNTHETIC DATA" in told
    assert f"nothing can be stored in {folder}: " in told


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "file" / "data"))
    cannot_be_stored(tmp_path / "file" / "data", capsys)


@pytest.fixture
def mounted(folder):
    """Mount a small file system on the data folder; needs the right to."""

    def mount(options):
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
        )
        if done.returncode:
            pytest.skip("needs the right to mount")
        mounts.append(folder)

    mounts = []
    yield mount
    for place in mounts:
        subprocess.run(["umount", str(place)], check=True)


def test_a_folder_that_cannot_be_written_to(folder, request, capsys):
    if os.geteuid():
        folder.mkdir(mode=0o500)
    else:  # permission bits don't bind root; a read-only file system does
        request.getfixturevalue("mounted")("ro")
    cannot_be_stored(folder, capsys)


def test_a_by_hand_file_in_a_folder_that_cannot_be_written_to(folder, mounted):
    mounted("size=64k")
    (folder / "numbers.csv").write_text("a\n1\n")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    assert load(published(never), "real").origin == "real"


def test_a_full_disk(folder, mounted, publisher, capsys):
    mounted("size=64k")
    says = f"it cannot be stored in {folder}: No space left on device"
    with pytest.raises(DataNotFound, match=says):
        load(from_server(publisher), "real")
    assert left_in(folder) == []  # the half that fitted is gone, and the room is free again
    assert load(from_server(publisher), "auto").origin == "synthetic"
    assert says in capsys.readouterr().out


def test_a_quota_that_is_used_up(folder, publisher, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DataNotFound, match=f"cannot be stored in {folder}: File too large"):
            load(from_server(publisher), "real")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left_in(folder) == []


# --- downloads that fail, and processes that meet or die --------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        answers.truncated,
        answers.other_bytes,
        answers.forbidden,
        answers.not_found,
        answers.half_then_silent,
    ],
)
def test_a_failed_download_leaves_nothing_and_can_be_repeated(folder, publisher, answer):
    publisher.answer = answer
    failing = from_server(publisher, read_timeout=0.5)
    with pytest.raises(DataNotFound, match=r"127\.0\.0\.1"):
        load(failing, "real")
    assert left_in(folder) == []
    assert load(failing, "auto").origin == "synthetic"
    publisher.answer = answers.whole
    assert locate(from_server(publisher), "real").read_bytes() == BODY
    assert left_in(folder) == ["numbers.csv"]


def test_a_download_gets_its_name_when_it_is_whole_and_by_renaming(folder):
    def fetch(path):
        path.write_text("a\n1\n")
        assert path.parent == folder
        assert not (folder / "numbers.csv").exists()
        seen.append(path.stat().st_ino)

    seen = []
    renamed = locate(published(fetch), "real")
    assert seen == [renamed.stat().st_ino]


def test_an_interrupted_download_leaves_nothing(folder):
    with pytest.raises(KeyboardInterrupt):
        load(fails_with(KeyboardInterrupt()), "auto")
    assert left_in(folder) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_download_left_does_no_harm(folder, kind):
    stale = folder / ".numbers.csv.part"
    if kind == "file":
        folder.mkdir()
        stale.write_text("x" * 10_000)
    else:
        stale.mkdir(parents=True)
        (stale / "one.csv").write_text("x")
    assert load(brings("a\n1\n"), "real").frame["a"].tolist() == [1]
    assert left_in(folder) == ["numbers.csv"]


CHILD = f"""
import sys
from course_lib.data._download import download
from course_lib.data._finding import Publication, locate

def fetch(path):
    download(sys.argv[1], path, sha256="{SHA256}", size={len(BODY)}, title="numbers")

print("found", locate(Publication("Numbers", "numbers.csv", "its page", fetch), "real"), flush=True)
"""


@pytest.fixture
def start(publisher):
    """Start a process that looks for the numbers; none outlives the test."""
    children = []

    def start():
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, publisher.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def test_one_process_downloads_while_the_others_wait(folder, publisher, start):
    publisher.answer = answers.whole_when_told
    first = start()
    assert publisher.asked.wait(DEADLINE)
    others = [start(), start()]
    for other in others:
        assert "another process is downloading it; waiting" in other.stdout.readline()
    assert not (folder / "numbers.csv").exists()
    publisher.proceed.set()
    for child in (first, *others):
        assert child.communicate(timeout=DEADLINE)[0] == f"found {folder}/numbers.csv\n"
    assert publisher.gets == 1
    assert left_in(folder) == ["numbers.csv"]


def test_a_process_killed_in_the_middle_hands_over_to_the_next(folder, publisher, start):
    publisher.answer = answers.half_then_silent
    first = start()
    part, until = folder / ".numbers.csv.part", time.monotonic() + DEADLINE
    while not (part.exists() and part.stat().st_size > 10_000):
        assert time.monotonic() < until
        assert first.poll() is None
        time.sleep(0.01)
    second = start()
    assert "waiting" in second.stdout.readline()
    publisher.answer = answers.whole
    first.kill()
    assert first.wait(DEADLINE) == -9
    assert second.communicate(timeout=DEADLINE)[0] == f"found {folder}/numbers.csv\n"
    assert (folder / "numbers.csv").read_bytes() == BODY
    assert left_in(folder) == ["numbers.csv"]
    assert publisher.gets == 2


# --- small things -----------------------------------------------------------------------------


def test_a_data_set_shows_itself_in_one_line(folder):
    found = load(brings("a,b\n1,2\n"), "real")
    assert repr(found) == f"Dataset(1 rows × 2 columns, real, {folder}/numbers.csv)"


def test_importing_the_package_is_cheap():
    code = (
        "import sys, course_lib.data as d; "
        "assert not {'pandas', 'numpy', 'requests', 'torch'} & set(sys.modules); "
        "assert d.housing.ROWS == 20640"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
