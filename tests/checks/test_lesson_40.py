"""Exercises of lesson 40: wrong answers are told apart, right ones written differently pass."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from numpy.lib.stride_tricks import sliding_window_view

from course_lib.checks import lesson_40 as check
from course_lib.checks._look_backs import COLUMNS, GAPPY, PLAIN, expected, why_other
from course_lib.checks._purges import CASES, PARTS, too_careful
from course_lib.checks._slips import SLIPS
from course_lib.evaluation import shard_indices

# ---- 40.1 · Find and remove the look-aheads


def price_of(table):
    return table["close"].ffill()


def volume_so_far(table):
    month = table.index.to_period("M")
    return table["volume"].groupby(month).transform(lambda v: v.expanding().mean())


def from_price(table, price, **columns):
    """The right columns from a price; a mutant passes another price, or a column of its own."""
    change, so_far = np.log(price).diff(), price.expanding(20)
    right = {
        "return": change,
        "volatility": change.rolling(20).std(),
        "trend": price / price.rolling(20).mean() - 1,
        "z": (price - so_far.mean()) / so_far.std(),
        "volume": table["volume"] / volume_so_far(table),
        "night": np.log(table["open"] / price.shift()),
    }
    return pd.DataFrame(right | columns)


def right(table, **columns):
    return from_price(table, price_of(table), **columns)


def somebodys(table):
    price = table["close"].interpolate().bfill()
    change = np.log(price).diff()
    volume, month = table["volume"], table.index.to_period("M")
    return pd.DataFrame(
        {
            "return": change,
            "volatility": change.rolling(20).std(),
            "trend": price / price.rolling(20, center=True).mean() - 1,
            "z": (price - price.mean()) / price.std(),
            "volume": volume / volume.groupby(month).transform("mean"),
            "night": np.log(table["open"].shift(-1) / price),
        }
    )


def keeps(column):
    def one_left_as_it_was(table):
        return right(table, **{column: somebodys(table)[column]})

    return one_left_as_it_was


def only_the_columns(table):
    price = table["close"].interpolate().bfill()
    return from_price(table, price)


def fills_from_behind(table):
    return from_price(table, table["close"].ffill().bfill())


def interpolates_inside(table):
    return from_price(table, table["close"].interpolate())


def fills_with_the_mean(table):
    return from_price(table, table["close"].fillna(table["close"].mean()))


def fills_from_the_next_day_only(table):
    return from_price(table, table["close"].bfill(limit=1).ffill())


def drops_days_with_a_gap_tomorrow(table):
    # a gap that is known a day before it comes: the price of its eve is not used
    price = table["close"].where(table["close"].shift(-1).notna())
    return right(table, trend=price.ffill() / price.ffill().rolling(20).mean() - 1)


def scales_with_the_extremes_of_all(table):
    price = price_of(table)
    return right(table, z=(price - price.min()) / (price.max() - price.min()))


def fits_a_scaler(table):
    from sklearn.preprocessing import StandardScaler

    price = price_of(table)
    z = StandardScaler().fit_transform(price.to_frame())[:, 0]
    return right(table, z=pd.Series(z, index=table.index))


def ranks_among_all(table):
    return right(table, z=price_of(table).rank(pct=True))


def smooths_there_and_back(table):
    price = price_of(table)
    there = price.ewm(span=20).mean()
    return right(table, trend=price / there[::-1].ewm(span=20).mean()[::-1] - 1)


def weighs_by_the_number_of_days(table):
    price, share = price_of(table), np.arange(len(table)) / len(table)
    return right(table, trend=price / price.rolling(20).mean() - 1 + 0.01 * share)


def months_to_their_end(table):
    by_month = table["volume"].resample("ME").mean()
    month_end = table.index + pd.offsets.MonthEnd(0)
    return right(table, volume=table["volume"] / by_month.reindex(month_end).to_numpy())


def tomorrows_return(table):
    return right(table, **{"return": np.log(price_of(table)).diff().shift(-1)})


def slips(column, k):
    def one_slip(table):
        return right(table, **{column: [*SLIPS[column](table).values()][k]})

    return one_slip


def in_place(table):
    table["close"] = table["close"].ffill()
    return right(table)


def adds_a_column_to_what_it_was_given(table):
    table["price"] = table["close"].ffill()
    return from_price(table, table["price"])


def returns_nothing(table):
    right(table)


def returns_an_array(table):
    return right(table).to_numpy()


def returns_a_dictionary(table):
    return dict(right(table).items())


def drops_early_days(table):
    return right(table).dropna()


def numbers_the_days(table):
    return right(table).reset_index(drop=True)


def leaves_one_out(table):
    return right(table).drop(columns="night")


def has_a_seventh(table):
    return right(table).assign(price=price_of(table))


def writes_texts(table):
    return right(table).astype(str)


def needs_a_price(table):
    first = table["close"].dropna().iloc[0]
    return right(table) if first > 0 else None


def needs_twenty_days(table):
    if len(table) < 20:
        return pd.DataFrame({name: np.zeros(len(table)) for name in COLUMNS}, index=table.index)
    return right(table)


def needs_two_days(table):
    assert table.index[1] > table.index[0]
    return right(table)


def fills_what_is_too_short(table):
    return right(table).fillna(0.0) if len(table) == 1 else right(table)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(somebodys, "trend: a centred window takes ten days", id="as it was"),
        pytest.param(keeps("trend"), "trend: a centred window", id="centred"),
        pytest.param(keeps("z"), "z: *all* days know the last one", id="mean of all"),
        pytest.param(keeps("volume"), "volume: on its first day", id="whole month"),
        pytest.param(keeps("night"), "night: shift(-1) is tomorrow", id="shift(-1)"),
        pytest.param(only_the_columns, "in a gap only the price before it", id="gaps as before"),
        pytest.param(fills_from_behind, "ffill(), not bfill()", id="bfill"),
        pytest.param(interpolates_inside, "in a gap only the price before it", id="interpolate"),
        pytest.param(fills_with_the_mean, "in a gap only the price before it", id="fill mean"),
        pytest.param(fills_from_the_next_day_only, "in a gap only", id="bfill of one"),
        pytest.param(drops_days_with_a_gap_tomorrow, "with gaps, ", id="knows a gap"),
        pytest.param(scales_with_the_extremes_of_all, "z: *all* days", id="min and max"),
        pytest.param(fits_a_scaler, "z: *all* days", id="StandardScaler"),
        pytest.param(ranks_among_all, "z: *all* days", id="rank"),
        pytest.param(smooths_there_and_back, "trend: a centred window", id="there and back"),
        pytest.param(weighs_by_the_number_of_days, "how many more will come", id="how many days"),
        pytest.param(months_to_their_end, "volume: on its first day", id="resample"),
        pytest.param(tomorrows_return, "return: today's price over", id="tomorrow's return"),
        pytest.param(slips("z", 0), "divide by n - 1", id="z, n"),
        pytest.param(slips("volume", 0), "April of two years", id="month of any year"),
        pytest.param(slips("night", 0), "ffill() comes first", id="night after a gap"),
        pytest.param(slips("volatility", 4), "with fewer it is NaN", id="too early"),
        pytest.param(in_place, "work on a copy", id="in place"),
        pytest.param(
            adds_a_column_to_what_it_was_given, "work on a copy", id="new column in place"
        ),
        pytest.param(returns_nothing, "return a DataFrame (got NoneType)", id="None"),
        pytest.param(returns_an_array, "return a DataFrame (got ndarray)", id="array"),
        pytest.param(returns_a_dictionary, "return a DataFrame (got dict)", id="dictionary"),
        pytest.param(drops_early_days, "drop none", id="days dropped"),
        pytest.param(numbers_the_days, "another index", id="index lost"),
        pytest.param(leaves_one_out, "the columns are return, volatility", id="five columns"),
        pytest.param(has_a_seventh, "the columns are return, volatility", id="seven columns"),
        pytest.param(writes_texts, "and numbers are asked for", id="texts"),
        pytest.param(needs_a_price, "IndexError", id="no price yet"),
        pytest.param(needs_twenty_days, "with gaps, cut off after a day", id="short ones"),
        pytest.param(needs_two_days, "a table may have few days", id="a single day"),
        pytest.param(fills_what_is_too_short, "one day, no price yet", id="no day, no number"),
    ],
)
def test_honest_features_rejects(rejects, answer, says):
    rejects(check.honest_features, answer, says)


def day_by_day(table):
    """From a table that ends with the day, whatever the formula."""
    rows = [right(table.iloc[: t + 1]).iloc[-1] for t in range(len(table))]
    return pd.DataFrame(rows, index=table.index)


def in_another_order(table):
    return right(table)[["z", "night", "return", "volume", "trend", "volatility"]]


def in_float32(table):
    return right(table).astype("float32")


def with_pandas_own_types(table):
    return right(table).convert_dtypes()


def in_numpy(table):
    close = table["close"].to_numpy()
    has = np.flatnonzero(~np.isnan(close))
    last = np.searchsorted(has, np.arange(len(close)), side="right") - 1
    price = np.where(last >= 0, close[has[last]] if len(has) else np.nan, np.nan)
    start = has[0] if len(has) else len(close)
    out = {name: np.full(len(close), np.nan) for name in COLUMNS}
    change = np.diff(np.log(price), prepend=np.nan)
    out["return"] = change
    volume, month = table["volume"].to_numpy(), table.index.year * 12 + table.index.month
    for t in range(len(close)):
        known, k = price[start : t + 1], t - start + 1
        if k >= 21:
            out["volatility"][t] = change[t - 19 : t + 1].std(ddof=1)
        if k >= 20:
            out["trend"][t] = price[t] / known[-20:].mean() - 1
            out["z"][t] = (price[t] - known.mean()) / known.std(ddof=1)
        if not np.isnan(volume[t]):
            out["volume"][t] = volume[t] / np.nanmean(volume[: t + 1][month[: t + 1] == month[t]])
    out["night"][1:] = np.log(table["open"].to_numpy()[1:] / price[:-1])
    return pd.DataFrame(out, index=table.index)


def with_cumulative_sums(table):
    price, volume = price_of(table), table["volume"]
    n, total = price.notna().cumsum(), price.cumsum()
    mean = total / n
    variance = ((price**2).cumsum() / n - mean**2) * n / (n - 1)
    month = [table.index.year, table.index.month]
    so_far = volume.groupby(month).cumsum() / volume.notna().astype(float).groupby(month).cumsum()
    return right(table, z=((price - mean) / variance**0.5).where(n >= 20), volume=volume / so_far)


def mending_what_was_there(table):
    table = table.copy()
    table["close"] = table["close"].ffill()
    mended = somebodys(table[table["close"].notna()]).reindex(table.index)
    keep = right(table)
    return mended.assign(**{name: keep[name] for name in ("trend", "z", "volume", "night")})


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(right, id="ffill and expanding"),
        pytest.param(day_by_day, id="day by day", marks=pytest.mark.slow),
        pytest.param(in_another_order, id="another order"),
        pytest.param(in_float32, id="float32"),
        pytest.param(with_pandas_own_types, id="Float64"),
        pytest.param(in_numpy, id="numpy"),
        pytest.param(with_cumulative_sums, id="cumsum"),
        pytest.param(mending_what_was_there, id="mended"),
    ],
)
def test_honest_features_accepts(accepts, answer):
    accepts(check.honest_features, answer)


SLIPPED = [(name, hint) for name in COLUMNS for hint in SLIPS[name](GAPPY)]


@pytest.mark.parametrize(("name", "hint"), SLIPPED)
def test_every_slip_is_told_by_its_own_hint(name, hint):
    true = [expected(table)[name] for table in (PLAIN, GAPPY)]
    got = [SLIPS[name](table)[hint] for table in (PLAIN, GAPPY)]
    # as the check does: the table without gaps comes first
    why = [*map(why_other, (name, name), got, true, (PLAIN, GAPPY))]
    assert next(filter(None, why)).startswith(hint)


def test_what_is_expected_of_a_day_is_what_pandas_says():
    for table in (PLAIN, GAPPY):
        pd.testing.assert_frame_equal(right(table), expected(table), rtol=1e-9, check_freq=False)


# ---- 40.2 · A split that knows when answers are known


def masks(made, answered, first_valid, first_test, last_test):
    return (
        answered < first_valid,
        (made >= first_valid) & (answered < first_test),
        (made >= first_test) & (made <= last_test),
    )


def split(made, answered, *days):
    return tuple(map(np.flatnonzero, masks(made, answered, *days)))


def with_fit(rule):
    def another_fit(made, answered, *days):
        return (np.flatnonzero(rule(made, answered, *days)), *split(made, answered, *days)[1:])

    return another_fit


def with_valid(rule):
    def another_valid(made, answered, *days):
        fit, _, test = split(made, answered, *days)
        return fit, np.flatnonzero(rule(made, answered, *days)), test

    return another_valid


def with_test(rule):
    def another_test(made, answered, *days):
        fit, valid, _ = split(made, answered, *days)
        return fit, valid, np.flatnonzero(rule(made, answered, *days))

    return another_test


def longest(made, answered):
    return (answered - made).max(initial=0)


def in_sorted_order(made, answered, *days):
    order = np.argsort(made, kind="stable")
    return split(made[order], answered[order], *days)


def sorts_what_it_was_given(made, answered, *days):
    parts = split(made, answered, *days)
    made.sort()
    return parts


def the_days(made, answered, *days):
    return tuple(made[part] for part in split(made, answered, *days))


def of_where(made, answered, *days):
    return tuple(map(np.where, masks(made, answered, *days)))


def fit_and_test(made, answered, *days):
    fit, _, test = split(made, answered, *days)
    return fit, test


def as_a_dictionary(made, answered, *days):
    return dict(zip(PARTS, split(made, answered, *days), strict=True))


def as_floats(made, answered, *days):
    return tuple(part.astype(float) for part in split(made, answered, *days))


def valid_and_fit_swapped(made, answered, *days):
    fit, valid, test = split(made, answered, *days)
    return valid, fit, test


def counts_from_one(made, answered, *days):
    return tuple(part + 1 for part in split(made, answered, *days))


def one_twice(made, answered, *days):
    fit, valid, test = split(made, answered, *days)
    return np.concatenate([fit, fit[:1]]), valid, test


def needs_a_sample(made, answered, *days):
    assert made.max() >= answered.min() - 1000
    return split(made, answered, *days)


def how_many(made, answered, *days):
    return tuple(map(len, split(made, answered, *days)))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(
            with_fit(lambda m, a, v, t, e: m < v), "does not know the answer yet", id="no purge"
        ),
        pytest.param(
            with_fit(lambda m, a, v, t, e: a <= v), "does not know the answer yet", id="one late"
        ),
        pytest.param(
            with_fit(lambda m, a, v, t, e: m < v - longest(m, a)),
            "so it may be learnt from",
            id="gap of the longest",
        ),
        pytest.param(
            with_fit(lambda m, a, v, t, e: m < v - 5), "known before day 10", id="gap of 5"
        ),
        pytest.param(
            with_fit(lambda m, a, v, t, e: a < v - 1), "known before day 10", id="one early"
        ),
        pytest.param(
            with_fit(lambda m, a, v, t, e: a < t), "validation has begun", id="fit: a < t"
        ),
        pytest.param(
            with_fit(lambda m, a, v, t, e: (a < v) | (m > e)), "fit is right", id="after the test"
        ),
        pytest.param(
            with_valid(lambda m, a, v, t, e: (m >= v) & (m < t)),
            "the choice is made before day 15",
            id="valid not purged",
        ),
        pytest.param(
            with_valid(lambda m, a, v, t, e: (m >= v) & (a <= t)), "the choice is made", id="a <= t"
        ),
        pytest.param(
            with_valid(lambda m, a, v, t, e: (a >= v) & (a < t)),
            "the validation part has the days from 10 to 14",
            id="answered in valid",
        ),
        pytest.param(
            with_valid(lambda m, a, v, t, e: (m > v) & (a < t)), "it may help", id="m > v"
        ),
        pytest.param(
            with_valid(lambda m, a, v, t, e: (m >= v) & (m + longest(m, a) < t)),
            "it may help",
            id="valid: gap of the longest",
        ),
        pytest.param(
            with_test(lambda m, a, v, t, e: (m >= t) & (a <= e)),
            "when its answer comes does not matter",
            id="test purged",
        ),
        pytest.param(
            with_test(lambda m, a, v, t, e: (m >= t) & (m < e)), "both included", id="end left out"
        ),
        pytest.param(
            with_test(lambda m, a, v, t, e: m >= t), "has the days from 15 to 20", id="without end"
        ),
        pytest.param(
            with_test(lambda m, a, v, t, e: (m > t) & (m <= e)), "both included", id="m > t"
        ),
        pytest.param(
            with_test(lambda m, a, v, t, e: (a > t) & (m <= e)), "the test part has", id="a > t"
        ),
        pytest.param(in_sorted_order, "positions in a sorted copy", id="sorted"),
        pytest.param(sorts_what_it_was_given, "sort a copy", id="in place"),
        pytest.param(the_days, "these are days", id="days"),
        pytest.param(masks, "not True or False", id="masks"),
        pytest.param(of_where, "np.where returns a tuple", id="np.where"),
        pytest.param(fit_and_test, "return fit, valid, test", id="two parts"),
        pytest.param(as_a_dictionary, "return fit, valid, test", id="dictionary"),
        pytest.param(as_floats, "whole numbers (got", id="floats"),
        pytest.param(valid_and_fit_swapped, "validation has begun", id="swapped"),
        pytest.param(counts_from_one, "there is no sample 14", id="from one"),
        pytest.param(one_twice, "is in it twice", id="twice"),
        pytest.param(needs_a_sample, "a part may be empty, and so may", id="no samples"),
        pytest.param(how_many, "a part holds positions (got", id="numbers"),
        pytest.param(lambda *_: None, "return fit, valid, test (got None)", id="None"),
    ],
)
def test_purged_split_rejects(rejects, answer, says):
    rejects(check.purged_split, answer, says)


def one_by_one(made, answered, first_valid, first_test, last_test):
    fit, valid, test = [], set(), []
    for i, (m, a) in enumerate(zip(made.tolist(), answered.tolist(), strict=True)):
        if a < first_valid:
            fit.insert(0, i)
        elif first_valid <= m < first_test and a < first_test:
            valid.add(i)
        elif first_test <= m <= last_test:
            test.append(i)
    return [fit, valid, test]


def with_tensors(made, answered, *days):
    parts = masks(torch.tensor(made), torch.tensor(answered), *days)
    return [torch.nonzero(part).flatten() for part in parts]


def in_a_table(made, answered, first_valid, first_test, last_test):
    table = pd.DataFrame({"made": made, "answered": answered}).sort_values("answered")
    fit = table[table.answered <= first_valid - 1].index
    valid = table[table.made.between(first_valid, first_test - 1) & (table.answered < first_test)]
    return fit, valid.index, table.query("@first_test <= made <= @last_test").index.tolist()


def by_searching(made, answered, first_valid, first_test, last_test):
    by_answer, by_day = np.argsort(answered, kind="stable"), np.argsort(made, kind="stable")
    known = np.searchsorted(answered[by_answer], [first_valid, first_test])
    first, start, stop = np.searchsorted(made[by_day], [first_valid, first_test, last_test + 1])
    valid = np.intersect1d(by_answer[: known[1]], by_day[first:])
    return by_answer[: known[0]], valid, by_day[start:stop]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(split, id="flatnonzero"),
        pytest.param(one_by_one, id="lists and a set"),
        pytest.param(with_tensors, id="tensors"),
        pytest.param(in_a_table, id="an index"),
        pytest.param(by_searching, id="searchsorted"),
    ],
)
def test_purged_split_accepts(accepts, answer):
    accepts(check.purged_split, answer)


def test_a_gap_as_long_as_the_longest_answer_costs_samples():
    assert max(map(too_careful, CASES)) > 10


# ---- 40.3 · Deal windows, not tickers


def counts_of(tables, length):
    return [max(len(table) - length + 1, 0) for table in tables]


def unfolded(tables, length):
    return [table.unfold(0, length, 1) for table in tables if len(table) >= length]


def pieces_of(tables, length, mine):
    """The windows in ``mine``, a range of all of them in a row."""
    pieces, before = [], 0
    for windows in unfolded(tables, length):
        piece = windows[max(mine.start - before, 0) : max(mine.stop - before, 0)]
        if len(piece):
            pieces.append(piece)
        before += len(windows)
    return pieces


def my_range(tables, length):
    return shard_indices(sum(counts_of(tables, length)), dist.get_rank(), dist.get_world_size())


def shared(tables, length):
    return pieces_of(tables, length, my_range(tables, length))


def deals_tickers(tables, length):
    return unfolded(tables[dist.get_rank() :: dist.get_world_size()], length)


def deals_tickers_longest_first(tables, length):
    order = sorted(unfolded(tables, length), key=len, reverse=True)
    loads, mine = [0] * dist.get_world_size(), []
    for windows in order:
        rank = loads.index(min(loads))
        loads[rank] += len(windows)
        if rank == dist.get_rank():
            mine.append(windows)
    return mine


def cuts_each_ticker(tables, length):
    parts = [
        w.tensor_split(dist.get_world_size())[dist.get_rank()] for w in unfolded(tables, length)
    ]
    return [part for part in parts if len(part)]


def cuts_each_ticker_and_takes_turns(tables, length):
    """Equal shares, by moving what is left over to other ranks; but in many pieces."""
    ranks, before, mine = dist.get_world_size(), 0, []
    for windows in unfolded(tables, length):
        part = windows.tensor_split(ranks)
        sizes, left = len(windows) // ranks, len(windows) % ranks
        bounds = np.cumsum([0] + [sizes + ((r - before) % ranks < left) for r in range(ranks)])
        piece = windows[bounds[dist.get_rank()] : bounds[dist.get_rank() + 1]]
        before += left
        mine += [piece] if len(piece) and len(part) else []
    return mine


def every_nth(tables, length):
    before, mine = 0, []
    for windows in unfolded(tables, length):
        first = (dist.get_rank() - before) % dist.get_world_size()
        mine += [windows[first :: dist.get_world_size()]] if first < len(windows) else []
        before += len(windows)
    return mine


def one_window_each(tables, length):
    return [window for piece in shared(tables, length) for window in piece]


def pieces_of_one_window(tables, length):
    return [window[None] for piece in shared(tables, length) for window in piece]


def cuts_the_days(tables, length):
    days = shard_indices(sum(map(len, tables)), dist.get_rank(), dist.get_world_size())
    pieces, before = [], 0
    for table in tables:
        mine = table[max(days.start - before, 0) : max(days.stop - before, 0)]
        pieces += [mine.unfold(0, length, 1)] if len(mine) >= length else []
        before += len(table)
    return pieces


def forgets_the_last(tables, length):
    return pieces_of(
        [table[:-1] for table in tables], length, my_range([t[:-1] for t in tables], length)
    )


def drops_what_is_left_over(tables, length):
    each = sum(counts_of(tables, length)) // dist.get_world_size()
    return pieces_of(tables, length, range(each * dist.get_rank(), each * (dist.get_rank() + 1)))


def fills_up(tables, length):
    total, ranks = sum(counts_of(tables, length)), dist.get_world_size()
    each = -(-total // ranks)
    start = min(each * dist.get_rank(), max(total - each, 0))
    return pieces_of(tables, length, range(start, start + each))


def what_is_left_over_to_the_last(tables, length):
    total, ranks, rank = sum(counts_of(tables, length)), dist.get_world_size(), dist.get_rank()
    each = total // ranks
    return pieces_of(
        tables, length, range(each * rank, total if rank == ranks - 1 else each * (rank + 1))
    )


def ceil_a_rank(tables, length):
    total, ranks, rank = sum(counts_of(tables, length)), dist.get_world_size(), dist.get_rank()
    each = -(-total // ranks)
    return pieces_of(tables, length, range(each * rank, min(each * (rank + 1), total)))


def all_to_everyone(tables, length):
    return unfolded(tables, length)


def all_to_rank_0(tables, length):
    return [] if dist.get_rank() else unfolded(tables, length)


def contiguous(tables, length):
    return [piece.contiguous() for piece in shared(tables, length)]


def by_a_list(tables, length):
    return [piece[list(range(len(piece)))] for piece in shared(tables, length)]


def stacked(tables, length):
    return [torch.stack(list(piece)) for piece in shared(tables, length)]


def in_float64(tables, length):
    return [piece.double() for piece in shared(tables, length)]


def of_a_clone(tables, length):
    return shared([table.clone() for table in tables], length)


def in_one_tensor(tables, length):
    return torch.cat(shared(tables, length) or [torch.zeros(0, 3, length)])


def days_first(tables, length):
    return [piece.transpose(1, 2) for piece in shared(tables, length)]


def features_first(tables, length):
    return [piece.transpose(0, 1) for piece in shared(tables, length)]


def of_another_length(tables, length):
    return shared(tables, length + 1)


def with_empty_pieces(tables, length):
    mine, before, pieces = my_range(tables, length), 0, []
    for windows in unfolded(tables, length):
        pieces.append(windows[max(mine.start - before, 0) : max(mine.stop - before, 0)])
        before += len(windows)
    return pieces


def as_numbers(tables, length):
    return my_range(tables, length)


def stumbles_over_short_tables(tables, length):
    windows = [table.unfold(0, length, 1) for table in tables]
    assert len(windows) == len(tables)
    return shared(tables, length)


def asks_the_others(tables, length):
    counts = torch.tensor([sum(counts_of(tables, length))])
    dist.all_reduce(counts)
    return shared(tables, length)


def only_rank_0_asks(tables, length):
    if dist.get_rank() == 0:
        dist.broadcast(torch.zeros(1), src=0)
    return shared(tables, length)


def writes_into_the_tables(tables, length):
    pieces = shared(tables, length)
    for table in tables:
        table -= table.mean()
    return pieces


def waits_for_ever(tables, length):
    while dist.get_rank():
        pass
    return shared(tables, length)


def takes_tables_out(tables, length):
    pieces = shared(tables, length)
    while tables:
        tables.pop()
    return pieces


def as_a_generator(tables, length):
    return (piece for piece in shared(tables, length))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(deals_tickers, "tickers are dealt", id="tickers"),
        pytest.param(deals_tickers_longest_first, "tickers are dealt", id="longest first"),
        pytest.param(cuts_each_ticker, "differ by one window at most", id="each ticker"),
        pytest.param(cuts_each_ticker_and_takes_turns, "pieces at most", id="each, in turn"),
        pytest.param(every_nth, "it has every 2th window", id="every N-th"),
        pytest.param(one_window_each, "that is one window", id="windows"),
        pytest.param(pieces_of_one_window, "pieces at most", id="pieces of one"),
        pytest.param(cuts_the_days, "a window on a border belongs to a rank", id="days"),
        pytest.param(forgets_the_last, "d - length + 1", id="the last window"),
        pytest.param(drops_what_is_left_over, "every window is on one rank", id="drop last"),
        pytest.param(fills_up, "do not fill up", id="filled up"),
        pytest.param(what_is_left_over_to_the_last, "divide all windows", id="last has the rest"),
        pytest.param(ceil_a_rank, "divide all windows at once", id="rounded up"),
        pytest.param(all_to_everyone, "are on more than one", id="all to all"),
        pytest.param(all_to_rank_0, "differ by one window at most", id="all to rank 0"),
        pytest.param(contiguous, "it is a copy", id="contiguous"),
        pytest.param(by_a_list, "it is a copy", id="a list"),
        pytest.param(stacked, "it is a copy", id="stack"),
        pytest.param(of_a_clone, "it is a copy", id="clone"),
        pytest.param(in_float64, "it holds torch.float64", id="float64"),
        pytest.param(in_one_tensor, "return a list: pieces of two tickers", id="one tensor"),
        pytest.param(days_first, "leave the days last", id="days first"),
        pytest.param(features_first, "not (windows, 3, 10)", id="features first"),
        pytest.param(of_another_length, "not (windows, 3, 10)", id="longer windows"),
        pytest.param(with_empty_pieces, "it has no windows: leave it out", id="empty pieces"),
        pytest.param(as_numbers, "return a list of pieces", id="a range"),
        pytest.param(stumbles_over_short_tables, "a table may be shorter", id="short tables"),
        pytest.param(asks_the_others, "called all_reduce: all have the same", id="all_reduce"),
        pytest.param(only_rank_0_asks, "nothing", id="rank 0 alone"),
        pytest.param(writes_into_the_tables, "has changed them", id="in place"),
        pytest.param(takes_tables_out, "has changed them", id="pop"),
        pytest.param(as_a_generator, "return a list of pieces", id="generator"),
        pytest.param(lambda tables, length: None, "return a list of pieces (got None)", id="None"),
    ],
)
def test_my_windows_rejects(rejects, answer, says):
    rejects(check.my_windows, answer, says)


def from_the_last_ticker_on(tables, length):
    return tuple(shared(tables[::-1], length)[::-1])


def with_strides(tables, length):
    """The same views, by hand."""
    mine, before, pieces = my_range(tables, length), 0, []
    for table, count in zip(tables, counts_of(tables, length), strict=True):
        first, last = max(mine.start - before, 0), min(mine.stop - before, count)
        if first < last:
            day, feature = table.stride()
            shape = (last - first, table.shape[1], length)
            start = table.storage_offset() + first * day
            pieces.append(table.as_strided(shape, (day, feature, day), start))
        before += count
    return pieces


def in_numpys_way(tables, length):
    mine, before, pieces = my_range(tables, length), 0, []
    for table in tables:
        if len(table) < length:
            continue
        windows = sliding_window_view(table.numpy(), length, axis=0, writeable=True)
        piece = windows[max(mine.start - before, 0) : max(mine.stop - before, 0)]
        pieces += [torch.from_numpy(piece)] if len(piece) else []
        before += len(windows)
    return pieces


def of_the_days_it_needs(tables, length):
    mine, before, pieces = my_range(tables, length), 0, []
    for table, count in zip(tables, counts_of(tables, length), strict=True):
        first, last = max(mine.start - before, 0), min(mine.stop - before, count)
        if first < last:
            pieces.append(table[first : last + length - 1].unfold(0, length, 1))
        before += count
    return pieces


def what_is_left_over_to_the_last_ranks(tables, length):
    total, ranks, rank = sum(counts_of(tables, length)), dist.get_world_size(), dist.get_rank()
    return pieces_of(tables, length, range(total * rank // ranks, total * (rank + 1) // ranks))


def short_tables_last(tables, length):
    return shared(sorted(tables, key=len, reverse=True), length)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(shared, id="shard_indices"),
        pytest.param(from_the_last_ticker_on, id="backwards, a tuple"),
        pytest.param(with_strides, id="as_strided"),
        pytest.param(in_numpys_way, id="sliding_window_view"),
        pytest.param(of_the_days_it_needs, id="days, then unfold"),
        pytest.param(what_is_left_over_to_the_last_ranks, id="other borders"),
        pytest.param(short_tables_last, id="sorted"),
    ],
)
def test_my_windows_accepts(accepts, answer):
    accepts(check.my_windows, answer)


def test_my_windows_survives_a_hang(rejects, impatient):
    rejects(check.my_windows, waits_for_ever, "2 ranks: it hangs")


@pytest.mark.parametrize("name", ["honest_features", "purged_split", "my_windows"])
def test_of_a_stub(verdict, name):
    def stub(*_):
        raise NotImplementedError

    assert verdict(getattr(check, name), stub).endswith("\n○ not done yet\n")


@pytest.mark.parametrize("name", ["honest_features", "purged_split", "my_windows"])
def test_of_what_is_no_function(verdict, name):
    assert "a function is needed here" in verdict(getattr(check, name), 7)
