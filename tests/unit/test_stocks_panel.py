"""A panel knows the past only, a sample has a window and an answer, and errors are in dollars."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from course_lib.data import stocks

DAYS, LENGTH = 260, 10
LATE = 150  # the first day of NEW
GAPS = (100, 181, 182)  # days on which HALT was not traded
WARM = 33  # indicators of a ticker's first days are missing
CALENDAR = pd.bdate_range("2020-01-01", periods=DAYS, name="date")
FOLD = stocks.Fold(range(120), range(130, 190), range(200, 260))
TICKERS = ["NEW", "HALT", "OLD"]  # the one that comes last is named first


def prices(seed, level):
    rng = np.random.default_rng(seed)
    close = level * np.exp(np.cumsum(0.02 * rng.standard_normal(DAYS)))
    opened = close * np.exp(0.01 * rng.standard_normal(DAYS))
    return pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * np.exp(0.02 * rng.random(DAYS)),
            "low": np.minimum(opened, close) * np.exp(-0.02 * rng.random(DAYS)),
            "close": close,
            "adjusted": close,
            "volume": np.round(1e6 * np.exp(rng.standard_normal(DAYS))),
        },
        index=CALENDAR,
    )


def make_tables():
    return {
        "NEW": prices(1, 20).iloc[LATE:],
        "HALT": prices(2, 300).drop(CALENDAR[[*GAPS]]),
        "OLD": prices(3, 50),
    }


@pytest.fixture(scope="module")
def panel():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas warns where the order of days is its guess
        return stocks.panel(make_tables())


@pytest.fixture(scope="module")
def old():
    """OLD and HALT only: both have days to fit."""
    tables = make_tables()
    return stocks.panel({name: tables[name] for name in ("HALT", "OLD")})


def equal(a, b):
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def shaken(tables, day):
    """All prices and volumes after this day are others."""
    changed = {}
    for seed, (name, table) in enumerate(tables.items()):
        rng, after = np.random.default_rng(100 + seed), table.index > CALENDAR[day]
        table = table.copy()
        table.loc[after] *= np.exp(0.3 * rng.standard_normal((after.sum(), 1)))
        table.loc[after, "high"] *= np.exp(rng.random(after.sum()))
        changed[name] = table
    return changed


# ── the calendar ─────────────────────────────────────────────────────────────────────────────────


def test_all_tickers_lie_on_one_calendar_in_the_order_of_time(panel):
    pd.testing.assert_index_equal(panel.days, CALENDAR, check_names=False, check_freq=False)
    assert panel.tickers == TICKERS
    assert panel.values.shape == (DAYS, 3, 8)
    assert panel.answers.shape == (DAYS, 3, 2)
    assert panel.values.dtype == panel.answers.dtype == panel.close.dtype == torch.float64


def test_gaps_stay_gaps_and_each_number_is_on_its_own_day(panel):
    for column, (name, table) in enumerate(make_tables().items()):
        traded = torch.tensor(CALENDAR.isin(table.index))
        assert torch.equal(panel.close[:, column].isfinite(), traded), name
        assert torch.equal(panel.values[:, column, 1].isfinite(), traded), name
        assert panel.close[traded, column].tolist() == table["close"].tolist()
        expected = stocks.indicators(table).reindex(CALENDAR)
        expected["range"] = np.log(expected["range"].clip(lower=1e-4))
        assert equal(panel.values[:, column], torch.tensor(expected.to_numpy())), name


def test_the_answer_is_what_the_next_day_of_the_calendar_brings(panel):
    assert equal(panel.answers[:-1], panel.values[1:, :, :2])
    assert panel.answers[-1].isnan().all()


def test_a_day_on_which_the_price_never_moved_has_a_logarithm_of_its_range():
    table = prices(4, 10)
    table.iloc[70, table.columns.get_indexer(["high", "low"])] = table["close"].iloc[70]
    found = stocks.panel({"FLAT": table})
    assert found.values[70, 0, 1].item() == pytest.approx(math.log(1e-4))


def test_no_table_at_all_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="no ticker"):
        stocks.panel({})


def test_a_table_without_a_volume_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="volume"):
        stocks.panel({"OLD": prices(3, 50).drop(columns="volume")})


# ── scales know the days to fit, and no others ───────────────────────────────────────────────────


def test_in_the_days_to_fit_each_ticker_has_a_mean_of_0_and_a_deviation_of_1(old):
    raw = (old.values - old.values[: FOLD.fit.stop].nanmean(dim=0)).numpy()
    x = old.scaled(FOLD).x
    assert x.dtype == torch.float32
    assert x.shape == (DAYS, 2, 16)
    for ticker in range(2):
        for k in range(8):
            past = raw[: FOLD.fit.stop, ticker, k]
            true = raw[:, ticker, k] / np.nanstd(past)
            if k == 0:  # of a return nothing is expected
                true = old.values[:, ticker, k].numpy() / np.nanstd(past)
            expected = torch.tensor(np.clip(true, -5, 5)).float()
            torch.testing.assert_close(x[:, ticker, k], expected, equal_nan=True)


def test_the_market_is_the_mean_of_the_tickers_that_are_there(panel):
    x = panel.scaled(FOLD).x
    own, market = x[:, :, :8], x[:, :, 8:]
    torch.testing.assert_close(market[50, 0], own[50, 1:].mean(dim=0))
    torch.testing.assert_close(market[GAPS[0], 0], own[GAPS[0], 2])
    assert equal(market[:, 0], market[:, 2])


def test_wild_days_are_clipped():
    wild = stocks.panel(shaken({"OLD": prices(3, 50)}, 130))
    assert wild.scaled(FOLD).x.nan_to_num().abs().max() == 5


@pytest.mark.parametrize("day", [119, 120, 150, 220, 258])
def test_a_change_of_the_future_changes_no_scale_no_input_and_no_window_before_it(panel, day):
    before, after = (p.scaled(FOLD) for p in (panel, stocks.panel(shaken(make_tables(), day))))
    assert equal(before.mean, after.mean)
    assert equal(before.spread, after.spread)
    assert equal(before.x[: day + 1], after.x[: day + 1])
    assert equal(before.y[:day], after.y[:day])  # that of today is known tomorrow
    assert not equal(before.y[day], after.y[day])  # it did change
    assert not equal(before.x[day + 1 :], after.x[day + 1 :])
    which = before.samples(range(day + 1), LENGTH)
    assert len(which) > 50
    assert torch.equal(which, after.samples(range(day + 1), LENGTH))
    assert torch.equal(before.windows(which, LENGTH), after.windows(which, LENGTH))


def test_a_change_in_the_days_to_fit_changes_the_scale(panel):
    before, after = (p.scaled(FOLD) for p in (panel, stocks.panel(shaken(make_tables(), 118))))
    assert not equal(before.mean, after.mean)
    assert not equal(before.spread, after.spread)


# ── samples ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("length", [1, 10, 22])
@pytest.mark.parametrize("part", [range(DAYS), FOLD.fit, FOLD.valid, FOLD.test, range(3), range(0)])
def test_samples_are_all_that_have_a_window_and_an_answer_by_day(panel, part, length):
    scaled, expected = panel.scaled(FOLD), []
    for day in part:
        for ticker in range(len(panel.tickers)):
            window = scaled.x[max(day - length + 1, 0) : day + 1, ticker]
            whole = len(window) == length and bool(window.isfinite().all())
            if whole and scaled.y[day, ticker].isfinite().all():
                expected.append([day, ticker])
    found = scaled.samples(part, length)
    assert found.dtype == torch.int64
    assert found.shape == (len(expected), 2)
    assert found.tolist() == expected


def test_the_first_sample_is_made_when_the_past_fills_a_window(old):
    days = old.scaled(FOLD).samples(FOLD.fit, LENGTH)
    assert days[:, 0].min() == WARM + LENGTH - 1


def test_a_part_takes_its_windows_from_the_days_before_it(old):
    valid = old.scaled(FOLD).samples(FOLD.valid, LENGTH)
    assert valid[:2].tolist() == [[FOLD.valid.start, 0], [FOLD.valid.start, 1]]
    assert valid[-1, 0] == FOLD.valid.stop - 1


def test_a_gap_takes_the_day_before_it_and_every_window_that_meets_it(old):
    halted = old.tickers.index("HALT")
    which = old.scaled(FOLD).samples(range(DAYS), LENGTH)
    days = {day for day, ticker in which.tolist() if ticker == halted}
    for gap in GAPS:
        lost = [gap - 1, *range(gap, gap + LENGTH)]  # no answer; no whole window
        assert not days.intersection(lost)
    assert GAPS[0] - 2 in days


def test_a_ticker_without_a_day_to_fit_has_no_sample(panel):
    newcomer = panel.tickers.index("NEW")
    assert newcomer not in panel.scaled(FOLD).samples(range(DAYS), LENGTH)[:, 1]
    later = stocks.Fold(range(240), range(245, 250), range(255, 260))
    days = panel.scaled(later).samples(range(DAYS), LENGTH)
    first = days[days[:, 1] == newcomer][0]
    assert first[0] == LATE + WARM + LENGTH - 1


def test_the_last_day_has_no_answer_and_so_no_sample(panel):
    assert panel.scaled(FOLD).samples(FOLD.test, LENGTH)[-1, 0] == DAYS - 2


# ── windows, targets, answers in their own unit ──────────────────────────────────────────────────


def test_windows_are_slices_of_the_table(panel):
    scaled = panel.scaled(FOLD)
    which = scaled.samples(range(DAYS), LENGTH)
    windows = scaled.windows(which, LENGTH)
    assert windows.shape == (len(which), LENGTH, 16)
    for window, (day, ticker) in zip(windows, which.tolist(), strict=True):
        assert torch.equal(window, scaled.x[day - LENGTH + 1 : day + 1, ticker])


def test_nothing_is_copied_but_the_batch_that_is_asked_for(panel):
    scaled = panel.scaled(FOLD)
    views = scaled.x.unfold(0, LENGTH, 1)
    assert views.untyped_storage().data_ptr() == scaled.x.untyped_storage().data_ptr()
    x, which = scaled.x.clone(), scaled.samples(FOLD.fit, LENGTH)[:4]
    scaled.windows(which, LENGTH).zero_()
    assert equal(scaled.x, x)


def test_no_sample_gives_no_window(panel):
    scaled = panel.scaled(FOLD)
    none = scaled.samples(range(0), LENGTH)
    assert scaled.windows(none, LENGTH).shape == (0, LENGTH, 16)
    assert scaled.targets(none).shape == (0, 2)


def test_targets_come_back_as_returns_and_ranges(panel):
    scaled, table = panel.scaled(FOLD), make_tables()["OLD"]
    which = scaled.samples(FOLD.test, LENGTH)
    which = which[which[:, 1] == TICKERS.index("OLD")]
    back = scaled.unscaled(scaled.targets(which), which)
    assert back.dtype == torch.float64
    assert len(which) == len(FOLD.test) - 1
    close, width = table["close"].to_numpy(), np.log(table["high"] / table["low"]).to_numpy()
    for (day, _), (change, reach) in zip(which.tolist(), back.tolist(), strict=True):
        assert change == pytest.approx(math.log(close[day + 1] / close[day]), abs=1e-7)
        assert reach == pytest.approx(width[day + 1], rel=1e-5)


def test_several_models_come_back_as_each_alone(panel):
    scaled = panel.scaled(FOLD)
    which = scaled.samples(FOLD.valid, LENGTH)
    said = torch.randn(3, len(which), 2, generator=torch.Generator().manual_seed(0))
    together = scaled.unscaled(said, which)
    assert together.shape == said.shape
    for one, alone in zip(together, said, strict=True):
        assert torch.equal(one, scaled.unscaled(alone, which))


# ── errors ───────────────────────────────────────────────────────────────────────────────────────


def test_errors_are_those_of_the_price_in_dollars_and_of_the_range(panel):
    scaled, tables = panel.scaled(FOLD), make_tables()
    which = scaled.samples(FOLD.test, LENGTH)
    assert set(which[:, 1].tolist()) == {1, 2}
    said = torch.rand(len(which), 2, generator=torch.Generator().manual_seed(1)).double() / 10
    ours, persistence = panel.errors(said, which)
    assert ours.shape == persistence.shape == (len(which), 2)
    for k, (day, ticker) in enumerate(which.tolist()):
        table = tables[TICKERS[ticker]]
        today, tomorrow = table.loc[CALENDAR[day]], table.loc[CALENDAR[day + 1]]
        reach = [math.log(row["high"] / row["low"]) for row in (today, tomorrow)]
        guess = today["close"] * math.exp(said[k, 0])
        off = [abs(guess - tomorrow["close"]), abs(said[k, 1].item() - reach[1])]
        assert ours[k].tolist() == pytest.approx(off, rel=1e-9)
        off = [abs(today["close"] - tomorrow["close"]), abs(reach[0] - reach[1])]
        assert persistence[k].tolist() == pytest.approx(off, rel=1e-9)


def test_errors_of_several_models_are_those_of_each_alone(panel):
    which = panel.scaled(FOLD).samples(FOLD.valid, LENGTH)
    said = torch.rand(3, len(which), 2, generator=torch.Generator().manual_seed(2)).double()
    ours, persistence = panel.errors(said, which)
    assert ours.shape == said.shape
    assert persistence.shape == (len(which), 2)
    for one, alone in zip(ours, said, strict=True):
        assert torch.equal(one, panel.errors(alone, which)[0])


def test_who_knows_the_answer_has_no_error(panel):
    scaled = panel.scaled(FOLD)
    which = scaled.samples(FOLD.test, LENGTH)
    ours, _ = panel.errors(scaled.unscaled(scaled.targets(which), which), which)
    assert ours.max() < 1e-4
