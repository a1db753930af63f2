"""Join the process group the launcher prepared; know your rank and device; leave.

One rule decides the backend everywhere: NCCL and ``cuda:LOCAL_RANK`` when this node has a GPU for
each of its ranks, otherwise Gloo on the CPU. (NCCL refuses two ranks on one GPU.) The launcher's
wishes arrive through the environment, as torchrun's do, so the same function runs under both.
Lesson 01 writes out by hand what ``process_group`` does.
"""

import atexit
import contextvars
import gc
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from course_lib import reporting

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

DEVICES = ("auto", "cpu", "cuda")
_joined = itertools.count()  # groups this process has joined so far


@dataclass(frozen=True)
class ProcessGroup:
    """What a rank knows about itself.

    Attributes:
        rank: This process's number, 0 to ``world_size - 1``.
        world_size: How many processes take part.
        local_rank: The number among the processes of this machine; the number of its GPU.
        device: Where this rank's tensors belong.
        backend: ``"nccl"`` or ``"gloo"``.
    """

    rank: int
    world_size: int
    local_rank: int
    device: "torch.device"
    backend: str


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads() -> int:
    """Give this rank its share of the cores: cores ÷ local ranks, at least 1.

    ``COURSE_THREADS`` (what ``launch(threads=…)`` sets) overrides the rule. Every launcher's ranks
    come through here, because sums of another number of threads differ in the last bit.

    Returns:
        The number of threads torch now computes with.

    Raises:
        ValueError: ``COURSE_THREADS`` is no whole number from 1.
    """
    import torch

    share = max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    wish = os.environ.get("COURSE_THREADS") or str(share)
    if not wish.isdecimal() or int(wish) < 1:
        raise ValueError(f"COURSE_THREADS={wish!r}: a whole number from 1 is needed")
    threads = int(wish)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return threads


def choose_device() -> tuple["torch.device", str]:
    """Apply the rule of this module to the present environment.

    Returns:
        The device and the name of the backend that serves it.

    Raises:
        ValueError: ``COURSE_DEVICE`` names no device, or asks for GPUs that are not there.
    """
    import torch

    wish = os.environ.get("COURSE_DEVICE") or "auto"
    if wish not in DEVICES:
        raise ValueError(f"COURSE_DEVICE={wish!r}: choose one of {', '.join(DEVICES)}")
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count() if wish != "cpu" and torch.cuda.is_available() else 0
    if wish == "cuda" and gpus < local_ranks:
        raise ValueError(
            f"device='cuda' with {local_ranks} ranks here needs {local_ranks} GPUs and finds "
            f"{gpus}: use fewer ranks, or device='auto' (Gloo on CPU)"
        )
    if gpus >= local_ranks:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), "nccl"
    return torch.device("cpu"), "gloo"


@contextmanager
def process_group(timeout: float = 600.0) -> Iterator[ProcessGroup]:
    """Join the default process group for the length of a ``with`` block.

    Reads RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun
    and ``launch`` set them. Without them (the function called plainly) it is a group of one.

    Args:
        timeout: Seconds a collective may wait for the other ranks before it raises. (Gloo's own
            default is 30 minutes.)

    Yields:
        The rank's ``ProcessGroup``.

    Raises:
        ValueError: The device asked for does not exist, or ``timeout`` is not positive.
        RuntimeError: A process group is open already in this process.
    """
    import torch
    import torch.distributed as dist

    if not timeout > 0:
        raise ValueError(f"timeout={timeout!r}: a positive number of seconds is needed")
    if dist.is_initialized():
        raise RuntimeError(
            "a process group is open already in this process: leave the outer "
            "`with process_group()` (or call dist.destroy_process_group()) first"
        )
    device, backend = choose_device()
    threads = set_threads()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    limit = timedelta(seconds=timeout)
    store, rank, world_size = _rendezvous()
    dist.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=limit,
    )
    # Nobody goes on before all are connected: a rank that left at once would look, to one still
    # connecting, as if it had crashed.
    if store.add("joined", 1) == world_size:
        store.set("all joined", "")
    store.wait(["all joined"], limit)
    group = ProcessGroup(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        device=device,
        backend=backend,
    )
    if group.rank == 0:
        reporting.notice(_describe(group, threads))
    try:
        yield group
    except BaseException:
        # Leaving cleanly would wait for work the other ranks may never finish. A rank that fails
        # ends, and the end of the process closes its connections.
        if group.world_size == 1:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
    atexit.unregister(_let_gloo_finish)  # one call is enough, however many groups there were
    atexit.register(_let_gloo_finish)


def _rendezvous() -> tuple["dist.Store", int, int]:
    """The store all ranks meet at, and this rank's place in it.

    Every group of a process gets a prefix of its own: a second group in the same store would
    find the addresses of the first, where nobody listens any more.
    """
    import torch.distributed as dist

    if "RANK" not in os.environ:
        return dist.HashStore(), 0, 1
    store, rank, world_size = next(dist.rendezvous("env://"))
    return dist.PrefixStore(f"process_group/{next(_joined)}", store), rank, world_size


def _let_gloo_finish(limit: float = 1.0) -> None:
    """Wait until Gloo's threads have let go of what the last backward pass sent.

    Every operation started within ``backward`` holds a copy of the Python context. A thread of
    Gloo's drops it a moment after the result is there, and needs the GIL for that. If the
    interpreter ends at this very moment, the process aborts ("terminate called without an active
    exception"). A DDP model that outlives the group keeps those threads alive until then.

    Args:
        limit: Seconds after which it goes on in any case: contexts of another origin look alike.
    """
    end = time.monotonic() + limit
    while time.monotonic() < end:
        contexts = sum(type(thing) is contextvars.Context for thing in gc.get_objects())
        if contexts <= 1:  # one is this thread's own
            return
        time.sleep(0.001)


def _describe(group: ProcessGroup, threads: int) -> str:
    ranks = f"{group.world_size} rank{'s' if group.world_size > 1 else ''}"
    if group.backend == "nccl":
        return f"process group: {ranks}, NCCL, one GPU each"
    return f"process group: {ranks}, Gloo on CPU, {threads} thread{'s' * (threads > 1)} each"
