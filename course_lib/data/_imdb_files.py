"""The files of the movie reviews: Kaggle's one file, the publisher's folder, and the split index.

Invariants:

- A frame has the columns ``text``, ``label`` (0 negative, 1 positive) and what the files say
  besides: ``split``, ``rating`` (1 to 4, 7 to 10) and ``movie``. No review is empty.
- Whatever is wrong with the reviews is `DataDamaged` with the name of the file and the line. An
  index that does not fit its file is no damage: it is not used, and the reason is told.
"""

import os
import re
from pathlib import Path

import pandas as pd

from course_lib.data._csv_rows import read_rows
from course_lib.data._finding import DataDamaged, damaged
from course_lib.data._imdb_cleaning import clean

FILE = "IMDB Dataset.csv"
INDEX = "imdb_index.csv"
FOLDER = "aclImdb"
ROWS = 50_000
LABELS = {"negative": 0, "positive": 1}
SPLITS = ("train", "test")
COLUMNS = ("text", "label", "split", "rating", "movie")  # in this order; the last two if known

_CLASSES = {"neg": 0, "pos": 1}
_INDEX_COLUMNS = ("row", "split", "review_id", "rating", "movie")
_NAME = re.compile(r"(0|[1-9][0-9]*)_([1-9][0-9]?)\.txt", re.ASCII)
_MOVIE = re.compile(r"tt[0-9]+", re.ASCII)
_DATATYPES = {"text": "str", "label": "int64", "split": "str", "rating": "int64", "movie": "str"}


def frame(columns: dict[str, list]) -> pd.DataFrame:
    """Return the table of these columns, in the order and with the types that all tables have."""
    table = {name: columns[name] for name in COLUMNS if name in columns}
    return pd.DataFrame(table).astype({name: _DATATYPES[name] for name in table})


def fault_of(text: str) -> str | None:
    """Return what is wrong with the text of a review; None if nothing is."""
    if "\0" in text:
        return "the review holds a byte that is not text: 0x00"
    if not text[:1].isalnum() and not clean(text):  # what begins with a letter is not empty
        return "the review is empty" + (" but for markup" if text.strip() else "")
    return None


def read_csv(path: Path, *, with_split: bool = False) -> pd.DataFrame:
    """Read a file with the columns ``review`` and ``sentiment``, and perhaps ``split``.

    Raises:
        DataDamaged: It is no such file, a label is neither positive nor negative, a split neither
            train nor test, or a review is empty or not text.
    """
    names = ("review", "sentiment", "split") if with_split else ("review", "sentiment")
    columns: dict[str, list] = {"text": [], "label": []} | ({"split": []} if with_split else {})
    for line, (text, sentiment, *split) in read_rows(path, names):
        if fault := fault_of(text):
            raise damaged(path, f"line {line:,}: {fault}")
        if sentiment not in LABELS:
            raise damaged(
                path,
                f"line {line:,}: the sentiment is {sentiment[:40]!r}; "
                "it must be positive or negative",
            )
        if split and split[0] not in SPLITS:
            raise damaged(path, f"line {line:,}: the split {split[0][:40]!r} is not train or test")
        for column, value in zip(columns.values(), (text, LABELS[sentiment], *split), strict=True):
            column.append(value)
    if not columns["text"]:
        raise damaged(path, "it has a header, but no rows")
    return frame(columns)


def add_index(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, str]:
    """Add what the index beside the file says of each row, if it is an index of this very file.

    Args:
        table: What `read_csv` returned.
        path: The file it was read from.

    Returns:
        The table with ``split``, ``rating`` and ``movie``, and no reason; or the table as it is,
        and the reason why the index is not used.

    Raises:
        DataDamaged: The file has fewer rows than the index lists.
    """
    index = path.with_name(INDEX)
    if not os.path.lexists(index):
        return table, f"there is no {INDEX} beside it"
    try:
        entries = _read_index(index)
    except DataDamaged as error:
        return table, str(error).splitlines()[0]
    listed = len(entries["split"])
    if listed > len(table):
        raise DataDamaged(
            f"{path}: it has {len(table):,} rows, but {INDEX} beside it lists {listed:,}: the file "
            "was cut off, or the index is another file's\n"
            f"Put a fresh copy of the file there, or take {INDEX} away if it is not of this file."
        )
    if listed < len(table):
        return table, f"{index}: it lists {listed:,} rows, and the file has {len(table):,}"
    agrees = (pd.Series(entries["rating"]) > 5) == (table["label"] == 1).to_numpy()
    if not agrees.all():
        row = int((~agrees).idxmax())
        sentiment = [*LABELS][table["label"].iloc[row]]
        return table, (
            f"{index}: for row {row:,} it has the rating {entries['rating'][row]}, but there the "
            f"review is {sentiment}: it is the index of a file in another order"
        )
    return frame({**table.to_dict("series"), **entries}), ""


