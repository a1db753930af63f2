import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import torch

from course_lib.results import MIME, collect_results, record_results

ROOT = Path(__file__).parents[2]


@pytest.fixture
def displayed(monkeypatch):
    """Pretend to be in IPython; collect what is displayed."""
    import IPython.display

    bundles = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: bundles.append(data))
    return bundles


def write_notebook(path, *sources, parameters="", tags=()):
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source, metadata={"tags": [*tags]}) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def write_executed(path, *records, error=None, tags=(), metadata=None):
    """A notebook as if executed: one cell a record, one output each; an error in the last cell."""
    outputs = [
        nbformat.v4.new_output("display_data", data={MIME: record, "text/plain": "table"})
        for record in records
    ]
    if error is not None:
        outputs.append(
            nbformat.v4.new_output("error", ename=error[0], evalue=error[1], traceback=[])
        )
    cells = [
        nbformat.v4.new_code_cell("1", outputs=[o], execution_count=i, metadata={"tags": [*tags]})
        for i, o in enumerate(outputs, start=1)
    ] or [nbformat.v4.new_code_cell("1", execution_count=1)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata or {}), path)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two real papermill runs: one that records twice, one that fails."""
    folder = tmp_path_factory.mktemp("sweep")
    source = folder / "lesson.ipynb"
    write_notebook(
        source,
        "from course_lib.results import record_results",
        "record_results(world_size=nprocs or 2, test_rmse_dollars=50000.0, draft=True)",
        "record_results(test_rmse_dollars=43577.25)",
        "assert seed == 0, 'seed 0 only\\nsecond line'",
        parameters="seed = 0\nnprocs = None",
    )
    runs = folder / "runs"
    runs.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        for seed in (0, 1):
            parameters = {"seed": seed, "nprocs": 4} if seed == 0 else {"seed": seed}
            try:
                papermill.execute_notebook(
                    source, runs / f"seed_{seed}.ipynb", parameters, progress_bar=False
                )
            except papermill.PapermillExecutionError:
                assert seed == 1, "the run with seed 0 must not fail"
    return runs


# Recording


def test_one_output_holds_json_html_and_text(displayed):
    record_results(test_rmse_dollars=43577.2, train_seconds=12.34, preset="quick")

    [bundle] = displayed
    assert set(bundle) == {MIME, "text/html", "text/plain"}
    assert bundle[MIME] == {"test_rmse_dollars": 43577.2, "train_seconds": 12.34, "preset": "quick"}
    assert "test_rmse_dollars" in bundle["text/plain"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("test_rmse_dollars", 43577.2, "43,577 $"),
        ("mae_dollars", 2.345, "2.35 $"),
        ("train_seconds", 12.34, "12.3 s"),
        ("launch_seconds", 0.01234, "0.0123 s"),
        ("test_accuracy", 0.82134, "82.13 %"),
        ("samples_per_second", 12345.6, "12,346 /s"),
        ("test_f1", 0.81134, "0.8113"),
        ("equivalence_max_abs_loss_diff", 2.4e-7, "2.4e-07"),
        ("samples", 20640, "20,640"),
        ("seed", 12345, "12345"),
        ("weights_bit_identical", True, "yes"),
        ("protocol", None, "–"),
        ("note", "<b>&", "&lt;b&gt;&amp;"),
    ],
)
def test_the_table_has_units_and_the_json_the_plain_value(displayed, name, value, shown):
    record_results(**{name: value})

    [bundle] = displayed
    assert f">{shown}</td>" in bundle["text/html"]
    assert bundle[MIME] == {name: value}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("quick"), "quick"),
        (np.array(7), 7),
        (torch.tensor(2.5, requires_grad=True), 2.5),
        (torch.tensor(3), 3),
        (torch.tensor(True), True),
    ],
)
def test_scalars_of_numpy_and_torch_become_plain_python(displayed, value, plain):
    record_results(x=value)

    stored = displayed[0][MIME]["x"]
    assert stored == plain
    assert type(stored) is type(plain)
    assert json.loads(json.dumps(displayed[0][MIME])) == {"x": plain}


@pytest.mark.parametrize(
    "value",
    [[1.0], {"a": 1}, (1,), np.ones(2), torch.ones(1), 1j, np.datetime64("2020-01-01"), object()],
)
def test_anything_but_a_scalar_is_refused_by_name(displayed, value):
    with pytest.raises(TypeError, match="the_name"):
        record_results(fine=1, the_name=value)
    assert displayed == []


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), np.float32("nan"), torch.tensor(-float("inf"))]
)
def test_what_is_no_number_is_refused_by_name(displayed, value):
    with pytest.raises(ValueError, match=r"the_name is -?(nan|inf)"):
        record_results(the_name=value)
    assert displayed == []


@pytest.mark.parametrize("name", ["notebook", "failed", "error"])
def test_names_of_the_status_columns_are_refused(name):
    with pytest.raises(ValueError, match=name):
        record_results(**{name: 1})


def test_nothing_to_record_is_an_error():
    with pytest.raises(ValueError, match="nothing to record"):
        record_results()


def test_outside_ipython_the_table_is_printed():
    code = "from course_lib.results import record_results as r; r(train_seconds=2.0, world_size=2)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["train_seconds  2.0 s", "world_size     2"]


# Collecting


def test_a_sweep_becomes_one_row_a_run(sweep):
    table = collect_results(sweep)

    assert list(table["notebook"]) == [str(sweep / f"seed_{seed}.ipynb") for seed in (0, 1)]
    first, second = (row for _, row in table.iterrows())
    assert (first["seed"], first["nprocs"]) == (0, 4)
    assert first["world_size"] == 4
    assert first["test_rmse_dollars"] == 43577.25  # the later record wins,
    assert first["draft"]  # and what only the earlier one holds stays
    assert not first["failed"]
    assert second["failed"]
    assert second["seed"] == 1
    assert second["error"] == "AssertionError: seed 0 only"


def test_the_file_holds_numbers_not_text(sweep):
    notebook = json.loads((sweep / "seed_0.ipynb").read_text())

    records = [o["data"][MIME] for c in notebook["cells"] for o in c.get("outputs", [])]
    assert records == [
        {"world_size": 4, "test_rmse_dollars": 50000.0, "draft": True},
        {"test_rmse_dollars": 43577.25},
    ]


def test_a_notebook_that_recorded_nothing_is_a_row(tmp_path):
    write_executed(tmp_path / "a.ipynb", {"loss": 0.5})
    write_executed(tmp_path / "b.ipynb")

    table = collect_results(tmp_path)
    assert table["loss"].isna().tolist() == [False, True]
    assert table["failed"].tolist() == [False, False]
    assert table["error"].isna().all()


def test_an_error_that_the_lesson_expects_is_no_failure(tmp_path):
    error = ("RankError", "rank 2 raised KeyError: 'label 17'\nranks: ...")
    write_executed(tmp_path / "a.ipynb", error=error, tags=["raises-exception"])
    write_executed(tmp_path / "b.ipynb", error=error)

    table = collect_results(tmp_path)
    assert table["failed"].tolist() == [False, True]
    assert table["error"][1] == "RankError: rank 2 raised KeyError: 'label 17'"


def test_papermills_own_verdict_counts(tmp_path):
    write_executed(tmp_path / "a.ipynb", metadata={"papermill": {"exception": True}})

    [error] = collect_results(tmp_path)["error"]
    assert error.startswith("papermill reports an exception")


def test_an_interrupted_run_is_a_failure(tmp_path, sweep):
    notebook = json.loads((sweep / "seed_0.ipynb").read_text())
    notebook["cells"][3]["metadata"]["papermill"]["end_time"] = None
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook))

    [row] = collect_results(tmp_path).to_dict("records")
    assert row["failed"]
    assert row["error"] == f"the run ended before cell 4 of {len(notebook['cells'])} was done"
    assert row["test_rmse_dollars"] == 43577.25


def test_a_notebook_that_never_ran_is_a_failure(tmp_path):
    write_notebook(tmp_path / "a.ipynb", "1")

    [row] = collect_results(tmp_path).to_dict("records")
    assert row["failed"]
    assert row["error"] == "never executed: no cell has run"


def test_a_result_wins_over_a_parameter_and_the_status_over_both(tmp_path):
    parameters = {"world_size": None, "lr": 0.1, "failed": "no", "notebook": "x"}
    write_executed(
        tmp_path / "a.ipynb", {"world_size": 2}, metadata={"papermill": {"parameters": parameters}}
    )

    table = collect_results(tmp_path)
    assert list(table) == ["notebook", "lr", "world_size", "failed", "error"]
    row = table.iloc[0]
    assert (row["world_size"], row["lr"], row["failed"]) == (2, 0.1, False)
    assert row["notebook"] == str(tmp_path / "a.ipynb")


def test_files_patterns_and_folders_each_notebook_once(tmp_path):
    odd = tmp_path / "run[seed=1].ipynb"
    for path in (tmp_path / "b.ipynb", tmp_path / "a.ipynb", odd):
        write_executed(path, {"loss": 1})
    (tmp_path / "notes.txt").write_text("not looked at")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    write_executed(tmp_path / ".ipynb_checkpoints" / "a.ipynb", {"loss": 9})

    def names(paths):
        return [Path(name).name for name in collect_results(paths)["notebook"]]

    assert names(tmp_path) == ["a.ipynb", "b.ipynb", odd.name]
    assert names(str(tmp_path / "*.ipynb")) == ["a.ipynb", "b.ipynb", odd.name]
    assert names(odd) == [odd.name]
    assert names([tmp_path / "b.ipynb", tmp_path]) == ["b.ipynb", "a.ipynb", odd.name]


@pytest.mark.parametrize(
    "content",
    ["", "not json", "[1]", '{"cells": []}', '{"metadata": {}, "worksheets": []}', "\udcff"],
)
def test_a_file_that_is_no_notebook_is_named(tmp_path, content):
    write_executed(tmp_path / "good.ipynb", {"loss": 1})
    bad = tmp_path / "bad.ipynb"
    bad.write_bytes(content.encode("utf-8", "surrogateescape"))

    with pytest.raises(ValueError, match=r"bad\.ipynb is not a notebook"):
        collect_results(tmp_path)


def test_what_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no notebook"):
        collect_results(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.ipynb matches no file"):
        collect_results(tmp_path / "gone.ipynb")
    with pytest.raises(FileNotFoundError, match=r"none_\*\.ipynb matches no file"):
        collect_results([str(tmp_path / "none_*.ipynb")])
    with pytest.raises(FileNotFoundError, match="no notebook given"):
        collect_results([])
