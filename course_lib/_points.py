"""Pictures of thousands of points at once: predictions against the truth, prices on a map.

Drawn one over the other, the last points would hide the first, and a dense place would look like a
thin one. So points are counted in cells, or drawn in random order; light means little, dark much.
"""

import math
from collections.abc import Sequence

import numpy as np
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from course_lib._figures import COLOURS, MUTED, WIDTH, figure, thousands

FEW_TO_MANY = seaborn.color_palette("crest", as_cmap=True)
CHEAP_TO_DEAR = seaborn.color_palette("flare", as_cmap=True)
CITIES = {  # longitude, latitude in degrees: landmarks on the coast to read the map by
    "San Francisco": (-122.42, 37.77),
    "Los Angeles": (-118.24, 34.05),
    "San Diego": (-117.16, 32.72),
}


def predicted_against_actual(
    actual: Sequence[float],
    predicted: Sequence[float],
    title: str,
    unit: str,
    origin: str = "real",
) -> Figure:
    """How many predictions fell where, against the truth; right ones lie on the diagonal.

    Args:
        actual: True values.
        predicted: Predicted values, as many.
        title: The finding.
        unit: Unit of both: "dollars".
        origin: ``"real"`` or ``"synthetic"``.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: The two differ in length, or are empty.
    """
    actual, predicted = np.ravel(np.asarray(actual)), np.ravel(np.asarray(predicted))
    if len(actual) != len(predicted) or len(actual) == 0:
        raise ValueError(
            f"predicted_against_actual: {len(actual)} actual and {len(predicted)} predicted "
            "values: as many of both are needed, and at least one"
        )
    fig, ax = figure(
        title,
        xlabel=f"actual ({unit})",
        ylabel=f"predicted ({unit})",
        size=(6.6, 5.8),
        origin=origin,
    )
    low, high = float(min(actual.min(), predicted.min())), float(max(actual.max(), predicted.max()))
    pad = 0.02 * (high - low) or 1.0
    low, high = low - pad, high + pad
    cells = ax.hexbin(
        actual,
        predicted,
        gridsize=42,
        extent=(low, high, low, high),
        bins="log",
        mincnt=1,
        cmap=FEW_TO_MANY,
        linewidths=0.1,
    )
    ax.plot([low, high], [low, high], color=COLOURS[3], linewidth=1.6, linestyle=(0, (5, 2)))
    for x, y, text in ((0.03, 0.97, "predicted too high"), (0.97, 0.03, "predicted too low")):
        ax.text(
            x,
            y,
            text,
            transform=ax.transAxes,
            ha="left" if x < 0.5 else "right",
            va="top" if y > 0.5 else "bottom",
            color=MUTED,
            fontsize=9,
        )
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.xaxis.set_major_formatter(thousands())
    ax.yaxis.set_major_formatter(thousands())
    ax.locator_params(nbins=6)
    bar = _colourbar(fig, cells, "predictions in a cell")
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    return fig


def map_of_prices(
    longitude: Sequence[float],
    latitude: Sequence[float],
    price: Sequence[float],
    title: str,
    origin: str = "real",
    label: str = "median house value (dollars)",
) -> Figure:
    """Prices where they were paid: one dot a district.

    Args:
        longitude: Degrees east (California: negative).
        latitude: Degrees north.
        price: The value that colours the dot.
        title: The finding.
        origin: ``"real"`` or ``"synthetic"``.
        label: What the colour shows, with its unit.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: The three differ in length, or are empty.
    """
    longitude, latitude, price = (np.asarray(v, dtype=float) for v in (longitude, latitude, price))
    if not len(longitude) == len(latitude) == len(price) > 0:
        raise ValueError(
            f"map_of_prices: {len(longitude)} longitudes, {len(latitude)} latitudes and "
            f"{len(price)} prices: as many of each are needed, and at least one"
        )
    fig, ax = figure(
        title,
        xlabel="longitude (degrees)",
        ylabel="latitude (degrees)",
        size=(WIDTH, 6.4),
        origin=origin,
    )
    # In random order: the file's own order would let the last district hide its neighbours.
    order = np.random.default_rng(0).permutation(len(price))
    dots = ax.scatter(
        longitude[order],
        latitude[order],
        c=price[order],
        cmap=CHEAP_TO_DEAR,
        s=7,
        alpha=0.75,
        linewidths=0,
    )
    for city, (east, north) in CITIES.items():
        near = (abs(longitude - east) < 0.5) & (abs(latitude - north) < 0.5)
        if near.any():
            ax.annotate(
                city,
                (east, north),
                (-8, -4),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=9,
                bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none"},
            )
    ax.margins(0.09)  # room for the names beside the coast
    # A degree of longitude is shorter than one of latitude, by the cosine of the latitude.
    ax.set_aspect(1 / math.cos(math.radians(float(np.mean(latitude)))))
    _colourbar(fig, dots, label)
    return fig


def _colourbar(fig: Figure, drawn, label: str):
    bar = fig.colorbar(drawn, label=label, shrink=0.85, aspect=28, pad=0.02)
    bar.outline.set_visible(False)
    bar.solids.set_alpha(1)
    bar.ax.yaxis.set_major_formatter(thousands())
    return bar
