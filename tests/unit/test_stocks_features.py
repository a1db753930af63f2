"""Indicators know the past only, and are what their definitions say; splits walk forward."""

import math

import numpy as np
import pandas as pd
import pytest

from course_lib.data import stocks

COLUMNS = ["return", "range", "volume", "sma_gap", "macd", "rsi", "bollinger", "volatility"]
PRICES = ["open", "high", "low", "close", "adjusted"]
# The first row in which each is there: what it needs of the past, and no more.
FIRST = dict(zip(COLUMNS, [1, 0, 19, 19, 33, 14, 19, 22], strict=True))
DAYS = 120


@pytest.fixture(scope="module")
def made():
    """A wild share: 120 days of prices and volumes that have nothing to do with each other."""
    rng = np.random.default_rng(11)
    close = 40 * np.exp(np.cumsum(0.03 * rng.standard_normal(DAYS)))
    opened = close * np.exp(0.01 * rng.standard_normal(DAYS))
    return pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * np.exp(0.02 * rng.random(DAYS)),
            "low": np.minimum(opened, close) * np.exp(-0.02 * rng.random(DAYS)),
            "close": close,
            "adjusted": 0.9 * close,
            "volume": np.round(1e6 * np.exp(rng.standard_normal(DAYS))),
        },
        index=pd.bdate_range("2020-01-01", periods=DAYS, name="date"),
    )


@pytest.fixture
def table(made):
    return made.copy()


def test_eight_float_columns_a_row_a_day_and_the_table_is_left_alone(table, made):
    found = stocks.indicators(table)
    assert found.columns.tolist() == COLUMNS
    assert set(found.dtypes) == {np.dtype("float64")}
    pd.testing.assert_index_equal(found.index, made.index)
    pd.testing.assert_frame_equal(table, made)


@pytest.mark.parametrize("name", COLUMNS)
def test_each_is_there_as_soon_as_its_past_is_and_always_from_then_on(table, name):
    there = stocks.indicators(table)[name].notna()
    assert there.tolist() == [day >= FIRST[name] for day in range(DAYS)]


# ------------------------------------------------------------------ nothing looks ahead
@pytest.mark.parametrize("day", [0, 1, 14, 19, 25, 33, 34, 60, 97, DAYS - 2])
def test_the_future_changes_nothing_up_to_today(table, day):
    before = stocks.indicators(table)
    order = np.random.default_rng(day).permutation(np.arange(day + 1, DAYS))
    table.iloc[day + 1 :] = 1.7 * table.iloc[order].to_numpy()
    table.iloc[-1] *= 50
    after = stocks.indicators(table)
    pd.testing.assert_frame_equal(after.iloc[: day + 1], before.iloc[: day + 1], check_exact=True)
    assert not np.allclose(after.iloc[-1], before.iloc[-1], equal_nan=True)  # it did change


@pytest.mark.parametrize("day", [0, 1, 14, 19, 25, 33, 34, 60, 97, DAYS - 2])
def test_a_table_that_ends_today_gives_the_same_rows(table, day):
    whole = stocks.indicators(table)
    cut = stocks.indicators(table.iloc[: day + 1])
    pd.testing.assert_frame_equal(cut, whole.iloc[: day + 1], check_exact=True)


# ------------------------------------------------------------------ only moves count
@pytest.mark.parametrize("factor", [7.0, 1 / 300])
def test_how_high_the_prices_are_does_not_matter(table, factor):
    before = stocks.indicators(table)
    table[PRICES] *= factor
    pd.testing.assert_frame_equal(stocks.indicators(table), before, rtol=1e-9, atol=1e-12)


