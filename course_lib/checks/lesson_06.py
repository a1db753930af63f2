"""Questions for the exercises of lesson 06: the right gradients, and what was sent for them."""

import torch
import torch.distributed as dist
from torch import nn

from course_lib._operations import Trace
from course_lib.checks._alike import Call, names_of, same_calls_everywhere
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._gradients import CASES, NUMBERS, instead, near, parameters, what_is_wrong
from course_lib.checks._patterns import WHO_IS_DONE, traced
from course_lib.checks._steps import STEPS
from course_lib.checks._watched import Watched
from course_lib.group import process_group


@exercise("6.1 · One message for all gradients")
def average_gradients(ask: Ask, answer) -> None:
    """``answer(parameters) -> None``: averages in .grad, by one all_reduce of all numbers."""
    hint = "all ranks send one tensor of all numbers, zeros where a gradient is None; and every "
    hint += "piece of it gets its parameter's shape" + WHO_IS_DONE
    for n in (2, 3, 4):
        got = ask.run(_averaged, answer, nprocs=n, hint=hint)
        for case, ranks in zip(CASES, zip(*got, strict=True), strict=False):
            for rank, (problem, _, record) in enumerate(ranks):
                _waited_for(ask, record, n)
                says = f"{n} ranks: every gradient is the average, zeros for None"
                if problem:
                    ask.that(False, says, f"{case.says}; rank {rank}: {problem}")
            for _, calls, record in ranks:
                _one_all_reduce(ask, calls, record, NUMBERS, n)
                sent, enough = record.operations[0].nbytes, NUMBERS * case.dtype.itemsize
                if sent != enough:
                    hint = f"{sent} bytes were sent, and the gradients have {enough}: keep their "
                    ask.that(False, f"{n} ranks: no number grows or shrinks", hint + "dtype")
        print(f"✓ {n} ranks: every gradient is the average, zeros for None")
        print(f"✓ {n} ranks: one all_reduce, of as many numbers as there are parameters")


def _averaged(answer):
    with process_group() as pg:
        results = []
        for k in range(len(CASES)):
            everyone = [parameters(k, rank, pg.world_size) for rank in range(pg.world_size)]
            with same_calls_everywhere(names_of(answer), CASES[k].says, late=0) as calls:
                returned, record = traced(answer, [*everyone[pg.rank]])
            problem = what_is_wrong(k, everyone, pg.rank, returned)
            results.append((problem, calls, record))
            if _any(problem):
                break
        return results


def _any(problem: str) -> bool:
    """Whether some rank has a problem: then no rank goes on."""
    problems = [""] * dist.get_world_size()
    dist.all_gather_object(problems, problem)
    return any(problems)


def _waited_for(ask: Ask, record: Trace, n: int) -> None:
    for o in record.operations:
        if o.end is None:
            at = f" at {o.where}" if o.where else ""
            hint = f"nobody waits for the {o.name}{at}: keep its handle, and call wait() on it"
            ask.that(False, f"{n} ranks: every handle is waited for", hint)


def _one_all_reduce(ask: Ask, calls: list[Call], record: Trace, numbers: int, n: int) -> None:
    """One all_reduce of so many numbers, and nothing else; silent if so."""
    called = ", ".join(map(str, calls)) or "none"
    names = [o.name for o in record.operations]
    says = f"{n} ranks: one all_reduce of {numbers} number{'s' * (numbers > 1)} (got {called})"
    if record.sent or record.received:
        says = f"{n} ranks: one all_reduce, and nothing else"
        ask.that(False, says, "messages were sent, one by one: an all_reduce needs none of them")
    if others := {name for name in names if not name.startswith("all_reduce")}:
        ask.that(False, says, f"{', '.join(sorted(others))}: {instead(others)}")
    if not names:
        ask.that(
            False, says, "no call was seen: call dist.all_reduce, which tells each rank the sum"
        )
    if len(names) > 1:
        hint = "every call takes its time, however little it sends: put all that is to be added up "
        ask.that(False, says, hint + "into one tensor (torch.cat), and nothing more than is needed")
    if calls[0].numbers != numbers:
        ask.that(False, says, "send every number once, and no number that nobody needs")


_ROWS = {2: ((4, 1), (2, 2)), 3: ((4, 3, 3), (2, 0, 1)), 4: ((1, 2, 3, 4), (0, 5, 0, 1))}


@exercise("6.2 · The last batch is smaller")
def loss_for_ddp(ask: Ask, answer) -> None:
    """``answer(losses) -> tensor``: after backward, DDP has the gradients of the mean loss."""
    hint = "all ranks make the same calls, also one without rows" + WHO_IS_DONE
    for n, sizes in _ROWS.items():
        got = ask.run(_backward_of, answer, sizes, nprocs=n, hint=hint)
        for rows, ranks in zip(sizes, zip(*got, strict=True), strict=False):
            case = f"{n} ranks with {', '.join(map(str, rows[:-1]))} and {rows[-1]} rows"
            for rank, (problem, calls, record) in enumerate(ranks):
                _waited_for(ask, record, n)
                says = f"{case}: DDP's gradients are those of one process with all rows"
                if problem:
                    ask.that(False, says, f"rank {rank}: {problem}")
                _one_all_reduce(ask, calls, record, 1, n)
            print(f"✓ {case}: DDP's gradients are those of one process with all rows")
        print(f"✓ {n} ranks: one all_reduce of a single number")


