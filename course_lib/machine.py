"""What this machine offers to a launch: cores, memory, GPUs, backends, data."""

import os
import platform
import shutil

from course_lib.group import choose_device, cores


def machine_facts() -> dict[str, str]:
    """Look at this machine.

    Returns:
        Short texts by name, in the order in which a reader asks: cores, memory, GPUs, what joins
        the ranks, versions, free disk, and where the data of the course lie.
    """
    import torch
    import torch.distributed as dist

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = {torch.cuda.get_device_name(i) for i in range(gpus)}
    backends = [name for name, there in _backends(dist).items() if there]
    return {
        "CPU cores": str(cores()),
        "memory": _gib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "GPUs": f"{gpus} × {', '.join(sorted(names))}" if gpus else "none",
        "free disk": _gib(shutil.disk_usage(os.getcwd()).free),
        "Python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "backends": ", ".join(backends),
        "here, ranks use": choose_device()[1].capitalize().replace("Nccl", "NCCL"),
        **{f"data: {title}": where for title, where in found_data().items()},
    }


def found_data() -> dict[str, str]:
    """Where each data set of the course lies, without loading or downloading any.

    Returns:
        Title → the file's path, or what will happen instead.
    """
    from course_lib.data import housing
    from course_lib.data._finding import data_folder

    found = {}
    for publication in (housing.PUBLICATION,):
        path = data_folder() / publication.file
        found[publication.title] = (
            str(path) if path.exists() else "not here yet: downloaded when a lesson first needs it"
        )
    return found


def _backends(dist) -> dict[str, bool]:
    return {"Gloo": dist.is_gloo_available(), "NCCL": dist.is_nccl_available()}


def _gib(n: int) -> str:
    return f"{n / 2**30:.0f} GiB"
