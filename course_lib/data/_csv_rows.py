"""Read a CSV file row by row, and say in which line something is wrong.

Why not `pandas.read_csv`: a damaged file must end in a sentence with the number of the line, and
pandas takes a web page, a file with rows of other lengths or a mark of byte order for a table.

Invariants:

- Every row has exactly the fields that the header names; only the names asked for are allowed.
  A file may lack the header only where the caller says so.
- The file is read as a stream: a large one is never in memory as a whole.
- Whatever is wrong is `DataDamaged` with the name of the file, and the line where there is one.
"""

import codecs
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from course_lib.data._finding import damaged

# How a file begins that is something else, and what to say then.
_NOT_CSV = {
    b"\x1f\x8b": "is compressed with gzip: unpack it",
    b"PK\x03\x04": "is a zip archive: unpack it",
    b"<": "is a web page (a login or an error page, perhaps), not CSV",
    codecs.BOM_UTF16_LE: "is UTF-16 text: it must be UTF-8",
    codecs.BOM_UTF16_BE: "is UTF-16 text: it must be UTF-8",
}


def read_rows(
    path: Path, columns: Sequence[str], *, header_optional: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row of a CSV file in UTF-8, after its header.

    Args:
        path: The file. A byte order mark at its beginning is passed over.
        columns: The names of its columns, all of which it must have and no other; any order.
        header_optional: A first row with none of these names is a row of values, and the columns
            are in the order of `columns`.

    Yields:
        The line in which the row begins, counted from 1, and its fields in the order of `columns`.

    Raises:
        DataDamaged: It cannot be read, is something else than CSV in UTF-8, has other columns, a
            row with too many or too few fields, or a quote that is never closed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
        encoding = "utf-8-sig" if head.startswith(codecs.BOM_UTF8) else "utf-8"
        _refuse_other_kinds(path, head.removeprefix(codecs.BOM_UTF8))
        with path.open(encoding=encoding, newline="") as lines:
            yield from _rows(path, csv.reader(lines, strict=True), columns, header_optional)
    except UnicodeDecodeError as error:
        raise damaged(path, _not_text(path)) from error
    except OSError as error:
        raise damaged(path, f"it cannot be read: {error.strerror or error}") from error


def _rows(
    path: Path, reader, columns: Sequence[str], header_optional: bool
) -> Iterator[tuple[int, list[str]]]:
    names: list[str] = []
    line = 1  # in which the next row begins
    try:
        for row in reader:
            is_header = not names and bool(row)
            if is_header:
                if header_optional and not set(row) & set(columns):
                    names, is_header = list(columns), False
                else:
                    names = row
                    _check_columns(path, names, columns)
                places = [names.index(column) for column in columns]
            if is_header or not row:  # or a blank line
                pass
            elif len(row) != len(names):
                cut = "" if any(reader) else " (the last row: the file was cut off)"
                raise damaged(
                    path, f"line {line:,} has {len(row)} fields instead of {len(names)}{cut}"
                )
            else:
                yield line, [row[place] for place in places]
            line = reader.line_num + 1
    except csv.Error as error:
        raise damaged(
            path,
            f"the row that begins in line {line:,} is not CSV: {error} "
            "(a quote that is never closed: the file was cut off, or damaged there)",
        ) from error
    if not names:
        raise damaged(path, "it is empty")


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    if not head:
        raise damaged(path, "it is empty")
    for start, what in _NOT_CSV.items():
        if head.lstrip().startswith(start):
            raise damaged(path, f"it {what}")


def _not_text(path: Path) -> str:
    """Return where the first byte is that is not UTF-8."""
    line = 0
    with path.open("rb") as file:
        for line, content in enumerate(file, start=1):
            try:
                content.decode()
            except UnicodeDecodeError as error:
                byte = content[error.start]
                return f"line {line:,} is not UTF-8 text: it holds the byte 0x{byte:02x}"
    return f"line {line:,} is not UTF-8 text: it ends within a character"


def _check_columns(path: Path, names: list[str], columns: Sequence[str]) -> None:
    """Refuse a header that does not name exactly `columns`, in whatever order."""
    wanted = ", ".join(columns)
    for delimiter in ";\t|":
        if len(names) == 1 and names[0].count(delimiter) == len(columns) - 1 > 0:
            raise damaged(path, f"its fields are separated by {delimiter!r} instead of ','")
    if not set(names) & set(columns):
        shown = ", ".join(name[:40] for name in names[:8])
        raise damaged(path, f"line 1 is not the header; it should name {wanted}, not {shown}")
    faults = {
        "missing": [column for column in columns if column not in names],
        "unknown": [name[:40] or "(no name)" for name in names if name not in columns],
        "repeated": [column for column in columns if names.count(column) > 1],
    }
    story = "; ".join(f"{kind}: {', '.join(of)}" for kind, of in faults.items() if of)
    if story:
        raise damaged(path, f"the header has the wrong columns ({story}); it should name {wanted}")
