"""Stock prices: by-hand files, Yahoo's forms, what is kept of downloads, ranges; the stand-in."""

import datetime
import json
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from course_lib import cli, machine
from course_lib.data import (
    DataDamaged,
    DataNotFound,
    _stocks_files,
    _stocks_kept,
    _stocks_yahoo,
    stocks,
)
from course_lib.data._stocks_stand_in import make_stand_in

REAL = Path(os.environ.get("COURSE_DATA", "/nowhere")).absolute() / "stocks"
HEADER = "Date,Open,High,Low,Close,Adj Close,Volume"
TODAY = pd.Timestamp("2021-03-15")
LIMITED = "YFRateLimitError('Too Many Requests. Rate limited. Try after a while.')"
GONE = "YFTzMissingError('possibly delisted; no timezone found')"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The data folder of a reader without a network."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


def prices(start="2020-01-01", end="2020-03-01", factor=1.0, seed=0):
    """A table as the loader has it, where a day's prices do not depend on the range."""
    days = pd.bdate_range("2009-06-01", "2021-06-01")
    close = (50 + seed + 10 * np.sin(np.arange(len(days)) / 30)) / factor
    columns = [close * 1.001, close * 1.01, close * 0.99, close, close * 0.9, 1e6 + close]
    whole = _stocks_files.table(days, np.stack(columns, axis=1))
    return whole.loc[start : pd.Timestamp(end) - pd.Timedelta(days=1)]


def write(folder, ticker="AAPL", table=None):
    """Write a by-hand file; return its path."""
    path = folder / "stocks" / f"{ticker}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(_stocks_files.to_csv(prices() if table is None else table))
    return path


def yahoo_frame(tables, *, group_by="ticker", adjusted=False, zone=None):
    """A table in the form of the library: every ticker the same days, NaN where it has none."""
    empty = pd.DataFrame(columns=_stocks_files.HEADER[1:], index=pd.DatetimeIndex([]), dtype=float)
    parts = {}
    for ticker, table in tables.items():
        part = empty if table is None else table.set_axis(_stocks_files.HEADER[1:], axis=1)
        if adjusted and table is not None:  # auto_adjust=True: the column is gone, but not from
            factor = part["Adj Close"] / part["Close"]  # the empty groups of those that failed
            ohlc = ["Open", "High", "Low", "Close"]
            part = part[ohlc].mul(factor, axis=0).assign(Volume=part["Volume"])
        parts[ticker] = part
    days = sorted(set().union(*(part.index for part in parts.values())))
    index = pd.DatetimeIndex(days, name="Date").as_unit("s")
    frame = pd.concat(
        {ticker: part.reindex(index) for ticker, part in parts.items()},
        axis=1,
        names=["Ticker", "Price"],
    )
    if group_by == "column":
        frame = frame.swaplevel(axis=1).sort_index(level=0, axis=1)
    return frame.tz_localize(zone) if zone else frame


class Yahoo:
    """What answers instead of the library: histories by ticker, and refusals by call."""

    def __init__(self):
        self.calls = []
        self.histories = {}  # ticker → table, or the reason why there is none
        self.refusals = []  # what the next calls say of every ticker; None is no refusal

    def ask(self, tickers, start, end):
        self.calls.append((sorted(tickers), f"{start:%Y-%m-%d}", f"{end:%Y-%m-%d}"))
        refusal = self.refusals.pop(0) if self.refusals else None
        if isinstance(refusal, Exception):
            raise refusal
        tables, said = {}, {}
        for ticker in tickers:
            history = refusal or self.histories.get(ticker, GONE)
            if not isinstance(history, str):
                history = history.loc[start : end - pd.Timedelta(days=1)]
                history = history if len(history) else "possibly delisted; no price data found"
            tables[ticker] = None if isinstance(history, str) else history
            if isinstance(history, str):
                said[ticker] = history
        return yahoo_frame(tables), said


@pytest.fixture
def yahoo(monkeypatch):
    """Yahoo, with three shares; it is 2021-03-15."""
    yahoo = Yahoo()
    for seed, ticker in enumerate(("AAPL", "BA", "KO")):
        yahoo.histories[ticker] = prices("2009-06-01", "2021-06-01", seed=seed)
    monkeypatch.delenv("COURSE_OFFLINE")
    monkeypatch.setattr(_stocks_yahoo, "_ask", yahoo.ask)
    monkeypatch.setattr(_stocks_yahoo, "reach", lambda: None)
    monkeypatch.setattr(_stocks_kept, "today", lambda: TODAY)
    return yahoo


class Sleeps(list):
    """A clock that notes how long it was to wait, and does not."""

    def __call__(self, seconds):
        self.append(seconds)


def fetch(tickers, start="2020-01-01", end="2020-03-01", **options):
    options.setdefault("sleep", Sleeps())
    return stocks.fetch(tickers, start, end, **options)


def same(found, wanted):
    pd.testing.assert_frame_equal(found, wanted, check_freq=False)


