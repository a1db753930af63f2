"""Time how long it takes to start ranks that do nothing, and ask what memory they take."""

import inspect
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .processes import Kernel, torchrun
from .trainings import PROGRAMS

COURSE, SPAWN = "launch (forkserver)", "torch.multiprocessing.spawn"
LAUNCH_SPAWN, TORCHRUN, NOTEBOOK = "launch (spawn)", "torchrun", "accelerate notebook_launcher"
AGAIN = 5  # launches a round where one takes hundredths of a second


class Launches:
    """Every way to start ranks, each from where it is at home.

    ``launch`` and ``notebook_launcher`` get functions defined in a cell, each in a kernel of its
    own (the second forks its kernel, which must not have computed anything);
    ``torch.multiprocessing.spawn`` gets one from a module, in ``launch``'s kernel, because it
    cannot find a cell's; torchrun gets a script.
    """

    def __init__(
        self, kernel: Kernel, forked: Kernel | None, nprocs: int, env: Mapping[str, str]
    ) -> None:
        self._nprocs = nprocs
        self._env = env
        self._kernel, self._forked = kernel, forked
        sys.path.insert(0, str(PROGRAMS))
        import empty

        functions = "\n".join(inspect.getsource(f) for f in (empty.empty, empty.memory))
        begin = f"import sys, time\nsys.path.insert(0, {str(PROGRAMS)!r})\nimport torch\n"
        kernel.run(begin + "import empty as module, torch.multiprocessing as mp\n" + functions)
        kernel.run("from course_lib import launch")
        if forked:
            forked.run(begin + "from accelerate import notebook_launcher\n" + functions)

    def names(self) -> list[str]:
        """What can be measured here."""
        there = [COURSE, LAUNCH_SPAWN, SPAWN, TORCHRUN]
        return [*there, NOTEBOOK] if self._forked else there

    def seconds(self, name: str, times: int = 1) -> list[float]:
        """Launch the empty function ``times`` times, and take the time of each."""
        if name == TORCHRUN:
            script = PROGRAMS / "empty.py"
            return [_timed(lambda: torchrun(script, nprocs=self._nprocs, env=self._env))]
        call = self._call(name, "empty", "()", "module.empty")
        cell = (
            f"for _ in range({times}):\n    _begin = time.perf_counter()\n    {call}\n"
            "    print('took', time.perf_counter() - _begin)"
        )
        said = self._home(name).run(cell).splitlines()
        return [float(line.split()[1]) for line in said if line.startswith("took ")]

    def memory(self, name: str, ready: bool) -> list[int]:
        """The PSS of each rank, bytes, taken while all are alive; empty where Linux is not.

        Args:
            name: How to start the ranks.
            ready: Whether each has made an optimizer (which imports a good deal).
        """
        if not Path("/proc/self/smaps_rollup").exists():
            return []
        with tempfile.TemporaryDirectory() as folder:
            if name == TORCHRUN:
                script = PROGRAMS / "empty.py"
                words = folder, self._nprocs, ready
                torchrun(script, *words, nprocs=self._nprocs, env=self._env)
            else:
                rest = f"({folder!r}, {self._nprocs}, {ready})"
                self._home(name).run(self._call(name, "memory", rest, "module.memory"))
            return [int(path.read_text()) for path in sorted(Path(folder).glob("*.pss"))]

    def _home(self, name: str) -> Kernel:
        return self._forked if name == NOTEBOOK else self._kernel

    def _call(self, name: str, function: str, arguments: str, in_module: str) -> str:
        """The line of code that launches; ``arguments`` is a tuple's text, without the rank."""
        n = self._nprocs
        if name == SPAWN:
            return f"mp.spawn({in_module}, args={arguments}, nprocs={n})"
        if name == NOTEBOOK:
            options = f"num_processes={n}, use_port='{_free_port()}'"
            return f"notebook_launcher({function}, (None, *{arguments}), {options})"
        method = "forkserver" if name == COURSE else "spawn"
        return f"launch({function}, None, *{arguments}, nprocs={n}, start_method={method!r})"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
