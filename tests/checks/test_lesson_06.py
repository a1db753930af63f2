"""Exercises of lesson 06: wrong answers are told apart, right ones written differently pass."""

import time
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.autograd import Variable
from torch.distributed import all_reduce
from torch.distributed._functional_collectives import all_reduce as functional_all_reduce
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from course_lib.checks import lesson_06 as check

# ---- 6.1 · One message for all gradients


def with_zeros(parameters):
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def deal(flat, parameters):
    pieces = flat.split([p.numel() for p in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)


def flat_of(parameters):
    return torch.cat([gradient.flatten() for gradient in with_zeros(parameters)])


def without_division(parameters):
    flat = flat_of(parameters)
    dist.all_reduce(flat)
    deal(flat, parameters)


def divided_twice(parameters):
    flat = flat_of(parameters) / dist.get_world_size()
    dist.all_reduce(flat, op=dist.ReduceOp.AVG)
    deal(flat, parameters)


def halved(parameters):
    flat = flat_of(parameters)
    dist.all_reduce(flat)
    deal(flat / 2, parameters)


def skips_none(parameters):
    present = [p for p in parameters if p.grad is not None]
    flat = torch.cat([p.grad.flatten() for p in present])
    dist.all_reduce(flat)
    deal(flat / dist.get_world_size(), present)


def leaves_none(parameters):
    flat = flat_of(parameters)
    dist.all_reduce(flat)
    present = [p.grad is not None for p in parameters]
    deal(flat / dist.get_world_size(), parameters)
    for parameter, had in zip(parameters, present, strict=True):
        if not had:
            parameter.grad = None


def stays_away(parameters):
    """Whoever has nothing to send comes not at all: well with 2 ranks, if both have something."""
    if all(p.grad is None for p in parameters):
        return
    flat = flat_of(parameters)
    dist.all_reduce(flat)
    deal(flat / dist.get_world_size(), parameters)


def hangs_with_3(parameters):
    if dist.get_world_size() == 3 and dist.get_rank() == 2:
        dist.recv(torch.zeros(1), src=0)
    divides_first(parameters)


def one_by_one(parameters):
    for parameter, gradient in zip(parameters, with_zeros(parameters), strict=True):
        gradient /= dist.get_world_size()
        dist.all_reduce(gradient)
        parameter.grad = gradient


def gathers(parameters):
    flat = flat_of(parameters)
    everyone = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, flat)
    deal(torch.stack(everyone).mean(0), parameters)


def on_rank_0_first(parameters):
    flat = flat_of(parameters)
    dist.reduce(flat, dst=0)
    dist.broadcast(flat, src=0)
    deal(flat / dist.get_world_size(), parameters)


def by_messages(parameters):
    flat, rank, ranks = flat_of(parameters), dist.get_rank(), dist.get_world_size()
    total = flat.clone()
    for step in range(1, ranks):
        theirs = torch.empty_like(flat)
        work = dist.isend(flat, (rank + step) % ranks)
        dist.recv(theirs, (rank - step) % ranks)
        work.wait()
        total += theirs
    deal(total / ranks, parameters)


def dealt_backwards(parameters):
    flat = flat_of(parameters[::-1])
    dist.all_reduce(flat)
    deal(flat / dist.get_world_size(), parameters)


def flat_ones(parameters):
    flat = flat_of(parameters)
    dist.all_reduce(flat)
    for parameter, piece in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad.data = piece / dist.get_world_size()


def as_halves(parameters):
    flat = flat_of(parameters).half()
    dist.all_reduce(flat)
    deal((flat / dist.get_world_size()).to(parameters[0].dtype), parameters)


def in_doubles(parameters):
    flat = flat_of(parameters).double()
    dist.all_reduce(flat)
    deal((flat / dist.get_world_size()).to(parameters[0].dtype), parameters)


def in_floats(parameters):
    flat = flat_of(parameters).float()
    dist.all_reduce(flat)
    deal((flat / dist.get_world_size()).to(parameters[0].dtype), parameters)


