"""California housing: 20,640 census block groups of 1990, and what a house there costs.

The variant with missing values and a column of text, which Aurélien Géron made for *Hands-On
Machine Learning* from the data of R. Kelley Pace and Ronald Barry, "Sparse Spatial
Autoregressions", Statistics & Probability Letters 33(3), 1997. It is not the one in
``sklearn.datasets``, which has averages per household, no gaps and no text.

Invariants:

- Real or made up, a frame has the columns `COLUMNS` in this order, 20,640 rows, float64 in every
  column but ``ocean_proximity``, and gaps in ``total_bedrooms`` only.
- A by-hand file need not be the publisher's byte for byte: order of rows and columns and line
  endings are free. Its content must be right; `read` asks for everything that is known about it.
- A byte order mark is refused although the rest may be right: the publisher's file has none, so
  the file has been through a program (mostly a spreadsheet) that may have changed its numbers too.
"""

import csv
import io
from pathlib import Path

import pandas as pd

from course_lib.data._download import download
from course_lib.data._finding import Dataset, Publication, damaged, load_table
from course_lib.data._housing_features import features, split
from course_lib.data._housing_stand_in import make_stand_in

__all__ = [
    "COLUMNS",
    "OCEAN_PROXIMITY",
    "PUBLICATION",
    "TARGET",
    "features",
    "load",
    "read",
    "split",
]

URL = (
    "https://raw.githubusercontent.com/ageron/handson-ml2/"
    "1e2115277b50f6c584cd668fa30e3af309a5b136/datasets/housing/housing.csv"
)
KAGGLE = "https://www.kaggle.com/datasets/camnugent/california-housing-prices"
SHA256 = "8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e"
SIZE = 1_423_529  # bytes
ROWS = 20_640
TARGET = "median_house_value"  # US dollars, capped at 500,001
OCEAN_PROXIMITY = ("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN")

# What a number can plausibly be. Incomes are in tens of thousands of dollars.
_RANGES = {
    "longitude": (-124.5, -114.0),
    "latitude": (32.4, 42.1),
    "housing_median_age": (1, 52),
    "total_rooms": (1, 50_000),
    "total_bedrooms": (1, 50_000),
    "population": (1, 50_000),
    "households": (1, 50_000),
    "median_income": (0.4, 15.01),
    TARGET: (14_999, 500_001),
}
COLUMNS = (*_RANGES, "ocean_proximity")

# How a file begins that is something else, and what to say then.
_NOT_CSV = {
    b"\x1f\x8b": "is compressed with gzip: unpack it",
    b"PK": "is a zip archive: unpack it",
    b"<": "is a web page (a login or an error page, perhaps), not CSV",
    b"\xff\xfe": "is UTF-16 text: it must be UTF-8",
    b"\xfe\xff": "is UTF-16 text: it must be UTF-8",
    b"\xef\xbb\xbf": "begins with a byte order mark (BOM): another program has rewritten it",
}

PUBLICATION = Publication(
    title="California housing",
    file="housing.csv",
    where=f"{URL}\nor, unpacked, from {KAGGLE}",
    fetch=lambda path: download(URL, path, sha256=SHA256, size=SIZE, title="California housing"),
)


def load(source: str = "auto") -> Dataset:
    """Find the data, check them, and say where they came from.

    Args:
        source: ``"auto"`` takes a by-hand file, then a download, then a synthetic stand-in;
            ``"real"`` refuses the stand-in; ``"synthetic"`` takes it at once.

    Returns:
        20,640 rows in the publisher's order, which is geographic: shuffle before splitting. Dollars
        for the target, degrees for the place, years for the age, counts for the rest.

    Raises:
        ValueError: An unknown `source`.
        DataNotFound: ``source="real"`` and no file, no download; the text says what to do.
        DataDamaged: The file is there but wrong; the text names the file and the fault.
    """
    return load_table(PUBLICATION, source, read=read, make=lambda: make_stand_in(ROWS))


