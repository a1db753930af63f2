"""What this machine offers to a launch: cores, memory, GPUs, backends, data."""

import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from course_lib.group import choose_device, cores

if TYPE_CHECKING:
    import torch

    from course_lib.data._finding import Publication


class DataSet(NamedTuple):
    """A data set of the course, and where it lies or would lie.

    Attributes:
        name: Its module in ``course_lib.data``.
        publication: Its title, its publisher, and the publisher's name of the file.
        path: Where its file or folder belongs; where its archive lies, if that is all there is.
    """

    name: str
    publication: "Publication"
    path: Path


def machine_facts() -> dict[str, str]:
    """Look at this machine.

    Returns:
        Short texts by name, in the order in which a reader asks: cores, memory, GPUs, what joins
        the ranks, versions, free disk, and where the data of the course lie.
    """
    facts = {**system_facts(), **torch_facts()}
    order = ("CPU cores", "memory", "GPUs", "free disk", "Python")
    return {
        **{name: facts.pop(name) for name in order},
        **facts,
        **{f"data: {title}": where for title, where in found_data().items()},
    }


def system_facts(folder: Path | None = None) -> dict[str, str]:
    """What there is to say without torch; the free disk is that of ``folder``, or of this one."""
    return {
        "CPU cores": str(cores()),
        "memory": _gib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "free disk": _gib(shutil.disk_usage(folder or os.getcwd()).free),
        "Python": platform.python_version(),
    }


def torch_facts() -> dict[str, str]:
    """What only torch can say: its version, GPUs, backends, and what ranks use here."""
    import torch
    import torch.distributed as dist

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = {torch.cuda.get_device_name(i) for i in range(gpus)}
    backends = [name for name, there in _backends(dist).items() if there]
    return {
        "GPUs": f"{gpus} × {', '.join(sorted(names))}" if gpus else "none",
        "torch": torch.__version__.split("+")[0],
        "backends": ", ".join(backends),
        "here, ranks use": choose_device()[1].capitalize().replace("Nccl", "NCCL"),
    }


def has_bfloat16(device: "torch.device | str" = "cpu") -> bool:
    """Whether this device multiplies bfloat16 in hardware. Where it only imitates, it is slower.

    Args:
        device: The CPU, or a CUDA device. Of any other kind the answer is False.
    """
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    has = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 may lack it
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def found_data() -> dict[str, str]:
    """Where each data set of the course lies, without loading or downloading any.

    Returns:
        Title → the file's path, or what will happen instead.
    """
    absent = "not here yet: downloaded when a lesson first needs it"
    return {
        publication.title: str(path) if path.exists() else absent
        for _, publication, path in data_sets()
    }


def data_sets() -> list[DataSet]:
    """Every data set of the course: those that ``course_lib.data`` lists.

    Raises:
        NotADirectoryError: The data folder is none; see ``data_folder``.
    """
    from course_lib import data

    published = {name: getattr(data, name).PUBLICATION for name in data._DATA_SETS}
    return [DataSet(name, p, _place(p)) for name, p in published.items()]


def _place(publication: "Publication") -> Path:
    from course_lib.data._finding import data_folder, lying

    folder = data_folder()
    packed = publication.packed and folder / publication.packed
    return (
        lying(publication)
        or (packed if packed and packed.exists() else None)
        or (folder / publication.file)
    )


def _backends(dist) -> dict[str, bool]:
    return {"Gloo": dist.is_gloo_available(), "NCCL": dist.is_nccl_available()}


def _gib(n: int) -> str:
    return f"{n / 2**30:.0f} GiB"