def of_those_that_have_one(parameters):
    has = torch.tensor([p.grad is not None for p in parameters], dtype=parameters[0].dtype)
    flat = torch.cat([flat_of(parameters), has])
    dist.all_reduce(flat)
    deal(flat[: -len(parameters)], parameters)
    for parameter, holders in zip(parameters, flat[-len(parameters) :], strict=True):
        parameter.grad /= holders.clamp(min=1)


def never_waits(parameters):
    flat = flat_of(parameters)
    dist.all_reduce(flat, async_op=True)
    time.sleep(0.3)  # long enough, as it happens
    deal(flat / dist.get_world_size(), parameters)


def divides_before_it_waits(parameters):
    flat = flat_of(parameters)
    work = dist.all_reduce(flat, async_op=True)
    average = flat / dist.get_world_size()
    work.wait()
    deal(average, parameters)


def returns_them(parameters):
    flat = flat_of(parameters)
    dist.all_reduce(flat)
    return list((flat / dist.get_world_size()).split([p.numel() for p in parameters]))


def steps_too(parameters):
    divides_first(parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter -= 0.1 * parameter.grad


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(without_division, "divide by their number", id="no division"),
        pytest.param(divided_twice, "divided twice", id="divided twice"),
        pytest.param(halved, "not by 2", id="always by 2"),
        pytest.param(skips_none, "zeros where a gradient is None", id="skips None"),
        pytest.param(leaves_none, "zeros where no rank has one", id="None stays None"),
        pytest.param(stays_away, "rank 1 nothing more", id="stays away"),
        pytest.param(hangs_with_3, "3 ranks: it hangs", id="deadlock with 3"),
        pytest.param(one_by_one, "into one tensor", id="one by one"),
        pytest.param(gathers, "all_gather: that brings each rank", id="all_gather"),
        pytest.param(on_rank_0_first, "all_reduce is all that is needed", id="by rank 0"),
        pytest.param(by_messages, "messages were sent", id="messages"),
        pytest.param(dealt_backwards, "in other places", id="another order"),
        pytest.param(flat_ones, "view_as", id="flat gradients"),
        pytest.param(as_halves, "it is not the average", id="float16"),
        pytest.param(in_doubles, "200 bytes were sent", id="float64"),
        pytest.param(in_floats, "stay in the dtype", id="float32"),
        pytest.param(of_those_that_have_one, "all_reduce of 30 numbers", id="over holders"),
        pytest.param(never_waits, "nobody waits for the all_reduce", id="no wait"),
        pytest.param(divides_before_it_waits, "after wait(), not before", id="early"),
        pytest.param(returns_them, "nothing that arrived", id="returned"),
        pytest.param(steps_too, "itself has changed", id="steps, too"),
    ],
)
def test_average_gradients_rejects(impatient, rejects, answer, says):
    rejects(check.average_gradients, answer, says)


def divides_first(parameters):
    flat = flat_of(parameters) / dist.get_world_size()
    dist.all_reduce(flat)
    deal(flat, parameters)


def into_a_buffer(parameters):
    """With a name imported by itself, and gradients that stay where they are."""
    flat = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
    places, begin = [], 0
    for parameter in parameters:
        places.append(slice(begin, begin := begin + parameter.numel()))
        if parameter.grad is not None:
            flat[places[-1]] = parameter.grad.reshape(-1)
    work = all_reduce(flat, op=dist.ReduceOp.AVG, async_op=True)
    work.wait()
    for parameter, place in zip(parameters, places, strict=True):
        average = flat[place].reshape(parameter.shape)
        if parameter.grad is None:
            parameter.grad = average.clone()
        else:
            parameter.grad.copy_(average)


def coalesced(parameters):
    gradients = with_zeros(parameters)
    dist.all_reduce_coalesced(gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.div_(dist.get_world_size())


def with_torchs_vectors(parameters):
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in parameters]
    flat = parameters_to_vector(gradients)
    dist.all_reduce(flat)
    vector_to_parameters(flat / dist.get_world_size(), gradients)


