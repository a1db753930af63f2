"""One table and one figure of a sweep: what its runs recorded, against what was swept.

The table has a row a run: parameters, recorded results, ``failed``, ``error``, ``notebook``. The
figure draws one recorded number over one parameter. Unless the reader chooses the number
(``--show NAME``), it is one whose name begins with ``test_`` if there is any, else the first in the
alphabet (a notebook file keeps no other order) besides times and speeds. The axis is the last
parameter on the command line that takes several numbers; ``seed`` is no axis but repeats a run: a
dot is a run, a line joins the means. The other swept parameters make the lines.
"""

import itertools
import math
import shutil
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from pandas.api.types import is_bool_dtype, is_float_dtype, is_numeric_dtype

from course_lib._figures import COLOURS, figure, thousands, to_png
from course_lib._files import write_whole
from course_lib._sweep_plan import Plan
from course_lib.results import STATUS, collect_results, readable

TABLE, PICTURE = "results.csv", "figure.png"
_COMMON = {"train_seconds", "samples_per_second", "equivalence_max_abs_loss_diff"}
_NO_RESULTS = {"seed", "world_size", *STATUS}
_MARKERS = "osD^vPX"


def report(plan: Plan, notebooks: list[Path], show: str | None) -> None:
    """Print a sweep's results, and write ``results.csv`` and ``figure.png`` into its folder.

    Args:
        plan: The sweep.
        notebooks: Its executed notebooks, one a combination, in the order of the plan.
        show: The recorded number to draw; None for the default.

    Raises:
        OSError: The folder cannot be written to.
    """
    table = tidy(plan, notebooks)
    write_whole(plan.folder / TABLE, table.to_csv(index=False).encode())
    print("\n" + _as_text(plan, table))
    print(f"\nTable:  {plan.folder / TABLE}")
    good = table[~table.failed]
    numbers = _numbers(plan, good)
    if show and show not in numbers:
        there = ", ".join(numbers) or "none"
        print(f"! No run has recorded a number named {show}. Recorded: {there}.")
    name = show if show in numbers else _main_number(numbers)
    if name is None:
        print("Figure: none, because no run has recorded a number.")
        return
    write_whole(plan.folder / PICTURE, to_png(draw(plan, good, name)))
    print(f"Figure: {plan.folder / PICTURE} ({name}; another one: --show NAME)")


def tidy(plan: Plan, notebooks: list[Path]) -> pd.DataFrame:
    """The table: parameters, recorded results, ``failed``, ``error``, ``notebook``."""
    table = collect_results(notebooks)
    for name in table.columns[table.isna().any()]:
        # whole numbers stay whole where a failed run has none
        if is_float_dtype(table[name]) and (table[name].dropna() % 1 == 0).all():
            table[name] = table[name].astype("Int64")
    table["notebook"] = [Path(path).name for path in table["notebook"]]
    recorded = [name for name in table if name not in plan.grid and name not in STATUS]
    return table[[*plan.grid, *recorded, "failed", "error", "notebook"]]


def draw(plan: Plan, table: pd.DataFrame, name: str) -> Figure:
    """One recorded number over one parameter, for the runs that came to their end.

    Args:
        plan: The sweep.
        table: Rows of `tidy`, without failed runs.
        name: A column of numbers; rows without one are left out.
    """
    table = table[table[name].notna()].astype({name: float})
    axis = _axis(plan, table)
    others = [p for p in plan.swept() if p not in (axis, "seed")]
    texts = {p: [_word(value) for value in table[p]] for p in others}
    line_of = [", ".join(f"{p}={texts[p][i]}" for p in others) for i in range(len(table))]
    places, ticks = _places(table[axis])
    rows = pd.DataFrame({"line": line_of, "x": places, "y": table[name].to_numpy()})
    means = rows.groupby(["line", "x"], sort=False).y.mean()
    repeated = len(means) < len(rows)
    origin = "real"
    if "data_origin" in table and (table.data_origin == "synthetic").any():
        origin = "synthetic"
    fig, ax = figure(
        _finding(name, axis, means, ticks),
        xlabel=axis + (" (dots: single runs; lines: their means)" if repeated else ""),
        ylabel=name,
        size=(7.2, 4.4),
        origin=origin,
    )
    look = zip(itertools.cycle(COLOURS), itertools.cycle(_MARKERS), strict=False)
    for line, (colour, marker) in zip(dict.fromkeys(line_of), look, strict=False):
        mean = means[line].sort_index()
        mine = rows[rows.line == line]
        ax.plot(mean.index, mean, color=colour, label=line)
        ax.plot(mine.x, mine.y, marker, color=colour, markersize=5, alpha=0.8)
    if min(ticks) > 0 and max(ticks) / min(ticks) >= 20:
        ax.set_xscale("log")
    ax.set_xticks(list(ticks), [*ticks.values()], minor=False)
    ax.minorticks_off()
    ax.margins(x=0.05, y=0.12)
    ax.yaxis.set_major_formatter(thousands())
    if len(means.index.levels[0]) > 1:
        ax.legend()
    return fig


