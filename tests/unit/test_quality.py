"""`make quality`: the targets are those of the syllabus, and a missed one is told."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import quality  # noqa: E402

SYLLABUS = (ROOT / "docs/syllabus.md").read_text()
NUMBERS, LIMITS = quality.read_targets()
REAL = {"data_origin": "real", "world_size": 2}


def bullet(lesson: int) -> str:
    """What the syllabus says of a lesson."""
    (text,) = re.findall(rf"^- \*\*. ({lesson:02d}_\w+\*\*.*)$", SYLLABUS, re.MULTILINE)
    return text


def test_every_bar_is_in_the_syllabus_and_the_other_way_round():
    built = [int(n) for n in re.findall(r"● (\d\d)_", SYLLABUS)]
    said = {lesson: set(re.findall(r"[≤≥] \*\*(.+?)\*\*", bullet(lesson))) for lesson in built}
    ours = {lesson: {n.says for n in NUMBERS if n.lesson == lesson and n.says} for lesson in built}
    assert ours == said


def test_a_bar_is_the_number_that_the_syllabus_writes():
    for number in NUMBERS:
        if number.says:
            sign, bar = ("≤", number.at_most) if number.at_most < 1e300 else ("≥", number.at_least)
            assert f"{sign} **{number.says}**" in bullet(number.lesson)
            digits = float(re.sub(r"[$, %]", "", number.says))
            assert bar == (digits / 100 if "%" in number.says else digits)


def test_the_other_bars_are_those_of_the_pages():
    design = (ROOT / "docs/design.md").read_text()
    (equal,) = {n.at_most for n in NUMBERS if n.name == "equivalence_max_abs_loss_diff"}
    assert f"largest loss difference ≤ {equal:.0e}".replace("e-05", "e-5") in design
    whole = f"a lesson ≤ {LIMITS['lesson_seconds']} s, a project lesson ≤ "
    assert f"{whole}{LIMITS['project_lesson_seconds']} s on 2 quiet cores" in design
    assert f"takes at most {LIMITS['train_seconds']} s" in SYLLABUS


def test_every_number_has_a_name_of_the_syllabus():
    (names,) = re.findall(r"^## Names of recorded results\n+(.*)$", SYLLABUS, re.MULTILINE)
    for number in NUMBERS:
        assert f"`{number.name}`" in names


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ([{"error": 9.0}, {"error": 30.0}, {"error": 10.0}], "met"),  # the median, not the mean
        ([{"error": 9.0}, {"error": 10.1}, {"error": 11.0}], "missed"),
        ([{"error": 1.0, "data_origin": "synthetic"}], "not real"),
        ([{"error": float("nan")}], "not recorded"),
        ([{}], "not recorded"),
        ([], "not run"),
    ],
)
def test_the_median_is_judged(runs, verdict):
    runs = {7: [REAL | run for run in runs]}
    ((*_, word),) = quality.judge([quality.Number(7, "error", at_most=10)], runs)
    assert word == verdict


def test_a_row_says_what_was_measured_and_on_what():
    numbers = [quality.Number(7, "accuracy", at_least=0.7), quality.Number(7, "watched_dollars")]
    runs = {7: [REAL | {"accuracy": a, "watched_dollars": 1234.5} for a in (0.8, 0.6)]}
    assert quality.judge(numbers, runs) == [
        ["07", "accuracy", "≥ 0.7", "0.7 (0.8, 0.6)", "2", "real", "met"],
        ["07", "watched_dollars", "–", "1,234.5 (1,234.5, 1,234.5)", "2", "real", "watched"],
    ]


def test_projects_may_take_longer():
    numbers = [quality.Number(lesson, "x") for lesson in (1, 10)]
    limits = {n.lesson: n.at_most for n in quality.with_limits(numbers, LIMITS) if n.name[0] == "l"}
    assert limits == {1: 60, 10: 150}


RECORD = """
from course_lib import record_results
record_results(preset=preset, seed=seed, world_size=2, data_origin=source, train_seconds=1.5,
               test_rmse_dollars=45_000 + {more}, equivalence_max_abs_loss_diff=1e-7)
"""


@pytest.mark.parametrize(
    ("code", "exit_code", "says"),
    [
        (RECORD.format(more="10 * seed"), 0, "45,005 (45,000, 45,010)"),
        (RECORD.format(more="5_000"), 1, "50,000 (50,000, 50,000)"),
        ("assert seed == 0, 'broken'\n" + RECORD.format(more="0"), 1, "not run"),  # one seed of two
        (
            "from course_lib.data._finding import DataNotFound\n"
            "raise DataNotFound('housing.csv is not there: get it')",
            2,
            "housing.csv is not there: get it",
        ),
    ],
)
def test_a_lesson_from_end_to_end(tmp_path, monkeypatch, capfd, code, exit_code, says):
    monkeypatch.setenv("COURSE_PRESET", "smoke")  # would count more than the parameter
    monkeypatch.setattr(quality, "ROOT", tmp_path)
    parameters = 'preset: str = "smoke"\nsource: str = "auto"\nseed: int = 0'
    cell = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell(code)])
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks/11_short.ipynb")

    words = ["--lessons", "11", "--seeds", "0,1", "--out", str(tmp_path / "runs")]
    assert quality.main(words) == exit_code
    out, err = capfd.readouterr()
    assert says in out + err
    assert "test_rmse_dollars" in out
