"""What torchrun makes of the words of a command line, by torch's own parser.

So every spelling that torchrun takes is taken here: ``--node-rank 1``, ``--node_rank=1``, another
order. It runs on a rank: torch's parser prints, ends the process, and reads the environment.
"""

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

_MODULE = "torch.distributed.run"
_YES = ("1", "true", "t", "yes", "y")  # as torch reads settings
_OF_ONE_NODE = ("node_rank", "master_addr", "master_port", "local_addr")  # have a field below


class Launch(NamedTuple):
    """One node's torchrun.

    Attributes:
        nodes: Least and most nodes.
        ranks: Ranks a node, as it was written: a number, or ``"gpu"``.
        backend: Of the rendezvous.
        endpoint: ``"host:port"`` where the agents meet.
        run: The rendezvous' id.
        node: The node's number; only the static rendezvous looks at it.
        local: The node's own address, or None.
        settings: Of ``--rdzv-conf``.
        program: The program or module, and its flags.
        rest: All other options, by name.
    """

    nodes: tuple[int, int]
    ranks: str
    backend: str
    endpoint: str
    run: str
    node: int
    local: str | None
    settings: dict[str, str]
    program: tuple[str, ...]
    rest: dict[str, Any]

    @property
    def host(self) -> str:
        """The endpoint's host."""
        return self.endpoint.rpartition(":")[0] or self.endpoint

    @property
    def port(self) -> str | None:
        """The endpoint's port; None if it names none, and torch takes its usual one."""
        return self.endpoint.rpartition(":")[2] if ":" in self.endpoint else None

    @property
    def hosts(self) -> bool | None:
        """Whether its agent opens the store where all meet; None if torch finds that out."""
        said = self.settings.get("is_host")
        return None if said is None else said.lower() in _YES

    @property
    def is_static(self) -> bool:
        """Whether every node is told its number."""
        return self.backend == "static"


def own_words(words: Sequence[str]) -> list[str] | None:
    """The words behind ``torchrun`` or ``python -m torch.distributed.run``; None behind others.

    Either may have a path, and Python options of its own: ``/usr/bin/python3 -u -m …``.
    """
    name, rest = PurePath(words[0]).name if words else "", list(words[1:])
    if name == "torchrun":
        return rest
    while name.startswith("python") and rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("-X", "-W"):
            del rest[:1]  # the option's value
        elif option.endswith("m") and not option.startswith("--"):  # -m, or -um
            return rest[1:] if rest[:1] == [_MODULE] else None
    return None


def form(words: Any) -> str:
    """What is wrong with the form of a command line, or ``""``."""
    if isinstance(words, str):
        return "a list of words, not one text: shlex.split cuts a text up as a shell does"
    if not isinstance(words, list | tuple):
        return f"return a list of words (got {words!r:.60})"
    for word in words:
        if not isinstance(word, str):
            return f"every word is a text, and {word!r:.40} is none: what is typed is typed"
    if own_words(words) is None:
        return f"it begins with torchrun (got {' '.join(words)[:60]!r})"
    return ""


def read(words: Any) -> Launch | str:
    """Read a command line as torchrun does; a hint where torchrun refuses it."""
    if wrong := form(words):
        return wrong
    for word in words:
        if word.startswith("--") and " " in word.partition("=")[0]:  # would be the program's name
            return f"{word!r} is one word with a space: write = in its place, or make it two words"
    for name in [name for name in os.environ if name.startswith("PET_")]:
        del os.environ[name]  # options by another way
    from torch.distributed.run import get_args_parser, get_rdzv_endpoint, parse_min_max_nnodes

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            options = get_args_parser().parse_args(own_words(words))
    except SystemExit:
        return _why_refused(said.getvalue())
    try:
        nodes = parse_min_max_nnodes(options.nnodes)
    except (ValueError, RuntimeError):
        return f"--nnodes is a number, or least:most (got {options.nnodes})"
    rest = vars(options)
    endpoint, static = get_rdzv_endpoint(options), options.rdzv_backend == "static"
    if not options.rdzv_endpoint and static and options.master_port is None:
        endpoint = options.master_addr
    reading = Launch(
        nodes,
        rest.pop("nproc_per_node"),
        rest.pop("rdzv_backend"),
        endpoint,
        rest.pop("rdzv_id"),
        options.node_rank,
        options.local_addr,
        _settings(rest.pop("rdzv_conf")),
        (rest.pop("training_script"), *rest.pop("training_script_args")),
        rest,
    )
    for name in ("nnodes", "rdzv_endpoint", *_OF_ONE_NODE):
        del rest[name]
    return reading


def _settings(text: str) -> dict[str, str]:
    parts = (part.partition("=") for part in text.split(",") if part.strip())
    return {key.strip(): value.strip() for key, _, value in parts}


def _why_refused(said: str) -> str:
    line = said.strip().rpartition("\n")[2].partition("error: ")[2] or said[:60]
    if "unrecognized" in line:
        line += ". torchrun's own flags stand before the program, the program's behind it"
    elif "training_script" in line:
        line = "the program is not there, or was taken for the value of a flag before it"
    return f"torchrun refuses it: {line}"
