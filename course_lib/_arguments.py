"""Refuse arguments that no launcher can carry out, by name, before any process starts."""

import torch

from course_lib.group import DEVICES


def check_whole_number(name: str, value: int, least: int = 1) -> None:
    """Refuse what is no whole number from ``least``.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: a whole number is needed")
    if value < least:
        raise ValueError(f"{name}={value}: at least {least} is needed")


def check_seconds(name: str, value: float) -> None:
    """Refuse what is no positive number of seconds.

    Raises:
        TypeError: It is no number.
        ValueError: It is not positive.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r}: a number of seconds is needed")
    if not value > 0:
        raise ValueError(f"{name}={value}: a positive number of seconds is needed")


def check_device(device: str) -> None:
    """Refuse an unknown device.

    Raises:
        ValueError: ``device`` is none of ``DEVICES``.
    """
    if device not in DEVICES:
        raise ValueError(f"device={device!r}: choose one of {', '.join(DEVICES)}")


def check_gpus(device: str, ranks: int, what: str) -> None:
    """Refuse ``device="cuda"`` for more ranks than this machine has GPUs.

    Args:
        device: A known device.
        ranks: Ranks that will run on this machine.
        what: What asks for them, as the reader wrote it: ``nprocs=4``.

    Raises:
        ValueError: There are too few GPUs.
    """
    gpus = torch.cuda.device_count() if device == "cuda" else ranks
    if gpus < ranks:
        raise ValueError(
            f"device='cuda' with {what}: this machine has {gpus} usable GPUs, and NCCL "
            "wants one a rank; use fewer ranks, or device='auto'"
        )
