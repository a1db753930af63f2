"""What a lesson's parameters mean on this machine."""

import os

PRESETS = ("smoke", "quick", "full")


def choose_world_size(world_size: int | None) -> int:
    """The number of ranks a lesson runs: what its parameter says, else what fits the machine.

    Args:
        world_size: A whole number from 1, or None for one rank a GPU, or 2 on the CPU.

    Raises:
        ValueError: ``world_size`` is neither.
    """
    if world_size is None:
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return gpus or 2
    if isinstance(world_size, bool) or not isinstance(world_size, int) or world_size < 1:
        raise ValueError(f"world_size={world_size!r}: a whole number from 1, or None, is needed")
    return world_size


def choose_preset(preset: str) -> str:
    """How much a lesson computes: the environment variable COURSE_PRESET, else its parameter.

    Args:
        preset: ``"smoke"`` (seconds, to see that it runs), ``"quick"`` (a laptop with 2 cores) or
            ``"full"`` (a GPU).

    Raises:
        ValueError: The preset that counts is none of these.
    """
    chosen = os.environ.get("COURSE_PRESET") or preset
    if chosen not in PRESETS:
        raise ValueError(f"preset={chosen!r}: choose one of {', '.join(PRESETS)}")
    return chosen
