"""Questions for the exercises of lesson 01."""

import os
import socket
from contextlib import ExitStack
from functools import partial

import torch
import torch.distributed as dist

from course_lib.checks._engine import Ask, exercise
from course_lib.group import process_group


@exercise("1.1 · Find your place")
def find_place(ask: Ask, answer) -> None:
    """``answer(rank, ranks_per_node) -> (node, local_rank)``."""
    cases = [(11, 4), (0, 4), (3, 4), (4, 4), (5, 2), (7, 1), (2, 8), (23, 5)]
    (places,) = ask.run(_each, answer, cases, nprocs=1)
    for (rank, per_node), got in zip(cases, places, strict=True):
        expected = divmod(rank, per_node)
        hint = "both follow from one division: the quotient and the remainder"
        pair = got if isinstance(got, list | tuple) else ()
        if any(isinstance(number, float) for number in pair):
            hint = "both are whole numbers: // divides without a fraction, / with one"
        elif tuple(pair) == expected[::-1]:
            hint = "that is the right pair in the wrong order: the node comes first"
        ask.equal(got, expected, f"rank {rank}, {per_node} a node: node, local rank", hint)


def _each(answer, cases):
    return [answer(*case) for case in cases]


@exercise("1.2 · Meet without help")
def meet_and_add(ask: Ask, answer) -> None:
    """``answer(rank, world_size, port, value) -> float``: the sum over ranks."""
    hint = (
        "init_process_group needs backend, init_method (with the port given), rank and "
        "world_size here; nothing is left in the environment"
    )
    for groups in ((2,), (3,), (2, 2)):  # in the last, two groups of 2 ranks at once
        n, ports = sum(groups), _free_ports(len(groups))
        got = ask.run(_without_environment, answer, groups, ports, nprocs=n, hint=hint)
        sums, left_open = [s for s, _ in got], [o for _, o in got]
        values = [[_value(rank) for rank in range(size)] for size in groups]
        expected = [sum(group) for group in values for _ in group]
        why = "add with dist.all_reduce, which sums unless told otherwise, and tells every rank"
        if any(isinstance(s, torch.Tensor) for s in sums):
            why = "return a plain number: tensor.item()"
        elif sums == [value for group in values for value in group]:
            why = "every rank has its own value only: join the group, then use dist.all_reduce"
        who = f"{n} ranks" if len(groups) == 1 else f"{len(groups)} groups at once, a port each"
        ask.equal(sums, expected, f"{who}: everyone has the sum {expected[0]:g}", why)
        ask.that(
            not any(left_open),
            f"{who}: the group is left again",
            "end with dist.destroy_process_group()",
        )


def _value(rank: int) -> float:
    return 10.0**rank + 0.25


def _without_environment(answer, groups: tuple[int, ...], ports: list[int]):
    rank, group = int(os.environ["RANK"]), 0
    while rank >= groups[group]:
        rank, group = rank - groups[group], group + 1
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        del os.environ[name]
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        del os.environ[name]
    got = answer(rank, groups[group], ports[group], _value(rank))
    return got, dist.is_initialized()


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@exercise("1.3 · The same under every launcher")
def mean_of_noise(ask: Ask, answer) -> None:
    """``answer(seed) -> float``: the mean of 1,000 numbers a rank, drawn with ``seed + rank``."""
    run = partial(
        ask.run, _in_a_group, answer, hint="the group is joined and left for you: do neither here"
    )
    for n, seed in ((3, 7), (2, 0)):
        got = run(seed, nprocs=n, start_method="forkserver")
        draws = [_draw(seed + rank).double() for rank in range(n)]
        expected = torch.cat(draws).mean().item()
        hint = "rank r draws torch.randn(1000, …) with torch.Generator().manual_seed(seed + r)"
        if not all(isinstance(mean, float) for mean in got):
            hint = "return a plain number on every rank: tensor.item()"
        elif _near(got, [d.mean().item() for d in draws]):
            hint = "that is each rank's own mean: the ranks have not talked to each other"
        elif _near(got, [expected * n] * n):
            hint = f"that is {n} times the mean: divide by how many numbers all ranks drew"
        elif _near(got, [draws[0].mean().item()] * n):
            hint = "every rank drew the same numbers: the seed must depend on the rank"
        elif _near(got[:1], [expected]):
            hint = "only rank 0 has it: dist.all_reduce tells every rank, dist.reduce one"
        ask.that(
            _near(got, [expected] * n),
            f"{n} ranks, seed {seed}: everyone has the mean {expected:.6f}",
            f"{hint} (got {got})",
        )
    # The last case again. A fresh interpreter is silent while it imports torch.
    spawned = run(seed, nprocs=n, start_method="spawn", timeout=60, deadline=120)
    ask.that(
        got == spawned,
        f"{n} ranks, seed {seed}: bit for bit the same under forkserver and spawn",
        f"forkserver gave {got}, spawn {spawned}: what but the seed and the rank goes in?",
    )


def _draw(seed: int) -> torch.Tensor:
    return torch.randn(1000, generator=torch.Generator().manual_seed(seed))


def _in_a_group(answer, seed: int):
    with process_group():
        return answer(seed)


def _near(got: list, expected: list[float]) -> bool:
    """Equal up to float32 rounding of sums of a few thousand numbers."""
    return all(
        isinstance(g, float) and abs(g - e) < 1e-6 for g, e in zip(got, expected, strict=True)
    )