# --- by-hand files ------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data are not here")
def test_the_real_prices(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA", str(REAL.parent))
    found = stocks.load("real")
    assert capsys.readouterr().out == (
        f"Stocks: 48 tickers, 2014-10-17 to 2023-10-16 (real), from {REAL}\n"
    )
    assert (found.origin, found.path, found.missing) == ("real", REAL, {})
    assert tuple(found.tickers) == stocks.TICKERS
    assert sum(map(len, found.tables.values())) == 107_205
    for table in found.tables.values():
        assert _stocks_files.fault_of(table) is None
        assert (table["adjusted"] <= table["close"] * 1.000001).all()
    assert len(found.tables["DOW"]) == 1_153
    index = stocks.load("real", ["^GSPC"]).tables["^GSPC"]
    assert len(index) == 4_661


def test_files_by_hand_are_read_number_by_number(folder, capsys):
    wanted = {"AAPL": prices(), "BRK-B": prices("2020-02-03", seed=2)}
    for ticker, table in wanted.items():
        write(folder, ticker, table)
    write(folder, "^GSPC")
    (folder / "stocks" / "._AAPL.csv").write_bytes(b"\0\5\x16\7")  # as some systems leave it
    (folder / "stocks" / "read me.csv").write_text("not a ticker")
    found = stocks.load()
    assert found.tickers == ["AAPL", "BRK-B"]
    for ticker, table in wanted.items():
        same(found.tables[ticker], table)
        assert found.tables[ticker].index.name == "date"
        assert found.tables[ticker].index.tz is None
        assert set(found.tables[ticker].dtypes) == {np.dtype("float64")}
    place = folder / "stocks"
    assert capsys.readouterr().out == (
        f"Stocks: 2 tickers, 2020-01-01 to 2020-02-28 (real), from {place}\n"
    )
    assert repr(found) == f"Stocks(2 tickers, 63 rows, real, {place})"


def test_an_index_is_taken_when_it_is_named_or_all_there_is(folder):
    write(folder, "^GSPC")
    assert stocks.load().tickers == ["^GSPC"]
    write(folder, "AAPL")
    assert stocks.load().tickers == ["AAPL"]
    assert stocks.load("real", ["^GSPC", "AAPL"]).tickers == ["^GSPC", "AAPL"]


def test_days_without_a_trade_are_passed_over(folder):
    path = write(folder)
    lines = path.read_text().splitlines()
    lines[2] = "2020-01-02,null,null,null,null,null,null"
    lines[3] = "2020-01-03,,,,,,"
    path.write_text("\n".join(lines))
    days = pd.to_datetime(["2020-01-02", "2020-01-03"])
    same(stocks.load().tables["AAPL"], prices().drop(index=days))


ROW = "2020-01-{:02},10,12,9,11,10.5,1000"
WRONG = {
    "an empty file": ("", "it is empty"),
    "a web page": ("<html>", "it is a web page"),
    "another header": (
        "Date,Open,High,Low,Close,Volume\n2020-01-02,1,1,1,1,1",
        "the header has the wrong columns (missing: Adj Close)",
    ),
    "a column too many": (
        f"{HEADER},Dividends\n",
        "the header has the wrong columns (unknown: Dividends)",
    ),
    "semicolons": (HEADER.replace(",", ";"), "separated by ';'"),
    "no header": (ROW.format(2), "line 1 is not the header; it should name Date, Open"),
    "a row cut off": ([ROW.format(2), "2020-01-03,10,12"], "line 3 has 3 fields instead of 7"),
    "another form of date": ([ROW.format(2), "01/03/2020,10,12,9,11,10,1"], "line 3: '01/03/2020'"),
    "no such day": ([ROW.format(30), "2020-02-30,10,12,9,11,10,1"], "line 3: '2020-02-30' is no"),
    "a repeated day": (
        [ROW.format(2), ROW.format(3), ROW.format(3)],
        "line 4: the day 2020-01-03 comes twice",
    ),
    "days that go back": (
        [ROW.format(3), ROW.format(6), ROW.format(2)],
        "line 4: 2020-01-02 comes after 2020-01-06; the oldest day must come first",
    ),
    "a word": (
        [ROW.format(2), ROW.format(3).replace("11", "eleven")],
        "line 3: the Close is 'eleven', which is no number",
    ),
    "a value missing": (
        [ROW.format(2), ROW.format(3).replace("12", "null")],
        "line 3: the High is 'null', which is no number",
    ),
    "a negative price": (
        [ROW.format(2), ROW.format(3).replace(",9,", ",-9,")],
        "line 3: the Low is -9; it must be a number above 0",
    ),
    "a price of zero": (
        [ROW.format(2), ROW.format(3).replace(",10.5,", ",0,")],
        "line 3: the Adj Close is 0; it must be a number above 0",
    ),
    "no finite price": (
        [ROW.format(2), ROW.format(3).replace(",12,", ",inf,")],
        "line 3: the High is inf; it must be a number above 0",
    ),
    "not a number": (
        [ROW.format(2).replace(",1000", ",nan"), ROW.format(3)],
        "line 2: the Volume is nan; it must be a number of at least 0",
    ),
    "a negative volume": (
        [ROW.format(2), ROW.format(3).replace("1000", "-1")],
        "line 3: the Volume is -1; it must be a number of at least 0",
    ),
    "high below low": (
        [ROW.format(2), ROW.format(3).replace(",12,", ",8,")],
        "line 3: the High, 8, is below the Low, 9",
    ),
    "a single row": ([ROW.format(2)], "it has prices of 1 days; 2 or more are needed"),
    "no row": ([], "it has prices of 0 days"),
}


@pytest.mark.parametrize(("text", "fault"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_loses_itself_only(folder, text, fault, capsys):
    path = folder / "stocks" / "BAD.csv"
    path.parent.mkdir()
    path.write_text(text if isinstance(text, str) else "\n".join([HEADER, *text]) + "\n")
    for source in ("auto", "real"):  # alone, it is damage, for whatever source looks at it
        with pytest.raises(DataDamaged) as caught:
            stocks.load(source)
        assert str(caught.value).startswith(f"{path}: ")
        assert fault in str(caught.value)
        assert "Put fresh copies there" in str(caught.value)

    write(folder, "AAPL")
    capsys.readouterr()
    found = stocks.load()
    assert found.tickers == ["AAPL"]
    assert list(found.missing) == ["BAD"]
    assert fault in found.missing["BAD"]
    said = capsys.readouterr().out
    assert "; missing: BAD (" in said
    assert fault in said
    assert said.count("\n") == 1


def test_a_volume_of_zero_and_a_flat_day_are_no_faults(folder):
    path = write(folder)
    path.write_text("\n".join([HEADER, ROW.format(2), "2020-01-03,9,9,9,9,9,0"]))
    assert len(stocks.load().tables["AAPL"]) == 2


def test_many_wrong_files_are_told_in_a_few_lines(folder):
    for n in range(9):
        write(folder, f"BAD{n}").write_text("x")
    with pytest.raises(DataDamaged, match="… and 3 more files") as caught:
        stocks.load()
    assert str(caught.value).count("\n") == 7


@pytest.mark.parametrize("make", [lambda p: p.write_text("x"), lambda p: p.symlink_to("nowhere")])
def test_a_folder_that_is_none_is_damage(folder, make):
    make(folder / "stocks")
    with pytest.raises(DataDamaged, match="it is not a folder; it should be one"):
        stocks.load("auto")


def test_a_folder_in_place_of_a_file_loses_itself_only(folder):
    write(folder)
    (folder / "stocks" / "BA.csv").mkdir()
    assert "it cannot be read" in stocks.load().missing["BA"]


# --- what is asked for --------------------------------------------------------------------------


def test_what_is_not_there_is_missing_and_told(folder, capsys):
    write(folder)
    found = stocks.load("real", ["XYZ", "AAPL", "QQQ", "AAPL"])
    assert found.tickers == ["AAPL"]
    reason = "not tried, because COURSE_OFFLINE is set"
    assert found.missing == {"XYZ": reason, "QQQ": reason}
    assert f"; missing: QQQ, XYZ ({reason})" in capsys.readouterr().out
    assert repr(found).endswith(f"real, 2 missing, {folder / 'stocks'})")
    assert [p.name for p in folder.iterdir()] == ["stocks"]


def test_without_any_data_real_says_what_to_do(folder):
    with pytest.raises(DataNotFound) as caught:
        stocks.load("real")
    for words in (
        'Stock prices are not here, and source="real" takes no stand-in.',
        f"Looked for:  {folder / 'stocks' / 'TICKER.csv'} (no such folder)",
        "AMZN, AXP, BA, BAC, BRK-B, C, CAT, COP, COST, CRM, CSCO and 36 more (not tried, because",
        "get the files from https://finance.yahoo.com/",
        HEADER,
        f"put them into the folder {folder / 'stocks'}",
        "COURSE_DATA",
    ):
        assert words in str(caught.value)
    assert list(folder.iterdir()) == []


def test_without_any_data_auto_takes_the_stand_in_and_says_so(capsys):
    found = stocks.load("auto", ["AAPL", "KO"], start="2019-01-01")
    assert (found.origin, found.path, len(found.tables)) == ("synthetic", None, 8)
    assert list(found.missing) == ["AAPL", "KO"]
    said = capsys.readouterr().out
    assert "SYNTHETIC DATA: this is not Stock prices" in said
    assert "not tried, because COURSE_OFFLINE is set" in said
    assert said.endswith(
        "Stocks: 8 tickers, 2019-01-02 to 2023-10-13 (synthetic), made up by the course; "
        "missing: AAPL, KO (a real one, and this is the stand-in)\n"
    )


@pytest.mark.parametrize("source", ["auto", "real"])
def test_a_stranger_among_real_data_gets_no_stand_in(folder, source):
    write(folder)
    with pytest.raises(DataNotFound, match="None of these tickers is here, though others are"):
        stocks.load(source, ["XYZ"])


@pytest.mark.parametrize("source", ["Real", "", None])
def test_an_unknown_source_is_refused_with_the_choices(source):
    with pytest.raises(ValueError, match="'auto', 'real', 'synthetic', not " + repr(source)):
        stocks.load(source)


@pytest.mark.parametrize("wrong", ["aapl", "../x", "A B", "", "^", ".A", 7, None])
@pytest.mark.parametrize("what", [stocks.load, stocks.fetch])
def test_a_name_that_can_be_no_ticker_is_refused(what, wrong):
    with pytest.raises(ValueError, match=re.escape(f"{wrong!r} can be no ticker")):
        what(tickers=["AAPL", wrong])


def test_a_text_instead_of_a_list_is_refused():
    with pytest.raises(TypeError, match=r"as \['AAPL'\], not 'AAPL'"):
        stocks.load(tickers="AAPL")
    with pytest.raises(ValueError, match="names none"):
        stocks.load(tickers=[])


# --- ranges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2020-01-08", "2020-02-03"),
        (datetime.date(2020, 1, 8), pd.Timestamp("2020-02-03 15:00")),
    ],
)
def test_the_start_belongs_to_a_range_and_the_end_does_not(folder, start, end):
    write(folder)
    index = stocks.load("real", start=start, end=end).tables["AAPL"].index
    assert (str(index[0].date()), str(index[-1].date())) == ("2020-01-08", "2020-01-31")
    assert stocks.load(start=start).tables["AAPL"].index[-1] == pd.Timestamp("2020-02-28")
    assert stocks.load(end=end).tables["AAPL"].index[0] == pd.Timestamp("2020-01-01")


@pytest.mark.parametrize("end", ["2020-01-08", "2020-01-07"])
@pytest.mark.parametrize("source", ["real", "synthetic"])
def test_a_start_not_before_the_end_is_refused(folder, source, end):
    write(folder)
    with pytest.raises(ValueError, match=f"2020-01-08 is not before {end}"):
        stocks.load(source, start="2020-01-08", end=end)


def test_what_is_no_date_is_refused():
    with pytest.raises(ValueError, match="start: '2020-13-01' is no date like '2020-01-31'"):
        stocks.load(start="2020-13-01")
    with pytest.raises(TypeError, match="end must be a text like '2020-01-31' or a date, not 2020"):
        stocks.load(end=2020)


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        ("2020-01-04", "2020-01-06", "from 2020-01-04 to 2020-01-06 (exclusive)"),
        ("2030-01-01", None, "from 2030-01-01 to today"),
        (None, "1990-01-01", "from the beginning to 1990-01-01 (exclusive)"),
    ],
)
def test_a_range_without_a_trading_day_says_what_there_is(folder, start, end, says):
    write(folder)
    says += ": AAPL (it has 2020-01-01 to 2020-02-28)"
    with pytest.raises(ValueError, match=re.escape(f"No trading day {says}")):
        stocks.load("auto", start=start, end=end)