def _numbers(plan: Plan, table: pd.DataFrame) -> list[str]:
    """The recorded results that are numbers, in the order in which they were recorded."""
    taken = {*plan.grid, *_NO_RESULTS}
    return [name for name in table if name not in taken and _is_numeric(table[name].dropna())]


def _is_numeric(values: pd.Series) -> bool:
    values = values.infer_objects()
    return len(values) > 0 and is_numeric_dtype(values) and not is_bool_dtype(values)


def _main_number(numbers: list[str]) -> str | None:
    own = [name for name in numbers if name not in _COMMON] or numbers
    return next((n for n in own if n.startswith("test_")), own[0] if own else None)


def _axis(plan: Plan, table: pd.DataFrame) -> str:
    swept = plan.swept()
    candidates = [name for name in swept if name != "seed"] or swept
    numeric = [n for n in candidates if table[n].notna().all() and _is_numeric(table[n])]
    return (numeric or candidates)[-1]


def _places(values: pd.Series) -> tuple[list[float], dict[float, str]]:
    """Where values stand on an axis, and what is written there; words stand side by side."""
    if values.notna().all() and _is_numeric(values):
        return [float(v) for v in values], {float(v): f"{v:g}" for v in sorted(set(values))}
    words = {word: float(place) for place, word in enumerate(dict.fromkeys(map(_word, values)))}
    return [words[_word(value)] for value in values], {place: w for w, place in words.items()}


def _word(value: object) -> str:
    return "None" if pd.isna(value) else str(value)


def _finding(name: str, axis: str, means: pd.Series, ticks: dict[float, str]) -> str:
    def at(place: tuple[str, float]) -> str:
        line, x = place
        return f"{axis}={ticks[x]}" + (f", {line}" if line else "")

    low, high = means.idxmin(), means.idxmax()
    if math.isclose(means[low], means[high], rel_tol=1e-9):
        return f"{name} is {_said(name, means[low])} in all runs"
    return (
        f"{name}: lowest with {at(low)} ({_said(name, means[low])}), "
        f"highest with {at(high)} ({_said(name, means[high])})"
    )


def _said(name: str, value: object) -> str:
    """A value as a person reads it; pandas' own scalars too."""
    return readable(name, value.item() if hasattr(value, "item") else value)


def _figure_of(number: float) -> str:
    if pd.isna(number):
        return "–"
    return f"{number:,.0f}" if abs(number) >= 1e5 else f"{number:,.6g}"


def _as_text(plan: Plan, table: pd.DataFrame) -> str:
    """The table for a terminal: what is the same in all runs stands above it, once."""
    shown = table.drop(columns=["notebook", *(() if table.failed.any() else ("failed", "error"))])
    same = {
        name: shown[name].dropna().iloc[0]
        for name in shown
        if name not in (*plan.swept(), *STATUS) and shown[name].nunique() == 1 < len(table)
    }
    head = ""
    if same:
        head = (
            "In all runs: " + ", ".join(f"{n}={readable(n, v)}" for n, v in same.items()) + "\n\n"
        )
    shown = shown.drop(columns=list(same))
    numbers = [name for name in shown if name != "seed" and _is_numeric(shown[name].dropna())]
    text = shown.to_string(
        index=False,
        na_rep="–",
        formatters=dict.fromkeys(numbers, _figure_of),
        line_width=shutil.get_terminal_size((120, 24)).columns,
    )
    if "data_origin" in table and (table.data_origin == "synthetic").any():
        from course_lib._run_report import SYNTHETIC

        text += "\n" + SYNTHETIC
    return head + text
