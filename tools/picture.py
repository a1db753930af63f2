"""Take a picture of JupyterLab with a lesson that has run to its end.

    python tools/picture.py 11 docs/pictures/jupyterlab_lesson_11.png --at "equivalence_table(runs"

runs lesson 11 in a copy of the course (real data, where `COURSE_DATA` or the network has them),
scrolls until the code cell with that text is at the top, and writes a PNG with a palette of its
own, small enough for a README. Needs the `dev` packages and Chromium or Chrome.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "jupyter"))
from drive_lab import Lab, copy_course
from notebook_page import Notebook

from course_lib._lessons import find_lesson

ROOT = Path(__file__).absolute().parents[1]
TO_THE_TOP = """
async text => {
    const cells = window.jupyterapp.shell.currentWidget.content.widgets;
    const cell = cells.find(cell => cell.model.sharedModel.getSource().includes(text));
    cell.node.scrollIntoView({block: 'start'});
    await new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)));
    cell.node.scrollIntoView({block: 'start'});
    await new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)));
}
"""


def picture(lesson: str, at: str, width: int = 1400, height: int = 900) -> Image.Image:
    """JupyterLab with ``lesson`` run to the end, its first cell with the text ``at`` at the top.

    Args:
        lesson: A number or a name, as for `course run`.
        at: A part of the cell's text.
        width: The window's, in pixels.
        height: Likewise.

    Returns:
        The picture, of 256 colours.

    Raises:
        SystemExit: The lesson has no such cell, or something in its page is wrong.
    """
    file = find_lesson(lesson, ROOT)
    path = file.relative_to(ROOT)
    if at not in file.read_text().replace('\\"', '"'):
        sys.exit(f"No cell of {path} has the text {at!r}.")
    first = "notebooks/00_start_here.ipynb"
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(copy_course(Path(folder)), width, height) as notebook,
    ):
        notebook.wait_for(first)
        if str(path) != first:
            notebook.open(str(path))
        notebook.run_all(seconds=1200)
        _look_at(notebook)
        notebook.page.evaluate(TO_THE_TOP, at)
        png = notebook.page.screenshot()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return image.quantize(256, dither=Image.Dither.NONE)


def _look_at(notebook: Notebook) -> None:
    """See that everything is drawn; it also makes JupyterLab draw what was out of sight."""
    problems = [problem for cell in notebook.cells() for problem in cell.problems()]
    if problems := [*problems, *notebook.dialogs()]:
        sys.exit("\n".join(["The page is not worth a picture:", *problems]))


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("lesson", help="a number or a name, as for `course run`")
    parser.add_argument("file", type=Path, help="the PNG to write")
    parser.add_argument("--at", required=True, help="text of the cell to have at the top")
    parser.add_argument("--width", type=int, default=1400, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=900, help="likewise")
    asked = parser.parse_args()
    picture(asked.lesson, asked.at, asked.width, asked.height).save(asked.file, optimize=True)
    print(f"{asked.file}: {asked.file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
