"""`course sweep`: the whole grid, whatever happens on the way; real kernels, processes, signals."""

import io
import json
import os
import resource
import signal
import sys

import nbformat
import pandas as pd
import psutil
import pytest
from courses import Shell, write
from PIL import Image

from course_lib import _files, _lessons, _running, _sweep, _sweep_plan, _sweep_report, cli
from course_lib.results import MIME

PARAMETERS = """tags:parameters
world_size: int | None = None
seed: int = 0
rate: float = 0.1
kind: str = "plain"
"""
RECORD = """
from course_lib import record_results
record_results(
    seed=seed, world_size=world_size or 2, data_origin="real", a_count=7, train_seconds=1.5,
    test_rmse_dollars=40_000.0 + 1000 * (world_size or 2) + 10 * seed,
)
"""
FAILS_AT_2 = "## Training\n\nprose", "if world_size == 2:\n    raise KeyError('label 17')"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course folder, with the shell standing in it."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return tmp_path


def folder_of(course):
    (folder,) = (course / "runs").glob("sweep-11_a-*")
    return folder


def results(course):
    return pd.read_csv(folder_of(course) / "results.csv")


def count(path):
    return len(list(folder_of(path).glob("*.ipynb")))


def executed(folder, name, values, recorded=None, complete=True):
    """A notebook as a run leaves it."""
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("…", execution_count=1)
    cell.metadata.papermill = {"end_time": "2001-01-01T00:00:00" if complete else None}
    if recorded is not None:
        data = {MIME: recorded, "text/plain": "…"}
        cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    notebook.cells = [cell]
    notebook.metadata.papermill = {"parameters": values}
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


