import gc
import io
import weakref
from pathlib import Path

import matplotlib.pyplot as plt
import nbclient
import nbconvert
import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from course_lib import plots
from course_lib._figures import STAMP, WIDTH, to_png
from course_lib._text import balance, text_width, wrap

ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(0)
DEGREES = RANDOM.uniform((-124, 32), (-114, 42), (50, 2))
ALT = 'The loss of 2 ranks lies on that of 1; "exactly" < 1e-6 & no more'

# One call a drawing, with data like the lessons'
DRAWINGS = {
    "lines": lambda **more: plots.lines(
        {"1 rank": [3.0, 2.0, 1.0], "2 ranks": ([1, 2, 3], [3.0, 2.0, 1.0])},
        "Two ranks learn the same curve as one",
        "epoch",
        "loss (dollars²)",
        **more,
    ),
    "bars": lambda **more: plots.bars(
        {"mean": 114486.2, "linear regression": 69127.0, "our network": 43577.0},
        "The network beats the line",
        "test RMSE (dollars)",
        highlight="our network",
        **more,
    ),
    "predicted_against_actual": lambda **more: plots.predicted_against_actual(
        torch.linspace(1e5, 5e5, 400),
        np.linspace(1e5, 5e5, 400) + RANDOM.normal(0, 4e4, 400),
        "Most lie near the diagonal",
        "dollars",
        **more,
    ),
    "map_of_prices": lambda **more: plots.map_of_prices(
        DEGREES[:, 0], DEGREES[:, 1], np.linspace(1e5, 5e5, 50), "The coast is dear", **more
    ),
    "heat_map": lambda **more: plots.heat_map(
        [[45_500, 44_200, float("nan")], [47_100, 46_300, 48_900]],
        ["3 × 256", "1 × 64, the smallest of all"],
        [0.001, 0.003, 0.027],
        "Deep and wide at a middling rate costs the least: $44,200",
        "learning rate",
        "hidden layers × width",
        "validation RMSE (dollars)",
        **more,
    ),
    "pictures": lambda **more: plots.pictures(
        RANDOM.integers(0, 256, (11, 3, 32, 32), dtype=np.uint8),
        ["cat", "automobile, is airplane", "a name far too long for its picture", *"abcdefgh"],
        "Two pictures of three are named rightly",
        marks=["right", "wrong"] + 9 * [None],
        **more,
    ),
    "confusion": lambda **more: plots.confusion(
        [[900, 12, 88], [3, 997, 0], [250, 1, 749]],
        ["automobile", "bird", "cat of the house"],
        "Cats are taken for automobiles",
        **more,
    ),
}
DIAGRAMS = {
    "machine_card": lambda: plots.machine_card(
        {
            "CPU cores": "2",
            "memory": "24 GiB",
            "GPUs": "0",
            "PyTorch": "2.15.0",
            "ranks": "2",
            "data found": "housing.csv, " * 14,
            "a name that is far too long to be the caption of a tile": "x",
        }
    ),
    "sequence": lambda: plots.sequence(
        ["kernel", "fork server", "rank 0", "rank 1"],
        [
            ("kernel", "fork server", "launch(train, nprocs=2): start two clean processes"),
            ("fork server", "rank 0", "fork"),
            ("fork server", "rank 1", "fork"),
            ("rank 0", "rank 0", "joins $MASTER_ADDR:$MASTER_PORT"),
            ("rank 1", "rank 1", "joins $MASTER_ADDR:$MASTER_PORT as well"),
            ("rank 1", "kernel", "result"),
        ],
        "launch asks a clean server for ranks",
    ),
}


@pytest.fixture
def displayed(monkeypatch):
    """Pretend to be in IPython; collect what is displayed."""
    import IPython.display

    plt.switch_backend("agg")  # before pyplot meets our IPython, which has no events

    bundles = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", lambda data, **_: bundles.append(data))
    return bundles


