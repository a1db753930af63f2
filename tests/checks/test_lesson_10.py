"""Exercises of lesson 10: wrong answers are told apart, right ones written differently pass."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from course_lib.checks import lesson_10 as check
from course_lib.data import housing

REAL = Path(os.environ.get("COURSE_DATA", "/nowhere")) / "housing.csv"

# ---- 10.1 · Fill the gaps


def with_the_median_of_all_rows(column, train_rows):
    return column.fillna(column.median())


def with_the_training_mean(column, train_rows):
    return column.fillna(column.iloc[train_rows].mean())


def with_the_mean_of_all_rows(column, train_rows):
    return column.fillna(column.mean())


def with_nought(column, train_rows):
    return column.fillna(0)


def takes_labels_for_positions(column, train_rows):
    return column.fillna(column[train_rows].median())


def fills_from_above(column, train_rows):
    return column.ffill()


def drops_the_gaps(column, train_rows):
    return column.dropna()


def fills_training_rows_only(column, train_rows):
    filled, train = column.copy(), column.iloc[train_rows]
    filled.iloc[train_rows] = train.fillna(train.median())
    return filled


def returns_training_rows_only(column, train_rows):
    train = column.iloc[train_rows]
    return train.fillna(train.median())


def fills_in_place(column, train_rows):
    column.fillna(column.iloc[train_rows].median(), inplace=True)
    return column


def returns_nothing(column, train_rows):
    column = column.fillna(column.iloc[train_rows].median())


def returns_the_median(column, train_rows):
    return column.iloc[train_rows].median()


def loses_the_labels(column, train_rows):
    return pd.Series(np.where(column.isna(), column.iloc[train_rows].median(), column))


def replaces_every_number(column, train_rows):
    return pd.Series(column.iloc[train_rows].median(), index=column.index)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(with_the_median_of_all_rows, "the test rows have leaked", id="all rows"),
        pytest.param(with_the_training_mean, "that is the mean", id="mean"),
        pytest.param(with_the_mean_of_all_rows, "that is the mean", id="mean of all"),
        pytest.param(with_nought, "median of the rows in train_rows only", id="0"),
        pytest.param(takes_labels_for_positions, "positions, not labels", id="labels"),
        pytest.param(fills_from_above, "(got 1, 100)", id="ffill"),
        pytest.param(drops_the_gaps, "all 7 rows belong to it", id="dropna"),
        pytest.param(fills_training_rows_only, "test rows have gaps, too", id="training rows"),
        pytest.param(returns_training_rows_only, "all 7 rows belong to it", id="a part"),
        pytest.param(fills_in_place, "work on a copy", id="in place"),
        pytest.param(returns_nothing, "return the filled column", id="None"),
        pytest.param(returns_the_median, "return the filled column", id="a number"),
        pytest.param(loses_the_labels, "index=column.index", id="labels lost"),
        pytest.param(replaces_every_number, "only the gaps may change", id="every number"),
    ],
)
def test_fill_gaps_rejects(rejects, answer, says):
    rejects(check.fill_gaps, answer, says)


def on_a_copy(column, train_rows):
    filled = column.copy()
    filled[filled.isna()] = np.nanmedian(column.to_numpy()[train_rows])
    return filled


def with_scikit_learn(column, train_rows):
    from sklearn.impute import SimpleImputer

    table = column.to_frame()
    imputer = SimpleImputer(strategy="median").fit(table.iloc[train_rows])
    return pd.Series(imputer.transform(table)[:, 0], index=column.index)


def in_float32(column, train_rows):
    train = sorted(column.iloc[train_rows].dropna())
    return column.astype("float32").where(column.notna(), train[len(train) // 2])


def number_by_number(column, train_rows):
    median = column.take(train_rows).quantile(0.5)
    return column.map(lambda number: median if number != number else number)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(on_a_copy, id="copy, nanmedian"),
        pytest.param(with_scikit_learn, id="SimpleImputer"),
        pytest.param(in_float32, id="where, float32"),
        pytest.param(number_by_number, id="take, map"),
    ],
)
def test_fill_gaps_accepts(accepts, answer):
    accepts(check.fill_gaps, answer)


# ---- 10.2 · The neighbourhood, without a leak


def means_of(place, price, train_rows):
    return price.iloc[train_rows].groupby(place.iloc[train_rows]).mean()


def looks_at_all_rows(place, price, train_rows):
    return price.groupby(place).transform("mean")


def fills_with_the_mean_of_all(place, price, train_rows):
    return place.map(means_of(place, price, train_rows)).fillna(price.mean())


def leaves_unknown_places_empty(place, price, train_rows):
    return place.map(means_of(place, price, train_rows))


def fills_with_nought(place, price, train_rows):
    return place.map(means_of(place, price, train_rows)).fillna(0)


def averages_the_places(place, price, train_rows):
    means = means_of(place, price, train_rows)
    return place.map(means).fillna(means.mean())


def takes_the_median(place, price, train_rows):
    known = price.iloc[train_rows]
    medians = known.groupby(place.iloc[train_rows]).median()
    return place.map(medians).fillna(known.mean())


def takes_labels(place, price, train_rows):
    known = price.loc[train_rows]
    means = known.groupby(place.loc[train_rows]).mean()
    return place.map(means).fillna(known.mean())


def returns_one_number_a_place(place, price, train_rows):
    return means_of(place, price, train_rows)


def answers_for_training_rows(place, price, train_rows):
    return price.iloc[train_rows].groupby(place.iloc[train_rows]).transform("mean")


def forgets_the_place(place, price, train_rows):
    return pd.Series(price.iloc[train_rows].mean(), index=place.index)


def leaves_the_row_itself_out(place, price, train_rows):
    known = price.iloc[train_rows]
    groups = known.groupby(place.iloc[train_rows])
    others = (groups.transform("sum") - known) / (groups.transform("count") - 1)
    feature = place.map(groups.mean()).fillna(known.mean())
    feature.loc[others.dropna().index] = others.dropna()
    return feature


def returns_nothing_nearby(place, price, train_rows):
    place.map(means_of(place, price, train_rows)).fillna(price.iloc[train_rows].mean())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(looks_at_all_rows, "training rows of both place and price", id="all rows"),
        pytest.param(fills_with_the_mean_of_all, "the known places are right", id="fill leaks"),
        pytest.param(leaves_unknown_places_empty, "fill what the map does not know", id="NaN"),
        pytest.param(fills_with_nought, "fill what the map does not know (got 0, 0)", id="0"),
        pytest.param(averages_the_places, "the mean of the places' means", id="mean of means"),
        pytest.param(takes_the_median, "not the median", id="median"),
        pytest.param(takes_labels, "positions, not labels", id="labels"),
        pytest.param(returns_one_number_a_place, "map the means back to the rows", id="a place"),
        pytest.param(answers_for_training_rows, "(got 5)", id="training rows"),
        pytest.param(forgets_the_place, "one mean for all places", id="no place"),
        pytest.param(leaves_the_row_itself_out, "their mean training price", id="leave one out"),
        pytest.param(returns_nothing_nearby, "one number for each of the 10 rows", id="None"),
    ],
)
def test_price_nearby_rejects(rejects, answer, says):
    rejects(check.price_nearby, answer, says)


def with_a_dictionary(place, price, train_rows):
    prices = {}
    for row in train_rows:
        prices.setdefault(place.iloc[row], []).append(float(price.iloc[row]))
    means = {name: sum(of) / len(of) for name, of in prices.items()}
    overall = sum(map(sum, prices.values())) / len(train_rows)
    return [means.get(name, overall) for name in place]


def hiding_the_test_prices(place, price, train_rows):
    seen = np.isin(np.arange(len(price)), train_rows)
    known = price.where(seen)
    return known.groupby(place).transform("mean").fillna(known.mean())


def in_numpy(place, price, train_rows):
    names, number = np.unique(place.to_numpy().astype(str), return_inverse=True)
    values = price.to_numpy(dtype="float32")[train_rows]
    sums = np.bincount(number[train_rows], values, minlength=len(names))
    counts = np.bincount(number[train_rows], minlength=len(names))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), values.mean())
    return means[number].astype("float32")


def by_joining(place, price, train_rows):
    rows = pd.DataFrame({"place": place, "price": price})
    train = rows.iloc[train_rows]
    means = train.groupby("place", as_index=False).price.mean()
    joined = rows[["place"]].merge(means, on="place", how="left")
    return joined["price"].fillna(train["price"].mean())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(with_a_dictionary, id="dictionary, list"),
        pytest.param(hiding_the_test_prices, id="where, transform"),
        pytest.param(in_numpy, id="numpy, float32"),
        pytest.param(by_joining, id="merge, new labels"),
    ],
)
def test_price_nearby_accepts(accepts, answer):
    accepts(check.price_nearby, answer)


# ---- 10.3 · Five columns

TURNED = ["median_income", "north_east", "north_west", "people_per_household", "housing_median_age"]


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))


@pytest.fixture(params=["real", "synthetic"])
def data(request):
    if request.param == "synthetic":
        request.getfixturevalue("made_up")
    elif not REAL.is_file():
        pytest.skip("no housing.csv in COURSE_DATA")


def six():
    return [*TURNED, "longitude"]


def the_price_itself():
    return [housing.TARGET, "median_income"]


def a_name_of_its_own():
    return ["median_income", "rooms per household"]


def a_column_of_words():
    return ["median_income", "ocean_proximity"]


def one_string():
    return "median_income"


def names_in_one_string():
    return "median_income, longitude, latitude"


def none_at_all():
    return []


def numbers():
    return [7, 0, 1]


def nothing():
    pass


def without_the_map():
    return ["median_income", "people_per_household", "housing_median_age"]


def five_twins():
    return ["median_income", "households", "total_rooms", "total_bedrooms", "population"]


def the_best_one_five_times():
    return ["median_income"] * 5


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(six, "at most 5 columns\n  hint: got 6", id="six"),
        pytest.param(the_price_itself, "that is the answer, not a feature", id="target"),
        pytest.param(a_name_of_its_own, "unknown: rooms per household. There are", id="unknown"),
        pytest.param(a_column_of_words, "unknown: ocean_proximity. There are", id="words"),
        pytest.param(one_string, "return ['median_income', …]", id="a string"),
        pytest.param(names_in_one_string, "return ['median_income', …]", id="in one string"),
        pytest.param(none_at_all, "a list of names comes back", id="none"),
        pytest.param(numbers, "a list of names comes back", id="numbers"),
        pytest.param(nothing, "a list of names comes back", id="None"),
        pytest.param(without_the_map, "at most 5% more\n  hint: which columns", id="no map"),
        pytest.param(five_twins, "And which of them are twins?", id="twins"),
        pytest.param(the_best_one_five_times, "at most 5% more", id="duplicates"),
    ],
)
def test_my_columns_rejects(rejects, made_up, answer, says):
    rejects(check.my_columns, answer, says)


def the_map_turned():
    return TURNED


def one_axis_of_each():
    income, _, _, people, age = TURNED
    return income, "longitude", "north_east", people, age


def from_a_chart():
    chart = pd.DataFrame({"RMSE added": [4.0, 3, 2, 1, 5]}, index=TURNED)
    return chart["RMSE added"].nlargest(5).index


def one_of_them_twice():
    return [*TURNED, TURNED[0]]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(the_map_turned, id="a list"),
        pytest.param(one_axis_of_each, id="a tuple"),
        pytest.param(from_a_chart, id="an index"),
        pytest.param(one_of_them_twice, id="five different ones"),
    ],
)
def test_my_columns_accepts(verdict, data, answer):
    said = verdict(check.my_columns, answer)
    assert "✗" not in said
    assert said.endswith(": at most 5% more\n")
    assert said.count("✓") == 5


def test_my_columns_of_a_stub_loads_nothing(verdict):
    def stub():
        raise NotImplementedError

    assert verdict(check.my_columns, stub) == "10.3 · Five columns\n○ not done yet\n"
