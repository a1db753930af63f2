"""Two nodes in miniature: two agents on this machine, with the words they would be given.

Everything listens on loopback; however it ends, no agent and no rank is left (``Agents``).
"""

import io
import json
import os
import shlex
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

from course_lib._agents import Agents
from course_lib._loopback import SOCKETS_ON_LOOPBACK
from course_lib.checks._launch_words import own_words
from course_lib.checks._node_launches import Case
from course_lib.errors import RankError

_TIMEOUT, _DEADLINE = 60, 120  # seconds; a quiet machine needs ten
_RANKS = 2  # a node
_PROGRAM = '''\
"""Each rank writes what it knows about itself."""

import json
import os
import sys

import torch
import torch.distributed as dist

from course_lib import process_group

with process_group(timeout=60) as pg:
    total = torch.tensor([pg.rank])
    dist.all_reduce(total)
    names = "GROUP_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE"
    known = [int(os.environ[name]) for name in names] + [total.item()]
    with open(os.path.join(sys.argv[1], f"{pg.rank}.json"), "w") as file:
        json.dump(known, file)
'''


class Place(NamedTuple):
    """A rank, as it sees itself; ``total`` is the sum of all ranks' numbers."""

    node: int
    local_rank: int
    rank: int
    world_size: int
    total: int


PLACES = [
    Place(node, local, node * _RANKS + local, 2 * _RANKS, sum(range(2 * _RANKS)))
    for node in range(2)
    for local in range(_RANKS)
]


def case(folder: Path, port: int) -> Case:
    """A job that really runs. The store is there already, so no agent is to host one.

    Args:
        folder: Where its program, and what that writes, is put.
        port: Of the store, on 127.0.0.1.
    """
    program, results = folder / "program.py", folder / "results"
    program.write_text(_PROGRAM)
    results.mkdir()
    words = f"torchrun --nnodes=2 --nproc-per-node={_RANKS} --rdzv-backend=c10d --rdzv-id=two "
    words += f"--rdzv-endpoint=127.0.0.1:{port} --rdzv-conf=is_host=0,join_timeout={_TIMEOUT} "
    words += "--local-addr=127.0.0.1 " + shlex.join([str(program), str(results)])
    return Case("two agents on this machine", words, ("127.0.0.1", "127.0.0.2"))


def start(commands: Sequence[Sequence[str]], folder: Path) -> list[Place] | str:
    """Run one agent a command; return the ranks' places, in order, or why they did not meet."""
    logs = folder / "logs"
    logs.mkdir()
    environ = os.environ | SOCKETS_ON_LOOPBACK | {"COURSE_DEVICE": "cpu", "COURSE_THREADS": "1"}
    agents = Agents(logs, _TIMEOUT, _DEADLINE)
    for command in commands:
        agents.add(own_words(command), environ)
    try:
        with redirect_stdout(io.StringIO()):
            agents.run()
    except RankError as error:
        if error.headline == "interrupted":
            raise KeyboardInterrupt from None
        return error.headline
    files = (folder / "results").glob("*.json")
    return sorted(Place(*json.loads(file.read_text())) for file in files)
