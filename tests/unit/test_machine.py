"""The facts of this machine: all there, true, and nothing downloaded to learn them."""

import dataclasses
import platform

import psutil
import pytest
import torch

from course_lib import group
from course_lib.data import cifar10, housing, imdb, stocks, unsw_nb15
from course_lib.machine import found_data, has_bfloat16, machine_facts

CIFAR10, HOUSING = "data: CIFAR-10", "data: California housing"
IMDB, STOCKS = "data: IMDb reviews", "data: Stock prices"
FLOWS = "data: UNSW-NB15 flows"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty data folder, and a publisher that must not be asked."""

    def fetch(path):
        raise AssertionError("machine_facts asked the publisher")

    for module in (cifar10, housing, imdb, stocks, unsw_nb15):
        refusing = dataclasses.replace(module.PUBLICATION, fetch=fetch)
        monkeypatch.setattr(module, "PUBLICATION", refusing)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


@pytest.fixture
def gpus(monkeypatch):
    def pretend(*names: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(names))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: names[i])

    return pretend


def test_every_fact_is_there_and_true(gpus):
    gpus()
    facts = machine_facts()
    assert list(facts) == [
        "CPU cores",
        "memory",
        "GPUs",
        "free disk",
        "Python",
        "torch",
        "backends",
        "here, ranks use",
        CIFAR10,
        HOUSING,
        IMDB,
        STOCKS,
        FLOWS,
    ]
    assert all(isinstance(text, str) and text for text in facts.values())
    assert facts["CPU cores"] == str(group.cores())
    assert facts["memory"] == f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    assert facts["Python"] == platform.python_version()
    assert torch.__version__.startswith(facts["torch"])
    assert "+" not in facts["torch"]
    assert "Gloo" in facts["backends"]
    assert (facts["GPUs"], facts["here, ranks use"]) == ("none", "Gloo")


@pytest.mark.parametrize(
    ("names", "text"),
    [(["H200", "H200"], "2 × H200"), (["T4", "A100", "T4"], "3 × A100, T4")],
)
def test_gpus_are_counted_and_named(gpus, names, text):
    gpus(*names)
    facts = machine_facts()
    assert (facts["GPUs"], facts["here, ranks use"]) == (text, "NCCL")


def test_data_that_are_not_here_stay_away(folder):
    assert machine_facts()[HOUSING].startswith("not here yet")
    assert list(folder.iterdir()) == []


def test_data_that_are_here_are_pointed_at_and_not_read(folder):
    file = folder / "housing.csv"
    file.write_text("whatever it holds")
    assert found_data()["California housing"] == str(file)
    assert machine_facts()[HOUSING] == str(file)


@pytest.mark.parametrize(
    ("has", "answer"),
    [
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_there_if_the_chip_multiplies_it(monkeypatch, has, answer):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert has_bfloat16() is answer
    assert has_bfloat16(torch.device("cpu")) is answer
    assert has_bfloat16("meta") is False


def test_bfloat16_where_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_bfloat16("cpu") is False


@pytest.mark.parametrize("answer", [True, False])
def test_bfloat16_on_a_gpu_is_asked_without_imitation(monkeypatch, answer):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or answer)
    assert has_bfloat16("cuda:1") is answer
    assert asked == [{"including_emulation": False}]
