"""Read one py:percent source into cells, each line with its place in the file.

Why: a maintainer edits text, and a fault found here is one line with a place and a remedy; found
later, it is a leaked solution or a notebook that stops halfway.

Invariants:

* `jupytext` decides where a cell begins and which comments are magics (``# %matplotlib``,
  ``# !ls``). Comments before the first ``# %%`` are notes to maintainers: no notebook has them.
* Nothing is guessed: an unknown tag, a misspelt ``[markdown]`` or a solution marker that is
  nearly right is a fault, because each could put a solution into learners' hands.
* Reading never raises on what an author wrote; the faults of a file are returned together.
"""

import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from jupytext.cell_reader import DoublePercentScriptCellReader

SOLUTION_TAGS = {"solution", "solution-only"}
EXERCISE_TAGS = {"exercise-only"}
# What papermill, nbmake and the book understand. A tag outside this set is taken for a slip.
TAGS = (
    {"parameters", "raises-exception", "skip-execution", "hide-cell", "hide-input", "hide-output"}
    | {"remove-cell", "remove-input", "remove-output", "full-width", "margin", "scroll-output"}
    | SOLUTION_TAGS
    | EXERCISE_TAGS
)
# What jupytext notes for the way back to text, which is never taken here.
_JUPYTEXT_NOTES = {"lines_to_next_cell", "cell_marker"}
_CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MARKER = re.compile(r"(?P<indent>\s*)# (?P<edge>BEGIN|END) SOLUTION\s*")
_NEARLY_A_MARKER = re.compile(r"#.*\b(begin|end)[\s_-]*solutions?\b", re.IGNORECASE)
MAGIC = re.compile(r"(?P<indent>\s*)([A-Za-z_]\w*\s*=\s*)?[%!]")  # `%x`, `!x`, `name = !x`

Fault = tuple[int, str]  # line in the source, what is wrong and what to do


class AuthoringError(Exception):
    """One fault in one source: where it is, what is wrong, what to do.

    Attributes:
        path: the source, relative to the project root.
        line: line number in the source, from 1; None if the fault is no line's.
    """

    def __init__(self, path: str, line: int | None, message: str):
        super().__init__(f"{path}:{line}: {message}" if line else f"{path}: {message}")
        self.path, self.line = path, line


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        kind: "code", "markdown" or "raw".
        line: number of its ``# %%`` line in the source.
        lines: (number in the source, text) of every line.
        tags: its tags, in the order written.
        id: the id its author gave it, if any.
    """

    kind: str
    line: int
    lines: tuple[tuple[int, str], ...]
    tags: tuple[str, ...] = ()
    id: str | None = None

    @property
    def source(self) -> str:
        """The text of the cell."""
        return "\n".join(text for _, text in self.lines)

    def place(self, lineno: int | None) -> int:
        """The number in the source file of the cell's line `lineno` (from 1)."""
        return self.lines[: lineno or 1][-1][0] if self.lines else self.line

    def for_exercises(self) -> "Cell | None":
        """The cell with each solution block cut to a stub, or None if learners do not get it."""
        kept, inside = [], False
        for number, text in self.lines:
            if marker := _MARKER.fullmatch(text):
                inside = marker["edge"] == "BEGIN"
                if inside:
                    kept.append((number, marker["indent"] + "raise NotImplementedError"))
            elif not inside:
                kept.append((number, text))
        return None if SOLUTION_TAGS & {*self.tags} else replace(self, lines=tuple(kept))

    def for_solutions(self) -> "Cell | None":
        """The cell without marker lines, or None if it is for learners only."""
        kept = tuple(line for line in self.lines if not _MARKER.fullmatch(line[1]))
        return None if EXERCISE_TAGS & {*self.tags} else replace(self, lines=kept)


