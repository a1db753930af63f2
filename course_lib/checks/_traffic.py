"""What a rank sends: the bytes it puts into collectives and messages, counted where it calls them.

For checks whose point is what does not travel. It sees calls through the module, ``dist.broadcast``
and the like; how an algorithm inside torch forwards the bytes is not counted.
"""

import pickle
from typing import Any

import torch
import torch.distributed as dist

_TENSOR_FIRST = ("all_reduce", "reduce", "send", "isend", "gather", "gather_object")
_VALUE_SECOND = ("all_gather", "all_gather_object", "all_gather_into_tensor")
_FROM_SOURCE = ("broadcast", "broadcast_object_list")


def count_what_is_sent() -> list[int]:
    """From here on, note what this rank sends.

    Returns:
        A list that grows by the bytes of each call. A broadcast counts on its source only.
    """
    sent: list[int] = []
    for name in (*_TENSOR_FIRST, *_VALUE_SECOND, *_FROM_SOURCE):
        setattr(dist, name, _watched(name, getattr(dist, name), sent))
    return sent


def _watched(name: str, original: Any, sent: list[int]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        if name in _FROM_SOURCE:
            source = kwargs.get("src", args[1] if len(args) > 1 else None)
            sent.append(_bytes(given[0]) if source == dist.get_rank() else 0)
        else:
            sent.append(_bytes(given[name in _VALUE_SECOND]))
        return original(*args, **kwargs)

    return call


def _bytes(value: Any) -> int:
    return value.nbytes if isinstance(value, torch.Tensor) else len(pickle.dumps(value))
