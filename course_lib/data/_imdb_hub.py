"""Movie reviews from the Hugging Face hub, by the `datasets` library, kept in the data folder.

The library keeps a cache of its own, in a form of its own. What the course keeps is one CSV file
with a checksum, so that the next time needs neither the hub nor the library, and so that whatever
was fetched is checked like a file that came by hand.

The library is patient with a hub that does not answer, the course is not: see
`course_lib.data._hub`.
"""

import contextlib
import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from course_lib.data._download import CONNECT_TIMEOUT, READ_TIMEOUT, DownloadFailed
from course_lib.data._finding import damaged
from course_lib.data._hub import ask
from course_lib.data._imdb_files import LABELS, ROWS, SPLITS, fault_of, read_csv

NAME = "stanfordnlp/imdb"
FOLDER = "stanfordnlp_imdb"
REVIEWS, CONTENTS = "reviews.csv", "contents.json"


def fetch(part: Path) -> None:
    """Download the reviews with the `datasets` library, and write them into the new folder `part`.

    Raises:
        DownloadFailed: They cannot be had, are not what they should be, or cannot be stored.
    """
    ask("datasets", NAME, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
    print(f"IMDb reviews: downloading {NAME} with the datasets library", flush=True)
    try:
        with _quiet_bars():
            import datasets

            found = datasets.load_dataset(NAME)
            tables = {split: _table(found, split) for split in SPLITS}
    except DownloadFailed:
        raise
    except Exception as error:  # of whatever that library and those below it raise
        first = (str(error).splitlines() or [""])[0]
        raise DownloadFailed(
            f"the datasets library could not load {NAME}: {type(error).__name__}: {first[:300]}"
        ) from error
    try:
        part.mkdir()
        _write(part, tables)
    except OSError as error:
        raise DownloadFailed(
            f"it cannot be stored in {part.parent}: {error.strerror or error}"
        ) from error


def read(folder: Path) -> pd.DataFrame:
    """Read what `fetch` stored: the columns ``text``, ``label`` and ``split``.

    Raises:
        DataDamaged: It is no longer there as it was stored.
    """
    try:
        right = json.loads((folder / CONTENTS).read_text())["sha256"]
        with (folder / REVIEWS).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise damaged(folder, f"it cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(folder, f"its {CONTENTS} is damaged") from error
    if found != right:
        raise damaged(folder, f"{REVIEWS} has changed since it was stored")
    return read_csv(folder / REVIEWS, with_split=True)


def _table(found, split: str) -> pd.DataFrame:
    """Return the texts and labels of a split, after looking at every row."""
    if split not in found:
        raise DownloadFailed(f"{NAME} has no split {split}, but {', '.join(found)}")
    part = found[split]
    if not {"text", "label"} <= set(part.column_names):
        raise DownloadFailed(f"{NAME} has other columns: {', '.join(part.column_names)}")
    names = getattr(part.features["label"], "names", None)
    if names not in (None, ["neg", "pos"]):
        raise DownloadFailed(f"{NAME} has other labels: {', '.join(map(str, names))}")
    table = pd.DataFrame({"text": list(part["text"]), "label": list(part["label"])})
    counts = table["label"].value_counts().to_dict()
    if counts != {0: ROWS // 4, 1: ROWS // 4}:
        raise DownloadFailed(f"{NAME} has other numbers of reviews in {split}: label {counts}")
    for text in table["text"]:
        if fault := fault_of(text) if isinstance(text, str) else "a review is no text":
            raise DownloadFailed(f"{NAME}, split {split}: {fault}")
    return table


def _write(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Write the reviews, and then their checksum."""
    names = [*LABELS]
    path = folder / REVIEWS
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("review", "sentiment", "split"))
        for split, table in tables.items():
            pairs = zip(table["text"], table["label"], strict=True)
            rows.writerows((text, names[label], split) for text, label in pairs)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    contents = {"source": NAME, "rows": sum(map(len, tables.values())), "sha256": digest}
    (folder / CONTENTS).write_text(json.dumps(contents, indent=1))


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    """Show none of the libraries' bars: in a notebook they are widgets, saved frozen at 0 %."""
    import datasets
    import huggingface_hub.utils as hub

    with contextlib.ExitStack() as stack:
        for library in (datasets, hub):
            off = getattr(library, "are_progress_bars_disabled", lambda: True)()
            if not off:
                library.disable_progress_bars()
                stack.callback(library.enable_progress_bars)
        yield
