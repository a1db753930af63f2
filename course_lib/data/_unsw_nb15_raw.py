"""The raw files of flows: 49 columns with addresses and times, cleaned and named as the official.

There are four, 2.5 million flows, in the order in which the flows *ended*. They have no header, the
times are seconds since 1970, and what people wrote by hand is as people write: an attack is
``Fuzzers`` here and `` Fuzzers`` there, a port is 53, 0x0035 or -.

Invariants:

- A cleaned table has the columns `COLUMNS`, sorted by ``stime`` (flows of the same second stay in
  the file's order). Columns that the official files have, too, have their names and types.
- Only here: ``srcip``, ``sport``, ``dstip``, ``dsport``, ``stime``, ``ltime``. Only there: ``id``
  and ``rate``.
"""

import os
import re
from pathlib import Path

import pandas as pd

from course_lib.data._finding import damaged
from course_lib.data._unsw_nb15_files import FLOATS, NORMAL, TEXTS
from course_lib.data._unsw_nb15_table import read_table

PARTS = tuple(f"UNSW-NB15_{n}.csv" for n in (1, 2, 3, 4))
FIRST_ROWS = "UNSW-NB15_1_first_rows.csv"  # the beginning of the first part, with a header

PUBLISHED = (
    *("srcip", "sport", "dstip", "dsport", "proto", "state", "dur", "sbytes", "dbytes", "sttl"),
    *("dttl", "sloss", "dloss", "service", "Sload", "Dload", "Spkts", "Dpkts", "swin", "dwin"),
    *("stcpb", "dtcpb", "smeansz", "dmeansz", "trans_depth", "res_bdy_len", "Sjit", "Djit"),
    *("Stime", "Ltime", "Sintpkt", "Dintpkt", "tcprtt", "synack", "ackdat", "is_sm_ips_ports"),
    *("ct_state_ttl", "ct_flw_http_mthd", "is_ftp_login", "ct_ftp_cmd", "ct_srv_src"),
    *("ct_srv_dst", "ct_dst_ltm", "ct_src_ ltm", "ct_src_dport_ltm", "ct_dst_sport_ltm"),
    *("ct_dst_src_ltm", "attack_cat", "Label"),
)
# The official files' names where lower case alone does not give them. Checked on 1,194 TCP flows
# that are in the first part and in the official test part: once cleaned, all values agree.
RENAMED = {
    "smeansz": "smean",
    "dmeansz": "dmean",
    "res_bdy_len": "response_body_len",
    "Sintpkt": "sinpkt",
    "Dintpkt": "dinpkt",
    "ct_src_ ltm": "ct_src_ltm",
}
COLUMNS = tuple(RENAMED.get(name, name.lower()) for name in PUBLISHED)
UNKNOWN_PORT = -1

_HEX = re.compile(r"0[xX][0-9a-fA-F]+", re.ASCII)


def lying_in(folder: Path) -> list[Path]:
    """Return the parts that lie in a folder; without any, the first rows of the first, if there."""
    parts = [folder / name for name in PARTS if os.path.lexists(folder / name)]
    return parts or [path for path in (folder / FIRST_ROWS,) if os.path.lexists(path)]


def read_parts(paths: list[Path], most: int | None = None) -> pd.DataFrame:
    """Read and clean files one after the other, the first `most` rows of all if it is given.

    Raises:
        DataDamaged: See `read`.
    """
    tables: list[pd.DataFrame] = []
    for path in paths:
        left = None if most is None else most - sum(map(len, tables))
        if left == 0:
            break
        tables.append(read(path, left))
    whole = pd.concat(tables, ignore_index=True)
    return whole.sort_values("stime", kind="stable", ignore_index=True)


def read(path: Path, most: int | None = None) -> pd.DataFrame:
    """Read one file, in its own order, with or without a header, and clean it.

    Args:
        path: The file.
        most: No more rows than so many, the first ones.

    Returns:
        rows × `COLUMNS`. A port that is not known is `UNKNOWN_PORT`; a blank count is 0; times are
        UTC; normal flows have the ``attack_cat`` "Normal".

    Raises:
        DataDamaged: It is no such file, or a value is wrong.
    """
    names = dict(zip(COLUMNS, PUBLISHED, strict=True))
    counts = ("ct_flw_http_mthd", "is_ftp_login", "ct_ftp_cmd")
    fixes = {
        **dict.fromkeys(("sport", "dsport"), _port),
        **dict.fromkeys(counts, lambda text: text if text.strip() else 0),
        **dict.fromkeys(("proto", "service", "state"), str.strip),
        "attack_cat": _kind,
    }
    table, lines = read_table(
        path,
        PUBLISHED,
        texts={"srcip", "dstip", *(names[name] for name in TEXTS)},
        floats={names[name] for name in FLOATS if name in names},
        fixes={names[name]: fix for name, fix in fixes.items()},
        header_optional=True,
        most=most,
    )
    table.columns = list(COLUMNS)
    wrong = (table["label"] == 1) != (table["attack_cat"] != NORMAL)
    wrong |= ~table["label"].isin((0, 1))
    if wrong.any():
        row = int(wrong.argmax())
        label, kind = table["label"].iloc[row], table["attack_cat"].iloc[row]
        raise damaged(
            path,
            f"line {lines[row]:,}, column Label: it is {label}, but the attack_cat is {kind!r}",
        )
    for name in ("stime", "ltime"):
        table[name] = pd.to_datetime(table[name], unit="s", utc=True).astype("datetime64[s, UTC]")
    return table


def _port(text: str) -> float:
    """Return the number of a port: 53, 0x0035, or `UNKNOWN_PORT` for - and nothing."""
    text = text.strip()
    if text in ("", "-"):
        return UNKNOWN_PORT
    return int(text, 16) if _HEX.fullmatch(text) else float(text)


def _kind(text: str) -> str:
    """Return the kind of attack as the official files spell it; "Normal" for a blank."""
    text = text.strip()
    return {"": NORMAL, "Backdoors": "Backdoor"}.get(text, text)