def texts_of(fig):
    """Every visible text of a figure with its place in pixels."""
    renderer = FigureCanvasAgg(fig).get_renderer()
    fig.draw(renderer)
    found = []
    for text in set(fig.findobj(Text)) - set(labels_out_of_view(fig)):
        if text.get_text().strip() and text.get_visible() and is_drawn(text):
            found.append((text.get_text(), text.get_window_extent(renderer)))
    return found


def labels_out_of_view(fig):
    """Labels of ticks beyond the ends of an axis: matplotlib keeps them, and does not draw them."""
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if not ax.axison or not low <= tick.get_loc() <= high:
                    yield from (tick.label1, tick.label2)


def is_drawn(text):
    return text.axes is None or text.axes.axison or text in text.axes.texts


def words_of(fig):
    return [text for text, _ in texts_of(fig)]


# The frame


def test_a_figure_has_title_labels_and_a_white_ground():
    fig, ax = plots.figure("Two ranks agree", xlabel="epoch", ylabel="loss")

    assert fig.get_suptitle() == "Two ranks agree"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    with Image.open(io.BytesIO(to_png(fig))) as picture:
        assert picture.width == round(WIDTH * 120)
        assert picture.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)


def test_a_long_title_wraps_inside_the_figure_and_dollars_are_no_formula():
    title = "The network's error of $43,577 beats the $46,260 of the boosted trees " * 2
    fig, _ = plots.figure(title, xlabel="x", ylabel="y", origin="synthetic")

    [(shown, box)] = [(t, b) for t, b in texts_of(fig) if "$43,577" in t]
    assert " ".join(shown.split()) == title.strip()
    [stamp] = [b for t, b in texts_of(fig) if t == "SYNTHETIC DATA"]
    assert box.x0 >= 0
    assert box.x1 < stamp.x0
    widest = max(text_width(line, 13, bold=True) for line in shown.splitlines())
    assert box.width / fig.dpi == pytest.approx(widest, abs=0.02)  # a formula would be narrower


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"title": " "}, "title is empty"), ({"title": "T", "origin": "made up"}, "origin='made up'")],
)
def test_a_figure_without_a_finding_or_with_an_unknown_origin_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.figure(**arguments)


def test_panels_share_one_label(displayed):
    fig, axes = plots.figure("Each rank", xlabel="step", ylabel="loss", nrows=2, ncols=2)
    assert axes.shape == (2, 2)
    plots.show(fig, "Four panels.")

    fig, _ = plots.figure("Each rank", xlabel="step", nrows=1, ncols=2)
    with pytest.raises(ValueError, match="no y label"):
        plots.show(fig, "Two panels.")


# Showing


@pytest.mark.parametrize("alt", ["", "  \n", None])
def test_alt_text_is_required(alt):
    with pytest.raises(ValueError, match="alt is empty"):
        plots.show(DRAWINGS["lines"](), alt)


@pytest.mark.parametrize(
    ("labels", "message"),
    [({"xlabel": "x"}, "no y label"), ({"ylabel": "y"}, "no x label"), ({}, "names its axes")],
)
def test_axes_without_a_name_are_refused(displayed, labels, message):
    fig, _ = plots.figure("T", **labels)
    with pytest.raises(ValueError, match=message):
        plots.show(fig, "alt")
    assert displayed == []


def test_a_figure_without_a_title_is_refused(displayed):
    fig, ax = plt.subplots()
    ax.set(xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="no title"):
        plots.show(fig, "alt")
    ax.set_title("One panel, one title")
    plots.show(fig, "alt")
    assert len(displayed) == 1


def test_colour_bars_twins_and_axes_that_are_off_need_no_label(displayed):
    fig, axes = plots.figure("T", nrows=1, ncols=2)
    axes[0].axis("off")
    drawn = axes[1].imshow([[1, 2]])
    axes[1].set(xlabel="column", ylabel="row")
    fig.colorbar(drawn)
    plots.show(fig, "alt")

    fig, ax = plots.figure("T", xlabel="step", ylabel="loss")
    ax.twinx().set_ylabel("rate")
    plots.show(fig, "alt")
    assert len(displayed) == 2