def read(path: Path) -> pd.DataFrame:
    """Read a file of California housing and check all of it.

    Raises:
        DataDamaged: It is not CSV in UTF-8, its columns are not `COLUMNS`, a line or a value is
            wrong, or the number of rows is.
    """
    lines, rows = _rows(path, _text(path))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    count = ""
    if len(frame) != ROWS:
        reason = "cut off" if len(frame) < ROWS else "something was added"
        count = f"it has {len(frame):,} rows instead of {ROWS:,}: {reason}"

    def refuse(bad: pd.Series, column: str, fault: str) -> None:
        """Raise for the first line that `bad` marks."""
        if bad.any():
            at = int(bad.argmax())
            value = rows[at][COLUMNS.index(column)]
            story = f"line {lines[at]:,}, column {column}: {fault.format(value)}"
            raise damaged(path, f"{story}; also, {count}" if count else story)

    for column in COLUMNS:
        text = frame[column]
        empty = text.str.strip() == ""
        if column != "total_bedrooms":
            refuse(empty, column, "the value is missing")
        if column == "ocean_proximity":
            known = ", ".join(OCEAN_PROXIMITY)
            refuse(~text.isin(OCEAN_PROXIMITY), column, f"{{!r}} is none of {known}")
        else:
            frame[column] = pd.to_numeric(text, errors="coerce").astype("float64")
            refuse(frame[column].isna() & ~empty, column, "{!r} is not a number")
            low, high = _RANGES[column]
            outside = ~frame[column].between(low, high) & ~empty
            refuse(outside, column, f"{{}} is not between {low:,} and {high:,}")
    if count:
        raise damaged(path, count)
    if (repeats := frame.duplicated()).any():
        line = lines[int(repeats.argmax())]
        raise damaged(path, f"line {line:,} repeats an earlier line, and no two lines should")
    return frame


def _text(path: Path) -> str:
    """Return the file's text; refuse what is no text, or text of another kind."""
    if not path.is_file():
        raise damaged(path, "it is not a file, but a folder or a link to nothing")
    if (size := path.stat().st_size) > 10 * SIZE:
        raise damaged(path, f"it has {size:,} bytes; the publisher's file has {SIZE:,}")
    data = path.read_bytes()
    if not data.strip():
        raise damaged(path, "it is empty")
    for start, what in _NOT_CSV.items():
        if data.lstrip().startswith(start):
            raise damaged(path, f"it {what}")
    try:
        text = data.decode()
        at = data.find(b"\0")
    except UnicodeDecodeError as error:
        at = error.start
    if at >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise damaged(path, f"line {line:,} holds a byte that is not text: 0x{data[at]:02x}")
    return text


def _rows(path: Path, text: str) -> tuple[list[int], list[list[str]]]:
    """Split CSV into rows of text in the order of `COLUMNS`, with the line each one stands in."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if row:  # not a blank line
                found.append((reader.line_num, row))
    except csv.Error as error:
        line = found[-1][0] + 1 if found else 1
        raise damaged(path, f"line {line:,} is not CSV (an open quote?): {error}") from error
    (_, names), *body = found
    _check_columns(path, names)
    if not body:
        raise damaged(path, "it has a header, but no rows")
    for line, row in body:
        if len(row) != len(names):
            cut = " (the last line: the file was cut off)" if line == body[-1][0] else ""
            raise damaged(path, f"line {line:,} has {len(row)} fields instead of {len(names)}{cut}")
    places = [names.index(column) for column in COLUMNS]
    return [line for line, _ in body], [[row[i] for i in places] for _, row in body]


def _check_columns(path: Path, names: list[str]) -> None:
    """Refuse a header that is not made of exactly `COLUMNS`, in whatever order."""
    for delimiter in ";\t|":
        if names[0].count(delimiter) == len(COLUMNS) - 1:
            raise damaged(path, f"its fields are separated by {delimiter!r} instead of ','")
    if not set(names) & set(COLUMNS):
        raise damaged(path, f"line 1 is not the header; it should name {', '.join(COLUMNS)}")
    faults = {
        "missing": [column for column in COLUMNS if column not in names],
        "unknown": [name for name in names if name not in COLUMNS],
        "repeated": [column for column in COLUMNS if names.count(column) > 1],
    }
    story = "; ".join(f"{kind}: {', '.join(of)}" for kind, of in faults.items() if of)
    if story:
        raise damaged(path, f"the header has the wrong columns ({story})")
