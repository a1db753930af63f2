"""The library behind the torch.distributed course.

It starts ranks, fetches data, draws, and checks answers. The distributed code itself stands in the
lessons. Public names load when they are first used, so that a rank (or a notebook that only
draws) pays for what it needs and nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from course_lib._matching import matches, summary
    from course_lib.elastic import torchrun
    from course_lib.errors import RankError
    from course_lib.evaluation import (
        accuracy_over_ranks,
        confusion_over_ranks,
        mean_over_ranks,
        rmse_over_ranks,
        shard_indices,
        sum_over_ranks,
    )
    from course_lib.group import ProcessGroup, process_group
    from course_lib.launcher import launch
    from course_lib.parameters import choose_preset, choose_world_size
    from course_lib.reporting import progress, report
    from course_lib.results import collect_results, record_results
    from course_lib.scripts import write_script
    from course_lib.slurm import write_slurm
    from course_lib.tracing import trace

_HOME = {
    "RankError": "errors",
    "launch": "launcher",
    "ProcessGroup": "group",
    "process_group": "group",
    "choose_preset": "parameters",
    "choose_world_size": "parameters",
    "progress": "reporting",
    "report": "reporting",
    "accuracy_over_ranks": "evaluation",
    "confusion_over_ranks": "evaluation",
    "mean_over_ranks": "evaluation",
    "rmse_over_ranks": "evaluation",
    "shard_indices": "evaluation",
    "sum_over_ranks": "evaluation",
    "record_results": "results",
    "collect_results": "results",
    "write_script": "scripts",
    "torchrun": "elastic",
    "write_slurm": "slurm",
    "trace": "tracing",
    "matches": "_matching",
    "summary": "_matching",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'course_lib' has no attribute {name!r}")
    value = getattr(import_module(f"course_lib.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
