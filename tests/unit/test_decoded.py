"""Decoded arrays: made once, shared by processes, and never used when they have changed."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lib.data import _decoded
from course_lib.data._decoded import fingerprint, keep, open_arrays

DEADLINE = 60  # seconds until a test gives up on another process
ROOT = Path(__file__).parents[2]
MARK = fingerprint("the data of this test")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The data folder, not yet made, of a reader whose other folders are the test's own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "data"


class Decode:
    """Decodes two small arrays, and counts how often."""

    def __init__(self, start=0):
        self.calls = 0
        self.arrays = {
            "images": np.arange(start, start + 24, dtype=np.uint8).reshape(2, 3, 4),
            "labels": np.array([3, 4], dtype=np.int64),
        }

    def __call__(self):
        self.calls += 1
        return self.arrays


def keep_them(decode, mark=MARK):
    return keep("things", mark, decode, title="Things")


def assert_right(folder, decode, mark=MARK):
    found = open_arrays(folder, mark)
    assert found.keys() == decode.arrays.keys()
    for name, array in decode.arrays.items():
        assert found[name].numpy().dtype == array.dtype
        assert np.array_equal(found[name].numpy(), array)


def left_in(folder):
    """What lies there, without the lock, which is empty and stays."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_arrays_are_decoded_once_and_come_back_as_they_were(folder, capsys):
    decode = Decode()
    kept = keep_them(decode)
    assert kept == folder / ".decoded" / f"things-{MARK}"
    assert_right(kept, decode)
    assert keep_them(decode) == kept
    assert decode.calls == 1
    assert left_in(kept.parent) == [kept.name]
    assert capsys.readouterr().out == ""


def test_other_data_are_decoded_into_a_folder_of_their_own():
    old, new, mark = Decode(), Decode(100), fingerprint("the data of this test", "changed")
    first, second = keep_them(old), keep_them(new, mark)
    assert first != second
    assert_right(first, old)
    assert_right(second, new, mark)
    assert len({fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint("abc")}) == 3


# --- what is not as it was kept -----------------------------------------------------------------


def cut_off(kept):
    os.truncate(kept / "images.npy", (kept / "images.npy").stat().st_size - 1)


def empty(kept):
    os.truncate(kept / "images.npy", 0)


def missing(kept):
    (kept / "labels.npy").unlink()


def without_contents(kept):
    (kept / "contents.json").unlink()


def contents_cut_off(kept):
    os.truncate(kept / "contents.json", 40)


def contents_of_another_kind(kept):
    (kept / "contents.json").write_text("[1, 2]")


def of_other_data(kept):
    contents = json.loads((kept / "contents.json").read_text())
    contents["fingerprint"] = fingerprint("other data")
    (kept / "contents.json").write_text(json.dumps(contents))


def a_byte_changed(kept):
    content = bytearray((kept / "images.npy").read_bytes())
    content[-1] ^= 1
    (kept / "images.npy").write_bytes(content)


NOTICED_AT_ONCE = [
    cut_off,
    empty,
    missing,
    without_contents,
    contents_cut_off,
    contents_of_another_kind,
    of_other_data,
]


@pytest.mark.parametrize("damage", [*NOTICED_AT_ONCE, a_byte_changed])
def test_what_has_changed_is_decoded_again(damage):
    decode = Decode()
    kept = keep_them(decode)
    damage(kept)
    assert keep_them(decode) == kept
    assert decode.calls == 2
    assert_right(kept, decode)
    assert left_in(kept.parent) == [kept.name]


@pytest.mark.parametrize("damage", NOTICED_AT_ONCE)
def test_what_has_changed_is_not_mapped(damage):
    kept = keep_them(Decode())
    damage(kept)
    with pytest.raises(FileNotFoundError, match=r"things-\w+: .* Call load\(\) again"):
        open_arrays(kept, MARK)


def test_what_is_mapped_stays_as_it_was_when_its_files_are_replaced():
    decode = Decode()
    kept = keep_them(decode)
    before = open_arrays(kept, MARK)["images"]
    (kept / "contents.json").unlink()
    keep_them(decode)
    assert np.array_equal(before.numpy(), decode.arrays["images"])


def test_what_a_killed_process_left_does_no_harm(folder):
    part = folder / ".decoded" / f".things-{MARK}.part"
    part.mkdir(parents=True)
    (part / "images.npy").write_bytes(b"half of it")
    decode = Decode()
    kept = keep_them(decode)
    assert_right(kept, decode)
    assert left_in(folder / ".decoded") == [kept.name]


def test_decoding_that_fails_leaves_nothing(folder):
    def broken():
        raise ValueError("label 17")

    with pytest.raises(ValueError, match="label 17"):
        keep_them(broken)
    assert left_in(folder / ".decoded") == []


# --- where they lie -----------------------------------------------------------------------------


