"""What every module of check tests shares: answers that travel, questions asked, nothing left."""

import sys
import types

import cloudpickle
import psutil
import pytest

from course_lib.checks import _engine


@pytest.fixture(autouse=True, scope="module")
def _as_from_a_notebook(request):
    """Answers reach the ranks as a cell's functions do: by value, from a nameless ``__main__``.

    By reference the ranks would have to import the test module, and with a ``__main__`` that has a
    file every rank would import pytest first.
    """
    cloudpickle.register_pickle_by_value(request.module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
        yield
    cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture(autouse=True)
def _does_not_raise(monkeypatch):
    """Each test begins as an exercises notebook does, whatever ran before."""
    monkeypatch.setattr(_engine, "_raises", False)


@pytest.fixture(autouse=True)
def _leaves_nothing():
    """When a check has returned, nothing its answer started is alive."""
    yield
    left = [p for p in psutil.Process().children(recursive=True) if not _is_helper(p)]
    _, alive = psutil.wait_procs(left, timeout=10)  # killed already, perhaps not yet reaped
    for process in alive:
        process.kill()
    assert not alive


@pytest.fixture
def impatient(monkeypatch):
    """For answers that are sure to hang: no need to wait long for it."""
    monkeypatch.setattr(_engine, "SILENCE", 4)


@pytest.fixture
def verdict(capsys):
    """``verdict(check, *answers)`` runs a check and returns what it printed."""

    def ask(check, *answers) -> str:
        capsys.readouterr()
        check(*answers)
        return capsys.readouterr().out

    return ask


@pytest.fixture
def rejects(verdict):
    """``rejects(check, answer, says)``: one ✗, at the end, and ``says`` in its line or hint."""

    def ask(check, answer, says: str) -> None:
        said = verdict(check, answer)
        assert said.count("✗") == 1, said
        assert "○" not in said
        assert says in said.partition("✗")[2], said

    return ask


@pytest.fixture
def accepts(verdict):
    """``accepts(check, answer)``: ✓ from the first line to the last."""

    def ask(check, answer) -> None:
        title, *lines = verdict(check, answer).splitlines()
        assert lines, title
        assert all(line.startswith("✓") for line in lines), "\n".join(lines)

    return ask


def _is_helper(process: psutil.Process) -> bool:
    """Whether it is multiprocessing's fork server or resource tracker, which stay on purpose.

    A rank of the fork server has the server's command line, and the server for its parent.
    """
    try:
        line = " ".join(process.cmdline())
        is_rank = " ".join(process.parent().cmdline()) == line
    except (psutil.NoSuchProcess, AttributeError):
        return True
    return not is_rank and ("forkserver import" in line or "resource_tracker" in line)
