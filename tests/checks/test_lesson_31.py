"""Exercises of lesson 31: wrong answers are told apart, right ones written differently pass."""

import math
import re
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import (
    ConstantLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from course_lib.checks import lesson_31 as check
from course_lib.checks._depths import bert, distilbert, grouped, modernbert
from course_lib.checks._layer_rates import right_decays, right_rates, same
from course_lib.checks._warm_ups import PLANS

# ---- 31.1 · Warm up: the number of steps


def right_count(texts, rows, accumulate, epochs, world_size):
    return epochs * math.ceil(texts / (rows * accumulate * world_size))


def one_epoch(texts, rows, accumulate, epochs, world_size):
    return math.ceil(texts / (rows * accumulate * world_size))


def rounds_down(texts, rows, accumulate, epochs, world_size):
    return epochs * (texts // (rows * accumulate * world_size))


def rounds_the_sum(texts, rows, accumulate, epochs, world_size):
    return math.ceil(epochs * texts / (rows * accumulate * world_size))


def forgets_the_ranks(texts, rows, accumulate, epochs, world_size):
    return epochs * math.ceil(texts / (rows * accumulate))


def steps_of_all_ranks(texts, rows, accumulate, epochs, world_size):
    return right_count(texts, rows, accumulate, epochs, world_size) * world_size


def divides_twice(texts, rows, accumulate, epochs, world_size):
    return epochs * math.ceil(texts / (rows * accumulate * world_size**2))


def divides_the_steps(texts, rows, accumulate, epochs, world_size):
    return math.ceil(right_count(texts, rows, accumulate, epochs, world_size) / world_size)


def counts_micro_batches(texts, rows, accumulate, epochs, world_size):
    return epochs * math.ceil(texts / (rows * world_size))


def multiplies_by_accumulate(texts, rows, accumulate, epochs, world_size):
    return right_count(texts, rows, accumulate, epochs, world_size) * accumulate


def counts_texts(texts, rows, accumulate, epochs, world_size):
    return epochs * texts


def is_a_float(texts, rows, accumulate, epochs, world_size):
    return float(right_count(texts, rows, accumulate, epochs, world_size))


def is_not_rounded(texts, rows, accumulate, epochs, world_size):
    return epochs * texts / (rows * accumulate * world_size)


def own_share(texts, rows, accumulate, epochs, world_size):
    mine = len(range(dist.get_rank(), texts, world_size))
    return epochs * math.ceil(mine / (rows * accumulate))


def drops_the_last_micro_batches(texts, rows, accumulate, epochs, world_size):
    return epochs * (math.ceil(texts / world_size / rows) // accumulate)


def one_too_many(texts, rows, accumulate, epochs, world_size):
    return right_count(texts, rows, accumulate, epochs, world_size) + 1


# ---- 31.1 · Warm up: the schedule


def right_warm_up(optimizer, steps, warm):
    def share(done):
        rise, fall = (done + 1) / max(warm, 1), (steps - done) / max(steps - warm, 1)
        return max(min(rise, fall), 0.0)

    return LambdaLR(optimizer, share)


def by(rise, fall):
    """A schedule of two parts; with ``rest``, the steps after the warm-up."""

    def schedule(optimizer, steps, warm):
        rest = steps - warm
        return LambdaLR(optimizer, lambda d: rise(d, warm) if d < warm else fall(d - warm, rest))

    return schedule


def up(done, warm):
    return (done + 1) / warm


def down(done, rest):
    return max(rest - done, 0) / max(rest, 1)


def like_transformers(optimizer, steps, warm):
    return by(lambda done, warm: done / warm, down)(optimizer, steps, warm)


def divides_by_warm(optimizer, steps, warm):
    def share(done):
        return max(min((done + 1) / warm, (steps - done) / max(steps - warm, 1)), 0.0)

    return LambdaLR(optimizer, share)


def divides_by_the_rest(optimizer, steps, warm):
    def share(done):
        rise = (done + 1) / max(warm, 1)
        return max(min(rise, (steps - done) / (steps - warm)), 0.0)

    return LambdaLR(optimizer, share)


def falls_from_the_start(optimizer, steps, warm):
    return LambdaLR(optimizer, lambda d: up(d, warm) if d < warm else max(steps - d, 0) / steps)


def all_groups_alike(optimizer, steps, warm):
    for group in optimizer.param_groups:
        group["lr"] = optimizer.param_groups[0]["lr"]
    return right_warm_up(optimizer, steps, warm)


def first_group_only(optimizer, steps, warm):
    def share(done):
        return max(min((done + 1) / max(warm, 1), (steps - done) / max(steps - warm, 1)), 0.0)

    rest = [lambda done: 1.0] * (len(optimizer.param_groups) - 1)
    return LambdaLR(optimizer, [share, *rest])


def with_its_own_counter(optimizer, steps, warm):
    """It is called once a group, so in a step it counts as far as there are groups."""
    calls = [0]

    def share(_):
        calls[0] += 1
        done = calls[0] - 1
        return up(done, warm) if done < warm else down(done - warm, steps - warm)

    return LambdaLR(optimizer, share)


def counts_in_a_closure(optimizer, steps, warm):
    """Right for several groups, and begins anew when it is loaded."""
    calls, groups = [0], len(optimizer.param_groups)

    def share(_):
        done = calls[0] // groups
        calls[0] += 1
        return up(done, warm) if done < warm else down(done - warm, steps - warm)

    return LambdaLR(optimizer, share)


def times_the_ranks(optimizer, steps, warm):
    n = dist.get_world_size() if dist.is_initialized() else 1
    return right_warm_up(optimizer, steps * n, warm * n)


def more_steps_for_more_ranks(optimizer, steps, warm):
    n = dist.get_world_size() if dist.is_initialized() else 1
    return right_warm_up(optimizer, steps * n, warm)


def warmer_on_rank_1(optimizer, steps, warm):
    rank = dist.get_rank() if dist.is_initialized() else 0
    return right_warm_up(optimizer, steps, warm + rank)


def never_at_rest(optimizer, steps, warm):
    rest = steps - warm
    return by(up, lambda done, _: max(rest - done, 0) / rest if rest else 1.0)(
        optimizer, steps, warm
    )


def returns_nothing(optimizer, steps, warm):
    right_warm_up(optimizer, steps, warm)


class Whole:
    """A scheduler of somebody's own, as far as it is right."""

    def __init__(self, optimizer, steps, warm):
        self.optimizer, self.steps, self.warm, self.done = optimizer, steps, warm, 0
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.set()

    def set(self):
        up_to_here = self.done < self.warm
        share = up(self.done, self.warm) if up_to_here else self.fall()
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share

    def fall(self):
        return down(self.done - self.warm, self.steps - self.warm)

    def step(self):
        self.done += 1
        self.set()

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]
        self.set()


class SetsLate(Whole):
    def set(self):
        if self.done:
            self.done -= 1
            super().set()
            self.done += 1


class HasNoState(Whole):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Decays(Whole):
    """By a factor a step."""

    def set(self):
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.9 if self.done else 1.0


class SavesItself(Whole):
    def state_dict(self):
        return {"me": self}


def cosine(done, rest):
    return (1 + math.cos(math.pi * min(done / max(rest, 1), 1))) / 2


@pytest.mark.parametrize(
    ("count", "says"),
    [
        pytest.param(one_epoch, "that is one epoch", id="one epoch"),
        pytest.param(rounds_down, "round up", id="rounds down"),
        pytest.param(rounds_the_sum, "round up each epoch", id="rounds the sum"),
        pytest.param(forgets_the_ranks, "the ranks share the texts", id="no ranks"),
        pytest.param(steps_of_all_ranks, "so it counts once", id="steps of all"),
        pytest.param(divides_twice, "once divided by world_size", id="divides twice"),
        pytest.param(divides_the_steps, "once divided by world_size", id="divides steps"),
        pytest.param(counts_micro_batches, "those are micro-batches", id="micro-batches"),
        pytest.param(multiplies_by_accumulate, "those are micro-batches", id="× accumulate"),
        pytest.param(counts_texts, "those are texts", id="texts"),
        pytest.param(is_a_float, "return a whole number", id="float"),
        pytest.param(is_not_rounded, "return a whole number", id="not rounded"),
        pytest.param(own_share, "(rank 1 counted 12)", id="own share"),
        pytest.param(drops_the_last_micro_batches, "round up", id="drops the last"),
        pytest.param(one_too_many, "a step takes rows", id="one too many"),
    ],
)
def test_count_steps_rejects(rejects, count, says):
    rejects(partial(check.warm_up, count), right_warm_up, says)


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        pytest.param(like_transformers, "step 1 has a rate of 0", id="as transformers"),
        pytest.param(
            by(lambda d, warm: (d + 1) / (warm + 1), down), "not 1/(warm + 1)", id="warm + 1"
        ),
        pytest.param(by(lambda d, warm: 1.0, down), "has to rise", id="no rise"),
        pytest.param(by(lambda d, warm: up(d, warm) ** 2, down), "straight line", id="square"),
        pytest.param(by(up, lambda d, rest: 1.0), "has to fall", id="no fall"),
        pytest.param(
            by(up, lambda d, rest: max(rest - 1 - d, 0) / max(rest - 1, 1)),
            "the last step has a rate of 0",
            id="0 in the last step",
        ),
        pytest.param(
            by(up, lambda d, rest: max(rest - 1 - d, 0) / max(rest, 1)),
            "has the whole peak, and then it falls",
            id="falls a step early",
        ),
        pytest.param(falls_from_the_start, "it falls from the peak", id="jumps"),
        pytest.param(by(up, lambda d, rest: (rest - d) / max(rest, 1)), "stays at 0", id="below 0"),
        pytest.param(by(up, cosine), "not as a cosine", id="cosine"),
        pytest.param(
            by(up, lambda d, rest: down(d, rest) ** 2), "1/warm, 2/warm", id="falls as a square"
        ),
        pytest.param(
            by(lambda d, warm: 2 * up(d, warm), down), "no rate is higher", id="twice the peak"
        ),
        pytest.param(divides_by_warm, "ZeroDivisionError", id="warm = 0"),
        pytest.param(divides_by_the_rest, "ZeroDivisionError", id="warm = steps"),
        pytest.param(all_groups_alike, "all groups have one rate", id="groups alike"),
        pytest.param(first_group_only, "group 1 does not move", id="first group"),
        pytest.param(with_its_own_counter, "20 steps, 5 to warm up", id="own counter"),
        pytest.param(counts_in_a_closure, "counted elsewhere begins anew", id="closure"),
        pytest.param(times_the_ranks, "the number of ranks has no part", id="× ranks"),
        pytest.param(more_steps_for_more_ranks, "ranks has no part", id="steps × ranks"),
        pytest.param(warmer_on_rank_1, "(rank 1 got", id="rank 1 differs"),
        pytest.param(returns_nothing, "NoneType", id="None"),
        pytest.param(never_at_rest, "where all steps warm up", id="all warm, then 1"),
        pytest.param(SetsLate, "not in step()", id="set late"),
        pytest.param(HasNoState, "counted elsewhere begins anew", id="no state"),
        pytest.param(Decays, "1/warm, 2/warm", id="× 0.9"),
        pytest.param(SavesItself, "in numbers that can be saved", id="saves itself"),
    ],
)
def test_warm_up_rejects(rejects, schedule, says):
    rejects(partial(check.warm_up, right_count), schedule, says)