@pytest.mark.filterwarnings("ignore:.*all_reduce_coalesced")
@pytest.mark.parametrize("answer", [divides_first, into_a_buffer, coalesced, with_torchs_vectors])
def test_average_gradients_accepts(accepts, answer):
    accepts(check.average_gradients, answer)


# ---- 6.2 · The last batch is smaller


def rows_of_all(losses):
    rows = torch.tensor(float(len(losses)))
    dist.all_reduce(rows)
    return rows


def mean_of_own(losses):
    rows_of_all(losses)
    return losses.mean()


def mean_without_nan(losses):
    """Right with equal numbers of rows, and on 2 ranks with 2 and 2."""
    rows_of_all(losses)
    return losses.sum() / max(len(losses), 1)


def forgets_the_ranks(losses):
    return losses.sum() / rows_of_all(losses)


def by_own_rows(losses):
    rows_of_all(losses)
    return losses.sum() * dist.get_world_size() / max(len(losses), 1)


def only_the_sum(losses):
    rows_of_all(losses)
    return losses.sum()


def averages_the_count(losses):
    rows = torch.tensor(float(len(losses)))
    dist.all_reduce(rows, op=dist.ReduceOp.AVG)
    return losses.sum() * dist.get_world_size() / rows


def in_a_new_tensor(losses):
    loss = losses.sum().item() * dist.get_world_size() / rows_of_all(losses)
    return loss.clone().requires_grad_()


def without_a_graph(losses):
    return losses.detach().sum() * dist.get_world_size() / rows_of_all(losses)


def nan_without_rows(losses):
    return losses.mean() * len(losses) * dist.get_world_size() / rows_of_all(losses)


def zero_without_rows(losses):
    rows = rows_of_all(losses)
    if len(losses) == 0:
        return torch.tensor(0.0, requires_grad=True)
    return losses.sum() * dist.get_world_size() / rows


def of_the_loss_itself(losses):
    loss = losses.mean()
    dist.all_reduce(loss)
    return loss / dist.get_world_size()


def two_all_reduces(losses):
    rows = rows_of_all(losses)
    total = losses.detach().sum()
    dist.all_reduce(total)
    return losses.sum() * dist.get_world_size() / rows


def both_in_one(losses):
    both = torch.stack([losses.detach().sum(), torch.tensor(float(len(losses)))])
    dist.all_reduce(both)
    return losses.sum() * dist.get_world_size() / both[1]


def gathers_counts(losses):
    counts = [torch.zeros(1) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([float(len(losses))]))
    return losses.sum() * dist.get_world_size() / sum(counts)


def no_rows_no_call(losses):
    if len(losses) == 0:
        return losses.sum()
    return losses.sum() * dist.get_world_size() / rows_of_all(losses)


def waits_for_a_neighbour(losses):
    """A deadlock, unless all have as many rows as the last rank."""
    ranks = dist.get_world_size()
    if ranks == 3 and len(losses) == 4:
        dist.recv(torch.zeros(1), src=ranks - 1)
    return with_integers(losses)


def one_a_row(losses):
    return losses * dist.get_world_size() / rows_of_all(losses)


def nothing_is_sent(losses):
    return losses.sum() * dist.get_world_size() / 7


def unseen(losses):
    rows = torch.tensor(float(len(losses)))
    rows = functional_all_reduce(rows, "sum", dist.group.WORLD)
    return losses.sum() * dist.get_world_size() / rows


