"""Programs are written whole, where they belong, over nothing that is somebody else's."""

import ast
import os
import stat
import subprocess
import sys

import pytest
from notebook_shell import Notebook

from course_lib import _programs
from course_lib.scripts import _joined


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "notebooks").mkdir()
    return root


@pytest.fixture(scope="module")
def notebook(root):
    notebook = Notebook(root / "notebooks")
    yield notebook
    notebook.close()


TRAIN = (
    "from pathlib import Path",
    'def train(epochs: int, lr: float = 0.1, data: Path = Path("x")):\n'
    '    """Train, as in \\"lesson\\" \\\\ 1.\n\n    More.\n    """\n    return epochs, lr, data',
)


def test_a_name_without_a_folder_goes_to_scripts(notebook, root):
    written = notebook.write(*TRAIN, fn="train", name="train_it.py", call="(1)", epochs=3)
    path = root / "scripts" / "train_it.py"
    assert written.text == path.read_text()
    assert written.said.splitlines()[-1] == f"Wrote {path} ({written.text.count(chr(10))} lines)"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["train_it.py"]  # nothing of the writing
    again = notebook.write(*TRAIN, fn="train", name="train_it.py", epochs=4)
    assert path.read_text() == again.text != written.text
    # Its flags, and one more; a misspelt one is refused.
    done = run(path, "--help")
    assert done.returncode == 0
    for word in (
        "--epochs EPOCHS",
        "default: 4",
        "--lr LR",
        "--data DATA",
        "--save-results FOLDER",
    ):
        assert word in done.stdout
    done = run(path, "--epoch=3")
    assert done.returncode == 2
    assert "unrecognized arguments: --epoch=3" in done.stderr


def run(path, *words):
    command = [sys.executable, path, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120)


def test_a_helper_may_have_any_name(notebook, tmp_path):
    written = notebook.write(
        "def record(x):\n    return x + 1\nos = argparse = 3",
        "def flags():\n    return record(1), os, argparse",
        fn="flags",
        call="()",
    )
    assert written.programs == written.notebooks == "(2, 3, 3)"
    path = tmp_path / "any.py"
    path.write_text(written.text.replace("def flags():", "def flags():\n    print(record(1))"))
    os.environ.pop("RANK", None)
    done = run(path, f"--save-results={tmp_path}")
    assert "2\n" in done.stdout
    assert "KeyError: 'RANK'" in done.stderr  # it is torchrun that says which rank it is


@pytest.mark.parametrize(
    ("cells", "fn", "message"),
    [
        ([], "lambda: 1", "needs a function defined with def, got function <function <lambda>"),
        (["f = lambda: 1"], "f", "needs a function defined with def"),
        ([], "len", "needs a function defined with def, got builtin_function_or_method"),
        (["import functools"], "functools.partial(print)", "defined with def, got partial"),
        (["class Net:\n    pass"], "Net", "defined with def, got type"),
        (["class Net:\n    def f(self): pass"], "Net().f", "f is not (or no longer) a function at"),
        (["def make():\n    def g(): pass\n    return g"], "make()", "g is not (or no longer)"),
        (["def f(): pass\nold = f", "def f(): pass"], "old", "f is not (or no longer) a function"),
        (["def f(): pass"], "3", "defined with def, got int 3"),
    ],
)
def test_what_is_no_function_of_a_cell(notebook, cells, fn, message):
    written = notebook.write(*cells, fn=fn)
    assert written.error.startswith("TypeError: ")
    assert message in written.error


def test_parameters_and_defaults_are_checked_before_anything_is_written(notebook, root):
    cells = ["def f(x: int = 1, **more): pass\ndef g(x: int = 1): pass"]
    written = notebook.write(*cells, fn="f", name="flags.py")
    assert written.error.startswith("TypeError: f: the parameter **more cannot be a flag")
    written = notebook.write(*cells, fn="g", name="flags.py", y=3)
    assert written.error == "TypeError: g has no parameter 'y'; it has: x"
    assert not (root / "scripts" / "flags.py").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train", "ValueError: train: a file name that ends in .py is needed"),
        ("train.txt", "ValueError: train.txt: a file name that ends in .py"),
        ("random.py", "ValueError: random.py would be found in place of the module random"),
        ("torch.py", "ValueError: torch.py would be found in place of the module torch"),
    ],
)
def test_names_that_no_program_can_have(notebook, root, name, message):
    assert message in notebook.write("def f(): pass", name=name).error
    assert not (root / "scripts" / name).exists()


def test_odd_names_that_can_be(notebook, tmp_path):
    for name in ("a b.py", "v1.2-x.py", "ü.py"):
        assert not notebook.write("def f(): pass", name=tmp_path / name).error
        assert (tmp_path / name).exists()


def test_somebody_elses_file_is_left_as_it_is(notebook, tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes(b"print('mine \xff')\r\n")
    written = notebook.write("def f(): pass", name=path)
    assert written.error.startswith(f"FileExistsError: {path} was not written here, and is left")
    assert path.read_bytes() == b"print('mine \xff')\r\n"


def test_a_folder_that_cannot_be(notebook, tmp_path):
    (tmp_path / "taken").write_text("")
    written = notebook.write("def f(): pass", name=tmp_path / "taken" / "f.py")
    assert written.error.startswith(f"OSError: cannot write {tmp_path / 'taken' / 'f.py'}: ")
    folder = tmp_path / "folder.py"
    folder.mkdir()
    written = notebook.write("def f(): pass", name=folder)
    assert written.error.startswith(f"OSError: cannot write {folder}: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.py", "taken"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        path = disk / "f.py"
        _programs.write_marked(path, "MARK old", "MARK")
        with pytest.raises(OSError, match=f"cannot write {path}: No space left on device"):
            _programs.write_marked(path, "MARK" + "x" * 100_000, "MARK")
        assert path.read_text() == "MARK old"
        assert [p.name for p in disk.iterdir()] == ["f.py"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_programs_are_found_where_they_are_written(root, monkeypatch):
    (root / "scripts").mkdir(exist_ok=True)
    path = root / "scripts" / "found.py"
    path.write_text("")
    monkeypatch.chdir(root / "notebooks")
    assert _programs.find_root() == root
    assert _programs.existing_program("found.py") == path
    assert _programs.existing_program(path) == path
    assert _programs.from_root(path) == "scripts/found.py"
    with pytest.raises(FileNotFoundError, match=r"There is no program lost.py: write_script"):
        _programs.existing_program("lost.py")


def test_what_comes_from_one_module_is_imported_in_one_statement():
    names = [f"name_{i}" for i in range(12)]
    lines = ["import torch", *(f"from package.module import {name}" for name in names[:2])]
    assert _joined(lines) == ["import torch", "from package.module import name_0, name_1"]
    (long,) = _joined([f"from package.module import {name}" for name in names])
    assert max(map(len, long.splitlines())) <= 100
    (node,) = ast.parse(long).body
    assert [alias.name for alias in node.names] == names