def count_by_dealing(texts, rows, accumulate, epochs, world_size):
    return sum(len(range(0, texts, rows * accumulate * world_size)) for _ in range(epochs))


def count_by_shares(texts, rows, accumulate, epochs, world_size):
    """As many steps as the fullest rank has."""
    micro_batches = math.ceil(math.ceil(texts / world_size) / rows)
    return epochs * math.ceil(micro_batches / accumulate)


def count_by_divmod(texts, rows, accumulate, epochs, world_size):
    whole, left = divmod(texts, rows * accumulate * world_size)
    return (whole + bool(left)) * epochs


def in_two_parts(optimizer, steps, warm):
    """Torch's own two, of which either may be missing."""
    rise = LinearLR(optimizer, 1 / max(warm, 1), 1.0, max(warm - 1, 1))
    if steps == warm:
        fall = ConstantLR(optimizer, 0.0, 10**9)
    else:
        fall = LinearLR(optimizer, 1.0, 0.0, steps - warm)
    return SequentialLR(optimizer, [rise, fall], [warm]) if warm else fall


class Triangle(LRScheduler):
    def __init__(self, optimizer, steps, warm):
        self.steps, self.warm = steps, warm
        super().__init__(optimizer)

    def get_lr(self):
        done = self.last_epoch
        if done < self.warm:
            return [peak * (done + 1) / self.warm for peak in self.base_lrs]
        share = max(0, self.steps - done) / max(1, self.steps - self.warm)
        return [peak * share for peak in self.base_lrs]


