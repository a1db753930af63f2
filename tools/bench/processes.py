"""Run a program, or cells in a kernel, for a limited time; leave no process behind."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
from jupyter_client.manager import KernelManager

LIMIT = 120.0  # seconds for one program or one cell; a few are usual
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ToolFailed(Exception):
    """A program or a cell failed or took too long; the message ends with what it said."""


def run_program(command: list[str | Path], env: Mapping[str, str], limit: float = LIMIT) -> None:
    """Run a program to its end.

    Raises:
        ToolFailed: It took longer than ``limit`` seconds, or its exit code is not 0.
    """
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise ToolFailed(f"{_name(command)} was not done after {limit:g} s") from None
    finally:
        if process.poll() is None:
            _end([*_children(process.pid), psutil.Process(process.pid)])
            process.wait()
        process.stdout.close()
    if process.returncode:
        end = "\n".join(said.splitlines()[-15:])
        raise ToolFailed(f"{_name(command)} ended with code {process.returncode}:\n{end}")


def torchrun(script: Path, *arguments: object, nprocs: int, env: Mapping[str, str]) -> None:
    """Run a script under torchrun, on this machine and on a free port."""
    # As the torchrun command does; named through this interpreter, whatever the path finds.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = [f"--nproc-per-node={nprocs}", script, *map(str, arguments)]
    run_program([*command, *words], env)


def _name(command: list) -> str:
    scripts = [Path(word).name for word in command if str(word).endswith(".py")]
    return scripts[0] if scripts else str(command[0])


class Kernel:
    """A Jupyter kernel of this interpreter, as a notebook has it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        # The kernel named python3 is this environment's, whatever lies in the user's home.
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(
            env={**env, "JUPYTER_PREFER_ENV_PATH": "1"},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._pid = self._manager.provisioner.pid
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        try:
            self._client.wait_for_ready(timeout=LIMIT)
        except BaseException:
            self.close()
            raise

    def run(self, code: str) -> str:
        """Execute a cell.

        Returns:
            What it printed.

        Raises:
            ToolFailed: It raised, or took longer than ``LIMIT`` seconds.
        """
        printed: list[str] = []

        def hook(message: dict) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        try:
            reply = self._client.execute_interactive(code, timeout=LIMIT, output_hook=hook)
        except TimeoutError:
            raise ToolFailed(f"a cell was not done after {LIMIT:g} s: {code[:60]!r}") from None
        if reply["content"]["status"] != "ok":
            trace = "\n".join(reply["content"].get("traceback", [])[-3:])
            raise ToolFailed(f"a cell failed: {code[:60]!r}\n{_ANSI.sub('', trace)}")
        return "".join(printed)

    def close(self) -> None:
        """End the kernel and everything it started."""
        self._client.stop_channels()
        children = _children(self._pid)
        self._manager.shutdown_kernel(now=True)
        _end(children)


@contextlib.contextmanager
def kernel(env: Mapping[str, str]) -> Iterator[Kernel]:
    """A kernel for the length of a ``with`` block."""
    started = Kernel(env)
    try:
        yield started
    finally:
        started.close()


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
