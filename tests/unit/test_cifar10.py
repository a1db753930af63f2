"""CIFAR-10: found, checked before it is read, decoded once, shared by ranks; and its stand-in."""

import dataclasses
import hashlib
import os
import pickle
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import cloudpickle
import loopback_publisher as answers
import numpy as np
import pytest
import tiny_cifar10 as tiny
import torch
from loopback_publisher import Publisher
from sklearn.linear_model import RidgeClassifier
from torch import nn
from torchvision.datasets import CIFAR10

from course_lib import cli, launch, machine
from course_lib.data import DataDamaged, DataNotFound, _decoded, cifar10
from course_lib.data import _cifar10_files as files
from course_lib.data._cifar10_stand_in import make_stand_in

REAL = Path(os.environ.get("COURSE_DATA", "/nowhere")).absolute() / files.FOLDER
DEADLINE = 60  # seconds until a test gives up on another process
TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The data folder of a reader without a network, whose other folders are the test's own."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "data"


@pytest.fixture
def believe(monkeypatch):
    """Return a function that lets the course take some files for the publisher's."""

    def believe(made):
        tiny.believe(made, monkeypatch.setattr)
        return made

    return believe


@pytest.fixture
def made(believe):
    """The publisher's files, as the course knows them: name → bytes."""
    return believe(tiny.contents())


