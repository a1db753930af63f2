"""Lesson 11's training as a program: torchrun and launch agree to the last bit."""

from pathlib import Path

import nbformat
import pytest

LESSON = Path(__file__).parents[2] / "notebooks" / "11_house_prices_ddp.ipynb"
# The cells that the training is made of, by a line each of them has.
CELLS = [
    "import torch.distributed as dist",
    "houses = housing.load(source)",
    "def encode(",
    "def make_model(",
    "def average_over_ranks(",
    "def train(",
    "def train_prices(",
]

COMPARE = """
for n in (1, 2, 3):
    there = torchrun(program, nprocs=n, device="cpu", epochs=1, seed=3)
    here = launch(train_prices, 1, 3, nprocs=n, device="cpu")
    for (losses, weights), (same_losses, same_weights) in zip(there, here, strict=True):
        assert losses == same_losses and len(losses) > 10
        assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    print("same on", n)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_lesson_11_under_torchrun_and_under_launch(new_kernel, tmp_path):
    (tmp_path / "notebooks").mkdir()
    cells = [c.source for c in nbformat.read(LESSON, as_version=4).cells if c.cell_type == "code"]
    parts = [next(c for c in cells if line in c) for line in CELLS]
    kernel = new_kernel()
    setup = f"import os; os.chdir({str(tmp_path)!r}); world_size = None; preset = 'smoke'"
    for code in [setup + "; source = 'auto'; seed = 0; start_method = 'auto'", *parts]:
        reply = kernel.run(code)
        assert not reply.error, reply.error
    assert (tmp_path / "scripts" / "train_prices.py").is_file()
    reply = kernel.run(COMPARE, timeout=300)
    assert not reply.error, reply.error
    assert [f"same on {n}" in reply.text for n in (1, 2, 3)] == [True] * 3
