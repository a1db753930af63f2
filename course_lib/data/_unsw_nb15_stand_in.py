"""Made-up network flows, for when the real ones cannot be had.

A lesson has to work without a network, and teach the same things: so the stand-in has the real
columns, their heavy tails and their traps. Packets, bytes, times and rates of a flow belong
together, as they do in real traffic, and attacks break that; some attacks look like normal flows.
Attacks repeat each other, ``id`` is in the order of the kinds, ``sttl`` nearly tells attacks apart,
and the test part has a protocol that the training part has not. It is plainly not real: addresses
are those that are kept for documentation.

Invariants: each call returns the same tables, and each passes the checks of a real file.
"""

import numpy as np
import pandas as pd

from course_lib.data import _unsw_nb15_files as files
from course_lib.data import _unsw_nb15_raw as raw

ROWS = {"train": 8_000, "test": 4_000}
RAW_ROWS, RAW_SECONDS, RAW_START = 4_000, 780, "2015-01-22 12:00:00"

# Kind → its sorts of flows: how common (in one hundred), proto, service, state, the usual duration
# (s), packets there and back, bytes of a packet there and back.
_SORTS = {
    files.NORMAL: (
        (30, "tcp", "-", "FIN", 0.03, 14, 16, 90, 400),
        (20, "udp", "dns", "CON", 0.001, 2, 2, 70, 85),
        (18, "tcp", "http", "FIN", 0.5, 14, 16, 90, 800),
        (10, "tcp", "smtp", "FIN", 0.4, 40, 42, 700, 80),
        (7, "tcp", "ftp-data", "FIN", 0.1, 10, 12, 60, 900),
        (6, "tcp", "ftp", "FIN", 2.0, 30, 32, 60, 75),
        (8, "udp", "-", "INT", 1e-5, 2, 0, 300, 0),
        (1, "arp", "-", "INT", 1e-5, 1, 0, 46, 0),
    ),
    "Generic": (
        (85, "udp", "dns", "INT", 1e-5, 2, 0, 57, 0),
        (15, "tcp", "http", "FIN", 0.8, 12, 10, 110, 400),
    ),
    "Exploits": (
        (60, "tcp", "http", "FIN", 0.6, 12, 10, 90, 300),
        (36, "tcp", "-", "FIN", 0.3, 12, 12, 140, 200),
        (4, "sctp", "-", "INT", 1e-5, 2, 0, 80, 0),
    ),
    "Fuzzers": (
        (70, "tcp", "-", "FIN", 0.4, 12, 8, 120, 150),
        (30, "udp", "-", "INT", 1e-5, 4, 0, 220, 0),
    ),
    "DoS": (
        (60, "tcp", "http", "FIN", 1.2, 14, 8, 250, 80),
        (40, "unas", "-", "INT", 1e-5, 2, 0, 100, 0),
    ),
    "Reconnaissance": (
        (75, "tcp", "-", "FIN", 0.3, 10, 6, 60, 120),
        (25, "udp", "-", "INT", 1e-5, 2, 0, 52, 0),
    ),
}
_ATTACKS = {"Generic": 0.40, "Exploits": 0.25, "Fuzzers": 0.17, "DoS": 0.09, "Reconnaissance": 0.09}
_REPEATS = {True: 0.45, False: 0.08}  # the share of attacks, of normal flows, that repeat another
_BLOCKS = 6  # of one kind each, one after the other


def make_stand_in() -> dict[str, pd.DataFrame]:
    """Make up an official pair in small: 8,000 training and 4,000 test rows, half of them attacks.

    Returns:
        ``"train"`` and ``"test"`` → rows × columns, as of the real files.
    """
    rng = np.random.default_rng(2015)
    return {part: _part(rng, part, rows) for part, rows in ROWS.items()}


def make_raw_stand_in() -> pd.DataFrame:
    """Make up 4,000 raw flows of 13 minutes; one in twelve is an attack, and they come in bursts.

    Returns:
        rows × columns, as `course_lib.data._unsw_nb15_raw.read_parts` returns them.
    """
    rng = np.random.default_rng(122)
    bursts = np.sort(rng.uniform(0.15, 0.95, 5)) * RAW_SECONDS
    attack = rng.random(RAW_ROWS) < 1 / 12
    when = rng.uniform(0, RAW_SECONDS, RAW_ROWS)
    hit = rng.choice(bursts, RAW_ROWS) + rng.exponential(6.0, RAW_ROWS)
    when = np.where(attack, np.minimum(hit, RAW_SECONDS), when)
    table = _flows(rng, _kinds(rng, attack))
    n = rng.integers(1, 20, (2, RAW_ROWS))
    table["srcip"] = [
        f"{'203.0.113' if a else '192.0.2'}.{i}" for a, i in zip(attack, n[0], strict=True)
    ]
    table["dstip"] = [f"198.51.100.{i}" for i in n[1]]
    served = table["service"].map({"dns": 53, "http": 80, "smtp": 25, "ftp": 21, "ftp-data": 20})
    has_ports = table["proto"].isin(("tcp", "udp", "sctp"))
    table["sport"] = np.where(has_ports, rng.integers(1_024, 65_536, RAW_ROWS), 0)
    table["dsport"] = served.fillna(pd.Series(rng.integers(1_024, 65_536, RAW_ROWS)))
    table["dsport"] = table["dsport"].where(has_ports, 0).astype("int64")
    start = pd.Timestamp(RAW_START, tz="UTC").timestamp()
    for name, second in (("stime", when), ("ltime", when + table["dur"])):
        seconds = pd.Series(np.floor(start + second).astype("int64"))
        table[name] = pd.to_datetime(seconds, unit="s", utc=True).astype("datetime64[s, UTC]")
    table = table[list(raw.COLUMNS)].astype({"srcip": "str", "dstip": "str"})
    return table.sort_values("stime", kind="stable", ignore_index=True)