def test_what_is_displayed_carries_the_alt_text(displayed):
    plots.show(DRAWINGS["lines"](), ALT)

    [bundle] = displayed
    assert BeautifulSoup(bundle["text/html"], "html.parser").img["alt"] == ALT
    assert bundle["text/plain"] == f"[figure] {ALT}"


def test_shown_figures_are_let_go(displayed):
    fig = DRAWINGS["map_of_prices"]()
    gone = weakref.ref(fig)
    plots.show(fig, "alt")
    pyplots, ax = plt.subplots()
    ax.set(xlabel="x", ylabel="y", title="T")
    plots.show(pyplots, "alt")

    del fig
    gc.collect()
    assert plt.get_fignums() == []
    assert gone() is None


def test_outside_ipython_nothing_is_shown(capsys):
    plots.show(DRAWINGS["lines"](), "alt")

    assert capsys.readouterr() == ("", "")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A tiny notebook, run in a real kernel."""
    source = (
        "from course_lib import plots\n"
        "fig = plots.lines({'a': [2, 1]}, 'It falls', 'epoch', 'loss', origin='synthetic')\n"
        f"plots.show(fig, {ALT!r})"
    )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source)], metadata={"kernelspec": kernel}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        folder = str(tmp_path_factory.mktemp("executed"))
        nbclient.NotebookClient(
            notebook, timeout=120, resources={"metadata": {"path": folder}}
        ).execute()
    return notebook


def test_one_output_with_a_picture(executed):
    [output] = executed.cells[0].outputs

    assert set(output.data) == {"text/html", "image/png", "text/plain"}
    assert output.metadata["image/png"]["alt"].startswith(ALT)


@pytest.mark.parametrize("template", ["lab", "classic"])
def test_alt_text_reaches_the_html_that_nbconvert_writes(executed, template):
    page, _ = nbconvert.HTMLExporter(template_name=template).from_notebook_node(executed)

    [image] = BeautifulSoup(page, "html.parser").find_all("img")
    assert image["alt"] == f"{ALT} (Drawn from synthetic data.)"
    assert image["src"].startswith("data:image/png;base64,")


# The drawings


@pytest.mark.parametrize("name", DRAWINGS | DIAGRAMS)
def test_every_drawing_may_be_shown(name, displayed):
    fig = (DRAWINGS | DIAGRAMS)[name]()

    plots.show(fig, "alt")
    assert len(displayed) == 1
    assert not any(text.get_gid() == STAMP for text in fig.texts)


@pytest.mark.parametrize("name", DRAWINGS | DIAGRAMS)
def test_no_text_is_cut_off(name):
    fig = (DRAWINGS | DIAGRAMS)[name]()

    width, height = fig.get_size_inches() * fig.dpi
    for text, box in texts_of(fig):
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{text!r} leaves the figure: {box}"


@pytest.mark.parametrize("name", DIAGRAMS)
def test_texts_of_diagrams_do_not_overlap(name):
    texts = texts_of(DIAGRAMS[name]())

    for i, (text, box) in enumerate(texts):
        for other, other_box in texts[i + 1 :]:
            assert not box.overlaps(other_box), f"{text!r} lies over {other!r}"


@pytest.mark.parametrize("name", DRAWINGS)
def test_synthetic_data_are_stamped_in_picture_and_alt_text(name, displayed):
    fig = DRAWINGS[name](origin="synthetic")

    plots.show(fig, "What it shows.")
    assert "What it shows. (Drawn from synthetic data.)" in displayed[0]["text/html"]
    with Image.open(io.BytesIO(to_png(fig))) as picture:
        corner = picture.convert("RGB").crop((picture.width - 200, 0, picture.width, 45))
    red = sum(n for n, (r, g, b) in corner.getcolors(10_000) if r > 150 and g < 60 and b < 60)
    assert red > 0.2 * corner.width * corner.height


def test_curves_on_top_of_each_other_stay_visible():
    curve = np.linspace(1, 0, 20)
    fig = plots.lines({f"{n} ranks": curve for n in (1, 2, 4)}, "T", "epoch", "loss")

    names = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert names == ["1 ranks", "2 ranks", "4 ranks"]
    fig.axes[0].get_legend().remove()  # it shows every colour, whatever the curves do
    with Image.open(io.BytesIO(to_png(fig))) as picture:
        colours = {c for n, c in picture.convert("RGB").getcolors(10_000) if n > 150}
    drawn = fig.axes[0].lines
    for line in drawn:
        rgb = np.array(colour_on_white(line))
        assert min(np.abs(rgb - np.array(c)).max() for c in colours) < 12, line.get_label()


def colour_on_white(line):
    """The colour of a line on white, 0 to 255."""
    alpha = line.get_alpha() or 1
    return [255 * (alpha * c + 1 - alpha) for c in to_rgb(line.get_color())]


def test_lines_count_from_one_and_take_their_own_x():
    fig = plots.lines({"a": [5, 6], "b": ([10, 20, 30], [1, 2, 3])}, "T", "step", "loss")

    a, b = fig.axes[0].lines
    assert a.get_xdata().tolist() == [1, 2]
    assert b.get_xdata().tolist() == [10, 20, 30]


@pytest.mark.parametrize("largest_first", [False, True])
def test_bars_are_sorted_and_say_their_values(largest_first):
    fig = DRAWINGS["bars"](largest_first=largest_first)

    ax = fig.axes[0]
    heights = {t.get_text(): t.get_position()[1] for t in ax.get_yticklabels()}
    from_the_top = sorted(heights, key=heights.get)
    assert ax.yaxis_inverted()  # so the smallest position is at the top
    errors_first = ["our network", "linear regression", "mean"]
    assert from_the_top == (errors_first[::-1] if largest_first else errors_first)
    assert {"43,577", "69,127", "114,486"} <= set(words_of(fig))
    colours = dict(zip(from_the_top, (bar.get_facecolor() for bar in ax.patches), strict=True))
    assert colours["mean"] == colours["linear regression"] != colours["our network"]


def test_every_prediction_is_counted_and_the_diagonal_drawn():
    fig = DRAWINGS["predicted_against_actual"]()

    ax, bar = fig.axes
    assert ax.collections[0].get_array().sum() == 400
    [diagonal] = ax.lines
    assert [*diagonal.get_xdata()] == [*diagonal.get_ydata()]
    assert ax.get_xlim() == ax.get_ylim()
    assert "100,000" in words_of(fig)
    assert bar.get_ylabel() == "predictions in a cell"


def test_the_map_draws_every_price_at_its_place():
    fig = DRAWINGS["map_of_prices"]()

    dots = fig.axes[0].collections[0]
    places, prices = dots.get_offsets(), dots.get_array()
    drawn = {(*place, price) for place, price in zip(places, prices, strict=True)}
    assert drawn == {(*d, p) for d, p in zip(DEGREES, np.linspace(1e5, 5e5, 50), strict=True)}
    assert "median house value (dollars)" in words_of(fig)


def test_the_heat_map_says_every_value_frames_the_smallest_and_names_gaps():
    fig = DRAWINGS["heat_map"]()

    ax = fig.axes[0]
    said = {text.get_text(): text.get_position() for text in ax.texts}
    assert said["44,200"] == (1, 0)
    assert said["48,900"] == (2, 1)
    assert said["no result"] == (2, 0)
    assert len(said) == 6
    [frame] = ax.patches
    assert frame.get_xy() == (0.5, -0.5)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.001", "0.003", "0.027"]
    assert ax.get_yticklabels()[0].get_text() == "3 × 256"
    assert ax.images[0].get_array().mask.tolist() == [[False, False, True], [False, False, False]]


def test_numbers_in_a_heat_map_stand_out_from_their_cells():
    fig = plots.heat_map(
        np.arange(40.0).reshape(4, 10), range(4), range(10), "T", "x", "y", "measured"
    )

    ax = fig.axes[0]
    for text in ax.texts:
        ground, ink = ax.images[0].to_rgba(float(text.get_text())), to_rgb(text.get_color())
        light, dark = sorted((luminance(ground), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3, text.get_text()


def test_a_value_that_went_astray_leaves_the_others_their_colours():
    fig = plots.heat_map([[10, 11, 12], [13, 14, 1000]], "ab", "cde", "T", "x", "y", "error")

    drawn = fig.axes[0].images[0]
    light, dark = (np.array(drawn.to_rgba(float(v))[:3]) for v in (10, 14))
    assert np.abs(light - dark).max() > 0.2
    assert fig.axes[1].get_ylabel() == "error, darkest: or more"


def luminance(colour):
    """Relative luminance as the accessibility guidelines define it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_environment_variables_in_diagrams_are_no_formula():
    texts = [text for text in DIAGRAMS["sequence"]().findobj(Text) if "$" in text.get_text()]

    assert len(texts) == 2
    assert not any(text.get_parse_math() for text in texts)


