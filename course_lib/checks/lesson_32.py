"""Questions for the exercises of lesson 32: a mean over all tokens, batches of bounded size."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from course_lib.checks._alike import names_of, same_calls_everywhere
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._gradients import instead, near
from course_lib.checks._one_sum import SPARE, Answered, answered
from course_lib.checks._patterns import WHO_IS_DONE
from course_lib.checks._plans import plain
from course_lib.checks._token_batches import (
    TEXTS,
    TOO_LONG,
    Texts,
    broken_promise,
    fullness,
    missed_goal,
    odd_form,
    slowest,
    why_no_shuffle,
)
from course_lib.checks._token_losses import (
    NUMBERS,
    ROUNDS,
    Case,
    exact,
    gradient_of,
    kept_too_long,
    which_mistake,
    wrapped,
)
from course_lib.group import process_group
from course_lib.tracing import trace

_EPOCHS = (0, 1, 2)


class _Step(NamedTuple):
    """What a rank has after a step.

    Attributes:
        loss: What was returned.
        gradient: In one row, or what is wrong with it.
        changed: What must not change and has, or ``""``.
        kept: Whether more than one micro-batch was kept for backward.
    """

    loss: Any
    gradient: torch.Tensor | str
    changed: str
    kept: bool


@exercise("32.1 · A loss averaged over tokens")
def token_step(ask: Ask, answer) -> None:
    """``answer(model, micro_batches) -> float``: exact, and gradients are sent once."""
    hint = "all ranks make the same calls, also one without a token that counts; and every rank "
    hint += f"goes backward through its last micro-batch ({NUMBERS} numbers are the gradients)"
    for cases in ROUNDS:
        n = len(cases[0].ranks)
        answers = ask.run(_stepped, answer, cases, nprocs=n, hint=hint + WHO_IS_DONE)
        for case, ranks in zip(cases, zip(*answers, strict=True), strict=True):
            says = f"{_ranks(n)}, {case.says}"
            for call in (call for one in ranks for call in one.record.operations):
                if call.end is None:
                    wait = f"nobody waits for the {call.name}: keep its handle, call wait() on it"
                    ask.that(False, f"{says}: every handle is waited for", wait)
            _exact_step(ask, says, case, [one.got for one in ranks])
            if n > 1:
                for rank, one in enumerate(ranks):
                    _sent_once(ask, says, rank, one)
            print(f"✓ {says}: loss {exact(case)[0]:.6f} and its gradient, as in one process")
    print("✓ gradients are sent once, and beside them a count and a loss")


def _exact_step(ask: Ask, says: str, case: Case, steps: Sequence[_Step]) -> None:
    """Gradients and losses are those of one process; silent if so."""
    right, everyone = exact(case), range(len(steps))
    for rank, step in enumerate(steps):
        if step.changed:
            ask.that(False, f"{says}: only .grad changes", f"rank {rank}: {step.changed}")
        if isinstance(step.gradient, str):
            ask.that(False, f"{says}: all have the gradient", f"rank {rank}: {step.gradient}")
    off = [r for r in everyone if not near(steps[r].gradient.double(), right[1:], 1e-6)]
    if off:
        hint = which_mistake(case, [step.gradient for step in steps], of_loss=False)
        ask.that(False, f"{says}: all have the gradient of one process", f"rank {off[0]}: {hint}")
    for rank, step in enumerate(steps):
        if not isinstance(step.loss, float):
            hint = f"return a plain float, on every rank (rank {rank}: {step.loss!r:.50})"
            ask.that(False, f"{says}: all return the loss", hint)
    losses = [torch.tensor([step.loss], dtype=torch.float64) for step in steps]
    off = [r for r in everyone if not near(losses[r], right[:1], 1e-6)]
    if off:
        hint = which_mistake(case, losses, of_loss=True)
        hint = f"rank {off[0]} has {steps[off[0]].loss:.6f}: {hint}"
        ask.that(False, f"{says}: all return the loss, {right[0]:.6f}", hint)
    kept = [r for r in everyone if steps[r].kept]
    if kept:
        hint = f"rank {kept[0]}: go backward through each before the next goes forward"
        ask.that(False, f"{says}: one micro-batch at a time is kept for backward", hint)


def _sent_once(ask: Ask, says: str, rank: int, one: Answered) -> None:
    """Gradients once, and two small all_reduces at most; silent if so."""
    _, calls, record = one
    called = f"rank {rank} called {', '.join(map(str, calls)) or 'nothing'}"
    if others := {call.name for call in calls if not call.name.startswith("all_reduce")}:
        hint = f"{', '.join(sorted(others))}: {instead(others)}"
        ask.that(False, f"{says}: nothing but all_reduces ({called})", hint)
    if record.sent or record.received:
        hint = "no message has to be sent: all_reduce tells each rank the sum"
        ask.that(False, f"{says}: nothing but all_reduces ({called})", hint)
    times = sum(call.numbers == NUMBERS for call in calls)
    small = [call for call in calls if call.numbers != NUMBERS]
    if times != 1:
        hint = "with model.no_sync() around forward *and* backward of all micro-batches but the "
        hint += "last; there DDP sends the sum of all"
        ask.that(False, f"{says}: gradients are sent once, not {times} times", hint)
    if len(small) > 2 or any(call.numbers > 2 + SPARE for call in small):
        hint = "one all_reduce for the count of all micro-batches together, and one for the loss"
        ask.that(False, f"{says}: two small all_reduces at most ({called})", hint)


def _stepped(answer, cases: Sequence[Case]) -> list[Answered]:
    with process_group() as pg:
        results = []
        for case in cases:
            model, given = wrapped(), case.given(pg.rank)
            before = [parameter.detach().clone() for parameter in model.parameters()]
            one = answered(answer, model, given, case=case.says)
            changed = ""
            if not all(map(torch.equal, before, model.parameters())):
                changed = "the weights have changed: leave the gradient in .grad, no more"
            if _numbers(given) != _numbers(case.given(pg.rank)):
                changed = "inputs or targets have changed: work on copies"
            kept = kept_too_long(model.module.seen, case.given(pg.rank))
            step = _Step(one.got, gradient_of(model), changed, kept)
            results.append(one._replace(got=step))
            dist.barrier()
        return results


def _numbers(micro_batches: Sequence[Any]) -> list[Any]:
    return [[tensor.tolist() for tensor in batch] for batch in micro_batches]


def _ranks(n: int) -> str:
    return "1 rank" if n == 1 else f"{n} ranks"


class _Dealt(NamedTuple):
    """What one rank made of one question.

    Attributes:
        plans: Of several epochs, and of the first one again.
        problem: With what was given or with the global dice, or ``""``.
        called: Names of what it called.
    """

    plans: list[Any]
    problem: tuple[str, str]
    called: list[str]


@exercise("32.2 · Batches of a bounded number of tokens")
def token_batches(ask: Ask, answer) -> None:
    """``answer(lengths, room, world_size, epoch) -> plan[step][rank]``: lists of texts."""
    hint = "there may be fewer texts than ranks, and none at all"
    for n in (1, 2, 3):
        answers = ask.run(_dealt, answer, nprocs=n, hint=hint + WHO_IS_DONE)
        for texts, ranks in zip(TEXTS, zip(*answers, strict=True), strict=False):
            case = f"{_ranks(n)}, {texts.says}"
            _alike(ask, case, ranks)
            for plan in ranks[0].plans:
                if form := odd_form(plan, n):
                    ask.that(False, f"{case}: plan[step][rank] lists texts", form)
                _unless(ask, case, broken_promise(plan, texts))
            if texts.many:
                plan, *_ = plans = ranks[0].plans[:-1]
                _unless(ask, case, missed_goal(plan, texts))
                _unless(ask, case, why_no_shuffle(plans, ranks[0].plans[-1], texts))
                case += f" in {len(plan)} steps: {fullness(plan, texts):.0%} of the room holds "
                case += f"tokens, the slowest rank is {slowest(plan, texts):.1%} above the mean"
                print(f"✓ {case}")
        print(f"✓ {_ranks(n)}, {', '.join(texts.says for texts in TEXTS if not texts.many)}")
        for *_, refused in answers:
            says = f"{_ranks(n)}, {TOO_LONG.says}: ValueError"
            if not refused:
                ask.that(False, says, "it fits into no batch: say so before anything is dealt")
    print("✓ every text once, no batch too large, alike on all ranks, another order each epoch")


def _unless(ask: Ask, case: str, wrong: tuple[str, str]) -> None:
    says, hint = wrong
    if says:
        ask.that(False, f"{case}: {says}", hint)


def _alike(ask: Ask, case: str, ranks: Sequence[_Dealt]) -> None:
    """All ranks have one plan, and have not talked about it; silent if so."""
    for rank, one in enumerate(ranks):
        _unless(ask, case, one.problem)
        if one.called:
            hint = f"rank {rank} called {one.called[0]}: all have the same lengths and the same "
            ask.that(False, f"{case}: nothing is sent", hint + "epoch, and so the same plan")
    for rank, one in enumerate(ranks):
        if one.plans != ranks[0].plans:
            hint = f"rank {rank} has another one than rank 0: draw from a generator of your own, "
            ask.that(False, f"{case}: all ranks have the same plan", hint + "seeded by the epoch")


def _dealt(answer) -> list[Any]:
    with process_group() as pg:
        names, results = names_of(answer), []
        torch.manual_seed(pg.rank)  # ranks roll dice of their own in training: dropout
        random.seed(pg.rank)
        for texts in TEXTS:
            results.append(_plans(answer, texts, pg.world_size, names))
        try:
            answer(torch.tensor(TOO_LONG.lengths), TOO_LONG.room, pg.world_size, 0)
            results.append(False)
        except ValueError:
            results.append(True)
        dist.barrier()
        return results


def _plans(answer, texts: Texts, ranks: int, names: dict[str, Any]) -> _Dealt:
    plans, problem = [], ("", "")
    lengths = torch.tensor(texts.lengths, dtype=torch.int64)
    with same_calls_everywhere(names, texts.says), trace(names) as record:
        for epoch in (*_EPOCHS, 0):
            state, given = torch.get_rng_state(), lengths.clone()
            plans.append(plain(answer(given, texts.room, ranks, epoch)))
            if not torch.equal(given, lengths):
                problem = "lengths stay as they are", "work on a copy"
            if not torch.equal(torch.get_rng_state(), state):
                hint = "that generator is for dropout, with other dice on each rank: "
                hint += "torch.Generator().manual_seed(epoch) makes one of your own"
                problem = "torch's global generator stays as it is", hint
                torch.set_rng_state(state)
    return _Dealt(plans, problem, [operation.name for operation in record.operations])
