"""A learner's data-parallel model at work: what is wrong with a step it takes, if anything.

What it sends is seen by ``trace``, and when, relative to the gradients, by hooks of its own: the
order decides, no clock does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from course_lib._operations import Trace
from course_lib.checks._alike import same_calls_everywhere
from course_lib.checks._gradients import about, instead, mistake, near, usual_mistakes
from course_lib.checks._steps import (
    ALL,
    BUCKET_BYTES,
    Branches,
    Gradients,
    Step,
    accumulate,
    backward,
    batches,
    inputs_of,
    of_ddp,
    of_one,
)
from course_lib.tracing import trace


class _Stopped(Exception):
    """What ends a ``no_sync`` early."""


class Watched:
    """An answer's model, and what is seen of it during backward.

    Args:
        answer: The learner's class.
        names: Its globals.
    """

    def __init__(self, answer: type, names: dict[str, Any]) -> None:
        self.names, self.record, self.problem = names, None, ""
        self.module = Branches(dist.get_rank())
        for parameter in self.module.parameters():  # before the answer's own hooks
            parameter.register_post_accumulate_grad_hook(self._before)
        with same_calls_everywhere(names, "MiniDDP(module)"):
            self.model = answer(self.module, bucket_bytes=BUCKET_BYTES)

    def step(self, step: Step, number: int, before: Gradients) -> tuple[str, Gradients]:
        """Take a step.

        Args:
            step: Which one.
            number: Its number, the seed of its inputs.
            before: What the step before this one came to, by name.

        Returns:
            What is wrong with it on this rank, or ``""``; and the right gradients.
        """
        rank, expected = dist.get_rank(), of_ddp(step, number)
        if step.after_error and not self._raises(number):
            return "the error raised inside no_sync is lost: it has to reach the caller", expected
        self.module.zero_grad()
        buckets, self.problem = self.model.buckets, ""
        late = len(buckets) - 1 if number == 0 else None
        *quiet, last = batches(step, number, rank)
        with same_calls_everywhere(self.names, step.case, late), trace(self.names) as record:
            accumulate(self.model, quiet, step.nested)
            inside = len(record.operations)
            with self._watching(record, step.overlap):
                backward(self.model, last)
            self.model.finish()
        problem = _inside(record, inside, step) or _traffic(record, buckets)
        problem = problem or self._gradients(step, number, expected, before) or self.problem
        return problem or self.unlike_rank_0("the weights have changed"), expected

    def unlike_rank_0(self, says: str) -> str:
        """``says``, if the model does not have the weights and buffers rank 0 began with."""
        for name, tensor in Branches(0).state_dict().items():
            if not torch.equal(self.module.state_dict()[name], tensor):
                return f"{says} ({name})"
        return ""

    def _raises(self, number: int) -> bool:
        try:
            with self.model.no_sync():
                backward(self.model, (inputs_of(dist.get_rank(), number, 9), ALL))
                raise _Stopped
        except _Stopped:
            return True
        return False

    @contextmanager
    def _watching(self, record: Trace, hint: str) -> Iterator[None]:
        self.record, self.hint, self.arrived = record, hint, set()
        yield
        self._all_that_can_have_left()
        self.record = None

    def _before(self, parameter: nn.Parameter) -> None:
        if self.record is not None:
            self._all_that_can_have_left()
            self._none_is_waited_for()
            self.arrived.add(parameter)

    def _all_that_can_have_left(self) -> None:
        full = [self.arrived.issuperset(bucket) for bucket in self.model.buckets]
        due, left = [*full, False].index(False), len(self.record.operations)
        if left < due and not self.problem:
            self.problem = f"bucket {left} is complete, and does not leave: {self.hint}"

    def _none_is_waited_for(self) -> None:
        for o in self.record.operations:
            if o.end is not None and not self.problem:
                at = f" (the {o.name} at {o.where})" if o.where else ""
                hint = f"backward stands still while ranks wait for each other{at}: "
                self.problem = hint + "async_op=True, and wait() in finish only"

    def _gradients(self, step: Step, number: int, expected: Gradients, before: Gradients) -> str:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        for name, parameter in self.module.named_parameters():
            wrong = about(parameter, parameter.grad)
            if wrong:
                return f"{name} {wrong}"
            if near(parameter.grad, expected[name], 0 if ranks in (2, 4) else 1e-6):
                continue
            each = [of_one(step, number, r) for r in range(ranks)]
            *own, own_last = [part[name] for part in each[rank]]
            last = sum(gradients[-1][name] for gradients in each) / ranks
            earlier = sum(own, torch.zeros_like(last))
            guesses = [
                ("only the last micro-batch's part is averaged: .grad as a whole", last + earlier),
                ("the micro-batches inside no_sync are lost: they are in .grad", last),
            ] * bool(own)
            guesses += usual_mistakes(expected[name], earlier + own_last, ranks)
            total = expected[name] + earlier + own_last
            guesses += [("the average is added to .grad: put it in its place", total)]
            if before:
                guesses += [("that is the gradient of the step before: start()", before[name])]
            hint = mistake(parameter.grad, guesses) or "it is not that of DDP"
            return f"the gradient of {name}: {hint}"
        return ""


def _inside(record: Trace, inside: int, step: Step) -> str:
    if not inside:
        return ""
    if step.nested:
        return "something was sent inside the outer no_sync: put back the sync that was before"
    return f"{inside} collectives were called inside no_sync: ready has nothing to do there"


def _traffic(record: Trace, buckets: list) -> str:
    sizes = [sum(parameter.nbytes for parameter in bucket) for bucket in buckets]
    if max(sizes) > BUCKET_BYTES:
        return f"a bucket has {max(sizes)} bytes, and bucket_bytes is {BUCKET_BYTES}"
    names = {o.name for o in record.operations if not o.name.startswith("all_reduce")}
    if names:
        return f"called was {', '.join(sorted(names))}: {instead(names)}"
    for o in record.operations:
        if o.end is None:
            at = f" at {o.where}" if o.where else ""
            return f"nobody waits for the {o.name}{at}: finish waits for all handles"
    if len(record.operations) != len(buckets):
        calls = len(record.operations)
        return f"{calls} all_reduces for {len(buckets)} buckets: one each, whatever the parameters"
    if [o.nbytes for o in record.operations] != sizes:
        sent = [o.nbytes for o in record.operations]
        return f"messages of {sent} bytes, and the buckets have {sizes}: in order, whole, float32"
    return ""
