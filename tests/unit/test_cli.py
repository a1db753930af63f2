"""The `course` command, and `course run` on tiny notebooks, executed by real kernels."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from courses import write

from course_lib import _lessons, _running, cli
from course_lib.results import collect_results

PARAMETERS = """\
import os
world_size: int | None = None  # ranks
rate: float = 0.1
seed: int = 0
preset: str = os.environ.get("COURSE_PRESET", "quick")
shuffle: bool = True
plain = 3
batch: int | str | None = "auto"
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course folder, with the shell standing in it."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return tmp_path


def executed(course: Path) -> Path:
    """The one notebook under runs/."""
    (path,) = (course / "runs").glob("*.ipynb")
    return path


def streams(path: Path) -> str:
    """What an executed notebook's cells have printed."""
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_help_has_a_line_for_every_command_and_imports_nothing_heavy(course):
    heavy = "{'torch', 'pandas', 'papermill', 'nbformat', 'matplotlib'} & set(sys.modules)"
    code = f"""
import sys
from course_lib import cli
try:
    cli.main(["--help"])
finally:
    print("heavy:", {heavy} or "none")
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout

    for command in ("doctor", "data", "run", "sweep", "clean"):
        assert re.search(rf"^    {command} +\w.{{10,}}$", said, re.MULTILINE), command
    assert "heavy: none" in said


# ── finding the lesson and reading the command line ──────────────────────────────────────────────


@pytest.mark.parametrize("asked", ["1", "01", "01_first", "notebooks/01_first.ipynb"])
def test_a_lesson_is_found_by_number_name_and_path(course, asked):
    path = write(course, "01_first", "1")
    write(course, "11_later", "1")

    assert _lessons.find_lesson(asked, course) == path


def test_an_unknown_lesson_is_refused_with_the_list_of_those_there_are(course, capsys):
    write(course, "01_first", "1")
    write(course, "11_later", "1")

    assert cli.main(["run", "12"]) == 2
    said = capsys.readouterr().err
    assert "no lesson 12" in said
    assert "01_first" in said
    assert "11_later" in said


@pytest.mark.parametrize("asked", ["11", "notebooks/11_gone.ipynb"])
def test_a_course_without_that_notebook_says_where_it_looked(course, capsys, asked):
    assert cli.main(["run", asked, "--root", str(course)]) == 2
    assert "notebooks" in capsys.readouterr().err


def test_the_root_is_found_from_a_folder_below_it(course):
    below = course / "notebooks" / "below"
    below.mkdir()

    assert _lessons.find_root(below) == course


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("world_size=4", 4),
        ("world_size=None", None),
        ("seed=-1", -1),
        ("rate=1e-3", 1e-3),
        ("rate=2", 2.0),
        ('preset=it\'s "a=b"', 'it\'s "a=b"'),
        ("preset=None", "None"),
        ("preset=7", "7"),
        ("shuffle=false", False),
        ("plain=5", 5),
        ("batch=5", 5),
        ("batch=none", None),
        ("batch=all", "all"),
    ],
)
def test_a_value_gets_the_type_the_lesson_declares(course, pair, value):
    parameters = _lessons.read_parameters(write(course, "11_a", "tags:parameters\n" + PARAMETERS))

    (parsed,) = _lessons.parse_values([pair], parameters).values()
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (["wrld_size=2"], "no parameter 'wrld_size'"),
        (["os=2"], "no parameter 'os'"),
        (["seed=two"], "seed=two does not fit the lesson's `seed: int = 0`"),
        (["seed=None"], "does not fit"),
        (["world_size=2.5"], "does not fit"),
        (["shuffle=maybe"], "does not fit"),
        (["seed"], "-p NAME=VALUE"),
        (["seed=1", "seed=2"], "given twice"),
    ],
)
def test_a_bad_parameter_is_refused_before_anything_runs(course, capsys, pairs, says):
    write(course, "11_a", "tags:parameters\n" + PARAMETERS)

    assert cli.main(["run", "11", *(word for pair in pairs for word in ("-p", pair))]) == 2
    assert says in capsys.readouterr().err
    assert not (course / "runs").exists()


def test_an_unknown_parameter_is_answered_with_the_allowed_ones(course, capsys):
    write(course, "11_a", "tags:parameters\n" + PARAMETERS)

    cli.main(["run", "11", "-p", "x=1"])
    said = capsys.readouterr().err
    assert "world_size: int | None = None" in said
    assert "plain: int = 3" in said


@pytest.mark.parametrize("text", ["not a notebook", '{"cells": 3}'])
def test_a_file_that_is_no_notebook_is_named(course, capsys, text):
    (course / "notebooks" / "11_a.ipynb").write_text(text)

    assert cli.main(["run", "11"]) == 2
    assert "11_a.ipynb" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_runs(course, capsys):
    write(course, "11_a", "open('ran', 'w')")
    (course / "file").write_text("in the way")

    assert cli.main(["run", "11", "--out", "file/runs"]) == 2
    assert "file/runs" in capsys.readouterr().err
    assert not (course / "notebooks" / "ran").exists()


# ── a run that goes well ─────────────────────────────────────────────────────────────────────────


def test_a_run_passes_values_data_folder_and_interpreter_to_the_kernel(course, monkeypatch):
    write(
        course,
        "11_a",
        "tags:parameters\n" + PARAMETERS,
        "import json, os, sys\n"
        "print(json.dumps([world_size, rate, seed, preset, shuffle, plain, os.getcwd(),"
        " os.environ['COURSE_DATA'], sys.executable]))",
    )
    # Another project's kernel of the same name in the user's home must not be taken.
    spec = course / "home" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "no"}))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(course / "home"))
    monkeypatch.delenv("JUPYTER_PREFER_ENV_PATH", raising=False)
    monkeypatch.setenv("COURSE_DATA", "my data")

    given = ["world_size=4", "rate=0.5", "preset=it's", "shuffle=false"]
    assert cli.main(["run", "11", *(word for pair in given for word in ("-p", pair))]) == 0
    assert json.loads(streams(executed(course))) == [
        4,
        0.5,
        0,
        "it's",
        False,
        3,
        str(course / "notebooks"),
        str(course / "my data"),
        sys.executable,
    ]


def test_a_run_ends_with_the_recorded_results_and_the_notebooks_path(course, capsys):
    source = write(
        course,
        "11_a",
        "from course_lib import record_results\n"
        "record_results(world_size=2, data_origin='real')\n"
        "record_results(test_rmse_dollars=43577.0)",
        "tags:raises-exception\n1 / 0",
        "print('after the expected error')",
    )
    before = source.read_bytes()

    assert cli.main(["run", "11"]) == 0
    said = capsys.readouterr()
    assert re.search(r"^  test_rmse_dollars +43,577 \$$", said.out, re.MULTILINE)
    assert re.search(r"^  world_size +2$", said.out, re.MULTILINE)
    assert said.out.rstrip().endswith(str(executed(course)))
    assert "SYNTHETIC" not in said.out
    assert "100%" in said.err
    assert "after the expected error" in streams(executed(course))
    assert source.read_bytes() == before


def test_synthetic_data_are_announced_loudly(course, capsys):
    write(
        course,
        "11_a",
        "from course_lib import record_results\nrecord_results(data_origin='synthetic')",
    )

    assert cli.main(["run", "11"]) == 0
    assert "!!  SYNTHETIC DATA" in capsys.readouterr().out


def test_a_second_run_keeps_the_first(course, capsys):
    write(course, "11_a", "1")

    assert cli.main(["run", "11"]) == 0
    assert cli.main(["run", "11"]) == 0
    assert len(list((course / "runs").glob("11_a-*.ipynb"))) == 2
    assert "records no results" in capsys.readouterr().out


def test_two_runs_of_one_second_get_two_files(course, monkeypatch):
    monkeypatch.setattr(_running.time, "strftime", lambda _: "now")

    names = [_running._new_file(course / "runs", "11_a").name for _ in range(2)]
    assert names == ["11_a-now.ipynb", "11_a-now-2.ipynb"]


# ── a run that does not ──────────────────────────────────────────────────────────────────────────


def test_a_failing_cell_is_named_with_its_error_and_the_notebook_is_kept(course, capsys):
    write(
        course,
        "11_a",
        "# Title",
        "print('before')",
        "## One step\n\nprose",
        "raise KeyError('label 17')",
        "## The next step",
        "print('never')",
    )

    assert cli.main(["run", "11"]) == 1
    said = capsys.readouterr().err
    assert 'In [2], under "One step"' in said
    assert "KeyError: 'label 17'" in said
    assert "\x1b[" not in said
    assert str(executed(course)) in said
    assert streams(executed(course)) == "before\n"
    assert collect_results(executed(course)).failed.tolist() == [True]


def test_a_long_error_keeps_its_first_and_its_last_lines(course, capsys):
    write(course, "11_a", "raise ValueError('\\n'.join(f'line {n}' for n in range(99)))")

    assert cli.main(["run", "11"]) == 1
    said = capsys.readouterr().err
    assert "raise ValueError" in said
    assert "line 98" in said
    assert "line 50\n" not in said
    assert "lines more in the notebook" in said
    assert len(said.splitlines()) < 60


def test_a_kernel_that_dies_is_a_failure_of_the_cell_it_died_in(course, capsys):
    write(
        course,
        "11_a",
        "print('before')",
        "## The end",
        "import os, sys\nprint('last words', file=sys.__stderr__, flush=True)\nos.abort()",
        "print('never')",
    )

    assert cli.main(["run", "11"]) == 1
    said = capsys.readouterr().err
    assert 'In [2], under "The end"' in said
    assert "the kernel died" in said
    assert "last words" in said
    assert collect_results(executed(course)).failed.tolist() == [True]


def test_what_processes_write_past_the_kernel_stays_out_of_the_terminal(course, capfd):
    write(course, "11_a", "import os\nos.system('echo from a child; echo to stderr >&2')")

    assert cli.main(["run", "11"]) == 0
    said = capfd.readouterr()
    assert "from a child" not in said.out
    assert "to stderr" not in said.err


@pytest.mark.faults
def test_an_interrupt_ends_the_kernel_and_its_ranks_and_says_so(course):
    pipe = course / "pipe"
    os.mkfifo(pipe)
    write(
        course,
        "11_a",
        "## Waiting",
        f"""
import os, time
from course_lib import launch

kernel = os.getpid()

def wait():
    with open({str(pipe)!r}, "w") as pipe:
        pipe.write(f"{{os.getpid()}} {{kernel}}\\n")
    time.sleep(600)

launch(wait)
""",
        "print('never')",
    )
    shell = subprocess.Popen(
        [sys.executable, "-m", "course_lib.cli", "run", "11"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        with open(os.open(pipe, os.O_RDWR), encoding="utf-8") as ready:
            pids = {int(pid) for _ in range(2) for pid in ready.readline().split()}
        processes = [psutil.Process(pid) for pid in pids]
        os.killpg(shell.pid, signal.SIGINT)
        said, _ = shell.communicate(timeout=60)
    finally:
        shell.kill()
    assert shell.returncode == 130, said
    assert 'Interrupted in In [1], under "Waiting"' in said
    assert "kernel has been ended" in said
    assert "Traceback" not in said
    assert len(processes) == 3
    _, left = psutil.wait_procs(processes, timeout=5)
    assert not any(is_alive(process) for process in left)
    assert str(executed(course)) in said
    assert collect_results(executed(course)).failed.tolist() == [True]