def test_how_many_shares_there_are_does_not_matter(table):
    before = stocks.indicators(table)
    table["volume"] *= 1000
    pd.testing.assert_frame_equal(stocks.indicators(table), before, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------ the definitions, in loops
def ema(values, days):
    """Each value is 2 parts of the newest to days − 1 parts of the average before."""
    averages = [values[0]]
    for value in values[1:]:
        averages.append((2 * value + (days - 1) * averages[-1]) / (days + 1))
    return averages


def wilder(values):
    """13 parts of the average before, one of the newest."""
    averages = [values[0]]
    for value in values[1:]:
        averages.append((13 * averages[-1] + value) / 14)
    return averages


def by_hand(table, name, day):
    """One value, from the definition, with nothing but loops over plain numbers."""
    high, low, close, volume = (table[of].tolist() for of in ("high", "low", "close", "volume"))
    last = close[day - 19 : day + 1]
    middle = sum(last) / 20
    if name == "return":
        return math.log(close[day] / close[day - 1])
    if name == "range":
        return math.log(high[day]) - math.log(low[day])
    if name == "volume":
        return math.log(20 * volume[day] / sum(volume[day - 19 : day + 1]))
    if name == "sma_gap":
        return math.log(close[day] / middle)
    if name == "bollinger":
        deviation = math.sqrt(sum((price - middle) ** 2 for price in last) / 20)
        lower, upper = middle - 2 * deviation, middle + 2 * deviation
        return (close[day] - lower) / (upper - lower) * 2 - 1
    if name == "volatility":
        moves = [math.log(close[d] / close[d - 1]) for d in range(day - 21, day + 1)]
        return math.sqrt(252 * sum(move**2 for move in moves) / 22)
    if name == "rsi":
        moves = [close[d] - close[d - 1] for d in range(1, day + 1)]
        up = wilder([max(move, 0.0) for move in moves])[-1]
        down = wilder([max(-move, 0.0) for move in moves])[-1]
        return 1 - 1 / (1 + up / down)
    macd = [a - b for a, b in zip(ema(close, 12), ema(close, 26), strict=True)]
    signal = ema(macd[25 : day + 1], 9)[-1]  # made of the days on which there is a MACD
    return (macd[day] - signal) / close[day]


@pytest.mark.parametrize("name", COLUMNS)
def test_it_is_what_its_definition_says(table, name):
    found = stocks.indicators(table)[name]
    days = range(FIRST[name] or 1, DAYS)
    expected = [by_hand(table, name, day) for day in days]
    assert found.iloc[days].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_share_that_only_rises_or_falls_is_at_the_ends_of_the_rsi(table):
    table["close"] = np.linspace(10.0, 20.0, DAYS)
    assert (stocks.indicators(table)["rsi"].iloc[14:] == 1).all()
    table["close"] = np.linspace(20.0, 10.0, DAYS)
    assert (stocks.indicators(table)["rsi"].iloc[14:] == 0).all()


# ------------------------------------------------------------------ odd days
def test_a_share_that_never_moves(table):
    table[PRICES], table["volume"] = 17.3, 500.0
    found = stocks.indicators(table)
    still = dict.fromkeys(COLUMNS, 0.0) | {"rsi": 0.5}
    for name in COLUMNS:
        there = found[name].iloc[FIRST[name] :]
        assert there.tolist() == pytest.approx([still[name]] * len(there), abs=1e-12), name
        assert found[name].iloc[: FIRST[name]].isna().all(), name


def test_a_share_that_stops_moving_has_no_bands_and_is_finite(table):
    table.iloc[60:, table.columns.get_loc("close")] = table["close"].iloc[60]
    found = stocks.indicators(table).iloc[33:]
    assert np.isfinite(found).all(axis=None)
    assert (found["bollinger"].iloc[60 + 19 - 33 :] == 0).all()  # 20 equal days: nothing moved
    assert (found["bollinger"].iloc[: 60 + 19 - 33] != 0).all()


def test_a_day_without_trade_has_no_volume_nor_have_the_nineteen_days_after(table):
    before = stocks.indicators(table)
    table.iloc[70, table.columns.get_loc("volume")] = 0.0
    after = stocks.indicators(table)
    assert np.flatnonzero(after["volume"].iloc[19:].isna()).tolist() == list(range(51, 71))
    known = after["volume"].notna()
    pd.testing.assert_series_equal(after["volume"][known], before["volume"][known], rtol=1e-9)
    others = [name for name in COLUMNS if name != "volume"]
    pd.testing.assert_frame_equal(after[others], before[others], check_exact=True)


def test_too_short_a_past_is_no_error(table):
    for days in (0, 1, 5):
        found = stocks.indicators(table.iloc[:days])
        assert found.shape == (days, 8)
        assert found.drop(columns=["return", "range"]).isna().all(axis=None)


@pytest.mark.parametrize("lost", [["high"], ["low"], ["close"], ["volume"], ["low", "volume"]])
def test_a_missing_column_is_named(table, lost):
    with pytest.raises(ValueError, match=f"no column {', '.join(lost)}: .*adjusted"):
        stocks.indicators(table.drop(columns=lost))


def test_it_needs_no_other_column(table):
    expected = stocks.indicators(table)
    few = stocks.indicators(table[["volume", "close", "low", "high"]])
    pd.testing.assert_frame_equal(few, expected, check_exact=True)


# ------------------------------------------------------------------ walking forward
CALENDARS = [
    {"days": 2264, "folds": 3, "test": 252, "valid": 252, "purge": 22},
    {"days": 100, "folds": 1, "test": 10, "valid": 20, "purge": 5},
    {"days": 60, "folds": 4, "test": 7, "valid": 3, "purge": 0},
    {"days": 8, "folds": 2, "test": 1, "valid": 1, "purge": 2},  # one day to learn from
]


@pytest.mark.parametrize("calendar", CALENDARS)
def test_parts_follow_each_other_with_the_purge_between_them(calendar):
    found = stocks.walk_forward(**calendar)
    assert len(found) == calendar["folds"]
    for fold in found:
        assert fold.fit[0] == 0
        assert len(fold.fit) >= 1
        assert len(fold.valid) == calendar["valid"]
        assert len(fold.test) == calendar["test"]
        # Days strictly between two parts: exactly those that are left out.
        assert fold.valid[0] - fold.fit[-1] - 1 == calendar["purge"]
        assert fold.test[0] - fold.valid[-1] - 1 == calendar["purge"]


@pytest.mark.parametrize("calendar", CALENDARS)
def test_the_test_parts_end_the_calendar_and_each_day_is_in_one(calendar):
    tested = [day for fold in stocks.walk_forward(**calendar) for day in fold.test]
    count = calendar["folds"] * calendar["test"]
    assert tested == list(range(calendar["days"] - count, calendar["days"]))


@pytest.mark.parametrize("calendar", CALENDARS)
def test_each_fold_has_more_to_learn_from_by_one_test_part(calendar):
    sizes = [len(fold.fit) for fold in stocks.walk_forward(**calendar)]
    assert np.diff(sizes).tolist() == [calendar["test"]] * (calendar["folds"] - 1)
    spent = calendar["folds"] * calendar["test"] + calendar["valid"] + 2 * calendar["purge"]
    assert sizes[0] == calendar["days"] - spent


def test_no_window_of_the_purge_reaches_from_one_part_into_another():
    calendar = CALENDARS[1]
    (fold,) = stocks.walk_forward(**calendar)
    for earlier, later in ((fold.fit, fold.valid), (fold.valid, fold.test)):
        window = range(later[0] - calendar["purge"], later[0] + 1)  # first sample of the later one
        assert not set(window) & set(earlier)


@pytest.mark.parametrize("name", ["days", "folds", "test", "valid"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_number_below_one_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}={value}: it must be 1 or more"):
        stocks.walk_forward(**CALENDARS[1] | {name: value})


def test_a_negative_purge_is_named():
    with pytest.raises(ValueError, match=r"^purge=-1: it cannot be negative"):
        stocks.walk_forward(**CALENDARS[1] | {"purge": -1})


def test_too_few_days_are_said_with_the_sum():
    calendar = CALENDARS[3]
    with pytest.raises(ValueError, match="7 days are too few: 2 × 1 for testing, 1 for valid"):
        stocks.walk_forward(**calendar | {"days": 7})


def test_a_fold_cannot_be_changed_by_accident():
    (fold,) = stocks.walk_forward(**CALENDARS[1])
    with pytest.raises(AttributeError):
        fold.test = range(3)
