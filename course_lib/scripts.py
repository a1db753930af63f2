"""Turn a cell's function into a program for torchrun.

The program stands alone: the function, everything it reaches in the notebook (``_shake`` finds it),
a flag for each of its parameters. It runs under plain torchrun and, on the CPU, gives the numbers
that ``launch`` gives, to the last bit. Files are written whole or not at all, and a file that
somebody else wrote is never replaced.
"""

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from course_lib._flags import add_argument, checked_flags
from course_lib._programs import place, write_marked
from course_lib._shake import CannotCarry, Carried, carry

MARK = "Written by course_lib.write_script."
_RESULTS = "save-results"


def write_script(fn: Callable[..., Any], name: str | Path, **defaults: Any) -> Path:
    """Write the program that runs ``fn`` on every rank under torchrun.

    Its flags are the parameters of ``fn`` (``batch_size`` becomes ``--batch-size``); one more,
    ``--save-results FOLDER``, saves what each rank returns as ``rank_0.pt``, ….

    Args:
        fn: A function defined at the top level of a cell. Its parameters must be numbers, words,
            paths, or lists of these; what else it needs, it makes or loads itself.
        name: The file's name. A name without a folder goes to ``scripts/`` in the course's folder.
        **defaults: Values for parameters, instead of those in the function's signature.

    Returns:
        The program's full path.

    Raises:
        CannotCarry: ``fn`` reaches something that another process would not have; it is a
            ``ValueError``, as is a name that no program can have.
        TypeError: ``fn`` is no such function, or a parameter or default cannot be a flag.
        OSError: The file cannot be written, or was not written by this function.
    """
    _check_function(fn)
    parameters = checked_flags(fn, defaults, reserved=_RESULTS)
    carried = carry(fn)
    path = place(name, ".py")
    _check_modules(fn, carried, path)
    text = _program(fn, path, carried, [add_argument(p) for p in parameters])
    try:
        compile(text, path, "exec", dont_inherit=True)
    except SyntaxError as error:  # `await` at the top level of a cell, for example
        raise CannotCarry(f"{fn.__name__} cannot stand in a program: {error}") from None
    write_marked(path, text, MARK)
    print(f"Wrote {path} ({text.count(chr(10))} lines)")
    return path


def _check_function(fn: Callable[..., Any]) -> None:
    name = getattr(fn, "__name__", "")
    made = inspect.unwrap(fn) if callable(fn) else fn  # a library's decorator has its own globals
    if not hasattr(made, "__globals__") or not name.isidentifier():
        raise TypeError(
            f"write_script needs a function defined with def, got {type(fn).__name__} {fn!r:.60}"
        )
    if made.__globals__.get(name) is not fn:
        raise TypeError(
            f"{name} is not (or no longer) a function at the top level of a cell: define it there, "
            "under its own name, and pass that"
        )


def _check_modules(fn: Callable[..., Any], carried: Carried, path: Path) -> None:
    """Refuse modules that only this notebook finds, and a file name that hides a module."""
    look = (
        "import sys, importlib.util as u; print(*[m for m in sys.argv[1:] if not u.find_spec(m)])"
    )
    own = {path.stem} if path.stem.isidentifier() else set()
    command = [sys.executable, "-P", "-c", look, *sorted(carried.modules | own)]
    missing = subprocess.run(command, capture_output=True, text=True, cwd="/").stdout.split()
    if not own <= set(missing):
        raise ValueError(
            f"{path.name} would be found in place of the module {path.stem}: choose another name"
        )
    if missing := sorted(carried.modules.intersection(missing)):
        raise CannotCarry(
            f"{fn.__name__} needs the module {missing[0]}, which a program elsewhere would not "
            "find: put what it needs into a cell, or install the module"
        )


def _program(fn: Callable[..., Any], path: Path, carried: Carried, arguments: list[str]) -> str:
    doc = (inspect.getdoc(fn) or "").split("\n\n")[0] or f"{fn.__name__}, from a notebook's cells."
    doc = doc.replace("\\", "\\\\").replace('"""', "'''")
    head = [
        f'"""{doc}\n\n    torchrun --nproc-per-node=2 {path.name}\n\n{MARK}\n"""',
        "\n".join(_joined(carried.imports)),
        "\n".join(carried.constants),
    ]
    parts = ["\n\n".join(part for part in head if part), *carried.blocks]
    return "\n\n\n".join(parts) + _MAIN.format(name=fn.__name__, arguments="".join(arguments))


def _joined(imports: list[str]) -> list[str]:
    """Import lines with all that comes from one module in one statement."""
    named: dict[str, list[str]] = {}
    for line in imports:
        module, found, name = line.partition(" import ")
        named.setdefault(module if found else line, []).append(name)
    lines = []
    for module, names in named.items():
        line = f"{module} import {', '.join(names)}" if names[0] else module
        if len(line) > 100:
            line = f"{module} import (\n    " + ",\n    ".join(names) + ",\n)"
        lines.append(line)
    return lines


_MAIN = """


def _main(function) -> None:
    import argparse
    import os
    from pathlib import Path

    import torch

    parser = argparse.ArgumentParser(allow_abbrev=False)
{arguments}    parser.add_argument("--save-results", metavar="FOLDER", help="for rank_0.pt, …")
    flags = vars(parser.parse_args())
    folder = flags.pop("save_results")
    returned = function(**flags)
    if folder:
        torch.save(returned, Path(folder) / f"rank_{{os.environ['RANK']}}.pt")


if __name__ == "__main__":
    from torch.distributed.elastic.multiprocessing.errors import record as _record

    _record(_main)({name})  # torchrun then reports the traceback of the rank that failed first
"""