def test_the_card_shows_every_fact():
    facts = {"CPU cores": "2", "data found": "housing.csv " * 20, "GPUs": "none"}
    words = " ".join(words_of(plots.machine_card(facts, "A small machine")))

    for part in ("CPU cores", "2", "data found", "GPUs", "none", "A small machine"):
        assert part in words
    assert words.count("housing.csv") == 20


def test_the_sequence_keeps_the_order_of_time_and_the_direction():
    fig = plots.sequence(["a", "b"], [("a", "b", "first"), ("b", "a", "then"), ("b", "b", "last")])

    at = dict(texts_of(fig))
    assert at["first"].y0 > at["then"].y0 > at["last"].y0
    there, back = [t for t in fig.axes[0].texts if getattr(t, "arrow_patch", None)][:2]
    assert there.xy[0] > there.get_position()[0]
    assert back.xy[0] < back.get_position()[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.lines({}, "T", "x", "y"), "no series"),
        (lambda: plots.lines({"a": []}, "T", "x", "y"), "a has 0 x and 0 y"),
        (lambda: plots.lines({"a": ([1], [1, 2])}, "T", "x", "y"), "a has 1 x and 2 y"),
        (lambda: plots.bars({}, "T", "x"), "no values"),
        (lambda: plots.bars({"a": float("nan")}, "T", "x"), "a is nan"),
        (lambda: plots.bars({"a": 1}, "T", "x", highlight="b"), "highlight='b'"),
        (lambda: plots.predicted_against_actual([1], [1, 2], "T", "m"), "1 actual and 2 predicted"),
        (lambda: plots.predicted_against_actual([], [], "T", "m"), "0 actual"),
        (lambda: plots.map_of_prices([1], [1, 2], [1], "T"), "2 latitudes"),
        (lambda: plots.heat_map([[1, 2]], "a", "b", "T", "x", "y", "m"), "1 rows and 1 columns"),
        (lambda: plots.heat_map([[np.nan]], "a", "b", "T", "x", "y", "m"), "no value is a finite"),
        (lambda: plots.machine_card({}), "no facts"),
        (lambda: plots.sequence([], []), "at least one"),
        (lambda: plots.sequence(["a", "a"], []), "each name once"),
        (lambda: plots.sequence(["a"], [("a", "z", "hello")]), "'hello' names 'z'"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Measuring text


@pytest.mark.parametrize(
    "text", ["iiiiiiii", "WWWWWW", "the cost is $5 or $6", "rank 0: all_reduce"]
)
@pytest.mark.parametrize("bold", [False, True])
def test_text_is_as_wide_as_measured(text, bold):
    fig, ax = plots.figure("T")
    ax.text(0, 0, text, size=13, weight="bold" if bold else "normal", parse_math=False)

    drawn = dict(texts_of(fig))[text].width / fig.dpi
    assert drawn == pytest.approx(text_width(text, 13, bold), abs=0.01)


def test_wrapped_lines_fit_and_keep_every_word():
    text = "a few words and averyveryverylongwordthatfitsnowhere $5"

    lines = wrap(text, 1.0, 10)
    assert all(text_width(line, 10) <= 1.0 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap("", 1.0, 10) == [""]


def test_balanced_lines_leave_no_word_alone():
    text = "The coast is dear: Los Angeles and San Diego stand out"
    width = text_width(text, 13) - 0.05

    assert wrap(text, width, 13)[-1] == "out"
    first, second = balance(text, width, 13)
    assert len(second.split()) > 3
    assert f"{first} {second}" == text


# Before and after a collective

NUMBERS = [[10 * rank + place for place in range(4)] for rank in range(4)]
ONE_EACH = [[0], [10], [20], [30]]
SUMS = [60, 64, 68, 72]
COLLECTIVES = {  # name → before, after, what moved
    "broadcast": (NUMBERS, [NUMBERS[2]] * 4, "all 4 ranks hold the same 4 numbers, from rank 2"),
    "scatter": (
        [None, None, NUMBERS[2], None],
        [[20], [21], [22], [23]],
        "all 4 ranks hold 1 number each, from rank 2",
    ),
    "gather": (
        ONE_EACH,
        [None, None, [0, 10, 20, 30], None],
        "rank 2 holds 4 numbers, one from each of 4 ranks",
    ),
    "reduce": (
        NUMBERS,
        [None, None, SUMS, None],
        "rank 2 holds 4 numbers, computed from several ranks",
    ),
    "all_gather": (
        ONE_EACH,
        [[0, 10, 20, 30]] * 4,
        "all 4 ranks hold the same 4 numbers, one from each of 4 ranks",
    ),
    "all_reduce": (
        NUMBERS,
        [SUMS] * 4,
        "all 4 ranks hold the same 4 numbers, computed from several ranks",
    ),
    "reduce_scatter": (
        NUMBERS,
        [[60], [64], [68], [72]],
        "all 4 ranks hold 1 number each, computed from several ranks",
    ),
    "all_to_all": (
        NUMBERS,
        torch.tensor(NUMBERS).T,
        "all 4 ranks hold 4 numbers each, one from each of 4 ranks",
    ),
    "a swap of two ranks": (
        [[1.5], [-2.0], [3.0]],
        [[-2.0], [1.5], [float("nan")]],
        "2 ranks hold 1 number each, from each of 2 ranks",
    ),
    "two who hold the same": (
        [[1], [1]],
        [[1], [1]],
        "the same 1 number, some of which several ranks held before",
    ),
    "nobody": ([None, [1]], [None, []], "no rank holds anything"),
    "more and less": ([[1, 2], [3]], [[1], [2, 7]], "1 to 2 numbers, some of them computed"),
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_what_moved_is_read_off_the_numbers(name):
    before, after, says = COLLECTIVES[name]

    assert says in plots.what_moved(before, after)


@pytest.mark.parametrize("name", COLLECTIVES)
def test_every_number_before_and_after_is_drawn_and_nothing_overlaps(name, displayed):
    before, after, _ = COLLECTIVES[name]
    fig = plots.before_after(before, after, "T")

    plots.show(fig, "alt")
    texts = texts_of(fig)
    drawn = sorted(float(t.replace("−", "-")) for t, _ in texts if t.lstrip("−")[0].isdigit())
    rows = [row for grid in (before, after) for row in grid if row is not None]
    assert drawn == sorted(float(value) for row in rows for value in row if value == value)
    words_do_not_overlap(fig)


def test_colours_follow_a_number_to_where_it_goes():
    before = [[1, 2], [3, 4]]
    fig = plots.before_after(before, [[3, 1], [9, 2]], "T")

    ax = fig.axes[0]
    text_at = {t.get_position(): t.get_text() for t in ax.texts}
    colours = {}
    for box in ax.patches:
        middle = (box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2)
        at = min(text_at, key=lambda p: abs(p[0] - middle[0]) + abs(p[1] - middle[1]))
        colours.setdefault(text_at[at], set()).add(box.get_facecolor())
    assert all(len(seen) == 1 for seen in colours.values())
    assert colours["1"] == colours["2"] != colours["3"] == colours["4"]
    assert colours["9"] not in (colours["1"], colours["3"])
    assert [t.get_text() for t in fig.legends[0].get_texts()] == [
        "from rank 0",
        "from rank 1",
        "computed",
    ]


def test_many_collectives_have_a_panel_each_and_keep_their_texts_apart(displayed):
    grids = {name: grids[:2] for name, grids in list(COLLECTIVES.items())[:7]}
    fig = plots.many_before_after(grids, "Seven ways")

    plots.show(fig, "alt")
    assert [ax.get_title("left") for ax in fig.axes if ax.get_title("left")] == list(grids)
    words_do_not_overlap(fig)
    width, height = fig.get_size_inches() * fig.dpi
    for text, box in texts_of(fig):
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{text!r} leaves the figure: {box}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.before_after([], [], "T"), "0 ranks before"),
        (lambda: plots.before_after([[1]], [[1], [2]], "T"), "1 ranks before and 2 after"),
        (lambda: plots.many_before_after({}, "T"), "no collectives"),
        (lambda: plots.what_moved([[1], [2]], [[1]]), "2 ranks before and 1"),
    ],
)
def test_mistakes_about_collectives_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def words_do_not_overlap(fig):
    texts = texts_of(fig)
    for i, (text, box) in enumerate(texts):
        for other, other_box in texts[i + 1 :]:
            assert not box.overlaps(other_box), f"{text!r} lies over {other!r}"


