"""Two nodes in miniature with a network of their own: a cable whose bandwidth can be chosen.

Each node is a network namespace of Linux, with its own host name and one interface, `cable`. A
process keeps each namespace alive and ends with the kernel, and a namespace ends with its last
process: nothing has to be cleaned up, whatever happens. Root is not needed where the system lets
users make namespaces of their own.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

INTERFACE = "cable"
ADDRESSES = ("10.77.0.1", "10.77.0.2")  # of node 0 and node 1; seen from nowhere else
NAMES = ("node0", "node1")
_TOOLS = {"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux", "unshare": "util-linux"}
_HOLD = 'hostname "$1" && ip link set lo up && echo ready && exec cat'
_PATIENCE = 20.0  # seconds for one of the tools
_SYSTEM = "/usr/sbin:/sbin"  # where tc is, which is not on an ordinary user's PATH


class NoCable(OSError):
    """This machine cannot make two nodes with a cable; the message says why."""


@dataclass(frozen=True)
class Cable:
    """Two nodes that are joined.

    Attributes:
        holders: The process that keeps each node's namespace.
        as_user: Whether the namespaces belong to an ordinary user.
    """

    holders: tuple[int, ...]
    as_user: bool

    def within(self, node: int) -> list[str]:
        """The words to put before a command that shall run on a node (0 or 1)."""
        own = ["--user", "--preserve-credentials"] if self.as_user else []
        return ["nsenter", f"--target={self.holders[node]}", *own, "--net", "--uts", "--"]

    def limit(self, megabits: float | None) -> None:
        """Set the bandwidth, in each direction.

        Args:
            megabits: Million bits a second; None: as fast as the machine can.

        Raises:
            ValueError: ``megabits`` is not positive.
            NoCable: The kernel lacks the token bucket filter.
        """
        if megabits is not None and not megabits > 0:
            raise ValueError(f"megabits={megabits!r}: a positive number is needed, or None")
        for node in range(len(self.holders)):
            device = ["dev", INTERFACE, "root"]
            with suppress(NoCable):  # there may be none
                _run([*self.within(node), "tc", "qdisc", "del", *device])
            if megabits is not None:
                # What may pass at once: a millisecond's worth, and one packet at least.
                burst = max(16_000, int(megabits * 125))
                bucket = f"rate {megabits * 1000:.0f}kbit burst {burst} latency 1s"
                _run([*self.within(node), "tc", "qdisc", "add", *device, "tbf", *bucket.split()])


@contextmanager
def cable(megabits: float | None = None) -> Iterator[Cable]:
    """Make two nodes that only see each other, for the length of a ``with`` block.

    Args:
        megabits: Bandwidth of the cable, million bits a second; None: no limit.

    Yields:
        The ``Cable``, for ``torchrun(…, nnodes=2, cable=…)``.

    Raises:
        NoCable: This machine cannot do it; the message says why.
        ValueError: ``megabits`` is not positive.
    """
    if not sys.platform.startswith("linux"):
        raise NoCable("network namespaces are a part of Linux")
    for tool, package in _TOOLS.items():
        if shutil.which(tool, path=_environ()["PATH"]) is None:
            raise NoCable(f"the program {tool} is missing (package {package})")
    as_user = os.geteuid() != 0
    with ExitStack() as held:
        first = held.enter_context(_holder(as_user, [], NAMES[0]))
        inside = ["nsenter", f"--target={first}", "--user", "--preserve-credentials", "--"]
        second = held.enter_context(_holder(False, inside if as_user else [], NAMES[1]))
        made = Cable((first, second), as_user)
        ends = [f"{INTERFACE}", "type", "veth", "peer", "name", INTERFACE, "netns", str(second)]
        _run([*made.within(0), "ip", "link", "add", *ends])
        for node, address in enumerate(ADDRESSES):
            here = [*made.within(node), "ip"]
            _run([*here, "address", "add", f"{address}/24", "dev", INTERFACE])
            _run([*here, "link", "set", INTERFACE, "up"])
        made.limit(megabits)
        yield made


def why_no_cable() -> str | None:
    """Why this machine cannot make a cable, in a few words; None where it can."""
    try:
        with cable(megabits=100):
            return None
    except NoCable as reason:
        return str(reason)


@contextmanager
def _holder(as_user: bool, inside: Sequence[str], name: str) -> Iterator[int]:
    """A process in a new network namespace; it ends when this one does, or the block."""
    own = ["--user", "--map-root-user"] if as_user else []
    words = [*inside, "unshare", *own, "--net", "--uts", "--", "sh", "-c", _HOLD, "sh", name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=_environ(), text=True, process_group=0, **pipes) as process:
        try:
            if process.stdout.readline() != "ready\n":
                said = process.stderr.read().strip() or "unshare failed"
                raise NoCable(f"no new network namespace: {said}")
            yield process.pid
        finally:
            process.kill()


def _run(words: Sequence[str]) -> None:
    command = " ".join(words[words.index("--") + 1 :])
    try:
        done = subprocess.run(
            words, env=_environ(), capture_output=True, text=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise NoCable(f"`{command}` has not ended in {_PATIENCE:g} s") from None
    if done.returncode:
        raise NoCable(f"`{command}` failed: {done.stderr.strip()}")


def _environ() -> dict[str, str]:
    return os.environ | {"PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_SYSTEM}"}
