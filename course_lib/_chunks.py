"""Pictures of a collective: what each rank held before it, and what each holds after.

A row is a rank, a cell one number. A number that lay on one rank only before has that rank's colour
wherever it turns up after; one that was nowhere before was computed, and is grey. So the picture,
and the sentence of ``what_moved``, are drawn from the run itself, not from what the collective is
supposed to do. (Give ranks different numbers: of equal ones nobody can tell whose they are.)
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_lib._figures import COLOURS, INK, MUTED, WIDTH, figure

_COMPUTED, _SHARED = "#d5dbe1", "#f1e9d2"
_SEVERAL = -1  # in place of a rank
_HEIGHT, _GAP = 0.8, 1.6  # of a cell, rows being 1 apart; between the two grids, in cells
_PALETTE = [COLOURS[i] for i in (0, 1, 2, 4, 8, 5, 9, 6)]
_PANELS = 2  # side by side

Row = Sequence[float] | None
Grids = tuple[Sequence[Row], Sequence[Row]]


def before_after(before: Sequence[Row], after: Sequence[Row], title: str) -> Figure:
    """What each rank held before a collective and after it, as two grids.

    Args:
        before: For each rank its numbers (a list, or a tensor of one dimension); None or empty for
            a rank that holds nothing. NaN stands for room that nothing is in yet.
        after: The same, afterwards.
        title: The finding.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: There are no ranks, or not equally many before and after.
    """
    return many_before_after({"": (before, after)}, title)


def many_before_after(collectives: Mapping[str, Grids], title: str) -> Figure:
    """Several collectives side by side, each as two small grids.

    Args:
        collectives: Name → ``(before, after)``, each as ``before_after`` takes them.
        title: The finding.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: There is no collective, or one has no ranks, or not the same before and after.
    """
    if not collectives:
        raise ValueError("many_before_after: no collectives to draw")
    tables = {name: _tables(*grids) for name, grids in collectives.items()}
    panels = min(_PANELS, len(tables))
    rows = math.ceil(len(tables) / panels)
    ranks = max(len(before) for before, _ in tables.values())
    size = (WIDTH, 1.05 + rows * (0.3 * ranks + 0.62 if panels > 1 else 0.36 * ranks + 0.25))
    fig, axes = figure(title, nrows=rows, ncols=panels, size=size)
    wide = max(_width(grid) for grids in tables.values() for grid in grids)
    panes = [axes] if len(tables) == 1 else list(axes.flat)
    for ax in panes:
        ax.axis("off")
    for ax, (name, (before, after)) in zip(panes, tables.items(), strict=False):
        owners = _owners(before)
        _draw_grid(ax, before, owners, 0, "before", names=True)
        _draw_grid(ax, after, owners, wide + _GAP, "after")
        middle = (len(before) - 1) / 2
        ax.annotate(
            "", (wide + 0.75 * _GAP, middle), (wide + 0.15 * _GAP, middle),
            arrowprops={"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.4},
        )  # fmt: skip
        ax.set_xlim(-1.35 if panels > 1 else -0.9, 2 * wide + _GAP)
        ax.set_ylim(ranks - 0.4, -1.35)
        ax.set_title(name, family="monospace", weight="bold", color=INK, pad=2)
    fig.legend(
        handles=_legend(tables.values()), loc="outside lower center", frameon=False, ncols=5,
        labelcolor=MUTED, handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip
    return fig


def what_moved(before: Sequence[Row], after: Sequence[Row]) -> str:
    """A sentence that says what a collective did, read off its two grids.

    Args:
        before: As for ``before_after``.
        after: As for ``before_after``.

    Returns:
        Like "all 4 ranks hold the same 4 numbers, from rank 2".

    Raises:
        ValueError: As for ``before_after``.
    """
    before, after = _tables(before, after)
    owners = _owners(before)
    full = {r: [v for v in row if v == v] for r, row in enumerate(after)}
    full = {rank: row for rank, row in full.items() if row}
    if not full:
        return "no rank holds anything"
    sizes = sorted({len(row) for row in full.values()})
    count = f"{sizes[0]} number{'s' * (sizes[0] != 1)}"
    if len(sizes) > 1:
        count = f"{sizes[0]} to {sizes[-1]} numbers"
    alike = len({tuple(row) for row in full.values()}) == 1
    who = f"rank {min(full)} holds {count}"
    if len(full) > 1:
        all_of_them = f"all {len(full)}" if len(full) == len(after) else f"{len(full)}"
        who = f"{all_of_them} ranks hold {'the same ' if alike else ''}{count}"
        who += "" if alike else (" each" if len(sizes) == 1 else "")
    return f"{who}, {_origin(full.values(), owners)}"


def _origin(rows, owners: Mapping[float, int]) -> str:
    found = [{owners.get(value) for value in row} for row in rows]
    together = set().union(*found)
    if together == {None}:
        return "computed from several ranks"
    if None in together:
        return "some of them computed"
    if _SEVERAL in together:
        return "some of which several ranks held before"
    if len(together) == 1:
        return f"from rank {together.pop()}"
    each = all(len(row) == len(together) == len(of) for row, of in zip(rows, found, strict=True))
    return f"{'one ' if each else ''}from each of {len(together)} ranks"


def _tables(before: Sequence[Row], after: Sequence[Row]) -> tuple[list, list]:
    if len(before) == 0 or len(before) != len(after):
        raise ValueError(
            f"before_after: {len(before)} ranks before and {len(after)} after: one row of numbers "
            "for each rank is needed, the same number of ranks in both"
        )
    return _table(before), _table(after)


def _table(rows: Sequence[Row]) -> list[list[float]]:
    return [[] if row is None else [float(value) for value in row] for row in rows]


def _width(grid: list[list[float]]) -> int:
    return max(1, *map(len, grid))


def _owners(before: list[list[float]]) -> dict[float, int]:
    """Which rank each number was on; ``_SEVERAL`` where it lay on more than one."""
    holders = Counter(value for row in before for value in set(row) if value == value)
    return {
        value: rank if holders[value] == 1 else _SEVERAL
        for rank, row in enumerate(before)
        for value in row
        if value == value
    }


def _draw_grid(
    ax: Axes, grid: list, owners: Mapping[float, int], left: float, head: str, names: bool = False
) -> None:
    width = max(1, *map(len, grid))
    ax.text(left + width / 2, -0.85, head, ha="center", va="center", color=MUTED, fontsize=9)
    for rank, row in enumerate(grid):
        if names:
            ax.text(-0.15, rank, f"rank {rank}", ha="right", va="center", color=INK, fontsize=9)
        if not row:
            ax.text(left + width / 2, rank, "nothing", ha="center", va="center", color=MUTED,
                    fontsize=8.5, style="italic")  # fmt: skip
        for place, value in enumerate(row):
            colour = _colour(value, owners)
            ax.add_patch(
                Rectangle(
                    (left + place + 0.04, rank - _HEIGHT / 2), 0.92, _HEIGHT,
                    facecolor=colour or "white", edgecolor="#9aa5b1" if colour is None else "none",
                    linestyle=":" if colour is None else "-",
                )
            )  # fmt: skip
            if colour is not None:
                text = f"{value:.4g}".replace("-", "−")
                ax.text(left + place + 0.5, rank, text, ha="center", va="center", fontsize=9.5,
                        color=_ink_on(colour))  # fmt: skip


def _colour(value: float, owners: Mapping[float, int]) -> str | None:
    if value != value:
        return None
    owner = owners.get(value)
    if owner is None:
        return _COMPUTED
    return _SHARED if owner == _SEVERAL else _PALETTE[owner % len(_PALETTE)]


def _ink_on(colour: str) -> str:
    red, green, blue = to_rgb(colour)
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else INK


def _legend(tables) -> list[Patch]:
    seen = [(v, _owners(before)) for before, after in tables for row in after for v in row]
    ranks = sorted({owners[v] for v, owners in seen if v in owners} - {_SEVERAL})
    found = [Patch(facecolor=_PALETTE[r % len(_PALETTE)], label=f"from rank {r}") for r in ranks]
    if any(owners.get(v) == _SEVERAL for v, owners in seen):
        found.append(Patch(facecolor=_SHARED, label="from several ranks"))
    if any(v == v and v not in owners for v, owners in seen):
        found.append(Patch(facecolor=_COMPUTED, label="computed"))
    return found
