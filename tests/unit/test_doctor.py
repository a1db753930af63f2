"""`course doctor`: true findings on a well machine, and a table whatever is broken."""

import json
import os
import sys
from pathlib import Path

import pytest
from courses import Shell
from jupyter_client.kernelspec import KernelSpecManager

from course_lib import _doctor, cli, machine
from course_lib._doctor import BROKEN, GOOD, NOTE
from course_lib.data import housing

OWN_BIN = Path(sys.executable).parent


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course's folder, with the shell standing in it, and no data."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    return tmp_path


def the(findings, name):
    (finding,) = [finding for finding in findings if finding.name == name]
    return finding


def with_broken(course, package, text):
    """A search path on which a package comes first that does ``text`` when imported."""
    folder = course / "broken"
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(text)
    return {"PYTHONPATH": str(folder)}


# ── the whole table ──────────────────────────────────────────────────────────────────────────────


def test_a_machine_that_can_run_lessons_is_well_although_data_are_missing(course, capsys):
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    lines = {line[4:26].strip(): line for line in said.splitlines() if line[2:3] in "✓!✗"}
    facts = machine.machine_facts()
    for name in ("CPU cores", "memory", "GPUs", "torch"):
        assert lines[name].startswith("  ✓")
        assert lines[name].endswith(facts[name])
    assert sys.executable in lines["Python"]
    assert facts["backends"] in lines["backends"]
    assert "spawn" in lines["start methods"]
    for name in ("packages", "kernel python3", "runs/", "scripts/", "free disk"):
        assert lines[name].startswith("  ✓"), lines[name]
    assert lines["California housing"].startswith("  !")
    for words in (
        housing.URL,
        "housing.csv",
        str(course / "data"),
        "`course data housing`",
        "COURSE_DATA",
    ):
        assert words in said
    assert "All that is needed is there" in said
    assert not (course / "runs").exists()
    assert sorted(path.name for path in course.iterdir()) == ["data", "notebooks"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raise ImportError('libtorch is missing')", "ImportError: libtorch is missing"),
        ("import os; os.abort()", "ended by SIGABRT"),
        ("__version__ = '0'", "torch.distributed"),
    ],
)
def test_a_broken_torch_is_a_line_of_the_table_with_what_to_do(course, text, says):
    with Shell("doctor", **with_broken(course, "torch", text)) as shell:
        code, said = shell.end()
    assert code == 1, said
    (line,) = [line for line in said.splitlines() if line.startswith("  ✗ torch ")]
    assert "cannot be used" in line
    assert says in line
    assert "delete .venv" in said
    assert "Traceback" not in said
    assert "✓ kernel python3" in said
    assert "California housing" in said


def test_a_check_that_itself_breaks_ends_no_other(course, monkeypatch):
    monkeypatch.setattr(_doctor, "_kernel", lambda: 1 / 0)
    findings = list(_doctor.examine(course))
    assert the(findings, "kernel").mark == BROKEN
    assert "ZeroDivisionError" in the(findings, "kernel").text
    assert the(findings, "scripts/").mark == GOOD


# ── each line ────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(
        _doctor.metadata,
        "requires",
        lambda _: ["numpy", "no-such-package>=2; python_version>'3'", "ruff-x; extra == 'dev'"],
    )
    (finding,) = _doctor._packages()
    assert (finding.mark, finding.text) == (BROKEN, "missing: no-such-package")
    assert "pip install" in finding.advice


def test_a_kernel_that_is_not_there(monkeypatch):
    monkeypatch.setattr(KernelSpecManager, "kernel_dirs", [])
    monkeypatch.setitem(sys.modules, "ipykernel.kernelspec", None)
    (finding,) = _doctor._kernel()
    assert (finding.mark, finding.name) == (BROKEN, "kernel python3")
    assert "-m pip install ipykernel" in finding.advice


@pytest.mark.parametrize(
    ("program", "mark", "says"),
    [
        ("/nowhere/python", BROKEN, "/nowhere/python cannot be run"),
        ("/bin/false", BROKEN, "does not start"),
        ("other", NOTE, "another Python"),
        ("python", GOOD, "of this environment"),
    ],
)
def test_the_kernels_interpreter_is_tried(course, monkeypatch, program, mark, says):
    if program == "other":
        program = str(course / "python-of-another-project")
        Path(program).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        Path(program).chmod(0o755)
    spec = course / "kernels" / "python3"
    spec.mkdir(parents=True)
    kernel = {"argv": [program], "display_name": "x", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setattr(KernelSpecManager, "kernel_dirs", [str(course / "kernels")])

    (finding,) = _doctor._kernel()
    assert (finding.mark, says in finding.text) == (mark, True), finding


def test_torchrun_on_the_path_is_this_environments(course, monkeypatch):
    monkeypatch.setenv("PATH", f"{OWN_BIN}:/bin")
    assert next(_doctor._torchrun()).mark == GOOD

    monkeypatch.setenv("PATH", str(course))
    (finding,) = _doctor._torchrun()
    assert (finding.mark, "not on PATH" in finding.text) == (NOTE, True)
    assert str(OWN_BIN) in finding.advice

    (course / "torchrun").write_text("#!/bin/sh\n")
    (course / "torchrun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{course}:{OWN_BIN}")
    (finding,) = _doctor._torchrun()
    assert (finding.mark, str(course / "torchrun") in finding.text) == (NOTE, True)


@pytest.mark.parametrize("place", ["file", "file/runs", "/proc/runs"])
def test_a_folder_that_cannot_be_written_to_is_broken(course, place):
    (course / "file").write_text("in the way")
    (finding,) = _doctor._folder(course / place)
    assert finding.mark == BROKEN
    assert place in finding.text
    assert "may write" in finding.advice


def test_little_disk_is_a_note(course, monkeypatch):
    usage = _doctor.shutil.disk_usage(course)._replace(free=10**8)
    monkeypatch.setattr(_doctor.shutil, "disk_usage", lambda _: usage)
    finding = the(list(_doctor._system(course)), "free disk")
    assert (finding.mark, "course clean" in finding.advice) == (NOTE, True)


def test_data_that_are_there_are_pointed_at(course):
    path = course / "data" / "housing.csv"
    path.write_text("whatever it holds")
    finding = the(_doctor._data(), "California housing")
    assert (finding.mark, finding.text.splitlines()[0]) == (GOOD, str(path))
    assert "course data --verify housing" in finding.text


def test_a_data_folder_that_is_none_is_broken(course, monkeypatch):
    (course / "file").touch()
    monkeypatch.setenv("COURSE_DATA", str(course / "file"))
    (finding,) = _doctor._data()
    assert (finding.mark, "not a folder" in finding.text) == (BROKEN, True)


def test_torch_that_never_answers_is_broken(monkeypatch):
    monkeypatch.setattr(_doctor, "_PATIENCE", 0.2)
    monkeypatch.setattr(_doctor, "_ASK_TORCH", "import time; time.sleep(60)")
    (finding,) = _doctor._torch()
    assert (finding.mark, "no answer within" in finding.text) == (BROKEN, True)


def test_a_module_of_the_same_name_in_this_folder_does_no_harm(course, monkeypatch):
    (course / "torch.py").write_text("raise ImportError('a file of the reader')")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    assert the(list(_doctor._torch()), "torch").mark == GOOD