def left_in(folder):
    """What a reader finds there, without locks, which are empty and stay."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def assert_is(found, made):
    """Compare a loaded set with what the files hold."""
    for part, names in (("train", tiny.BATCHES), ("test", ("test_batch",))):
        batches = [pickle.loads(made[name]) for name in names]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([batch["labels"] for batch in batches])
        assert np.array_equal(getattr(found, f"{part}_images").numpy(), images)
        assert np.array_equal(getattr(found, f"{part}_labels").numpy(), labels)


# --- what is found ------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.exists(), reason="the real data are not here")
def test_the_real_images(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA", str(REAL.parent))
    found = cifar10.load("real")
    assert (found.origin, found.path) == ("real", REAL)
    assert (
        capsys.readouterr().out == f"CIFAR-10: 50,000 training and 10,000 test images from {REAL}\n"
    )
    assert found.train_images.shape == (50_000, 3, 32, 32)
    assert found.test_images.shape == (10_000, 3, 32, 32)
    assert found.train_labels.bincount().tolist() == [5000] * 10
    assert found.test_labels.bincount().tolist() == [1000] * 10
    theirs = CIFAR10(REAL.parent, train=False, download=False)
    assert torch.equal(found.test_images, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
    assert found.test_labels.tolist() == theirs.targets
    assert found.classes == tuple(theirs.classes)
    total = torch.zeros(2, 3, dtype=torch.float64)  # of the values, and of their squares
    for images in found.train_images.split(2_500):
        values = images.to(torch.float64) / 255
        total += torch.stack([values.sum(dim=(0, 2, 3)), (values**2).sum(dim=(0, 2, 3))])
    mean, square = total / (50_000 * 32 * 32)
    std = (square - mean**2).sqrt()
    assert mean.tolist() == pytest.approx(cifar10.MEAN, abs=1e-4)
    assert std.tolist() == pytest.approx(cifar10.STD, abs=1e-4)


@pytest.mark.parametrize("source", ["auto", "real"])
def test_by_hand_files_are_read_checked_and_announced(folder, made, source, capsys):
    tiny.write(folder / files.FOLDER, made)
    for _ in range(2):
        found = cifar10.load(source)
        assert_is(found, made)
    assert (found.origin, found.path) == ("real", folder / files.FOLDER)
    assert found.classes == cifar10.CLASSES
    assert [getattr(found, name).dtype for name in TENSORS] == [torch.uint8, torch.int64] * 2
    line = f"CIFAR-10: 100 training and 50 test images from {folder / files.FOLDER}\n"
    assert capsys.readouterr().out == 2 * line
    assert repr(found) == (
        f"Cifar10(100 training and 50 test images of 10 classes, real, {folder / files.FOLDER})"
    )


def test_files_that_nobody_may_write_beside_are_read_all_the_same(folder, made, tmp_path):
    tiny.write(folder / files.FOLDER, made)
    (folder / ".decoded").write_text("no folder: nothing can be stored in it, by root neither")
    found = cifar10.load("real")
    assert_is(found, made)
    assert found.train_images is not None
    assert list((tmp_path / "cache").rglob("train_images.npy"))


def test_a_set_that_can_be_decoded_nowhere_is_an_error_and_no_stand_in(folder, made):
    tiny.write(folder / files.FOLDER, made)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="CIFAR-10: the decoded images can be stored nowhere"):
            cifar10.load("auto")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("source", ["Real", "", None])
def test_an_unknown_source_is_refused_with_the_choices(source):
    with pytest.raises(ValueError, match="'auto', 'real', 'synthetic', not " + repr(source)):
        cifar10.load(source)


def test_real_says_what_to_get_from_where_and_where_to_put_it(folder):
    with pytest.raises(DataNotFound) as caught:
        cifar10.load("real")
    story = str(caught.value)
    assert "not tried, because COURSE_OFFLINE is set" in story
    assert f"get cifar-10-batches-py from {files.URL}" in story
    assert "the archive itself, as it is, will do too" in story
    assert f"into the folder {folder}\n" in story
    assert left_in(folder) == []


def test_the_address_and_the_names_are_torchvisions():
    assert CIFAR10.url == files.URL
    assert CIFAR10.filename == files.ARCHIVE
    assert CIFAR10.base_folder == files.FOLDER
    assert set(files.checksums()) == set(tiny.NAMES)


# --- what is damaged ----------------------------------------------------------------------------


def refused(folder, *words):
    """Load, and return the text of the error, which names every word and leaves nothing decoded."""
    for source in ("auto", "real"):
        with pytest.raises(DataDamaged) as caught:
            cifar10.load(source)
    story = str(caught.value)
    for word in words:
        assert word in story
    decoded = folder / ".decoded"
    assert not decoded.exists() or left_in(decoded) == []
    return story


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_missing_file_is_named_with_what_to_do(folder, made, name):
    tiny.write(folder / files.FOLDER, made)
    (folder / files.FOLDER / name).unlink()
    path = folder / files.FOLDER / name
    refused(folder, f"{path}: it is missing\n", "Put a fresh copy there", "delete the whole folder")


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_damaged_file_is_named_before_anything_is_unpickled(folder, made, name):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(folder / "the trap was sprung"),)

    tiny.write(folder / files.FOLDER, made)
    (folder / files.FOLDER / name).write_bytes(pickle.dumps(Trap()))
    right = hashlib.md5(made[name]).hexdigest()
    refused(folder, f"{folder / files.FOLDER / name}: it is damaged: its md5 is ", right)
    assert left_in(folder) in ([files.FOLDER], [".decoded", files.FOLDER])


def test_files_that_are_damaged_after_they_were_decoded_are_noticed(folder, made):
    tiny.write(folder / files.FOLDER, made)
    cifar10.load("real")
    path = folder / files.FOLDER / "data_batch_3"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(DataDamaged, match="data_batch_3: it is damaged"):
        cifar10.load("auto")


def test_a_file_that_cannot_be_read_is_named(folder, made):
    tiny.write(folder / files.FOLDER, made)
    path = folder / files.FOLDER / "data_batch_4"
    path.unlink()
    path.mkdir()
    refused(folder, f"{path}: it cannot be read: Is a directory")


def test_a_folder_in_the_folder_is_pointed_out(folder, made):
    tiny.write(folder / files.FOLDER / files.FOLDER, made)
    refused(folder, "data_batch_1: it is missing; cifar-10-batches-py lies in a second folder")


@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_no_folder_under_the_name_is_damage(folder, made, kind):
    if kind == "file":
        (folder / files.FOLDER).write_text("x")
    else:
        (folder / files.FOLDER).symlink_to(folder / "gone")
    refused(folder, f"{folder / files.FOLDER}: it is not a folder", "delete cifar-10-batches-py")


IMAGES = np.zeros((20, 3072), dtype=np.uint8)
WRONG_CONTENT = {
    "a label too high": (
        {"data_batch_3": {"labels": [*range(10), *range(8), 17, 9]}},
        "data_batch_3: image 18 has the label 17; labels go from 0 to 9",
    ),
    "a label below 0": (
        {"test_batch": {"labels": [-1, *range(1, 10)] * 5}},
        "test_batch: image 0 has the label -1; labels go from 0 to 9",
    ),
    "a class too large": (
        {"data_batch_5": {"labels": [0, 0, *range(2, 10)] * 2}},
        f"{files.FOLDER}: class airplane has 12 images instead of 10",
    ),
    "a label too few": (
        {"test_batch": {"labels": [1] * 49}},
        "test_batch: it has 49 labels for 50 images",
    ),
    "images too few": (
        {"data_batch_1": {"data": IMAGES[:10]}},
        f"{files.FOLDER}: it has 90 uint8 images instead of 100 uint8",
    ),
    "images of another type": (
        {"test_batch": {"data": np.zeros((50, 3072), dtype=np.float32)}},
        "test_batch: it has 50 float32 images instead of 50 uint8",
    ),
    "images of another size": (
        {"test_batch": {"data": np.zeros((50, 3000), dtype=np.uint8)}},
        "torchvision cannot read the test files: ValueError: ",
    ),
    "labels that are no numbers": (
        {"test_batch": {"labels": ["cat"] * 50}},
        "torchvision cannot read the test files: ValueError: ",
    ),
    "other classes": (
        {"meta": {"label_names": ["apple", *cifar10.CLASSES[1:]]}},
        "batches.meta: it names other classes: ('apple', 'automobile'",
    ),
    "no class names": (
        {"meta": {"label_names": None}},
        "torchvision cannot read the train files: TypeError: ",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_CONTENT)
def test_content_is_looked_at_although_the_checksums_are_right(folder, believe, wrong):
    changed, fault = WRONG_CONTENT[wrong]
    tiny.write(folder / files.FOLDER, believe(tiny.contents(**changed)))
    refused(folder, f"{fault}", "Put a fresh copy there")


# --- the archive --------------------------------------------------------------------------------


def test_an_archive_put_there_by_hand_is_unpacked_once(folder, made, monkeypatch, capsys):
    packed = tiny.pack(made)
    tiny.believe_archive(packed, monkeypatch.setattr)
    (folder / files.ARCHIVE).write_bytes(packed)
    assert_is(cifar10.load("real"), made)
    assert sorted(p.name for p in (folder / files.FOLDER).iterdir()) == sorted(tiny.NAMES)
    assert left_in(folder) == [".decoded", files.FOLDER, files.ARCHIVE]
    (folder / files.ARCHIVE).write_bytes(b"not looked at again")
    (folder / f".{files.FOLDER}.lock").unlink()
    (folder / f".{files.FOLDER}.lock").mkdir()  # as in a folder that cannot be written to
    assert_is(cifar10.load("auto"), made)
    assert "SYNTHETIC" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda packed: packed[:-10], "bytes instead of"),
        (lambda packed: packed[:100] + bytes(10) + packed[110:], "it is damaged: its sha256 is"),
        (lambda packed: b"", "it has 0 bytes instead of"),
    ],
)
def test_another_archive_is_not_even_opened(folder, made, monkeypatch, damage, says):
    packed = tiny.pack(made)
    tiny.believe_archive(packed, monkeypatch.setattr)
    (folder / files.ARCHIVE).write_bytes(damage(packed))
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("it was opened"))
    refused(folder, f"{folder / files.ARCHIVE}: it ", says, f"delete {files.ARCHIVE}")
    assert left_in(folder) == [files.ARCHIVE]


def link(name, to):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


@pytest.mark.parametrize(
    "name",
    ["../evil", "/evil", f"{files.FOLDER}/../../evil", "evil", f"{files.FOLDER}/../evil"],
)
@pytest.mark.parametrize("kind", ["file", "link"])
def test_an_archive_that_reaches_outside_its_folder_is_refused(
    folder, made, monkeypatch, name, kind
):
    packed = tiny.pack(made, **{name: b"x" if kind == "file" else link(name, "/etc/passwd")})
    tiny.believe_archive(packed, monkeypatch.setattr)
    (folder / files.ARCHIVE).write_bytes(packed)
    refused(folder, f"{folder / files.ARCHIVE}: it holds {name!r}, which is not CIFAR-10's")
    assert left_in(folder) == [files.ARCHIVE]
    assert not list(folder.parent.rglob("evil"))
    assert not Path("/evil").exists()


def test_a_link_in_the_place_of_a_file_is_not_followed(folder, made, monkeypatch, tmp_path):
    (tmp_path / "theirs").write_bytes(made.pop("batches.meta"))
    name = f"{files.FOLDER}/batches.meta"
    packed = tiny.pack(made, **{name: link(name, str(tmp_path / "theirs"))})
    tiny.believe_archive(packed, monkeypatch.setattr)
    (folder / files.ARCHIVE).write_bytes(packed)
    refused(folder, f"{files.ARCHIVE}: it lacks batches.meta")


def test_an_archive_that_is_none_is_refused(folder, made, monkeypatch):
    tiny.believe_archive(b"<!DOCTYPE html>", monkeypatch.setattr)
    (folder / files.ARCHIVE).write_bytes(b"<!DOCTYPE html>")
    refused(folder, f"{files.ARCHIVE}: it is no archive that can be unpacked")


def test_an_archive_that_cannot_be_unpacked_is_no_reason_for_a_stand_in(folder, made, monkeypatch):
    packed = tiny.pack(made)
    tiny.believe_archive(packed, monkeypatch.setattr)
    (folder / files.ARCHIVE).write_bytes(packed)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(DataNotFound, match=r"is there, but it cannot be unpacked: .*too large"):
            cifar10.load("auto")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left_in(folder) == [files.ARCHIVE]


# --- the publisher ------------------------------------------------------------------------------


@pytest.fixture
def publisher(monkeypatch, made):
    """A server in the publisher's place that has the right archive."""
    packed = tiny.pack(made)
    monkeypatch.delenv("COURSE_OFFLINE")
    tiny.believe_archive(packed, monkeypatch.setattr)
    with Publisher() as running:
        running.answer = lambda _, handler: answers.send(handler, packed, length=len(packed))
        running.packed = packed
        monkeypatch.setattr(files, "URL", running.url)
        yield running