def read(path: Path) -> tuple[list[Cell], list[Fault]]:
    """Read the source at `path`.

    Returns:
        Its cells, and the faults of its marker lines, tags, ids and solution blocks.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [], [(1, f"not UTF-8 text (at byte {error.start}): save it as UTF-8")]
    if "\0" in text:
        return [], [(text[: text.index("\0")].count("\n") + 1, "holds a null byte: remove it")]
    # Neither str.splitlines nor jupytext.reads, which uses it: a form feed or U+2028 in a string
    # ends no line, neither for Python nor for the editor that shows the line number.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    cells: list[Cell] = []
    faults: list[Fault] = []
    start = 0
    while start < len(lines):
        reader = DoublePercentScriptCellReader({"extension": ".py", "format_name": "percent"})
        try:
            node, length = reader.read(lines[start:])
        except Exception:  # jupytext validates what it reads: tags="a" is an error there
            faults.append((start + 1, _not_understood(lines[start])))
            lines[start] = "# %%"
            continue
        if start or lines[0].lstrip("# ").startswith("%%"):
            written = lines[start + 1 : start + 1 + len(reader.org_content)]
            faults += _marker_faults(node.metadata, lines[start], start + 1)
            cells.append(_cell(node, start + 1, written))
        elif code := [i for i, x in enumerate(lines[:length], 1) if x.strip() and x[0] != "#"]:
            faults.append((code[0], "code before the first `# %%` line: put `# %%` above it"))
        start += length
    first: dict[str, int] = {}
    for cell in cells:
        if cell.id and first.setdefault(cell.id, cell.line) != cell.line:
            faults.append(
                (cell.line, f"id {cell.id!r} is taken by line {first[cell.id]}: change one")
            )
        faults += _block_faults(cell)
    return cells, faults


def _not_understood(marker: str) -> str:
    return (
        f"`{marker.strip()}` is not understood: write `# %%` or `# %% [markdown]`, and after that "
        'nothing but tags=["name"] and id="name", quotes included'
    )


def _marker_faults(metadata: dict, marker: str, line: int) -> Iterator[Fault]:
    if {*metadata} - _JUPYTEXT_NOTES - {"tags", "id"}:
        yield line, _not_understood(marker)
    for tag in metadata.get("tags", []):
        if tag not in TAGS:
            yield line, f"unknown tag {tag!r}: mend it, or add it to TAGS in course_lib/_sources.py"
    if not _CELL_ID.fullmatch(str(metadata.get("id", "none"))):
        yield line, f"id {metadata['id']!r}: use 1 to 64 letters, digits, `-` or `_`"


def _cell(node, line: int, written: list[str]) -> Cell:
    texts = node.source.split("\n")
    if node.cell_type == "code" and not node.source.lstrip().startswith("%%"):
        # jupytext takes `# cat x` and `# really?` for commands, too. Comments stay comments.
        for i, (before, after) in enumerate(zip(written, texts, strict=False)):
            goes_on = i > 0 and texts[i - 1].endswith("\\")
            if not (before == after or goes_on or MAGIC.match(after) or after.lstrip()[:1] == "#"):
                texts[i] = before
    lines = list(enumerate(texts, line + 1))
    while lines and not lines[-1][1].strip():
        lines.pop()
    while lines and not lines[0][1].strip():
        lines.pop(0)
    cell_id, tags = node.metadata.get("id"), node.metadata.get("tags", ())
    return Cell(node.cell_type, line, tuple(lines), tuple(tags), cell_id and str(cell_id))


def _block_faults(cell: Cell) -> Iterator[Fault]:
    opened: list[int] = []
    for number, text in cell.lines:
        marker = _MARKER.fullmatch(text)
        if marker and cell.kind != "code":
            yield number, "solution blocks are for code: give this cell the tag `solution` instead"
        elif not marker:
            if cell.kind == "code" and _NEARLY_A_MARKER.search(text):
                yield number, "write `# BEGIN SOLUTION` or `# END SOLUTION`, alone on its line"
        elif marker["edge"] == "BEGIN":
            if opened:
                yield number, f"the block of line {opened[0]} is still open: blocks do not nest"
            opened.append(number)
        elif opened:
            opened.pop()
        else:
            yield number, "`# END SOLUTION` without `# BEGIN SOLUTION`: add it, or remove this line"
    if opened:
        yield opened[0], "`# BEGIN SOLUTION` is not closed: add `# END SOLUTION` in the same cell"


def style(lessons: Iterable[Path]) -> Iterator[str]:
    """Lines of counts for each lesson source, and what the course aims at."""
    yield "counts, and what the course aims at: 12 to 20 code cells; median of 5 lines or fewer;"
    yield "30 to 60 words between two code cells"
    for path in lessons:
        sizes, words = [], [0]  # words: of the prose before the first code cell, the second, ...
        for cell in read(path)[0]:
            if cell.kind == "code":
                sizes.append(len(cell.lines))
                words.append(0)
            else:
                words[-1] += len(cell.source.split())
        lines, between = statistics.median(sizes or [0]), words[1:-1] or [0]
        yield (
            f"{path.stem}: {len(sizes)} code cells; median {lines:g} lines; "
            f"words {min(between)} to {max(between)}, median {statistics.median(between):g}"
        )
