"""What world_size=None and preset= mean on this machine."""

import pytest
import torch

from course_lib.parameters import choose_preset, choose_world_size


@pytest.fixture
def gpus(monkeypatch):
    def pretend(seen: int, usable: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)

    return pretend


@pytest.mark.parametrize(
    ("seen", "usable", "ranks"),
    [(0, False, 2), (0, True, 2), (3, False, 2), (1, True, 1), (4, True, 4)],
)
def test_none_means_a_rank_for_each_gpu_or_two(gpus, seen, usable, ranks):
    gpus(seen, usable)
    assert choose_world_size(None) == ranks


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_a_number_is_taken_whatever_the_machine_has(gpus, world_size):
    gpus(8)
    assert choose_world_size(world_size) == world_size


@pytest.mark.parametrize("world_size", [0, -1, True, False, 2.0, "2"])
def test_no_number_of_ranks(world_size):
    with pytest.raises(ValueError, match=r"world_size=.*a whole number from 1, or None"):
        choose_world_size(world_size)


@pytest.mark.parametrize(
    ("variable", "parameter", "preset"),
    [
        (None, "quick", "quick"),
        (None, "full", "full"),
        ("", "quick", "quick"),
        ("smoke", "quick", "smoke"),
        ("smoke", "nonsense", "smoke"),
    ],
)
def test_the_environment_goes_before_the_parameter(monkeypatch, variable, parameter, preset):
    monkeypatch.delenv("COURSE_PRESET", raising=False)
    if variable is not None:
        monkeypatch.setenv("COURSE_PRESET", variable)
    assert choose_preset(parameter) == preset


@pytest.mark.parametrize(("variable", "parameter"), [(None, "fast"), (None, ""), ("Quick", "full")])
def test_an_unknown_preset_is_named(monkeypatch, variable, parameter):
    monkeypatch.delenv("COURSE_PRESET", raising=False)
    if variable:
        monkeypatch.setenv("COURSE_PRESET", variable)
    with pytest.raises(ValueError, match=f"preset='{variable or parameter}': choose one of smoke"):
        choose_preset(parameter)