def test_the_publishers_archive_is_downloaded_once(folder, publisher, made, capsys):
    for source in ("real", "auto"):
        found = cifar10.load(source)
        assert_is(found, made)
        assert (found.origin, found.path) == ("real", folder / files.FOLDER)
    assert publisher.gets == 1
    assert sorted(p.name for p in (folder / files.FOLDER).iterdir()) == sorted(tiny.NAMES)
    assert left_in(folder) == [".decoded", files.FOLDER]


def test_files_that_a_person_puts_there_during_the_download_stay(folder, publisher, made):
    def slowly(_, handler):
        tiny.write(folder / files.FOLDER, {**made, "notes.txt": b"of a person"})
        answers.send(handler, publisher.packed, length=len(publisher.packed))

    publisher.answer = slowly
    assert_is(cifar10.load("real"), made)
    assert (folder / files.FOLDER / "notes.txt").read_bytes() == b"of a person"


def cut_off(publisher, handler):
    answers.send(handler, publisher.packed[:-1000], length=len(publisher.packed))


def another(publisher, handler):
    answers.send(handler, publisher.packed[::-1], length=len(publisher.packed))


@pytest.mark.parametrize("answer", [cut_off, another, answers.login_page, answers.not_found])
def test_a_download_that_fails_leaves_nothing_and_can_be_repeated(
    folder, publisher, made, answer, capsys
):
    right, publisher.answer = publisher.answer, answer
    with pytest.raises(DataNotFound, match=r"127\.0\.0\.1"):
        cifar10.load("real")
    assert left_in(folder) == []
    assert cifar10.load("auto").origin == "synthetic"
    assert "127.0.0.1" in capsys.readouterr().out
    publisher.answer = right
    assert_is(cifar10.load("real"), made)


