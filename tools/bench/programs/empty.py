"""The empty function, and the one that asks what memory a rank takes; also a torchrun script."""

import sys


def empty(*_):
    """Nothing at all: what is left is the launching."""


def memory(_rank, folder, nprocs, ready):
    """Write this rank's share of the memory (PSS, bytes) while all ranks are alive.

    With ``ready`` it first makes an optimizer, as every rank that trains does.
    """
    import os
    import time
    from pathlib import Path

    if ready:
        import torch

        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    folder, me = Path(folder), os.getpid()

    def meet(suffix):
        end = time.monotonic() + 60
        while len(list(folder.glob(f"*.{suffix}"))) < nprocs:
            if time.monotonic() > end:
                raise TimeoutError(f"not all ranks are {suffix}")
            time.sleep(0.01)

    (folder / f"{me}.up").touch()
    meet("up")
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (kibibytes,) = [line.split()[1] for line in lines if line.startswith("Pss:")]
    (folder / f"{me}.part").write_text(str(int(kibibytes) * 1024))
    (folder / f"{me}.part").rename(folder / f"{me}.pss")
    meet("pss")


if __name__ == "__main__":
    import torch  # noqa: F401 - a rank that trains has it

    if sys.argv[1:]:
        memory(None, sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True")
