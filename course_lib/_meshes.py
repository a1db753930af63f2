"""A mesh as a picture: ranks in a grid, and around them the groups they belong to.

Each kind of group has a colour, a kind of line and a width of its own, and lies around whole boxes,
so that a rank's groups can be read off: they are the outlines it stands in. What does not fit
into a narrow box is left out, but never the rank.
"""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

from course_lib._diagrams import LINE, MARGIN, PAD, PANEL, _box, _canvas, _text
from course_lib._figures import COLOURS, GRID, MUTED, WIDTH
from course_lib._text import text_width, wrap

_BOX = (1.0, 0.62)  # inches: a rank's box
_STEP = 0.12  # between the outlines of two kinds of group
_DASHES = ["-", (0, (4, 1.6)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5))]
_KEY = 2.3  # inches for the names of the groups, right of the grid


def mesh_map(
    ranks: Sequence[Sequence[int]],
    groups: Mapping[str, Sequence[Sequence[int]]],
    title: str,
    labels: Mapping[int, str] | None = None,
) -> Figure:
    """Ranks in a grid, with an outline around every group.

    Args:
        ranks: The grid, a list of rows: ``[[0, 1], [2, 3]]``.
        groups: Kind → its groups, each a list of neighbouring ranks: ``{"col": [[0, 1], [2, 3]]}``.
        title: The finding.
        labels: Rank → a second line in its box, such as its coordinates.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: The grid is empty or uneven, or a group names a rank that is not in it.
    """
    if not ranks or not ranks[0] or len({len(row) for row in ranks}) > 1:
        raise ValueError(f"mesh_map: ranks={ranks!r}: rows of equal length are needed")
    place = {rank: (x, y) for y, row in enumerate(ranks) for x, rank in enumerate(row)}
    unknown = {r for kind in groups.values() for one in kind for r in one} - place.keys()
    if unknown:
        raise ValueError(f"mesh_map: rank {min(unknown)} of a group is not among {ranks!r}")
    columns = len(ranks[0])
    widest = (WIDTH - 2 * MARGIN - 2 * PAD - _KEY) / columns
    step = min(_STEP, 0.2 * widest / (len(groups) + 1))  # many columns: all lies closer
    gap = 2 * step * (len(groups) + 1)
    pitch_x, pitch_y = min(_BOX[0] + gap, widest), _BOX[1] + gap
    keys = {kind: wrap(kind, _KEY - 0.5, 10) for kind in groups}
    depth = sum(LINE * len(lines) + 0.14 for lines in keys.values())
    inner = max(pitch_y * len(ranks), depth)
    fig, ax = _canvas(title, inner + 2 * MARGIN + PAD)
    _box(ax, MARGIN, MARGIN, WIDTH - 2 * MARGIN, inner + PAD, PANEL, GRID)
    left, top = MARGIN + PAD, MARGIN + PAD / 2
    box = (pitch_x - gap, _BOX[1])
    for rank, (x, y) in place.items():
        corner = (left + x * pitch_x + gap / 2, top + y * pitch_y + gap / 2)
        _box(ax, *corner, *box, "white", MUTED)
        middle, centre = corner[0] + box[0] / 2, corner[1] + box[1] / 2
        label = (labels or {}).get(rank, "")
        label = label if text_width(label, 9) < box[0] else ""
        name = f"rank {rank}" if text_width(f"rank {rank}", 11, True) < box[0] else str(rank)
        style = {"ha": "center", "va": "center"}
        _text(ax, middle, centre - (0.1 if label else 0), name, 11, weight="bold", **style)
        _text(ax, middle, centre + 0.14, label, 9, color=MUTED, **style)
    for i, members in enumerate(groups.values()):
        colour, dash, out = COLOURS[i], _DASHES[i % len(_DASHES)], step * (i + 1)
        for one in members:
            xs, ys = zip(*(place[rank] for rank in one), strict=True)
            corner = (left + min(xs) * pitch_x + gap / 2, top + min(ys) * pitch_y + gap / 2)
            size = ((max(xs) - min(xs)) * pitch_x + box[0], (max(ys) - min(ys)) * pitch_y + box[1])
            frame = {"fill": False, "edgecolor": colour, "linewidth": 2.4, "linestyle": dash}
            style = f"round,pad={out},rounding_size=0.12"
            ax.add_patch(FancyBboxPatch(corner, *size, boxstyle=style, **frame))
    y = top + (inner - depth) / 2 + 0.12
    x = left + pitch_x * columns + 0.2
    for i, lines in enumerate(keys.values()):
        line = {"color": COLOURS[i], "linewidth": 2.4, "linestyle": _DASHES[i % len(_DASHES)]}
        ax.add_line(Line2D([x, x + 0.42], [y, y], **line))
        for k, words in enumerate(lines):
            _text(ax, x + 0.54, y + LINE * k, words, 10, va="center")
        y += LINE * len(lines) + 0.14
    return fig
