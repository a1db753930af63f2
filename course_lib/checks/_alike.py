"""What the ranks put into collectives, compared before any of it is sent.

Gloo does not compare. Calls that do not belong together hang, kill a rank, lose a connection, or
add up numbers that have nothing to do with each other; which of these it is may change from run to
run. Here it is an error that says which call differs, and on which ranks.
"""

import functools
import inspect
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

# Name → the argument all ranks must fill with equally many numbers, where there is one.
_COLLECTIVES = {
    "all_reduce": "tensor",
    "all_reduce_coalesced": "tensors",
    "all_gather": "tensor",
    "all_gather_into_tensor": "input_tensor",
    "all_gather_single": "input_tensor",
    "broadcast": "tensor",
    "reduce": "tensor",
    "gather": "tensor",
    "scatter": "",
    "reduce_scatter": "",
    "reduce_scatter_tensor": "input",
    "reduce_scatter_single": "input",
    "all_to_all": "",
    "all_to_all_single": "",
    "barrier": "",
    "broadcast_object_list": "",
    "all_gather_object": "",
    "gather_object": "",
    "scatter_object_list": "",
}
LATE = 0.1  # seconds
_blocks = itertools.count()  # ranks enter these blocks in one order, so the numbers agree


class Call(NamedTuple):
    """A collective: its name, and how many numbers a rank puts in (None: it may be any)."""

    name: str
    numbers: int | None

    def __str__(self) -> str:
        if self.numbers is None:
            return self.name
        return f"{self.name} of {self.numbers} number{'s' * (self.numbers != 1)}"


def names_of(answer: Callable[..., Any]) -> dict[str, Any]:
    """The globals in which the learner's code looks up names.

    Args:
        answer: A function, or a class: then those of its own methods.
    """
    classes = answer.__mro__ if isinstance(answer, type) else ()
    members = [member for one in classes for member in vars(one).values()] or [answer]
    for member in members:
        plain = inspect.unwrap(getattr(member, "fget", None) or member)
        plain = getattr(plain, "func", plain)  # of a partial
        space = getattr(plain, "__globals__", None)
        if space is not None and str(space.get("__name__")).split(".")[0] != "torch":
            return space
    return {}


@contextmanager
def same_calls_everywhere(
    names: dict[str, Any], case: str, late: int | None = None
) -> Iterator[list[Call]]:
    """Make it an error, on a rank, when its k-th collective is not that of the other ranks.

    A rank that leaves the block has nothing more to call, and the others are told so. Calls within
    other groups than the default one pass.

    Args:
        names: Globals of the learner's code; calls through a name it imported are seen, too.
        case: Begins the error's text.
        late: Number of a call (from 0) for which the last rank comes ``LATE`` seconds after the
            others, if it is asynchronous: whoever reads before it waits then reads too early.

    Yields:
        This rank's calls so far.

    Raises:
        RuntimeError: Inside the block, from the call that differs.
    """
    store, block = distributed_c10d._get_default_store(), next(_blocks)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    calls: list[Call] = []
    inside = [False]

    def compared(original: Callable[..., Any], payload: str) -> Callable[..., Any]:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def wrapper(*args, **kwargs):  # a name that places skip
            given = signature.bind(*args, **kwargs).arguments
            if inside[0] or given.get("group") not in (None, dist.group.WORLD):
                return original(*args, **kwargs)
            number, key = len(calls), f"alike/{block}/{len(calls)}"
            call = Call(original.__name__, _numbers(given.get(payload)) if payload else None)
            calls.append(call)
            store.set(f"{key}/{rank}", str(call))
            each = [store.get(f"{key}/{other}").decode() for other in range(ranks)]
            other = next((other for other in range(ranks) if each[other] != each[0]), 0)
            if other:  # the same words on all ranks: it is one error
                raise RuntimeError(f"{case}: rank 0 calls {each[0]}, rank {other} {each[other]}")
            if number == late and rank == ranks - 1 and given.get("async_op"):
                time.sleep(LATE)
            inside[0] = True
            try:
                return original(*args, **kwargs)
            finally:
                inside[0] = False

        return wrapper

    with ExitStack() as stack:
        for name, payload in _COLLECTIVES.items():
            original = getattr(distributed_c10d, name, None)
            if original is None:  # older torch
                continue
            ours = compared(original, payload)
            stack.enter_context(patch.object(distributed_c10d, name, ours))
            stack.enter_context(patch.object(dist, name, ours))
            if own := {key: ours for key, value in names.items() if value is original}:
                stack.enter_context(patch.dict(names, own))
        yield calls
    store.set(f"alike/{block}/{len(calls)}/{rank}", "nothing more")


def _numbers(payload: Any) -> int:
    tensors = payload if isinstance(payload, list | tuple) else [payload]
    return sum(t.numel() for t in tensors if isinstance(t, torch.Tensor))