def does_not_wait(losses):
    rows = torch.tensor(float(len(losses)))
    dist.all_reduce(rows, async_op=True)
    time.sleep(0.3)
    return losses.sum() * dist.get_world_size() / rows


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(mean_of_own, "the mean of this rank's rows", id="mean of own"),
        pytest.param(mean_without_nan, "the mean of this rank's rows", id="sum / own"),
        pytest.param(forgets_the_ranks, "DDP divides by the number", id="without N"),
        pytest.param(by_own_rows, "not by this rank's", id="own rows"),
        pytest.param(only_the_sum, "divide by the number of rows", id="sum"),
        pytest.param(averages_the_count, "an average over ranks is divided", id="AVG"),
        pytest.param(without_a_graph, "no graph leads", id="detached"),
        pytest.param(in_a_new_tensor, "no graph leads", id="new tensor"),
        pytest.param(nan_without_rows, "it is NaN: the mean of no rows", id="NaN"),
        pytest.param(zero_without_rows, "the sum of no rows is 0", id="zero of its own"),
        pytest.param(of_the_loss_itself, "and not its graph", id="all_reduce of the loss"),
        pytest.param(two_all_reduces, "one all_reduce of 1 number", id="two"),
        pytest.param(both_in_one, "one all_reduce of 1 number", id="two numbers"),
        pytest.param(gathers_counts, "all_gather: that brings each rank", id="all_gather"),
        pytest.param(no_rows_no_call, "rank 1 nothing more", id="no rows, no call"),
        pytest.param(waits_for_a_neighbour, "3 ranks: it hangs", id="deadlock"),
        pytest.param(one_a_row, "a single number", id="one a row"),
        pytest.param(nothing_is_sent, "every row has to count 2/5", id="7 rows, always"),
        pytest.param(unseen, "call dist.all_reduce", id="unseen"),
        pytest.param(does_not_wait, "nobody waits for the all_reduce", id="no wait"),
    ],
)
def test_loss_for_ddp_rejects(impatient, rejects, answer, says):
    rejects(check.loss_for_ddp, answer, says)


def with_integers(losses):
    rows = torch.tensor([len(losses)])
    all_reduce(rows)
    return losses.sum() * (dist.get_world_size() / rows.item())


def with_the_average_count(losses):
    rows = torch.tensor(len(losses), dtype=torch.float64)
    dist.all_reduce(rows, op=dist.ReduceOp.AVG)
    return losses.sum() / rows


def with_a_dot_product(losses):
    rows = torch.ones_like(losses).sum()
    work = dist.all_reduce(rows, async_op=True)
    work.wait()
    weights = torch.full_like(losses, dist.get_world_size()) / rows
    return (losses @ weights).reshape(1)


def scaled_mean(losses):
    rows = rows_of_all(losses)
    if len(losses) == 0:
        return losses.sum()
    return losses.mean() * (len(losses) * dist.get_world_size() / rows)


@pytest.mark.parametrize(
    "answer", [with_integers, with_the_average_count, with_a_dot_product, scaled_mean]
)
def test_loss_for_ddp_accepts(accepts, answer):
    accepts(check.loss_for_ddp, answer)


# ---- 6.3 · MiniDDP that can wait


class MiniDDP(nn.Module):
    """The class of the exercise, with its answer: what the others differ from."""

    def __init__(self, module, bucket_bytes=1_000_000):
        super().__init__()
        self.module, self.sync = module, True
        self.share_weights()
        self.buckets, self.bucket_of, room = [], {}, 0
        for parameter in reversed(list(module.parameters())):
            room -= parameter.nbytes
            if room < 0:
                self.buckets.append([])
                room = bucket_bytes - parameter.nbytes
            self.buckets[-1].append(parameter)
            self.bucket_of[parameter] = len(self.buckets) - 1
            parameter.register_post_accumulate_grad_hook(self.ready)
        self.start()

    def share_weights(self):
        for tensor in [*self.module.parameters(), *self.module.buffers()]:
            dist.broadcast(tensor.detach(), src=0)

    def start(self):
        self.missing, self.sent = [len(bucket) for bucket in self.buckets], []

    def forward(self, *inputs):
        return self.module(*inputs)

    def send(self):
        bucket = self.buckets[len(self.sent)]
        flat = flat_of(bucket) / dist.get_world_size()
        self.sent.append((dist.all_reduce(flat, async_op=True), flat))

    def ready(self, parameter):
        if not self.sync:
            return
        self.missing[self.bucket_of[parameter]] -= 1
        while len(self.sent) < len(self.buckets) and self.missing[len(self.sent)] == 0:
            self.send()

    def send_the_rest(self):
        while len(self.sent) < len(self.buckets):
            self.send()

    def finish(self):
        self.send_the_rest()
        for bucket, (work, flat) in zip(self.buckets, self.sent, strict=True):
            work.wait()
            deal(flat, bucket)
        self.start()

    @contextmanager
    def no_sync(self):
        before, self.sync = self.sync, False
        try:
            yield
        finally:
            self.sync = before


