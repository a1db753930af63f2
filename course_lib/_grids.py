"""Pictures of a table of numbers: one value for each pair of settings.

A reader finds the best cell by its frame, reads every value in its cell, and sees from the colours
which way it gets better. A run that failed has no value: its cell stays empty, and says so. Runs
that went astray share the darkest colour, so that all the others can be told apart.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib._figures import INK, MUTED, WIDTH, figure
from course_lib._points import CHEAP_TO_DEAR, _colourbar


def heat_map(
    values: Sequence[Sequence[float]],
    rows: Sequence[object],
    columns: Sequence[object],
    title: str,
    xlabel: str,
    ylabel: str,
    label: str,
    origin: str = "real",
) -> Figure:
    """A value for each pair of settings; the smallest is framed.

    Args:
        values: One row of numbers for each of ``rows``. NaN and infinity stand for no result.
        rows: Names of the rows, from the top.
        columns: Names of the columns, from the left.
        title: The finding.
        xlabel: What the columns are, with its unit.
        ylabel: What the rows are, with its unit.
        label: What is measured, with its unit; less is better.
        origin: ``"real"`` or ``"synthetic"``.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: The values are not a table of ``rows`` by ``columns``, or none is finite.
    """
    values = np.array(values, dtype=float)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"heat_map: values of shape {values.shape} for {len(rows)} rows and "
            f"{len(columns)} columns: one number for each pair is needed"
        )
    found = np.isfinite(values)
    if not found.any():
        raise ValueError("heat_map: no value is a finite number, so there is nothing to draw")
    size = (WIDTH, 1.7 + 0.42 * len(rows))
    fig, ax = figure(title, xlabel=xlabel, ylabel=ylabel, size=size, origin=origin)
    ax.grid(visible=False)
    shown, best = np.ma.array(values, mask=~found), values[found].min()
    most = best + 5 * (np.median(values[found]) - best)
    astray = best < most < values[found].max()
    limit = most if astray else values[found].max()
    drawn = ax.imshow(shown, cmap=CHEAP_TO_DEAR, aspect="auto", vmin=best, vmax=limit)
    ax.set_xticks(range(len(columns)), [str(name) for name in columns])
    ax.set_yticks(range(len(rows)), [str(name) for name in rows])
    for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        text.set(parse_math=False, color=INK)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    many = np.abs(values[found]).max() >= 1000
    for (row, column), value in np.ndenumerate(values):
        text, colour = "no result", MUTED
        if found[row, column]:
            text = (f"{value:,.0f}" if many else f"{value:.3g}").replace("-", "−")
            red, green, blue, _ = drawn.to_rgba(value)
            colour = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.55 else INK
        ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=9.5)
    row, column = np.unravel_index(np.argmin(np.where(found, values, np.inf)), values.shape)
    frame = {"fill": False, "edgecolor": INK, "linewidth": 2.6, "clip_on": False, "zorder": 3}
    ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **frame))
    _colourbar(fig, drawn, f"{label}, darkest: or more" if astray else label)
    return fig
