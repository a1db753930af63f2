"""Build every notebook from its source, and check that they agree: text is the source.

    python -m course_lib.authoring build|check [--root DIR]

A lesson, ``sources/lessons/NN_topic.py``, becomes ``notebooks/NN_topic.ipynb``. An exercise source,
``sources/exercises/NN_topic.py``, becomes a notebook in ``exercises/`` (each solution block cut to
``raise NotImplementedError``) and one in ``solutions/`` (solved; a failing check stops the run).
Sources are py:percent text. `_sources` reads them, `_source_rules` says what they must keep.

Invariants:

* The same text gives the same bytes, on any machine: no outputs, no counts, no versions.
* A cell's id is a hash of its kind and text (``…-2`` for the second cell alike), so an edit
  changes the id of the edited cell and of no other; ``id="name"`` on the marker line pins it.
* One fault in one source, and nothing is written. A file is replaced whole or not at all.
* Nothing is lost: a notebook that somebody has run is kept before it is replaced; one without a
  source is named, and a person decides.
"""

import argparse
import ast
import hashlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat

from course_lib._files import write_whole
from course_lib._kept import keep_what_was_run, was_run
from course_lib._source_rules import (
    exercise_faults,
    file_name_faults,
    lesson_faults,
    names_of_checks,
    parsed,
)
from course_lib._sources import AuthoringError, Cell, read, style

__all__ = ["AuthoringError", "build", "check", "main", "render"]

# Stands in every solutions notebook, for all to see.
RAISE_ON_FAILURE = """\
from course_lib import checks
checks.raise_on_failure()  # in this notebook a failing check stops the run"""
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
FOLDERS = {"lessons": ("notebooks",), "exercises": ("exercises", "solutions")}


def render(root: Path) -> dict[str, bytes]:
    """Render every notebook of the project at `root`, in memory.

    Returns:
        The bytes of each notebook by its path relative to `root`.

    Raises:
        ExceptionGroup: of one `AuthoringError` for each fault of each source.
    """
    notebooks: dict[str, bytes] = {}
    faults: list[AuthoringError] = []
    if not _sources(root, "lessons") + _sources(root, "exercises"):
        message = "nothing to build: run this in the project root, or name it with --root DIR"
        raise ExceptionGroup("no sources", [AuthoringError(f"{root}/sources", None, message)])
    for folder, targets in FOLDERS.items():
        numbers: dict[str, str] = {}
        for path in _sources(root, folder):
            cells, found = read(path)
            if cells or not found:  # otherwise it is no text, and nothing else can be said
                found += (lesson_faults if folder == "lessons" else exercise_faults)(cells)
            found += file_name_faults(path.name, numbers)
            name = path.relative_to(root).as_posix()
            faults += [AuthoringError(name, *fault) for fault in sorted({*found})]
            for target in () if faults else targets:
                notebooks[f"{target}/{path.stem}.ipynb"] = _notebook(cells, target)
    if faults:
        raise ExceptionGroup("sources have faults", faults)
    return notebooks


def build(root: Path) -> list[str]:
    """Write the notebooks whose bytes differ from what lies under `root`.

    Returns:
        The paths written, relative to `root`.

    Raises:
        ExceptionGroup: as `render`; nothing has been written then.
    """
    written = []
    for name, content in render(root).items():
        path = root / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            keep_what_was_run(path, root / "runs" / "kept")
            write_whole(path, content)
            written.append(name)
    return written


def check(root: Path) -> list[str]:
    """Compare the notebooks under `root`, byte for byte, with what their sources give.

    Returns:
        One line for each notebook that is missing, stale or without a source.

    Raises:
        ExceptionGroup: as `render`.
    """
    lines = []
    for name, content in render(root).items():
        if not (root / name).is_file():
            lines.append(f"missing: {name}")
        elif (root / name).read_bytes() != content:
            how = "was run, or edited by hand" if was_run(root / name) else "was it edited by hand?"
            lines.append(f"stale: {name} is not what its source gives ({how})")
    return [*lines, *_orphans(root)]


def _sources(root: Path, folder: str) -> list[Path]:
    return sorted(p for p in (root / "sources" / folder).glob("*.py") if p.name[0] != ".")


