"""Flows as numbers for a model, which of them repeat others, and a split that shares none.

Invariants:

- Nothing is learned from rows but those an encoder is fitted on: no mean, no category.
- What an encoder returns is finite, whatever it is given: a category that nobody has seen, too.
- `split` depends on the rows and on a number fixed here: no seed of a run moves it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

SEED = 42
FREQUENT = 0.001  # the share of the fitted rows from which a category gets a column of its own
OTHER = "(other)"

CATEGORIES = ("proto", "service", "state")
# What says nothing about a flow by itself: its number, who, when, what it is for, and the answers.
NOT_FEATURES = (
    *("id", "srcip", "sport", "dstip", "dsport", "stime", "ltime", "split"),
    *("attack_cat", "label"),
)


@dataclass(frozen=True, eq=False, repr=False)
class Encoder:
    """Turns flows into numbers of one scale. Make one with `fit`; it is small and travels to ranks.

    Attributes:
        numbers: The columns that are numbers, in the order of the features.
        mean: Their means after the logarithm, over the fitted rows; float64.
        scale: Their standard deviations there; 1 where a column is constant.
        frequent: Column of categories → those that have a feature of their own, by name.
        seen: Column of categories → all that were among the fitted rows.
    """

    numbers: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    frequent: dict[str, tuple[str, ...]]
    seen: dict[str, frozenset[str]]

    @classmethod
    def fit(cls, rows: pd.DataFrame) -> "Encoder":
        """Learn scales and categories from these rows: training rows, or the normal ones of them.

        Args:
            rows: Flows with the columns that `load` or `load_raw` gives. Every column of numbers
                becomes a feature, those that you have added, too; `NOT_FEATURES` are left out.

        Raises:
            ValueError: No rows, a column of categories is missing, or a number is not finite.
        """
        if not len(rows):
            raise ValueError("the encoder cannot be fitted: there are no rows")
        named = rows.drop(columns=[name for name in NOT_FEATURES if name in rows])
        numbers = tuple(named.select_dtypes("number").columns)
        x = _logarithms(rows, numbers)
        mean, scale = x.mean(axis=0), x.std(axis=0)
        constant = scale <= 1e-9 * np.maximum(1, abs(mean))  # rounding keeps it from being 0
        frequent, seen = {}, {}
        for column in CATEGORIES:
            _need(rows, column)
            shares = rows[column].value_counts(normalize=True)
            frequent[column] = tuple(sorted(shares.index[shares >= FREQUENT]))
            seen[column] = frozenset(shares.index)
        return cls(numbers, mean, np.where(constant, 1.0, scale), frequent, seen)

    @property
    def names(self) -> list[str]:
        """The names of the features, in order: ``dur``, …, ``proto=tcp``, ``proto=(other)``, …."""
        own = [f"{column}={name}" for column in CATEGORIES for name in self._columns_of(column)]
        return [*self.numbers, *own]

    def transform(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return rows × `names`, float64, all finite, with the index of the rows.

        A number x becomes log(1 + x), less the mean, over the scale. Of each column of categories
        one feature is 1 and the others are 0; rare and unknown ones share ``(other)``.

        Raises:
            ValueError: A column is missing, or a number is not finite.
        """
        x = (_logarithms(rows, self.numbers) - self.mean) / self.scale
        parts = [x]
        for column in CATEGORIES:
            _need(rows, column)
            value = rows[column].where(rows[column].isin(self.frequent[column]), OTHER)
            parts += [
                (value == name).to_numpy("float64")[:, None] for name in self._columns_of(column)
            ]
        return pd.DataFrame(np.hstack(parts), index=rows.index, columns=self.names)

    def unseen(self, rows: pd.DataFrame) -> dict[str, pd.Series]:
        """Count categories that no fitted row had: column → category → rows. Empty without any."""
        found = {}
        for column in CATEGORIES:
            _need(rows, column)
            strange = rows[column][~rows[column].isin(self.seen[column])]
            if len(strange):
                found[column] = strange.value_counts()
        return found

    def __repr__(self) -> str:
        kinds = ", ".join(f"{len(self.frequent[column])} {column}" for column in CATEGORIES)
        return (
            f"Encoder({len(self.names)} features: {len(self.numbers)} numbers, {kinds} and others)"
        )

    def _columns_of(self, column: str) -> tuple[str, ...]:
        return (*self.frequent[column], OTHER)


def repeats(frame: pd.DataFrame) -> np.ndarray:
    """Return which rows have the features of an earlier row, whatever their labels: a mask."""
    return frame.drop(columns=[c for c in NOT_FEATURES if c in frame]).duplicated().to_numpy()


def split(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and for testing that share no flow: half of each kind, always alike.

    Of rows with the same features the first stays and the others are in neither part: a third of
    the official test file repeats an earlier row, and a model would be tested on what it has seen.

    Args:
        frame: Flows as `load` gives them.

    Returns:
        Training and test row numbers, counted from 0, int64, ascending. Each kind of attack, and
        normal traffic, has half of its rows in each; of an odd number one more is for training.
    """
    kinds = frame["attack_cat"].to_numpy()
    left = np.flatnonzero(~repeats(frame))
    rng = np.random.default_rng(SEED)
    tests = []
    for kind in sorted(set(kinds[left])):
        rows = rng.permutation(left[kinds[left] == kind])
        tests.append(rows[: len(rows) // 2])
    test = np.sort(np.concatenate(tests)) if tests else left
    return np.setdiff1d(left, test), test


def _logarithms(rows: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Return log(1 + x) of these columns, odd in x, so that a number below 0 has one, too."""
    _need(rows, *names)
    x = rows[list(names)].to_numpy("float64")
    if not np.isfinite(x).all():
        bad = names[int((~np.isfinite(x)).any(axis=0).argmax())]
        raise ValueError(f"the column {bad} has a number that is not finite (a division by 0?)")
    return np.sign(x) * np.log1p(abs(x))


def _need(rows: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in rows]
    if missing:
        raise ValueError(f"the rows have no column {', '.join(missing)}, and the encoder needs it")
