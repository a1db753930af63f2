"""Train lesson 11's network four ways, and time the epochs inside the ranks.

Under ``launch`` it is the lesson's own ``train``, read from its source and executed in a kernel as
the lesson's cell is. The others are scripts under torchrun, in ``programs/``. The first epoch is a
warm-up, and of those after it the median counts: an epoch lasts a third of a second, and whatever
else the machine does in between makes some last twice as long. All must find the same losses,
otherwise they did not do the same work and no ratio means anything.
"""

import ast
import json
import math
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .processes import Kernel, torchrun

PROGRAMS = Path(__file__).with_name("programs")
LESSON = Path(__file__).parents[2] / "sources/lessons/11_house_prices_ddp.py"
COURSE, BARE = "launch", "bare script, torchrun"
SCRIPTS = {
    BARE: "bare.py",
    "accelerate, torchrun": "with_accelerate.py",
    "Fabric, torchrun": "with_fabric.py",
}
BATCH = 480  # rows of a step, all ranks together
EQUAL_STEPS = 20  # as in the lesson's equivalence table: rounding grows with every step
TOLERANCE = 1e-5


class Trained(NamedTuple):
    """What one training left.

    Attributes:
        losses: The global batch's loss of every step.
        times: For each rank, when its epochs ended, in seconds.
        threads: Threads torch computed with on each rank.
    """

    losses: list[float]
    times: list[list[float]]
    threads: list[int]

    def rows_per_second(self, batch: int) -> float:
        """Rows trained a second in the median epoch after the first, on the slowest rank."""
        steps = len(self.losses) // len(self.times[0])
        epochs = [median(end - begin for begin, end in pairwise(times)) for times in self.times]
        return steps * batch / max(epochs)


def lesson_code(
    lesson: Path = LESSON, names: tuple = ("make_model", "average_over_ranks", "train")
):
    """Cut functions out of a lesson's source, with the imports they need.

    Returns:
        Python text.

    Raises:
        ValueError: The lesson has no function of one of these names.
    """
    text = lesson.read_text()
    nodes = ast.parse(text).body
    functions = {n.name: n for n in nodes if isinstance(n, ast.FunctionDef) and n.name in names}
    if missing := [name for name in names if name not in functions]:
        raise ValueError(f"{lesson.name} has no function {missing[0]}: tools/bench wants it")
    used = {n.id for f in functions.values() for n in ast.walk(f) if isinstance(n, ast.Name)}
    imports = []
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            kept = [a for a in node.names if (a.asname or a.name).split(".")[0] in used]
            if kept:
                node.names = kept
                imports.append(ast.unparse(node))
    return "\n\n".join([*imports, *(ast.get_source_segment(text, f) for f in functions.values())])


_TIMED = """
import time, json, sys
sys.path.insert(0, {programs!r})
import workload as work

_progress, times = progress, []

def progress(iterable, desc):  # the lesson's loop over epochs: note when each ends
    for item in _progress(iterable, desc):
        yield item
        times.append(time.perf_counter())

def timed(*arguments):
    losses, _ = train(*arguments)
    return losses, times, torch.get_num_threads()

x, y = work.table()
"""
_TRAIN = """
results = launch(timed, x, y, {epochs}, work.SEED, nprocs={nprocs}, device={device!r})
print(json.dumps(results))
"""


def prepare(kernel: Kernel) -> None:
    """Define the lesson's functions in a kernel, and the data."""
    kernel.run("import torch\nfrom course_lib import launch")
    kernel.run(lesson_code())
    kernel.run(_TIMED.format(programs=str(PROGRAMS)))


def train_with_launch(kernel: Kernel, epochs: int, nprocs: int, device: str) -> Trained:
    """Train under ``launch``, in a kernel made ready by ``prepare``."""
    said = kernel.run(_TRAIN.format(epochs=epochs, nprocs=nprocs, device=device))
    results = json.loads(said.strip().splitlines()[-1])
    losses, times, threads = zip(*results, strict=True)
    return Trained(losses[0], list(times), list(threads))


def train_with_script(
    name: str, epochs: int, nprocs: int, device: str, env: Mapping[str, str]
) -> Trained:
    """Train with one of ``SCRIPTS`` under torchrun."""
    with tempfile.TemporaryDirectory() as folder:
        torchrun(PROGRAMS / SCRIPTS[name], folder, epochs, device, nprocs=nprocs, env=env)
        left = [json.loads((Path(folder) / f"rank{r}.json").read_text()) for r in range(nprocs)]
    return Trained(left[0]["losses"], *([one[k] for one in left] for k in ("times", "threads")))


def differences(runs: Mapping[str, Trained]) -> dict[str, float]:
    """The largest difference of each training's first losses from the bare script's.

    Returns:
        Name → a number; infinite where a loss is not finite, or the number of steps another.
    """
    model = runs[BARE].losses
    found = {}
    for name, run in runs.items():
        pairs = zip(run.losses[:EQUAL_STEPS], model[:EQUAL_STEPS], strict=False)
        gaps = [abs(a - b) for a, b in pairs]
        same = len(run.losses) == len(model) and all(map(math.isfinite, gaps))
        found[name] = max(gaps) if same else math.inf
    return found
