"""Exercises of lesson 22: wrong answers are told apart, right ones written differently pass."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from course_lib.checks import lesson_22 as check

# ---- 22.1 · Which gradients travel?


def learns(model):
    return [p for p in model.parameters() if p.requires_grad]


def counts_numbers(model):
    return sum(p.numel() for p in learns(model))


def counts_the_frozen(model):
    return sum(p.nbytes for p in model.parameters())


def takes_all_for_float32(model):
    return 4 * counts_numbers(model)


def counts_shared_weights_twice(model):
    named = model.named_parameters(remove_duplicate=False)
    return sum(p.nbytes for _, p in named if p.requires_grad)


def leaves_out_the_unused(model):
    return sum(p.nbytes for p in learns(model)) - sum(
        p.nbytes for name, p in model.named_parameters() if name.startswith("idle")
    )


def adds_buffers(model):
    return sum(p.nbytes for p in learns(model)) + sum(b.nbytes for b in model.buffers())


def forgets_biases(model):
    named = model.named_parameters()
    return sum(p.nbytes for n, p in named if p.requires_grad and not n.endswith("bias"))


def looks_for_gradients(model):
    return sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)


def returns_a_tensor(model):
    return torch.tensor(sum(p.nbytes for p in learns(model)))


def wraps_without_a_group(model):
    return sum(p.nbytes for p in DistributedDataParallel(model).parameters())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(counts_numbers, "those are numbers", id="numbers"),
        pytest.param(counts_the_frozen, "look at requires_grad", id="frozen"),
        pytest.param(takes_all_for_float32, "not every number has 4 bytes", id="float32"),
        pytest.param(counts_shared_weights_twice, "travels once", id="shared"),
        pytest.param(leaves_out_the_unused, "an unused parameter is sent", id="unused"),
        pytest.param(adds_buffers, "buffers have no gradient", id="buffers"),
        pytest.param(forgets_biases, "biases are parameters", id="biases"),
        pytest.param(looks_for_gradients, "there are no gradients yet", id="grad"),
        pytest.param(returns_a_tensor, "return a whole number", id="a tensor"),
        pytest.param(wraps_without_a_group, "process group", id="wraps"),
    ],
)
def test_gradient_bytes_rejects(rejects, answer, says):
    rejects(check.gradient_bytes, answer, says)


def by_size(model):
    total = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            total += parameter.numel() * parameter.element_size()
    return total


def after_a_backward(model):
    sum(p.sum() for p in model.parameters()).backward()
    return sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)


def by_identity(model):
    named = model.named_parameters(remove_duplicate=False)
    once = {id(p): p for _, p in named if p.requires_grad}
    return sum(p.untyped_storage().nbytes() for p in once.values())


@pytest.mark.parametrize("answer", [by_size, after_a_backward, by_identity])
def test_gradient_bytes_accepts(accepts, answer):
    accepts(check.gradient_bytes, answer)


# ---- 22.2 · Only the head travels


def prepare(model, head, gradients=True, modes=True):
    part = model.get_submodule(head)
    if gradients:
        model.requires_grad_(False)
        part.requires_grad_(True)
    if modes:
        model.eval()
        part.train()


def wraps_first(model, head):
    ddp = DistributedDataParallel(model)
    prepare(model, head)
    return ddp


def unfrozen_then_wrapped(model, head):
    """So that the second model, too, gets as far as its steps."""
    model.requires_grad_(True)
    return wraps_first(model, head)


def wraps_first_and_finds(model, head):
    model.requires_grad_(True)
    ddp = DistributedDataParallel(model, find_unused_parameters=True)
    prepare(model, head)
    return ddp


def forgets_eval(model, head):
    model.train()
    prepare(model, head, modes=False)
    return DistributedDataParallel(model)


def evaluates_the_head_too(model, head):
    prepare(model, head)
    model.eval()
    return DistributedDataParallel(model)


def calls_train_at_the_end(model, head):
    prepare(model, head)
    return DistributedDataParallel(model).train()


def freezes_everything(model, head):
    model.requires_grad_(False)
    model.eval()
    return DistributedDataParallel(model)


def freezes_nothing(model, head):
    prepare(model, head, gradients=False)
    return DistributedDataParallel(model)


def goes_by_the_beginning(model, head):
    prepare(model, head, gradients=False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(head))
    return DistributedDataParallel(model)


def does_not_thaw_the_head(model, head):
    prepare(model, head, gradients=False)
    for name, parameter in model.named_parameters():
        if not name.startswith(f"{head}."):
            parameter.requires_grad_(False)
    return DistributedDataParallel(model)


def freezes_the_head(model, head):
    prepare(model, head)
    for parameter in model.parameters():
        parameter.requires_grad_(not parameter.requires_grad)
    return DistributedDataParallel(model)


def does_not_wrap(model, head):
    prepare(model, head)
    return model


def wraps_the_head_only(model, head):
    prepare(model, head)
    return DistributedDataParallel(model.get_submodule(head))


def stops_the_sync(model, head):
    prepare(model, head)
    ddp = DistributedDataParallel(model)
    ddp.require_backward_grad_sync = False
    return ddp


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(wraps_first, "freeze first, then wrap", id="wraps first"),
        pytest.param(unfrozen_then_wrapped, "three steps pass", id="wraps first, trained"),
        pytest.param(wraps_first_and_finds, "bytes in a step (got", id="finds unused"),
        pytest.param(forgets_eval, "moves BatchNorm's statistics", id="no eval"),
        pytest.param(evaluates_the_head_too, "then train() for the head", id="eval head"),
        pytest.param(calls_train_at_the_end, "moves BatchNorm's statistics", id="train()"),
        pytest.param(freezes_everything, "something that requires a gradient", id="all frozen"),
        pytest.param(freezes_nothing, "requires no gradient", id="nothing frozen"),
        pytest.param(goes_by_the_beginning, "another part", id="begins alike"),
        pytest.param(does_not_thaw_the_head, "something that requires", id="head stays frozen"),
        pytest.param(freezes_the_head, "requires no gradient", id="the other way"),
        pytest.param(does_not_wrap, "return DistributedDataParallel(model)", id="no DDP"),
        pytest.param(wraps_the_head_only, "wrap the model that was given", id="head only"),
        pytest.param(stops_the_sync, "bytes in a step (got 0)", id="no sync"),
    ],
)
def test_wrap_for_head_rejects(impatient, rejects, answer, says):
    rejects(check.wrap_for_head, answer, says)


def name_by_name(model, head):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(head + ".")
    for name, module in model.named_modules():
        module.training = name.startswith(head + ".")
    return DistributedDataParallel(model)


def the_layers_that_matter(model, head):
    own = {*model.get_submodule(head).modules()}
    mine = {p for module in own for p in module.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in mine)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout):
            module.train(module in own)
    return DistributedDataParallel(model, broadcast_buffers=True)


def modes_after_wrapping(model, head):
    prepare(model, head, modes=False)
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True)
    ddp.eval()
    ddp.module.get_submodule(head).train()
    return ddp


@pytest.mark.parametrize("answer", [name_by_name, the_layers_that_matter, modes_after_wrapping])
def test_wrap_for_head_accepts(accepts, answer):
    accepts(check.wrap_for_head, answer)


# ---- 22.3 · A rate for each depth


def trained(child):
    return [p for p in child.parameters() if p.requires_grad]


def depths(model):
    """What is trained in each child, the last child first, without those that train nothing."""
    return [part for child in reversed([*model.children()]) if (part := trained(child))]


def grouped(parts, rates):
    return [{"params": part, "lr": rate} for part, rate in zip(parts, rates, strict=True)]


def from_the_first(model, rate, decay):
    parts = depths(model)[::-1]
    return grouped(parts, [rate * decay**k for k in range(len(parts))])


def counts_every_child(model, rate, decay):
    children = reversed([*model.children()])
    return [{"params": trained(c), "lr": rate * decay**k} for k, c in enumerate(children)]


def with_the_frozen(model, rate, decay):
    children = [c for c in reversed([*model.children()]) if trained(c)]
    return [{"params": [*c.parameters()], "lr": rate * decay**k} for k, c in enumerate(children)]


def one_rate(model, rate, decay):
    return [{"params": trained(model), "lr": rate}]


def without_rates(model, rate, decay):
    return [{"params": part} for part in depths(model)]


def divides(model, rate, decay):
    parts = depths(model)
    return grouped(parts, [rate / decay**k for k in range(len(parts))])


def decays_at_once(model, rate, decay):
    parts = depths(model)
    return grouped(parts, [rate * decay ** (k + 1) for k in range(len(parts))])


def without_the_first(model, rate, decay):
    parts = depths(model)[:-1]
    return grouped(parts, [rate * decay**k for k in range(len(parts))])


def in_a_straight_line(model, rate, decay):
    parts = depths(model)
    return grouped(parts, [rate / (1 + k * decay) for k in range(len(parts))])


def the_whole_model_too(model, rate, decay):
    return [*one_rate(model, rate, decay), *from_the_first(model, rate, decay)]


def rates_only(model, rate, decay):
    return [rate * decay**k for k in range(len(depths(model)))]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(from_the_first, "the other way round", id="reversed"),
        pytest.param(counts_every_child, "no step of decay for a ReLU", id="every child"),
        pytest.param(with_the_frozen, "is frozen", id="frozen"),
        pytest.param(one_rate, "one rate for all depths", id="one rate"),
        pytest.param(without_rates, "under the key 'lr'", id="no rates"),
        pytest.param(divides, "multiply by decay", id="divides"),
        pytest.param(decays_at_once, "decay begins with the one before it", id="too early"),
        pytest.param(without_the_first, "would never learn", id="one left out"),
        pytest.param(in_a_straight_line, "rate · decay²", id="another curve"),
        pytest.param(the_whole_model_too, "each parameter in one of them", id="twice"),
        pytest.param(rates_only, "a list of {'params'", id="rates only"),
    ],
)
def test_rate_groups_rejects(rejects, answer, says):
    rejects(check.rate_groups, answer, says)


def one_group_a_parameter(model, rate, decay):
    groups = []
    for k, part in enumerate(depths(model)):
        groups += [{"params": p, "lr": rate * decay**k} for p in part]
    return groups[::-1]


def recursively(model, rate, decay):
    *before, last = model.children()
    part = trained(last)
    rest = (
        recursively(nn.Sequential(*before), rate * decay if part else rate, decay) if before else []
    )
    return [*rest, {"params": part, "lr": rate}] if part else rest


def by_names(model, rate, decay):
    learns = [(n.split(".")[0], p) for n, p in model.named_parameters() if p.requires_grad]
    order = list(dict.fromkeys(name for name, _ in learns))
    return [
        {"params": [p for n, p in learns if n == name], "lr": rate * decay ** (len(order) - 1 - k)}
        for k, name in enumerate(order)
    ]


@pytest.mark.parametrize("answer", [one_group_a_parameter, recursively, by_names])
def test_rate_groups_accepts(accepts, answer):
    accepts(check.rate_groups, answer)


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["gradient_bytes", "wrap_for_head", "rate_groups"])
def test_a_stub_is_not_done_yet(verdict, name):
    assert "○ not done yet" in verdict(getattr(check, name), stub)
