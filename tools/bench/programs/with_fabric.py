"""The same with Lightning Fabric, run by torchrun. ``with_fabric.py FOLDER EPOCHS DEVICE``."""

import os
import sys

import torch
import workload as work
from lightning_fabric import Fabric
from torch import nn


def main(folder: str, epochs: int, kind: str) -> None:
    ranks = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = Fabric(accelerator=kind, devices=ranks, strategy="ddp")
    fabric.launch()
    device = fabric.device
    x, y = work.table()
    torch.manual_seed(work.SEED)
    model = work.make_model(x.shape[1])
    sampler, loader = work.make_loader(x, y, fabric.world_size)
    optimizer, schedule = work.make_optimizer(model, epochs * len(loader))
    model, optimizer = fabric.setup(model, optimizer)
    losses, times = [], []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for inputs, target in loader:
            loss = nn.functional.mse_loss(model(inputs.to(device)), target.to(device))
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        times.append(work.end_of_epoch(epoch, losses[-1]))
    mean = fabric.all_reduce(torch.stack(losses), reduce_op="mean")
    work.save(folder, mean.tolist(), times)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