def test_a_downloaded_archive_that_reaches_outside_is_refused(folder, publisher, made, monkeypatch):
    packed = tiny.pack(made, **{"../evil": b"x"})
    tiny.believe_archive(packed, monkeypatch.setattr)
    publisher.answer = lambda _, handler: answers.send(handler, packed, length=len(packed))
    with pytest.raises(DataNotFound, match=r"it holds '\.\./evil', which is not CIFAR-10's"):
        cifar10.load("real")
    assert left_in(folder) == []
    assert not list(folder.parent.rglob("evil"))


# --- processes that meet ------------------------------------------------------------------------

CHILD = """
import sys
import tiny_cifar10 as tiny
from course_lib.data import _cifar10_files as files, cifar10

tiny.believe(tiny.contents())
read = files.read

def read_when_told(folder):
    print("decoding", flush=True)
    sys.stdin.readline()
    return read(folder)

files.read = read_when_told
print("sum", cifar10.load("real").train_images.sum().item(), flush=True)
"""


@pytest.fixture
def start():
    """Start a process that loads the images; none outlives the test."""
    children = []

    def start():
        root = Path(__file__).parents[2]
        paths = os.pathsep.join([str(root), str(Path(__file__).parent)])
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("ends", ["whole", "killed"])
def test_one_process_decodes_while_the_other_waits(folder, made, start, ends):
    tiny.write(folder / files.FOLDER, made)
    right = sum(int(pickle.loads(made[name])["data"].sum()) for name in tiny.BATCHES)
    first = start()
    assert first.stdout.readline() == "decoding\n"
    second = start()
    assert second.stdout.readline() == "CIFAR-10: another process is decoding it; waiting.\n"
    if ends == "killed":
        first.kill()
        assert second.stdout.readline() == "decoding\n"
        said, _ = second.communicate("go on\n", timeout=DEADLINE)
    else:
        assert first.communicate("go on\n", timeout=DEADLINE)[0].endswith(f"sum {right}\n")
        said, _ = second.communicate(timeout=DEADLINE)
        assert "decoding" not in said
    assert said.endswith(f"sum {right}\n")
    (decoded,) = left_in(folder / ".decoded")
    assert re.fullmatch("cifar10-[0-9a-f]{16}", decoded)


