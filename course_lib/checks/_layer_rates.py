"""The rate and the weight decay that 31.2 asks for each parameter, and which mistake made another.

A rate is told as a power of ``shrink``: 0 for what comes after the layers, 1 for the top layer, one
more for each layer below, and one more again for the embeddings.
"""

import math
import re
from collections.abc import Callable, Sequence

from torch import nn

from course_lib.checks._depths import OF_THE_OPTIMIZER

EMBEDDINGS, HEAD = -1, None
Place = int | None  # the number of a layer, or one of the two
Powers = Callable[[Place, int], float]
_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")


def place_of(name: str) -> Place:
    """Where a parameter is."""
    if found := _LAYER.search(name):
        return int(found[1])
    return EMBEDDINGS if "embeddings." in name else HEAD


def power(place: Place, layers: int) -> int:
    """How often its rate shrinks."""
    return 0 if place is HEAD else layers - place


def right_rates(model: nn.Module, rate: float, shrink: float) -> dict[str, float]:
    """Name → rate, of what is to be trained."""
    return _rates(model, rate, shrink, power)


def _rates(model: nn.Module, rate: float, shrink: float, powers: Powers) -> dict[str, float]:
    places = {name: place_of(name) for name, p in model.named_parameters()}
    layers = 1 + max(place for place in places.values() if place is not HEAD)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return {name: rate * shrink ** powers(places[name], layers) for name in trained}


