"""Small pictures in a grid, each with a caption, and marks for right and wrong.

A colour never carries the meaning alone: a right picture has ✓ in front of its caption and a frame
in one colour, a wrong one ✗ and another colour.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from course_lib._figures import COLOURS, INK, TITLE_SIZE, WIDTH, figure
from course_lib._text import text_width, wrap

LINES = 3  # of a caption, at most
_MARKS = {"right": ("✓ ", COLOURS[2]), "wrong": ("✗ ", COLOURS[3]), None: ("", "none")}


def pictures(
    images: Sequence,
    captions: Sequence[str],
    title: str,
    marks: Sequence[str | None] | None = None,
    columns: int = 8,
    origin: str = "real",
) -> Figure:
    """Draw pictures in rows, in the order given.

    Args:
        images: Tensor or array of bytes (uint8): (N, 3, H, W) as networks take them, (N, H, W, 3),
            or (N, H, W) in grey.
        captions: A few words for each. They wrap under their picture; after three lines, "…".
        title: The finding.
        marks: For each picture ``"right"``, ``"wrong"`` or None.
        columns: Pictures in a row, at most.
        origin: ``"real"`` or ``"synthetic"``.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        TypeError: The images are not bytes.
        ValueError: There is no picture, the shape is none of the three, the counts differ, a mark
            is unknown, or ``columns`` is less than 1.
    """
    pixels = _as_rows_of_pixels(images)
    marks = [None] * len(pixels) if marks is None else list(marks)
    if not len(pixels) == len(captions) == len(marks):
        counts = f"{len(pixels)} images, {len(captions)} captions and {len(marks)} marks"
        raise ValueError(f"pictures: {counts}: one caption (and one mark) for each image")
    if unknown := [mark for mark in marks if mark not in _MARKS]:
        raise ValueError(f"pictures: mark {unknown[0]!r}: 'right', 'wrong' or None")
    if columns < 1:
        raise ValueError(f"pictures: columns={columns}: at least 1 picture in a row")
    columns = min(columns, len(pixels))
    across = max(columns, 6)  # few pictures stand on the left, not larger than these
    cell, points = WIDTH / across, 8 if across <= 8 else 6.5
    texts = [
        _caption(_MARKS[mark][0] + str(caption), cell - 0.05, points)
        for caption, mark in zip(captions, marks, strict=True)
    ]
    starts = range(0, len(pixels), columns)
    lines = [max(map(len, texts[start : start + columns])) for start in starts]
    height, width = pixels.shape[1:3]
    each = 0.84 * cell * height / width + 0.1  # inches
    above = 0.32 + 0.23 * len(wrap(title, WIDTH - 1.9, TITLE_SIZE, bold=True))
    size = (WIDTH, above + len(lines) * each + 0.16 * sum(lines))
    fig, axes = figure(title, nrows=len(lines), ncols=across, size=size, origin=origin)
    for (row, column), ax in np.ndenumerate(np.reshape(axes, (-1, across))):
        place = row * columns + column
        if column >= columns or place >= len(pixels):
            ax.remove()
            continue
        ax.axis("off")
        ax.set_anchor("S")  # where the layout takes it to be, so that its caption has room below
        ax.imshow(pixels[place], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        look = {"fontsize": points, "color": INK, "parse_math": False}
        below = {"loc": "center", "va": "top", "y": 0, "pad": -5}
        ax.set_title("\n".join(texts[place]), **look, **below)
        _frame(ax, _MARKS[marks[place]][1], pixels[place].shape)
    return fig


def _caption(text: str, width: float, points: float) -> list[str]:
    """At most three lines; what is left out is told by three dots."""
    lines = wrap(text, width, points)
    if len(lines) > LINES:
        lines, last = lines[:LINES], lines[LINES - 1]
        while text_width(f"{last}…", points) > width:
            last = last[:-1]
        lines[-1] = f"{last.rstrip(' ,')}…"
    return lines


def _as_rows_of_pixels(images) -> np.ndarray:
    """(N, H, W, 3) or (N, H, W), on the CPU."""
    pixels = images.cpu().numpy() if hasattr(images, "cpu") else np.asarray(images)
    if pixels.dtype != np.uint8:
        raise TypeError(
            f"pictures: images of {pixels.dtype}: bytes (uint8) from 0 to 255 are needed; of "
            "numbers from 0 to 1, pass (255 * images).round().byte()"
        )
    if pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.shape[3] != 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    if len(pixels) == 0 or not (pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] == 3)):
        shape = tuple(pixels.shape)
        raise ValueError(f"pictures: images of shape {shape}: (N, 3, H, W) with N of 1 or more")
    return pixels


def _frame(ax, colour: str, shape: tuple) -> None:
    height, width = shape[:2]
    edges = (
        [-0.5, width - 0.5, width - 0.5, -0.5, -0.5],
        [-0.5, -0.5, height - 0.5, height - 0.5, -0.5],
    )
    ax.plot(*edges, color=colour, linewidth=3, clip_on=False, solid_joinstyle="miter")
