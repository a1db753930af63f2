"""Every picture of the course, in one look.

Each function takes plain data (lists, arrays, tensors on the CPU, dicts) and returns a figure with
a title that says the finding and axes that say their units; ``show`` displays it with its alt text.
``figure`` begins a figure of your own under the same rules. Colours come from a palette that
colour-blind people can tell apart, and never carry a meaning alone.

    show(lines({"1 rank": one, "2 ranks": two}, title=…, xlabel=…, ylabel=…), alt="…")
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from course_lib._chunks import before_after, many_before_after, what_moved
from course_lib._confusion import confusion
from course_lib._diagrams import machine_card, sequence
from course_lib._figures import COLOURS, INK, MUTED, WIDTH, figure, show, thousands
from course_lib._grids import heat_map
from course_lib._lanes import lanes
from course_lib._meshes import mesh_map
from course_lib._pictures import pictures
from course_lib._points import map_of_prices, predicted_against_actual

__all__ = [
    "COLOURS",
    "bars",
    "before_after",
    "confusion",
    "figure",
    "heat_map",
    "lanes",
    "lines",
    "machine_card",
    "many_before_after",
    "map_of_prices",
    "mesh_map",
    "pictures",
    "predicted_against_actual",
    "sequence",
    "show",
    "thousands",
    "what_moved",
]


def lines(
    series: Mapping[str, Sequence], title: str, xlabel: str, ylabel: str, origin: str = "real"
) -> Figure:
    """Curves over a common axis. Those that lie on top of each other all stay visible.

    The first is the widest and the palest; each further one is narrower, and differs in dashes.

    Args:
        series: Name → values (counted from 1), or name → ``(x, values)``.
        title: The finding.
        xlabel: What is counted: "epoch", "step".
        ylabel: What is measured, with its unit.
        origin: ``"real"`` or ``"synthetic"``.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: There is no series, one is empty, or its x and y differ in length.
    """
    if not series:
        raise ValueError("lines: no series to draw")
    fig, ax = figure(title, xlabel=xlabel, ylabel=ylabel, origin=origin)
    widths = np.linspace(6.5, 1.8, len(series)) if len(series) > 1 else [2.2]
    dashes = ["-", "-", (0, (4, 2)), (0, (1, 1.4)), (0, (7, 2, 1, 2))]
    for i, (name, values) in enumerate(series.items()):
        x, y = _x_and_y(name, values)
        ax.plot(
            x,
            y,
            label=name,
            linewidth=widths[i],
            linestyle=dashes[i % len(dashes)],
            alpha=0.45 if i == 0 and len(series) > 1 else 1,
            color=COLOURS[i % len(COLOURS)],
            marker="o" if len(y) == 1 else None,
        )
    if all(float(x).is_integer() for line in ax.lines for x in line.get_xdata()):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.02)
    ax.yaxis.set_major_formatter(thousands())
    if len(series) > 1:
        ax.legend(handlelength=3.5)
    return fig


def bars(
    values: Mapping[str, float],
    title: str,
    xlabel: str,
    highlight: str | None = None,
    origin: str = "real",
    ylabel: str = "model",
    largest_first: bool = False,
) -> Figure:
    """A table as a picture: horizontal bars, sorted, each with its value beside it.

    Args:
        values: Name → value.
        title: The finding.
        xlabel: What is measured, with its unit and which way is better.
        highlight: The name to draw in another colour, usually the lesson's own model.
        origin: ``"real"`` or ``"synthetic"``.
        ylabel: What the names are.
        largest_first: Sort from the largest at the top, for values of which more is better;
            otherwise from the smallest, as for errors.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: There is no bar, a value is not finite, or ``highlight`` is not among the names.
    """
    if not values:
        raise ValueError("bars: no values to draw")
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"bars: {name} is {value}: a bar needs a finite number")
    if highlight is not None and highlight not in values:
        raise ValueError(f"bars: highlight={highlight!r} is not among {list(values)}")
    names = sorted(values, key=values.get, reverse=largest_first)
    size = (WIDTH, 1.4 + 0.36 * len(names))
    fig, ax = figure(title, xlabel=xlabel, size=size, origin=origin)
    colours = [COLOURS[1] if name == highlight else "#8fa9c4" for name in names]
    numbers = [float(values[name]) for name in names]
    drawn = ax.barh(names, numbers, color=colours, height=0.68, linewidth=0)
    places = ax.bar_label(drawn, [_number(n, numbers) for n in numbers], padding=4, color=INK)
    for label, name in zip([*ax.get_yticklabels()], names, strict=True):
        label.set(
            parse_math=False,
            color=INK,
            fontsize=10,
            weight="bold" if name == highlight else "normal",
        )
    for place, name in zip(places, names, strict=True):
        place.set(fontsize=10, weight="bold" if name == highlight else "normal")
    # Above the names, as the head of a column, where it needs no turned head.
    ax.set_ylabel(ylabel, rotation=0, ha="right", va="bottom", color=MUTED, fontsize=9)
    ax.yaxis.set_label_coords(-0.012, 1.0)
    ax.xaxis.set_major_formatter(thousands())
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.margins(x=0.12 if min(numbers) >= 0 else 0.3)  # a negative bar has its number on the left
    ax.spines["left"].set_visible(min(numbers) < 0)
    return fig


def _x_and_y(name: str, values: Sequence) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(values, tuple) and len(values) == 2 and np.ndim(values[0]) == 1:
        x, y = np.asarray(values[0]), np.asarray(values[1])
    else:
        y = np.asarray(values)
        x = np.arange(1, len(y) + 1)
    if len(y) == 0 or x.shape != y.shape:
        raise ValueError(f"lines: {name} has {len(x)} x and {len(y)} y values")
    return x, y


def _number(value: float, among: Sequence[float]) -> str:
    """A value with as many decimals as its neighbours need."""
    text = f"{value:,.0f}" if max(map(abs, among)) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")
