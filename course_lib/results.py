"""Record a run's numbers inside its notebook; collect the numbers of many runs.

A number in a printed line is for people. ``record_results`` shows it as a small table and stores it
beside the table as one flat JSON object (MIME type ``application/vnd.course.result+json``), so that
a sweep or a test reads what the learner saw, and nobody parses printed text. The notebook file is
the only store: nothing is kept in the kernel, and ``collect_results`` reads files only.
"""

import glob
import html
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

MIME = "application/vnd.course.result+json"
STATUS = ("notebook", "failed", "error")  # columns that collect_results adds

Scalar = int | float | str | bool | None


def record_results(**values: object) -> None:
    """Show results as a small table, and store them in this notebook's output.

    Units belong to the name (``train_seconds``, ``test_rmse_dollars``, ``test_accuracy``): they
    format the table; the stored numbers stay as they are. Outside IPython the table is printed.

    Args:
        **values: Flat results: int, float, str, bool or None. NumPy scalars and tensors without
            dimensions count as the numbers they hold.

    Raises:
        TypeError: A value is not a scalar; the message names it.
        ValueError: A value is NaN or infinite, a name belongs to ``collect_results``, or there is
            nothing to record.
    """
    if not values:
        raise ValueError("record_results: nothing to record. Pass names and values: loss=0.25")
    results = {name: _scalar(name, value) for name, value in values.items()}
    rows = [(name, readable(name, value)) for name, value in results.items()]
    width = max(len(name) for name, _ in rows)
    text = "\n".join(f"{name:<{width}}  {shown}" for name, shown in rows)
    if not _in_ipython():
        print(text)
        return
    from IPython.display import display

    display({MIME: results, "text/html": _table(rows), "text/plain": text}, raw=True)


def collect_results(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Read the recorded results of executed notebooks into one tidy table.

    Args:
        paths: A notebook, a folder of notebooks, a pattern (``"runs/20_*.ipynb"``), or several of
            these.

    Returns:
        One row a notebook: ``notebook`` (its path), its papermill parameters, its recorded results
        (of several records the later ones win, and a result wins over a parameter of its name),
        ``failed`` (bool) and ``error`` (the first line of what went wrong, or None). A notebook
        that recorded nothing is a row too, with NaN for its results. An error in a cell tagged
        ``raises-exception`` is part of the lesson and no failure.

    Raises:
        FileNotFoundError: A path or pattern matches no file.
        ValueError: A file is not a notebook; the message names it.
    """
    rows = []
    for path in _files(paths):
        notebook = _read(path)
        problem = _problem(notebook)
        values = notebook["metadata"].get("papermill", {}).get("parameters", {})
        row = {"notebook": None, **values, **_recorded(notebook)}
        rows.append(row | {"notebook": str(path), "failed": problem is not None, "error": problem})
    table = pd.DataFrame(rows)
    return table[[*(c for c in table if c not in STATUS[1:]), *STATUS[1:]]]


def _scalar(name: str, value: object) -> Scalar:
    """A plain Python value, or an error that names ``name``."""
    if name in STATUS:
        raise ValueError(
            f"record_results: {name!r} is a column of collect_results. Choose another name"
        )
    # NumPy scalars, and arrays and tensors without dimensions (torch is not imported for this)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, float, str):
        if isinstance(value, plain):
            value = plain(value)
            break
    else:
        raise TypeError(
            f"record_results: {name} is a {type(value).__name__}. Only int, float, str, bool and "
            "None are recorded: reduce it to one number, or give each part a name of its own"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            f"record_results: {name} is {value}, which is no result (and not JSON). Find out where "
            "it comes from, or leave it out"
        )
    return value


def readable(name: str, value: Scalar) -> str:
    """A value as a person reads it, with the unit its name ends in."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    unit = name.rsplit("_", 1)[-1]
    if unit == "dollars":
        return f"{value:,.0f} $" if abs(value) >= 1000 else f"{value:,.2f} $"
    if unit == "seconds":
        return f"{value:,.1f} s" if abs(value) >= 1 or value == 0 else f"{value:.3g} s"
    if unit == "accuracy":
        return f"{100 * value:.2f} %"
    if unit == "seed":
        return str(value)
    number = f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"
    return f"{number} /s" if name.endswith("_per_second") else number


def _table(rows: list[tuple[str, str]]) -> str:
    # No colours of our own: JupyterLab's style fits the light and the dark theme.
    cells = "".join(
        f'<tr><th scope="row" style="text-align: left">{html.escape(name)}</th>'
        f'<td style="text-align: right">{html.escape(shown)}</td></tr>'
        for name, shown in rows
    )
    head = '<tr><th style="text-align: left">result</th><th style="text-align: right">value</th>'
    return f"<table><thead>{head}</tr></thead><tbody>{cells}</tbody></table>"


def _in_ipython() -> bool:
    ipython = sys.modules.get("IPython")  # if nobody imported it, this is not IPython
    return ipython is not None and ipython.get_ipython() is not None


def _files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The notebooks meant by files, folders and patterns: each once, in a stable order."""
    found: dict[Path, None] = {}
    for given in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(given)
        if path.is_dir():
            matches = sorted(path.glob("*.ipynb"))
        elif path.exists():  # before globbing: "run[seed=1].ipynb" is a fine file name
            matches = [path]
        else:
            matches = sorted(Path(match) for match in glob.glob(str(given), recursive=True))
        if not matches:
            what = "holds no notebook" if path.is_dir() else "matches no file"
            raise FileNotFoundError(f"{given} {what}: run the notebooks first, or mend the path")
        found.update(dict.fromkeys(matches))
    if not found:
        raise FileNotFoundError("no notebook given: pass a file, a folder or a pattern")
    return list(found)


def _read(path: Path) -> dict:
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a notebook: {error}") from error
    if not (
        isinstance(notebook, dict)
        and isinstance(notebook.get("cells"), list)
        and isinstance(notebook.get("metadata"), dict)
    ):
        raise ValueError(
            f"{path} is not a notebook: it is JSON, but has no cells and metadata as nbformat 4 has"
        )
    return notebook


def _outputs(notebook: dict) -> Iterable[tuple[dict, dict]]:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            yield cell, output


def _recorded(notebook: dict) -> dict[str, Scalar]:
    results = {}
    for _, output in _outputs(notebook):
        results.update(output.get("data", {}).get(MIME, {}))
    return results


def _problem(notebook: dict) -> str | None:
    """The first line of what went wrong, or None."""
    for cell, output in _outputs(notebook):
        expected = "raises-exception" in cell.get("metadata", {}).get("tags", [])
        if output.get("output_type") == "error" and not expected:
            return f"{output.get('ename')}: {output.get('evalue')}".splitlines()[0].rstrip(": ")
    cells = notebook["cells"]
    for number, cell in enumerate(cells, start=1):
        # After an interrupt papermill leaves a file that looks clean but for these times.
        mark = cell.get("metadata", {}).get("papermill")
        if mark is not None and not mark.get("end_time"):
            return f"the run ended before cell {number} of {len(cells)} was done"
    if notebook["metadata"].get("papermill", {}).get("exception"):
        return "papermill reports an exception, and no cell says which (the kernel may have died)"
    if not any(cell.get("execution_count") for cell in cells):
        return "never executed: no cell has run"
    return None