def a_lambda_each(optimizer, steps, warm):
    shares = [min(k / warm, 1.0) for k in range(1, warm + 1)]
    shares += [k / (steps - warm) for k in range(steps - warm, 0, -1)]
    table = torch.tensor([*shares, 0.0], dtype=torch.float64)
    each = [lambda done: table[min(done, steps)].item() for _ in optimizer.param_groups]
    return LambdaLR(optimizer, each)


@pytest.mark.parametrize(
    ("count", "schedule"),
    [
        pytest.param(right_count, right_warm_up, id="the lower of two lines"),
        pytest.param(count_by_dealing, by(up, down), id="in two cases"),
        pytest.param(count_by_shares, Triangle, id="a class"),
        pytest.param(count_by_divmod, a_lambda_each, id="a table"),
        pytest.param(right_count, Whole, id="without torch's class"),
        pytest.param(right_count, in_two_parts, id="SequentialLR"),
    ],
)
def test_warm_up_accepts(accepts, count, schedule):
    accepts(partial(check.warm_up, count), schedule)


def test_the_plans_have_all_edges():
    assert any(plan.warm == 0 for plan in PLANS)
    assert any(plan.warm == plan.steps for plan in PLANS)
    assert any(plan.steps == 1 for plan in PLANS)
    assert len(PLANS[-1].peaks) > 1


