"""Read a large CSV file of numbers and a few categories into a typed table, row by row.

Why not `pandas.read_csv`: see `course_lib.data._csv_rows`. Here numbers are made of the fields as
they come, so that a file of a quarter of a million flows takes no more memory than its table.

Invariants:

- Every number of a table is finite; those of columns that are not `floats` are whole, and int64.
- Whatever is wrong is `DataDamaged` with the name of the file, the line, the column and the value.
"""

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd

from course_lib.data._csv_rows import read_rows
from course_lib.data._finding import DataDamaged, damaged


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    texts: Collection[str],
    floats: Collection[str],
    fixes: Mapping[str, Callable[[str], str | float]] | None = None,
    header_optional: bool = False,
    most: int | None = None,
) -> tuple[pd.DataFrame, array]:
    """Read a file and check every value.

    Args:
        path: The file: CSV in UTF-8, with or without a byte order mark.
        columns: The names of its columns. In the header they may have any order.
        texts: Those that are categories; none of their values may be empty.
        floats: Those that are numbers with a fraction. All others are whole numbers.
        fixes: Column → what makes a right value of a field; a `ValueError` of it is the field's.
        header_optional: As in `read_rows`.
        most: No more rows than so many, the first ones.

    Returns:
        The table, rows × `columns`, and the line in which each of its rows begins.

    Raises:
        DataDamaged: It is no such file, or a value is wrong or missing.
    """
    fixed = [(columns.index(name), fix) for name, fix in (fixes or {}).items()]
    numbers = [name for name in columns if name not in texts]
    pick = itemgetter(*map(columns.index, numbers))
    places = [(columns.index(name), []) for name in columns if name in texts]
    lines, values = array("q"), array("d")
    known: dict[str, str] = {}  # one object for all equal texts
    for line, row in islice(read_rows(path, columns, header_optional=header_optional), most):
        try:
            for place, fix in fixed:
                row[place] = fix(row[place])
            values.extend(map(float, pick(row)))
        except ValueError as error:
            raise _not_a_number(path, line, row, columns, texts, dict(fixed)) from error
        for place, words in places:
            if not row[place]:
                raise _fault(path, line, columns[place], "the value is missing")
            words.append(known.setdefault(row[place], row[place]))
        lines.append(line)
    if not lines:
        raise damaged(path, "it has a header, but no rows")
    table = np.frombuffer(values).reshape(len(lines), len(numbers))
    found = dict(zip(numbers, table.T, strict=True))
    _check(path, lines, found, floats)
    types = {name: "float64" if name in floats else "int64" for name in numbers}
    found = {name: column.astype(types[name]) for name, column in found.items()}
    found |= {columns[place]: pd.Series(words, dtype="str") for place, words in places}
    return pd.DataFrame({name: found[name] for name in columns}), lines


def _check(path: Path, lines: array, found: dict[str, np.ndarray], floats: Collection[str]) -> None:
    """Refuse numbers that are not finite, or not whole where they must be: the first line first."""
    first = None
    for name, column in found.items():
        bad = ~np.isfinite(column)
        if name not in floats:
            bad |= (column != np.floor(column)) | (abs(column) > 2**53)  # what float64 counts
        if bad.any() and (first is None or bad.argmax() < first[0]):
            first = int(bad.argmax()), name
    if first:
        row, name = first
        value = found[name][row]
        rule = "a whole number" if np.isfinite(value) else "a finite number"
        raise _fault(path, lines[row], name, f"{value:g} is not {rule}")


def _not_a_number(path, line, row, columns, texts, fixes) -> DataDamaged:
    """Return the error for the first field of a row that is none."""
    for place, name in enumerate(columns):
        field = row[place]
        try:
            field = fixes[place](field) if place in fixes and isinstance(field, str) else field
            if name not in texts:
                float(field)
        except ValueError:
            story = (
                f"{row[place][:40]!r} is not a number" if field.strip() else "the value is missing"
            )
            return _fault(path, line, name, story)
    raise AssertionError("no field of the row is wrong")


def _fault(path: Path, line: int, column: str, fault: str) -> DataDamaged:
    return damaged(path, f"line {line:,}, column {column}: {fault}")