# --- the object ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_it_travels_as_the_name_of_a_folder(dumps):
    found = cifar10.load("synthetic")
    packed = dumps(found)
    assert len(packed) < 1_000
    arrived = pickle.loads(packed)
    for name in TENSORS:
        assert torch.equal(getattr(arrived, name), getattr(found, name))
    assert (arrived.origin, arrived.path, arrived.classes) == ("synthetic", None, found.classes)
    assert dumps(arrived) == packed


def test_what_a_person_changed_travels_as_it_is():
    found = cifar10.load("synthetic")
    few = dataclasses.replace(found, train_images=found.train_images[:7].clone())
    arrived = pickle.loads(pickle.dumps(few))
    assert torch.equal(arrived.train_images, found.train_images[:7])
    assert torch.equal(arrived.test_labels, found.test_labels)


def test_decoded_images_that_are_gone_are_named_where_they_are_missed(folder):
    packed = pickle.dumps(cifar10.load("synthetic"))
    (kept,) = (path for path in (folder / ".decoded").iterdir() if path.is_dir())
    os.truncate(kept / "train_images.npy", 1000)
    with pytest.raises(FileNotFoundError, match=r"cifar10-synthetic.* Call load\(\) again"):
        pickle.loads(packed)


def test_ranks_map_the_same_images(folder):
    found = cifar10.load("synthetic")

    def look(found):
        return found.train_images.sum().item(), found.test_labels.sum().item(), repr(found)

    assert launch(look, found, nprocs=2, device="cpu") == [look(found)] * 2


def test_it_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        cifar10.load("synthetic").origin = "real"


# --- the split ----------------------------------------------------------------------------------


def test_the_split_is_stratified_disjoint_and_never_another():
    labels = torch.tensor(np.random.default_rng(1).permutation(np.arange(5000) % 10))
    torch.manual_seed(1)
    np.random.seed(1)
    fit, validation = cifar10.split(labels)
    torch.manual_seed(2)
    np.random.seed(2)
    again = cifar10.split(labels.tolist())
    assert torch.equal(fit, again[0])
    assert torch.equal(validation, again[1])
    assert fit.dtype == validation.dtype == torch.int64
    assert torch.equal(torch.cat([fit, validation]).sort().values, torch.arange(5000))
    assert labels[validation].bincount().tolist() == [50] * 10
    assert (fit.diff() > 0).all()
    assert (validation.diff() > 0).all()
    assert validation[:5].tolist() == [8, 12, 23, 26, 29]
    thirds = validation.view(-1, 100).float().mean(dim=1)
    assert thirds[0] < 1000  # ascending, and from everywhere
    assert thirds[-1] > 4000