def test_a_ticker_without_a_day_in_the_range_is_missing(folder):
    write(folder, "AAPL")
    write(folder, "NEW", prices("2020-02-20"))
    found = stocks.load(end="2020-02-01")
    assert found.tickers == ["AAPL"]
    assert found.missing == {"NEW": "no trading day in the range: it has 2020-02-20 to 2020-02-28"}


def test_the_stand_in_has_a_range_too():
    with pytest.raises(ValueError, match="MADE-H \\(it has 2017-10-16 to 2023-10-13\\)"):
        stocks.load("synthetic", end="2017-01-01")
    found = stocks.load("synthetic", ["MADE-C"], "2020-03-02", "2020-03-06")
    assert found.tickers == ["MADE-C"]
    assert [day.day for day in found.tables["MADE-C"].index] == [2, 3, 4, 5]


# --- the forms of the library -------------------------------------------------------------------

FORMS = {
    "by ticker": {},
    "by price": {"group_by": "column"},
    "with a time zone": {"zone": "America/New_York"},
    "adjusted": {"adjusted": True},
    "adjusted, by price": {"adjusted": True, "group_by": "column"},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_form_gives_the_same_tables(form):
    first, second = prices(), prices("2020-02-10", seed=3)
    frame = yahoo_frame({"AAPL": first, "NONE": None, "OPEN": second}, **form)
    for ticker, wanted in (("AAPL", first), ("OPEN", second)):
        found = _stocks_yahoo.table_of(frame, ticker, alone=False)
        if form.get("adjusted"):
            wanted = wanted.assign(**{c: wanted[c] * 0.9 for c in ("open", "high", "low", "close")})
            assert (found["adjusted"] == found["close"]).all()
        same(found, wanted)
        assert list(found) == list(stocks.COLUMNS)
        assert found.index.dtype == "datetime64[ns]"
    assert _stocks_yahoo.table_of(frame, "NONE", alone=False) is None
    assert _stocks_yahoo.table_of(frame, "OTHER", alone=False) is None


def test_a_single_tickers_plain_columns_are_its_own():
    frame = yahoo_frame({"AAPL": prices()})["AAPL"]
    same(_stocks_yahoo.table_of(frame, "AAPL", alone=True), prices())
    assert _stocks_yahoo.table_of(frame, "AAPL", alone=False) is None


def test_plain_columns_are_nobodys_when_two_were_asked_for(yahoo, monkeypatch):
    frame = yahoo_frame({"AAPL": prices()})["AAPL"]
    monkeypatch.setattr(_stocks_yahoo, "_ask", lambda *asked: (frame, {}))
    assert fetch(["AAPL", "BA"]).missing == dict.fromkeys(
        ["AAPL", "BA"], "Yahoo has no prices for it"
    )
    assert fetch(["AAPL"]).tickers == ["AAPL"]


@pytest.mark.parametrize(
    "frame",
    [None, pd.DataFrame(), yahoo_frame({"AAPL": None, "BA": None}), pd.DataFrame({"x": [1.0]})],
    ids=["none", "empty", "no day", "other columns"],
)
def test_a_table_without_prices_is_none(frame):
    assert _stocks_yahoo.table_of(frame, "AAPL", alone=True) is None


def test_days_without_a_close_repeated_and_unordered_days_are_put_right():
    table = prices()
    frame = yahoo_frame({"AAPL": table})
    frame.loc["2020-01-15", :] = np.nan
    frame.loc["2020-01-16", ("AAPL", "Volume")] = np.nan
    frame = pd.concat([frame.iloc[5:], frame.iloc[:8]])
    found = _stocks_yahoo.table_of(frame, "AAPL", alone=True)
    wanted = table.drop(index=pd.Timestamp("2020-01-15"))
    wanted.loc["2020-01-16", "volume"] = 0
    same(found, wanted)


def test_the_library_is_called_for_plain_prices_and_its_log_is_read(monkeypatch, caplog):
    import yfinance

    logger = logging.getLogger("yfinance")
    before = logger.handlers, logger.propagate, logger.level
    asked = {}

    def download(tickers, **options):
        asked.update(options, tickers=tickers)
        assert yfinance.config.debug.hide_exceptions is False
        logger.error("\n2 Failed downloads:")
        logger.error(f"['NONE', 'GONE']: {GONE}")
        logger.error(f"['BUSY']: {LIMITED}")
        return "the table"

    monkeypatch.setattr(yfinance, "download", download)
    names = ["NONE", "BUSY", "GONE"]
    frame, said = _stocks_yahoo._ask(names, pd.Timestamp("2020-01-01"), TODAY)
    assert frame == "the table"
    assert said == {"NONE": GONE, "GONE": GONE, "BUSY": LIMITED}
    assert (asked["tickers"], asked["start"], asked["end"]) == (names, "2020-01-01", "2021-03-15")
    assert (asked["auto_adjust"], asked["progress"], asked["threads"]) == (False, False, False)
    assert caplog.records == []
    assert (logger.handlers, logger.propagate, logger.level) == before
    assert yfinance.config.debug.hide_exceptions is True


@pytest.mark.parametrize(
    ("reason", "says", "again"),
    [
        (LIMITED, "Too Many Requests. Rate limited. Try after a while.", True),
        (GONE, "possibly delisted; no timezone found", False),
        ("YFPricesMissingError('$KO: No data found')", "No data found", False),
        (
            "possibly delisted; no price data\n found",
            "possibly delisted; no price data found",
            False,
        ),
        ("ConnectionError('curl: (7) no')", "ConnectionError: curl: (7) no", True),
        ('HTTPError("HTTP Error 404: ")', "HTTPError: HTTP Error 404:", False),
        ("*** YAHOO! FINANCE IS CURRENTLY DOWN! ***",) * 2 + (True,),
        (_stocks_yahoo._NO_PRICES,) * 2 + (False,),
    ],
)
def test_a_reason_is_told_in_one_line_and_says_whether_to_ask_again(reason, says, again):
    assert _stocks_yahoo._plain(reason, "KO") == says
    assert _stocks_yahoo.may_pass(says) is again


# --- asking again, and no longer ----------------------------------------------------------------


def test_a_refusal_is_met_with_longer_pauses(yahoo):
    yahoo.refusals = [LIMITED, None]
    sleeps = Sleeps()
    found = fetch(["AAPL", "BA"], sleep=sleeps)
    assert sorted(found.tables) == ["AAPL", "BA"]
    assert sleeps == [5.0]

    yahoo.calls.clear()
    yahoo.refusals = [LIMITED] * 9
    sleeps.clear()
    found = fetch(["KO"], sleep=sleeps)
    assert found.missing == {"KO": "Too Many Requests. Rate limited. Try after a while."}
    assert sleeps == [5.0, 10.0, 20.0]
    assert len(yahoo.calls) == 4


def test_only_what_was_refused_is_asked_for_again(yahoo, monkeypatch):
    ask = yahoo.ask
    yahoo.histories["BUSY"] = LIMITED

    def busy_once(tickers, start, end):
        frame, said = ask(tickers, start, end)
        yahoo.histories["BUSY"] = prices()
        return frame, said

    monkeypatch.setattr(_stocks_yahoo, "_ask", busy_once)
    found = fetch(["AAPL", "BUSY", "GONE"])
    assert [call[0] for call in yahoo.calls] == [["AAPL", "BUSY", "GONE"], ["BUSY"]]
    assert found.tickers == ["AAPL", "BUSY"]
    assert found.missing == {"GONE": "possibly delisted; no timezone found"}


def test_an_error_of_the_library_is_a_reason(yahoo):
    yahoo.refusals = [ConnectionError("curl: (56) reset"), ZeroDivisionError("a bug")]
    found = fetch(["AAPL"], tries=2)
    assert found.missing == {"AAPL": "ZeroDivisionError: a bug"}


def test_an_interrupt_is_an_interrupt(yahoo, monkeypatch):
    def interrupt(*asked):
        raise KeyboardInterrupt

    monkeypatch.setattr(_stocks_yahoo, "_ask", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(["AAPL"])


def test_after_the_last_refusal_nothing_more_is_asked(yahoo):
    yahoo.refusals = [None] + [LIMITED] * 9
    found = fetch(["AAPL", "BA", "KO"], batch=1, tries=2)
    assert found.tickers == ["AAPL"]
    assert found.missing["BA"] == "Too Many Requests. Rate limited. Try after a while."
    assert found.missing["KO"].startswith("Yahoo did not answer: Too Many Requests.")
    assert [call[0] for call in yahoo.calls] == [["AAPL"], ["BA"], ["BA"]]


def test_unknown_tickers_stop_nobody(yahoo):
    found = fetch(["A", "AAPL", "B", "KO"], batch=1)
    assert found.tickers == ["AAPL", "KO"]
    assert len(yahoo.calls) == 4


def test_tickers_go_in_batches_with_pauses(yahoo):
    sleeps = Sleeps()
    found = fetch(["KO", "AAPL", "BA"], batch=2, pause=1.5, sleep=sleeps)
    assert [call[0] for call in yahoo.calls] == [["AAPL", "BA"], ["KO"]]
    assert sleeps == [1.5]
    assert found.tickers == ["KO", "AAPL", "BA"]
    for wrong in ({"batch": 0}, {"tries": 0}):
        with pytest.raises(ValueError, match="must be 1 or more"):
            fetch(["KO"], **wrong)


def test_prices_that_cannot_be_are_not_kept(folder, yahoo):
    bad = prices()
    bad.loc["2020-01-15", "close"] = -1
    yahoo.histories["BA"] = bad
    found = fetch(["AAPL", "BA"])
    assert found.tickers == ["AAPL"]
    assert "2020-01-15: the Close is -1; it must be a number above 0" in found.missing["BA"]
    assert len(yahoo.calls) == 1
    assert not (folder / ".stocks" / "BA.csv").exists()


def test_a_server_that_cannot_be_reached_is_asked_once(folder, yahoo, monkeypatch, capsys):
    reached = []

    def reach():
        reached.append(1)
        raise OSError("Yahoo cannot be reached: Connection refused")

    monkeypatch.setattr(_stocks_yahoo, "reach", reach)
    found = fetch(["AAPL", "BA", "KO"], batch=1)
    assert set(found.missing.values()) == {"Yahoo cannot be reached: Connection refused"}
    assert (len(reached), yahoo.calls) == (1, [])
    assert stocks.load("auto").origin == "synthetic"
    assert "Connection refused" in capsys.readouterr().out


def test_reaching_a_server(monkeypatch):
    monkeypatch.setattr(_stocks_yahoo, "URL", "http://127.0.0.1:9/")
    with pytest.raises(OSError, match="Yahoo cannot be reached: Connection refused"):
        _stocks_yahoo.reach()


# --- what is kept -------------------------------------------------------------------------------


def test_what_was_fetched_is_kept_with_its_range(folder, yahoo, monkeypatch, capsys):
    found = fetch(["AAPL", "KO"])
    same(found.tables["KO"], prices(seed=2))
    assert (found.origin, found.path) == ("real", folder / ".stocks")
    assert capsys.readouterr().out == (
        "Stocks: asking Yahoo for AAPL, KO, 2020-01-01 to 2020-03-01\n"
        f"Stocks: 2 tickers, 2020-01-01 to 2020-02-28 (real), from {folder / '.stocks'}\n"
    )
    notes = json.loads((folder / ".stocks" / "KO.json").read_text())
    assert (notes["start"], notes["end"]) == ("2020-01-01", "2020-03-01")
    again = fetch(["KO"], "2020-01-10", "2020-02-01")
    same(again.tables["KO"], prices("2020-01-10", "2020-02-01", seed=2))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    same(stocks.load("real", ["KO"], "2020-01-01", "2020-03-01").tables["KO"], prices(seed=2))
    assert len(yahoo.calls) == 1


def test_only_the_days_that_are_missing_are_fetched(yahoo):
    fetch(["AAPL"])
    later = fetch(["AAPL"], end="2020-04-01")
    same(later.tables["AAPL"], prices(end="2020-04-01"))
    earlier = fetch(["AAPL"], "2019-12-01", "2020-02-01")
    same(earlier.tables["AAPL"], prices("2019-12-01", "2020-02-01"))
    assert [call[1:] for call in yahoo.calls] == [
        ("2020-01-01", "2020-03-01"),
        ("2020-02-18", "2020-04-01"),  # an overlap of ten days with the last one, 2020-02-28
        ("2019-12-01", "2020-01-11"),
    ]
    both = fetch(["AAPL"], "2019-11-01", "2020-05-01")
    same(both.tables["AAPL"], prices("2019-11-01", "2020-05-01"))
    assert len(yahoo.calls) == 5
    fetch(["AAPL"], "2019-11-01", "2020-05-01")
    assert len(yahoo.calls) == 5


def test_days_before_a_company_was_there_are_asked_for_once(yahoo):
    yahoo.histories["AAPL"] = prices("2020-02-03", "2021-06-01")
    for _ in range(2):
        assert len(fetch(["AAPL"]).tables["AAPL"]) == len(prices("2020-02-03"))
    assert len(yahoo.calls) == 1


@pytest.mark.parametrize("column", ["close", "adjusted"])
def test_after_a_split_or_a_dividend_the_ticker_is_fetched_whole(yahoo, column):
    fetch(["AAPL", "KO"])
    new = yahoo.histories["AAPL"].copy()
    old_days = new.index < "2020-03-10"
    new.loc[old_days, column] *= 0.5 if column == "close" else 0.995
    new.loc[old_days, "low"] *= 0.4
    yahoo.histories["AAPL"] = new
    found = fetch(["AAPL", "KO"], "2020-02-01", "2020-04-01")
    same(found.tables["AAPL"], new.loc["2020-02-01":"2020-03-31"])
    assert yahoo.calls[1:] == [
        (["AAPL", "KO"], "2020-02-18", "2020-04-01"),
        (["AAPL"], "2020-01-01", "2020-04-01"),
    ]
    same(fetch(["AAPL"]).tables["AAPL"], new.loc["2020-01-01":"2020-02-28"])
    assert len(yahoo.calls) == 3


def test_rounding_is_no_split(yahoo):
    fetch(["AAPL"])
    yahoo.histories["AAPL"] = yahoo.histories["AAPL"] * (1 + 1e-6)
    fetch(["AAPL"], end="2020-04-01")
    assert len(yahoo.calls) == 2


def test_an_overlap_without_a_common_day_is_fetched_whole(yahoo):
    fetch(["AAPL"])
    yahoo.histories["AAPL"] = prices("2020-03-05", "2021-06-01")
    found = fetch(["AAPL"], end="2020-04-01")
    assert found.tables["AAPL"].index[0] == pd.Timestamp("2020-03-05")
    assert yahoo.calls[2][1:] == ("2020-01-01", "2020-04-01")


def test_what_is_kept_is_used_when_the_rest_cannot_be_had(yahoo, capsys):
    fetch(["AAPL"])
    yahoo.refusals = [LIMITED] * 9
    found = fetch(["AAPL"], end="2020-04-01")
    same(found.tables["AAPL"], prices())
    assert found.missing == {}
    assert (
        "Note: not all days are there: AAPL (2020-01-01 to 2020-02-28 only: Too Many Requests."
    ) in capsys.readouterr().out


def test_what_is_outdated_is_used_when_the_whole_cannot_be_had(yahoo):
    fetch(["AAPL"])
    yahoo.histories["AAPL"] = yahoo.histories["AAPL"] / 2
    yahoo.refusals = [None] + [LIMITED] * 9
    same(fetch(["AAPL"], end="2020-04-01").tables["AAPL"], prices())


def test_today_is_not_fetched(folder, yahoo):
    for end in (None, "2021-03-16", "2021-06-01"):
        found = stocks.fetch(["AAPL"], "2021-03-01", end)
        assert found.tables["AAPL"].index[-1] == pd.Timestamp("2021-03-12")
    assert yahoo.calls == [(["AAPL"], "2021-03-01", "2021-03-15")]
    for start, end in (("2021-03-15", None), ("2021-03-13", "2021-03-15"), ("2022-01-01", None)):
        found = stocks.fetch(["AAPL"], start, end)
        assert found.missing["AAPL"].startswith("no trading day in the range")
    with pytest.raises(ValueError, match="No trading day from 2022-01-01 to today: AAPL"):
        stocks.load("auto", ["AAPL"], "2022-01-01")
    assert len(yahoo.calls) == 1


def test_today_is_a_day_without_a_time():
    today = _stocks_kept.today()
    assert today == today.normalize()
    assert today.tz is None
    assert abs(today - pd.Timestamp.now()) < pd.Timedelta(days=2)


DAMAGE = {
    "the table is cut off": ("AAPL.csv", lambda raw: raw[:-40]),
    "the table is another": ("AAPL.csv", lambda raw: raw.replace(b"2020-01-15", b"2020-01-14")),
    "a volume is another": (
        "AAPL.csv",
        lambda raw: raw.replace(b"\n2020-01-16", b"7\n2020-01-16"),
    ),
    "the notes are cut off": ("AAPL.json", lambda raw: raw[:20]),
    "the notes are a list": ("AAPL.json", lambda raw: b"[]"),
    "a day is none": ("AAPL.json", lambda raw: raw.replace(b"2020-01-01", b"2020-99-99")),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_kept_and_damaged_is_fetched_again(folder, yahoo, name, damage):
    fetch(["AAPL"])
    path = folder / ".stocks" / name
    before = path.read_bytes()
    path.write_bytes(damage(before))
    assert path.read_bytes() != before
    same(fetch(["AAPL"]).tables["AAPL"], prices())
    assert len(yahoo.calls) == 2
    fetch(["AAPL"])
    assert len(yahoo.calls) == 2


def test_a_single_new_day_can_be_kept(yahoo):
    for _ in range(2):
        assert len(fetch(["AAPL"], "2020-01-06", "2020-01-07").tables["AAPL"]) == 1
    assert len(yahoo.calls) == 1


def test_a_process_that_is_killed_between_the_two_files_does_no_harm(yahoo, monkeypatch):
    fetch(["AAPL"])
    whole = _stocks_kept.write_whole

    def die(path, content):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        whole(path, content)

    monkeypatch.setattr(_stocks_kept, "write_whole", die)
    with pytest.raises(KeyboardInterrupt):
        fetch(["AAPL"], end="2020-04-01")
    monkeypatch.setattr(_stocks_kept, "write_whole", whole)
    same(fetch(["AAPL"], end="2020-04-01").tables["AAPL"], prices(end="2020-04-01"))


def test_where_nothing_can_be_stored_what_is_kept_is_used(folder, yahoo, monkeypatch):
    fetch(["AAPL"])

    def refuse(*asked, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_stocks_kept, "turn", refuse)
    found = fetch(["AAPL", "KO"])
    same(found.tables["AAPL"], prices())
    assert found.missing == {
        "KO": f"nothing can be stored in {folder / '.stocks'}: Permission denied"
    }
    assert len(yahoo.calls) == 1


def test_a_full_disk_loses_no_prices(yahoo, monkeypatch):
    def refuse(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_stocks_kept, "write_whole", refuse)
    found = fetch(["AAPL", "KO"], batch=1)
    same(found.tables["AAPL"], prices())
    assert "No space left on device" in found.missing["KO"]


def test_one_fetches_while_another_waits_and_others_go_on(yahoo, monkeypatch, capsys):
    asked, proceed = threading.Event(), threading.Event()
    waiting = threading.Event()
    ask = yahoo.ask

    def slow(tickers, start, end):
        if "AAPL" in tickers:
            asked.set()
            assert proceed.wait(60)
        return ask(tickers, start, end)

    take = _stocks_kept.turn

    def turn(path, text):
        if asked.is_set() and path.name == "AAPL.csv":
            waiting.set()
        return take(path, text)

    monkeypatch.setattr(_stocks_yahoo, "_ask", slow)
    monkeypatch.setattr(_stocks_kept, "turn", turn)
    results = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: fetch(["AAPL", "BA"])}))
        for n in range(2)
    ]
    threads[0].start()
    assert asked.wait(60)
    threads[1].start()
    assert waiting.wait(60)
    assert fetch(["KO"]).tickers == ["KO"]  # nobody has its turn
    proceed.set()
    for thread in threads:
        thread.join(60)
    assert [call[0] for call in yahoo.calls] == [["KO"], ["AAPL", "BA"]]
    for n in range(2):
        same(results[n].tables["AAPL"], prices())
    assert "another process is downloading AAPL; waiting." in capsys.readouterr().out