class NoBroadcast(MiniDDP):
    def share_weights(self):
        pass


class ForgetsTheBuffers(MiniDDP):
    def share_weights(self):
        for parameter in self.module.parameters():
            dist.broadcast(parameter.detach(), src=0)


class NoDivision(MiniDDP):
    def send(self):
        flat = flat_of(self.buckets[len(self.sent)])
        self.sent.append((dist.all_reduce(flat, async_op=True), flat))


class DividesTwice(MiniDDP):
    def finish(self):
        super().finish()
        for parameter in self.module.parameters():
            parameter.grad /= dist.get_world_size()


class NoWait(MiniDDP):
    def finish(self):
        self.send_the_rest()
        time.sleep(0.2)
        for bucket, (_, flat) in zip(self.buckets, self.sent, strict=True):
            deal(flat, bucket)
        self.start()


class WaitsForTheLast(MiniDDP):
    def finish(self):
        self.send_the_rest()
        self.sent[-1][0].wait()
        for bucket, (_, flat) in zip(self.buckets, self.sent, strict=True):
            deal(flat, bucket)
        self.start()


class CopiesBeforeItWaits(MiniDDP):
    def finish(self):
        self.send_the_rest()
        for bucket, (work, flat) in zip(self.buckets, self.sent, strict=True):
            deal(flat.clone(), bucket)
            work.wait()
        self.start()


class KeepsItsCount(MiniDDP):
    def finish(self):
        missing = self.missing
        super().finish()
        self.missing = missing


class KeepsEverything(MiniDDP):
    def start(self):
        if not hasattr(self, "sent"):
            super().start()


class AsTheyCome(MiniDDP):
    """Sends whatever is complete, in whatever order; the rest in the end."""

    def ready(self, parameter):
        if self.sync:
            number = self.bucket_of[parameter]
            self.missing[number] -= 1
            if self.missing[number] == 0:
                self.send(number)

    def send(self, number):
        flat = flat_of(self.buckets[number]) / dist.get_world_size()
        self.sent.append((dist.all_reduce(flat, async_op=True), flat, number))

    def finish(self):
        for number, missing in enumerate(self.missing):
            if missing:
                self.send(number)
        for work, flat, number in self.sent:
            work.wait()
            deal(flat, self.buckets[number])
        self.start()


class NeverSendsTheRest(MiniDDP):
    def send_the_rest(self):
        pass


class RankZeroHasNoRest(MiniDDP):
    """Waits for a bucket that others do not have: a deadlock as soon as ranks differ."""

    def finish(self):
        for bucket, (work, flat) in zip(self.buckets, self.sent, strict=False):
            work.wait()
            deal(flat, bucket)
        self.start()


class OneAtATime(MiniDDP):
    def ready(self, parameter):
        if self.sync:
            self.missing[self.bucket_of[parameter]] -= 1
            if len(self.sent) < len(self.buckets) and self.missing[len(self.sent)] == 0:
                self.send()


class AllInTheEnd(MiniDDP):
    def ready(self, parameter):
        pass


class SendsInside(MiniDDP):
    @contextmanager
    def no_sync(self):
        yield


