"""Record what a rank sends and receives, and when.

    def swap():
        with process_group() as pg, trace() as mine:
            ...                          # dist.send, dist.all_reduce, …
        return mine

    traces = launch(swap, nprocs=2)      # for summary, matches and plots.lanes

Inside ``trace`` every call of a torch.distributed operation goes through a wrapper that notes name,
partner, bytes, line and times, and then calls the operation itself with the same arguments: results
and order do not change. Times are those of the machine's monotonic clock, which all its processes
share. What C++ does by itself (the all-reduces inside DistributedDataParallel) does not pass here.
An operation takes tens of microseconds longer (``make bench`` measures it): the smallest message
about twice as long.
"""

import functools
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from course_lib._operations import Operation, Trace
from course_lib._places import Frame

# Name → the argument that holds what this rank puts in (what it gets, where it puts in nothing).
_OPERATIONS = {
    "send": "tensor",
    "isend": "tensor",
    "recv": "tensor",
    "irecv": "tensor",
    "broadcast": "tensor",
    "all_reduce": "tensor",
    "reduce": "tensor",
    "all_gather": "tensor",
    "all_gather_into_tensor": "input_tensor",
    "all_gather_single": "input_tensor",  # its new name; older torch knows only the one above
    "gather": "tensor",
    "scatter": "scatter_list",
    "reduce_scatter": "input_list",
    "reduce_scatter_tensor": "input",
    "reduce_scatter_single": "input",
    "all_to_all": "input_tensor_list",
    "all_to_all_single": "input",
    "all_reduce_coalesced": "tensors",
    "barrier": "",
    "monitored_barrier": "",
    "send_object_list": "",
    "recv_object_list": "",
    "broadcast_object_list": "",
    "all_gather_object": "",
    "gather_object": "",
    "scatter_object_list": "",
}


@contextmanager
def trace(names: dict[str, Any] | None = None) -> Iterator[Trace]:
    """Record the operations of this rank for the length of a ``with`` block.

    Args:
        names: Globals of the code to be traced, where it is not that of the caller: operations
            imported by name (``from torch.distributed import send``) are recorded there, too.

    Yields:
        The rank's ``Trace``, complete when the block has ended. It can be returned from a rank.

    Raises:
        RuntimeError: There is no process group yet, or a trace is running already in this rank.
    """
    if not dist.is_initialized():
        raise RuntimeError("trace needs a process group: with process_group(), trace() as mine:")
    if hasattr(dist.send, "traced"):
        raise RuntimeError("a trace is running already in this rank: end that one first")
    record = Trace(dist.get_rank(), dist.get_world_size(), time.monotonic())
    spaces = [sys._getframe(2).f_globals, names or {}]
    depth = threading.local()
    with ExitStack() as stack:
        for name in _OPERATIONS:
            original = getattr(distributed_c10d, name, None)
            if original is None:
                continue
            traced = _traced(original, record, depth)
            stack.enter_context(patch.object(distributed_c10d, name, traced))
            stack.enter_context(patch.object(dist, name, traced))
            for space in spaces:
                own = {key: traced for key, value in space.items() if value is original}
                stack.enter_context(patch.dict(space, own))
        record.begin = time.monotonic()
        try:
            yield record
        finally:
            record.end = time.monotonic()


def _traced(
    original: Callable[..., Any], record: Trace, depth: threading.local
) -> Callable[..., Any]:
    signature = inspect.signature(original)
    name = original.__name__

    @functools.wraps(original)
    def wrapper(*args, **kwargs):  # a name that places skip: "still in send", not "in traced"
        inside: list[Operation] = getattr(depth, "inside", [])
        if inside:  # part of another operation
            if not _OPERATIONS[inside[0].name]:  # of objects: their sizes, then their bytes
                payload = signature.bind(*args, **kwargs).arguments.get(_OPERATIONS[name])
                inside[0].nbytes += _bytes(payload)
            return original(*args, **kwargs)
        operation = _begun(name, signature, args, kwargs, record.rank)
        record.operations.append(operation)
        depth.inside = [operation]
        try:
            result = original(*args, **kwargs)
        finally:
            operation.returned = time.monotonic()
            depth.inside = []
        if isinstance(result, dist.Work | torch.Future):
            return _Handle(result, operation)
        operation.end = operation.returned
        if operation.receives and isinstance(result, int):
            operation.peer = result  # of a recv from anyone: who it was
        return result

    wrapper.traced = original
    return wrapper


def _begun(name, signature, args, kwargs, rank: int) -> Operation:
    given = signature.bind(*args, **kwargs).arguments
    group = given.get("group")
    peer = given.get("dst", given.get("src"))
    within = given.get("group_dst", given.get("group_src"))
    if within is not None:
        peer = dist.get_global_rank(group or dist.group.WORLD, within)
    elif peer is None and ("dst" in signature.parameters or "src" in signature.parameters):
        peer = None if name in ("recv", "irecv", "recv_object_list") else 0
    payload = given.get(_OPERATIONS[name])
    if name == "scatter" and payload is None:
        payload = given["tensor"]
    members = tuple(dist.get_process_group_ranks(group))
    return Operation(
        name=name,
        rank=rank,
        peer=peer,
        group=members,
        nbytes=_bytes(payload),
        tag=given.get("tag", 0),
        begin=time.monotonic(),
        frame=_readers_frame(),
    )


def _bytes(payload: Any) -> int:
    tensors = payload if isinstance(payload, list | tuple) else [payload]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))


def _readers_frame() -> Frame | None:
    frame = sys._getframe(3)
    while frame is not None:
        here = Frame(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        if here.is_the_readers:
            return here
        frame = frame.f_back
    return None


class _Handle:
    """A work handle that notes when it is waited for; otherwise the handle itself."""

    def __init__(self, work: Any, operation: Operation) -> None:
        self._work = work
        self._operation = operation

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        first = self._operation.waited is None
        begin = time.monotonic()
        result = self._work.wait(*args, **kwargs)
        if first:
            self._operation.waited = begin
            self._operation.end = time.monotonic()
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)