# ---- 31.2 · A rate for each layer

LAYER = r"\blayers?\.(\d+)\."


def groups_of(
    model,
    rate,
    shrink,
    *,
    layer=LAYER,
    embeddings="embeddings.",
    power=lambda k, layers: layers - k,
    below=lambda layers: layers + 1,
    head=0,
    plain=lambda name, p: p.ndim < 2,
    trains=lambda p: p.requires_grad,
    named=lambda model: list(model.named_parameters()),
    count=lambda named, layer: 1 + max(int(m[1]) for n, _ in named if (m := re.search(layer, n))),
    decay=None,
):
    """A right answer, or one with a mistake."""
    every = named(model)
    layers = count(every, layer)
    groups = {}
    for name, p in every:
        found = re.search(layer, name)
        if found:
            depth = power(int(found[1]), layers)
        else:
            depth = below(layers) if embeddings in name else head
        if trains(p):
            groups.setdefault((depth, plain(name, p)), []).append(p)
    result = []
    for (depth, is_plain), params in groups.items():
        group = {"params": params, "lr": rate * shrink**depth}
        if is_plain:
            group["weight_decay"] = 0.0
        elif decay is not None:
            group["weight_decay"] = decay
        result.append(group)
    return result


def wrong(**mistake):
    return partial(groups_of, **mistake)


def no_rates(model, rate, shrink):
    return [{"params": g["params"]} for g in groups_of(model, rate, shrink)]


def names_only(model, rate, shrink):
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        g | {"params": [names[id(p)] for p in g["params"]]} for g in groups_of(model, rate, shrink)
    ]


def copies(model, rate, shrink):
    return [
        g | {"params": [nn.Parameter(p.detach()) for p in g["params"]]}
        for g in groups_of(model, rate, shrink)
    ]


def params_alone(model, rate, shrink):
    return list(model.parameters())