def _orphans(root: Path) -> Iterator[str]:
    for folder, targets in FOLDERS.items():
        stems = {path.stem for path in _sources(root, folder)}
        for path in (p for t in targets for p in sorted((root / t).glob("*.ipynb"))):
            if path.stem not in stems:
                name = path.relative_to(root).as_posix()
                yield (
                    f"orphan: {name} has no source in sources/{folder}/: move it elsewhere if it "
                    f"is your own work, else rm {shlex.quote(str(path))}"
                )


def _notebook(cells: list[Cell], target: str) -> bytes:
    if target == "exercises":
        cells = [seen for cell in cells if (seen := cell.for_exercises())]
    elif target == "solutions":
        cells = _with_raise_on_failure([s for cell in cells if (s := cell.for_solutions())])
    make = {
        "code": nbformat.v4.new_code_cell,
        "markdown": nbformat.v4.new_markdown_cell,
        "raw": nbformat.v4.new_raw_cell,
    }
    notebook = nbformat.v4.new_notebook(metadata=METADATA, nbformat_minor=5)
    for cell, cell_id in zip(cells, _ids(cells), strict=True):
        metadata = {"tags": list(cell.tags)} if cell.tags else {}
        notebook.cells.append(make[cell.kind](cell.source, id=cell_id, metadata=metadata))
    nbformat.validate(notebook)
    # nbformat sorts the keys, indents by one space and escapes no character that UTF-8 can hold.
    return (nbformat.writes(notebook) + "\n").encode()


def _ids(cells: list[Cell]) -> list[str]:
    taken = {cell.id for cell in cells if cell.id}
    ids = []
    for cell in cells:
        digest = hashlib.sha256(f"{cell.kind}\n{cell.source}".encode()).hexdigest()[:12]
        derived, count = digest, 1
        while derived in taken:
            count += 1
            derived = f"{digest}-{count}"
        ids.append(cell.id or derived)
        taken.add(ids[-1])
    return ids


def _with_raise_on_failure(cells: list[Cell]) -> list[Cell]:
    at = next((i for i, cell in enumerate(cells) if cell.kind == "code"), len(cells))
    for cell, tree in parsed(cells)[0]:
        if names_of_checks(tree):
            # Behind the imports, unless this very cell goes on and may ask a check.
            if all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body):
                at = cells.index(cell) + 1
            break
    lines = tuple((0, line) for line in RAISE_ON_FAILURE.split("\n"))
    return [*cells[:at], Cell("code", 0, lines), *cells[at:]]


def _unmatched(root: Path) -> Iterator[str]:
    lessons = {path.name[:2] for path in _sources(root, "lessons")}
    for path in _sources(root, "exercises"):
        if path.name[:2] not in lessons:
            yield f"warning: {path.relative_to(root).as_posix()} has no lesson of the same number"


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0 all is well, 1 something is to be mended, 2 a call without a command.
    """
    parser = argparse.ArgumentParser(
        "python -m course_lib.authoring", description="Build every notebook from its source."
    )
    commands = parser.add_subparsers(dest="command", metavar="build|check")
    for name, what in (("build", "write what changed"), ("check", "compare and write nothing")):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("--root", type=Path, default=Path(), help="project root (default: .)")
    command.add_argument("--style", action="store_true", help="also print counts of each lesson")
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        found = build(args.root) if args.command == "build" else check(args.root)
    except ExceptionGroup as group:
        print(*group.exceptions, sep="\n", file=sys.stderr)
        print(f"faults to mend: {len(group.exceptions)}; nothing was written", file=sys.stderr)
        return 1
    for line in _unmatched(args.root):
        print(line, file=sys.stderr)
    if args.command == "build":
        for line in (*(f"wrote {name}" for name in found), *_orphans(args.root)):
            print(line)
        if not found:
            print("every notebook is up to date")
        return 0
    for line in (*found, *(style(_sources(args.root, "lessons")) if args.style else ())):
        print(line)
    if any(not line.startswith("orphan") for line in found):
        root = "" if args.root == Path() else f" --root {shlex.quote(str(args.root))}"
        print(
            "edit sources, not notebooks; to write all of them anew (what you have run or answered"
        )
        print("is kept in runs/kept/):")
        print(f"  python -m course_lib.authoring build{root}")
    elif not found:
        print("every notebook agrees with its source")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
