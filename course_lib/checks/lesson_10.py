"""Questions for the exercises of lesson 10."""

import numpy as np
import pandas as pd

from course_lib.checks._engine import Ask, exercise
from course_lib.data import housing

MOST_COLUMNS = 5
SLACK = 1.05  # how much worse than with all columns the chosen ones may be


@exercise("10.1 · Fill the gaps")
def fill_gaps(ask: Ask, answer) -> None:
    """``answer(column, train_rows) -> Series``: gaps filled with the median of the training rows."""
    column = pd.Series([1.0, np.nan, 3.0, 100.0, np.nan, 5.0, 900.0], name="rooms")
    train_rows = np.array([0, 2, 4, 5])
    (got,) = ask.run(_on_a_copy, answer, column, train_rows, nprocs=1)
    filled, untouched = got
    ask.that(
        isinstance(filled, pd.Series) and list(filled.index) == list(column.index),
        "a Series comes back, with every row",
        "column.fillna(value) gives a new Series of the same length",
    )
    ask.that(not filled.isna().any(), "no gap is left")
    fill = column.iloc[train_rows].median()
    hint = "median of the rows in train_rows only: column.iloc[train_rows].median()"
    if filled[1] == column.median():
        hint = "that is the median of all rows: the test rows have leaked into it"
    elif filled[1] == column.iloc[train_rows].mean() and filled[1] != fill:
        hint = "that is the mean; one very large block would pull it up"
    ask.that(
        filled[1] == fill and filled[4] == fill,
        f"gaps in training and test rows hold the training rows' median, {fill:g}",
        f"{hint} (got {filled[1]:g} and {filled[4]:g})",
    )
    known = column.dropna()
    ask.that(filled[known.index].equals(known), "all other numbers are as they were")
    ask.that(untouched, "the column that was passed in is unchanged", "work on a copy")


def _on_a_copy(answer, column: pd.Series, train_rows: np.ndarray):
    given = column.copy()
    filled = answer(given, train_rows)
    return filled, given.equals(column)


@exercise("10.2 · The neighbourhood, without a leak")
def price_nearby(ask: Ask, answer) -> None:
    """``answer(place, price, train_rows) -> Series``: mean training price at the row's place."""
    place = pd.Series(["a", "a", "b", "b", "b", "c", "d", "d"])
    price = pd.Series([10.0, 30.0, 100.0, 200.0, 600.0, 5.0, 7.0, 9.0])
    train_rows = np.array([0, 2, 3, 7])
    changed = price.copy()
    changed.iloc[[1, 4, 5, 6]] = [1e6, 2e6, 3e6, 4e6]  # the future: nobody may look at it
    (answers,) = ask.run(_for_each, answer, place, [price, changed], train_rows, nprocs=1)
    feature, after = (pd.Series(a, dtype=float).reset_index(drop=True) for a in answers)
    ask.that(len(feature) == len(place), f"one number for each of the {len(place)} rows")
    ask.that(
        feature.equals(after),
        "changed test prices change nothing",
        "select the training rows of both place and price before you group",
    )
    seen = pd.Series([10.0, 10.0, 150.0, 150.0, 150.0, np.nan, 9.0, 9.0])
    there = seen.notna()
    ask.that(
        np.allclose(feature[there], seen[there]),
        "places with training rows: their mean training price",
        f"group the training prices by place and map the means back (got {list(feature)})",
    )
    overall = price.iloc[train_rows].mean()
    ask.that(
        feature[5] == overall,
        f"a place without any: the mean of all training prices, {overall:g}",
        f"fill what the map does not know (got {feature[5]:g})",
    )


def _for_each(answer, place, prices, train_rows):
    return [answer(place.copy(), price.copy(), train_rows) for price in prices]


@exercise("10.3 · Five columns")
def my_columns(ask: Ask, answer) -> None:
    """``answer() -> list[str]``: at most five columns, nearly as good as all on validation rows."""
    (names,) = ask.run(answer, nprocs=1)
    frame = _table()
    ask.that(
        isinstance(names, list | tuple) and all(isinstance(n, str) for n in names),
        "a list of names comes back",
        "return ['median_income', …]",
    )
    unknown = [n for n in names if n not in frame]
    ask.that(
        names and not unknown,
        "all of them are columns of housing.features",
        f"unknown: {unknown}. There are {[c for c in frame if c != housing.TARGET]}",
    )
    ask.that(
        housing.TARGET not in names,
        "the price itself is not among them",
        "that is the answer, not a feature",
    )
    ask.that(
        len(set(names)) <= MOST_COLUMNS, f"at most {MOST_COLUMNS} columns", f"got {len(names)}"
    )
    everything = [c for c in frame if c != housing.TARGET]
    (errors,) = ask.run(
        _errors, frame, [everything, list(dict.fromkeys(names))], nprocs=1, deadline=120, timeout=60
    )
    all_of_them, chosen = errors
    ask.that(
        chosen <= SLACK * all_of_them,
        f"validation RMSE ${chosen:,.0f}, with all {len(everything)} columns ${all_of_them:,.0f}: "
        f"at most {SLACK - 1:.0%} more",
        "which columns did the third chart of the lesson put first? And which of them are twins?",
    )


def _table() -> pd.DataFrame:
    frame = housing.load("auto").frame
    train_rows, _ = housing.split(len(frame))
    table = housing.features(frame, fit_on=train_rows)
    table[housing.TARGET] = frame[housing.TARGET]
    return table.iloc[train_rows]


def _errors(table: pd.DataFrame, choices: list[list[str]]) -> list[float]:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.metrics import root_mean_squared_error

    fifth = len(table) // 5
    valid, fit = table.iloc[:fifth], table.iloc[fifth:]
    errors = []
    for names in choices:
        model = HistGradientBoostingRegressor(random_state=0)
        model.fit(fit[names], fit[housing.TARGET])
        errors.append(root_mean_squared_error(valid[housing.TARGET], model.predict(valid[names])))
    return errors