@pytest.mark.parametrize("ranks", [2, 5])
def test_ranks_fetch_their_shares(yahoo, ranks):
    names = ["KO", "AAPL", "GONE", "BA"]
    found = {}
    for rank in range(ranks):
        found |= fetch(names[rank::ranks]).tables
    assert sorted(found) == ["AAPL", "BA", "KO"]
    assert len(yahoo.calls) == min(ranks, 4)


def test_load_downloads_what_does_not_lie_there(folder, yahoo, capsys):
    write(folder, "AAPL", prices("2020-02-10"))
    found = stocks.load("real", ["KO", "XYZ", "AAPL"], "2020-01-01", "2020-03-01")
    assert found.tickers == ["KO", "AAPL"]
    same(found.tables["AAPL"], prices("2020-02-10"))  # the file is taken with the days it has
    assert found.missing == {"XYZ": "possibly delisted; no timezone found"}
    assert yahoo.calls == [(["KO", "XYZ"], "2020-01-01", "2020-03-01")]
    assert f"from {folder / 'stocks'} and {folder / '.stocks'};" in capsys.readouterr().out


def test_without_names_or_files_the_courses_list_is_downloaded(folder, yahoo, monkeypatch):
    monkeypatch.setattr(stocks, "TICKERS", ("AAPL", "KO"))
    monkeypatch.setattr(_stocks_kept.time, "sleep", Sleeps())
    found = stocks.load()
    assert (found.tickers, found.path) == (["AAPL", "KO"], folder / ".stocks")
    assert yahoo.calls == [(["AAPL", "KO"], "2010-01-01", "2021-03-15")]
    assert machine.found_data()["Stock prices"] == str(folder / ".stocks")
    stocks.PUBLICATION.fetch(folder / "part")
    assert len(yahoo.calls) == 1
    monkeypatch.setattr(stocks, "TICKERS", ("XYZ",))
    with pytest.raises(OSError, match="XYZ \\(possibly delisted"):
        stocks.PUBLICATION.fetch(folder / "part")


