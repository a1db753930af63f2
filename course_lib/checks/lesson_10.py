"""Questions for the exercises of lesson 10.

The small tables carry row labels that are not their positions, as a shuffled table does: an answer
that takes one for the other shows.
"""

import numpy as np
import pandas as pd

from course_lib.checks._engine import Ask, exercise
from course_lib.data import housing

MOST_COLUMNS = 5
SLACK = 1.05  # how much worse than with all columns the chosen ones may be
POSITIONS = "train_rows are positions, not labels: .iloc[train_rows]"


@exercise("10.1 · Fill the gaps")
def fill_gaps(ask: Ask, answer) -> None:
    """``answer(column, train_rows) -> Series``: gaps get the training rows' median."""
    numbers = [1.0, np.nan, 4.0, 100.0, np.nan, 5.0, 900.0]
    column = pd.Series(numbers, index=[5, 3, 0, 6, 2, 4, 1], name="rooms")
    train_rows = np.array([4, 0, 3, 2])
    hint = "return the filled column; column.fillna(value) gives a new Series"
    ((filled, untouched),) = ask.run(_on_a_copy, answer, column, train_rows, nprocs=1)
    if isinstance(filled, pd.Series):
        hint = f"all {len(column)} rows belong to it, and their labels (index=column.index)"
    ask.that(
        isinstance(filled, pd.Series) and list(filled.index) == list(column.index),
        "a Series comes back, with every row",
        hint,
    )
    ask.that(
        not filled.isna().any(),
        "no gap is left",
        "test rows have gaps, too: fill the whole column with the one number",
    )
    known = column.notna()
    ask.that(
        _near(filled[known], column[known]),
        "all other numbers are as they were",
        "only the gaps may change",
    )
    fill = column.iloc[train_rows].median()
    gaps = filled[~known]
    hint = "median of the rows in train_rows only: column.iloc[train_rows].median()"
    if _near(gaps, column.median()):
        hint = "that is the median of all rows: the test rows have leaked into it"
    elif _near(gaps, column.loc[train_rows].median()):
        hint = POSITIONS
    elif _near(gaps, column.iloc[train_rows].mean()) or _near(gaps, column.mean()):
        hint = "that is the mean; one very large block would pull it up"
    ask.that(
        _near(gaps, fill),
        f"gaps in training and test rows hold the training rows' median, {fill:g}",
        f"{hint} (got {_listed(gaps)})",
    )
    ask.that(untouched, "the column that was passed in is unchanged", "work on a copy")


def _on_a_copy(answer, column: pd.Series, train_rows: np.ndarray):
    given = column.copy()
    filled = answer(given, train_rows.copy())
    return filled, given.equals(column)


@exercise("10.2 · The neighbourhood, without a leak")
def price_nearby(ask: Ask, answer) -> None:
    """``answer(place, price, train_rows) -> Series``: mean training price at the row's place."""
    labels = [4, 7, 2, 9, 0, 1, 3, 8, 6, 5]
    place = pd.Series(["a", "a", "b", "b", "b", "b", "c", "d", "d", "e"], index=labels)
    price = pd.Series([10.0, 30, 100, 200, 600, 900, 5, 7, 9, 4], index=labels)
    train_rows = np.array([8, 0, 4, 3, 2])
    test_rows = np.setdiff1d(np.arange(len(price)), train_rows)
    changed = price.copy()
    changed.iloc[test_rows] = 1e6 * (1 + np.arange(len(test_rows)))  # nobody may look at it
    (answers,) = ask.run(_for_each, answer, place, [price, changed], train_rows, nprocs=1)
    feature, after = (pd.Series(a, dtype=float).reset_index(drop=True) for a in answers)
    ask.that(
        len(feature) == len(place),
        f"one number for each of the {len(place)} rows",
        f"map the means back to the rows of place (got {len(feature)})",
    )
    train_place, train_price = place.iloc[train_rows], price.iloc[train_rows]
    per_place = train_price.groupby(train_place)
    seen, overall = place.map(per_place.mean()).reset_index(drop=True), train_price.mean()
    there = seen.notna()
    by_label = price.loc[train_rows].groupby(place.loc[train_rows]).mean()
    leak = "select the training rows of both place and price before you group"
    if _near(feature[there], seen[there]):
        leak = "the known places are right; the number for the others must not know test prices"
    elif feature.equals(_mapped(place, by_label, price.loc[train_rows].mean())):
        leak = POSITIONS
    ask.that(feature.equals(after), "changed test prices change nothing", leak)
    hint = "group the training prices by place and map the means back"
    if _near(feature[there], place.map(per_place.median())[there.to_numpy()]):
        hint = "the mean is asked for, not the median"
    elif _near(feature[there], overall):
        hint = "that is one mean for all places: group by place"
    ask.that(
        _near(feature[there], seen[there]),
        "places with training rows: their mean training price",
        f"{hint} (got {_listed(feature)})",
    )
    hint = "fill what the map does not know"
    if _near(feature[~there], per_place.mean().mean()):
        hint = "that is the mean of the places' means; take the mean of the training prices"
    ask.that(
        _near(feature[~there], overall),
        f"a place without any: the mean of all training prices, {overall:g}",
        f"{hint} (got {_listed(feature[~there])})",
    )


def _for_each(answer, place, prices, train_rows):
    return [answer(place.copy(), price.copy(), train_rows.copy()) for price in prices]


def _mapped(place: pd.Series, means: pd.Series, otherwise: float) -> pd.Series:
    return place.map(means).fillna(otherwise).reset_index(drop=True)


def _near(got: pd.Series, expected) -> bool:
    """Equal to six digits, in the order of the rows: float32 is precise enough here."""
    return np.allclose(got.to_numpy(float), np.asarray(expected, float), rtol=1e-6, atol=0)


def _listed(numbers: pd.Series) -> str:
    return ", ".join(f"{n:g}" for n in numbers)


@exercise("10.3 · Five columns")
def my_columns(ask: Ask, answer) -> None:
    """``answer() -> list[str]``: at most five columns, nearly as good as all on validation rows."""
    patience = {"deadline": 120, "timeout": 60}  # it may look at the data before it answers
    (names,) = ask.run(answer, nprocs=1, **patience)
    table = _table()
    everything = [c for c in table if c != housing.TARGET]
    names = list(names) if isinstance(names, tuple | set | np.ndarray | pd.Index) else names
    ask.that(
        isinstance(names, list) and names and all(isinstance(n, str) for n in names),
        "a list of names comes back",
        "return ['median_income', …]",
    )
    ask.that(
        housing.TARGET not in names,
        "the price itself is not among them",
        "that is the answer, not a feature",
    )
    unknown = [n for n in names if n not in everything]
    ask.that(
        not unknown,
        "all of them are columns of housing.features",
        f"unknown: {', '.join(unknown)}. There are {', '.join(everything)}",
    )
    names = list(dict.fromkeys(names))
    ask.that(len(names) <= MOST_COLUMNS, f"at most {MOST_COLUMNS} columns", f"got {len(names)}")
    (errors,) = ask.run(_errors, table, [everything, names], nprocs=1, **patience)
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
    from threadpoolctl import threadpool_limits

    fifth = len(table) // 5
    valid, fit = table.iloc[:fifth], table.iloc[fifth:]
    errors = []
    with threadpool_limits(1):  # threads that wait for each other on busy cores take far longer
        for names in choices:
            model = HistGradientBoostingRegressor(random_state=0)
            model.fit(fit[names], fit[housing.TARGET])
            predicted = model.predict(valid[names])
            errors.append(root_mean_squared_error(valid[housing.TARGET], predicted))
    return errors
