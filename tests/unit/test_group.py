"""The rules that every launcher's ranks share: which device, which backend, how many threads."""

import math

import pytest
import torch
import torch.distributed as dist

from course_lib import group
from course_lib.group import choose_device, process_group, set_threads


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Neither a launch nor a wish; torch computes with as many threads afterwards as before."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.delenv("COURSE_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def machine(monkeypatch):
    """Make torch see a number of GPUs, and this process be one of some local ranks."""

    def pretend(gpus: int, local_ranks: int | None = None, local_rank: int = 0) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        if local_ranks is not None:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local_ranks))
            monkeypatch.setenv("LOCAL_RANK", str(local_rank))

    return pretend


# --- the device ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "gpus", "local_ranks", "local_rank", "device", "backend"),
    [
        ("auto", 0, None, 0, "cpu", "gloo"),
        ("auto", 1, None, 0, "cuda:0", "nccl"),
        ("auto", 2, 2, 1, "cuda:1", "nccl"),
        ("auto", 4, 2, 1, "cuda:1", "nccl"),
        ("auto", 1, 2, 0, "cpu", "gloo"),  # NCCL refuses two ranks on one GPU
        ("auto", 7, 8, 3, "cpu", "gloo"),
        ("", 2, 2, 0, "cuda:0", "nccl"),  # an empty variable is no wish
        ("cpu", 8, 2, 1, "cpu", "gloo"),
        ("cuda", 2, 2, 1, "cuda:1", "nccl"),
    ],
)
def test_nccl_only_when_each_local_rank_has_a_gpu(
    machine, monkeypatch, wish, gpus, local_ranks, local_rank, device, backend
):
    machine(gpus, local_ranks, local_rank)
    monkeypatch.setenv("COURSE_DEVICE", wish)
    assert choose_device() == (torch.device(device), backend)


def test_a_library_that_counts_gpus_it_cannot_use(machine, monkeypatch):
    machine(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == (torch.device("cpu"), "gloo")


@pytest.mark.parametrize("wish", ["gpu", "CUDA", "cuda:0", "none"])
def test_an_unknown_device_is_named(machine, monkeypatch, wish):
    machine(2)
    monkeypatch.setenv("COURSE_DEVICE", wish)
    with pytest.raises(ValueError, match=f"COURSE_DEVICE='{wish}': choose one of auto, cpu, cuda"):
        choose_device()


@pytest.mark.parametrize(("gpus", "local_ranks"), [(0, 1), (1, 2), (3, 4)])
def test_gpus_that_are_not_there(machine, monkeypatch, gpus, local_ranks):
    machine(gpus, local_ranks)
    monkeypatch.setenv("COURSE_DEVICE", "cuda")
    with pytest.raises(ValueError, match=f"needs {local_ranks} GPUs and finds {gpus}: use fewer"):
        choose_device()


# --- threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "local_ranks", "wish", "threads"),
    [
        (6, None, None, 6),
        (6, "2", None, 3),
        (6, "4", None, 1),
        (2, "5", None, 1),  # never none at all
        (6, "2", "5", 5),
        (6, "2", "", 3),
    ],
)
def test_threads_are_the_cores_shared_out(monkeypatch, cores, local_ranks, wish, threads):
    monkeypatch.setattr(group, "cores", lambda: cores)
    for name, value in (("LOCAL_WORLD_SIZE", local_ranks), ("COURSE_THREADS", wish)):
        if value is not None:
            monkeypatch.setenv(name, value)
    torch.set_num_threads(4)
    assert set_threads() == threads
    assert torch.get_num_threads() == threads


# --- a group of one, without a launcher ---------------------------------------------------------


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    monkeypatch.setenv("COURSE_THREADS", "1")
    yield
    assert not dist.is_initialized(), "the test left a process group open"


@pytest.mark.usefixtures("on_cpu")
def test_a_group_of_one_knows_itself_and_reduces(capsys):
    for _ in range(2):  # it can be joined again
        with process_group() as pg:
            assert (pg.rank, pg.world_size, pg.local_rank) == (0, 1, 0)
            assert (pg.device, pg.backend) == (torch.device("cpu"), "gloo")
            assert (dist.get_backend(), torch.get_num_threads()) == ("gloo", 1)
            one = torch.ones(3)
            dist.all_reduce(one)
            assert one.tolist() == [1, 1, 1]
        assert not dist.is_initialized()
    said = "process group: 1 rank, Gloo on CPU, 1 thread each\n"
    assert capsys.readouterr().out == 2 * said


@pytest.mark.usefixtures("on_cpu")
def test_an_inner_group_is_refused_and_the_outer_one_lives_on():
    with process_group():
        with pytest.raises(RuntimeError, match="open already"), process_group():
            pass
        dist.barrier()


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("error", [KeyError("label 17"), KeyboardInterrupt()], ids=type)
def test_an_error_passes_through_and_the_group_is_left(error):
    with pytest.raises(type(error)) as caught, process_group():
        raise error
    assert caught.value is error
    assert not dist.is_initialized()


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("timeout", [0, -1, -math.inf, math.nan])
def test_a_timeout_that_is_none(timeout):
    with pytest.raises(ValueError, match="a positive number of seconds"), process_group(timeout):
        pass


@pytest.mark.usefixtures("on_cpu")
def test_the_timeout_reaches_the_collectives():
    with process_group(timeout=12):
        options = dist.group.WORLD._get_backend(torch.device("cpu")).options
        assert options._timeout.total_seconds() == 12


@pytest.mark.usefixtures("on_cpu")
def test_a_bad_device_opens_nothing(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "tpu")
    with pytest.raises(ValueError, match="tpu"), process_group():
        pass
