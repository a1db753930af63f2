"""Look at what the course needs on this machine, and say what to do about what is missing.

Invariants: nothing is downloaded, changed or left behind; a check that fails is a line of the
table and ends nothing, not even an import of torch that crashes the process, because torch is asked
in a process of its own. What a lesson cannot do without and lacks is ✗; what it can replace or work
around is !, as data are: there is a stand-in.
"""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

GOOD, NOTE, BROKEN = "✓", "!", "✗"
_DISTRIBUTION = "torch-distributed-course"
_OLDEST = (3, 11)
_LOW_DISK = 2.0  # GiB: the data sets, executed notebooks and checkpoints fit into that
_PATIENCE = 180  # seconds for an import on a cold disk under load
_AGAIN = (
    "Install the course's packages again: delete .venv and call `make run`, or\n"
    f"{sys.executable} -m pip install --force-reinstall -r requirements.lock"
)
_ASK_TORCH = (
    "import json; from course_lib.machine import torch_facts; print(json.dumps(torch_facts()))"
)


class Finding(NamedTuple):
    """A line of the table: how it stands with one thing, and what to do if it is not well."""

    mark: str
    name: str
    text: str
    advice: str = ""


def print_findings(findings: Iterable[Finding]) -> int:
    """Print the table as it grows; return 1 if something needed is broken, else 0."""
    counts = {GOOD: 0, NOTE: 0, BROKEN: 0}
    for mark, name, text, advice in findings:
        counts[mark] += 1
        first, *others = [*text.splitlines(), *advice.splitlines()]
        print(f"  {mark} {name:<22} {first}", flush=True)
        for line in others:
            print(f"    {'':<22} {line}")
    notes = f" ({counts[NOTE]} with a note: !)" if counts[NOTE] else ""
    if counts[BROKEN]:
        print(f"\nBroken: {counts[BROKEN]} (✗). Mend that first; what to do stands beside it.")
        return 1
    print(f"\nAll that is needed is there{notes}.")
    return 0


def examine(root: Path) -> Iterator[Finding]:
    """Look at everything a lesson needs.

    Args:
        root: The course's folder.
    """
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "machine": lambda: _system(root),
        "packages": _packages,
        "torch": _torch,
        "start methods": _start_methods,
        "kernel": _kernel,
        "torchrun": _torchrun,
        "runs": lambda: _folder(root / "runs"),
        "scripts": lambda: _folder(root / "scripts"),
        "data": _data,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # whatever is broken here, the other checks go on
            yield Finding(BROKEN, name, f"{type(error).__name__}: {error}", _AGAIN)


def _system(root: Path) -> Iterator[Finding]:
    from course_lib import machine

    facts = machine.system_facts(root)
    new_enough = sys.version_info >= _OLDEST
    yield Finding(
        GOOD if new_enough else BROKEN,
        "Python",
        f"{facts['Python']}, {sys.executable}",
        "" if new_enough else f"The course needs Python {_OLDEST[0]}.{_OLDEST[1]} or newer.",
    )
    yield Finding(GOOD, "CPU cores", facts["CPU cores"])
    yield Finding(GOOD, "memory", facts["memory"])
    low = shutil.disk_usage(root).free < _LOW_DISK * 2**30
    advice = f"Less than {_LOW_DISK:g} GiB: `course clean` makes room." if low else ""
    yield Finding(NOTE if low else GOOD, "free disk", facts["free disk"], advice)


def _packages() -> Iterator[Finding]:
    try:
        named = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Finding(NOTE, "packages", f"{_DISTRIBUTION} itself is not installed", _AGAIN)
        return
    names = [re.split(r"[ ;<>=!~\[(]", line)[0] for line in named if "extra ==" not in line]
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        yield Finding(BROKEN, "packages", f"missing: {', '.join(missing)}", _AGAIN)
    else:
        yield Finding(GOOD, "packages", f"all {len(names)} that the course names")