class CountsInside(MiniDDP):
    def ready(self, parameter):
        self.missing[self.bucket_of[parameter]] -= 1
        while self.sync and len(self.sent) < len(self.buckets) and self.is_full():
            self.send()

    def is_full(self):
        return self.missing[len(self.sent)] == 0


class IsFullTooSoon(CountsInside):
    def is_full(self):
        return self.missing[len(self.sent)] <= 0


class ResetsToTrue(MiniDDP):
    @contextmanager
    def no_sync(self):
        self.sync = False
        try:
            yield
        finally:
            self.sync = True


class LeftByAnError(MiniDDP):
    @contextmanager
    def no_sync(self):
        before, self.sync = self.sync, False
        yield
        self.sync = before


class SwallowsErrors(MiniDDP):
    @contextmanager
    def no_sync(self):
        before, self.sync = self.sync, False
        try:
            yield
        except Exception:
            pass
        finally:
            self.sync = before


class LastMicroBatchOnly(MiniDDP):
    """Averages what the last backward added, and keeps the rest as it is on each rank."""

    @contextmanager
    def no_sync(self):
        before, self.sync = self.sync, False
        try:
            yield
        finally:
            self.sync = before
            self.earlier = {p: p.grad for p in self.bucket_of}
            for parameter in self.bucket_of:
                parameter.grad = None

    def finish(self):
        super().finish()
        for parameter, gradient in self.__dict__.pop("earlier", {}).items():
            if gradient is not None:
                parameter.grad = parameter.grad + gradient


class DropsMicroBatches(MiniDDP):
    @contextmanager
    def no_sync(self):
        before, self.sync = self.sync, False
        try:
            yield
        finally:
            self.sync = before
            for parameter in self.bucket_of:
                parameter.grad = None


class AddsTheAverage(MiniDDP):
    def finish(self):
        self.send_the_rest()
        for bucket, (work, flat) in zip(self.buckets, self.sent, strict=True):
            work.wait()
            own = [p.grad for p in bucket]
            deal(flat, bucket)
            for parameter, gradient in zip(bucket, own, strict=True):
                if gradient is not None:
                    parameter.grad = parameter.grad + gradient
        self.start()


class KeepsNone(MiniDDP):
    def finish(self):
        unused = [p for p in self.bucket_of if p.grad is None]
        super().finish()
        for parameter in unused:
            parameter.grad = None


class OneAParameter(MiniDDP):
    def send(self):
        bucket = self.buckets[len(self.sent)]
        flats = [gradient.flatten() / dist.get_world_size() for gradient in with_zeros(bucket)]
        works = [dist.all_reduce(flat, async_op=True) for flat in flats]
        self.sent.append((works, flats))

    def finish(self):
        self.send_the_rest()
        for bucket, (works, flats) in zip(self.buckets, self.sent, strict=True):
            for work in works:
                work.wait()
            deal(torch.cat(flats), bucket)
        self.start()


class Gathers(MiniDDP):
    def send(self):
        flat = flat_of(self.buckets[len(self.sent)])
        room = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
        self.sent.append((dist.all_gather(room, flat, async_op=True), room))

    def finish(self):
        self.send_the_rest()
        for bucket, (work, room) in zip(self.buckets, self.sent, strict=True):
            work.wait()
            deal(torch.stack(room).mean(0), bucket)
        self.start()


class StandsStill(MiniDDP):
    def send(self):
        flat = flat_of(self.buckets[len(self.sent)]) / dist.get_world_size()
        dist.all_reduce(flat)
        self.sent.append((Done(), flat))


class Done:
    def wait(self):
        pass


class WaitsInReady(MiniDDP):
    def send(self):
        super().send()
        self.sent[-1][0].wait()


class WithABarrier(MiniDDP):
    def finish(self):
        super().finish()
        dist.barrier()


class HangsWithThree(MiniDDP):
    def finish(self):
        if dist.get_world_size() == 3 and dist.get_rank() == 1:
            dist.recv(torch.zeros(1), src=2)
        super().finish()


