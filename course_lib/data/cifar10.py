"""CIFAR-10: 60,000 colour pictures of 32 × 32 pixels in ten classes.

From Alex Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, technical report,
University of Toronto, 2009. The files are the publisher's Python version, which torchvision reads.

Invariants:

- Nothing is unpickled before its checksum is known to be right.
- Real or made up, images are uint8, N × 3 × 32 × 32; labels are int64 from 0 to 9; every class has
  the same number of images; `CLASSES` has their names in the order of the labels.
- The images are decoded once on a machine, and all ranks map the same files. A `Cifar10` travels to
  a rank as the name of a folder. Measured (proportional set size, every image touched): 2 ranks
  hold 88 MiB of it each, 4 ranks 44 MiB, which is one copy of 176 MiB in all.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course_lib.data import _cifar10_files, _cifar10_stand_in, _decoded
from course_lib.data._cifar10_files import CLASSES, URL
from course_lib.data._finding import Publication, locate

if TYPE_CHECKING:
    import torch

__all__ = ["CLASSES", "MEAN", "PUBLICATION", "STD", "Cifar10", "load", "split"]

# Of red, green and blue in the 50,000 training images, where black is 0 and white is 1.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

_SPLIT_SEED = 42
_ONE_IN = 10  # images of each class are for validation
_STAND_IN = _decoded.fingerprint(inspect.getsource(_cifar10_stand_in))  # changes when its code does

PUBLICATION = Publication(
    title=_cifar10_files.TITLE,
    file=_cifar10_files.FOLDER,
    where=f"{URL}\n(unpacked; the archive itself, as it is, will do too)",
    fetch=_cifar10_files.fetch,
    packed=_cifar10_files.ARCHIVE,
)


@dataclass(frozen=True, eq=False, repr=False)
class Cifar10:
    """The images, and where they came from.

    The tensors are on the CPU and map files that all processes of this machine share. Treat them as
    read-only: a write makes a private copy of that page, which no other process sees.

    Pass the whole object to `launch`, not its tensors: it travels as the name of a folder (less
    than 1 kB), while a tensor travels with all its bytes. An object that you made yourself, with
    `dataclasses.replace` for instance, travels with its bytes too.

    Attributes:
        train_images: uint8, N × 3 × 32 × 32: red, green and blue from 0 to 255, row by row.
        train_labels: int64, N; from 0 to 9.
        test_images: As the training images.
        test_labels: As the training labels.
        classes: The names of the ten classes, in the order of the labels.
        origin: ``"real"`` or ``"synthetic"``. Figures and results carry it on.
        path: The folder of the publisher's files; the folder it lies in is what torchvision calls
            ``root``. None for a stand-in.
    """

    train_images: "torch.Tensor"
    train_labels: "torch.Tensor"
    test_images: "torch.Tensor"
    test_labels: "torch.Tensor"
    classes: tuple[str, ...]
    origin: str
    path: Path | None
    _kept: tuple[Path, str] | None = field(default=None, init=False)  # what `_open` was given

    def __repr__(self) -> str:
        where = f", {self.path}" if self.path else ""
        return (
            f"Cifar10({len(self.train_images):,} training and {len(self.test_images):,} test "
            f"images of {len(self.classes)} classes, {self.origin}{where})"
        )

    def __reduce_ex__(self, protocol):
        if self._kept is None:  # somebody changed something: then all of it has to travel
            return super().__reduce_ex__(protocol)
        return _open, (*self._kept, self.origin, self.path)


def load(source: str = "auto") -> Cifar10:
    """Find the images, check them, and say where they came from.

    The first time, they are decoded and stored beside the data (184 MB; where that cannot be, in
    the user's cache folder or among the temporary files). Every call compares all of it with its
    checksums, which takes about half a second; a rank that is given the result need not.

    Args:
        source: ``"auto"`` takes by-hand files, then a download, then a synthetic stand-in;
            ``"real"`` refuses the stand-in; ``"synthetic"`` takes it at once.

    Returns:
        50,000 training and 10,000 test images in the publisher's order, which is random. The
        stand-in has 5,000 and 1,000.

    Raises:
        ValueError: An unknown `source`.
        DataNotFound: ``source="real"`` and no files, no download; the text says what to do.
        DataDamaged: A file is there but wrong, or missing from the others; the text names it.
        OSError: The decoded images can be stored nowhere.
    """
    if source in ("auto", "real"):
        _cifar10_files.unpack_by_hand()
    path = locate(PUBLICATION, source)
    if path is None:
        origin, name, decode = "synthetic", "cifar10-synthetic", _cifar10_stand_in.make_stand_in
        mark = _STAND_IN
    else:
        _cifar10_files.check(path)
        origin, name, decode = "real", "cifar10", lambda: _cifar10_files.read(path)
        mark = _decoded.fingerprint(*_cifar10_files.checksums().values())
    folder = _decoded.keep(name, mark, decode, title=PUBLICATION.title)
    found = _open(folder, mark, origin, path)
    print(
        f"{PUBLICATION.title}: {len(found.train_images):,} training and "
        f"{len(found.test_images):,} test images "
        + (f"from {path}" if path else "made up by the course (synthetic)"),
        flush=True,
    )
    return found


def split(labels: "Sequence[int] | torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Row numbers of the training images for fitting and for validation: 90/10, always the same.

    Every choice (a learning rate, when to stop) is made on the validation rows, so that the test
    images are looked at once, at the end. A tenth of each class is chosen at random, once and for
    all: no seed of a run changes it.

    Args:
        labels: The labels of the training images: ``data.train_labels``.

    Returns:
        45,000 rows for fitting and 5,000 (500 of each class) for validation, int64, ascending. A
        tenth is rounded down.

    Raises:
        ValueError: `labels` is not one row of whole numbers.
    """
    import torch

    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            "split takes the labels of the training images, one whole number each, not "
            f"{labels.dtype} of shape {labels.shape}"
        )
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(labels))
    validation = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        validation[rows[: len(rows) // _ONE_IN]] = True
    return tuple(torch.from_numpy(np.flatnonzero(part)) for part in (~validation, validation))


def _open(folder: Path, mark: str, origin: str, path: Path | None) -> Cifar10:
    """Map the decoded images in `folder`: what a rank does when it is given a `Cifar10`."""
    arrays = _decoded.open_arrays(folder, mark)
    found = Cifar10(**arrays, classes=CLASSES, origin=origin, path=path)
    object.__setattr__(found, "_kept", (folder, mark))
    return found