def test_kept_prices_of_others_are_real_data_too(yahoo, monkeypatch):
    fetch(["AAPL"])
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    with pytest.raises(DataNotFound, match="None of these tickers is here, though others are"):
        stocks.load("auto", ["XYZ"])
    monkeypatch.setattr(stocks, "TICKERS", ("KO",))
    assert stocks.load("auto").origin == "synthetic"  # nobody asked for a ticker


def test_a_damaged_file_is_not_passed_over_for_a_download(folder, yahoo):
    write(folder).write_text("x")
    with pytest.raises(DataDamaged):
        stocks.load("auto", ["AAPL"])
    assert yahoo.calls == []


# --- the stand-in -------------------------------------------------------------------------------


def test_the_stand_in_is_the_same_every_time_and_passes_the_checks_of_files(folder):
    first, second = make_stand_in(), make_stand_in()
    assert list(first) == [f"MADE-{letter}" for letter in "ABCDEFGH"]
    for ticker, table in first.items():
        same(table, second[ticker])
        assert len(table) == 1_553
        assert _stocks_files.fault_of(table) is None
        same(_stocks_files.read(write(folder, ticker, table)), table)
        inside = table[["open", "close"]]
        assert (inside.max(axis=1) <= table["high"]).all()
        assert (inside.min(axis=1) >= table["low"]).all()
        assert (table["adjusted"] <= table["close"]).all()
        assert table["adjusted"].iloc[-1] == table["close"].iloc[-1]
    assert (first["MADE-A"]["adjusted"].iloc[0] / first["MADE-A"]["close"].iloc[0]) < 0.9
    assert (first["MADE-H"]["adjusted"] == first["MADE-H"]["close"]).all()