def _backward_of(answer, sizes: tuple):
    with process_group() as pg:
        ddp, results = nn.parallel.DistributedDataParallel(_model()), []
        for rows in sizes:
            ddp.zero_grad()
            inputs = torch.rand(sum(rows), 3, generator=torch.Generator().manual_seed(sum(rows)))
            losses = _losses(ddp, inputs.split(rows)[pg.rank])
            case = f"ranks with {rows} rows"
            with same_calls_everywhere(names_of(answer), case, late=0) as calls:
                loss, record = traced(answer, losses)
            problem = _no_loss(loss, losses)
            if _any(problem):  # some rank cannot go on, and the others would wait for it
                results.append((problem, calls, record))
                break
            (share,) = torch.autograd.grad(loss.sum(), losses, retain_graph=True)
            behind = not torch.allclose(loss.sum().double(), (share * losses).sum().double())
            loss.backward()
            problem = _unlike_one(ddp.module, inputs, share, rows, behind)
            results.append((problem, calls, record))
        return results


def _model() -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 1))


def _losses(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """One a row: squared errors, all of one sign, so that gradients do not cancel."""
    return (model(inputs).squeeze(1) + inputs.sum(1) + 9).square()


def _no_loss(loss, losses: torch.Tensor) -> str:
    """Why ``backward()`` cannot be called on what was returned, or makes no sense; or ``""``."""
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        return f"return a tensor with a single number, not {loss!r:.60}"
    none = "" if len(losses) else "; the sum of no rows is 0, and has a graph"
    detached = "no graph leads from what is returned to the losses: no item(), detach() or new "
    detached += "tensor on the way" + none
    if not loss.requires_grad:
        return detached
    found = torch.autograd.grad(loss.sum(), losses, retain_graph=True, allow_unused=True)
    if found[0] is None:
        return detached
    return "it is NaN: the mean of no rows is, their sum is 0" if loss.isnan() else ""


def _unlike_one(
    module: nn.Module, inputs: torch.Tensor, share: torch.Tensor, rows: tuple, behind: bool
) -> str:
    """What is wrong with DDP's gradients, if anything.

    Args:
        module: The model that has them.
        inputs: The rows of all ranks.
        share: How much each row of this rank counts in the loss.
        rows: How many there are on each rank.
        behind: Whether the number was changed, and its graph was not.
    """
    whole = _model()
    _losses(whole, inputs).mean().backward()
    got, expected = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (module, whole))
    if near(got, expected, 1e-6):
        return ""
    if behind:
        hint = "an all_reduce of the loss changes the number, and not its graph, which leads to "
        return hint + "this rank's losses only: send the number of rows instead"
    n, mine, total = len(rows), rows[dist.get_rank()], sum(rows)
    wrong = [
        (1 / total, "DDP divides by the number of ranks: multiply by it first"),
        (n**2 / total, "an average over ranks is divided already: multiply by their number once"),
        (1 / max(mine, 1), "that is the mean of this rank's rows: divide by those of all ranks"),
        (n / max(mine, 1), "divide by the rows of all ranks, not by this rank's"),
        (1, "divide by the number of rows, of all ranks"),
        (n, "divide by the number of rows, of all ranks; DDP divides by that of the ranks"),
    ]
    hints = (hint for each, hint in wrong if mine and near(share, share * 0 + each, 1e-4))
    right = f"{n}/{total} = {n / total:.3g}"
    return next(hints, f"every row has to count {right} in what is returned, on every rank")


@exercise("6.3 · MiniDDP that can wait")
def mini_ddp(ask: Ask, answer) -> None:
    """``answer(module, bucket_bytes)``: DDP's gradients, one all_reduce a bucket and step."""
    hint = "buckets leave in the order of their numbers on every rank, and finish sends the rest; "
    hint += "nothing leaves inside no_sync" + WHO_IS_DONE
    for n in (2, 3, 4):
        failed, problems = ask.run(_steps, answer, nprocs=n, hint=hint)[0]
        how = "to the last bit" if n != 3 else "up to rounding, 1e-6"
        lines = {
            "": "all begin with the weights of rank 0",
            STEPS[2].case: f"DDP's gradients, {how}; buckets leave in order, during backward",
            STEPS[4].case: "with micro-batches, too: one all_reduce a bucket, none inside no_sync",
            STEPS[5].case: "after an error inside no_sync, all is as before",
            STEPS[-1].case: "and when one rank has no use for a parameter, or nobody has",
        }
        for case in ("", *(step.case for step in STEPS)):
            if case == failed:
                rank = next(r for r, problem in enumerate(problems) if problem)
                says = f"{n} ranks, {case}" if case else f"{n} ranks: {lines['']}"
                ask.that(False, says, f"rank {rank}: {problems[rank]}")
            if case in lines:
                print(f"✓ {n} ranks: {lines[case]}")


def _steps(answer):
    """The first step that some rank has a problem with, and the problem of each."""
    with process_group() as pg:
        watched = Watched(answer, names_of(answer))
        gradients, problems = {}, [""] * pg.world_size
        own = watched.unlike_rank_0("it has weights of its own: broadcast those of rank 0")
        dist.all_gather_object(problems, own)
        if any(problems):
            return "", problems
        for number, step in enumerate(STEPS):
            problem, gradients = watched.step(step, number, gradients)
            dist.all_gather_object(problems, problem)
            if any(problems):
                return step.case, problems
        return None, problems
