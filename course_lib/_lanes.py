"""Traces as a picture: one lane a rank, time to the right, an arrow for each message."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from course_lib._figures import COLOURS, INK, MUTED, WIDTH, figure
from course_lib._matching import Match, match, segments
from course_lib._operations import Operation, Trace
from course_lib._text import text_width

HEIGHT = 0.62  # of a lane's bar; lanes are 1 apart
_MOST_ARROWS = 120
_LABEL = 8  # points
_WAITING = {"facecolor": "#f3e3c3", "hatch": "////", "edgecolor": "#c9a24b", "linewidth": 0}
_ELSE = "#d9e0e6"


def lanes(traces: Sequence[Trace], title: str, names: bool = True) -> Figure:
    """The traces of all ranks: computing, communicating, waiting for others; who sent to whom.

    A rank waits while another side of its operation has not come. What is asynchronous is drawn as
    a thin line from its call to its end.

    Args:
        traces: One trace of each rank, in any order.
        title: The finding.
        names: Write the operations' names into bars that have room for them.

    Returns:
        The figure; pass it to ``show``.

    Raises:
        ValueError: There is no trace.
    """
    if not traces:
        raise ValueError("lanes: no traces to draw. Return the trace from each rank")
    traces = sorted(traces, key=lambda t: t.rank)
    start = min(t.begin for t in traces)
    end = max([t.end for t in traces])
    met = match(traces)
    fig, ax = figure(
        title, xlabel="time since the first began (ms)", size=(WIDTH, 1.7 + 0.55 * len(traces))
    )
    per_ms = (WIDTH - 1.2) / max(1e3 * (end - start), 1e-6)  # inches, roughly
    row = {t.rank: i for i, t in enumerate(traces)}

    def ms(moment: float) -> float:
        return 1e3 * (moment - start)

    for t in traces:
        y = row[t.rank]
        ax.broken_barh(
            [(ms(t.begin), 1e3 * (t.end - t.begin))], (y - HEIGHT / 2, HEIGHT), facecolor=_ELSE
        )
        for s in segments(t, met):
            look = _WAITING if s.kind == "waiting" else {"facecolor": _colour(s.operation)}
            where = (y - HEIGHT / 2, HEIGHT)
            ax.broken_barh([(ms(s.begin), 1e3 * (s.end - s.begin))], where, **look)
        for o in t.operations:
            _draw_flight(ax, o, y, ms)
            last, at_once = o.end or o.returned, o.waited is None and o.end is not None
            if (
                names
                and at_once
                and text_width(o.name, _LABEL) + 0.06 < per_ms * 1e3 * (last - o.begin)
            ):
                middle = (ms(o.begin) + ms(last)) / 2
                ax.text(
                    middle, y, o.name, fontsize=_LABEL, ha="center", va="center", color=INK,
                    bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8},
                )  # fmt: skip
    pairs = [m for m in met if m.complete and not m.operations[0].is_collective]
    for m in pairs[:_MOST_ARROWS]:
        _draw_arrow(ax, m, row, ms)
    ax.set_yticks(list(row.values()), [f"rank {rank}" for rank in row], color=INK, fontsize=10)
    ax.set_ylim(len(traces) - 0.45, -0.55)
    ax.set_xlim(ms(start), ms(end))
    ax.grid(visible=False, axis="y")
    ax.yaxis.label.set_visible(False)
    ax.set_ylabel("rank")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    fig.legend(
        handles=_legend(traces, met),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        labelcolor=MUTED,
    )
    return fig


def _colour(operation: Operation) -> str:
    return COLOURS[2] if operation.is_collective else COLOURS[0]


def _draw_flight(ax, o: Operation, y: float, ms) -> None:
    """An asynchronous operation on its way; a dotted end where nobody waited for it."""
    if o.waited is None and o.end is not None:
        return
    last = o.end or o.returned
    top = y - HEIGHT / 2 - 0.07
    ax.plot([ms(o.begin), ms(last)], [top, top], color=_colour(o), linewidth=2)
    if o.end is None:
        ax.plot([ms(last)], [top], marker="x", color="#b3261e", markersize=6, zorder=4)


def _draw_arrow(ax, m: Match, row: dict[int, int], ms) -> None:
    sender, receiver = m.operations
    if sender.rank not in row or receiver.rank not in row:
        return
    here, there = row[sender.rank], row[receiver.rank]
    side = 0.5 * HEIGHT * (1 if there > here else -1)
    ax.annotate(
        "",
        xy=(ms(receiver.end or receiver.returned), there - side),
        xytext=(ms(sender.begin), here + side),
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1, "shrinkA": 0, "shrinkB": 0},
    )


def _legend(traces: Sequence[Trace], met: Sequence[Match]) -> list[Patch]:
    shown = [s for t in traces for s in segments(t, met)]
    talking = [s.operation for s in shown if s.kind == "communicating"]
    found = [Patch(facecolor=_ELSE, label="anything else")]
    if any(not o.is_collective for o in talking):
        found.append(Patch(facecolor=COLOURS[0], label="message"))
    if any(o.is_collective for o in talking):
        found.append(Patch(facecolor=COLOURS[2], label="collective"))
    if any(s.kind == "waiting" for s in shown):
        found.append(Patch(**_WAITING, label="waiting for another rank"))
    return found
