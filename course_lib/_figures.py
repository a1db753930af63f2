"""The frame of every figure: how it looks, what it must say, and how it is shown.

Three rules are kept here, so that no lesson can forget them: a figure says its finding in the title
and names its axes; it reaches people who cannot see it through alt text; and data that are not real
are stamped as such. Figures are plain ``matplotlib.figure.Figure`` objects that pyplot never hears
of: none is shown twice, none without alt text, and none stays in memory once it is shown.
"""

import base64
import html
import io
import sys

import matplotlib as mpl
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from PIL import Image

from course_lib._text import DPI, FONT, balance

TITLE_SIZE = 13
WIDTH = 7.2  # inches: 864 pixels, the width of a notebook's output
INK, MUTED, GRID = "#1f2933", "#5f6b76", "#e3e7eb"
COLOURS = seaborn.color_palette("colorblind").as_hex()
STAMP = "origin-stamp"

LOOK = {
    **seaborn.axes_style("whitegrid"),
    "figure.dpi": DPI,
    "figure.facecolor": "white",  # opaque: ink stays dark on light in the dark theme as well
    "savefig.facecolor": "white",
    "font.sans-serif": [FONT],  # comes with matplotlib: the same on every machine
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.labelpad": 6,
    "axes.edgecolor": "#9aa5b1",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
    "image.cmap": "viridis",
}


def figure(
    title: str,
    *,
    xlabel: str | None = None,
    ylabel: str | None = None,
    nrows: int = 1,
    ncols: int = 1,
    size: tuple[float, float] | None = None,
    origin: str = "real",
) -> tuple[Figure, Axes]:
    """Begin a figure in the course's look.

    Sets matplotlib's defaults for this process, so that what is added later looks alike.

    Args:
        title: The finding, as a sentence: "Four ranks learn the same curve as one". Long ones wrap.
        xlabel: What the horizontal axis shows, with its unit. With several panels, one label below
            them all; leave it out and label each panel where they differ.
        ylabel: The same for the vertical axis.
        nrows: Rows of panels.
        ncols: Columns of panels.
        size: Width and height in inches; by default as wide as a notebook's output.
        origin: Where the data are from, ``"real"`` or ``"synthetic"``; the latter is stamped.

    Returns:
        The figure, and its axes (an array of them if there are several, as ``subplots`` gives).

    Raises:
        ValueError: The title is empty or the origin is neither of the two.
    """
    if not title.strip():
        raise ValueError("figure: the title is empty. Every figure says its finding in its title")
    if origin not in ("real", "synthetic"):
        raise ValueError(f"figure: origin={origin!r}: it is 'real' or 'synthetic'")
    mpl.rcParams.update(LOOK)
    width, height = size or (WIDTH, min(2 + 2.2 * nrows, 9))
    fig = Figure(figsize=(width, height), layout="constrained")
    fig.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    room = width - 0.3 - (1.6 if origin == "synthetic" else 0)
    fig.suptitle(
        "\n".join(balance(title, room, TITLE_SIZE, bold=True)),
        x=0.08 / width,
        ha="left",
        fontsize=TITLE_SIZE,
        fontweight="bold",
        linespacing=1.25,
        parse_math=False,  # "$46,000 against $49,516" is no formula
    )
    if origin == "synthetic":
        _stamp(fig)
    axes = fig.subplots(nrows, ncols)
    if nrows * ncols == 1:
        axes.set(xlabel=xlabel or "", ylabel=ylabel or "")
    else:
        if xlabel:
            fig.supxlabel(xlabel, fontsize=10)
        if ylabel:
            fig.supylabel(ylabel, fontsize=10)
    return fig, axes


def show(fig: Figure, alt: str) -> None:
    """Show a figure with a text for those who cannot see it, and let it go.

    JupyterLab and nbconvert drop the alt text of a plain PNG output. They keep that of an ``img``
    element, so the picture travels as HTML; the PNG goes along for readers that know only images.
    Outside IPython (in a rank, in a script) nothing is shown.

    Args:
        fig: A figure, usually from ``figure`` or a function of ``course_lib.plots``.
        alt: What a reader should learn from the picture, in one or two sentences.

    Raises:
        ValueError: The alt text or the title is empty, or an axis has no label.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(
            "show: alt is empty. Say in a sentence what the figure shows to those who see it"
        )
    _check_names(fig)
    alt = " ".join(alt.split())
    if any(text.get_gid() == STAMP for text in fig.texts):
        alt += " (Drawn from synthetic data.)"
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from IPython.display import display

        png = base64.b64encode(to_png(fig)).decode()
        image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}">'
        display(
            {"text/html": image, "image/png": png, "text/plain": f"[figure] {alt}"},
            metadata={"image/png": {"alt": alt}},
            raw=True,
        )
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:  # for a figure that did come from pyplot, by way of pandas, say
        pyplot.close(fig)


def to_png(fig: Figure) -> bytes:
    """The figure as a PNG with 256 colours: a third of the bytes, and no difference to be seen."""
    buffer, small = io.BytesIO(), io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    picture = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(small, format="PNG", optimize=True)
    return small.getvalue()


def thousands() -> FuncFormatter:
    """Tick labels of large numbers: 100,000."""

    def text(value: float, _position: int | None = None) -> str:
        plain = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.10g}"
        return plain.replace("-", "−")

    return FuncFormatter(text)


def _stamp(fig: Figure) -> None:
    width, height = fig.get_size_inches()
    fig.text(
        1 - 0.14 / width,
        1 - 0.14 / height,
        "SYNTHETIC DATA",
        ha="right",
        va="top",
        fontsize=10,
        fontweight="bold",
        color="white",
        gid=STAMP,
        zorder=100,
        bbox={"boxstyle": "round,pad=0.35", "facecolor": "#b3261e", "edgecolor": "none"},
    )


def _check_names(fig: Figure) -> None:
    """Raise an error if the figure has no title or an axis no label."""
    panels = [ax.get_title(place) for ax in fig.axes for place in ("left", "center", "right")]
    if not any(title.strip() for title in (fig.get_suptitle(), *panels)):
        raise ValueError("show: the figure has no title. Say its finding: figure('Two ranks …')")
    for ax in fig.axes:
        if not ax.axison or not ax.get_visible() or ax.get_label() == "<colorbar>":
            continue
        for name in ("x", "y"):
            if not _labelled(fig, ax, name):
                raise ValueError(
                    f"show: an axis has no {name} label, and every figure names its axes. Pass "
                    f"{name}label= to figure(), with the unit, or call ax.set_{name}label(); for a "
                    "picture without axes call ax.axis('off')"
                )


def _labelled(fig: Figure, ax: Axes, name: str) -> bool:
    if (
        getattr(fig, f"get_sup{name}label")().strip()
        or not getattr(ax, f"{name}axis").get_visible()
    ):
        return True
    # A twin (ax.twinx) lies over the axes whose label it shares.
    shared = getattr(ax, f"get_shared_{name}_axes")().get_siblings(ax)
    here = [other for other in shared if other.get_position().bounds == ax.get_position().bounds]
    return any(getattr(other, f"get_{name}label")().strip() for other in here)