def by_prefix(model, rate, shrink):
    """``layers.1`` begins ``layers.10``, too."""
    named = list(model.named_parameters())
    numbers = {int(m[1]) for name, _ in named if (m := re.search(LAYER, name))}
    groups, found = [], set()
    for k in sorted(numbers):
        mine = [(n, p) for n, p in named if re.search(rf"\blayers?\.{k}", n) and p.requires_grad]
        found.update(id(p) for _, p in mine)
        for is_plain in (False, True):
            params = [p for _, p in mine if (p.ndim < 2) == is_plain]
            extra = {"weight_decay": 0.0} if is_plain else {}
            power = len(numbers) - k
            groups.append({"params": params, "lr": rate * shrink**power} | extra)
    rest = groups_of(model, rate, shrink)
    for group in rest:
        kept = [p for p in group["params"] if id(p) not in found]
        if kept:
            groups.append(group | {"params": kept})
    return groups


def by_place_in_the_name(model, rate, shrink):
    """The number is the fourth part of BERT's names."""
    layers = len(model.bert.encoder.layer) if hasattr(model, "bert") else 0
    groups = []
    for name, p in model.named_parameters():
        parts = name.split(".")
        depth = layers - int(parts[3]) if "layer" in parts else 0
        groups.append({"params": [p], "lr": rate * shrink**depth})
    return groups


def of_the_module(model, rate, shrink):
    return groups_of(model.module, rate, shrink)


def base_at_the_beginning(model, rate, shrink):
    """Knows the names of all encoders, and does not know DDP's."""
    named = list(model.named_parameters())
    kept = [(n, p) for n, p in named if not n.startswith("module.")]
    return groups_of(
        model, rate, shrink, named=lambda _: kept or [(n[7:], p) for n, p in named[:9]]
    )


def sorted_as_text(model, rate, shrink):
    named = list(model.named_parameters())
    keys = sorted({m[1] for name, _ in named if (m := re.search(LAYER, name))})
    return groups_of(model, rate, shrink, power=lambda k, n: n - keys.index(str(k)))


def trained_layers_count(model, rate, shrink):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    keys = sorted({int(m[1]) for name, _ in named if (m := re.search(LAYER, name))})
    return groups_of(
        model,
        rate,
        shrink,
        named=lambda _: named,
        power=lambda k, n: len(keys) - keys.index(k),
        below=lambda n: len(keys) + 1,
    )


def counts_up_to_the_last_trained(model, rate, shrink):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return groups_of(model, rate, shrink, named=lambda _: named)


def from_a_set_of_names(model, rate, shrink):
    every = dict(model.named_parameters())
    return groups_of(model, rate, shrink, named=lambda _: [(n, every[n]) for n in {*every}])


def from_a_set_of_parameters(model, rate, shrink):
    groups = groups_of(model, rate, shrink)
    return [group | {"params": list({*group["params"]})} for group in groups]


def with_duplicates(model):
    return list(model.named_parameters(remove_duplicate=False))


def keeps_the_head(model):
    return [
        (name, p)
        for name, p in model.named_parameters()
        if re.search(LAYER, name) or "embeddings." in name or "classifier" in name
    ]


def without_embeddings(model):
    return [(name, p) for name, p in model.named_parameters() if "embeddings." not in name]


def numbers_anywhere(model, rate, shrink):
    return groups_of(model, rate, shrink, layer=r"\.(\d+)\.")


def linear(model, rate, shrink):
    groups = groups_of(model, rate, shrink)
    deepest = min(g["lr"] for g in groups)
    steps = sorted({g["lr"] for g in groups})
    for group in groups:
        share = steps.index(group["lr"]) / max(len(steps) - 1, 1)
        group["lr"] = deepest + (rate - deepest) * share
    return groups


def one_rate_a_kind(model, rate, shrink):
    """A LayerNorm learns as fast as the head."""
    groups = groups_of(model, rate, shrink)
    return [g | {"lr": rate} if "weight_decay" in g else g for g in groups]