class InDoubles(MiniDDP):
    def send(self):
        flat = flat_of(self.buckets[len(self.sent)]).double() / dist.get_world_size()
        self.sent.append((dist.all_reduce(flat, async_op=True), flat))

    def finish(self):
        self.send_the_rest()
        for bucket, (work, flat) in zip(self.buckets, self.sent, strict=True):
            work.wait()
            deal(flat.float(), bucket)
        self.start()


class OneBucket(MiniDDP):
    def __init__(self, module, bucket_bytes):
        super().__init__(module)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(NoBroadcast, "broadcast those of rank 0", id="no broadcast"),
        pytest.param(ForgetsTheBuffers, "rank 0 (shift)", id="no buffers"),
        pytest.param(NoDivision, "divide by their number", id="no division"),
        pytest.param(DividesTwice, "divided twice", id="divided twice"),
        pytest.param(NoWait, "nobody waits for the all_reduce", id="no wait"),
        pytest.param(WaitsForTheLast, "nobody waits for the all_reduce", id="last only"),
        pytest.param(CopiesBeforeItWaits, "after wait(), not before", id="copies early"),
        pytest.param(KeepsItsCount, "begin to count anew", id="count not reset"),
        pytest.param(KeepsEverything, "the next step", id="nothing reset"),
        pytest.param(AsTheyCome, "rank 1 all_reduce of 20 numbers", id="no order"),
        pytest.param(NeverSendsTheRest, "raised ValueError", id="no rest"),
        pytest.param(RankZeroHasNoRest, " nothing more", id="no rest, quietly"),
        pytest.param(OneAtATime, "ask again, in a loop", id="if, not while"),
        pytest.param(AllInTheEnd, "ready sends a bucket", id="no overlap"),
        pytest.param(SendsInside, "called inside no_sync", id="sends inside"),
        pytest.param(CountsInside, "inside no_sync does not count", id="counts inside"),
        pytest.param(IsFullTooSoon, "three micro-batches", id="too soon"),
        pytest.param(ResetsToTrue, "the sync that was before", id="not nested"),
        pytest.param(LeftByAnError, "try … finally", id="no finally"),
        pytest.param(SwallowsErrors, "has to reach the caller", id="swallows"),
        pytest.param(LastMicroBatchOnly, "only the last micro-batch's", id="last micro-batch"),
        pytest.param(DropsMicroBatches, "are lost: they are in .grad", id="drops"),
        pytest.param(AddsTheAverage, "put it in its place", id="adds"),
        pytest.param(KeepsNone, "zeros where no rank has one", id="None stays None"),
        pytest.param(OneAParameter, "8 all_reduces for 4 buckets", id="one a parameter"),
        pytest.param(Gathers, "called was all_gather", id="all_gather"),
        pytest.param(StandsStill, "async_op=True", id="not asynchronous"),
        pytest.param(WaitsInReady, "wait() in finish only", id="waits in ready"),
        pytest.param(WithABarrier, "all_reduce is all that is needed", id="a barrier more"),
        pytest.param(HangsWithThree, "3 ranks: it hangs", id="deadlock with 3"),
        pytest.param(InDoubles, "in order, whole", id="float64"),
        pytest.param(OneBucket, "and bucket_bytes is", id="one bucket"),
    ],
)
def test_mini_ddp_rejects(impatient, rejects, answer, says):
    rejects(check.mini_ddp, answer, says)


def test_who_stands_where_when_ranks_send_in_another_order(impatient, verdict):
    begin = time.monotonic()
    said = verdict(check.mini_ddp, AsTheyCome)
    assert time.monotonic() - begin < 15
    assert "raised RuntimeError: buckets that fill in another order: rank 0 calls" in said
    assert "test_lesson_06.py, line" in said