def right_decays(model: nn.Module) -> dict[str, float]:
    """Name → weight decay: 0 for biases and what a LayerNorm has, else the optimizer's."""
    norms = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm)}
    return {
        name: 0.0 if name.endswith("bias") or id(p) in norms else OF_THE_OPTIMIZER
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def few(rates: dict[str, float]) -> str:
    """A rate of each place, from the head down; a long list is cut in its middle."""
    by_place: dict[Place, set[str]] = {}
    for name, rate in rates.items():
        by_place.setdefault(place_of(name), set()).add(f"{rate:.3g}")
    layers = sorted((k for k in by_place if k not in (HEAD, EMBEDDINGS)), reverse=True)
    texts = {k: f"layer {k} {'/'.join(sorted(by_place[k]))}" for k in layers}
    shown = [texts[k] for k in layers] if len(layers) < 5 else []
    shown = shown or [texts[layers[0]], texts[layers[1]], "…", texts[layers[-1]]]
    for place, says, at in ((HEAD, "head", 0), (EMBEDDINGS, "embeddings", len(layers) + 1)):
        if place in by_place:
            shown.insert(at, f"{says} {'/'.join(sorted(by_place[place]))}")
    return ", ".join(shown)


def same(got: dict[str, float], expected: dict[str, float]) -> bool:
    """Whether the same parameters have the same numbers."""
    return got.keys() == expected.keys() and all(
        math.isclose(got[name], expected[name], rel_tol=1e-6, abs_tol=1e-15) for name in got
    )


def which_rates(got: dict[str, float], model: nn.Module, rate: float, shrink: float) -> str:
    """Why rates are wrong; they are of the right parameters."""
    if 123.0 in got.values():
        name = next(name for name, lr in got.items() if lr == 123.0)
        return f"{name} has no rate of its own: each group needs one, under the key 'lr'"
    frozen = any(not p.requires_grad for p in model.parameters())
    others = _of_trained(model) if frozen else ()
    if any(same(got, _rates(model, rate, shrink, powers)) for powers in others):
        return "a frozen layer has its place all the same: count it"
    for hint, powers in _MISTAKES.items():
        if same(got, _rates(model, rate, shrink, powers)):
            return hint
    by_place: dict[Place, set[float]] = {}
    for name, lr in got.items():
        by_place.setdefault(place_of(name), set()).add(lr)
    right = right_rates(model, rate, shrink)
    name = next(name for name in got if not math.isclose(got[name], right[name], rel_tol=1e-6))
    hint = f"{name}: {right[name]:.3g} is right (got {got[name]:.3g})"
    if len(by_place[place_of(name)]) > 1:
        return f"{hint}; what is at one depth has one rate"
    return f"{hint}; head rate, top layer rate · shrink, the one below rate · shrink², …"


def which_decays(got: dict[str, float], right: dict[str, float]) -> str:
    """Why weight decays are wrong."""
    wrong = [name for name in got if got[name] != right[name]]
    if strange := [name for name in wrong if got[name] not in (0.0, OF_THE_OPTIMIZER)]:
        hint = f"{strange[0]} gets {got[strange[0]]:g}: a group that decays leaves the number to "
        return f"{hint}the optimizer, without the key 'weight_decay'"
    if not any(got.values()):
        return "nothing decays any more: only biases and norms have 'weight_decay': 0.0"
    if all(got.values()):
        return "biases and weights of LayerNorms need groups of their own, with 'weight_decay': 0.0"
    if right[wrong[0]]:
        return f"{wrong[0]} is neither a bias nor a norm's weight: it decays"
    if wrong[0].endswith("bias"):
        return f"{wrong[0]} is a bias: no decay"
    hint = f"{wrong[0]} is a LayerNorm's weight, whatever it is called: no decay (a norm's weights "
    return f"{hint}and biases have one dimension, other weights have two)"


def which_order(first: Sequence[int], second: Sequence[int]) -> str:
    """Why two equal models do not get one order; ``""`` if they do."""
    both = enumerate(zip(first, second, strict=True))
    at = next((k for k, (one, other) in both if one != other), None)
    if at is None:
        return ""
    hint = f"parameter {at} of the optimizer is here number {first[at]} of the model, there number "
    return f"{hint}{second[at]}: a set has no order that can be relied on, a list or dict has"


def _of_trained(model: nn.Module) -> tuple[Powers, Powers]:
    """Layers counted without the frozen ones, or up to the last that is not frozen."""
    trained = {place_of(name) for name, p in model.named_parameters() if p.requires_grad}
    numbers = sorted(k for k in trained if k not in (HEAD, EMBEDDINGS))

    def without(place: Place, layers: int) -> int:
        if place in numbers:
            return len(numbers) - numbers.index(place)
        return 0 if place is HEAD else len(numbers) + 1

    return without, lambda place, layers: power(place, numbers[-1] + 1)


def _unlike(layer: Powers = power, embeddings: Powers = power, head: Powers = power) -> Powers:
    def powers(place: Place, layers: int) -> float:
        part = head if place is HEAD else embeddings if place == EMBEDDINGS else layer
        return part(place, layers)

    return powers


def _less(place: Place, layers: int) -> int:
    return power(place, layers) - 1


def _sorted_as_text(place: Place, layers: int) -> int:
    return layers - sorted(map(str, range(layers))).index(str(place))


def _first_digit(place: Place, layers: int) -> int:
    return min(layers, 10) - int(str(place)[0])


_NAMES = "no layers were found: their names go on after layer.3. or layers.3., and begin in any way"
_MISTAKES: dict[str, Powers] = {
    "that is one rate for all depths": lambda *_: 0,
    "the other way round: the last layer is next to the head, and moves most": _unlike(
        layer=lambda place, layers: place + 1
    ),
    "the other way round: the embeddings move least": lambda place, layers: (
        layers + 1 - power(place, layers)
    ),
    "the top layer is one below the head: rate · shrink": _unlike(_less, _less),
    "the top layer is one below the head: rate · shrink ": _unlike(_less),
    "the head gets the whole rate": lambda place, layers: power(place, layers) + 1,
    "the head gets the whole rate ": _unlike(head=lambda *_: 1),
    "embeddings lie below layer 0: shrink once more": _unlike(embeddings=_less),
    "embeddings are no head: they get the smallest rate": _unlike(embeddings=lambda *_: 0),
    "multiply by shrink, do not divide": lambda place, layers: -power(place, layers),
    "sorted as texts, 10 comes before 2: int() makes a number of a layer's": _unlike(
        _sorted_as_text
    ),
    "a layer's number may have two digits: \\d+": _unlike(
        _first_digit, lambda place, layers: min(layers, 10) + 1
    ),
    "a layer's number may have two digits: \\d+ ": _unlike(_first_digit),
    "how many layers there are differs: count them (here 12 were taken for granted)": lambda p, n: (
        0 if p is HEAD else 12 - p
    ),
    _NAMES: _unlike(layer=lambda *_: 0, embeddings=lambda *_: 1),
    f"{_NAMES} ": _unlike(layer=lambda *_: 0),
    "that is one rate for all layers: it shrinks with each": _unlike(layer=lambda *_: 1),
}
