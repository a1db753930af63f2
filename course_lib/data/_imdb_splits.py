"""Which reviews are for training, for validation and for testing, and which are there twice.

Invariants:

- A choice depends on the texts and on a number fixed here, never on the order of the rows, on the
  run's seed or on the machine: two files with the same reviews are split alike.
- Rows that belong together (the same text; the same film, where it is known) are on one side.
- Each side has the same share of both labels, as far as the groups allow.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

SEED = 42
_ONE_IN = 5  # training rows is for validation


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Rows whose text is there more than once, counted from 0 within their split.

    Leave them out with ``np.delete(right, found.test_in_train)``, or train without them with
    ``data.train.drop(found.train)``.

    Attributes:
        train: Rows of the training split whose text an earlier training row has; int64, ascending.
        test: Rows of the test split whose text an earlier test row has.
        test_in_train: Rows of the test split whose text is in the training split too.
        contradictions: How many texts have one label in one row and the other in another.
    """

    train: np.ndarray
    test: np.ndarray
    test_in_train: np.ndarray
    contradictions: int

    def __repr__(self) -> str:
        return (
            f"Duplicates({len(self.train):,} training rows and {len(self.test):,} test rows repeat "
            f"an earlier one; {len(self.test_in_train):,} test rows are in the training split too; "
            f"{self.contradictions:,} texts have both labels)"
        )


def duplicates(frame: pd.DataFrame, column: str = "text") -> Duplicates:
    """Find texts that are there more than once.

    Args:
        frame: Rows of both splits: ``data.frame``, with ``split``, ``label`` and the text.
        column: Which column to compare: the raw text, or one you added, cleaned perhaps.

    Raises:
        ValueError: A column is missing.
    """
    _need(frame, "split", "label", column)
    text, is_train = frame[column], frame["split"] == "train"
    train, test = text[is_train], text[~is_train]
    said = frame[[column, "label"]].drop_duplicates()  # a text once for each label it has
    return Duplicates(
        train=np.flatnonzero(train.duplicated()),
        test=np.flatnonzero(test.duplicated()),
        test_in_train=np.flatnonzero(test.isin(train)),
        contradictions=int(said[column].duplicated().sum()),
    )


def validation(train: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training split for fitting and for validation: 4/5 and 1/5, always alike.

    Every choice (a rate, a length, when to stop) is made on the validation rows, so that the test
    reviews are looked at once, at the end. All reviews of a film, where films are known, and all
    rows with the same text are on one side: otherwise a model that remembers a film looks better
    than it is. No seed of a run changes it.

    Args:
        train: ``data.train``: ``text``, ``label`` and perhaps ``movie``.

    Returns:
        Rows for fitting (20,000 of 25,000) and for validation (5,000, half of them positive),
        counted from 0; int64, ascending.

    Raises:
        ValueError: A column is missing, or a row is of the test split.
    """
    _need(train, "text", "label")
    if "split" in train and (train["split"] != "train").any():
        raise ValueError("validation takes the training rows only: data.train")
    together = [train["text"], train["movie"]] if "movie" in train else [train["text"]]
    chosen = _choose(train["text"], train["label"], _groups(together), one_in=_ONE_IN)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def seeded_split(texts: pd.Series, labels: pd.Series) -> np.ndarray:
    """Return which rows are for testing: half of each label, rows with the same text together."""
    return _choose(texts, labels, _groups([texts]), one_in=2)


def _groups(keys: Sequence[pd.Series]) -> np.ndarray:
    """Number the groups of rows that any of the keys joins, directly or through other rows."""
    parent = list(range(len(keys[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]  # the next search has half the way
            row = parent[row]
        return row

    for key in keys:
        codes = pd.factorize(key, use_na_sentinel=True)[0]
        first: dict[int, int] = {}
        for row, code in enumerate(codes.tolist()):
            if code >= 0:  # what is not known joins nothing
                parent[root(row)] = root(first.setdefault(code, row))
    return np.array([root(row) for row in range(len(parent))], dtype=np.int64)


def _choose(texts: pd.Series, labels: pd.Series, groups: np.ndarray, *, one_in: int) -> np.ndarray:
    """Choose groups at random until one row in `one_in` of each label is chosen: a mask of rows."""
    rows = pd.DataFrame({"group": groups, "mark": _marks(texts), "label": np.asarray(labels)})
    left = {label: count // one_in for label, count in rows["label"].value_counts().items()}
    order = rows.groupby("group")["mark"].min().sort_values().index
    counts = rows.groupby(["group", "label"]).size().unstack(fill_value=0).loc[order]
    chosen = []
    for group, *count in counts.itertuples():
        wanted = dict(zip(counts.columns, count, strict=True))
        if all(n <= left[label] for label, n in wanted.items()):
            chosen.append(group)
            left = {label: n - wanted[label] for label, n in left.items()}
    return rows["group"].isin(chosen).to_numpy()


def _marks(texts: pd.Series) -> list[int]:
    """Return a number for each text that looks random, and is the same everywhere."""
    key = SEED.to_bytes(8, "little")
    return [
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7, key=key).digest(), "little")
        for text in texts
    ]


def _need(frame: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"the frame has no column {', '.join(missing)}; give it data.frame's rows")
