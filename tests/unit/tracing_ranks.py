"""What the ranks of the tracing tests do. Each function returns its rank's trace."""

import pickle
import time

import torch
import torch.distributed as dist
from torch.distributed import all_reduce as reduce_all

from course_lib import process_group
from course_lib.tracing import trace


def ring(n):
    """Pass n float32 numbers around; rank 0 comes late."""
    with process_group() as pg:
        dist.barrier()
        with trace() as mine:
            if pg.rank == 0:
                time.sleep(0.2)
            to, source = (pg.rank + 1) % pg.world_size, (pg.rank - 1) % pg.world_size
            out, into = torch.full((n,), float(pg.rank)), torch.empty(n)
            for _ in range(pg.world_size - 1):
                work = dist.isend(out, to)
                dist.recv(into, source)
                work.wait()
                out = into.clone()
    return mine, out


def every_operation():
    """Each operation once, with results to compare with those without a trace."""
    with process_group() as pg:
        plain = _every_operation(pg)
        with trace() as mine:
            traced = _every_operation(pg)
        again = dist.all_reduce is dist.distributed_c10d.all_reduce
        restored = again and not hasattr(dist.all_reduce, "traced")
    return mine, all(map(torch.equal, plain, traced)), restored


def _every_operation(pg):
    n, r = pg.world_size, pg.rank
    x = torch.arange(n * 2, dtype=torch.float32) + r
    y, out = torch.empty(2), []
    for name in ("broadcast", "all_reduce"):
        out.append(x.clone())
        getattr(dist, name)(out[-1], **({"src": 1} if name == "broadcast" else {}))
    out.append(x.clone())
    dist.reduce(out[-1], dst=1)
    parts = [torch.empty(2 * n) for _ in range(n)]
    dist.all_gather(parts, x)
    dist.gather(x, parts if r == 1 else None, dst=1)
    whole = torch.empty(2 * n * n)
    dist.all_gather_into_tensor(whole, x)
    dist.scatter(y, list(x.chunk(n)) if r == 0 else None, src=0)
    out += [*parts, whole, y.clone()]
    dist.reduce_scatter(y, list(x.chunk(n)))
    out.append(y.clone())
    dist.reduce_scatter_tensor(y, x)
    out.append(y.clone())
    many = [torch.empty(2) for _ in range(n)]
    dist.all_to_all(many, list(x.chunk(n)))
    dist.all_to_all_single(z := torch.empty(2 * n), x)
    dist.barrier()
    dist.monitored_barrier()
    objects = [None] * n
    dist.all_gather_object(objects, {"rank": r})
    dist.broadcast_object_list(words := [f"from {r}"], src=0)
    assert objects == [{"rank": i} for i in range(n)]
    assert words == ["from 0"]
    ops = [dist.P2POp(dist.isend, x, (r + 1) % n), dist.P2POp(dist.irecv, q := x * 0, (r - 1) % n)]
    for work in dist.batch_isend_irecv(ops):
        work.wait()
    reduce_all(w := x.clone())
    return [*out, *many, z, q, w]


def groups_and_anyone():
    """A sub-group, a root given by its group rank, and a receive from anyone."""
    with process_group() as pg:
        pair = dist.new_group([1, 2])
        x = torch.ones(4, dtype=torch.float64)
        with trace() as mine:
            if pg.rank in (1, 2):
                dist.broadcast(x, group_src=1, group=pair)
            if pg.rank == 2:
                dist.send(x, 0, tag=7)
            if pg.rank == 0:
                assert dist.recv(x, tag=7) == 2
    return mine


def nobody_waits():
    """An asynchronous all_reduce that nobody waits for."""
    with process_group() as pg:
        with trace() as mine:
            work = dist.all_reduce(torch.ones(3, device=pg.device), async_op=True)
        before = pickle.dumps(mine)
        work.wait()
    return pickle.loads(before), mine


def fails():
    """An operation that raises is in the trace, and the error is the operation's own."""
    with process_group() as pg, trace() as mine:
        try:
            dist.send(torch.ones(1), dst=pg.rank)
        except ValueError as error:
            message = str(error)
    return mine, message


def traced_twice():
    """A second trace inside the first."""
    with process_group(), trace(), trace():
        pass


def everybody_speaks_first():
    """A deadlock inside a trace."""
    with process_group() as pg, trace():
        dist.send(torch.zeros(1), 1 - pg.rank)
