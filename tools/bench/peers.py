"""Install the peers, pinned, into a folder of their own: ``.venv`` stays as the lock has it."""

import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def install(folder: Path) -> Path:
    """Put the packages of ``requirements.txt`` into ``folder``, unless they are there.

    Returns:
        ``folder``, to be put on PYTHONPATH.

    Raises:
        SystemExit: pip failed; it has said why.
    """
    stamp = folder / REQUIREMENTS.name
    if stamp.exists() and stamp.read_bytes() == REQUIREMENTS.read_bytes():
        return folder
    print(f"Installing the peers of {REQUIREMENTS.name} into {folder}.", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--no-deps", "--target", folder, "-r", REQUIREMENTS])
    if done.returncode:
        raise SystemExit("bench: the peers cannot be installed; without a network, use --no-peers.")
    shutil.copy(REQUIREMENTS, stamp)
    return folder
