"""Where a rank stands: stack frames turned into a place a reader can find.

A place is an operation, a cell and a line: ``in all_reduce, Cell In[7], line 12``. Frames come from
two sources: the traceback of an exception, and the dump that ``faulthandler`` writes on a signal,
which works even while the rank is stuck inside C++. The operation is what the reader's own
line called; wrappers that libraries put between are skipped.
"""

import linecache
import re
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_OURS = str(Path(__file__).parent)
_LAUNCHER = str(Path(__file__).with_name("_child.py"))
_WRAPPERS = {
    "__call__",
    "__enter__",
    "__exit__",
    "_call_impl",
    "_wrapped_call_impl",
    "decorate_context",
    "inner",
    "wrapper",
}
_DUMP_THREAD = re.compile(r"^(?:Current thread|Thread) (0x[0-9a-f]+)", re.MULTILINE)
_DUMP_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class Frame(NamedTuple):
    """One line of a stack, outermost first in a list of them."""

    filename: str
    line: int
    function: str

    @property
    def is_the_readers(self) -> bool:
        """Whether the reader wrote it: not the standard library, not a package, not ours."""
        if cell_name(self.filename):  # "<ipython-input-…>" in a terminal
            return True
        return not self.filename.startswith((*_LIBRARIES, _OURS, "<"))

    @property
    def where(self) -> str:
        """``Cell In[7], line 12``, or the file's name and the line."""
        return f"{cell_name(self.filename) or Path(self.filename).name}, line {self.line}"

    @property
    def source(self) -> str:
        """The line of code itself, stripped; empty when the file cannot be read."""
        return linecache.getline(self.filename, self.line).strip()


def cell_name(filename: str) -> str | None:
    """``Cell In[7]`` for the file name IPython gave a cell of this kernel, else None."""
    if "IPython" not in sys.modules:
        return None
    shell = sys.modules["IPython"].get_ipython()
    named = shell.compile.format_code_name(filename) if shell else None
    return " ".join(named) if named else None


def cell_sources() -> dict[str, tuple]:
    """The ``linecache`` entries of this kernel's cells, for the ranks' own tracebacks."""
    return {name: entry for name, entry in linecache.cache.items() if cell_name(name)}


def frames_of(stack: Iterable[tuple[str, int | None, str]]) -> list[Frame]:
    """The frames of an exception (``_child.stack_of``) without those of this package's launcher."""
    return without_the_launchers([Frame(name, line or 0, where) for name, line, where in stack])


def frames_in_dump(dump: str, thread: int) -> list[Frame]:
    """The frames of one thread in ``faulthandler``'s text, outermost first, likewise."""
    _, *parts = _DUMP_THREAD.split(dump)
    for ident, block in zip(parts[::2], parts[1::2], strict=True):
        if int(ident, 16) == thread:
            found = [Frame(m[1], int(m[2]), m[3]) for m in _DUMP_FRAME.finditer(block)]
            return without_the_launchers(found[::-1])
    return []


def without_the_launchers(frames: list[Frame]) -> list[Frame]:
    """``frames`` without those of the code that calls the reader's function in a rank."""
    return [frame for frame in frames if frame.filename != _LAUNCHER]


def place(frames: Sequence[Frame]) -> str:
    """Say where ``frames`` (outermost first) end.

    ``all_reduce, Cell In[7], line 12`` when the reader's line called into a library, otherwise the
    line with its code: ``Cell In[7], line 12: time.sleep(60)``. Empty when there is no frame.
    """
    mine = [i for i, frame in enumerate(frames) if frame.is_the_readers]
    # A rank that is through with the reader's code may wait in ours, in the barrier of a check.
    mine = mine or [i for i, frame in enumerate(frames) if frame.filename.startswith(_OURS)]
    if not mine:
        return frames[-1].where if frames else ""
    here = frames[mine[-1]]
    called = [f.function for f in frames[mine[-1] + 1 :] if f.function not in _WRAPPERS]
    if called:
        return f"{called[0]}, {here.where}"
    return f"{here.where}: {here.source}" if here.source else here.where


def excerpt(frames: Sequence[Frame], most_lines: int) -> list[str]:
    """A short traceback: the reader's own frames with their source lines, then the last frame.

    Libraries' frames between are left out. Where even that is more than ``most_lines`` lines,
    the outermost go first: the innermost is where it went wrong.
    """
    kept = [f for f in frames if f.is_the_readers]
    if frames and frames[-1] not in kept:
        kept.append(frames[-1])
    blocks = [
        [f"  {f.where}, in {f.function}"] + ([f"    {f.source}"] if f.source else []) for f in kept
    ]
    while len(blocks) > 1 and sum(map(len, blocks)) > most_lines:
        blocks.pop(0)
    return [line for block in blocks for line in block][:most_lines]