def _is_installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def _torch() -> Iterator[Finding]:
    """Ask torch in a process of its own: a wheel for another CPU ends the process it is in."""
    answer = _python(sys.executable, _ASK_TORCH)
    if answer.returncode:
        yield Finding(BROKEN, "torch", f"cannot be used: {_last_words(answer)}", _AGAIN)
        return
    facts = json.loads(answer.stdout.splitlines()[-1])
    yield Finding(GOOD, "torch", facts["torch"])
    gloo = "Gloo" in facts["backends"]
    advice = "" if gloo else f"This torch was built without Gloo, which joins CPU ranks.\n{_AGAIN}"
    joins = f"{facts['backends'] or 'none'}; here, ranks use {facts['here, ranks use']}"
    yield Finding(GOOD if gloo else BROKEN, "backends", joins, advice)
    yield Finding(GOOD, "GPUs", facts["GPUs"])


def _start_methods() -> Iterator[Finding]:
    there = [m for m in ("forkserver", "spawn") if m in multiprocessing.get_all_start_methods()]
    yield Finding(GOOD, "start methods", ", ".join(there))


def _kernel() -> Iterator[Finding]:
    """The kernel that lessons run in, and whether its interpreter can start it."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    from course_lib import _running

    name = f"kernel {_running.KERNEL}"
    install = f"Install it: {sys.executable} -m pip install ipykernel"
    _running.choose_own_kernel()
    try:
        program = KernelSpecManager().get_kernel_spec(_running.KERNEL).argv[0]
    except NoSuchKernel:
        yield Finding(BROKEN, name, f"not in this environment ({sys.prefix})", install)
        return
    version = sys.version_info
    own = {"python", "python3", f"python{version[0]}.{version[1]}"}  # as jupyter_client has it
    program = sys.executable if program in own else program
    try:
        answer = _python(program, "import ipykernel.kernelapp")
    except OSError as error:
        yield Finding(BROKEN, name, f"its {program} cannot be run: {error.strerror}", install)
        return
    if answer.returncode:
        yield Finding(BROKEN, name, f"does not start: {_last_words(answer)}", install)
    elif os.path.realpath(program) != os.path.realpath(sys.executable):
        yield Finding(NOTE, name, f"runs another Python than this one: {program}", install)
    else:
        yield Finding(GOOD, name, "of this environment")


def _torchrun() -> Iterator[Finding]:
    own = Path(sys.executable).with_name("torchrun")
    first = shutil.which("torchrun")
    put = f'export PATH="{own.parent}:$PATH" (or activate the environment)'
    if not own.exists():
        yield Finding(NOTE, "torchrun", f"not in {own.parent}", _AGAIN)
    elif first is None:
        yield Finding(NOTE, "torchrun", f"{own}, but not on PATH", put)
    elif Path(first).resolve() != own.resolve():
        yield Finding(NOTE, "torchrun", f"PATH has another one first: {first}", put)
    else:
        yield Finding(GOOD, "torchrun", str(own))


def _folder(folder: Path) -> Iterator[Finding]:
    name, place = f"{folder.name}/", folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        advice = f"Make {place} a folder that you may write to."
        yield Finding(BROKEN, name, f"{folder}: {error.strerror}", advice)
    else:
        yield Finding(GOOD, name, str(folder))


def _data() -> Iterator[Finding]:
    from course_lib import machine

    try:
        found = machine.data_sets()
    except NotADirectoryError as error:
        yield Finding(BROKEN, "data", str(error))
        return
    for name, publication, path in found:
        if os.path.lexists(path):
            text = f"{path}\nLooked for only; `course data --verify {name}` checks it."
            yield Finding(GOOD, publication.title, text)
            continue
        advice = (
            f"Get it: `course data {name}`; or by hand {publication.file} from\n"
            f"{publication.where}\nand put it, under that name, into {path.parent}\n"
            "(or into the folder that COURSE_DATA names)."
        )
        text = "not here: lessons download it, or use a small stand-in"
        yield Finding(NOTE, publication.title, text, advice)


def _python(program: str, code: str) -> subprocess.CompletedProcess:
    """Run Python code as a kernel would: with this course_lib, and nothing of this folder."""
    here = str(Path(__file__).parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [program, "-P", "-c", code]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {_PATIENCE} s")


def _last_words(answer: subprocess.CompletedProcess) -> str:
    if answer.returncode < 0:
        return f"the process was ended by {signal.Signals(-answer.returncode).name}"
    lines = answer.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {answer.returncode}"
