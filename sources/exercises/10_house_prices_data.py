# %% [markdown]
# # Exercises for lesson 10: house prices, the data
#
# Complete each function, run its cell, then run the check below it. The first two use tiny tables whose answers you
# can work out on paper; the third uses the census.

# %%
import numpy as np
import pandas as pd

from course_lib.checks import lesson_10 as check

# %% [markdown]
# ## 10.1 · Fill the gaps
#
# *Difficulty 1 of 5 · 5 minutes*
#
# Fill the gaps of a column, in training and test rows alike, with a number that was learned from the training rows.


# %%
def fill_gaps(column: pd.Series, train_rows: np.ndarray) -> pd.Series:
    """Fill gaps with the median of the training rows.

    Args:
        column: Numbers, some of them NaN. It must not be changed.
        train_rows: Positions (as for `.iloc`) of the rows that may be learned from.

    Returns:
        A new Series with the same index and without gaps.
    """
    # BEGIN SOLUTION
    return column.fillna(column.iloc[train_rows].median())
    # END SOLUTION


# %%
check.fill_gaps(fill_gaps)

# %% [markdown]
# ## 10.2 · The neighbourhood, without a leak
#
# *Difficulty 3 of 5 · 10 minutes · goal: changing the price of a test row changes nothing*
#
# The lesson's feature, once more by yourself: for every row, the mean price at its place. Prices of test rows must not
# enter it. For a place without a training row, take the mean price of all training rows.


# %%
def price_nearby(place: pd.Series, price: pd.Series, train_rows: np.ndarray) -> pd.Series:
    """Mean training price at each row's place.

    Args:
        place: A label for the place of each row.
        price: The price of each row, in dollars.
        train_rows: Positions (as for `.iloc`) of the rows that may be learned from.

    Returns:
        One number for each row of `place`, in dollars.
    """
    # BEGIN SOLUTION
    known = price.iloc[train_rows]
    means = known.groupby(place.iloc[train_rows]).mean()
    return place.map(means).fillna(known.mean())
    # END SOLUTION


# %%
check.price_nearby(price_nearby)

# %% [markdown]
# ## 10.3 · Five columns
#
# *Difficulty 3 of 5 · 15 minutes · goal: at most 5 of the 13 columns, validation RMSE at most 5 % above that of all*
#
# Which five columns would you keep, if you could keep no more? The check trains gradient boosting on yours and on
# all of them, and compares their errors on validation rows. (It never looks at the test rows, so you may
# try as often as you like.) The charts in lesson 10 are a good start; mind the twins.


# %%
def my_columns() -> list[str]:
    """Choose columns of `housing.features`.

    Returns:
        At most five names.
    """
    # BEGIN SOLUTION
    return [
        "median_income",
        "north_east",
        "north_west",
        "people_per_household",
        "housing_median_age",
    ]
    # END SOLUTION


# %%
check.my_columns(my_columns)

# %% [markdown] tags=["solution"]
# Other sets of five do as well. The map needs two axes, and which two matters little: `longitude` and `latitude`, the
# same map turned, or one of each. The five highest of the third chart pass, too: that chart asked a model. The five
# highest by correlation do not (with the real data they are 9 % worse): rooms and bedrooms say the same thing twice
# there, and no straight line knows what people per household are good for.
