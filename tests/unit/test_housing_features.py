"""The split is scikit-learn's; a feature learns nothing from rows it must not know."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from course_lib.data import housing
from course_lib.data._housing_features import features, split

ROWS = 400


@pytest.fixture(scope="module")
def made():
    frame = housing.make_stand_in(ROWS)
    frame.loc[[3, 50, 200, 399], "total_bedrooms"] = np.nan  # gaps whatever the seed does
    return frame


@pytest.fixture
def frame(made):
    return made.copy()


@pytest.mark.parametrize("rows", [2, 9, 10, 11, 101, 20_640])
def test_the_split_is_scikit_learns_row_for_row(rows):
    train, test = train_test_split(np.arange(rows), test_size=0.2, random_state=42)
    ours = split(rows)
    assert ours[0].tolist() == train.tolist()
    assert ours[1].tolist() == test.tolist()
    assert {rows.dtype for rows in ours} == {np.dtype("int64")}


def test_the_split_does_not_touch_the_global_generator():
    np.random.seed(7)
    expected = np.random.RandomState(7).random()
    split(100)
    assert np.random.random() == expected


def test_thirteen_numbers_a_row_and_none_is_missing(frame):
    x = features(frame, range(ROWS))
    assert x.shape == (ROWS, 13)
    assert set(x.dtypes) == {np.dtype("float64")}
    assert x.notna().all(axis=None)
    assert not {"ocean_proximity", "median_house_value"} & set(x.columns)
    assert x.index.equals(frame.index)


def test_features_worked_out_by_hand(frame):
    row = {
        "longitude": -122.0,
        "latitude": 37.5,
        "total_rooms": 800.0,
        "total_bedrooms": 200.0,
        "population": 500.0,
        "households": 160.0,
    }
    for column, value in row.items():
        frame.loc[5, column] = value
    x = features(frame, range(ROWS)).loc[5]
    assert x["rooms_per_household"] == 5.0
    assert x["bedrooms_per_room"] == 0.25
    assert x["people_per_household"] == 3.125
    assert x["north_east"] == -84.5
    assert x["north_west"] == 159.5


def test_a_gap_is_filled_with_the_median_of_the_rows_to_learn_from(frame):
    frame.loc[[0, 1, 2], "total_bedrooms"] = [100.0, 200.0, 900.0]
    x = features(frame, [0, 1, 2, 3])  # row 3 has a gap itself
    assert x["total_bedrooms"].iloc[[3, 50, 200, 399]].tolist() == [200.0] * 4
    assert x["bedrooms_per_room"].iloc[50] == 200 / frame["total_rooms"].iloc[50]


@pytest.mark.parametrize("index", ["counted", "shuffled", "named"])
def test_rows_outside_fit_on_change_no_other_rows_features(frame, index):
    if index == "shuffled":  # fit_on holds row numbers, not labels
        frame.index = np.random.RandomState(0).permutation(ROWS)
    elif index == "named":
        frame.index = [f"district {i}" for i in range(ROWS)]
    train, test = split(ROWS)
    before = features(frame, train)
    changed = frame.copy()
    numbers = [changed.columns.get_loc(c) for c in changed.columns if c != "ocean_proximity"]
    touched = test[::2]
    changed.iloc[touched, numbers] = changed.iloc[touched, numbers] * 1000 + 1
    after = features(changed, train)
    others = np.setdiff1d(np.arange(ROWS), touched)
    pd.testing.assert_frame_equal(before.iloc[others], after.iloc[others], check_exact=True)


def test_the_input_is_left_as_it_was(frame, made):
    features(frame, range(10))
    pd.testing.assert_frame_equal(frame, made, check_exact=True)
