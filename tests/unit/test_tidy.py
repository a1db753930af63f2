"""`course clean`: it removes what the course has made, and nothing else, and only after a yes."""

import io
import os
from pathlib import Path

import pytest

from course_lib import _tidy, cli


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course's folder that has been used, beside things that are not the course's."""
    root = tmp_path / "course"
    for name in (
        "course_lib/cli.py",
        "course_lib/__pycache__/cli.pyc",
        "course_lib/data/__pycache__/x.pyc",
        "notebooks/00_start_here.ipynb",
        "notebooks/.ipynb_checkpoints/00_start_here-checkpoint.ipynb",
        "runs/11_a-1.ipynb",
        "runs/sweep-11_a-1/sweep.json",
        "runs/sweep-11_a-1/seed=1.ipynb",
        "scripts/train.py",
        ".cache/jupyter/x",
        ".cache/data/housing.csv",
        ".pytest_cache/x",
        ".venv/lib/__pycache__/x.pyc",
        ".git/__pycache__/x",
        "mine/__pycache__/x",
        "mine/runs/x.ipynb",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    cache = tmp_path / "cache" / "torch-distributed-course"
    cache.mkdir(parents=True)
    (cache / "housing.csv").write_text("x" * 2_000_000)
    (tmp_path / "cache" / "of another program").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.chdir(root)
    return root


MADE = {
    "runs",
    "scripts",
    ".cache/jupyter",
    ".pytest_cache",
    "course_lib/__pycache__",
    "course_lib/data/__pycache__",
    "notebooks/.ipynb_checkpoints",
}


def tree(folder: Path) -> set[str]:
    """Every file and link below a folder."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return {str(path.relative_to(folder)) for path in paths}


def kept(before: set[str]) -> set[str]:
    return {name for name in before if not name.startswith(tuple(f"{made}/" for made in MADE))}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_yes_removes_what_the_course_has_made_and_nothing_else(course, capsys):
    before = tree(course.parent)
    inside = tree(course)

    assert cli.main(["clean", "--yes"]) == 0
    assert tree(course) == kept(inside)
    assert "mine/runs/x.ipynb" in tree(course)
    assert ".cache/data/housing.csv" in tree(course)
    assert {name for name in before if not name.startswith("course/")} <= tree(course.parent)
    said = capsys.readouterr().out
    assert "executed notebooks: 2 notebooks and 1 other files, 0.1 kB" in said
    assert "scripts: 1 other files" in said
    assert str(course / "runs") in said
    assert "Removed." in said

    assert cli.main(["clean", "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_data_go_only_when_asked_for(course, capsys):
    assert cli.main(["clean", "--yes", "--data"]) == 0
    assert not (course / ".cache" / "data").exists()
    assert tree(course.parent / "cache") == {"of another program"}
    assert "2.0 MB" in capsys.readouterr().out


def test_without_a_terminal_nothing_is_removed(course, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    before = tree(course)
    assert cli.main(["clean"]) == 2
    said = capsys.readouterr().out
    assert str(course / "runs") in said
    assert "--yes" in said
    assert tree(course) == before


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yet\n"])
def test_anything_but_yes_is_a_no(course, monkeypatch, answer):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    before = tree(course)
    assert cli.main(["clean"]) == 0
    assert tree(course) == before


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_yes_on_the_terminal_removes(course, monkeypatch, answer):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert cli.main(["clean"]) == 0
    assert not (course / "runs").exists()


def test_links_are_not_followed(course, capsys):
    outside = course.parent / "outside"
    (outside / "__pycache__").mkdir(parents=True)
    (outside / "precious.ipynb").write_text("x")
    (outside / "__pycache__" / "x.pyc").write_text("x")
    (course / "runs" / "link").symlink_to(outside)
    (course / "runs" / "link.ipynb").symlink_to(outside / "precious.ipynb")
    (course / "docs").symlink_to(outside)
    (course / "tests").mkdir()
    (course / "tests" / "__pycache__").symlink_to(outside)
    for path in sorted((course / "scripts").iterdir()):
        path.unlink()
    (course / "scripts").rmdir()
    (course / "scripts").symlink_to(outside)

    assert cli.main(["clean", "--yes"]) == 0
    assert tree(outside) == {"precious.ipynb", "__pycache__/x.pyc"}
    assert not (course / "runs").exists()
    assert (course / "scripts").is_symlink()
    assert f"left alone: {course / 'scripts'} (it is a link)" in capsys.readouterr().out


@pytest.mark.parametrize("own", [".cache/data", "runs/mine", ".cache"])
def test_data_of_ones_own_stay_wherever_they_lie(course, monkeypatch, capsys, own):
    (course / own).mkdir(exist_ok=True)
    (course / own / "my.csv").write_text("x")
    monkeypatch.setenv("COURSE_DATA", own)

    assert cli.main(["clean", "--yes", "--data"]) == 0
    assert (course / own / "my.csv").is_file()
    assert "COURSE_DATA" in capsys.readouterr().out
    assert os.environ["COURSE_DATA"] == str(course / own)


def test_the_default_data_folder_stays_when_a_person_has_named_it(course, monkeypatch):
    folder = course.parent / "cache" / "torch-distributed-course"
    monkeypatch.setenv("COURSE_DATA", str(folder))
    assert cli.main(["clean", "--yes", "--data"]) == 0
    assert (folder / "housing.csv").is_file()


def test_another_projects_folder_is_refused(course, capsys):
    (course / "course_lib" / "cli.py").unlink()
    before = tree(course)
    assert cli.main(["clean", "--yes"]) == 2
    assert "not the course's folder" in capsys.readouterr().err
    assert tree(course) == before


def test_what_cannot_be_removed_is_named_and_the_rest_goes(course, monkeypatch, capsys):
    rmtree = _tidy.shutil.rmtree

    def refuse_scripts(path):
        if path.name == "scripts":
            raise PermissionError(13, "Permission denied", str(path / "train.py"))
        rmtree(path)

    monkeypatch.setattr(_tidy.shutil, "rmtree", refuse_scripts)
    assert cli.main(["clean", "--yes"]) == 1
    assert "train.py: Permission denied" in capsys.readouterr().err
    assert not (course / "runs").exists()
    assert not (course / "course_lib" / "__pycache__").exists()
