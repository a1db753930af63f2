"""Questions for the exercises of lesson 22: what DDP sends, what stays still, who moves how far."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from course_lib.checks._engine import Ask, exercise
from course_lib.checks._finetuned import (
    CASES,
    MODELS,
    Facts,
    Nested,
    Net,
    Pictures,
    count_bytes,
    inside,
    three_steps,
)
from course_lib.group import process_group


@exercise("22.1 · Which gradients travel?")
def gradient_bytes(ask: Ask, answer) -> None:
    """``answer(model) -> int``: what DDP's hook counts."""
    guesses = ask.run(_each, answer, nprocs=1)[0]
    counts = ask.run(_counted, nprocs=2)[0]
    for case, got, right in zip(CASES, guesses, counts, strict=True):
        ask.equal(got, right, f"{case}: {right} bytes", _which_bytes(got, Net(case)))


def _each(answer):
    return [answer(Net(case)) for case in CASES]


def _counted():
    with process_group():
        counts = []
        for case in CASES:
            sent: list[int] = []
            unused = "does not use" in case
            ddp = DistributedDataParallel(Net(case), find_unused_parameters=unused)
            ddp.register_comm_hook(sent, count_bytes)
            ddp(torch.ones(2, 4)).sum().backward()
            counts.append(sum(sent))
        return counts


def _which_bytes(got: Any, model: nn.Module) -> str:
    named = list(model.named_parameters(remove_duplicate=False))
    every = list(model.parameters())
    learns = [p for p in every if p.requires_grad]
    buffers = sum(b.nbytes for b in model.buffers())
    right = sum(p.nbytes for p in learns)
    idle = sum(p.nbytes for name, p in named if name.startswith("idle"))
    mistakes = {
        "those are numbers; each takes as many bytes as its dtype says": sum(
            p.numel() for p in learns
        ),
        "a frozen parameter has no gradient: look at requires_grad": sum(p.nbytes for p in every),
        "not every number has 4 bytes: tensor.nbytes knows": 4 * sum(p.numel() for p in learns),
        "a weight that two layers share has one gradient, which travels once": sum(
            p.nbytes for _, p in named if p.requires_grad
        ),
        "an unused parameter is sent as well, as zeros: DDP has promised its gradient": right
        - idle,
        "buffers have no gradient: DDP sends them in forward, not with the gradients": right
        + buffers,
        "biases are parameters, too": sum(
            p.nbytes for n, p in named if p.requires_grad and not n.endswith("bias")
        ),
        "there are no gradients yet: ask which parameters will have one": 0,
    }
    if isinstance(got, torch.Tensor) or not isinstance(got, int):
        return "return a whole number: the bytes"
    fallback = "add up the bytes of all parameters that require a gradient when DDP wraps"
    return next((hint for hint, value in mistakes.items() if value == got), fallback)


@exercise("22.2 · Only the head travels")
def wrap_for_head(ask: Ask, answer) -> None:
    """``answer(model, head) -> DDP``: three steps are taken with it."""
    hint = "freeze all but the head, then wrap: DDP needs something that requires a gradient"
    for n, make, head in ((2, Pictures, "head"), (3, Nested, "classifier.2")):
        ranks = ask.run(three_steps, answer, make, head, nprocs=n, hint=hint)
        says = f"{n} ranks, {head}:"
        for facts in ranks:
            _one_rank(ask, says, facts, head)
        print(f"✓ {says} it alone requires gradients, it alone is in train() mode")
        print(f"✓ {says} {ranks[0].right} bytes in each of three steps")
        print(f"✓ {says} it moves alike on all ranks, everything else stays to the last bit")


