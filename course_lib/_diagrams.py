"""Pictures of things rather than of data: this machine, and who speaks to whom.

Everything is placed in inches on a canvas as large as it needs to be, and text is measured before
it is placed, so nothing overlaps and nothing is cut off, however many actors or facts there are.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from course_lib._figures import COLOURS, GRID, INK, MUTED, WIDTH, figure
from course_lib._text import text_width, wrap

MARGIN = 0.08  # inches, as for the title
PAD = 0.16  # inside a box
LINE = 0.185  # from one line of text to the next
TILE = 0.86  # height of a tile, its gap included
CAPTION = 1.6  # width of the column of names beside long values
PANEL = "#f5f7f9"


def machine_card(facts: Mapping[str, str], title: str = "This machine") -> Figure:
    """A card with what this machine offers.

    Args:
        facts: What to show, in order: ``{"CPU cores": "2", "backends": "Gloo"}``. Short values
            become tiles with a large value, long ones lines below the tiles.
        title: What the facts amount to, as a sentence.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: There is no fact.
    """
    if not facts:
        raise ValueError(
            "machine_card: no facts to show. Pass names and values: {'CPU cores': '2'}"
        )
    facts = {str(name): str(value) for name, value in facts.items()}
    inner = WIDTH - 2 * (MARGIN + PAD)
    room = inner / 4 - 0.25
    tiles = {
        name: value
        for name, value in facts.items()
        if text_width(value, 13, bold=True) <= room and text_width(name, 9) <= room
    }
    fits = (s for s in (17, 15, 13) if all(text_width(v, s, True) <= room for v in tiles.values()))
    size = next(fits)
    rows = _rows(list(tiles.items()), 4)
    notes = {n: wrap(v, inner - CAPTION, 10) for n, v in facts.items() if n not in tiles}
    captions = {n: wrap(n, CAPTION - 0.2, 9) for n in notes}
    depths = {n: LINE * max(len(notes[n]), len(captions[n])) + 0.1 for n in notes}
    height = 2 * PAD - 0.1 + TILE * len(rows) + sum(depths.values()) + (0.1 if notes else 0)

    fig, ax = _canvas(title, height + 2 * MARGIN)
    _box(ax, MARGIN, MARGIN, WIDTH - 2 * MARGIN, height, PANEL, GRID)
    y = MARGIN + PAD
    for row in rows:
        width = (inner + 0.1) / len(row)
        for i, (name, value) in enumerate(row):
            left = MARGIN + PAD + width * i
            _box(ax, left, y, width - 0.1, TILE - 0.1, "white", GRID)
            middle = left + (width - 0.1) / 2
            _text(ax, middle, y + 0.3, value, size, weight="bold", ha="center", va="center")
            _text(ax, middle, y + 0.57, name, 9, color=MUTED, ha="center", va="center")
        y += TILE
    y += 0.18
    for name, lines in notes.items():
        for i, line in enumerate(captions[name]):
            _text(ax, MARGIN + PAD, y + LINE * i, line, 9, color=MUTED)
        for i, line in enumerate(lines):
            _text(ax, MARGIN + PAD + CAPTION, y + LINE * i, line, 10)
        y += depths[name]
    return fig


def sequence(
    actors: Sequence[str], messages: Sequence[tuple[str, str, str]], title: str = "Who starts whom"
) -> Figure:
    """A sequence diagram: lifelines side by side, messages as arrows, time running downwards.

    Args:
        actors: Names from left to right: ``["notebook", "rank 0", "rank 1"]``.
        messages: ``(from, to, label)`` in the order in which they happen. From and to the same
            actor is something it does by itself.
        title: What the diagram shows, as a sentence.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: There is no actor, a name appears twice, or a message names an unknown actor.
    """
    actors = list(actors)
    if not actors or len(set(actors)) < len(actors):
        raise ValueError(f"sequence: actors={actors!r}: at least one is needed, each name once")
    for source, target, label in messages:
        for name in (source, target):
            if name not in actors:
                raise ValueError(
                    f"sequence: the message {label!r} names {name!r}, which is not among the "
                    f"actors {actors!r}"
                )
    pitch = (WIDTH - 2 * MARGIN) / len(actors)
    at = {name: MARGIN + pitch * (i + 0.5) for i, name in enumerate(actors)}
    heads = {name: wrap(name, pitch - 0.34, 10, bold=True) for name in actors}
    head_height = 0.2 + 0.19 * max(len(lines) for lines in heads.values())
    labels = [
        wrap(label, pitch - 0.5 if a == b else max(abs(at[a] - at[b]) - 0.3, 0.9), 9.5)
        for a, b, label in messages
    ]
    below = sum(LINE * len(lines) + 0.3 for lines in labels)
    height = head_height + 0.15 + below + 0.1

    fig, ax = _canvas(title, height + MARGIN)
    for i, name in enumerate(actors):
        colour = COLOURS[i % len(COLOURS)]
        ax.plot([at[name]] * 2, [head_height, height], color=colour, lw=1.6, alpha=0.55, zorder=1)
        left = at[name] - pitch / 2 + 0.06
        _box(ax, left, 0.04, pitch - 0.12, head_height - 0.04, "white")
        _box(ax, left, 0.04, pitch - 0.12, head_height - 0.04, (colour, 0.16), colour)
        middle = 0.02 + head_height / 2
        _text(
            ax,
            at[name],
            middle,
            "\n".join(heads[name]),
            10,
            weight="bold",
            ha="center",
            va="center",
        )
    y = head_height + 0.15
    for (source, target, _), lines in zip(messages, labels, strict=True):
        text = "\n".join(lines)
        if source == target:
            _loop(ax, at[source], y, text, len(lines), last=source == actors[-1])
        else:
            _arrow(ax, at[source], at[target], y + LINE * len(lines) + 0.06)
            middle = (at[source] + at[target]) / 2
            _label(ax, middle, y + LINE * len(lines), text, ha="center", va="bottom")
        y += LINE * len(lines) + 0.3
    return fig


def _canvas(title: str, height: float) -> tuple[Figure, Axes]:
    """Axes in inches, as wide as the figure, ``height`` high below the title, y downwards."""
    fig, ax = figure(title, size=(WIDTH, height + 1))
    head = 0.2 + 0.235 * (fig.get_suptitle().count("\n") + 1)
    fig.set_size_inches(WIDTH, height + head)
    ax.set_position((0, 0, 1, height / (height + head)))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))
    ax.axis("off")
    return fig, ax


def _box(ax: Axes, x: float, y: float, w: float, h: float, fill, edge: str = "none") -> None:
    style = "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, facecolor=fill, edgecolor=edge))


def _arrow(ax: Axes, start: float, end: float, y: float) -> None:
    style = {"arrowstyle": "-|>", "color": INK, "lw": 1.3, "shrinkA": 0, "shrinkB": 1}
    ax.annotate("", (end, y), (start, y), arrowprops=style)


def _loop(ax: Axes, x: float, y: float, text: str, lines: int, last: bool) -> None:
    """What an actor does by itself; to the left of the last one, where there is room."""
    side, depth = (-1, max(0.2, LINE * lines)) if last else (1, max(0.2, LINE * lines))
    edge = x + side * 0.24
    ax.plot([x, edge, edge], [y, y, y + depth], color=INK, lw=1.3, solid_joinstyle="round")
    _arrow(ax, edge, x, y + depth)
    _label(ax, edge + side * 0.08, y + depth / 2, text, ha="right" if last else "left", va="center")


def _label(ax: Axes, x: float, y: float, text: str, **align: str) -> None:
    # White behind it, where the text crosses a lifeline
    ground = {"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none"}
    _text(ax, x, y, text, 9.5, linespacing=1.25, bbox=ground, zorder=3, **align)


def _text(ax: Axes, x: float, y: float, text: str, size: float, **options) -> None:
    ax.text(x, y, text, size=size, parse_math=False, **options)  # $RANK is no formula


def _rows(items: list, most: int) -> list[list]:
    """Divide items over as few rows as possible, evenly: 5 become 3 and 2."""
    count = -(-len(items) // most)
    starts = [-(-len(items) * i // count) for i in range(count + 1)] if count else []
    return [items[a:b] for a, b in pairwise(starts)]
