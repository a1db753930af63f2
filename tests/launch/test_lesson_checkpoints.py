"""Lesson 31's fine-tuning takes any encoder: two small checkpoints of unlike architectures."""

import json
from pathlib import Path

import nbformat
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

LESSON = Path(__file__).parents[2] / "notebooks" / "31_imdb_pretrained.ipynb"
# The cells that the fine-tuning is made of, by a line each of them has; without the pretraining.
CELLS = [
    "from course_lib.checkpoints import find",
    "from transformers import AutoConfig",
    "names = [name.strip()",
    "data = imdb.load(source)",
    "class Judge(",
    "readers = {",
    "def read(path",
    "def fine_tune(",
    "def train(name",
]
STILL = {  # how each of them turns its dropout off
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0},
}
COMPARE = """
for name, still in STILL.items():
    how = still | {"device": "cpu"}
    runs = [launch(train, name, fit[:200], 1, 1e-3, valid[:50], nprocs=n, **how) for n in (1, 2)]
    one, two = (run[0] for run in runs)
    assert len(one[0]) == 3 and two[2].sum() == 50
    assert all(abs(a - b) < 1e-5 for a, b in zip(one[0], two[0], strict=True)), (one[0], two[0])
    print(name, "learns alike on 1 and 2 ranks")
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A data folder with two checkpoints in it, of random weights."""
    torch.manual_seed(0)
    data = tmp_path_factory.mktemp("data")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"##{letter}" for letter in words[5:]]
    size = {"vocab_size": len(words), "max_position_embeddings": 256}
    bert = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **size
    )
    distilbert = DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, **size)
    made = {"bert": BertForMaskedLM(bert), "distilbert": DistilBertForMaskedLM(distilbert)}
    for name, model in made.items():
        folder = data / "models" / name
        model.save_pretrained(folder)
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
        lower = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(lower))
    return data


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_architectures_under_ddp(new_kernel, models):
    cells = [c.source for c in nbformat.read(LESSON, as_version=4).cells if c.cell_type == "code"]
    parts = [next(c for c in cells if line in c) for line in CELLS]
    parts.insert(4, "folder = found['bert']")
    kernel = new_kernel(COURSE_DATA=str(models), COURSE_OFFLINE="1")
    setup = (
        "world_size = 2; preset = 'smoke'; source = 'synthetic'; seed = 0; start_method = 'auto'"
    )
    setup += f"; checkpoints = 'bert, distilbert'; STILL = {STILL!r}"
    for code in [setup, *parts, COMPARE]:
        reply = kernel.run(code)
        assert not reply.error, reply.error
    for name in STILL:
        assert f"{name} learns alike on 1 and 2 ranks" in reply.text
