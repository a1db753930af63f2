"""The bare script: torch alone, run by torchrun. ``bare.py FOLDER EPOCHS DEVICE``."""

import os
import sys

import torch
import torch.distributed as dist
import workload as work
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main(folder: str, epochs: int, kind: str) -> None:
    device = torch.device(kind, int(os.environ["LOCAL_RANK"])) if kind == "cuda" else kind
    if kind == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    x, y = work.table()
    torch.manual_seed(work.SEED)
    model = DistributedDataParallel(work.make_model(x.shape[1]).to(device))
    sampler, loader = work.make_loader(x, y, dist.get_world_size())
    optimizer, schedule = work.make_optimizer(model, epochs * len(loader))
    losses, times = [], []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for inputs, target in loader:
            loss = nn.functional.mse_loss(model(inputs.to(device)), target.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        times.append(work.end_of_epoch(epoch, losses[-1]))
    mean = torch.stack(losses)
    dist.all_reduce(mean)
    work.save(folder, (mean / dist.get_world_size()).tolist(), times)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
