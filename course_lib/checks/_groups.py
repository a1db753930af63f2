"""What the ranks ask ``new_group`` for, compared before any group is made."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch.distributed as dist
from torch.distributed import distributed_c10d


@contextmanager
def same_groups_everywhere(answer: Callable[..., Any]) -> Iterator[None]:
    """Make it an error, on a rank, when the ranks' k-th calls of ``new_group`` differ.

    torch only counts groups. Ranks whose k-th groups differ share addresses by mistake, which may
    hang, abort, or even work by chance. A rank that never makes a k-th call is waited for.

    Args:
        answer: The learner's function; calls through a name it imported are seen, too.

    Raises:
        RuntimeError: Inside the block, from ``new_group``: two ranks ask for different members.
    """
    original, store = dist.new_group, distributed_c10d._get_default_store()
    rank, ranks, calls = dist.get_rank(), dist.get_world_size(), []

    def new_group(members=None, *args, **kwargs):
        members = kwargs.pop("ranks", members)
        wish = sorted(members) if members is not None else [*range(ranks)]
        calls.append(wish)
        key = f"new_group/{len(calls)}"
        store.set(f"{key}/{rank}", str(wish))
        for other in range(ranks):
            theirs = store.get(f"{key}/{other}").decode()
            if theirs != str(wish):
                raise RuntimeError(
                    f"group {len(calls)} is {wish} for rank {rank}, and {theirs} for rank {other}"
                )
        return original(members, *args, **kwargs)

    space = getattr(inspect.unwrap(answer), "__globals__", {})
    with ExitStack() as stack:
        for module in (dist, distributed_c10d):
            stack.enter_context(patch.object(module, "new_group", new_group))
        own = {name: new_group for name, value in space.items() if value is original}
        stack.enter_context(patch.dict(space, own))
        yield