def _one_rank(ask: Ask, says: str, facts: Facts, head: str) -> None:
    def must(holds: bool, what: str, hint: str) -> None:
        if not holds:
            ask.that(False, f"{says} {what}", hint)

    must(not facts.kind, "the model in DDP is returned", facts.kind)
    name = next(iter(facts.bad_gradients), "")
    belongs = inside(name, head)
    must(
        not name,
        f"{name} requires {'a' if belongs else 'no'} gradient",
        "the head has to learn, whoever froze it before: requires_grad_(True)"
        if belongs
        else f"freeze what is not {head} itself; a name that only begins alike is another part",
    )
    name = next(iter(facts.bad_modes), "")
    belongs = inside(name, head)
    must(
        not name,
        f"{name} is in {'train' if belongs else 'eval'}() mode",
        "eval() for the model, then train() for the head: it keeps its dropout and its batches"
        if belongs
        else "train() mode moves BatchNorm's statistics and drops numbers, frozen or not: eval()",
    )
    late = "DDP decides when it wraps which gradients it waits for: freeze first, then wrap"
    must(not facts.broken, f"three steps pass (got: {facts.broken})", late)
    wrong = next((count for count in facts.sent if count != facts.right), None)
    must(wrong is None, f"{facts.right} bytes in a step (got {wrong})", late)
    must(
        not facts.moved,
        f"{', '.join(facts.moved[:2])} stays as it is",
        "only the head may change: neither weights nor buffers of the others",
    )
    must(not facts.stayed, f"{', '.join(facts.stayed[:2])} moves", "the head has to learn")
    must(not facts.apart, "the head is the same on all ranks", "let DDP average its gradients")


RATES = ((0.1, 0.5), (0.01, 0.1), (0.2, 1.0))


@exercise("22.3 · A rate for each depth")
def rate_groups(ask: Ask, answer) -> None:
    """``answer(model, rate, decay) -> groups``: what torch's SGD makes of them."""
    hint = "a list of {'params': …, 'lr': …}, with each parameter in one of them"
    ((results),) = ask.run(_rates, answer, nprocs=1, hint=hint)
    for case, make in MODELS.items():
        for (rate, decay), got in zip(RATES, results[case], strict=True):
            right = _right_rates(make(), rate, decay)
            says = f"{case}, rate {rate:g}, decay {decay:g}: {_few(right)}"
            fits = got.keys() == right.keys() and all(
                math.isclose(got[n], right[n], rel_tol=1e-6) for n in right
            )
            if not fits:
                says += f" (got {_few(got)})"
            ask.that(fits, says, _which_rates(got, right, make(), rate, decay))


def _rates(answer):
    results = {}
    for case, make in MODELS.items():
        results[case] = []
        for rate, decay in RATES:
            model = make()
            name_of = {p: name for name, p in model.named_parameters()}
            optimizer = torch.optim.SGD(answer(model, rate, decay), lr=123.0)
            rates = {name_of[p]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
            results[case].append({name: float(lr) for name, lr in rates.items()})
    return results


def _children(model: nn.Module, every: bool) -> list[list[str]]:
    """Names of what is trained in each child, the last child first."""
    trained = [
        [f"{name}.{n}" for n, p in child.named_parameters() if p.requires_grad]
        for name, child in model.named_children()
    ]
    return [names for names in reversed(trained) if names or every]


def _right_rates(model: nn.Module, rate: float, decay: float, every=False) -> dict[str, float]:
    children = _children(model, every)
    return {name: rate * decay**k for k, names in enumerate(children) for name in names}


def _which_rates(got: dict, right: dict, model: nn.Module, rate: float, decay: float) -> str:
    if extra := sorted(got.keys() - right.keys()):
        return f"{extra[0]} is frozen: groups hold what requires a gradient"
    if missing := sorted(right.keys() - got.keys()):
        return f"{missing[0]} is in no group, so it would never learn"

    def is_like(expected: dict) -> bool:
        return all(math.isclose(got[n], expected[n], rel_tol=1e-6) for n in expected)

    if set(got.values()) == {123.0}:
        return "each group needs a rate of its own, under the key 'lr'"
    if is_like(_right_rates(model, rate, decay, every=True)):
        return "children in which nothing is trained do not count: no step of decay for a ReLU"
    if len(set(got.values())) == 1:
        return "that is one rate for all depths"
    if is_like(
        {n: rate**2 * decay ** (len(_children(model, False)) - 1) / right[n] for n in right}
    ):
        return "the other way round: the last child gets the full rate, the first the smallest"
    if is_like({n: lr * decay for n, lr in right.items()}):
        return "the last child gets the full rate: decay begins with the one before it"
    if max(got.values()) > rate * (1 + 1e-6):
        return "multiply by decay, do not divide: nobody gets more than the full rate"
    return "rate for the last child, rate · decay for the one before it, rate · decay² before that"


def _few(rates: dict) -> str:
    """The rates of the weights, from input to output."""
    return ", ".join(f"{name} {lr:.3g}" for name, lr in sorted(rates.items()) if "weight" in name)
