"""Find a lesson's notebook, and read what its parameters are and what a command line gives them.

An unknown lesson, an unknown parameter or a value of the wrong type is an error before anything
runs, and names what there is. The parameters cell says which types fit: papermill itself only warns
of a misspelt name, and does not recognise a parameter declared ``int | None`` at all.
"""

import ast
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class LessonError(Exception):
    """Something the person at the keyboard can mend; the message says what and how."""


class Parameter(NamedTuple):
    """A name of the parameters cell, with what may be assigned to it."""

    name: str
    types: tuple[str, ...]
    default: str

    def __str__(self) -> str:
        """As it stands in the lesson: ``seed: int = 0``."""
        return f"{self.name}: {' | '.join(self.types)} = {self.default}"

    def parse(self, text: str) -> object:
        """The value that ``text`` means for this parameter.

        Raises:
            LessonError: ``text`` fits none of the declared types.
        """
        for kind in _PARSERS:
            if kind in self.types:
                with contextlib.suppress(ValueError):
                    return _PARSERS[kind](text)
        raise LessonError(f"{self.name}={text} does not fit the lesson's `{self}`.")


def _none(text: str) -> None:
    if text.lower() != "none":
        raise ValueError(text)


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


# Narrow types first: `int | None` takes "None" as None, `int | str` takes "4" as a number.
_PARSERS = {"None": _none, "bool": _bool, "int": int, "float": float, "str": str}


def course_above(start: Path) -> Path | None:
    """The nearest folder upwards from ``start`` with ``notebooks/`` in it."""
    here = start.absolute()
    return next((f for f in (here, *here.parents) if (f / "notebooks").is_dir()), None)


def find_root(start: Path | None = None) -> Path:
    """The course's folder: the nearest one upwards with ``notebooks/``, else this checkout."""
    return course_above(start or Path.cwd()) or Path(__file__).absolute().parents[1]


def find_lesson(lesson: str, root: Path) -> Path:
    """The notebook of ``lesson``: a number (``11``, ``1``), a name, or a path to a notebook.

    Raises:
        LessonError: There is no such lesson; the message names those there are.
    """
    if lesson.endswith(".ipynb"):
        if Path(lesson).is_file():
            return Path(lesson).absolute()
        raise LessonError(f"There is no notebook {lesson}.")
    there = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not there:
        raise LessonError(f"There are no lessons in {root / 'notebooks'}. Is --root right?")
    number = f"{int(lesson):02d}_" if lesson.isdecimal() else None
    for path in there:
        if path.stem == lesson or (number and path.name.startswith(number)):
            return path
    names = "\n".join(f"  {path.stem}" for path in there)
    raise LessonError(f"There is no lesson {lesson}. There are:\n{names}")


def read_parameters(source: Path) -> dict[str, Parameter]:
    """The parameters of a notebook, by name, from its cell tagged ``parameters``.

    Raises:
        LessonError: The file is not a notebook, or its parameters cell is not Python.
    """
    import nbformat  # here, so that `course doctor` can say that it is missing

    try:
        cells = nbformat.read(source, as_version=4).cells
        tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        nodes = ast.parse(tagged[0].source).body if tagged else []
    except Exception as error:  # nbformat lets through whatever a malformed file makes it raise
        raise LessonError(f"{source} cannot be read as a notebook: {error}") from error
    found = {}
    for node in nodes:
        match node:
            case ast.AnnAssign(
                target=ast.Name(id=name), annotation=kind, value=ast.expr() as value
            ):
                types = tuple(part.strip() for part in ast.unparse(kind).split("|"))
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value):
                types = _types_of(value)
            case _:
                continue
        found[name] = Parameter(name, types, ast.unparse(value))
    return found


def _types_of(default: ast.expr) -> tuple[str, ...]:
    try:
        value = ast.literal_eval(default)
    except ValueError:
        return ("str",)
    return ("None",) if value is None else (type(value).__name__,)


def parse_values(pairs: Iterable[str], parameters: dict[str, Parameter]) -> dict[str, object]:
    """Turn ``name=value`` texts into values of the declared types.

    Raises:
        LessonError: A text has no ``=``, a name is unknown or given twice, a value does not fit.
    """
    return {name: parameters[name].parse(text) for name, text in _texts(pairs, parameters).items()}


def parse_grid(pairs: Iterable[str], parameters: dict[str, Parameter]) -> dict[str, list]:
    """Turn ``name=value,value`` texts into lists of values of the declared types.

    A comma always separates: a text that holds one cannot be swept over.

    Raises:
        LessonError: As in ``parse_values``; or a value is empty, or stands there twice.
    """
    grid = {}
    for name, text in _texts(pairs, parameters).items():
        values = grid[name] = []
        for part in text.split(","):
            if not part:
                raise LessonError(f"-p {name}={text} has an empty value: write {name}=A,B,C.")
            value = parameters[name].parse(part)
            if value in values:
                raise LessonError(f"-p {name}={text} names {value!r} twice.")
            values.append(value)
    return grid


def _texts(pairs: Iterable[str], parameters: dict[str, Parameter]) -> dict[str, str]:
    texts = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise LessonError(f"-p {pair}: write it as -p NAME=VALUE.")
        if name not in parameters:
            allowed = "\n".join(f"  {p}" for p in parameters.values()) or "  (none)"
            raise LessonError(f"The lesson has no parameter {name!r}. It has:\n{allowed}")
        if name in texts:
            raise LessonError(f"-p {name} is given twice.")
        texts[name] = text
    return texts
