import gzip
import hashlib
import io
import os
import re
import zipfile
from pathlib import Path

import loopback_publisher as answers
import numpy as np
import pandas as pd
import pytest
from loopback_publisher import Publisher

from course_lib.data import housing
from course_lib.data._finding import DataDamaged, DataNotFound

REAL = Path(os.environ.get("COURSE_DATA", "/nowhere")) / "housing.csv"
HEADER = ",".join(housing.COLUMNS)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty data folder of a reader who is offline."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture(scope="module")
def table():
    """A table with everything a right one has; tests change copies of it."""
    return housing.make_stand_in(housing.ROWS)


@pytest.fixture(scope="module")
def right(table):
    """The same as the text of a right file."""
    return table.to_csv(index=False, lineterminator="\n")


# --- right files --------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.exists(), reason="the real data are not on this machine")
def test_the_real_file_is_read_as_pandas_reads_it(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA", str(REAL.parent))
    found = housing.load("real")
    assert found.frame.equals(pd.read_csv(REAL))
    assert tuple(found.frame.columns) == housing.COLUMNS
    assert found.frame.isna().sum().sum() == found.frame["total_bedrooms"].isna().sum() == 207
    assert capsys.readouterr().out == f"California housing: 20,640 rows from {REAL}\n"
    assert hashlib.sha256(REAL.read_bytes()).hexdigest() == housing.SHA256
    assert REAL.stat().st_size == housing.SIZE


@pytest.mark.parametrize("source", ["auto", "real"])
def test_a_by_hand_file_is_read(folder, table, right, source):
    (folder / "housing.csv").write_text(right)
    found = housing.load(source)
    assert (found.origin, found.path) == ("real", folder / "housing.csv")
    pd.testing.assert_frame_equal(found.frame, table)


@pytest.mark.parametrize(
    "same",
    [
        lambda table: table.to_csv(index=False, lineterminator="\r\n"),
        lambda table: table.to_csv(index=False, lineterminator="\r"),
        lambda table: table.to_csv(index=False)[:-1],  # no newline at the end
        lambda table: table.to_csv(index=False) + "\n\n",
        lambda table: table.to_csv(index=False, quoting=1),
        lambda table: table.to_csv(index=False, columns=housing.COLUMNS[::-1]),
        lambda table: table.astype({"population": int}).to_csv(index=False),
    ],
    ids=["windows", "old-mac", "no-last-newline", "blank-lines", "quoted", "columns", "integers"],
)
def test_other_ways_to_write_the_same_are_read(folder, table, same):
    (folder / "housing.csv").write_bytes(same(table).encode())
    pd.testing.assert_frame_equal(housing.load("real").frame, table)


def test_another_order_of_the_rows_is_kept(folder, table):
    shuffled = table.sample(frac=1, random_state=0, ignore_index=True)
    shuffled.to_csv(folder / "housing.csv", index=False)
    pd.testing.assert_frame_equal(housing.load("real").frame, shuffled)


# --- damaged files ------------------------------------------------------------------------------


def with_cell(line, column, value):
    """Damage: the given line of the file has another value in one column."""

    def change(text):
        lines = text.splitlines()
        fields = lines[line - 1].split(",")
        fields[housing.COLUMNS.index(column)] = value
        return "\n".join([*lines[: line - 1], ",".join(fields), *lines[line:]]) + "\n"

    return change


def without_column(column):
    return lambda text: pd.read_csv(io.StringIO(text)).drop(columns=column).to_csv(index=False)


def zipped(text):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("housing.csv", text)
    return file.getvalue()


def lines(text, start, stop):
    return "".join(text.splitlines(keepends=True)[start:stop])


DAMAGES = {
    "missing column": (without_column("population"), r"wrong columns \(missing: population\)"),
    "renamed column": (
        lambda text: text.replace("median_income", "income", 1),
        r"wrong columns \(missing: median_income; unknown: income\)",
    ),
    "extra column": (
        lambda text: re.sub(r"$(?=\n)", ",1", text, flags=re.MULTILINE).replace(",1", ",id", 1),
        r"wrong columns \(unknown: id\)",
    ),
    "column twice": (
        lambda text: text.replace("population", "households", 1),
        r"wrong columns \(missing: population; repeated: households\)",
    ),
    "no header": (
        lambda text: lines(text, 1, None),
        "line 1 is not the header; it should name .*longitude",
    ),
    "text in a number column": (
        with_cell(17, "population", "many"),
        "line 17, column population: 'many' is not a number",
    ),
    "NA instead of nothing": (
        with_cell(17, "total_bedrooms", "NA"),
        "line 17, column total_bedrooms: 'NA' is not a number",
    ),
    "empty": (lambda text: "", "it is empty"),
    "blank": (lambda text: "\n \n", "it is empty"),
    "header only": (lambda text: HEADER + "\n", "a header, but no rows"),
    "semicolons": (lambda text: text.replace(",", ";"), "separated by ';' instead of ','"),
    "tabs": (lambda text: text.replace(",", "\t"), r"separated by '\\t' instead of ','"),
    "byte order mark": (lambda text: text.encode("utf-8-sig"), r"byte order mark \(BOM\)"),
    "UTF-16": (lambda text: text.encode("utf-16"), "UTF-16 text: it must be UTF-8"),
    "UTF-16 without a mark": (lambda text: text.encode("utf-16-le"), "line 1 holds .* 0x00"),
    "Latin-1": (with_cell(9, "ocean_proximity", "BAÑO"), "line 9 holds a byte .* 0xd1"),
    "NUL bytes": (
        lambda text: text[:100_000] + "\0" * 4096 + text[104_096:],
        r"line 1,\d+ holds a byte that is not text: 0x00",
    ),
    "cut off in a row": (
        lambda text: lines(text, 0, 9_000) + "-122.1,37.5,20.0,1",
        r"line 9,001 has 4 fields instead of 10 \(the last line: the file was cut off\)",
    ),
    "cut off in the last word": (
        lambda text: lines(text, 0, 9_000)[:-3],
        "line 9,000, column ocean_proximity: .* is none of .*; also, it has 8,999 rows",
    ),
    "cut off between rows": (
        lambda text: lines(text, 0, 9_001),
        "it has 9,000 rows instead of 20,640: cut off",
    ),
    "a row too many": (
        lambda text: text + "-122.1,37.5,20.0,1000.0,100.0,500.0,90.0,3.0,200000.0,INLAND\n",
        "it has 20,641 rows instead of 20,640: something was added",
    ),
    "written twice": (
        lambda text: text + lines(text, 1, None),
        "it has 41,280 rows instead of 20,640: something was added",
    ),
    "a row repeated": (
        lambda text: lines(text, 0, 20_640) + lines(text, 50, 51),
        "line 20,641 repeats an earlier line",
    ),
    "a row too short": (
        lambda text: lines(text, 0, 30) + "1,2,3\n" + lines(text, 30, None),
        "line 31 has 3 fields instead of 10$",
    ),
    "an open quote": (
        with_cell(17, "ocean_proximity", '"INLAND'),
        r"line 17 is not CSV \(an open quote\?\): ",
    ),
    "an open quote at the end": (
        with_cell(20_641, "ocean_proximity", '"INLAND'),
        r"line 20,641 is not CSV \(an open quote\?\): ",
    ),
    "web page": (
        lambda text: "\n<!DOCTYPE html><html><title>404 Not Found</title></html>",
        "it is a web page",
    ),
    "gzip": (lambda text: gzip.compress(text.encode()), "compressed with gzip: unpack it"),
    "zip": (zipped, "a zip archive: unpack it"),
    "unknown category": (
        with_cell(17, "ocean_proximity", "NEAR LAKE"),
        "line 17, column ocean_proximity: 'NEAR LAKE' is none of <1H OCEAN, INLAND",
    ),
    "missing number": (
        with_cell(17, "median_income", ""),
        "line 17, column median_income: the value is missing",
    ),
    "missing category": (
        with_cell(17, "ocean_proximity", " "),
        "line 17, column ocean_proximity: the value is missing",
    ),
    "infinity": (
        with_cell(17, "total_bedrooms", "inf"),
        "line 17, column total_bedrooms: inf is not",
    ),
    "negative count": (
        with_cell(17, "households", "-5.0"),
        "line 17, column households: -5.0 is not between 1 and 50,000",
    ),
    "far too large": (lambda text: text * 12, r"it has \d+,\d+,\d+ bytes; .* has 1,423,529"),
    **{
        f"{column} out of range": (
            with_cell(20_641, column, str(value)),
            rf"line 20,641, column {column}: {value} is not between",
        )
        for column, value in {
            "longitude": 122.2,
            "latitude": 48.1,
            "housing_median_age": 53,
            "total_rooms": 0,
            "total_bedrooms": 60_000,
            "population": 0,
            "median_income": 83252,
            "median_house_value": 4.526,
        }.items()
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_names_itself_and_its_fault(folder, right, damage):
    change, fault = DAMAGES[damage]
    changed = change(right)
    path = folder / "housing.csv"
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode("latin-1"))
    with pytest.raises(DataDamaged) as caught:
        housing.load("auto")
    first, advice = str(caught.value).split("\n")
    assert first.startswith(f"{path}: ")
    assert re.search(fault, first), first
    assert "delete housing.csv" in advice


def test_a_folder_under_the_files_name(folder):
    (folder / "housing.csv").mkdir()
    with pytest.raises(DataDamaged, match=r"housing\.csv: it is not a file, but a folder"):
        housing.load("auto")


# --- the publisher ------------------------------------------------------------------------------


@pytest.fixture
def publisher(monkeypatch, right):
    """A server in the publisher's place that has the right file."""
    body = right.encode()
    monkeypatch.delenv("COURSE_OFFLINE")
    with Publisher() as running:
        running.answer = lambda _, handler: answers.send(handler, body, length=len(body))
        monkeypatch.setattr(housing, "URL", running.url)
        monkeypatch.setattr(housing, "SHA256", hashlib.sha256(body).hexdigest())
        monkeypatch.setattr(housing, "SIZE", len(body))
        yield running


def test_the_publishers_file_is_downloaded_once(folder, publisher, table):
    for _ in range(2):
        found = housing.load("real")
        assert (found.origin, found.path) == ("real", folder / "housing.csv")
        pd.testing.assert_frame_equal(found.frame, table)
    assert publisher.gets == 1


def test_another_file_from_the_publisher_is_not_taken(folder, publisher, monkeypatch, capsys):
    monkeypatch.setattr(housing, "SHA256", "0" * 64)
    with pytest.raises(DataNotFound, match="its sha256 is"):
        housing.load("real")
    assert housing.load("auto").origin == "synthetic"
    assert "its sha256 is" in capsys.readouterr().out
    assert not (folder / "housing.csv").exists()


def test_real_says_where_to_get_the_file_and_where_to_put_it(folder):
    with pytest.raises(DataNotFound) as caught:
        housing.load("real")
    assert "COURSE_OFFLINE" in str(caught.value)
    assert f"get housing.csv from {housing.URL}" in str(caught.value)
    assert f"into the folder {folder}\n" in str(caught.value)


def test_the_address_is_the_publishers():
    assert re.fullmatch(
        "https://raw.githubusercontent.com/ageron/handson-ml2/[0-9a-f]{40}"
        "/datasets/housing/housing.csv",
        housing.URL,
    )


# --- the stand-in -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["auto", "synthetic"])
def test_the_stand_in_announces_itself(source, capsys):
    found = housing.load(source)
    assert (found.origin, found.path) == ("synthetic", None)
    told = capsys.readouterr().out
    assert "SYNTHETIC DATA: this is not California housing" in told
    assert told.endswith("California housing: 20,640 rows made up by the course (synthetic)\n")


def test_the_stand_in_is_the_same_every_time(table):
    first = housing.load("synthetic").frame
    first["population"] = 0  # nobody else's copy
    pd.testing.assert_frame_equal(housing.load("synthetic").frame, table)


def test_the_stand_in_has_the_quirks_of_the_real_data(table):
    assert tuple(table.columns) == housing.COLUMNS
    assert len(table) == housing.ROWS
    assert not table.duplicated().any()
    gaps = table.isna().sum()
    assert 150 < gaps["total_bedrooms"] == gaps.sum() < 260
    assert table["ocean_proximity"].value_counts().drop("ISLAND").min() > 1000
    assert (table["ocean_proximity"] == "ISLAND").sum() == 5
    assert set(table["ocean_proximity"]) == set(housing.OCEAN_PROXIMITY)
    assert (table["median_house_value"] == 500_001).sum() > 200
    assert (table["housing_median_age"] == 52).sum() > 200
    assert (table["median_income"] == 15.0001).sum() > 10
    prices = table.groupby("ocean_proximity")["median_house_value"].median()
    assert prices["INLAND"] < prices["<1H OCEAN"] < prices["NEAR OCEAN"]
    thirds = table["latitude"].to_numpy().reshape(3, -1).mean(axis=1)
    assert np.ptp(thirds) > 1  # rows stand in geographic order


def test_a_network_beats_a_line_on_the_stand_in(table):
    features = pd.get_dummies(table.drop(columns=housing.TARGET), dtype=float).fillna(500.0)
    x, y = features.to_numpy(), table[housing.TARGET].to_numpy()
    x, y = (x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean()) / y.std()
    test = np.arange(len(x)) % 5 == 0

    def missed(inputs):
        """The error of the best weights on ``inputs``, as a share of the target's spread."""
        inputs = np.column_stack([inputs, np.ones(len(inputs))])
        weights = np.linalg.lstsq(inputs[~test], y[~test], rcond=None)[0]
        return np.sqrt(np.mean((inputs @ weights - y)[test] ** 2))

    # The plainest network there is: a hidden layer left at random, and the last layer fitted.
    rng = np.random.default_rng(0)
    hidden = np.maximum(0, x @ rng.standard_normal((x.shape[1], 200)) + rng.standard_normal(200))
    line, network = missed(x), missed(np.column_stack([x, hidden]))
    assert line < 0.6, "there is something to learn"
    assert network < 0.9 * line, "and not all of it is straight"
