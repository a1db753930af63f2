"""Grids of pictures and confusion matrices: everything is drawn, and mistakes are named."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from course_lib import plots

BYTES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
COUNTS = [[900, 12, 88], [3, 997, 0], [250, 1, 749]]
NAMES = ["automobile", "bird", "cat"]


def drawn_in(fig):
    return [ax.images[0].get_array() for ax in fig.axes if ax.images]


@pytest.mark.parametrize(
    "images", [BYTES, torch.from_numpy(BYTES), torch.from_numpy(BYTES).permute(0, 3, 1, 2)]
)
def test_every_picture_is_drawn_as_it_is_and_in_order(images):
    fig = plots.pictures(images, list("abcde"), "Five", columns=3)

    assert np.array_equal(np.stack(drawn_in(fig)), BYTES)
    assert [ax.get_title() for ax in fig.axes] == [*"abcde", ""]
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