LAYER_MISTAKES = [
    (wrong(power=lambda k, n: 0, below=lambda n: 0), "one rate for all depths", "one rate"),
    (wrong(power=lambda k, n: k + 1), "last layer is next to the head", "upside down"),
    (
        wrong(power=lambda k, n: k + 1, below=lambda n: 0, head=5),
        "the embeddings move least",
        "all upside down",
    ),
    (
        wrong(power=lambda k, n: n - 1 - k, below=lambda n: n),
        "the top layer is one below the head",
        "top layer as the head",
    ),
    (
        wrong(power=lambda k, n: n + 1 - k, below=lambda n: n + 2, head=1),
        "the head gets the whole rate",
        "shrinks the head",
    ),
    (wrong(below=lambda n: n), "embeddings lie below layer 0", "embeddings as layer 0"),
    (wrong(below=lambda n: 0), "embeddings are no head", "embeddings as the head"),
    (
        wrong(power=lambda k, n: k - n, below=lambda n: -n - 1),
        "do not divide",
        "divides",
    ),
    (wrong(power=lambda k, n: 1), "one rate for all layers", "layers alike"),
    (linear, "rate · shrink", "linear"),
    (one_rate_a_kind, "what is at one depth has one rate", "norms as the head"),
    (wrong(count=lambda named, layer: 12), "12 were taken for granted", "12 layers"),
    (wrong(count=lambda named, layer: 4), "DistilBERT, 3 layers, rate", "4 layers"),
    (
        wrong(layer=r"encoder\.layer\.(\d+)\.", count=lambda *_: 4),
        "DistilBERT, 3 layers, rate",
        "BERT's names",
    ),
    (
        wrong(layer=r"\blayer\.(\d+)\.", count=lambda n, r: len({*re.findall(r, str(n))}) or 12),
        "no layers were found",
        "layer without s",
    ),
    (wrong(layer=r"\blayers?\.(\d)"), "two digits", "one digit"),
    (sorted_as_text, "sorted as texts", "sorted as text"),
    (numbers_anywhere, "a plain module, 11 layers", "numbers anywhere"),
    (by_prefix, "more than once", "by prefix"),
    (by_place_in_the_name, "BERT, 4 layers, rate", "place in the name"),
    (of_the_module, "object has no attribute 'module'", "of the module"),
    (base_at_the_beginning, "in DDP (rank 0)", "no DDP"),
    (wrong(layer=r"^(?!module).*\blayers?\.(\d+)\.", count=lambda n, r: 4), "3 layers", "^"),
    (
        wrong(plain=lambda name, p: False),
        "need groups of their own",
        "all decay",
    ),
    (wrong(plain=lambda name, p: True), "nothing decays any more", "none decays"),
    (wrong(plain=lambda name, p: "bias" in name), "is a LayerNorm's weight", "biases only"),
    (
        wrong(plain=lambda name, p: "bias" in name or "LayerNorm" in name),
        "sa_layer_norm.weight is a LayerNorm's weight",
        "by the name LayerNorm",
    ),
    (
        wrong(plain=lambda name, p: "norm" in name.lower() and "weight" in name),
        "is a bias: no decay",
        "norms only",
    ),
    (
        wrong(plain=lambda name, p: p.ndim < 2 or "embeddings" in name),
        "is neither a bias nor a norm's weight",
        "embeddings do not decay",
    ),
    (wrong(decay=0.01), "leaves the number to the optimizer", "a decay of its own"),
    (wrong(trains=lambda p: True), "is frozen: groups hold", "frozen ones, too"),
    (trained_layers_count, "a frozen layer has its place", "trained layers count"),
    (counts_up_to_the_last_trained, "a frozen layer has its place", "up to the last trained"),
    (wrong(named=with_duplicates), "more than once", "shared twice"),
    (wrong(named=keeps_the_head), "pooler.dense.weight is in no group", "no pooler"),
    (wrong(named=without_embeddings), "is in no group, so it would never", "no embeddings"),
    (no_rates, "has no rate of its own", "no rates"),
    (names_only, "no names and no copies (got a str)", "names"),
    (copies, "no names and no copies (got a Parameter)", "copies"),
    (params_alone, "return a list of", "parameters alone"),
    (lambda model, rate, shrink: None, "return a list of", "None"),
    (from_a_set_of_names, "a set has no order", "set of names"),
    (from_a_set_of_parameters, "a set has no order", "set of parameters"),
]


@pytest.mark.parametrize(
    ("answer", "says"), [pytest.param(a, says, id=name) for a, says, name in LAYER_MISTAKES]
)
def test_layer_groups_rejects(rejects, answer, says):
    rejects(check.layer_groups, answer, says)