def block(place):
    """Let nothing be stored there, for root neither."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file where a folder should be")


def test_the_next_best_place_is_taken_where_nothing_can_be_stored(folder, tmp_path):
    own = tmp_path / "cache" / "torch-distributed-course"
    temporary = tmp_path / "tmp" / f"torch-distributed-course-{os.getuid()}"
    decode, name = Decode(), f"things-{MARK}"
    block(folder / ".decoded")
    assert keep_them(decode) == own / ".decoded" / name
    assert keep_them(decode) == own / ".decoded" / name
    assert decode.calls == 1
    (own / ".decoded").rename(tmp_path / "away")
    block(own / ".decoded")
    assert keep_them(decode) == temporary / ".decoded" / name
    assert_right(temporary / ".decoded" / name, decode)
    assert temporary.stat().st_mode & 0o777 == 0o700


def test_a_data_folder_that_is_none_is_passed_over(folder, tmp_path):
    folder.write_text("a file")
    kept = keep_them(Decode())
    assert kept.is_relative_to(tmp_path / "cache")


def test_nowhere_is_an_error_that_lists_the_places_and_says_what_to_do(folder, tmp_path):
    for place in (folder, tmp_path / "cache" / "torch-distributed-course"):
        block(place / ".decoded")
    os.rmdir(tmp_path / "tmp")
    decode = Decode()
    with pytest.raises(OSError, match="Things: the decoded images can be stored nowhere") as caught:
        keep_them(decode)
    story = str(caught.value)
    assert f"{folder}/.decoded: " in story
    assert f"{tmp_path}/cache/torch-distributed-course/.decoded: " in story
    assert "set COURSE_DATA to a folder that you may write to" in story
    assert decode.calls == 0


@pytest.mark.parametrize("trap", ["open to others", "a link"])
def test_a_temporary_folder_of_somebody_else_is_not_used(folder, tmp_path, trap):
    for place in (folder, tmp_path / "cache" / "torch-distributed-course"):
        block(place / ".decoded")
    planted = tmp_path / "tmp" / f"torch-distributed-course-{os.getuid()}"
    if trap == "a link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        planted.symlink_to(tmp_path / "theirs")
    else:
        planted.mkdir()
        planted.chmod(0o777)
    with pytest.raises(OSError, match="stored nowhere"):
        keep_them(Decode())


def test_a_full_disk_leaves_no_half_of_it(folder, tmp_path):
    decode = Decode()
    decode.arrays["images"] = np.zeros((1000, 1000), np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="stored nowhere"):
            keep_them(decode)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert decode.calls == 1  # the work is not done again for each place
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".npy", ".part")] == []


# --- the processes that share them --------------------------------------------------------------


def test_a_write_stays_in_the_process_and_nothing_warns():
    decode = Decode()
    kept = keep_them(decode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = open_arrays(kept, MARK)["images"]
    images.add_(1)
    assert images[0, 0, 0] == 1
    assert_right(kept, decode)


CHILD = """
import sys
from pathlib import Path
from course_lib.data._decoded import open_arrays

arrays = open_arrays(Path(sys.argv[1]), sys.argv[2])
print(sum(array.sum().item() for array in arrays.values()), flush=True)  # touches every page
sys.stdin.readline()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")
@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_share_one_copy(ranks):
    """The proportional set sizes of all who map a file add up to one file."""
    decode = Decode()
    decode.arrays["images"] = np.full((2000, 3, 32, 32), 7, np.uint8)
    kept = keep_them(decode)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(kept), MARK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(ranks)
    ]
    try:
        sums = {int(child.stdout.readline()) for child in children}
        assert sums == {7 * 2000 * 3 * 32 * 32 + 7}
        mapped = [memory_of(child.pid, kept) for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate(timeout=DEADLINE)
    size = (kept / "images.npy").stat().st_size / 1024  # kB, as in smaps
    assert 0.95 * size < sum(each["Pss"] for each in mapped) < 1.05 * size
    for each in mapped:
        assert each["Rss"] > 0.95 * size
        assert each["Private_Dirty"] == 0
        assert each["Pss"] < 1.1 * size / ranks


def memory_of(pid, folder):
    """Kilobytes of memory that a process has of the files in a folder, by kind."""
    total = dict.fromkeys(("Rss", "Pss", "Private_Dirty"), 0)
    counts = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        word, *rest = line.split()
        if not word.endswith(":"):
            counts = str(folder) in line
        elif counts and word[:-1] in total:
            total[word[:-1]] += int(rest[0])
    return total


def test_arrays_that_could_run_code_are_refused():
    class Trap:
        def __reduce__(self):
            return os.abort, ()

    with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
        keep_them(lambda: {"images": np.array([Trap()], dtype=object)})


def test_the_module_needs_no_torch_until_something_is_mapped():
    code = (
        "import sys; from course_lib.data import cifar10; "
        "assert not {'torch', 'torchvision', 'pandas', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_tensors_are_ordinary_ones():
    images = open_arrays(keep_them(Decode()), MARK)["images"]
    assert images.device == torch.device("cpu")
    assert images.is_contiguous()
    assert images.float().mean() == 11.5


def test_places_that_are_the_same_are_tried_once(folder, monkeypatch):
    monkeypatch.delenv("COURSE_DATA")
    places = list(_decoded.places())
    assert len(places) == len(set(places)) == 2