def test_a_mesh_has_every_rank_and_an_outline_around_each_group(displayed):
    groups = {"col": [[0, 1, 2], [3, 4, 5]], "row": [[0, 3], [1, 4], [2, 5]]}
    fig = plots.mesh_map([[0, 1, 2], [3, 4, 5]], groups, "T", {4: "(1, 1)"})

    plots.show(fig, "alt")
    ax = fig.axes[0]
    at = {t.get_text(): t.get_position() for t in ax.texts}
    assert {f"rank {r}" for r in range(6)} | {"(1, 1)", "col", "row"} <= at.keys()
    outlines = [p for p in ax.patches if not p.get_fill()]
    to_data = ax.transData.inverted()
    boxes = [p.get_window_extent().transformed(to_data) for p in outlines]
    inside = [[r for r in range(6) if box.contains(*at[f"rank {r}"])] for box in boxes]
    assert inside == [*groups["col"], *groups["row"]]
    kinds = {(to_rgb(p.get_edgecolor()), str(p.get_linestyle())) for p in outlines}
    assert len(kinds) == 2
    words_do_not_overlap(fig)


@pytest.mark.parametrize("columns", [1, 4, 8])
def test_a_mesh_of_any_width_fits(columns, displayed):
    rows = [[*range(columns)], [*range(columns, 2 * columns)]]
    groups = {"a row of the mesh": rows, "two above each other": [*zip(*rows, strict=True)]}
    fig = plots.mesh_map(rows, groups, "T", dict.fromkeys(range(2 * columns), "row 0, col 0"))

    plots.show(fig, "alt")
    words_do_not_overlap(fig)
    width, height = fig.get_size_inches() * fig.dpi
    assert all(patch.get_width() > 0.2 for patch in fig.axes[0].patches)
    drawn = [box for _, box in texts_of(fig)]
    drawn += [patch.get_window_extent() for patch in fig.axes[0].patches]
    for box in drawn:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, box


@pytest.mark.parametrize(
    ("ranks", "groups", "message"),
    [
        ([], {}, "rows of equal length"),
        ([[0, 1], [2]], {}, "rows of equal length"),
        ([[0, 1]], {"row": [[0, 2]]}, "rank 2 of a group is not among"),
    ],
)
def test_mistakes_about_meshes_are_named(ranks, groups, message):
    with pytest.raises(ValueError, match=message):
        plots.mesh_map(ranks, groups, "T")
