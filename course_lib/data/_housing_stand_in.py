"""A made-up California, for when the real house prices cannot be had.

A lesson has to work without a network, and teach the same things: so the stand-in has the real
table's columns, its gaps, caps, rare category and geographic order, and prices that depend on
place, income and crowding in ways a straight line misses. It is plainly not real: its towns are
round blobs behind a coast drawn with twelve points.

Invariants: each call returns the same table, and the table passes the checks of a real file.
"""

import numpy as np
import pandas as pd

# Of each region: latitude and longitude of its centre, its spread (degrees), its share of the
# rows, what living there is worth.
_REGIONS = np.array(
    [
        (34.00, -118.10, 0.28, 0.42, 0.60),
        (32.85, -117.05, 0.22, 0.12, 0.50),
        (37.60, -122.10, 0.28, 0.22, 1.00),
        (38.55, -121.40, 0.28, 0.08, 0.15),
        (36.60, -119.60, 0.70, 0.11, 0.00),
        (39.50, -121.80, 1.00, 0.05, 0.00),
    ]
)
# The coast from south to north.
_LATITUDE = (32.5, 33.0, 33.7, 34.05, 34.4, 34.5, 35.6, 36.6, 37.8, 39.0, 40.4, 42.0)
_LONGITUDE = (
    *(-117.12, -117.3, -118.1, -118.8, -119.6, -120.5),
    *(-121.1, -121.9, -122.5, -123.7, -124.3, -124.2),
)


def make_stand_in(rows: int) -> pd.DataFrame:
    """Make up a table of `rows` block groups with the columns of California housing.

    Gradient boosting has three quarters of a linear model's error on it; on the real data it has
    two thirds.
    """
    rng = np.random.default_rng(1990)
    region = np.sort(rng.choice(len(_REGIONS), rows, p=_REGIONS[:, 3]))
    latitude, longitude, from_sea = _places(rng, region)
    from_bay = np.hypot(latitude - 37.75, longitude + 122.3)
    ocean = np.select(
        [from_sea < 0.09, from_bay < 0.4, from_sea < 0.85],
        ["NEAR OCEAN", "NEAR BAY", "<1H OCEAN"],
        "INLAND",
    )
    island = rng.choice(rows, 5, replace=False)
    latitude[island], longitude[island], from_sea[island] = 33.4, -118.4, 0
    ocean[island] = "ISLAND"

    away = np.hypot(latitude[:, None] - _REGIONS[:, 0], longitude[:, None] - _REGIONS[:, 1])
    near = np.exp(-away / 0.35)  # rows × regions: 1 in the centre, falling off with distance
    age = rng.normal(22 + 18 * near.max(axis=1), 11).round().clip(1, 52)
    income = rng.lognormal(1.15 + 0.35 * np.exp(-from_sea), 0.45).clip(0.4999, 15.0001)
    households = rng.lognormal(6.0, 0.68, rows).round().clip(1, 6_000)
    total_rooms = households * (3.2 + 0.55 * income**0.85 * rng.lognormal(0, 0.2, rows))
    bedrooms = (households * rng.normal(1.07, 0.07, rows)).round().clip(1)
    bedrooms[rng.random(rows) < 0.01] = np.nan
    crowding = rng.normal(0, 0.24, rows)  # logarithm of people a household, around its mean

    worth = near @ _REGIONS[:, 4] + np.exp(-from_sea / 0.2)
    log_price = (
        10.95
        + 1.75 * np.tanh(income / 7) * (1 + 0.1 * worth)
        + 0.55 * worth
        + 0.12 * np.sin(age / 8)
        - 0.75 * crowding
        + 0.17 * rng.standard_normal(rows)  # what no model can know
    )
    return pd.DataFrame(
        {
            "longitude": longitude.round(2),
            "latitude": latitude.round(2),
            "housing_median_age": age,
            "total_rooms": total_rooms.round(),
            "total_bedrooms": bedrooms,
            "population": (households * np.exp(1.05 + crowding)).round().clip(3),
            "households": households,
            "median_income": income.round(4),
            "median_house_value": np.exp(log_price).round(-2).clip(14_999, 500_001),
            "ocean_proximity": ocean,
        }
    )


def _places(rng: np.random.Generator, region: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return latitude, longitude and distance from the coast (degrees) for each row's region."""
    rows = len(region)
    spread = _REGIONS[region, 2]
    latitude = _REGIONS[region, 0] + spread * rng.standard_normal(rows)
    longitude = _REGIONS[region, 1] + 1.2 * spread * rng.standard_normal(rows)
    # What fell into the sea or over the southern border is folded back onto the land.
    latitude = np.minimum(32.55 + abs(latitude - 32.55), 41.95)
    coast = np.interp(latitude, _LATITUDE, _LONGITUDE)
    border = np.interp(latitude, (35, 39), (-114.6, -120.0))
    longitude = np.minimum(coast + abs(longitude - coast), border - 0.5 * rng.random(rows))
    return latitude, longitude, longitude - coast