class Coalesced(MiniDDP):
    """One handle for the list of a bucket's gradients, which are averaged where they are."""

    def send(self):
        bucket = self.buckets[len(self.sent)]
        for parameter, gradient in zip(bucket, with_zeros(bucket), strict=True):
            parameter.grad = gradient
        gradients = [p.grad for p in bucket]
        self.sent.append(dist.all_reduce_coalesced(gradients, async_op=True))

    def finish(self):
        self.send_the_rest()
        while self.sent:
            self.sent.pop().wait()
        for parameter in self.bucket_of:
            parameter.grad /= dist.get_world_size()
        self.start()


class WithViews(MiniDDP):
    """A flat tensor for each bucket, made once; a name imported by itself; gradients copied."""

    def start(self):
        super().start()
        if not hasattr(self, "flats"):
            self.flats = [torch.zeros(sum(p.numel() for p in b)) for b in self.buckets]

    def send(self):
        number = len(self.sent)
        bucket, flat = self.buckets[number], self.flats[number].zero_()
        views = flat.split([p.numel() for p in bucket])
        for parameter, view in zip(bucket, views, strict=True):
            if parameter.grad is not None:
                view.copy_(parameter.grad.view(-1))
        self.sent.append(all_reduce(flat, op=dist.ReduceOp.AVG, async_op=True))

    def finish(self):
        self.send_the_rest()
        for work in self.sent:
            work.wait()
        for bucket, flat in zip(self.buckets, self.flats, strict=True):
            for parameter, view in zip(
                bucket, flat.split([p.numel() for p in bucket]), strict=True
            ):
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                parameter.grad.copy_(view.view_as(parameter))
        self.start()


class AtTheEndOfBackward(MiniDDP):
    """Autograd itself calls what finishes; ``finish`` has little left to do."""

    def ready(self, parameter):
        if self.sync and self.missing == [len(bucket) for bucket in self.buckets]:
            Variable._execution_engine.queue_callback(self.end)
        super().ready(parameter)

    def end(self):
        super().finish()

    def finish(self):
        pass


class NoSync:
    """The context manager as a class."""

    def __init__(self, model):
        self.model = model

    def __enter__(self):
        self.model.depth += 1

    def __exit__(self, *error):
        self.model.depth -= 1


class CountsDepth(MiniDDP):
    """And hooks that note what has come, instead of counting down."""

    def __init__(self, module, bucket_bytes):
        self.depth = 0
        super().__init__(module, bucket_bytes)

    def start(self):
        self.arrived, self.sent = set(), []

    def ready(self, parameter):
        if self.depth:
            return
        self.arrived.add(parameter)
        for bucket in self.buckets[len(self.sent) :]:
            if not self.arrived.issuperset(bucket):
                break
            self.send()

    def no_sync(self):
        return NoSync(self)


class AssignsFirst(MiniDDP):
    """Gradients are views of what is still on its way, and all are waited for after that."""

    def finish(self):
        self.send_the_rest()
        for bucket, (_, flat) in zip(self.buckets, self.sent, strict=True):
            deal(flat, bucket)
        for work, _ in reversed(self.sent):
            work.wait()
        self.start()

    def no_sync(self):
        return super().no_sync() if self.sync else nullcontext()


@pytest.mark.parametrize(
    "answer",
    [MiniDDP, Coalesced, WithViews, AtTheEndOfBackward, CountsDepth, AssignsFirst],
)
def test_mini_ddp_accepts(accepts, answer):
    accepts(check.mini_ddp, answer)


# ---- all


def stub(*arguments):
    raise NotImplementedError


class Stub(MiniDDP):
    def ready(self, parameter):
        raise NotImplementedError

    def finish(self):
        raise NotImplementedError

    @contextmanager
    def no_sync(self):
        raise NotImplementedError


class HalfDone(MiniDDP):
    @contextmanager
    def no_sync(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("average_gradients", stub),
        ("loss_for_ddp", stub),
        ("mini_ddp", Stub),
        ("mini_ddp", HalfDone),
    ],
)
def test_a_stub_is_not_done_yet(verdict, name, answer):
    assert "○ not done yet" in verdict(getattr(check, name), answer)
