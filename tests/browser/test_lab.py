"""The course as a learner meets it: `make lab`, a browser, Run All, and a look at the page.

The notebooks are run in a copy, with an empty home: no settings, no news that was answered before,
and a `python3` kernel of another project, which must not be taken.
"""

import json
import shutil
from pathlib import Path

import nbformat
import psutil
import pytest

pytest.importorskip(
    "playwright", reason="the browser test needs playwright: pip install -e '.[dev]' brings it"
)
from drive_lab import Lab, chromium, copy_course
from notebook_page import Notebook

ROOT = Path(__file__).parents[2]
FIRST = "notebooks/00_start_here.ipynb"
LESSONS = {  # what must be seen in the page: so many figures, and these texts
    FIRST: (2, ["[rank 3] I am rank 3 of 4", "○ not done yet", "hint:"]),
    "notebooks/01_processes_and_ranks.ipynb": (2, ["MASTER_PORT", "still in init_process_group"]),
}
EXERCISE = "exercises/00_start_here.ipynb"
DOT = """\
from IPython.display import Image, display
from matplotlib import pyplot as plt
plt.imsave("dot.png", [[0.0]])
display(Image("dot.png"))"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here"),
    pytest.mark.skipif(
        chromium() is None,
        reason="the browser test needs Chromium or Chrome: apt install chromium, or on macOS "
        "brew install --cask google-chrome",
    ),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """What `make lab` has opened; when it is closed, nothing of it is left."""
    folder = copy_course(tmp_path_factory.mktemp("course"))
    stranger = folder / "home/data/kernels/python3"
    stranger.mkdir(parents=True)
    spec = {"argv": ["false"], "display_name": "of another project", "language": "python"}
    (stranger / "kernel.json").write_text(json.dumps(spec))
    before = set(psutil.Process().children(recursive=True))
    with Lab(folder) as notebook:
        notebook.wait_for(FIRST)
        yield notebook
        started = set(psutil.Process().children(recursive=True)) - before
    left = psutil.wait_procs(started, timeout=10)[1]
    for process in left:
        process.kill()
    assert started
    assert not left


@pytest.fixture
def opened(lab: Notebook):
    """Open a notebook; close it and end its kernel when the test is over."""

    def open_notebook(path: str) -> Notebook:
        lab.open(path)
        return lab

    yield open_notebook
    lab.close()


def all_problems(notebook: Notebook) -> list[str]:
    of_cells = [problem for cell in notebook.cells() for problem in cell.problems()]
    return [*of_cells, *notebook.dialogs(), *notebook.complaints]


def test_make_lab_opens_the_first_lesson_and_asks_nothing(lab):
    assert lab.page.locator("h1", has_text="Start here").is_visible()
    assert lab.dialogs() == []
    assert "token" not in lab.page.title().lower()


@pytest.mark.parametrize("path", LESSONS)
def test_a_lesson_runs_to_the_end(opened, path):
    figures, texts = LESSONS[path]
    notebook = opened(path)
    notebook.run_all(seconds=300)

    assert all_problems(notebook) == []
    cells = notebook.cells()
    assert sum(len(cell.images) for cell in cells) == figures
    for text in texts:
        assert any(text in cell.text for cell in cells), text


def test_an_exercise_runs_blank_and_says_so_when_it_is_solved(opened):
    notebook = opened(EXERCISE)
    notebook.run_all(seconds=60)

    assert all_problems(notebook) == []
    text = "\n".join(cell.text for cell in notebook.cells())
    assert text.count("○ not done yet") == 2

    solution = nbformat.read(ROOT / "solutions" / Path(EXERCISE).name, as_version=4)
    (answer,) = [c.source for c in solution.cells if "def roll_call" in c.source]
    notebook.replace("def roll_call", answer)
    notebook.run_all(seconds=60)

    assert all_problems(notebook) == []
    text = "\n".join(cell.text for cell in notebook.cells())
    assert text.count("○ not done yet") == 1
    assert "✓" in text
    assert "✗" not in text


def test_what_goes_wrong_in_a_page_is_seen(lab, opened):
    """Otherwise the tests above could not fail."""
    sources = ["print('no error')", DOT, "1 / 0", "print('never')"]
    broken = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources],
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
    )
    broken.cells[0].metadata["tags"] = ["raises-exception"]
    nbformat.write(broken, lab.folder / "broken.ipynb")

    notebook = opened("broken.ipynb")
    notebook.run_all(seconds=60)

    calm, dot, failing, after = (cell.problems() for cell in notebook.cells())
    assert calm == ["the cell \"print('no error')\" was to raise an exception and did not"]
    assert "has a figure that cannot be seen" in dot[0]
    assert failing == ["the cell '1 / 0' raised ZeroDivisionError"]
    assert "has not run" in after[0]
