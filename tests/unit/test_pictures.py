"""Grids of pictures and confusion matrices: everything is drawn, and mistakes are named."""

import math

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from course_lib import plots
from course_lib._text import FONT

BYTES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
COUNTS = [[900, 12, 88], [3, 997, 0], [250, 1, 749]]
NAMES = ["automobile", "bird", "cat"]


LONG = "a caption that says far too much, " * 4


def drawn_in(fig):
    return [ax.images[0].get_array() for ax in fig.axes if ax.images]


def boxes_of(fig):
    """Every text that is drawn with its box in pixels; the box of each picture."""
    renderer = FigureCanvasAgg(fig).get_renderer()
    fig.draw(renderer)
    axes_off = {text for ax in fig.axes if not ax.axison for text in ax.findobj(Text)}
    ours = set(fig.findobj(Text)) - (axes_off - {ax.title for ax in fig.axes})
    seen = [text for text in ours if text.get_text().strip() and text.get_visible()]
    texts = [(text, text.get_window_extent(renderer)) for text in seen]
    grids = [ax for ax in fig.axes if not ax.axison]
    return texts, [("a picture", ax.get_window_extent(renderer)) for ax in grids]


def apart_and_inside(fig):
    texts, images = boxes_of(fig)
    width, height = fig.get_size_inches() * fig.dpi
    for i, (text, box) in enumerate(texts):
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
        for other, other_box in texts[i + 1 :] + images:
            if not (other != "a picture" and text.get_rotation() == other.get_rotation() == 35):
                assert not box.overlaps(other_box), f"{text!r} lies over {other!r}"


@pytest.mark.parametrize(
    "images", [BYTES, torch.from_numpy(BYTES), torch.from_numpy(BYTES).permute(0, 3, 1, 2)]
)
def test_every_picture_is_drawn_as_it_is_and_in_order(images):
    fig = plots.pictures(images, list("abcde"), "Five", columns=3)

    assert np.array_equal(np.stack(drawn_in(fig)), BYTES)
    assert [ax.get_title() for ax in fig.axes] == [*"abcde"]
    assert all(ax.images[0].get_interpolation() == "nearest" for ax in fig.axes[:5])


def test_grey_pictures_and_a_single_one():
    fig = plots.pictures(BYTES[:1, :, :, 0], ["one"], "One")

    assert np.array_equal(drawn_in(fig)[0], BYTES[0, :, :, 0])


def test_marks_are_signs_and_frames():
    fig = plots.pictures(BYTES[:3], "abc", "Three", marks=["right", "wrong", None])

    assert [ax.get_title() for ax in fig.axes] == ["✓ a", "✗ b", "c"]
    frames = [ax.lines[0].get_color() for ax in fig.axes]
    assert to_hex(frames[0]) != to_hex(frames[1])
    assert frames[2] == "none"


@pytest.mark.parametrize(
    ("n", "columns"), [(1, 8), (3, 1), (3, 8), (9, 4), (11, 8), (21, 10), (64, 8)]
)
def test_captions_keep_to_their_picture_and_pictures_are_large_enough(n, columns):
    images = np.resize(BYTES, (n, 32, 32, 3))
    captions = [("cat", "automobile, is airplane", LONG)[i % 3] for i in range(n)]
    fig = plots.pictures(images, captions, "T", marks=n * ["wrong"], columns=columns)

    apart_and_inside(fig)
    for _, box in boxes_of(fig)[1]:
        assert box.width / fig.dpi > (0.7 if columns <= 8 else 0.55)
        assert box.width == pytest.approx(box.height, abs=2)


def test_a_caption_that_is_too_long_says_so_and_stretches_only_its_own_row():
    plain, long = (
        plots.pictures(BYTES[:4], ["a", "b", c, "d"], "T", columns=2) for c in ("c", LONG)
    )

    assert plain.axes[2].get_title() == "c"
    lines = long.axes[2].get_title().splitlines()
    assert len(lines) == 3
    assert lines[2].endswith("…")
    assert long.get_figheight() - plain.get_figheight() == pytest.approx(2 * 0.16)


def test_a_long_title_takes_no_room_from_the_pictures():
    title = "Of eight pictures the network names five rightly, and cats are the hardest " * 2
    for origin in ("real", "synthetic"):
        images = np.resize(BYTES, (8, 32, 32, 3))
        fig = plots.pictures(images, 8 * ["cat"], title, origin=origin)

        apart_and_inside(fig)
        assert min(box.width for _, box in boxes_of(fig)[1]) / fig.dpi > 0.7


@pytest.mark.parametrize("shape", [(28, 28), (48, 64), (64, 32)])
def test_pictures_keep_their_shape(shape):
    fig = plots.pictures(np.zeros((3, *shape), np.uint8), "abc", "T", columns=2)

    apart_and_inside(fig)
    for _, box in boxes_of(fig)[1]:
        assert box.height / box.width == pytest.approx(shape[0] / shape[1], rel=0.05)
        assert box.width / fig.dpi > 0.7


