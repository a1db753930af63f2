"""The split and the features of the house-price lessons.

Lesson 10 builds them by hand and shows that they are the same; lessons 11 and 12 take them from
here. Invariant: nothing about a feature is learned from rows outside ``fit_on``.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

SPLIT_SEED = 42
TEST_SHARE = 0.2
_NOT_NUMBERS = ["median_house_value", "ocean_proximity"]


def split(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and for testing: 80/20, shuffled, always the same.

    The same rows as scikit-learn's ``train_test_split(…, test_size=0.2, random_state=42)``.

    Args:
        rows: How many rows there are.

    Returns:
        Training and test row numbers, int64, in shuffled order.
    """
    order = np.random.RandomState(SPLIT_SEED).permutation(rows)
    tests = int(np.ceil(TEST_SHARE * rows))
    return order[tests:], order[:tests]


def features(frame: pd.DataFrame, fit_on: Sequence[int] | np.ndarray) -> pd.DataFrame:
    """Numeric columns without gaps, with ratios and two diagonal axes of the map.

    Args:
        frame: The table as ``load`` gives it.
        fit_on: The row numbers the median of ``total_bedrooms`` may be learned from.

    Returns:
        13 float64 columns, one row for each row of ``frame``. ``ocean_proximity`` is left to the
        caller, the target is left out.
    """
    x = frame.drop(columns=_NOT_NUMBERS)
    x["total_bedrooms"] = x["total_bedrooms"].fillna(x["total_bedrooms"].iloc[fit_on].median())
    x["rooms_per_household"] = x["total_rooms"] / x["households"]
    x["bedrooms_per_room"] = x["total_bedrooms"] / x["total_rooms"]
    x["people_per_household"] = x["population"] / x["households"]
    x["north_east"] = x["latitude"] + x["longitude"]
    x["north_west"] = x["latitude"] - x["longitude"]
    return x
