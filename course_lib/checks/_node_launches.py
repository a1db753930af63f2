"""The cases of "complete the launch of node 1", and what its usual mistakes look like.

Node 0's words are written in every way torchrun takes, and what may not change looks like what has
to: node 0's address among the program's flags, a 0 that is no node's number.
"""

import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from course_lib.checks._launch_words import Launch

_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "")


class Case(NamedTuple):
    """One job.

    Attributes:
        says: What is particular about it.
        command: Node 0's words, as a shell takes them.
        addresses: One a node, that of node 0 first.
    """

    says: str
    command: str
    addresses: tuple[str, ...]

    def words(self) -> list[str]:
        """Node 0's words: a new list."""
        return shlex.split(self.command)

    def others(self) -> Iterator[tuple[int, str]]:
        """Number and address of each node to be asked about."""
        return enumerate(self.addresses[1:], start=1)


CASES = (
    Case(
        "static, 2 nodes × 1 rank",
        "torchrun --nnodes=2 --nproc-per-node=1 --node-rank=0 --master-addr=10.0.0.1 "
        "--master-port=29500 train.py --epochs=3 --seed=0",
        ("10.0.0.1", "10.0.0.2"),
    ),
    Case(
        "static, 3 nodes × 2 ranks, in pairs of words",
        "torchrun --max_restarts 1 --nnodes 3 --node_rank 0 --nproc_per_node 2 --master_addr "
        "192.168.7.10 --master_port 29511 scripts/train.py --first 0 --batch 2 --deep",
        ("192.168.7.10", "192.168.7.11", "192.168.7.12"),
    ),
    Case(
        "static, and node 0 did not say its number",
        "torchrun --nnodes=2 --nproc-per-node=2 --master-addr=gpu-07 --master-port=29500 "
        "train.py --lr=0.1",
        ("gpu-07", "gpu-11"),
    ),
    Case(
        "c10d, 2 nodes × 2 ranks, a module",
        "torchrun --nnodes=2 --nproc-per-node=2 --rdzv-backend=c10d --rdzv-id=job-20 "
        "--rdzv-endpoint=10.0.0.1:29400 -m shop.train --tracker=http://10.0.0.1:5000",
        ("10.0.0.1", "10.0.0.2"),
    ),
    Case(
        "c10d, 3 nodes × 1 rank, with addresses of their own",
        "torchrun --local-addr=10.0.0.1 --nnodes=3 --rdzv-backend=c10d --rdzv-id=night "
        "--rdzv-endpoint=10.0.0.1:29400 --rdzv-conf=join_timeout=120 train.py --peer 10.0.0.1",
        ("10.0.0.1", "10.0.0.2", "10.0.0.3"),
    ),
)


def what_is_wrong(node: int, address: str, right: Launch, got: Launch) -> tuple[str, str]:
    """The property that does not hold for one node, and why; or two empty texts.

    Args:
        node: Its number.
        address: Its own.
        right: Node 0's launch.
        got: What the answer makes of it.
    """
    if got.program != right.program:
        return "the program and its flags are those of node 0", _why_program(right, got)
    if got.rest.get("standalone"):
        return "it joins the others", "--standalone makes a node that meets nobody: leave it out"
    if hint := _why_size(right, got):
        return "as many nodes and ranks as on node 0", hint
    if got.backend != right.backend:
        hint = f"the others meet by --rdzv-backend={right.backend}, this one by {got.backend}"
        return "they meet in the same way", hint
    if hint := _why_elsewhere(address, right, got):
        return f"they meet at {right.endpoint}", hint
    if got.run != right.run:
        hint = f"who comes with another --rdzv-id waits alone (got {got.run}, not {right.run})"
        return "they meet under the same id", hint
    if right.is_static and got.node != node:
        return f"the node's number is {node}", _why_number(node, right, got)
    if right.local and got.local != address:
        hint = f"--local-addr is where the others find this node (got {got.local})"
        return f"its own address is {address}", hint
    if got.local not in (None, address):
        return "its own address, if it says any", f"{got.local} is another node's"
    return _the_rest(right, got)


def _why_program(right: Launch, got: Launch) -> str:
    (name, *flags), (other, *others) = right.program, got.program
    if other != name:
        return f"the program is {name}, and torchrun takes {other} for it"
    if not others:
        return f"all ranks are given the same flags, and {' '.join(flags)} is lost"
    if others[: len(flags)] == flags or others[-len(flags) :] == flags:
        more = [word for word in others if word not in flags]
        hint = f"{' '.join(more)} stands behind the program, so the program is given it: torchrun's"
        return hint + " own flags stand before it"
    return f"all ranks are given the same flags: {' '.join(flags)} (got {' '.join(others)})"


def _why_size(right: Launch, got: Launch) -> str:
    n, each = right.nodes[1], right.ranks
    if got.nodes != right.nodes:
        if each.isdecimal() and got.nodes[1] == n * int(each) != n:
            return f"--nnodes counts nodes: {n}, not the {got.nodes[1]} ranks of them all"
        return f"all {n} nodes count, this one too (--nnodes makes {got.nodes[1]} of it)"
    if got.ranks == each:
        return ""
    if got.ranks == "1":
        return f"--nproc-per-node={each} is lost: each agent starts its own node's ranks"
    return f"each node starts {each} ranks of its own (got --nproc-per-node={got.ranks})"


def _why_elsewhere(address: str, right: Launch, got: Launch) -> str:
    if got.endpoint == right.endpoint:
        return ""
    if got.host == right.host:
        return f"one port for all: an agent that knocks at {got.endpoint} finds nobody there"
    if got.host == address:
        return f"{address} is this node's own address: it would wait for the others at home"
    if got.host in _HERE:
        here = got.host or "no endpoint"
        return f"{here} is whatever machine one is on: the others wait on node 0, {right.host}"
    return f"got {got.endpoint}"


def _why_number(node: int, right: Launch, got: Launch) -> str:
    if got.node == right.node:
        hint = "two nodes with the number 0: both would make the ranks from 0 on. (Of two words "
        return hint + "that say it the last one counts; none at all is 0.)"
    if right.ranks.isdecimal() and got.node == node * int(right.ranks):
        return f"{got.node} is the global rank of its first process: --node-rank counts nodes"
    return f"nodes count from 0 to {right.nodes[1] - 1} (got {got.node})"


def _the_rest(right: Launch, got: Launch) -> tuple[str, str]:
    says = "all else is as on node 0"
    mine, others = dict(got.settings), dict(right.settings)
    for settings in (mine, others):
        settings.pop("is_host", None)  # torch finds out for itself who hosts, if nobody says so
    if got.hosts:
        return says, "is_host: the others meet in node 0's store, and this node's would stay empty"
    if mine != others:
        return says, f"--rdzv-conf is another one (got {mine}, not {others})"
    for name, value in right.rest.items():
        if got.rest[name] != value:
            flag = "--" + name.replace("_", "-")
            return says, f"{flag} is {_shown(value)} there, and {_shown(got.rest[name])} here"
    return "", ""


def _shown(value: Any) -> str:
    return "not given" if value in (None, "") or value is False else f"{value}"