def test_made_up_returns_cluster_fall_together_and_cannot_be_forecast():
    tables = make_stand_in()
    returns = pd.DataFrame({t: np.log(table["close"]).diff() for t, table in tables.items()})
    returns = returns.dropna()
    size = returns.abs()
    assert returns.std().between(0.008, 0.04).all()
    lags = range(1, 11)
    clusters = np.mean([[size[t].autocorr(lag) for lag in lags] for t in size])
    forecast = np.mean([[returns[t].autocorr(lag) for lag in lags] for t in returns])
    assert clusters > 0.08
    assert abs(forecast) < 0.02
    together = returns.corr().to_numpy()[np.triu_indices(len(tables), 1)]
    assert together.min() > 0.2
    assert (returns.kurt() > 1).all()
    spread = pd.DataFrame({t: np.log(x["high"] / x["low"]) for t, x in tables.items()}).iloc[1:]
    volume = pd.DataFrame({t: x["volume"] for t, x in tables.items()}).iloc[1:]
    assert spread.corrwith(size).min() > 0.3
    assert np.log(volume).corrwith(size).min() > 0.2


def test_the_size_of_made_up_moves_can_be_forecast_better_than_by_the_last():
    errors, persistence = [], []
    for table in make_stand_in().values():
        size = np.log(np.log(table["high"] / table["low"])).to_numpy()
        week = np.lib.stride_tricks.sliding_window_view(size, 22)[:-1]
        errors.append(abs(size[22:] - week.mean(axis=1)).mean())
        persistence.append(abs(size[22:] - size[21:-1]).mean())
    assert 0.6 < np.sum(errors) / np.sum(persistence) < 0.9


# --- the commands -------------------------------------------------------------------------------


def test_course_data_verifies_the_files(folder, capsys):
    assert machine.found_data()["Stock prices"].startswith("not here yet")
    path = write(folder)
    assert machine.found_data()["Stock prices"] == str(folder / "stocks")
    assert cli.main(["data", "--verify", "stocks"]) == 0
    assert "✓ stocks: real and right, 0.0 MB" in capsys.readouterr().out
    path.write_text(HEADER)
    assert cli.main(["data", "--verify", "stocks"]) == 1
    assert "it has prices of 0 days" in capsys.readouterr().err


def test_files_and_the_stand_in_cost_no_library(folder):
    write(folder)
    code = (
        "import sys; from course_lib.data import stocks\n"
        "stocks.load('real'); stocks.load('synthetic')\n"
        "print([m for m in ('yfinance', 'requests', 'torch', 'curl_cffi') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.stdout.splitlines()[-1:] == ["[]"], answer.stderr
