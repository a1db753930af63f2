"""What torchrun makes of the words of a command line, by torch's own parser.

So every spelling that torchrun takes is taken here: ``--node-rank 1``, ``--node_rank=1``, another
order. It runs on a rank: torch's parser prints, ends the process, and reads the environment.
"""

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

_AS_MODULE = ("-m", "torch.distributed.run")
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
    def is_static(self) -> bool:
        """Whether every node is told its number."""
        return self.backend == "static"


def own_words(words: Sequence[str]) -> list[str]:
    """The words behind torchrun's name; ``python -m torch.distributed.run`` is one, too."""
    return list(words[3:] if tuple(words[1:3]) == _AS_MODULE else words[1:])


def form(words: Any) -> str:
    """What is wrong with the form of a command line, or ``""``."""
    if isinstance(words, str):
        return "a list of words, not one text: shlex.split cuts a text up as a shell does"
    if not isinstance(words, list | tuple):
        return f"return a list of words (got {words!r:.60})"
    for word in words:
        if not isinstance(word, str):
            return f"every word is a text, and {word!r:.40} is none: what is typed is typed"
    if not words or (words[0] != "torchrun" and tuple(words[1:3]) != _AS_MODULE):
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