def _part(rng: np.random.Generator, part: str, rows: int) -> pd.DataFrame:
    """Make up one part of the pair: repeats of its own, and the kinds in blocks."""
    attack = rng.random(rows) < 0.5
    table = _flows(rng, _kinds(rng, attack))
    source = np.arange(rows)
    for _, same in table.groupby("attack_cat").indices.items():
        share = _REPEATS[bool(attack[same[0]])]
        source[same] = np.where(rng.random(len(same)) < share, rng.choice(same, len(same)), same)
    table = table.iloc[source].reset_index(drop=True)
    if part == "test":  # a protocol that no training row has
        table.loc[table.index[(table["proto"] == "unas") & (rng.random(rows) < 0.2)], "proto"] = (
            "any"
        )
    block = 2 * rng.integers(0, _BLOCKS // 2, rows) + table["label"]
    table = table.iloc[np.argsort(block, kind="stable")].reset_index(drop=True)
    table["id"] = np.arange(1, rows + 1)
    return table[list(files.COLUMNS)]


def _kinds(rng: np.random.Generator, attack: np.ndarray) -> np.ndarray:
    return np.where(
        attack, rng.choice([*_ATTACKS], len(attack), p=[*_ATTACKS.values()]), files.NORMAL
    )


def _flows(rng: np.random.Generator, kinds: np.ndarray) -> pd.DataFrame:
    """Make up a flow of each of these kinds: the columns that official and raw files share."""
    rows = len(kinds)
    sorts = np.empty((rows, 8), dtype=object)
    for kind, choices in _SORTS.items():
        shares = np.array([sort[0] for sort in choices]) / 100
        mine = np.flatnonzero(kinds == kind)
        chosen = rng.choice(len(choices), len(mine), p=shares)
        sorts[mine] = np.array([sort[1:] for sort in choices], dtype=object)[chosen]
    proto, service, state = sorts[:, :3].T
    usual, spkts, dpkts, smean, dmean = sorts[:, 3:].astype(float).T
    attack, tcp = kinds != files.NORMAL, proto == "tcp"
    http, ftp = service == "http", service == "ftp"

    def spread(size: float) -> np.ndarray:
        return np.exp(size * rng.standard_normal(rows))

    length = spread(0.7)  # of the talk: packets, bytes and time grow with it
    spkts = np.where(spkts > 4, np.ceil(spkts * length * spread(0.25)), spkts)
    dpkts = np.where(dpkts > 4, np.ceil(dpkts * length * spread(0.25)), dpkts)
    dur = np.clip(np.round(usual * length * spread(0.9 + 0.4 * tcp), 6), 1e-6, 60)
    smean, dmean = np.round(smean * spread(0.25)), np.round(dmean * spread(0.25))
    away = rng.random(rows) < np.where(attack, 0.9, 0.35)  # from the far side of the test bed
    rtt = np.where(tcp, np.where(away, 0.07, 6e-4) * spread(0.4), 0)
    syn = rtt * rng.uniform(0.4, 0.8, rows)
    gaps = [1e3 * dur * (n > 1) / np.maximum(n - 1, 1) for n in (spkts, dpkts)]  # ms
    busy = 1 + 6 * (kinds == "Generic")  # how many flows of the last 100 are like this one

    def count() -> np.ndarray:
        return 1 + rng.poisson(busy * rng.gamma(1.0, 1.5, rows))

    table = {
        "dur": dur,
        "proto": proto,
        "service": service,
        "state": state,
        "spkts": spkts,
        "dpkts": dpkts,
        "sbytes": spkts * smean,
        "dbytes": dpkts * dmean,
        "rate": (spkts + dpkts - 1) / dur,
        "sttl": np.where(away, 254, np.where(attack, 62, 31)),
        "dttl": np.where(dpkts == 0, 0, np.where(away, 252, 29)),
        "sload": 8 * spkts * smean / dur,
        "dload": 8 * dpkts * dmean / dur,
        "sloss": np.floor(tcp * spkts * rng.uniform(0.1, 0.3, rows)),
        "dloss": np.floor(tcp * dpkts * rng.uniform(0.1, 0.3, rows)),
        "sinpkt": gaps[0],
        "dinpkt": gaps[1],
        "sjit": tcp * gaps[0] * np.where(attack, 18, 12) * spread(0.6),
        "djit": tcp * gaps[1] * np.where(attack, 6, 3) * spread(0.6),
        "swin": 255 * tcp,
        "stcpb": tcp * rng.integers(1, 2**32, rows),
        "dtcpb": tcp * rng.integers(1, 2**32, rows),
        "dwin": 255 * tcp,
        "tcprtt": rtt,
        "synack": syn,
        "ackdat": rtt - syn,
        "smean": smean,
        "dmean": dmean,
        "trans_depth": http,
        "response_body_len": np.round(http * dpkts * dmean * 0.8 * (rng.random(rows) < 0.6)),
        "is_ftp_login": ftp,
        "ct_ftp_cmd": ftp * rng.integers(1, 3, rows),
        "ct_flw_http_mthd": http,
        "is_sm_ips_ports": np.zeros(rows),
        "ct_state_ttl": np.where(away, np.where(dpkts == 0, 2, 1), 0),
        "attack_cat": kinds,
        "label": attack,
    }
    table |= {
        name: count() for name in files.COLUMNS if name.startswith("ct_") and name not in table
    }
    types = {name: "float64" if name in files.FLOATS else "int64" for name in table}
    types |= dict.fromkeys(files.TEXTS, "str")
    return pd.DataFrame(table).astype(types).round({name: 6 for name in files.FLOATS})
