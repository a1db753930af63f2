"""A plan in rounds carried out: tiny models trained side by side, each in the group it was given.

Whatever ``my_group`` returns is looked at, on all ranks, before anything is trained in it: a wrong
group is a sentence here, where DDP would hang.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from course_lib.checks._rounds import Rounds

_ROWS = 12  # of a batch; groups of 1, 2, 3, 4 and 6 ranks share it equally


class Outcome(NamedTuple):
    """What came of a plan on one rank.

    Attributes:
        wrong: What is wrong with the group of each rank, in the first round in which anything is.
        weights: Model → its weights, of the models that this rank has trained.
    """

    wrong: list[str]
    weights: dict[int, torch.Tensor]


def carry_out(my_group: Callable[[dict], Any], rounds: Rounds) -> Outcome:
    """Train the models of a plan. Called on all ranks, inside a process group.

    Args:
        my_group: The learner's function.
        rounds: A plan in which every rank is in one group of each round.
    """
    weights: dict[int, torch.Tensor] = {}
    for number, groups in enumerate(rounds, start=1):
        got = my_group({model: [*members] for model, members in groups.items()})
        wrong = what_is_wrong(got, groups, dist.get_rank())
        everyone: list[str] = [""] * dist.get_world_size()
        dist.all_gather_object(everyone, f"round {number}, {wrong}" if wrong else "")
        if any(everyone):
            return Outcome(everyone, weights)
        model, group = got
        weights[int(model)] = trained(int(model), group)
    return Outcome([], weights)


def what_is_wrong(got: Any, groups: dict[int, list[int]], rank: int) -> str:
    """What is wrong with what a rank got for a round; ``""`` if nothing is.

    Args:
        got: What ``my_group`` returned.
        groups: The round: model → its ranks.
        rank: Whose it is.
    """
    if not isinstance(got, list | tuple) or len(got) != 2:
        return f"rank {rank}: return a pair: a model, and its group (got {got!r:.60})"
    model, group = got
    mine = next(one for one, members in groups.items() if rank in members)
    if isinstance(model, dist.ProcessGroup):
        return f"rank {rank}: the model comes first, then its group"
    if isinstance(model, bool) or model != mine:
        return f"rank {rank} shares model {mine}, and the model returned is {model!r:.60}"
    if group is None:
        return f"rank {rank}: its group is None, which stands for all ranks"
    if group == dist.GroupMember.NON_GROUP_MEMBER:
        return (
            f"rank {rank}: its group is what new_group returns to a rank that is not in it; keep "
            "the one that it is in"
        )
    if not isinstance(group, dist.ProcessGroup):
        return f"rank {rank}: return the process group, as new_group gives it (got {group!r:.60})"
    found = sorted(dist.get_process_group_ranks(group))
    if found != sorted(groups[mine]):
        return f"rank {rank}: in its group are ranks {found}, and {groups[mine]} share model {mine}"
    return ""


def trained(model: int, group: dist.ProcessGroup | None) -> torch.Tensor:
    """Three steps of a tiny model, float64, in a group; None: alone, without DDP.

    Args:
        model: Its number, from which its weights and its data are made.
        group: The ranks that share it. Called on all of them.

    Returns:
        Its weights in one row.
    """
    dice = torch.Generator().manual_seed(model)
    x, y = (torch.randn(_ROWS, k, dtype=torch.float64, generator=dice) for k in (3, 1))
    net = nn.Linear(3, 1, dtype=torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=dice))
    shared, rank, size = net, 0, 1
    if group is not None:
        shared = DistributedDataParallel(net, process_group=group)
        rank, size = dist.get_rank(group), dist.get_world_size(group)
    for _ in range(3):
        net.zero_grad()
        (shared(x[rank::size]) - y[rank::size]).square().mean().backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
