"""A CIFAR-10 of 150 images in the publisher's layout, and a course that takes it for the real one.

Processes of a test import this too, so that all of them believe in the same files.
"""

import hashlib
import io
import pickle
import tarfile

import numpy as np
from torchvision.datasets import CIFAR10

from course_lib.data import _cifar10_files as files

IMAGES = {"train": 100, "test": 50}
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
NAMES = (*BATCHES, "test_batch", "batches.meta")


def contents(**changed):
    """Return the files as the publisher would have written them: name → bytes.

    Args:
        changed: Batch → what its pickle holds besides or instead.
    """
    rng = np.random.default_rng(0)
    made = {}
    for name, count in {**dict.fromkeys(BATCHES, 20), "test_batch": 50}.items():
        batch = {
            "batch_label": name,
            "labels": [int(label) for label in rng.permutation(np.arange(count) % 10)],
            "data": rng.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8),
            "filenames": [f"{name}_{row}.png" for row in range(count)],
        }
        made[name] = pickle.dumps({**batch, **changed.get(name, {})}, protocol=2)
    meta = {"label_names": list(files.CLASSES), **changed.get("meta", {})}
    made["batches.meta"] = pickle.dumps(meta, protocol=2)
    return made


def write(folder, made):
    """Write the files into a new folder."""
    folder.mkdir(parents=True)
    for name, content in made.items():
        (folder / name).write_bytes(content)


def pack(made, **more):
    """Return the publisher's archive of the files.

    Args:
        made: Name → bytes.
        more: Name of a member outside the publisher's folder → bytes; or a `tarfile.TarInfo`.
    """
    members = {f"{files.FOLDER}/{name}": content for name, content in made.items()}
    members[f"{files.FOLDER}/readme.html"] = b"<p>as in the real one</p>"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as packed:
        folder = tarfile.TarInfo(files.FOLDER)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        packed.addfile(folder)
        for name, content in {**members, **more}.items():
            if isinstance(content, tarfile.TarInfo):
                packed.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def believe(made, put=setattr):
    """Let torchvision and the course take these files for the publisher's.

    Args:
        made: Name → bytes.
        put: ``setattr``, or a test's ``monkeypatch.setattr``.
    """
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in made.items()}
    put(CIFAR10, "train_list", [[name, md5[name]] for name in BATCHES])
    put(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    put(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    put(files, "IMAGES", IMAGES)


def believe_archive(packed, put=setattr):
    """Let the course take this archive for the publisher's."""
    put(files, "SHA256", hashlib.sha256(packed).hexdigest())
    put(files, "SIZE", len(packed))
