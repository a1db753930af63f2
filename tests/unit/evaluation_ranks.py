"""What a rank does in test_evaluation.py: a module, so that a spawned process can import it."""

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from course_lib.evaluation import (
    accuracy_over_ranks,
    confusion_over_ranks,
    mean_over_ranks,
    rmse_over_ranks,
    shard_indices,
    sum_over_ranks,
)

SAMPLES = 4128  # the housing test set: divisible by 2 and 3, not by 5
FEW = 2  # fewer than 3 or 5 ranks: some shards are empty
CLASSES = 4
WORLDS = (1, 2, 3, 4, 5)


def samples() -> dict[str, torch.Tensor]:
    """The whole test set, the same in every process."""
    random = torch.Generator().manual_seed(7)
    targets = 1e5 + 4e5 * torch.rand(SAMPLES, generator=random)
    return {
        "targets": targets,
        "predictions": targets + 5e4 * torch.randn(SAMPLES, generator=random),
        "actual": torch.randint(CLASSES, (SAMPLES,), generator=random),
        "predicted": torch.randint(CLASSES, (SAMPLES,), generator=random),
    }


def error_of(function, *args) -> str:
    try:
        function(*args)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def answers(rank: int, world_size: int) -> dict:
    """Ask every question once; collectives are counted."""
    whole = samples()
    mine = shard_indices(SAMPLES, rank, world_size)
    part = {name: values[mine] for name, values in whole.items()}
    few = {name: values[shard_indices(FEW, rank, world_size)] for name, values in whole.items()}

    calls = 0
    all_reduce = dist.all_reduce

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        return all_reduce(*args, **kwargs)

    dist.all_reduce = counted
    mixed = {
        "tensor": torch.tensor([[1.0, 2.0], [3.0, 0.1 * rank]], dtype=torch.float32),
        "float": 0.1,
        "int": 2**50 + rank,  # in float32 the rank would be lost
        "half": torch.full((2,), 0.5, dtype=torch.bfloat16, requires_grad=True),
        "flag": rank == 0,
        "empty": torch.empty(0),
    }
    if rank % 2:
        mixed = dict(reversed(mixed.items()))
    summed = sum_over_ranks(mixed)
    calls_for_a_mapping = calls
    dist.all_reduce = all_reduce

    squares = (part["predictions"].double() - part["targets"].double()).square()
    return {
        "indices": list(mine),
        "few_sizes": len(few["targets"]),
        "calls": calls_for_a_mapping,
        "order": list(summed) == list(mixed),
        "summed": summed,
        "tensor": sum_over_ranks(torch.full((2, 3), rank + 1, dtype=torch.int32)),
        "rmse": rmse_over_ranks(part["predictions"], part["targets"]),
        "rmse_few": rmse_over_ranks(few["predictions"], few["targets"]),
        "accuracy": accuracy_over_ranks(part["predicted"], part["actual"]),
        "accuracy_few": accuracy_over_ranks(few["predicted"], few["actual"]),
        "confusion": confusion_over_ranks(part["predicted"], part["actual"], CLASSES),
        "confusion_few": confusion_over_ranks(few["predicted"], few["actual"], CLASSES),
        "mean": mean_over_ranks(squares.sum(), len(squares)),
        "nobody": error_of(rmse_over_ranks, torch.empty(0), torch.empty(0)),
        "too_large": error_of(sum_over_ranks, {"count": 2**53 // world_size + 1}),
        # Cancels to a small total, but a partial sum on the way may be rounded.
        "cancels": error_of(sum_over_ranks, {"count": (2**53 - 1) * (-1) ** rank}),
        "names": error_of(sum_over_ranks, {"loss" if rank == 0 else "lost": 1.0}),
        "shapes": error_of(sum_over_ranks, {"x": torch.ones((2, 3) if rank == 0 else (3, 2))}),
    }


def run(rank: int, folder: str) -> None:
    """Entry point of a spawned process: answer in every world that has this rank.

    Starting a process costs more than all the questions, so each serves in one world after another.
    """
    torch.set_num_threads(1)
    for world_size in WORLDS:
        if rank < world_size:
            dist.init_process_group(
                "gloo",
                init_method=f"file://{folder}/store_{world_size}",
                rank=rank,
                world_size=world_size,
                timeout=timedelta(seconds=60),
            )
            torch.save(answers(rank, world_size), Path(folder) / f"{world_size}_{rank}.pt")
            dist.destroy_process_group()