@pytest.mark.parametrize(
    "labels", [torch.zeros(3, 3, dtype=torch.int64), torch.zeros(9), ["cat", "dog"], 50_000]
)
def test_a_split_of_something_else_is_refused(labels):
    with pytest.raises(ValueError, match="split takes the labels of the training images"):
        cifar10.split(labels)


# --- the stand-in -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["auto", "synthetic"])
def test_the_stand_in_announces_itself(folder, source, capsys):
    found = cifar10.load(source)
    assert (found.origin, found.path) == ("synthetic", None)
    told = capsys.readouterr().out
    assert "SYNTHETIC DATA: this is not CIFAR-10" in told
    assert told.endswith(
        "CIFAR-10: 5,000 training and 1,000 test images made up by the course (synthetic)\n"
    )
    assert "real" not in repr(found)
    assert left_in(folder) == [".decoded"]


def test_the_stand_in_looks_like_the_real_set():
    found = cifar10.load("synthetic")
    assert found.train_images.shape == (5000, 3, 32, 32)
    assert found.test_images.shape == (1000, 3, 32, 32)
    assert [getattr(found, name).dtype for name in TENSORS] == [torch.uint8, torch.int64] * 2
    assert found.train_labels.bincount().tolist() == [500] * 10
    assert found.test_labels.bincount().tolist() == [100] * 10
    assert found.train_labels[:100].bincount(minlength=10).min() > 0  # in random order
    assert found.classes == cifar10.CLASSES
    assert len(torch.cat([found.train_images, found.test_images]).unique(dim=0)) == 6000
    pixels = found.train_images.float() / 255
    assert 0.2 < pixels.mean() < 0.6
    assert 0.15 < pixels.std() < 0.35


def test_the_stand_in_is_the_same_every_time():
    first, second = make_stand_in(100, 50), make_stand_in(100, 50)
    for name in TENSORS:
        assert np.array_equal(first[name], second[name])


@pytest.fixture
def one_thread():
    """Two threads on a busy machine wait for each other more than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_convolution_beats_a_line_on_the_stand_in():
    found = cifar10.load("synthetic")
    (x, y), (x_test, y_test) = (
        (images.float() / 127.5 - 1, labels)
        for images, labels in (
            (found.train_images, found.train_labels),
            (found.test_images, found.test_labels),
        )
    )
    line = RidgeClassifier(alpha=1e4).fit(x.flatten(1).numpy(), y.numpy())
    of_line = line.score(x_test.flatten(1).numpy(), y_test.numpy())

    def block(planes, wanted):
        convolution = nn.Conv2d(planes, wanted, 3, padding=1)
        return [convolution, nn.BatchNorm2d(wanted), nn.ReLU(), nn.MaxPool2d(2)]

    torch.manual_seed(0)
    layers = [*block(3, 16), *block(16, 32), *block(32, 64), nn.Flatten(), nn.Linear(1024, 10)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(3):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        of_network = (model.eval()(x_test).argmax(dim=1) == y_test).float().mean().item()
    assert 0.15 < of_line < 0.45, "a line sees little more than the colour"
    assert of_network > of_line + 0.1


def test_a_changed_stand_in_is_not_taken_for_the_old_one(folder, monkeypatch):
    cifar10.load("synthetic")
    monkeypatch.setattr(cifar10, "_STAND_IN", _decoded.fingerprint("other code"))
    cifar10.load("synthetic")
    assert len(left_in(folder / ".decoded")) == 2


# --- the commands -------------------------------------------------------------------------------


def test_course_data_verifies_the_files(folder, made, capsys):
    tiny.write(folder / files.FOLDER, made)
    assert cli.main(["data", "--verify", "cifar10"]) == 0
    assert "✓ cifar10: real and right, 0." in capsys.readouterr().out
    (folder / files.FOLDER / "test_batch").unlink()
    assert cli.main(["data", "--verify", "cifar10"]) == 1
    assert "test_batch: it is missing" in capsys.readouterr().err


def test_an_archive_counts_as_found(folder, made):
    assert machine.found_data()["CIFAR-10"].startswith("not here yet")
    (folder / files.ARCHIVE).write_bytes(b"whatever it holds")
    assert machine.found_data()["CIFAR-10"] == str(folder / files.ARCHIVE)
    tiny.write(folder / files.FOLDER, made)
    assert machine.found_data()["CIFAR-10"] == str(folder / files.FOLDER)
