"""The same with accelerate, run by torchrun. ``with_accelerate.py FOLDER EPOCHS DEVICE``."""

import sys

import torch
import workload as work
from accelerate import Accelerator
from torch import nn


def main(folder: str, epochs: int, kind: str) -> None:
    accelerator = Accelerator(cpu=kind == "cpu")
    device = accelerator.device
    x, y = work.table()
    torch.manual_seed(work.SEED)
    model = work.make_model(x.shape[1])
    # The sampler that all share deals the rows out: accelerate's own would deal them differently.
    sampler, loader = work.make_loader(x, y, accelerator.num_processes)
    optimizer, schedule = work.make_optimizer(model, epochs * len(loader))
    model, optimizer = accelerator.prepare(model, optimizer)
    losses, times = [], []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for inputs, target in loader:
            loss = nn.functional.mse_loss(model(inputs.to(device)), target.to(device))
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        times.append(work.end_of_epoch(epoch, losses[-1]))
    mean = accelerator.reduce(torch.stack(losses), reduction="mean")
    work.save(folder, mean.tolist(), times)
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