def test_the_font_has_both_signs():
    font = get_font(findfont(FONT))

    assert all(font.get_char_index(ord(sign)) for sign in "✓✗…")


def test_more_pictures_make_a_higher_figure():
    few, many = (plots.pictures(BYTES[:n], "abcde"[:n], "T", columns=2) for n in (2, 5))

    assert many.get_figheight() > 2 * few.get_figheight()


@pytest.mark.parametrize(
    ("images", "more", "error", "message"),
    [
        (BYTES / 255, {}, TypeError, "images of float64"),
        (BYTES[:0], {"captions": ""}, ValueError, "N of 1 or more"),
        (BYTES[0], {}, ValueError, "32 images, 5 captions"),
        (BYTES[..., :2], {}, ValueError, r"shape \(5, 32, 32, 2\)"),
        (BYTES, {"captions": "abc"}, ValueError, "5 images, 3 captions"),
        (BYTES, {"marks": ["right"]}, ValueError, "and 1 marks"),
        (BYTES, {"marks": 5 * ["good"]}, ValueError, "mark 'good'"),
        (BYTES, {"columns": 0}, ValueError, "columns=0"),
    ],
)
def test_mistakes_about_pictures_are_named(images, more, error, message):
    with pytest.raises(error, match=message):
        plots.pictures(**{"images": images, "captions": "abcde", "title": "T"} | more)


def test_every_count_is_said_and_the_worst_confusion_framed():
    [ax, *_] = plots.confusion(torch.tensor(COUNTS), NAMES, "Cats").axes

    said = {text.get_position(): text.get_text() for text in ax.texts}
    assert said == {(c, r): f"{COUNTS[r][c]:,}" for r in range(3) for c in range(3)}
    frames = [p for p in ax.patches if isinstance(p, Rectangle) and not p.get_fill()]
    assert [frame.get_xy() for frame in frames] == [(-0.5, 1.5)]
    assert [t.get_text() for t in ax.get_xticklabels()] == NAMES
    assert [t.get_text() for t in ax.get_yticklabels()] == NAMES


@pytest.mark.parametrize("n", [2, 5, 10])
@pytest.mark.parametrize("name", ["cat", "automobile", "shellcode and worms"])
def test_names_and_counts_of_a_confusion_fit(n, name):
    counts = np.full((n, n), 1234) + np.diag(n * [50_000])
    fig = plots.confusion(counts, n * [name], "T")

    apart_and_inside(fig)
    [ax] = fig.axes
    names = ax.get_xticklabels()
    assert [text.get_text() for text in names] == n * [name]
    turned = names[0].get_rotation() > 0
    assert turned == (n * len(name) > 60)
    if turned:  # slanting lines side by side: their boxes overlap, the lines must not
        step = ax.transData.transform((1, 0))[0] - ax.transData.transform((0, 0))[0]
        apart = step * math.sin(math.radians(names[0].get_rotation()))
        assert apart > 1.2 * names[0].get_fontsize() * fig.dpi / 72


def test_counts_stand_out_from_their_cells():
    counts = np.arange(100).reshape(10, 10)
    [ax] = plots.confusion(counts, "abcdefghij", "T").axes

    diagonal = {(p.get_x() + 0.5, p.get_y() + 0.5): p.get_facecolor() for p in ax.patches}
    diagonal = {at: colour for at, colour in diagonal.items() if at[0] == at[1]}
    for text in ax.texts:
        column, row = text.get_position()
        ground = diagonal.get((column, row)) or ax.images[0].to_rgba(float(counts[row, column]))
        light, dark = sorted((luminance(ground), luminance(to_rgb(text.get_color()))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.5, text.get_text()


def luminance(colour):
    """Relative luminance as the accessibility guidelines define it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_right_answers_do_not_take_the_colours_from_the_mistakes():
    [ax, *_] = plots.confusion(COUNTS, NAMES, "Cats").axes

    drawn = ax.images[0].get_array()
    assert drawn.max() == 250
    assert np.diag(drawn).tolist() == [0, 0, 0]
    assert len([p for p in ax.patches if p.get_fill()]) == 3


def test_a_network_without_a_mistake_has_no_frame():
    [ax, *_] = plots.confusion([[5, 0], [0, 5]], ["no", "yes"], "Perfect").axes

    assert all(patch.get_fill() for patch in ax.patches)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1, 2, 3]], "a square"),
        ([[1, 2], [3, 4]], "for 3 classes"),
        ([[-1, 0, 0]] * 3, "whole numbers from 0"),
        ([[0.5, 0, 0]] * 3, "whole numbers from 0"),
    ],
)
def test_mistakes_about_counts_are_named(counts, message):
    with pytest.raises(ValueError, match=message):
        plots.confusion(counts, NAMES, "T")
