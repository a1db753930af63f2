"""Network flows: normal traffic and nine kinds of attack, made on a test bed in 2015.

From Nour Moustafa and Jill Slay, "UNSW-NB15: a comprehensive data set for network intrusion
detection systems", MilCIS 2015: free for academic research. There are two forms. `load` gives the
official pair, a choice of flows for training and testing; `load_raw` all flows, with their times.

Invariants:

- Real or made up, a frame of `load` has the columns `COLUMNS` and ``split``, one of `load_raw` the
  columns `RAW_COLUMNS`; ``label`` is 1 for an attack, and ``attack_cat`` says which, or "Normal".
- No row of `Flows.test` is in `Flows.train` unless the publisher put it into both of his parts.
- Which file is which part is decided by its number of rows: the distributed names are swapped.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from course_lib.data import _unsw_nb15_files, _unsw_nb15_kaggle, _unsw_nb15_raw
from course_lib.data._finding import Publication, damaged, locate
from course_lib.data._unsw_nb15_features import Encoder, repeats, split
from course_lib.data._unsw_nb15_files import COLUMNS, FILES, NORMAL, ROWS
from course_lib.data._unsw_nb15_raw import COLUMNS as RAW_COLUMNS
from course_lib.data._unsw_nb15_stand_in import make_raw_stand_in, make_stand_in

__all__ = [
    "COLUMNS",
    "DUPLICATE_FREE",
    "NORMAL",
    "OFFICIAL",
    "PUBLICATION",
    "RAW_COLUMNS",
    "RAW_PUBLICATION",
    "Encoder",
    "Flows",
    "RawFlows",
    "load",
    "load_raw",
    "repeats",
    "split",
]

OFFICIAL, DUPLICATE_FREE = "official pair", "duplicate-free split"

KAGGLE = "https://www.kaggle.com/datasets/mohammadami/unsw-nb15"
PUBLISHER = "https://research.unsw.edu.au/projects/unsw-nb15-dataset"

PUBLICATION = Publication(
    title="UNSW-NB15 flows",
    file=FILES[0],
    where=f"{KAGGLE} (unpacked),\nor from {PUBLISHER};\nwith {FILES[1]} beside it",
    fetch=_unsw_nb15_kaggle.fetch,
    others=FILES[1:],
    stored=_unsw_nb15_kaggle.FOLDER,
)
RAW_PUBLICATION = Publication(
    title="UNSW-NB15 raw flows",
    file=_unsw_nb15_raw.PARTS[0],
    where=f"{PUBLISHER};\nthe other parts, to {_unsw_nb15_raw.PARTS[-1]}, may lie beside it",
    fetch=_unsw_nb15_kaggle.fetch_raw,
    others=(*_unsw_nb15_raw.PARTS[1:], _unsw_nb15_raw.FIRST_ROWS),
    stored=_unsw_nb15_kaggle.RAW_FOLDER,
)


@dataclass(frozen=True, eq=False, repr=False)
class Flows:
    """Flows for training and for testing, and how the two were told apart.

    Attributes:
        frame: All rows, as published, in the order of the files; and ``split``: "train", "test", or
            "repeat" for a row that is in neither part. A new one with each load: change it freely.
        protocol: `OFFICIAL` if the publisher's two files are there, else `DUPLICATE_FREE`: one file
            is, its repeats are left out, and half of each kind is for testing. Print it beside
            every score: scores under different protocols cannot be compared.
        origin: ``"real"`` or ``"synthetic"``. Figures and results carry it on.
        path: The file or folder they were read from; None for a stand-in.
    """

    frame: pd.DataFrame
    protocol: str
    origin: str
    path: Path | None

    @property
    def train(self) -> pd.DataFrame:
        """The training rows × `COLUMNS`, counted from 0: a new frame each time. Shuffle them."""
        return self._part("train")

    @property
    def test(self) -> pd.DataFrame:
        """The test rows × `COLUMNS`, counted from 0: a new frame each time."""
        return self._part("test")

    def __repr__(self) -> str:
        where = f", {self.path}" if self.path else ""
        return f"Flows({self._counts()}, {self.protocol}, {self.origin}{where})"

    def _part(self, name: str) -> pd.DataFrame:
        rows = self.frame[self.frame["split"] == name]
        return rows.drop(columns="split").reset_index(drop=True)

    def _counts(self) -> str:
        counts = self.frame["split"].value_counts()
        texts = [f"{counts.get(name, 0):,} {name}" for name in ("train", "test")]
        texts += [f"{counts['repeat']:,} repeats left out"] if "repeat" in counts else []
        return ", ".join(texts)


@dataclass(frozen=True, eq=False, repr=False)
class RawFlows:
    """Flows with their addresses and times, and where they came from.

    Attributes:
        frame: rows × `RAW_COLUMNS`, sorted by ``stime``. Times are UTC, in whole seconds. Columns
            are named as in `Flows`; ``id`` and ``rate`` are missing here, and ``srcip``, ``sport``,
            ``dstip``, ``dsport`` (-1 if not known), ``stime`` and ``ltime`` there.
        origin: ``"real"`` or ``"synthetic"``. Figures and results carry it on.
        path: The file they were read from, the first of several; None for a stand-in.
    """

    frame: pd.DataFrame
    origin: str
    path: Path | None

    def __repr__(self) -> str:
        where = f", {self.path}" if self.path else ""
        return f"RawFlows({len(self.frame):,} rows, {_span(self.frame)}, {self.origin}{where})"


def load(source: str = "auto") -> Flows:
    """Find the official pair, or one file of it, check every value, and say what was used.

    Args:
        source: ``"auto"`` takes by-hand files, then a download, then a synthetic stand-in;
            ``"real"`` refuses the stand-in; ``"synthetic"`` takes it at once.

    Returns:
        175,341 training and 82,332 test rows if both files are there. If one is: the rows of it
        that repeat no earlier one, in halves (of the test file 26,975 and 26,971). The stand-in is
        a pair of 8,000 and 4,000 rows.

    Raises:
        ValueError: An unknown `source`.
        DataNotFound: ``source="real"`` and no file, no download; the text says what to do.
        DataDamaged: A file is wrong, of another length, or the same file is there twice.
    """
    path = locate(PUBLICATION, source)
    if path is None:
        parts = {name: (None, table) for name, table in make_stand_in().items()}
        found = Flows(_joined(parts), OFFICIAL, "synthetic", None)
        story = "made up by the course (synthetic)"
    else:
        parts = _unsw_nb15_files.read_parts(_files(path, _unsw_nb15_files, FILES))
        protocol = OFFICIAL if len(parts) == 2 else DUPLICATE_FREE
        found = Flows(_joined(parts), protocol, "real", path)
        story = "from " + " and ".join(f"{file} ({name})" for name, (file, _) in parts.items())
    rows = f"{PUBLICATION.title}: {len(found.frame):,} rows"
    print(f"{rows} {story}, {found.protocol}: {found._counts()}", flush=True)
    for name in ROWS if path else ():
        if name not in parts:
            print(
                f"Note: the official {name} file ({ROWS[name]:,} rows) is not beside it, "
                "so the split is one of the course's own.",
                flush=True,
            )
    return found


def load_raw(source: str = "auto", rows: int | None = None) -> RawFlows:
    """Find raw flows, check and clean them, and say which were used.

    Args:
        source: As in `load`. By hand, any of the four parts ``UNSW-NB15_1.csv`` … ``_4.csv``, with
            a header or without; where none is, ``UNSW-NB15_1_first_rows.csv``.
        rows: No more than so many, the first ones of the files. A part has up to 700,001: reading
            one takes some 15 seconds.

    Returns:
        The flows of all these files together. The stand-in has 4,000, of 13 minutes.

    Raises:
        ValueError: An unknown `source`, or `rows` below 1.
        DataNotFound: ``source="real"`` and no file, no download; the text says what to do.
        DataDamaged: A file is wrong; the text names it, the line and the column.
    """
    if rows is not None and rows < 1:
        raise ValueError(f"rows must be 1 or more, or None for all, not {rows}")
    path = locate(RAW_PUBLICATION, source)
    if path is None:
        found = RawFlows(make_raw_stand_in().head(rows or None), "synthetic", None)
        story, note = "made up by the course (synthetic)", ""
    else:
        paths = _files(path, _unsw_nb15_raw, _unsw_nb15_raw.PARTS)
        found = RawFlows(_unsw_nb15_raw.read_parts(paths, rows), "real", paths[0])
        story = f"from {' and '.join(map(str, paths))}"
        whole = len(paths) == len(_unsw_nb15_raw.PARTS) and rows is None
        note = (
            "" if whole else "Note: all flows that were published are 2.5 million, in four parts."
        )
    count = f"{len(found.frame):,} rows {story}, {_span(found.frame)}"
    print(f"{RAW_PUBLICATION.title}: {count}", flush=True)
    if note:
        print(note, flush=True)
    return found


def _files(path: Path, form, names: tuple[str, ...]) -> list[Path]:
    """Return the files that lie where `locate` pointed: in a download's folder, or side by side.

    Raises:
        DataDamaged: The folder of a download has none.
    """
    stored = path.name in (_unsw_nb15_kaggle.FOLDER, _unsw_nb15_kaggle.RAW_FOLDER)
    if found := form.lying_in(path if stored else path.parent):
        return found
    raise damaged(path, f"it should be a folder with {names[0]} and {names[1]}")


def _joined(parts: dict[str, tuple[Path | None, pd.DataFrame]]) -> pd.DataFrame:
    """Return the rows of one part or two, with what each row is for."""
    tables = {name: table for name, (_, table) in parts.items()}
    if len(tables) == 2:
        whole = pd.concat(tables.values(), ignore_index=True)
        marks = np.repeat([*tables], [len(table) for table in tables.values()])
    else:
        (whole,) = tables.values()
        marks = np.full(len(whole), "repeat", dtype=object)
        for name, rows in zip(("train", "test"), split(whole), strict=True):
            marks[rows] = name
    return whole.assign(split=pd.Series(marks, dtype="str"))


def _span(frame: pd.DataFrame) -> str:
    first, last = frame["stime"].iloc[0], frame["stime"].iloc[-1]
    until = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    return f"{first:%Y-%m-%d %H:%M:%S} to {until} UTC"
