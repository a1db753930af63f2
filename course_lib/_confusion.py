"""A confusion matrix: what was taken for what.

Right answers stand on the diagonal and are many; mistakes are few, and what one wants to see. So
the diagonal has a colour of its own, and the colours of the mistakes are spread over their counts.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib._figures import COLOURS, INK, WIDTH, figure
from course_lib._text import text_width


def confusion(
    counts: Sequence[Sequence[int]], classes: Sequence[str], title: str, origin: str = "real"
) -> Figure:
    """Draw how often each class was taken for each other; the worst confusion is framed.

    Args:
        counts: Whole numbers of shape (C, C), a tensor, array or lists: rows are actual classes,
            columns predicted ones.
        classes: The C names.
        title: The finding.
        origin: ``"real"`` or ``"synthetic"``.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: The counts are not a square of whole numbers from 0, one row a class.
    """
    found = np.asarray(counts)
    n = len(classes)
    if found.shape != (n, n) or n < 2:
        raise ValueError(f"confusion: counts of shape {found.shape} for {n} classes: a square")
    if (found < 0).any() or (found != np.floor(found)).any():
        raise ValueError("confusion: counts are whole numbers from 0; these hold others")
    mistakes = np.where(np.eye(n, dtype=bool), 0, found)
    names = {"xlabel": "predicted class", "ylabel": "actual class"}
    fig, ax = figure(title, size=(WIDTH, 1.9 + 0.42 * n), origin=origin, **names)
    ax.grid(visible=False)
    drawn = ax.imshow(
        mistakes, cmap="Oranges", aspect="auto", vmin=0, vmax=max(mistakes.max(), 1) * 1.25
    )
    for (row, column), count in np.ndenumerate(found):
        right = row == column
        if right:
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=COLOURS[0]))
        red, green, blue, _ = drawn.to_rgba(mistakes[row, column])
        dark = right or 0.3 * red + 0.59 * green + 0.11 * blue < 0.46
        colour = "white" if dark else INK
        weight = "bold" if right else "normal"
        text = f"{count:,.0f}"
        ax.text(
            column, row, text, ha="center", va="center", color=colour, fontsize=9, fontweight=weight
        )
    if mistakes.any():
        row, column = np.unravel_index(np.argmax(mistakes), mistakes.shape)
        frame = {"fill": False, "edgecolor": INK, "linewidth": 2.4, "clip_on": False, "zorder": 3}
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **frame))
    room = (WIDTH - 0.5 - max(text_width(str(name), 9) for name in classes)) / n - 0.1
    fits = all(text_width(str(name), 9) <= room for name in classes)
    turned = {} if fits else {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(n), classes, **turned)
    ax.set_yticks(range(n), classes)
    for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        text.set(parse_math=False, color=INK)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig
