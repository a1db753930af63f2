"""Small pictures in a grid, each with a caption, and marks for right and wrong.

A colour never carries the meaning alone: a right picture has ✓ in front of its caption and a frame
in one colour, a wrong one ✗ and another colour.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from course_lib._figures import COLOURS, INK, WIDTH, figure
from course_lib._text import wrap

CAPTION = 8  # points
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
        captions: A few words for each. They wrap under their picture.
        title: The finding.
        marks: For each picture ``"right"``, ``"wrong"`` or None.
        columns: Pictures in a row, at most.
        origin: ``"real"`` or ``"synthetic"``.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        TypeError: The images are not bytes.
        ValueError: There is no picture, the shape is none of the three, the counts differ, or a
            mark is unknown.
    """
    pixels = _as_rows_of_pixels(images)
    marks = [None] * len(pixels) if marks is None else list(marks)
    if not len(pixels) == len(captions) == len(marks):
        counts = f"{len(pixels)} images, {len(captions)} captions and {len(marks)} marks"
        raise ValueError(f"pictures: {counts}: one caption (and one mark) for each image")
    if unknown := [mark for mark in marks if mark not in _MARKS]:
        raise ValueError(f"pictures: mark {unknown[0]!r}: 'right', 'wrong' or None")
    columns = min(columns, len(pixels))
    rows = -(-len(pixels) // columns)
    cell = WIDTH / max(columns, 6)
    texts = [
        wrap(_MARKS[mark][0] + str(caption), cell - 0.04, CAPTION)
        for caption, mark in zip(captions, marks, strict=True)
    ]
    lines = max(map(len, texts))
    size = (WIDTH, 0.55 + rows * (0.84 * cell + 0.1 + 0.16 * lines))
    fig, axes = figure(title, nrows=rows, ncols=columns, size=size, origin=origin)
    for place, ax in enumerate(np.atleast_1d(axes).flat):
        ax.axis("off")
        if place < len(pixels):
            ax.imshow(pixels[place], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            look = {"fontsize": CAPTION, "color": INK, "parse_math": False}
            below = {"loc": "center", "va": "top", "y": -0.04, "pad": 0}
            ax.set_title("\n".join(texts[place]), **look, **below)
            _frame(ax, _MARKS[marks[place]][1], pixels[place].shape)
    return fig


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