def a_group_each(model, rate, shrink):
    """As many groups as parameters, for the norms by the kind of their module."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    norms = {id(p) for m in inner.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    places = {}
    for name, p in inner.named_parameters():
        parts = name.split(".")
        at = next((k for k, part in enumerate(parts) if part in ("layer", "layers")), None)
        places[p] = int(parts[at + 1]) if at is not None else -1 if "embeddings" in parts else None
    layers = max(k for k in places.values() if k is not None) + 1
    groups = []
    for name, p in inner.named_parameters():
        if not p.requires_grad:
            continue
        power = 0 if places[p] is None else layers - places[p]
        group = {"params": p, "lr": rate * math.pow(shrink, power)}
        if name.endswith(".bias") or id(p) in norms:
            group["weight_decay"] = 0
        groups.append(group)
    return groups


def from_the_head_down(model, rate, shrink):
    return groups_of(model, rate, shrink)[::-1]


def sorted_by_name(model, rate, shrink):
    return groups_of(model, rate, shrink, named=lambda m: sorted(m.named_parameters()))


def rate_by_rate(model, rate, shrink):
    """Depth by depth, with groups that may be empty; the rate is multiplied on the way."""
    named = list(model.named_parameters())
    found = [re.search(LAYER, name) for name, _ in named]
    layers = max(int(m[1]) for m in found if m)
    keys = [int(m[1]) if m else -1 if "embeddings." in n else layers + 1
            for m, (n, _) in zip(found, named, strict=True)]  # fmt: skip
    groups, now = [], rate
    for key in range(layers + 1, -2, -1):
        mine = [p for k, (_, p) in zip(keys, named, strict=True) if k == key and p.requires_grad]
        groups.append({"params": [p for p in mine if p.ndim > 1], "lr": now})
        groups.append({"params": [p for p in mine if p.ndim == 1], "lr": now, "weight_decay": 0.0})
        now *= shrink
    return groups


def as_a_tuple(model, rate, shrink):
    return tuple(
        group | {"params": iter(group["params"])} for group in groups_of(model, rate, shrink)
    )


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(groups_of, id="a dict of groups"),
        pytest.param(a_group_each, id="a group each"),
        pytest.param(from_the_head_down, id="from the head down"),
        pytest.param(sorted_by_name, id="sorted by name"),
        pytest.param(rate_by_rate, id="rate by rate"),
        pytest.param(as_a_tuple, id="a tuple"),
    ],
)
def test_layer_groups_accepts(accepts, answer):
    accepts(check.layer_groups, answer)


def _of_transformers(name):
    import transformers

    few = {"vocab_size": 9, "max_position_embeddings": 8}
    bert_like = few | {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    sizes = {
        "Bert": bert_like | {"num_hidden_layers": 2},
        "DistilBert": few | {"dim": 16, "n_heads": 2, "hidden_dim": 16, "n_layers": 2},
        "ModernBert": bert_like | {"num_hidden_layers": 2, "pad_token_id": 0} | ids,
    }[name]
    config = getattr(transformers, f"{name}Config")(**sizes)
    return getattr(transformers, f"{name}ForSequenceClassification")(config)


@pytest.mark.parametrize(
    ("name", "make"), [("Bert", bert), ("DistilBert", distilbert), ("ModernBert", modernbert)]
)
def test_encoders_of_the_check_have_the_names_of_transformers(name, make):
    real, ours = _of_transformers(name), make(2)

    def facts(model):
        norms = {
            id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()
        }
        return [(n, p.ndim, id(p) in norms) for n, p in model.named_parameters()]

    assert facts(ours) == facts(real)
    for answer in (groups_of, a_group_each):
        got = grouped(answer, real, 0.01, 0.5)
        assert not got.wrong
        assert same(got.rates, right_rates(real, 0.01, 0.5))
        assert got.decays == right_decays(real)


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("warm_up", (stub, stub)),
        ("warm_up", (right_count, stub)),
        ("warm_up", (stub, right_warm_up)),
        ("layer_groups", (stub,)),
    ],
)
def test_a_stub_is_not_done_yet(verdict, name, answers):
    assert "○ not done yet" in verdict(getattr(check, name), *answers)
