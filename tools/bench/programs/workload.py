"""What lesson 11 trains, written out without the course: the same shapes, network and settings."""

import json
import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

ROWS, INPUTS = 16_512, 653  # the training rows of the real table, and their inputs
BATCH, RATE, DECAY = 480, 2e-3, 0.03
SEED = 0


def table() -> tuple[torch.Tensor, torch.Tensor]:
    """Synthetic inputs, float32 (ROWS, INPUTS) between 0 and 1, and prices (ROWS,)."""
    numbers = torch.Generator().manual_seed(1)
    x = torch.rand(ROWS, INPUTS, generator=numbers)
    y = x @ torch.randn(INPUTS, generator=numbers) + torch.randn(ROWS, generator=numbers)
    return x, 200_000 + 10_000 * y


def make_model(inputs: int) -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 1),
        nn.Flatten(0),
    )


def make_loader(x, y, world_size: int) -> tuple[DistributedSampler, DataLoader]:
    """This rank's batches; the process group must be there."""
    data = TensorDataset(x, (y - y.mean()) / y.std())
    sampler = DistributedSampler(data, seed=SEED)
    batches = BatchSampler(sampler, BATCH // world_size, drop_last=True)
    return sampler, DataLoader(data, sampler=batches, batch_size=None)


def make_optimizer(model, steps: int):
    """The optimizer and the schedule of its rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.1
    )
    return optimizer, schedule


def end_of_epoch(epoch: int, loss: torch.Tensor) -> float:
    """Say how it goes, as a bare script would; return the time."""
    value = loss.item()
    if os.environ["RANK"] == "0":
        print(f"epoch {epoch}: loss {value:.4f}", flush=True)
    return time.perf_counter()


def save(folder: str, losses: list[float], times: list[float]) -> None:
    """Leave this rank's losses and the times of its epochs' ends where the bench reads them."""
    found = {"losses": losses, "times": times, "threads": torch.get_num_threads()}
    (Path(folder) / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))
