"""Keep what a reader has run or answered, before a notebook is built anew over it."""

import json
import shutil
import time
from pathlib import Path


def was_run(path: Path) -> bool:
    """Whether somebody has worked in a notebook: a cell was run, or it cannot be read."""
    try:
        cells = json.loads(path.read_bytes())["cells"]
        return any(cell.get("execution_count") or cell.get("outputs") for cell in cells)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return path.is_file()


def keep_what_was_run(path: Path, folder: Path) -> Path | None:
    """Copy a notebook that was run to ``folder``, under its name and the time it was saved.

    Returns:
        Where the copy lies; None if there was nothing to keep.
    """
    if not was_run(path):
        return None
    saved = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
    copy = folder / f"{path.parent.name}-{path.stem}-{saved}{path.suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, copy)
    print(f"kept {path.parent.name}/{path.name}, which was run, as {copy}")
    return copy