def read_folder(folder: Path) -> pd.DataFrame:
    """Read the publisher's folder: a file a review, in ``train`` and ``test``, ``neg`` and ``pos``.

    Returns:
        The training rows and then the test rows; in each the negative ones first, by number. The
        film of each review is known if the four lists ``urls_neg.txt``, ``urls_pos.txt`` are there.

    Raises:
        DataDamaged: A class is missing, a file's name is not NUMBER_RATING.txt or its rating not of
            its class, a review is empty or not text, or a list names more reviews than there are.
    """
    columns: dict[str, list] = {name: [] for name in COLUMNS}
    films_known = True
    for split in SPLITS:
        for short, label in _CLASSES.items():
            reviews = _list_class(folder, folder / split / short, label)
            for number in sorted(reviews):
                file, rating = reviews[number]
                columns["text"].append(_read_review(folder, file))
                columns["rating"].append(rating)
            columns["label"] += [label] * len(reviews)
            columns["split"] += [split] * len(reviews)
            films = _read_films(folder, folder / split / f"urls_{short}.txt", reviews)
            films_known = films_known and films is not None
            columns["movie"] += films or []
    if not films_known:
        del columns["movie"]
    return frame(columns)


def _read_index(path: Path) -> dict[str, list]:
    """Return split, rating and film of each row; raise `DataDamaged` for what is no index."""
    entries: dict[str, list] = {"split": [], "rating": [], "movie": []}
    for line, (row, split, _, rating, movie) in read_rows(path, _INDEX_COLUMNS):
        wanted = len(entries["split"])
        if row != str(wanted):
            raise damaged(path, f"line {line:,} has the row {row[:20]!r} where {wanted} should be")
        if split not in SPLITS:
            raise damaged(path, f"line {line:,}: the split {split[:20]!r} is not train or test")
        if rating not in ("1", "2", "3", "4", "7", "8", "9", "10"):
            raise damaged(path, f"line {line:,}: {rating[:20]!r} is no rating of 1 to 4 or 7 to 10")
        if not _MOVIE.fullmatch(movie):
            raise damaged(path, f"line {line:,}: {movie[:20]!r} is no film (tt and a number)")
        for column, value in zip(entries.values(), (split, int(rating), movie), strict=True):
            column.append(value)
    return entries


def _list_class(folder: Path, part: Path, label: int) -> dict[int, tuple[Path, int]]:
    """Return the reviews of a class: number → its file and its rating."""
    if not part.is_dir():
        deeper = (folder / FOLDER / part.relative_to(folder)).is_dir()
        hint = f"; {FOLDER} lies in a second folder of that name" if deeper else ""
        raise _wrong(folder, part, f"it is missing, or not a folder{hint}")
    found: dict[int, tuple[Path, int]] = {}
    for file in part.iterdir():
        if file.name.startswith("."):  # what file managers leave behind
            continue
        if not (name := _NAME.fullmatch(file.name)):
            raise _wrong(folder, file, "its name is not NUMBER_RATING.txt")
        number, rating = int(name[1]), int(name[2])
        if rating not in ((7, 8, 9, 10) if label else (1, 2, 3, 4)):
            raise _wrong(folder, file, f"a rating of {rating} is not {[*LABELS][label]}")
        if number in found:
            raise _wrong(folder, file, f"{found[number][0].name} has the same number")
        found[number] = file, rating
    if not found:
        raise _wrong(folder, part, "it has no reviews")
    return found


def _read_review(folder: Path, file: Path) -> str:
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise _wrong(
            folder, file, f"it is not UTF-8 text: it holds the byte 0x{byte:02x}"
        ) from error
    except OSError as error:
        raise _wrong(folder, file, f"it cannot be read: {error.strerror or error}") from error
    if fault := fault_of(text):
        raise _wrong(folder, file, fault)
    return text


def _read_films(folder: Path, path: Path, reviews: dict[int, tuple[Path, int]]) -> list[str] | None:
    """Return the film of each review by number; None if the list is not there, or not that list."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    films = [_MOVIE.search(line) for line in lines]
    if len(films) > len(reviews):
        raise _wrong(
            folder,
            path,
            f"it lists {len(films):,} reviews, and {path.stem.removeprefix('urls_')} beside it has "
            f"{len(reviews):,}: unpacking ended early, or files are gone",
        )
    if not all(films) or len(films) <= max(reviews):
        return None
    return [films[number].group() for number in sorted(reviews)]


def _wrong(folder: Path, path: Path, fault: str) -> DataDamaged:
    """Return the error for a file of the folder: its name, the fault, the way out."""
    return DataDamaged(
        f"{path}: {fault}\n"
        f"Unpack the publisher's archive again, or delete the whole folder {folder.name} and the "
        "course will look for another copy."
    )
