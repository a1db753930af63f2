"""What exercises of lesson 22 are asked about: small networks, and three steps under DDP.

A network says by its parameters, modes and buffers what fine-tuning did to it; a communication hook
says what DDP sent. The steps are taken by the check, so the learner's part is only to prepare.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from course_lib.group import process_group

_HAVE_MODES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout)  # in others it changes nothing


class Net(nn.Module):
    """Four layers and one that ``forward`` leaves out; inputs of shape (rows, 4)."""

    def __init__(self, case: str) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.middle, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        if case == "a frozen backbone":
            self.first.requires_grad_(False)
            self.norm.requires_grad_(False)
        elif case == "only the biases learn":
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(name.endswith("bias"))
        elif case == "a head of float64":
            self.last.double()
        elif case == "a weight in two layers":
            self.second = nn.Linear(6, 6, bias=False)
            self.second.weight = self.middle.weight
        elif case == "a layer that forward does not use":
            self.idle = nn.Linear(5, 7)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Of a batch, the outputs of its rows."""
        hidden = self.middle(self.norm(self.first(inputs)))
        if hasattr(self, "second"):
            hidden = self.second(hidden)
        return self.last(hidden.to(self.last.weight.dtype))


CASES = (
    "everything learns",
    "a frozen backbone",
    "only the biases learn",
    "a head of float64",
    "a weight in two layers",
    "a layer that forward does not use",
)


def _plain() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5))


def _with_others() -> nn.Module:
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 5), nn.ReLU()]
    return nn.Sequential(*layers)


def _partly_frozen() -> nn.Module:
    block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    block[0].requires_grad_(False)
    model = nn.Sequential(nn.Linear(2, 3), block, nn.Linear(3, 3), nn.Linear(3, 5))
    model[2].requires_grad_(False)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "three layers": _plain,
    "with ReLU and dropout between": _with_others,
    "with frozen parts": _partly_frozen,
}


class Pictures(nn.Module):
    """A small network; the names of two of its parts begin alike."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head_norm = nn.BatchNorm2d(4)
        self.head = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.1), nn.Linear(4, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Of a batch, the outputs of its rows."""
        return self.head(self.head_norm(self.body(images)).mean(dim=(2, 3)))


class Nested(nn.Module):
    """A network whose head is the last part of a part, and was frozen by somebody."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(27, 5), nn.BatchNorm1d(5))
        self.classifier = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))
        self.classifier[2].requires_grad_(False)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Of a batch, the outputs of its rows."""
        return self.classifier(self.features(images))


def count_bytes(sent: list[int], bucket):
    """A communication hook: note a bucket's bytes, then do what DDP does by itself."""
    sent.append(bucket.buffer().nbytes)
    return allreduce_hook(None, bucket)


class Facts(NamedTuple):
    """What a rank saw of a wrapped model. Lists hold names of parts of the model."""

    kind: str
    bad_gradients: list[str]
    bad_modes: list[str]
    broken: str
    sent: list[int]
    right: int
    moved: list[str]
    stayed: list[str]
    apart: bool


def three_steps(answer, make, head):
    """Let the answer wrap a model; unless it is wrong already, take three steps with it."""
    with process_group() as pg:
        torch.manual_seed(0)
        model = make()
        ddp = answer(model, head)
        kind = ""
        if not isinstance(ddp, DistributedDataParallel):
            kind = f"return DistributedDataParallel(model), not a {type(ddp).__name__}"
        elif ddp.module is not model:
            kind = "wrap the model that was given, not another one"
        bad_gradients, bad_modes = _bad_parts(model, head)
        facts = Facts(kind, bad_gradients, bad_modes, "", [], 0, [], [], False)
        return facts if kind or bad_gradients or bad_modes else _stepped(facts, ddp, head, pg.rank)


def _bad_parts(model: nn.Module, head: str) -> tuple[list[str], list[str]]:
    gradients = [n for n, p in model.named_parameters() if p.requires_grad != inside(n, head)]
    modes = [
        name
        for name, module in model.named_modules()
        if isinstance(module, _HAVE_MODES) and module.training != inside(name, head)
    ]
    return gradients, modes


def _stepped(facts: Facts, ddp: DistributedDataParallel, head: str, rank: int) -> Facts:
    model, counts, sent = ddp.module, [], []
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ddp.register_comm_hook(counts, count_bytes)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.manual_seed(rank)
    for _ in range(3):
        try:
            loss = ddp(torch.randn(4, 3, 3, 3) + rank).square().sum()
        except RuntimeError as error:
            return facts._replace(broken=str(error).partition(".")[0][:80])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sent.append(sum(counts))
        counts.clear()
    right = sum(p.nbytes for n, p in model.named_parameters() if inside(n, head))
    after = model.state_dict()
    moved = [n for n in before if not inside(n, head) and not torch.equal(before[n], after[n])]
    learns = [n for n, _ in model.named_parameters() if inside(n, head)]
    stayed = [n for n in learns if torch.equal(before[n], after[n])]
    flat = torch.cat([after[n].flatten() for n in learns])
    of_rank_0 = flat.clone()
    dist.broadcast(of_rank_0, src=0)
    apart = not torch.equal(flat, of_rank_0)
    return facts._replace(sent=sent, right=right, moved=moved, stayed=stayed, apart=apart)


def inside(name: str, head: str) -> bool:
    """Whether a parameter, a buffer or a module of that name is a part of the head."""
    return name == head or name.startswith(f"{head}.")
