"""Network flows: which file is which, what is in it, raw files, features, Kaggle, stand-ins."""

import os
import pickle
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from course_lib import cli, machine
from course_lib.data import (
    DataDamaged,
    DataNotFound,
    _unsw_nb15_features,
    _unsw_nb15_files,
    _unsw_nb15_kaggle,
    _unsw_nb15_raw,
    unsw_nb15,
)
from course_lib.data._unsw_nb15_features import Encoder, repeats, split
from course_lib.data._unsw_nb15_stand_in import make_raw_stand_in, make_stand_in

DATA = Path(os.environ.get("COURSE_DATA", "/nowhere")).absolute()
REAL, REAL_TRAIN = (DATA / name for name in _unsw_nb15_files.FILES)
REAL_RAW = DATA / _unsw_nb15_raw.FIRST_ROWS
TRAINING, TESTING = _unsw_nb15_files.FILES
FEATURES = [c for c in unsw_nb15.COLUMNS if c not in ("id", "attack_cat", "label")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The data folder of a reader without a network; the official files have 40 and 20 rows."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(_unsw_nb15_files.ROWS, "train", 40)
    monkeypatch.setitem(_unsw_nb15_files.ROWS, "test", 20)
    return tmp_path


@pytest.fixture
def whole(monkeypatch):
    """The official files have as many rows as they really have."""
    monkeypatch.setitem(_unsw_nb15_files.ROWS, "train", 175_341)
    monkeypatch.setitem(_unsw_nb15_files.ROWS, "test", 82_332)


@pytest.fixture(scope="module")
def made():
    """The stand-in's two parts."""
    return make_stand_in()


@pytest.fixture(scope="module")
def tables(made):
    """Rows of the stand-in, as many as the small official files have, of both labels."""
    parts = {"train": made["train"], "test": made["test"]}
    return {
        name: parts[name].iloc[:: len(parts[name]) // rows].head(rows).reset_index(drop=True)
        for name, rows in (("train", 40), ("test", 20))
    }


def text_of(table, *, end="\r\n", start="\ufeff"):
    """The text of a file in the publisher's form."""
    return start + table.to_csv(index=False, lineterminator=end)


def write(folder, table, name=TRAINING, **form):
    path = folder / name
    path.write_bytes(text_of(table, **form).encode())
    return path


def changed(table, row, **values):
    """A table with other values in one row, whatever their types."""
    table = table.astype(dict.fromkeys(values, object))
    for column, value in values.items():
        table.loc[row, column] = value
    return table


def same(found, wanted):
    pd.testing.assert_frame_equal(found, wanted)


# --- which file is which ------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.exists() or REAL_TRAIN.exists(), reason="not the one real file")
def test_the_real_file_alone(whole, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA", str(DATA))
    found = unsw_nb15.load("real")
    assert capsys.readouterr().out == (
        f"UNSW-NB15 flows: 82,332 rows from {REAL} (test), duplicate-free split: "
        "26,975 train, 26,971 test, 28,386 repeats left out\n"
        "Note: the official train file (175,341 rows) is not beside it, so the split is one of "
        "the course's own.\n"
    )
    assert (found.protocol, found.origin, found.path) == ("duplicate-free split", "real", REAL)
    assert found.frame["label"].value_counts().to_dict() == {1: 45_332, 0: 37_000}
    assert found.frame["id"].tolist() == list(range(1, 82_333))
    assert found.frame["attack_cat"].value_counts().to_dict() == {
        "Normal": 37_000,
        "Generic": 18_871,
        "Exploits": 11_132,
        "Fuzzers": 6_062,
        "DoS": 4_089,
        "Reconnaissance": 3_496,
        "Analysis": 677,
        "Backdoor": 583,
        "Shellcode": 378,
        "Worms": 44,
    }
    train, test = found.train, found.test
    both = pd.concat([train, test])
    assert len(both) == 53_946
    assert round(both["label"].mean(), 3) == 0.366
    assert not both.duplicated(FEATURES).any()
    assert tuple(train) == tuple(test) == unsw_nb15.COLUMNS
    halves = pd.concat(
        [train["attack_cat"].value_counts(), test["attack_cat"].value_counts()], axis=1
    )
    assert (halves.iloc[:, 0] - halves.iloc[:, 1]).isin((0, 1)).all()
    assert halves.loc["Worms"].tolist() == [22, 21]
    encoder = Encoder.fit(train[train["label"] == 0])
    x = encoder.transform(test).to_numpy()
    assert x.shape == (26_971, 56)
    assert np.isfinite(x).all()
    assert encoder.unseen(test)["proto"]["unas"] > 50


@pytest.mark.skipif(not REAL_RAW.exists(), reason="the real data are not here")
def test_the_real_raw_flows(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA", str(DATA))
    found = unsw_nb15.load_raw("real")
    first = capsys.readouterr().out.splitlines()[0]
    assert "2015-01-22 11:49:37 to 12:02:58 UTC" in first
    if found.path != REAL_RAW:
        return
    frame = found.frame
    assert frame["label"].value_counts().to_dict() == {0: 18_428, 1: 1_572}
    kinds = frame["attack_cat"].value_counts()
    assert kinds[["Normal", "Fuzzers", "Backdoor"]].tolist() == [18_428, 724, 2]
    same(frame.dtypes.to_frame(), make_raw_stand_in().dtypes.to_frame())
    assert frame["stime"].is_monotonic_increasing


@pytest.mark.parametrize("names", [(TRAINING, TESTING), (TESTING, TRAINING)])
def test_the_parts_are_told_apart_by_their_rows_and_not_by_their_names(
    folder, tables, names, capsys
):
    paths = [write(folder, tables[part], name) for part, name in zip(tables, names, strict=True)]
    found = unsw_nb15.load("real")
    assert (found.protocol, found.origin) == (unsw_nb15.OFFICIAL, "real")
    same(found.train, tables["train"])
    same(found.test, tables["test"])
    assert capsys.readouterr().out == (
        f"UNSW-NB15 flows: 60 rows from {paths[0]} (train) and {paths[1]} (test), "
        "official pair: 40 train, 20 test\n"
    )
    assert repr(found) == (f"Flows(40 train, 20 test, official pair, real, {folder / TRAINING})")
    assert found.train is not found.train


@pytest.mark.parametrize("name", [TRAINING, TESTING])
@pytest.mark.parametrize("part", ["train", "test"])
def test_one_file_is_split_without_its_repeats(folder, tables, name, part, capsys):
    table = tables[part].copy()
    table.loc[[5, 7], FEATURES] = table.loc[[2, 2], FEATURES].to_numpy()
    path = write(folder, table.assign(id=range(1, len(table) + 1)), name)
    found = unsw_nb15.load()
    assert (found.protocol, found.path) == (unsw_nb15.DUPLICATE_FREE, path)
    rows = table.duplicated(FEATURES).sum()
    assert rows >= 2
    assert (found.frame["split"] == "repeat").sum() == rows
    assert found.frame["split"][[5, 7]].eq("repeat").all()
    both = pd.concat([found.train, found.test])
    assert len(both) == len(table) - rows
    assert not both.duplicated(FEATURES).any()
    assert unsw_nb15.repeats(found.frame).sum() == rows  # what a row is for is no feature of it
    said = capsys.readouterr().out
    other = {"train": "test file (20 rows)", "test": "train file (40 rows)"}[part]
    assert f"{path} ({part}), duplicate-free split: " in said
    assert f"Note: the official {other} is not beside it" in said


def test_the_same_file_twice_is_no_pair(folder, tables):
    first = write(folder, tables["test"], TRAINING)
    second = write(folder, tables["test"], TESTING)
    with pytest.raises(DataDamaged) as caught:
        unsw_nb15.load()
    assert str(caught.value).startswith(
        f"{first} and {second} are the same file under two names. One of them must have 40 rows "
        "and the other 20"
    )
    write(folder, tables["test"], TESTING, end="\n", start="")
    with pytest.raises(DataDamaged, match=r"training-set.csv and \S*testing-set.csv hold the same"):
        unsw_nb15.load()
    write(folder, changed(tables["test"], 3, sbytes=1), TESTING)
    with pytest.raises(
        DataDamaged, match=r"training-set.csv and \S*testing-set.csv both have 20 r"
    ):
        unsw_nb15.load()


@pytest.mark.parametrize(("rows", "why"), [(39, "cut off, perhaps"), (41, "something was added")])
def test_a_file_of_another_length_is_refused(folder, tables, made, rows, why):
    table = pd.concat([tables["train"], made["train"]]).head(rows)
    path = write(folder, table)
    write(folder, tables["test"], TESTING)
    with pytest.raises(DataDamaged) as caught:
        unsw_nb15.load()
    assert str(caught.value).startswith(
        f"{path}: it has {rows} rows; the official training part has 40 and the official test "
        f"part 20 ({why})"
    )


def test_a_link_to_nothing_is_not_passed_over(folder):
    (folder / TESTING).symlink_to(folder / "nowhere")
    with pytest.raises(DataDamaged, match=r"testing-set.csv: it cannot be read: No such file"):
        unsw_nb15.load()


# --- what is in a file --------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_a_mark_and_the_order_of_columns_make_no_difference(folder, tables, start, end):
    turned = tables["train"][list(unsw_nb15.COLUMNS[::-1])]
    path = write(folder, turned, start=start, end=end)
    found = _unsw_nb15_files.read(path)
    same(found, tables["train"])
    assert found.dtypes.astype(str).value_counts().to_dict() == {
        "int64": 30,
        "float64": 11,
        "str": 4,
    }


HEADERS = {
    "renamed": (lambda t: t.rename(columns={"sload": "Sload"}), "(missing: sload; unknown: Sload)"),
    "missing": (lambda t: t.drop(columns="ct_srv_dst"), "(missing: ct_srv_dst)"),
    "extra": (lambda t: t.assign(extra=1), "(unknown: extra)"),
    "none": (lambda t: t.set_axis(range(45), axis=1), "line 1 is not the header"),
}


@pytest.mark.parametrize(("change", "fault"), HEADERS.values(), ids=HEADERS)
def test_a_wrong_header_is_told_by_its_columns(folder, tables, change, fault):
    path = write(folder, change(tables["train"]))
    with pytest.raises(DataDamaged) as caught:
        unsw_nb15.load()
    assert str(caught.value).startswith(f"{path}: ")
    assert fault in str(caught.value)


VALUES = {
    "no number": ({"rate": "fast"}, "column rate: 'fast' is not a number"),
    "infinite": ({"sload": "inf"}, "column sload: inf is not a finite number"),
    "minus infinite": ({"dload": "-Infinity"}, "column dload: -inf is not a finite number"),
    "not a number": ({"dur": "nan"}, "column dur: nan is not a finite number"),
    "an infinite count": ({"spkts": "inf"}, "column spkts: inf is not a finite number"),
    "a part of a packet": ({"spkts": "2.5"}, "column spkts: 2.5 is not a whole number"),
    "too many": ({"sbytes": "1e300"}, "column sbytes: 1e+300 is not a whole number"),
    "missing": ({"ct_srv_dst": ""}, "column ct_srv_dst: the value is missing"),
    "no category": ({"service": ""}, "column service: the value is missing"),
    "below 0": ({"sinpkt": -0.5}, "column sinpkt: -0.5 is below 0"),
    "a third label": ({"label": 2}, "column label: 2 is neither 0 (normal) nor 1 (attack)"),
    "a wrong label": (
        {"label": 1, "attack_cat": "Normal"},
        "column label: it is 1, but the attack_cat is 'Normal'",
    ),
    "a wrong kind": (
        {"label": 0, "attack_cat": "Worms"},
        "column label: it is 0, but the attack_cat is 'Worms'",
    ),
}


@pytest.mark.parametrize(("values", "fault"), VALUES.values(), ids=VALUES)
def test_a_wrong_value_is_told_with_its_line_and_column(folder, tables, values, fault):
    path = write(folder, changed(tables["train"], 6, **values))
    with pytest.raises(DataDamaged) as caught:
        unsw_nb15.load()
    story = str(caught.value).splitlines()[0]
    assert story == f"{path}: line 8, {fault}"


def test_of_several_numbers_the_first_line_is_told(folder, tables):
    table = changed(changed(tables["train"], 9, dur="inf"), 4, dloss="nan")
    write(folder, table)
    with pytest.raises(DataDamaged, match="line 6, column dloss: nan"):
        unsw_nb15.load()


ENDS = {
    "empty": (lambda text: "", "it is empty"),
    "a header": (lambda text: text.splitlines()[0] + "\n", "it has a header, but no rows"),
    "cut in a line": (lambda text: text[:-60], "line 41 has "),
    "cut in a number": (
        lambda text: text[: text.rindex(",")],
        "line 41 has 44 fields instead of 45",
    ),
    "a page": (lambda text: "<html>Please log in", "it is a web page"),
}


@pytest.mark.parametrize(("cut", "fault"), ENDS.values(), ids=ENDS)
def test_what_is_not_whole_is_refused(folder, tables, cut, fault):
    path = write(folder, tables["train"])
    path.write_text(cut(path.read_text()))
    with pytest.raises(DataDamaged) as caught:
        unsw_nb15.load()
    assert str(caught.value).startswith(f"{path}: {fault}")


# --- without any file ---------------------------------------------------------------------------


@pytest.mark.parametrize("load", [unsw_nb15.load, unsw_nb15.load_raw])
def test_what_is_not_here_is_refused_or_made_up(folder, load, capsys):
    with pytest.raises(DataNotFound) as caught:
        load("real")
    story = str(caught.value)
    assert "not tried, because COURSE_OFFLINE is set" in story
    assert "https://research.unsw.edu.au/projects/unsw-nb15-dataset" in story
    assert str(folder) in story
    found = load()
    said = capsys.readouterr().out
    assert said.count("SYNTHETIC DATA: this is not UNSW-NB15") == 1
    assert "made up by the course (synthetic)" in said.splitlines()[-1]
    assert (found.origin, found.path) == ("synthetic", None)
    assert list(folder.iterdir()) == []
    with pytest.raises(ValueError, match="source must be one of"):
        load("fake")


def test_the_stand_in_has_the_form_and_the_traps_of_the_real_flows(made):
    found = unsw_nb15.load("synthetic")
    assert repr(found) == "Flows(8,000 train, 4,000 test, official pair, synthetic)"
    same(found.train, made["train"])
    same(found.test, made["test"])
    for table in made.values():
        assert tuple(table) == unsw_nb15.COLUMNS
        assert _unsw_nb15_files._fault_of(table) is None
        assert np.isfinite(table[[*_unsw_nb15_files.FLOATS]].to_numpy()).all()
        assert 0.45 < table["label"].mean() < 0.55
        shares = pd.Series(repeats(table)).groupby(table["label"]).mean()
        assert 0.03 < shares[0] < 0.15 < shares[1] < 0.5
        assert table["sload"].max() > 1e4 * table["sload"].median() > 0
        assert (table["label"].diff().abs().sum()) < 10  # id is in the order of the kinds
        guess = table["sttl"] > 31
        assert 0.75 < (guess == (table["label"] == 1)).mean() < 0.9
    assert set(made["test"]["proto"]) - set(made["train"]["proto"]) == {"any"}
    for name, table in make_stand_in().items():
        same(table, made[name])


def test_the_stand_in_can_be_read_from_files(folder, made, monkeypatch):
    for name, table in made.items():
        monkeypatch.setitem(_unsw_nb15_files.ROWS, name, len(table))
        write(folder, table, {"train": TESTING, "test": TRAINING}[name])
    found = unsw_nb15.load("real")
    same(found.train, made["train"])
    same(found.test, made["test"])


def test_attacks_of_the_stand_in_are_found_by_what_normal_flows_look_like(made):
    from sklearn.decomposition import PCA
    from sklearn.metrics import roc_auc_score

    train, test = made["train"], made["test"]
    normal = train[train["label"] == 0]
    encoder = Encoder.fit(normal)
    x, seen = encoder.transform(test).to_numpy(), encoder.transform(normal).to_numpy()
    pca = PCA(16).fit(seen)
    error = ((pca.inverse_transform(pca.transform(x)) - x) ** 2).mean(axis=1)
    assert 0.75 < roc_auc_score(test["label"], error) < 0.93  # room for an autoencoder


def test_the_stand_ins_cost_no_library():
    code = (
        "import sys; from course_lib.data import unsw_nb15 as u\n"
        "u.load('synthetic'); u.load_raw('synthetic')\n"
        "print([m for m in ('kagglehub', 'requests', 'torch', 'sklearn') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.stdout.splitlines()[-1:] == ["[]"], answer.stderr


# --- features -----------------------------------------------------------------------------------


def test_numbers_are_logarithms_of_one_scale_learned_from_the_fitted_rows(made):
    fit, others = made["train"].iloc[::2], made["train"].iloc[1::2]
    encoder = Encoder.fit(fit)
    x = encoder.transform(fit)
    assert list(x) == encoder.names
    assert x.index.equals(fit.index)
    assert set(x.dtypes.astype(str)) == {"float64"}
    numbers = list(encoder.numbers)
    assert numbers == [c for c in FEATURES if c not in ("proto", "service", "state")]
    varied = [name for name in numbers if name != "is_sm_ips_ports"]
    np.testing.assert_allclose(x[numbers].mean(), 0, atol=1e-9)
    np.testing.assert_allclose(x[varied].std(ddof=0), 1, atol=1e-9)
    logs = np.log1p(fit["rate"])
    wanted = (np.log1p(others["rate"]) - logs.mean()) / logs.std(ddof=0)
    np.testing.assert_allclose(encoder.transform(others)["rate"], wanted)


def test_nothing_is_learned_from_other_rows_and_nothing_from_the_answers(made):
    fit, others = made["train"].head(500), made["test"].head(50)
    wanted = Encoder.fit(fit).transform(others)
    strange = others.assign(id=0, label=7, attack_cat="Worms")
    same(Encoder.fit(fit.assign(id=5, label=1, attack_cat="?")).transform(strange), wanted)
    one = Encoder.fit(fit).transform(others.iloc[[7]])
    same(one, wanted.iloc[[7]])


def test_a_constant_column_divides_by_nothing(made):
    rows = made["train"].head(300).assign(sttl=31, tcprtt=0.1)
    encoder = Encoder.fit(rows)
    x = encoder.transform(rows)
    np.testing.assert_allclose(x["sttl"], 0, atol=1e-9)
    np.testing.assert_allclose(x["tcprtt"], 0, atol=1e-9)
    moved = encoder.transform(rows.assign(sttl=254, tcprtt=0.3))
    np.testing.assert_allclose(moved["sttl"], np.log(255 / 32))
    np.testing.assert_allclose(moved["tcprtt"], np.log(1.3 / 1.1))


def test_an_unknown_category_is_counted_and_does_no_harm(made):
    fit = made["train"][made["train"]["label"] == 0].head(2_000)
    encoder = Encoder.fit(fit)
    rows = (
        made["test"]
        .head(4)
        .assign(
            proto=["tcp", "zero", "udp", "zero"], service=["-", "-", "telnet", "dns"], state="FIN"
        )
    )
    x = encoder.transform(rows)
    assert np.isfinite(x.to_numpy()).all()
    assert x["proto=(other)"].tolist() == [0, 1, 0, 1]
    assert x["proto=tcp"].tolist() == [1, 0, 0, 0]
    assert x["service=(other)"].tolist() == [0, 0, 1, 0]
    for column in ("proto", "service", "state"):
        own = [name for name in x if name.startswith(f"{column}=")]
        assert x[own].sum(axis=1).eq(1).all()
    found = {column: counts.to_dict() for column, counts in encoder.unseen(rows).items()}
    assert found == {"proto": {"zero": 2}, "service": {"telnet": 1}}
    assert encoder.unseen(fit) == {}


def test_rare_categories_share_a_column_and_are_not_unknown(made, monkeypatch):
    monkeypatch.setattr(_unsw_nb15_features, "FREQUENT", 0.05)
    rows = made["train"].head(1_000).assign(proto=["tcp"] * 900 + ["udp"] * 51 + ["sctp"] * 49)
    encoder = Encoder.fit(rows)
    assert encoder.frequent["proto"] == ("tcp", "udp")
    assert encoder.transform(rows)["proto=(other)"].sum() == 49
    assert encoder.unseen(rows) == {}


def test_columns_of_a_readers_own_are_features_too(made):
    rows = made["train"].head(100)
    mine = rows.assign(per_packet=rows["sbytes"] / rows["spkts"])
    encoder = Encoder.fit(mine)
    assert encoder.numbers[-1] == "per_packet"
    with pytest.raises(ValueError, match="no column per_packet, and the encoder needs it"):
        encoder.transform(rows)
    with pytest.raises(ValueError, match="column per_packet has a number that is not finite"):
        encoder.transform(rows.assign(per_packet=np.inf))
    with pytest.raises(ValueError, match="there are no rows"):
        Encoder.fit(rows.head(0))
    with pytest.raises(ValueError, match="no column state"):
        Encoder.fit(rows.drop(columns="state"))
    assert np.isfinite(
        Encoder.fit(rows.assign(change=-3.0)).transform(rows.assign(change=-9.0))
    ).all(axis=None)


def test_an_encoder_is_small_and_travels(made):
    encoder = Encoder.fit(made["train"])
    sent = pickle.dumps(encoder)
    assert len(sent) < 10_000
    same(pickle.loads(sent).transform(made["test"]), encoder.transform(made["test"]))
    assert repr(encoder).startswith(f"Encoder({len(encoder.names)} features: 39 numbers, ")


def test_raw_flows_are_encoded_by_the_same_rules(made):
    raw = make_raw_stand_in()
    encoder = Encoder.fit(raw.head(1_000))
    assert set(FEATURES) - {"rate", "proto", "service", "state"} == set(encoder.numbers)
    assert np.isfinite(encoder.transform(raw).to_numpy()).all()
    common = Encoder.fit(made["train"].drop(columns="rate"))
    assert common.transform(raw).shape == (len(raw), len(common.names))


def test_the_split_takes_half_of_each_kind_and_no_flow_twice(made):
    odd = made["test"].drop_duplicates(FEATURES).groupby("attack_cat").head(31)
    table = pd.concat([made["test"], odd.assign(id=0, label=0), odd.assign(dur=59.0)])
    train, test = split(table)
    assert train.dtype == test.dtype == np.int64
    assert not set(train) & set(test)
    assert list(train) == sorted(train)
    assert list(test) == sorted(test)
    first = np.flatnonzero(~table.duplicated(FEATURES).to_numpy())
    assert sorted([*train, *test]) == first.tolist()
    kinds = table["attack_cat"].to_numpy()
    for kind in set(kinds):
        assert (kinds[train] == kind).sum() - (kinds[test] == kind).sum() in (0, 1)
    for again, rows in zip(split(table), (train, test), strict=True):
        assert again.tolist() == rows.tolist()
    blocks = np.diff(np.flatnonzero(np.isin(first, test)))
    assert 1 < blocks.max() < 40  # spread over the file, and not its second half


# --- raw files ----------------------------------------------------------------------------------


def published(table):
    """Cleaned raw rows in the publisher's form, before a hand touches them."""
    table = table.set_axis(_unsw_nb15_raw.PUBLISHED, axis=1)
    for name in ("Stime", "Ltime"):
        table[name] = table[name].astype("int64")
    return table.assign(attack_cat=table["attack_cat"].replace("Normal", ""))


def write_raw(folder, table, name="UNSW-NB15_1.csv", *, header=False, end="\n"):
    path = folder / name
    path.write_bytes(table.to_csv(index=False, header=header, lineterminator=end).encode())
    return path


@pytest.fixture(scope="module")
def raw():
    return make_raw_stand_in()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", [True, False])
def test_raw_files_are_read_with_a_header_or_without(folder, raw, header, end, capsys):
    mixed = raw.head(200).sort_values("ltime", kind="stable")
    path = write_raw(folder, published(mixed), header=header, end=end)
    found = unsw_nb15.load_raw("real")
    same(found.frame, mixed.sort_values("stime", kind="stable", ignore_index=True))
    assert (found.origin, found.path) == ("real", path)
    until = raw["stime"].iloc[199]
    assert capsys.readouterr().out == (
        f"UNSW-NB15 raw flows: 200 rows from {path}, 2015-01-22 12:00:00 to {until:%H:%M:%S} UTC\n"
        "Note: all flows that were published are 2.5 million, in four parts.\n"
    )
    assert "200 rows, 2015-01-22 12:00:00 to " in repr(found)


def test_what_hands_have_written_is_cleaned(folder, raw):
    table = published(raw.head(8)).astype(object)
    table["attack_cat"] = ["", " ", "Backdoors", " Fuzzers", " Fuzzers ", "Worms", "", "Generic"]
    table["Label"] = [0, 0, 1, 1, 1, 1, 0, 1]
    table["sport"] = ["0x000b", "-", "", "0xCC09", " 53 ", "0", "65535", "21"]
    table["ct_flw_http_mthd"] = ["", " ", "3", "0", "", "1.0", "2", " "]
    table["ct_ftp_cmd"] = [" ", "1", "", "0", "2", " ", "", "4"]
    table["is_ftp_login"] = ["", "1", "2", "", "0", " ", "0", "4"]
    write_raw(folder, table)
    found = unsw_nb15.load_raw().frame
    assert tuple(found) == unsw_nb15.RAW_COLUMNS
    assert found["attack_cat"].tolist() == [
        *("Normal", "Normal", "Backdoor", "Fuzzers", "Fuzzers", "Worms", "Normal", "Generic")
    ]
    assert found["sport"].tolist() == [11, -1, -1, 0xCC09, 53, 0, 65535, 21]
    assert found["ct_flw_http_mthd"].tolist() == [0, 0, 3, 0, 0, 1, 2, 0]
    assert found["ct_ftp_cmd"].tolist() == [0, 1, 0, 0, 2, 0, 0, 4]
    assert found["is_ftp_login"].tolist() == [0, 1, 2, 0, 0, 0, 0, 4]
    same(found.dtypes.to_frame(), raw.dtypes.to_frame())


def test_names_and_times_are_those_of_the_official_files_and_of_utc():
    raw, official = set(unsw_nb15.RAW_COLUMNS), set(unsw_nb15.COLUMNS)
    assert raw - official == {"srcip", "sport", "dstip", "dsport", "stime", "ltime"}
    assert official - raw == {"id", "rate"}
    assert len(raw) == 49
    times = make_raw_stand_in()["stime"]
    assert str(times.dt.tz) == "UTC"


def test_times_are_seconds_since_1970(folder, raw):
    write_raw(folder, published(raw.head(3)).assign(Stime=[1421927414, 0, 1421927415]))
    assert unsw_nb15.load_raw().frame["stime"].astype(str).tolist() == [
        "1970-01-01 00:00:00+00:00",
        "2015-01-22 11:50:14+00:00",
        "2015-01-22 11:50:15+00:00",
    ]


def test_parts_are_joined_and_the_first_rows_are_taken_where_there_is_none(folder, raw, capsys):
    table = published(raw)
    write_raw(folder, table.iloc[:50], _unsw_nb15_raw.FIRST_ROWS, header=True)
    assert len(unsw_nb15.load_raw().frame) == 50
    second = write_raw(folder, table.iloc[30:60], "UNSW-NB15_2.csv")
    assert unsw_nb15.load_raw().path == second
    write_raw(folder, table.iloc[:30], "UNSW-NB15_1.csv")
    assert len(unsw_nb15.load_raw().frame) == 60
    same(unsw_nb15.load_raw(rows=40).frame, raw.head(40))
    same(unsw_nb15.load_raw(rows=30).frame, raw.head(30))
    for name in _unsw_nb15_raw.PARTS:
        write_raw(folder, table.iloc[:5], name)
    capsys.readouterr()
    assert len(unsw_nb15.load_raw().frame) == 20
    assert "Note" not in capsys.readouterr().out
    assert len(unsw_nb15.load_raw(rows=20).frame) == 20
    assert "Note: all flows that were published" in capsys.readouterr().out
    assert len(unsw_nb15.load_raw("synthetic", rows=7).frame) == 7
    with pytest.raises(ValueError, match="rows must be 1 or more"):
        unsw_nb15.load_raw(rows=0)


RAW_VALUES = {
    "port": ({"dsport": "0xZZ"}, "column dsport: '0xZZ' is not a number"),
    "half a port": ({"sport": "5.5"}, "column sport: 5.5 is not a whole number"),
    "time": ({"Stime": "noon"}, "column Stime: 'noon' is not a number"),
    "infinite": ({"Sload": "inf"}, "column Sload: inf is not a finite number"),
    "blank": ({"Spkts": " "}, "column Spkts: the value is missing"),
    "label": ({"Label": 1, "attack_cat": ""}, "column Label: it is 1, but the attack_cat is 'N"),
    "no label": ({"Label": 2, "attack_cat": ""}, "column Label: it is 2, but the"),
}


@pytest.mark.parametrize(("values", "fault"), RAW_VALUES.values(), ids=RAW_VALUES)
@pytest.mark.parametrize("header", [True, False])
def test_a_wrong_raw_value_is_told_with_its_line_and_column(folder, raw, values, fault, header):
    path = write_raw(folder, changed(published(raw.head(9)), 4, **values), header=header)
    with pytest.raises(DataDamaged) as caught:
        unsw_nb15.load_raw()
    assert str(caught.value).startswith(f"{path}: line {5 + header}, {fault}")


RAW_FORMS = {
    "renamed": (lambda t: t.rename(columns={"Sload": "sload"}), True, "missing: Sload"),
    "official": (lambda t: make_stand_in()["test"].head(3), True, "wrong columns"),
    "narrow": (lambda t: t.drop(columns="Label"), False, "line 1 has 48 fields instead of 49"),
    "empty": (lambda t: t.head(0), False, "it is empty"),
    "only a header": (lambda t: t.head(0), True, "it has a header, but no rows"),
}


@pytest.mark.parametrize(("change", "header", "fault"), RAW_FORMS.values(), ids=RAW_FORMS)
def test_what_is_no_raw_file_is_refused(folder, raw, change, header, fault):
    path = write_raw(folder, change(published(raw.head(9))), header=header)
    with pytest.raises(DataDamaged) as caught:
        unsw_nb15.load_raw()
    assert str(caught.value).startswith(f"{path}: ")
    assert fault in str(caught.value)


def test_the_raw_stand_in_has_bursts_of_attacks(raw):
    same(make_raw_stand_in(), raw)
    assert raw.shape == (4_000, 49)
    assert raw["stime"].is_monotonic_increasing
    span = raw["stime"].iloc[-1] - raw["stime"].iloc[0]
    assert pd.Timedelta(minutes=12) < span < pd.Timedelta(minutes=14)
    assert (raw["ltime"] >= raw["stime"]).all()
    attacks = raw[raw["label"] == 1].groupby(raw["stime"].dt.floor("10s")).size()
    assert 250 < attacks.sum() < 400
    assert attacks.nlargest(10).sum() > 0.6 * attacks.sum()
    assert (raw["attack_cat"] == "Normal").eq(raw["label"] == 0).all()


# --- Kaggle -------------------------------------------------------------------------------------


class Kaggle:
    """What answers instead of the library: a folder of files, or an error."""

    def __init__(self, folder):
        self.folder, self.error, self.asked, self.timeouts = folder, None, [], []
        folder.mkdir()

    def dataset_download(self, handle):
        import requests

        self.asked.append(handle)
        session = requests.Session()
        session.mount("http://", types.SimpleNamespace(send=self._note, close=lambda: None))
        session.get("http://a.test/")
        if self.error:
            raise self.error
        return str(self.folder)

    def _note(self, request, **options):
        import requests

        self.timeouts.append(options["timeout"])
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 200, request, request.url
        answer.raw = types.SimpleNamespace(read=lambda *a, **k: b"", close=lambda: None)
        answer._content = b""
        return answer


@pytest.fixture
def kaggle(tmp_path_factory, monkeypatch):
    """Kaggle, reached, with an empty set."""
    kaggle = Kaggle(tmp_path_factory.mktemp("cache") / "1")
    monkeypatch.delenv("COURSE_OFFLINE")
    monkeypatch.setattr(_unsw_nb15_kaggle, "reach", lambda url, name: None)
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    return kaggle


def test_a_download_is_kept_under_its_own_names_and_asked_for_once(
    folder, tables, kaggle, monkeypatch, capsys
):
    inner = kaggle.folder / "a part of it"
    inner.mkdir()
    write(inner, tables["train"], TESTING)
    write(inner, tables["test"], TRAINING)
    write(inner, tables["test"], "other.csv")
    found = unsw_nb15.load("real")
    same(found.train, tables["train"])
    same(found.test, tables["test"])
    kept = folder / "mohammadami_unsw-nb15"
    assert (found.protocol, found.path) == (unsw_nb15.OFFICIAL, kept)
    assert sorted(path.name for path in kept.iterdir()) == sorted((TRAINING, TESTING))
    assert kaggle.asked == ["mohammadami/unsw-nb15"]
    assert kaggle.timeouts == [(5.0, 30.0)]
    said = capsys.readouterr().out
    assert said.startswith("UNSW-NB15 flows: downloading mohammadami/unsw-nb15 with the kagglehub")
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    for path in inner.iterdir():
        path.unlink()
    same(unsw_nb15.load("real").train, tables["train"])
    assert len(kaggle.asked) == 1
    assert machine.found_data()["UNSW-NB15 flows"] == str(kept)


def test_raw_parts_of_a_download_are_kept_too(folder, raw, kaggle):
    write_raw(kaggle.folder, published(raw.iloc[:20]), "UNSW-NB15_1.csv")
    write_raw(kaggle.folder, published(raw.iloc[20:30]), "UNSW-NB15_3.csv")
    found = unsw_nb15.load_raw("real")
    same(found.frame, raw.head(30))
    assert found.path == folder / "mohammadami_unsw-nb15_raw" / "UNSW-NB15_1.csv"
    assert len(unsw_nb15.load_raw("real").frame) == 30
    assert len(kaggle.asked) == 1


def test_a_by_hand_file_is_not_passed_over_for_a_download(folder, tables, kaggle):
    write(folder, tables["test"])
    assert unsw_nb15.load().protocol == unsw_nb15.DUPLICATE_FREE
    write(folder, tables["test"].head(3))
    with pytest.raises(DataDamaged):
        unsw_nb15.load()
    assert kaggle.asked == []


def answered(status, text):
    import requests

    answer = requests.Response()
    answer.status_code = status
    error = requests.HTTPError(text, response=answer)
    error.__cause__ = requests.HTTPError("without the story")
    return error


def lost():
    try:
        try:
            raise OSError(101, "Network is unreachable")
        except OSError as error:
            raise RuntimeError("Max retries exceeded with url: /") from error
    except RuntimeError as error:
        return error


FAILURES = {
    "refused": (
        answered(403, "403 Client Error.\n\nYou don't"),
        "HTTPError: 403 Client Error. You",
    ),
    "lost": (lost(), "OSError: [Errno 101] Network is unreachable"),
    "broken": (KeyError("version"), "KeyError: 'version'"),
}


@pytest.mark.parametrize(("error", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_download_that_fails_leaves_nothing_and_says_why(folder, kaggle, error, reason, capsys):
    kaggle.error = error
    with pytest.raises(DataNotFound) as caught:
        unsw_nb15.load("real")
    assert f"the kagglehub library could not load mohammadami/unsw-nb15: {reason}" in str(
        caught.value
    )
    assert [path for path in folder.iterdir() if not path.name.endswith(".lock")] == []
    assert unsw_nb15.load().origin == "synthetic"
    assert reason in capsys.readouterr().out


@pytest.mark.parametrize("error", [None, KeyError("version")])
def test_afterwards_the_libraries_are_as_they_were(kaggle, error):
    import logging

    import requests

    logging.getLogger("kagglehub").setLevel(logging.INFO)  # as the library does
    before = requests.Session.send, logging.INFO
    kaggle.error = error
    with pytest.raises(DataNotFound):
        unsw_nb15.load("real")
    assert (requests.Session.send, logging.getLogger("kagglehub").level) == before


def test_a_download_that_is_something_else_is_refused(folder, tables, raw, kaggle):
    with pytest.raises(DataNotFound, match=f"has no {TRAINING} and no {TESTING}, but nothing"):
        unsw_nb15.load("real")
    write(kaggle.folder, tables["test"], TRAINING)
    with pytest.raises(DataNotFound, match=f"has no {TESTING}, but {TRAINING}"):
        unsw_nb15.load("real")
    with pytest.raises(DataNotFound, match=r"has no raw files \(UNSW-NB15_1.csv, …\), but UNSW_NB"):
        unsw_nb15.load_raw("real")
    write(kaggle.folder, tables["test"], TESTING)
    with pytest.raises(DataNotFound, match=r"is damaged: .* are the same file under two names"):
        unsw_nb15.load("real")
    write_raw(kaggle.folder, tables["test"], header=True)
    with pytest.raises(DataNotFound, match=r"is damaged: .*UNSW-NB15_1.csv: the header has the"):
        unsw_nb15.load_raw("real")
    assert [path for path in folder.iterdir() if not path.name.endswith(".lock")] == []


def test_kaggle_is_not_asked_where_it_cannot_be_reached(folder, kaggle, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("COURSE_DATA", str(folder))
    monkeypatch.delenv("COURSE_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    monkeypatch.setattr(_unsw_nb15_kaggle, "URL", "http://127.0.0.1:9/")
    with pytest.raises(DataNotFound, match="Kaggle cannot be reached: Connection refused"):
        unsw_nb15.load("real")
    assert kaggle.asked == []


def test_without_the_library_there_is_no_download(kaggle, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DataNotFound, match="not tried: the library kagglehub is not installed"):
        unsw_nb15.load("real")


def test_one_process_downloads_while_others_wait(folder, tables, kaggle, capsys):
    write(kaggle.folder, tables["train"], TESTING)
    write(kaggle.folder, tables["test"], TRAINING)
    threads = [threading.Thread(target=unsw_nb15.load, args=("real",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(kaggle.asked) == 1
    assert capsys.readouterr().out.count("official pair: 40 train, 20 test") == 3


def test_what_is_left_of_a_download_is_named(folder):
    (folder / "mohammadami_unsw-nb15").mkdir()
    with pytest.raises(DataDamaged, match=f"unsw-nb15: it should be a folder with {TRAINING} and"):
        unsw_nb15.load()


# --- the commands -------------------------------------------------------------------------------


def test_course_data_verifies_whichever_file_is_there(folder, tables, capsys):
    assert machine.found_data()["UNSW-NB15 flows"].startswith("not here yet")
    path = write(folder, tables["test"], TESTING)
    assert machine.found_data()["UNSW-NB15 flows"] == str(path)
    assert cli.main(["data", "--verify", "unsw_nb15"]) == 0
    assert "✓ unsw_nb15: real and right, 0." in capsys.readouterr().out
    write(folder, tables["test"].head(5), TESTING)
    assert cli.main(["data", "--verify", "unsw_nb15"]) == 1
    assert "✗ unsw_nb15: " in capsys.readouterr().err
