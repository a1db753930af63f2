"""The two official files of flows: 45 columns, told apart by their numbers of rows.

The publisher's page speaks of 175,341 training and 82,332 test rows, but in the folder that is
given out the file *named* ``training-set`` has the 82,332, and ``testing-set`` the others. So names
say nothing.

Invariants:

- A table has the columns `COLUMNS` in this order: int64, float64 for `FLOATS`, str for `TEXTS`.
- Every number is finite and at least 0; ``label`` is 1 exactly where ``attack_cat`` is an attack.
- Two files are a pair only if each has its own number of rows. Whatever is wrong is `DataDamaged`.
"""

import contextlib
import filecmp
import os
from pathlib import Path

import pandas as pd

from course_lib.data._finding import DataDamaged, damaged
from course_lib.data._unsw_nb15_table import read_table

FILES = ("UNSW_NB15_training-set.csv", "UNSW_NB15_testing-set.csv")
ROWS = {"train": 175_341, "test": 82_332}

TEXTS = ("proto", "service", "state", "attack_cat")
FLOATS = (
    *("dur", "rate", "sload", "dload", "sinpkt", "dinpkt", "sjit", "djit"),
    *("tcprtt", "synack", "ackdat"),
)
COLUMNS = (
    *("id", "dur", "proto", "service", "state", "spkts", "dpkts", "sbytes", "dbytes", "rate"),
    *("sttl", "dttl", "sload", "dload", "sloss", "dloss", "sinpkt", "dinpkt", "sjit", "djit"),
    *("swin", "stcpb", "dtcpb", "dwin", "tcprtt", "synack", "ackdat", "smean", "dmean"),
    *("trans_depth", "response_body_len", "ct_srv_src", "ct_state_ttl", "ct_dst_ltm"),
    *("ct_src_dport_ltm", "ct_dst_sport_ltm", "ct_dst_src_ltm", "is_ftp_login", "ct_ftp_cmd"),
    *("ct_flw_http_mthd", "ct_src_ltm", "ct_srv_dst", "is_sm_ips_ports", "attack_cat", "label"),
)
NORMAL = "Normal"  # the ``attack_cat`` of what is no attack


def lying_in(folder: Path) -> list[Path]:
    """Return which of the two files lie in a folder. A dangling link counts as there."""
    return [folder / name for name in FILES if os.path.lexists(folder / name)]


def read_parts(paths: list[Path]) -> dict[str, tuple[Path, pd.DataFrame]]:
    """Read one file or two, and find out which part of the official pair each of them is.

    Args:
        paths: What `lying_in` found: one or two.

    Returns:
        ``"train"`` and ``"test"``, or one of them, in this order → its file and its rows.

    Raises:
        DataDamaged: A file is wrong or of another length, or both are the same part.
    """
    if len(paths) == 2:
        with contextlib.suppress(OSError):  # what cannot be read is named below
            if filecmp.cmp(*paths, shallow=False):
                raise _twice(paths, "are the same file under two names")
    found: dict[str, tuple[Path, pd.DataFrame]] = {}
    for path in paths:
        table = read(path)
        part = part_of(path, table)
        if part in found:
            alike = table.equals(found[part][1])
            both = "hold the same rows" if alike else f"both have {len(table):,} rows"
            raise _twice(paths, both)
        found[part] = path, table
    return {part: found[part] for part in ROWS if part in found}


def read(path: Path) -> pd.DataFrame:
    """Read one of the files and check every value, but not how many rows there are.

    Raises:
        DataDamaged: It is not CSV in UTF-8, its header does not name `COLUMNS`, or a value cannot
            be right.
    """
    table, lines = read_table(path, COLUMNS, texts=TEXTS, floats=FLOATS)
    if fault := _fault_of(table):
        row, column, story = fault
        raise damaged(path, f"line {lines[row]:,}, column {column}: {story}")
    return table


def part_of(path: Path, table: pd.DataFrame) -> str:
    """Return which part of the pair a table is, ``"train"`` or ``"test"``, by its number of rows.

    Raises:
        DataDamaged: It is neither.
    """
    for part, rows in ROWS.items():
        if len(table) == rows:
            return part
    reason = "something was added" if len(table) > max(ROWS.values()) else "cut off, perhaps"
    raise damaged(
        path,
        f"it has {len(table):,} rows; the official training part has {ROWS['train']:,} "
        f"and the official test part {ROWS['test']:,} ({reason})",
    )


def _fault_of(table: pd.DataFrame) -> tuple[int, str, str] | None:
    """Return a row, from 0, a column and what is wrong with its value; None if nothing is."""
    for column in (name for name in COLUMNS if name not in TEXTS):
        if (bad := table[column] < 0).any():
            row = int(bad.argmax())
            return row, column, f"{table[column].iloc[row]:g} is below 0"
    label, attack = table["label"], table["attack_cat"] != NORMAL
    if (bad := ~label.isin((0, 1))).any():
        row = int(bad.argmax())
        return row, "label", f"{label.iloc[row]} is neither 0 (normal) nor 1 (attack)"
    if (bad := (label == 1) != attack).any():
        row = int(bad.argmax())
        kind = table["attack_cat"].iloc[row]
        return row, "label", f"it is {label.iloc[row]}, but the attack_cat is {kind!r}"
    return None


def _twice(paths: list[Path], fault: str) -> DataDamaged:
    """Return the error for two files that are one part of the pair: both names, the way out."""
    first, second = paths
    return DataDamaged(
        f"{first} and {second} {fault}. One of them must have {ROWS['train']:,} rows "
        f"and the other {ROWS['test']:,}; which is which does not matter.\n"
        f"Put the other file there, or delete {second.name}: with one file the course makes a "
        "split of its own."
    )
