"""The course's data sets: one module each, one way to find them.

Every module has ``load(source="auto")``. Where it looks, and what it says about it, is the same for
all of them and lives in `course_lib.data._finding`. Importing this package costs nothing: a data
set's module, and pandas with it, is imported when it is first used.
"""

import importlib

from course_lib.data._finding import DataDamaged, DataNotFound, Dataset, data_folder

_DATA_SETS = ("cifar10", "housing", "imdb", "stocks", "unsw_nb15")

__all__ = [
    "DataDamaged",
    "DataNotFound",
    "Dataset",
    "cifar10",
    "data_folder",
    "housing",
    "imdb",
    "stocks",
    "unsw_nb15",
]


def __getattr__(name: str):
    """Import a data set's module when it is first asked for (PEP 562)."""
    if name in _DATA_SETS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the data sets beside what is imported already."""
    return sorted({*globals(), *_DATA_SETS})
