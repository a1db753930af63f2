"""What ``course_lib.trace`` costs: the same operations with and without it, in the same ranks.

The smallest operations there are, so that the wrapper's own work stands out: on anything larger
it is the same number of microseconds, and a smaller share. There is no bar: a reader who traces
wants the record, and should know its price.
"""

import inspect
import json
from statistics import median

from .processes import Kernel

NAMES = ("all_reduce, 4 bytes", "send or recv, 4 bytes")  # as time_operations has them
REPEATS, TURNS = 300, 5  # operations in one go; goes of each kind, in turn with the other


def time_operations(repeats, turns):
    """What each rank does: time small operations, now plain, now traced, ``turns`` times each.

    Returns:
        Operation → ``[plain, traced]``, each a list with the seconds an operation took in each
        turn, on this rank.
    """
    import contextlib
    import time

    import torch
    import torch.distributed as dist

    from course_lib import process_group, trace

    number = torch.zeros(1)

    def all_reduce(rank):
        for _ in range(repeats):
            dist.all_reduce(number)

    def ping_pong(rank):  # between ranks 0 and 1; the others look on
        for _ in range(repeats // 2 if rank < 2 else 0):
            for sender in (0, 1):
                if rank == sender:
                    dist.send(number, 1 - rank)
                else:
                    dist.recv(number, 1 - rank)

    def seconds(work, rank, wrapped):
        dist.barrier()
        with wrapped():
            begin = time.perf_counter()
            work(rank)
            return (time.perf_counter() - begin) / repeats

    with process_group() as pg:
        works = {"all_reduce, 4 bytes": all_reduce, "send or recv, 4 bytes": ping_pong}
        ways = (contextlib.nullcontext, trace)
        for work in works.values():  # connections are made at the first message
            seconds(work, pg.rank, contextlib.nullcontext)
        turned = {
            name: [[seconds(work, pg.rank, way) for way in ways] for _ in range(turns)]
            for name, work in works.items()
        }
    return {name: [list(way) for way in zip(*pairs, strict=True)] for name, pairs in turned.items()}


def prepare(kernel: Kernel) -> None:
    """Define in a kernel what the ranks do."""
    kernel.run("import json\nfrom course_lib import launch\n" + inspect.getsource(time_operations))


def measure(
    kernel: Kernel, nprocs: int, repeats: int = REPEATS, turns: int = TURNS
) -> dict[str, tuple[float, float]]:
    """Run it under ``launch``, in a kernel made ready by ``prepare``.

    Returns:
        Operation → seconds of one operation, plain and traced: the medians of the turns, on rank 0.
        Nothing for a single rank, which has nobody to send to.
    """
    if nprocs < 2:
        return {}
    call = f"launch(time_operations, {repeats}, {turns}, nprocs={nprocs}, device='cpu')[0]"
    said = kernel.run(f"print(json.dumps({call}))").splitlines()
    found = json.loads(said[-1])
    return {name: (median(plain), median(traced)) for name, (plain, traced) in found.items()}