# ── the command line ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["12", "-p", "seed=1"], "no lesson 12"),
        (["11", "-p", "sed=1,2"], "no parameter 'sed'"),
        (["11", "-p", "seed=0,one"], "seed=one does not fit the lesson's `seed: int = 0`"),
        (["11", "-p", "seed=0,,1"], "empty value"),
        (["11", "-p", "seed=0,1,"], "empty value"),
        (["11", "-p", "seed=1,0,1"], "names 1 twice"),
        (["11", "-p", "rate=0.1,1e-1"], "names 0.1 twice"),
        (["11", "-p", "seed=1", "-p", "seed=2"], "given twice"),
        (["11"], "world_size: int | None = None"),
        (["11", "-p", "seed=1", "--out", "file/runs"], "file/runs"),
        (["11", "-p", "seed=1", "--out", "/proc/no"], "/proc/no"),
        (["--continue", "notebooks"], "not the folder of a sweep"),
        (["--continue", "nowhere"], "nowhere is not the folder of a sweep"),
        (["--continue", "notebooks", "-p", "seed=1"], "--continue takes parameters"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_anything_runs(course, capsys, words, says):
    write(course, "11_a", PARAMETERS, "open('ran', 'w')")
    (course / "file").write_text("in the way")

    assert cli.main(["sweep", *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("course: ")
    assert not (course / "runs").exists()
    assert not (course / "notebooks" / "ran").exists()


def test_a_lesson_or_a_folder_but_not_both_and_not_neither(course, capsys):
    for words in ([], ["11", "--continue", "x"]):
        with pytest.raises(SystemExit) as end:
            cli.main(["sweep", *words])
        assert end.value.code == 2


def test_the_grid_holds_every_combination_and_the_last_parameter_changes_fastest(course):
    parameters = _lessons.read_parameters(write(course, "11_a", PARAMETERS))
    grid = _lessons.parse_grid(["world_size=None,2", "rate=1,0.5"], parameters)
    plan = _sweep_plan.Plan(course, grid, course, "")

    assert plan.combinations() == [
        {"world_size": None, "rate": 1.0},
        {"world_size": None, "rate": 0.5},
        {"world_size": 2, "rate": 1.0},
        {"world_size": 2, "rate": 0.5},
    ]


# ── a sweep with real kernels ────────────────────────────────────────────────────────────────────


def test_a_failed_run_is_told_and_loses_no_other_and_is_done_again_on_request(course, capsys):
    source = write(course, "11_a", PARAMETERS, *FAILS_AT_2, RECORD)

    assert cli.main(["sweep", "11", "-p", "world_size=1,2,4", "-p", "seed=5"]) == 1
    said = capsys.readouterr()
    table = results(course)
    assert "✓ 1 of 3, world_size=1" in said.out
    assert "world_size=2: failed in In [3], under \"Training\": KeyError: 'label 17'" in said.out
    assert "Traceback" not in said.out + said.err
    assert list(table.columns[:2]) == ["world_size", "seed"]
    assert list(table.columns[-3:]) == ["failed", "error", "notebook"]
    assert table.world_size.tolist() == [1, 2, 4]
    assert table.failed.tolist() == [False, True, False]
    assert table.error[1] == "KeyError: 'label 17'"
    assert table.test_rmse_dollars.dropna().tolist() == [41_050.0, 44_050.0]
    assert all((folder_of(course) / name).is_file() for name in table.notebook)
    assert "41,050" in said.out
    assert "In all runs: seed=5" in said.out
    assert f"course sweep --continue {os.path.relpath(folder_of(course))}" in said.out
    picture = Image.open(io.BytesIO((folder_of(course) / "figure.png").read_bytes()))
    assert picture.format == "PNG"
    assert picture.width > 600

    # Mended, the lesson is only run where it had failed.
    source.write_text(source.read_text().replace("raise KeyError", "print"))
    assert cli.main(["sweep", "--continue", str(folder_of(course))]) == 0
    said = capsys.readouterr().out
    assert "code has changed" in said
    assert "2 of them done before" in said
    assert "✓ 3 of 3, world_size=2" in said
    assert "world_size=1:" not in said
    assert results(course).failed.tolist() == [False] * 3
    assert count(course) == 4  # the failed run's notebook is kept

    # With nothing left to do, it shows the results again, drawn as asked.
    assert cli.main(["sweep", "--continue", str(folder_of(course)), "--show", "a_count"]) == 0
    said = capsys.readouterr().out
    assert "(a_count;" in said
    assert "✓" not in said
    assert count(course) == 4


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_ended_goes_on_from_where_it_was(course, number):
    pipe = course / "pipe"
    os.mkfifo(pipe)
    wait = f"""
import os, time
if world_size == 2 and os.path.exists({str(pipe)!r}):
    with open({str(pipe)!r}, "w") as pipe:
        pipe.write(f"{{os.getpid()}}\\n")
    time.sleep(600)
"""
    write(course, "11_a", PARAMETERS, "## Waiting", wait, RECORD)
    with Shell("sweep", "11", "-p", "world_size=1,2,4") as shell:
        with open(os.open(pipe, os.O_RDWR), encoding="utf-8") as ready:
            kernel = psutil.Process(int(ready.readline()))
        shell.send(number)
        code, said = shell.end()
    if number == signal.SIGKILL:
        kernel.kill()  # nobody was left to end it
    else:
        assert code == 130, said
        assert 'Interrupted in In [3], under "Waiting", in the run of world_size=2' in said
        assert "Traceback" not in said
        assert "✓ 1 of 3, world_size=1" in said
        assert "2 of 3 runs have not succeeded" in said
        assert f"course sweep --continue runs/{folder_of(course).name}" in said
        table = results(course)
        assert table.world_size.tolist() == [1, 2]
        assert table.failed.tolist() == [False, True]
        assert "KeyboardInterrupt" in table.error[1]
    psutil.wait_procs([kernel], timeout=30)
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE
    pipe.unlink()

    with Shell("sweep", "--continue", folder_of(course)) as shell:
        code, said = shell.end()
    assert code == 0, said
    assert "1 of them done before" in said
    assert "world_size=1:" not in said
    assert results(course).world_size.tolist() == [1, 2, 4]
    assert not results(course).failed.any()
    assert count(course) == 4


@pytest.mark.faults
def test_a_disk_that_takes_no_more_ends_the_sweep_with_one_message(course, capsys):
    fat = "print('x' * 3_000_000 if world_size == 2 else 'thin')"
    write(course, "11_a", PARAMETERS, fat, RECORD)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        code = cli.main(["sweep", "11", "-p", "world_size=1,2,4"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr()
    assert code == 2
    assert said.err.count("course: ") == 1
    assert "File too large" in said.err
    assert "Traceback" not in said.err
    assert "✓ 1 of 3, world_size=1" in said.out
    assert "world_size=4" not in said.out.split("runs: ")[1]
    assert "--continue" in said.out
    assert results(course).world_size.tolist() == [1]


def test_a_kernel_that_is_not_installed_is_one_clear_message(course, capsys, monkeypatch):
    from jupyter_client.kernelspec import KernelSpecManager

    write(course, "11_a", PARAMETERS)
    monkeypatch.setattr(KernelSpecManager, "kernel_dirs", [])
    monkeypatch.setitem(sys.modules, "ipykernel.kernelspec", None)

    for words in (["run", "11"], ["sweep", "11", "-p", "seed=0,1"]):
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert "There is no kernel named python3" in said
        assert "pip install ipykernel" in said
        assert "Traceback" not in said


def test_a_kernel_whose_interpreter_lacks_ipykernel_is_one_clear_message(course):
    write(course, "11_a", PARAMETERS)
    broken = course / "broken"
    broken.mkdir()
    (broken / "ipykernel_launcher.py").write_text("raise ImportError('no ipykernel here')")

    with Shell("run", "11", PYTHONPATH=str(broken)) as shell:
        code, said = shell.end()
    assert code == 2, said
    assert "no ipykernel here" in said
    assert "course doctor" in said
    assert said.count("Traceback") == 1  # the kernel's own, no other


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_named_as_such(course):
    with (
        pytest.raises(_lessons.LessonError, match="disk is full") as error,
        _running._explained(course / "x.ipynb", io.BytesIO()),
        open("/dev/full", "w") as full,
    ):
        full.write("x" * 100_000)
    assert "x.ipynb" in str(error.value)


def test_a_second_interrupt_does_not_take_the_report_away(course, monkeypatch, capsys):
    write(course, "11_a", PARAMETERS)

    def interrupted(*_):
        raise KeyboardInterrupt(" here")

    def report(*_):
        os.kill(os.getpid(), signal.SIGINT)
        print("the table")

    monkeypatch.setattr(_sweep, "_run_all", interrupted)
    monkeypatch.setattr(_sweep, "_report", report)
    assert cli.main(["sweep", "11", "-p", "seed=0,1"]) == 130
    said = capsys.readouterr()
    assert "the table" in said.out
    assert "--continue" in said.out
    assert "Interrupted here." in said.err


# ── what is in the folder ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def plan(course):
    source = write(course, "11_a", PARAMETERS)
    return _sweep_plan.make_plan(source, {"world_size": [None, 2], "rate": [0.1]}, course / "runs")


def test_a_plan_is_read_as_it_was_written(plan, course):
    assert _sweep_plan.read_plan(plan.folder) == plan
    assert json.loads((plan.folder / "sweep.json").read_text())["grid"] == plan.grid
    assert [path.name for path in plan.folder.iterdir()] == ["sweep.json"]


def test_a_plan_survives_the_move_of_the_course(plan, course):
    new = course / "moved"
    new.mkdir()
    for name in ("notebooks", "runs"):
        (course / name).rename(new / name)

    moved = _sweep_plan.read_plan(new / "runs" / plan.folder.name)
    assert moved.source == new / "notebooks" / "11_a.ipynb"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"lesson": "x", "grid": {}}'])
def test_a_damaged_plan_is_named(plan, capsys, text):
    (plan.folder / "sweep.json").write_text(text)

    assert cli.main(["sweep", "--continue", str(plan.folder)]) == 2
    assert "sweep.json is damaged" in capsys.readouterr().err


def test_two_sweeps_of_one_second_get_two_folders(course, monkeypatch):
    monkeypatch.setattr(_sweep_plan.time, "strftime", lambda _: "now")
    source = write(course, "11_a", PARAMETERS)
    names = [_sweep_plan.make_plan(source, {"seed": [1]}, course).folder.name for _ in range(2)]

    assert names == ["sweep-11_a-now", "sweep-11_a-now-2"]


def test_only_complete_runs_of_the_same_values_count(plan):
    none, two = ({"world_size": n, "rate": 0.1} for n in (None, 2))
    good = executed(plan.folder, "b", none)
    executed(plan.folder, "c", none, complete=False)  # later, and half-done
    half = executed(plan.folder, "d", two, complete=False)
    executed(plan.folder, "e", {"world_size": 2, "rate": 0.5})
    (plan.folder / "f.ipynb").touch()
    (plan.folder / "g.ipynb").write_text('{"cells": [')
    for second, name in enumerate("bcdefg"):
        os.utime(plan.folder / f"{name}.ipynb", (second, second))

    runs = _sweep_plan.find_runs(plan)
    assert runs[_sweep_plan.key(none)] == (good, False)
    assert runs[_sweep_plan.key(two)] == (half, True)
    assert sorted(path.name for path in plan.folder.glob("*.broken")) == [
        "f.ipynb.broken",
        "g.ipynb.broken",
    ]


def test_two_processes_do_not_work_in_one_folder(plan, capsys):
    with _sweep_plan.alone_in(plan.folder):
        assert cli.main(["sweep", "--continue", str(plan.folder)]) == 2
    assert "at work in" in capsys.readouterr().err


def test_a_file_is_replaced_whole(course, monkeypatch):
    path = course / "plan"
    path.write_text("old")

    def fail(_):
        raise OSError("no power")

    monkeypatch.setattr(_files.os, "fsync", fail)
    with pytest.raises(OSError, match="no power"):
        _files.write_whole(path, b"new")
    assert path.read_text() == "old"


def test_the_name_of_a_notebook_is_safe_whatever_the_values_are():
    assert _sweep._file_name("world_size=2, seed=0") == "world_size=2-seed=0"
    assert "/" not in _sweep._file_name("kind=../../etc")
    assert len(_sweep._file_name("kind=" + "x" * 500)) <= 100


# ── the table and the figure ─────────────────────────────────────────────────────────────────────


def drawn(plan, table, name="test_loss"):
    (ax,) = _sweep_report.draw(plan, table, name).axes
    return ax


def plan_of(**grid):
    return _sweep_plan.Plan(None, grid, None, "")


def table_of(plan, value, **more):
    rows = [{**c, "test_loss": value(**c), **more} for c in plan.combinations()]
    return pd.DataFrame(rows)


def test_seeds_repeat_runs_and_the_last_swept_number_is_the_axis():
    plan = plan_of(rate=[0.1, 0.5], world_size=[1, 2, 4], seed=[0, 1])
    table = table_of(plan, lambda rate, world_size, seed: world_size + rate + 0.2 * seed)
    ax = drawn(plan, table)

    assert ax.get_xlabel().startswith("world_size")
    assert ax.get_ylabel() == "test_loss"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "2", "4"]
    assert [text.get_text() for text in ax.get_legend().texts] == ["rate=0.1", "rate=0.5"]
    lines = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert [list(line.get_ydata()) for line in lines] == [
        pytest.approx([1.2, 2.2, 4.2]),
        pytest.approx([1.6, 2.6, 4.6]),
    ]
    dots = [len(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "None"]
    assert dots == [6, 6]
    title = " ".join(ax.figure.get_suptitle().split())
    assert "lowest with world_size=1, rate=0.1 (1.2)" in title
    assert "highest with world_size=4, rate=0.5 (4.6)" in title


def test_without_another_swept_parameter_the_seed_is_the_axis():
    plan = plan_of(seed=[0, 1, 2], rate=[0.1])
    ax = drawn(plan, table_of(plan, lambda seed, rate: seed))
    assert ax.get_xlabel() == "seed"


def test_words_stand_side_by_side_and_nothing_changing_is_said_so():
    plan = plan_of(kind=["b", "a", None])
    ax = drawn(plan, table_of(plan, lambda kind: 3.0))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["b", "a", "None"]
    assert "is 3 in all runs" in ax.figure.get_suptitle()


def test_rates_over_powers_of_ten_get_a_logarithmic_axis():
    plan = plan_of(rate=[1e-4, 1e-3, 1e-1])
    ax = drawn(plan, table_of(plan, lambda rate: rate))
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.0001", "0.001", "0.1"]


@pytest.mark.parametrize("origin", ["real", "synthetic"])
def test_synthetic_data_are_stamped_on_the_figure_and_said_under_the_table(plan, capsys, origin):
    recorded = {"data_origin": origin, "test_loss": 1.0}
    path = executed(plan.folder, "a", {"world_size": 2, "rate": 0.1}, recorded)
    _sweep_report.report(plan, [path], None)

    assert ("SYNTHETIC DATA" in capsys.readouterr().out) == (origin == "synthetic")
    table = _sweep_report.tidy(plan, [path])
    stamps = [text.get_text() for text in drawn(plan, table).figure.texts]
    assert ("SYNTHETIC DATA" in stamps) == (origin == "synthetic")


def test_a_number_nobody_recorded_is_answered_with_those_there_are(plan, capsys):
    recorded = {"f1": 0.5, "auroc": 0.9, "train_seconds": 3.0, "fine": True, "note": "x"}
    path = executed(plan.folder, "a", {"world_size": 2, "rate": 0.1}, recorded)
    _sweep_report.report(plan, [path], "f2")

    said = capsys.readouterr().out
    assert "no run has recorded a number named f2".lower() in said.lower()
    assert "Recorded: auroc, f1, train_seconds." in said
    assert "figure.png (auroc" in said.lower()


def test_runs_without_numbers_have_a_table_and_no_figure(plan, capsys):
    path = executed(plan.folder, "a", {"world_size": 2, "rate": 0.1})
    _sweep_report.report(plan, [path], None)

    assert "Figure: none" in capsys.readouterr().out
    assert (plan.folder / "results.csv").is_file()
    assert not (plan.folder / "figure.png").exists()
