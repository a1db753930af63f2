"""Questions for the exercises of lesson 05: which ranks met, and in which order of time."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from course_lib._operations import Trace
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._groups import same_groups_everywhere
from course_lib.checks._patterns import WHO_IS_DONE, same_tensor, traced
from course_lib.checks._saving import FULL, SaveAndLoad
from course_lib.group import process_group

_GRIDS = ((2, 1), (1, 3), (2, 2), (3, 2))  # rows, columns; the last one tells them apart


@exercise("5.1 · Along the row, down the column")
def grid_sums(ask: Ask, answer) -> None:
    """``answer(numbers, rows, columns) -> (row sum, column sum)``: two collectives a rank."""
    hint = "all ranks call new_group for every group, also for those of the others, in one order"
    for rows, columns in _GRIDS:
        n = rows * columns
        got = ask.run(_in_a_grid, answer, rows, columns, nprocs=n, hint=hint + WHO_IS_DONE)
        case = f"{n} ranks in {rows} row{'s' * (rows > 1)} of {columns}"
        for rank, (sums, unchanged, record) in enumerate(got):
            row, column = _row_and_column(rank, rows, columns)
            _two_sums(ask, sums, rank, (row, column), n, case)
            if not unchanged:
                ask.that(False, f"{case}: numbers is as before", "sum up copies: numbers.clone()")
            _two_collectives(ask, record, (row, column), case)
        print(f"✓ {case}: each has the sum of its row and that of its column")
    print("✓ one collective a rank in its row, one in its column")


def _in_a_grid(answer, rows: int, columns: int):
    with process_group() as pg, same_groups_everywhere(answer):
        numbers = _numbers([pg.rank])
        sums, record = traced(answer, numbers, rows, columns)
        dist.barrier()
        return sums, same_tensor(numbers, _numbers([pg.rank])), record


def _numbers(ranks: list[int]) -> torch.Tensor:
    """Their sum. Each rank has a decimal place of its own, so a sum tells its summands."""
    return sum(torch.tensor([10**rank, 2 * 10**rank]) for rank in ranks)


def _row_and_column(rank: int, rows: int, columns: int) -> tuple[list[int], list[int]]:
    row, column = divmod(rank, columns)
    return [row * columns + c for c in range(columns)], [r * columns + column for r in range(rows)]


def _two_sums(ask: Ask, sums, rank: int, members: tuple, n: int, case: str) -> None:
    says = f"{case}: each has the sum of its row and that of its column"
    if not (isinstance(sums, tuple | list) and len(sums) == 2):
        ask.that(False, says, f"return a pair: (row sum, column sum) (rank {rank}: {sums!r:.60})")
    expected = [_numbers(ranks) for ranks in members]
    right = [same_tensor(s, e) for s, e in zip(sums, expected, strict=True)]
    if all(right):
        return
    if all(same_tensor(s, e) for s, e in zip(sums, expected[::-1], strict=True)):
        ask.that(False, says, f"on rank {rank} the two are exchanged: the row sum comes first")
    which = right.index(False)
    name, wrong = ("row", "column")[which], sums[which]
    hint = f"its {name} sum is no tensor of int64 with 2 numbers, as numbers is: {wrong!r:.60}"
    if isinstance(wrong, torch.Tensor) and (wrong.shape, wrong.dtype) == ((2,), torch.int64):
        found = [r for r in range(n) if int(wrong[0]) // 10**r % 10]
        hint = f"its {name} is ranks {members[which]}, and in the sum are those of ranks {found}"
        if same_tensor(wrong, sum(_numbers([r]) for r in range(n))) and n > len(members[which]):
            hint = f"its {name} sum is the sum of all ranks: each sum begins with a copy of numbers"
    ask.that(False, says, f"rank {rank}: {hint}")


def _two_collectives(ask: Ask, record: Trace, members: tuple, case: str) -> None:
    met = sorted([*o.group] for o in record.collectives)
    needed = sorted(members)
    fewer = [group for group in needed if len(group) > 1]  # a rank alone need not call any
    if record.sent or record.received:
        hint = "groups of their own save the ranks from sending messages one by one"
        ask.that(False, f"{case}: collectives only", hint)
    if met not in (needed, fewer):
        calls = ", ".join(f"{o.name} among {[*o.group]}" for o in record.collectives) or "nothing"
        says = f"{case}: two collectives a rank, one in its row, one in its column"
        row, column = members
        hint = f"rank {record.rank} is in row {row} and in column {column}; it called {calls}"
        ask.that(False, says, hint)


@exercise("5.2 · Find the missing wait")
def average_both(ask: Ask, answer) -> None:
    """``answer(first, second, prepare) -> (average, average, batch)``, prepared meanwhile."""
    for n in (2, 3, 4):
        got = ask.run(_averaged, answer, nprocs=n, hint="all ranks make the same calls")
        for rank, (found, prepared, record) in enumerate(got):
            if len(prepared) != 1:
                says = f"{n} ranks: prepare() is called once (rank {rank}: {len(prepared)} times)"
                ask.that(False, says, "it makes the batch that is returned")
            _all_waited_for(ask, record, n)
            hints = [hint for hint in found if hint]
            says = f"{n} ranks: both averages are right, and the batch is there"
            if hints:
                ask.that(False, says, f"rank {rank}: {hints[0]}")
            _meanwhile(ask, record, *prepared[0], n)
        print(f"✓ {n} ranks: both averages are right, and the batch is there")
        print(f"✓ {n} ranks: both are on their way before prepare(), and waited for after it")


def _averaged(answer):
    with process_group() as pg:
        firsts = torch.arange(300_000.0) % 97, (torch.arange(6.0) + 1).reshape(2, 3)
        mine = [numbers * (pg.rank + 1) for numbers in firsts]
        prepared = []

        def prepare():
            begin = time.monotonic()
            time.sleep(0.01)
            prepared.append((begin, time.monotonic()))
            return f"batch of rank {pg.rank}"

        dist.barrier()
        # One rank is late: until it comes, the others have nothing but their own numbers.
        time.sleep(0.1 if pg.rank == pg.world_size - 1 else 0)
        got, record = traced(answer, *mine, prepare)
        found = _judged(got, firsts, pg.rank, pg.world_size)
        dist.barrier()
        return found, prepared, record


def _judged(got: Any, firsts: tuple, rank: int, ranks: int) -> list[str]:
    """On the rank itself, at once: what is wrong with each of the three results, or ``""``."""
    if not (isinstance(got, tuple | list) and len(got) == 3):
        return [f"return three things: both averages and the batch (got {type(got).__name__})"]
    found = []
    for name, average, numbers in zip(("first", "second"), got, firsts, strict=False):
        wrong = {  # the most likely ones first
            "that is the sum: divide by the number of ranks": ranks * (ranks + 1) / 2,
            "that is its own: read it after wait()": rank + 1.0,
            "that is its own, divided: divide after wait()": (rank + 1.0) / ranks,
            "it is divided twice": (ranks + 1) / 2 / ranks,
        }
        if getattr(average, "shape", None) != numbers.shape or average.dtype != numbers.dtype:
            found.append(f"the average of the {name} is of another shape or type than it")
        elif torch.allclose(average, numbers * (ranks + 1) / 2):
            found.append("")
        else:
            same = (w for w, x in wrong.items() if torch.allclose(average, numbers * x))
            why = next(same, "divide after wait(), not before")
            found.append(f"the average of the {name} is wrong: {why}")
    return [
        *found,
        "" if got[2] == f"batch of rank {rank}" else "the batch is not what prepare() gave",
    ]


def _all_waited_for(ask: Ask, record: Trace, n: int) -> None:
    names = {o.name for o in record.operations}
    if not names or names - {"all_reduce", "all_reduce_coalesced"}:
        called = ", ".join(sorted(names)) or "nothing"
        ask.that(False, f"{n} ranks: all_reduce, and nothing else", f"called was {called}")
    for o in record.operations:
        if o.end is None:
            at = f" at {o.where}" if o.where else ""
            hint = f"nobody waits for the {o.name}{at}: keep its handle, and call wait() on it"
            ask.that(False, f"{n} ranks: every handle is waited for", hint)


def _meanwhile(ask: Ask, record: Trace, begin: float, end: float, n: int) -> None:
    says = f"{n} ranks: both are on their way before prepare(), and waited for after it"
    for o in record.operations:
        at = f" (the {o.name} at {o.where})" if o.where else ""
        if o.waited is None:
            ask.that(False, says, f"async_op=True lets a call return at once{at}")
        if o.begin > begin:
            ask.that(False, says, f"offer both before you call prepare(){at}")
        if o.waited < end:
            ask.that(False, says, f"it waits before prepare() is done: wait afterwards{at}")


@exercise("5.3 · Save once")
def save_once(ask: Ask, answer) -> None:
    """``answer(save, load) -> what load returned``; if save fails, an error on every rank."""
    hint = "rank 0 has to come to the meeting point also when save has failed" + WHO_IS_DONE
    for n in (2, 3, 4):
        with tempfile.TemporaryDirectory() as folder:
            calls = [*zip(*ask.run(_saved, answer, folder, nprocs=n, hint=hint), strict=True)]
        for ranks, text in zip(calls, ("one", None, "two"), strict=True):
            (_failed if text is None else _loaded)(ask, ranks, text, f"{n} ranks")
        print(f"✓ {n} ranks: rank 0 saves, all load what it saved, none too early")
        print(f"✓ {n} ranks: nobody goes on before all have loaded")
        print(f"✓ {n} ranks: if saving fails, each raises an error that says why; then all goes on")


def _saved(answer, folder: str):
    with process_group() as pg:
        apart = dist.new_group()  # the check's own meeting point, out of the answer's way
        results = []
        for text in ("one", None, "two"):
            call = SaveAndLoad(Path(folder, "state.txt"), text, late=pg.rank == pg.world_size - 1)
            call.run(answer)
            results.append((call.got, call.error, call.saves, call.loads, call.returned))
            dist.barrier(group=apart)
        return results


def _loaded(ask: Ask, ranks: tuple, text: str, case: str) -> None:
    says = f"{case}: rank 0 saves, all load what it saved, none too early"
    saved = [len(saves) for _, _, saves, _, _ in ranks]
    if saved != [1] + [0] * (len(ranks) - 1):
        ask.that(False, says, f"save is called once, on rank 0 only (calls by rank: {saved})")
    done = ranks[0][2][0][1]
    for rank, (got, _, _, loads, _) in enumerate(ranks):
        if len(loads) != 1:
            ask.that(False, says, f"rank {rank} called load {len(loads)} times, not once")
        if loads[0][0] < done:
            hint = f"rank {rank} began to load before rank 0 had saved: it has to wait for that"
            ask.that(False, says, hint)
        if got != text:
            ask.that(False, says, f"rank {rank} returns {got!r:.60}, not what load returned")
    last = max(range(len(ranks)), key=lambda r: ranks[r][3][0][1])
    for rank, (*_, returned) in enumerate(ranks):
        if returned < ranks[last][3][0][1]:
            hint = f"rank {rank} went on while rank {last} was still loading: rank 0 may overwrite"
            ask.that(False, f"{case}: nobody goes on before all have loaded", f"{hint} the file")


def _failed(ask: Ask, ranks: tuple, _text: None, case: str) -> None:
    says = f"{case}: if saving fails, each raises an error that says why"
    for rank, (got, error, saves, loads, _) in enumerate(ranks):
        if loads:
            ask.that(False, says, f"rank {rank} loads although nothing was saved")
        if error is None:
            ask.that(False, says, f"rank {rank} raises nothing (it returned {got!r:.40})")
        if FULL not in error:
            hint = f"the error of rank {rank} does not contain {FULL!r}: it says {error!r:.70}"
            ask.that(False, says, hint)
        if len(saves) != (rank == 0):
            ask.that(False, says, f"rank {rank} called save {len(saves)} times")
