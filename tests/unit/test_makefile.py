"""The Makefile sets `.venv` up once, again when it must, and says what it cannot do.

The Python that it finds here is a few lines of shell that write down what they are asked: the tests
are about when something is installed, not about pip.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READY = ".venv/.ready"
PYTHON = """\
#!/bin/sh
echo "$@" >> "{log}"
case "$*" in
    *sys.exit*) exit {too_old} ;;
    --version) echo Python 3.12.0 ;;
    "-m venv --clear .venv") rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    "-m pytest"*) echo "data: $COURSE_DATA" >> "{log}" ;;
    *"-r requirements.lock"*) if [ -e no-network ]; then exit 1; fi ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile and a stand-in for Python, named python3.12."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    write_python(tmp_path, "python3.12", too_old=False)
    return tmp_path


def write_python(folder: Path, name: str, too_old: bool) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    path = folder / "bin" / name
    path.write_text(PYTHON.format(log=folder / "asked", too_old=int(too_old)))
    path.chmod(0o755)


def make(checkout: Path, *words: str) -> subprocess.CompletedProcess:
    """Run make with nothing on the path but the stand-ins and a few tools."""
    tools = checkout / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("sh", "rm", "mkdir", "cp", "touch", "mv", "sed", "command", "find", "ls"):
        if (there := shutil.which(name)) and not (tools / name).exists():
            (tools / name).symlink_to(there)
    path = f"{checkout / 'bin'}:{tools}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        [shutil.which("make"), *words],
        cwd=checkout,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


def asked(checkout: Path, text: str) -> int:
    """How often the Python was asked for something that contains ``text``."""
    log = checkout / "asked"
    return sum(text in line for line in log.read_text().splitlines()) if log.exists() else 0


def test_make_alone_lists_the_commands(checkout):
    said = make(checkout).stdout

    for command in ("run", "test", "check", "lab", "notebooks", "lock", "clean"):
        assert f"  {command} " in said
    assert not (checkout / ".venv").exists()


def test_set_up_happens_once(checkout):
    assert make(checkout, READY).returncode == 0
    assert make(checkout, READY).returncode == 0

    assert asked(checkout, "-m venv") == 1
    assert asked(checkout, "-r requirements.lock") == 1
    assert asked(checkout, "--no-deps --no-build-isolation -e .") == 1


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_what_has_changed_is_installed_into_the_same_venv(checkout, changed):
    make(checkout, READY)
    stamp = (checkout / READY).stat().st_mtime
    os.utime(checkout / changed, (stamp + 5, stamp + 5))

    assert make(checkout, READY).returncode == 0
    assert asked(checkout, "-m venv") == 1
    assert asked(checkout, "-r requirements.lock") == 2


def test_a_set_up_that_was_cut_off_is_made_anew(checkout):
    (checkout / "no-network").touch()
    assert make(checkout, READY).returncode != 0
    assert not (checkout / READY).exists()
    (checkout / "no-network").unlink()

    assert make(checkout, READY).returncode == 0
    assert (checkout / READY).exists()
    assert asked(checkout, "-m venv") == 2
    assert asked(checkout, "-e .") == 1


def test_a_venv_whose_python_is_gone_is_made_anew(checkout):
    make(checkout, READY)
    (checkout / ".venv/bin/python").unlink()
    (checkout / READY).unlink()

    assert make(checkout, READY).returncode == 0
    assert asked(checkout, "-m venv") == 2


def test_a_python_that_is_too_old_is_passed_over(checkout):
    write_python(checkout, "python3", too_old=True)

    run = make(checkout, READY)
    assert run.returncode == 0
    assert "python3.12" in run.stdout


def test_no_python_that_is_new_enough_is_a_clear_error(checkout):
    write_python(checkout, "python3.12", too_old=True)

    run = make(checkout, READY)
    assert run.returncode != 0
    assert "needs Python 3.11 or newer" in run.stderr
    assert "PYTHON=" in run.stderr
    assert not (checkout / ".venv").exists()


def test_the_python_asked_for_is_taken_or_refused_but_never_replaced(checkout):
    write_python(checkout, "mine", too_old=True)

    assert "needs Python 3.11" in make(checkout, READY, "PYTHON=mine").stderr
    write_python(checkout, "mine", too_old=False)
    assert "with mine" in make(checkout, READY, "PYTHON=mine").stdout


@pytest.mark.parametrize("name", ["my data", "{checkout}/my data"])
def test_tests_read_the_data_folder_they_are_given(checkout, name):
    (checkout / "my data").mkdir()

    run = make(checkout, "test", "COURSE_DATA=" + name.format(checkout=checkout))
    assert run.returncode == 0, run.stderr
    assert asked(checkout, f"data: {checkout}/my data") == asked(checkout, "data: ") == 3


def test_tests_read_a_folder_of_their_own_otherwise_and_fill_it_from_a_checkout_beside(checkout):
    beside = checkout / "beside"
    beside.mkdir()
    (beside / "unpack").touch()

    run = make(checkout, "check", f"SHARED_DATA={beside}", "COURSE_DATA=")
    assert run.returncode == 0, run.stderr
    assert asked(checkout, f"{beside}/unpack .cache/data") == 1
    assert asked(checkout, f"data: {checkout}/.cache/data") == 1
    assert "synthetic stand-ins" in run.stdout  # this unpack has unpacked nothing


def test_lock_without_uv_says_what_is_missing(checkout):
    before = (checkout / "requirements.lock").read_bytes()

    run = make(checkout, "lock")
    assert run.returncode != 0
    assert "needs uv" in run.stderr
    assert (checkout / "requirements.lock").read_bytes() == before


def start_lab(checkout: Path, user: int, *words: str) -> dict[str, str]:
    """What `make lab` starts as user number ``user``: its environment, and its words as ``""``."""
    assert make(checkout, READY).returncode == 0
    for path, script in (
        (checkout / "tools/id", f"echo {user}"),
        (checkout / ".venv/bin/python", f'env > "{checkout}/env"; echo "$@" > "{checkout}/words"'),
    ):
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    if not (checkout / "tools/env").exists():
        (checkout / "tools/env").symlink_to(shutil.which("env"))
    run = make(checkout, "lab", *words)
    assert run.returncode == 0, run.stderr
    lines = (line.partition("=") for line in (checkout / "env").read_text().splitlines())
    return {name: value for name, _, value in lines} | {"": (checkout / "words").read_text()}


def test_lab_takes_the_settings_of_the_course_and_writes_nothing_into_the_home(checkout):
    started = start_lab(checkout, 1000, "ARGS=--no-browser", "JUPYTER_CONFIG_PATH=/etc/mine")

    assert "-m jupyterlab" in started[""]
    assert "/lab/tree/notebooks/00_start_here.ipynb" in started[""]
    assert started[""].rstrip().endswith("--no-browser")
    assert started["JUPYTER_CONFIG_PATH"] == f"{checkout}/tools/jupyter:/etc/mine"
    assert started["JUPYTER_PREFER_ENV_PATH"] == "1"
    for place in ("JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR"):
        assert started[place].startswith(f"{checkout}/.cache/")


@pytest.mark.parametrize("user", [0, 1000])
def test_lab_lets_root_in_and_says_so_for_nobody_else(checkout, user):
    assert ("--allow-root" in start_lab(checkout, user)[""]) == (user == 0)
