"""Encoders as 31.2 sees them, the rate each depth gets, and what goes wrong with it.

Only names, kinds and order of parameters count, so the encoders are made of small layers under the
names that the transformers library gives them (a test compares): importing it takes a rank seconds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

OF_THE_OPTIMIZER = 0.25  # its weight decay
_WIDTH = 4
_KINDS: dict[str, Callable[[], nn.Module]] = {
    "embedding": lambda: nn.Embedding(5, _WIDTH),
    "linear": lambda: nn.Linear(_WIDTH, _WIDTH),
    "linear, no bias": lambda: nn.Linear(_WIDTH, _WIDTH, bias=False),
    "norm": lambda: nn.LayerNorm(_WIDTH),
    "norm, no bias": lambda: nn.LayerNorm(_WIDTH, bias=False),
}
_BERT = {
    **{f"attention.self.{part}": "linear" for part in ("query", "key", "value")},
    "attention.output.dense": "linear",
    "attention.output.LayerNorm": "norm",
    "intermediate.dense": "linear",
    "output.dense": "linear",
    "output.LayerNorm": "norm",
}
_DISTILBERT = {
    **{f"attention.{part}_lin": "linear" for part in ("q", "k", "v", "out")},
    "sa_layer_norm": "norm",
    "ffn.lin1": "linear",
    "ffn.lin2": "linear",
    "output_layer_norm": "norm",
}
_MODERNBERT = {
    "attn_norm": "norm, no bias",
    "attn.Wqkv": "linear, no bias",
    "attn.Wo": "linear, no bias",
    "mlp_norm": "norm, no bias",
    "mlp.Wi": "linear, no bias",
    "mlp.Wo": "linear, no bias",
}


def _layers(path: str, number: int, layer: dict[str, str]) -> dict[str, str]:
    return {f"{path}.{k}.{name}": kind for k in range(number) for name, kind in layer.items()}


def bert(layers: int, base: str = "bert") -> nn.Module:
    """With the names of ``BertForSequenceClassification``."""
    words = ("word", "position", "token_type")
    return _made(
        {f"{base}.embeddings.{kind}_embeddings": "embedding" for kind in words}
        | {f"{base}.embeddings.LayerNorm": "norm"}
        | _layers(f"{base}.encoder.layer", layers, _BERT)
        | {f"{base}.pooler.dense": "linear", "classifier": "linear"}
    )


def distilbert(layers: int) -> nn.Module:
    """With the names of ``DistilBertForSequenceClassification``."""
    return _made(
        {f"distilbert.embeddings.{kind}_embeddings": "embedding" for kind in ("word", "position")}
        | {"distilbert.embeddings.LayerNorm": "norm"}
        | _layers("distilbert.transformer.layer", layers, _DISTILBERT)
        | {"pre_classifier": "linear", "classifier": "linear"}
    )


def modernbert(layers: int) -> nn.Module:
    """With the names of ``ModernBertForSequenceClassification``."""
    blocks = _layers("model.layers", layers, _MODERNBERT)
    del blocks["model.layers.0.attn_norm"]
    return _made(
        {"model.embeddings.tok_embeddings": "embedding", "model.embeddings.norm": "norm, no bias"}
        | blocks
        | {"model.final_norm": "norm, no bias", "head.dense": "linear, no bias"}
        | {"head.norm": "norm, no bias", "classifier": "linear"}
    )


def plain(layers: int) -> nn.Module:
    """An encoder of nobody's; its head is an ``nn.Sequential``, and so has numbers in its names."""
    return _made(
        {"embeddings.words": "embedding", "embeddings.norm": "norm"}
        | _layers("layers", layers, {"mix": "linear", "norm": "norm"})
        | {"head.0": "linear", "head.1": "norm", "head.2": "linear"}
    )


def _frozen() -> nn.Module:
    model = bert(4)
    for k in (1, 3):
        model.bert.encoder.layer[k].requires_grad_(False)
    return model


def _shared() -> nn.Module:
    model = plain(2)
    model.head[2].weight = model.embeddings.words.weight
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "BERT, 4 layers": lambda: bert(4),
    "DistilBERT, 3 layers": lambda: distilbert(3),
    "ModernBERT, 12 layers": lambda: modernbert(12),
    "a plain module, 11 layers": lambda: plain(11),
    "BERT, layers 1 and 3 of 4 frozen": _frozen,
    "a head that shares the embeddings' weight": _shared,
}
# The same parameters in the same order, and names with other hashes: what goes by the order of a
# set of names comes out in another order. Sorted by name they are alike.
BASES = ("bert", "camembert", "bio_bert", "base")


def _made(kinds: dict[str, str]) -> nn.Module:
    """Modules from ``{path: kind}``, in this order."""
    parts: dict[str, dict[str, str]] = {}
    for path, kind in kinds.items():
        first, _, rest = path.partition(".")
        parts.setdefault(first, {})[rest] = kind
    module = nn.ModuleList() if all(map(str.isdigit, parts)) else nn.Module()
    for name, inside in parts.items():
        module.add_module(name, _KINDS[inside[""]]() if "" in inside else _made(inside))
    return module


class Grouped(NamedTuple):
    """What came of an answer's groups.

    Attributes:
        wrong: What is wrong with their form, or ``""``.
        rates: Name of a parameter → its rate in the optimizer.
        decays: Name → weight decay.
        order: Numbers of the parameters in ``model.parameters()``, in the optimizer's order.
    """

    wrong: str
    rates: dict[str, float]
    decays: dict[str, float]
    order: list[int]


def grouped(answer: Callable, model: nn.Module, rate: float, shrink: float) -> Grouped:
    """Make groups and an optimizer of them; called in a rank."""
    names = {id(p): name.removeprefix("module.") for name, p in model.named_parameters()}
    groups = answer(model, rate, shrink)
    if not isinstance(groups, list | tuple) or not all(
        isinstance(one, dict) and "params" in one for one in groups
    ):
        return _wrong(f"return a list of {{'params': …, 'lr': …}} (got {groups!r:.50})")
    groups = [group | {"params": _listed(group["params"])} for group in groups]
    found = [p for group in groups for p in group["params"]]
    strange = next((p for p in found if id(p) not in names), None)
    if strange is not None:
        what = type(strange).__name__
        hint = f"'params' has the model's own parameters, no names and no copies (got a {what})"
        return _wrong(hint)
    ids = [id(p) for p in found]
    if twice := [names[one] for one in ids if ids.count(one) > 1]:
        return _wrong(f"{twice[0]} is in the groups more than once")
    if frozen := [names[id(p)] for p in found if not p.requires_grad]:
        return _wrong(f"{frozen[0]} is frozen: groups hold what requires a gradient")
    lost = [names[id(p)] for p in model.parameters() if p.requires_grad and id(p) not in ids]
    if lost:
        return _wrong(f"{lost[0]} is in no group, so it would never learn")
    optimizer = torch.optim.AdamW(groups, lr=123.0, weight_decay=OF_THE_OPTIMIZER)
    each = [(id(p), group) for group in optimizer.param_groups for p in group["params"]]
    place = {one: number for number, one in enumerate(names)}
    return Grouped(
        "",
        {names[one]: float(group["lr"]) for one, group in each},
        {names[one]: float(group["weight_decay"]) for one, group in each},
        [place[one] for one, _ in each],
    )


def _listed(params: Any) -> list:
    return [params] if isinstance(params, torch.Tensor | str) else list(params)


def _wrong(hint: str) -> Grouped:
    return Grouped(hint, {}, {}, [])
