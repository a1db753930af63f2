"""Movie reviews: 50,000 in English from IMDb, half of them positive, half negative.

From Andrew L. Maas, Raymond E. Daly, Peter T. Pham, Dan Huang, Andrew Y. Ng and Christopher Potts,
"Learning Word Vectors for Sentiment Analysis", ACL 2011. There are three ways to have them: the one
file that Kaggle gives out, the authors' own folder, and the `datasets` library.

Invariants:

- Real or made up, a frame has the columns ``text``, ``label`` (0 negative, 1 positive) and
  ``split`` (``"train"`` or ``"test"``), and where they are known ``rating`` (1 to 4, 7 to 10) and
  ``movie``. No review is empty. Texts are as published: `clean` is the reader's step.
- The authors' split is taken wherever it is known. Kaggle's file has none: it comes from an index
  beside it, if that is an index of this very file, and else from `seeded_split`, which is always
  the same and keeps rows with the same text on one side. `Reviews.split` says which it was.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from course_lib.data import _imdb_files, _imdb_hub
from course_lib.data._finding import Publication, locate
from course_lib.data._imdb_cleaning import clean, clean_all
from course_lib.data._imdb_files import LABELS, ROWS, SPLITS
from course_lib.data._imdb_splits import SEED, Duplicates, duplicates, seeded_split, validation
from course_lib.data._imdb_stand_in import make_stand_in

__all__ = [
    "LABELS",
    "PUBLICATION",
    "Duplicates",
    "Reviews",
    "clean",
    "clean_all",
    "duplicates",
    "load",
    "validation",
]

KAGGLE = "https://www.kaggle.com/datasets/lakshmi25npathi/imdb-dataset-of-50k-movie-reviews"
AUTHORS = "https://ai.stanford.edu/~amaas/data/sentiment/"

PUBLICATION = Publication(
    title="IMDb reviews",
    file=_imdb_files.FILE,
    where=f"{KAGGLE} (unpacked),\nor the folder {_imdb_files.FOLDER} (unpacked) from {AUTHORS}",
    fetch=_imdb_hub.fetch,
    others=(_imdb_files.FOLDER,),
    stored=_imdb_hub.FOLDER,
)


@dataclass(frozen=True, eq=False, repr=False)
class Reviews:
    """The reviews, how they are split, and where they came from.

    All texts together are large (about 70 MB), and `launch` sends each rank what it is given. Give
    a rank only what it needs: its own rows, or token ids instead of texts.

    Attributes:
        frame: All rows, in the order in which they were found: ``text``, ``label``, ``split``, and
            ``rating`` and ``movie`` if known. A new one with each load: change it freely.
        origin: ``"real"`` or ``"synthetic"``. Figures and results carry it on.
        path: The file or folder they were read from; None for a stand-in.
        split: ``"official"`` if training and test rows are those of the authors, else ``"seeded"``.
    """

    frame: pd.DataFrame
    origin: str
    path: Path | None
    split: str

    @property
    def train(self) -> pd.DataFrame:
        """The training rows, counted from 0: a new frame each time. Shuffle before you train."""
        return self._part("train")

    @property
    def test(self) -> pd.DataFrame:
        """The test rows, counted from 0: a new frame each time."""
        return self._part("test")

    def __repr__(self) -> str:
        counts = " and ".join(f"{sum(self.frame['split'] == s):,} {s}" for s in SPLITS)
        size = self.frame.memory_usage(index=True, deep=True).sum() / 1e6
        where = f", {self.path}" if self.path else ""
        return f"Reviews({counts} rows, {self.split} split, {self.origin}, {size:,.1f} MB{where})"

    def _part(self, split: str) -> pd.DataFrame:
        return self.frame[self.frame["split"] == split].reset_index(drop=True)


def load(source: str = "auto") -> Reviews:
    """Find the reviews, check them, and say where they and their split came from.

    Args:
        source: ``"auto"`` takes a by-hand file or folder, then a download, then a synthetic
            stand-in; ``"real"`` refuses the stand-in; ``"synthetic"`` takes it at once.

    Returns:
        50,000 rows, or as many as the file has. A file's rows are in its order; a folder's and a
        download's are sorted by label. The stand-in has 2,000 training and 2,000 test rows.

    Raises:
        ValueError: An unknown `source`.
        DataNotFound: ``source="real"`` and no file, no download; the text says what to do.
        DataDamaged: A file is there but wrong; the text names it, the line and the fault.
    """
    path = locate(PUBLICATION, source)
    if path is None:
        found = Reviews(make_stand_in(), "synthetic", None, "seeded")
        story = "made up by the course (synthetic), split at random"
    else:
        frame, split, story = _read(path)
        found = Reviews(frame, "real", path, split)
    counts = ", ".join(f"{len(found._part(s)):,} {s}" for s in SPLITS)
    print(f"{PUBLICATION.title}: {len(found.frame):,} rows {story}: {counts}", flush=True)
    if path and len(found.frame) != ROWS:
        print(f"Note: all reviews that were published are {ROWS:,}.", flush=True)
    return found


def _read(path: Path) -> tuple[pd.DataFrame, str, str]:
    """Read what lies at `path`: the rows, which split they have, and what to say of them."""
    if path.name == _imdb_files.FOLDER:
        return _imdb_files.read_folder(path), "official", f"from {path}, its own split"
    if path.name == _imdb_hub.FOLDER:
        return _imdb_hub.read(path), "official", f"from {path}, the official split"
    frame, reason = _imdb_files.add_index(_imdb_files.read_csv(path), path)
    if not reason:
        return frame, "official", f"from {path}, the official split ({_imdb_files.INDEX})"
    for_test = seeded_split(frame["text"], frame["label"])
    frame["split"] = ["test" if chosen else "train" for chosen in for_test]
    story = f"from {path}, a split of the course's own (seed {SEED}; {reason})"
    return frame.astype({"split": "str"}), "seeded", story
