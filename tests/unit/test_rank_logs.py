"""What ranks have written becomes lines to show and one event. Texts that Python really wrote."""

import subprocess
import sys

import pytest

from course_lib import _rank_logs
from course_lib._rank_logs import RankLog


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "attempt_002" / "rank_13"
    folder.mkdir(parents=True)
    return RankLog(folder)


@pytest.fixture
def write(log, tmp_path):
    folder = tmp_path / "attempt_002" / "rank_13"

    def write(out: str = "", err: str = "") -> None:
        for name, text in (("stdout.log", out), ("stderr.log", err)):
            with (folder / name).open("a") as file:
                file.write(text)

    return write


@pytest.fixture
def run(write, tmp_path):
    """Run a program for real and keep what it wrote; returns its exit code."""

    def run(code: str) -> int:
        program = tmp_path / "program.py"
        program.write_text(code)
        done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
        write(done.stdout, done.stderr)
        return done.returncode

    return run


def test_whose_log_it_is(log):
    assert (log.rank, log.attempt) == (13, 2)


def test_lines_are_shown_when_they_are_whole(log, write):
    assert log.new_lines() == ([], False)
    write(out="one\ntw", err="warning\n")
    assert log.new_lines() == (["one", "warning"], True)
    assert log.new_lines() == ([], False)
    write(out="o\nthree")
    assert log.new_lines() == (["two"], True)
    write(err="end")
    assert log.new_lines() == ([], True)  # a sign of life
    assert log.rest() == ["three", "end"]
    assert log.rest() == []


def test_a_bar_shows_its_last_state(log, write):
    write(out="\r 0%|   |\r50%|█  |")
    assert log.new_lines() == ([], True)
    write(out="\r100%|███|\nnext\r\n")
    assert log.new_lines() == (["100%|███|", "next"], True)


def test_a_traceback_is_held_back_for_a_moment_only(log, write, run, monkeypatch):
    write(err="before\n")
    run("import logging\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.exception('bad')")
    lines, _ = log.new_lines()
    assert lines == ["before", "ERROR:root:bad"]
    assert log.new_lines() == ([], False)
    monkeypatch.setattr(_rank_logs, "HOLD", 0.0)
    lines, _ = log.new_lines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert log.released() == []
    assert log.event(0) is None


def test_what_was_handled_before_the_end_is_told_apart(log, run):
    code = run(
        "import logging\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.exception('bad')\n"
        "print('between', file=__import__('sys').stderr)\n{}['label']"
    )
    log.new_lines()
    handled = log.handled()
    assert handled[-2:] == ["ZeroDivisionError: division by zero", "between"]
    event = log.event(code)
    assert event.what == "raised KeyError: 'label'"


def test_chained_tracebacks_are_all_of_the_end(log, run):
    code = run("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('x') from e")
    log.new_lines()
    assert log.handled() == []
    event = log.event(code)
    assert event.what == "raised KeyError: 'x'"
    assert [f.line for f in event.frames] == [4]


# Each: program, what, message, lines of the frames.
ENDS = {
    "raise": (
        "def f():\n    raise ValueError('bad')\nf()",
        "raised ValueError: bad", "bad", [3, 2],
    ),
    "no message": ("raise ValueError", "raised ValueError", "", [1]),
    "a class of a module": (
        "import json\njson.loads('{')",
        "raised JSONDecodeError: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)", None, None,
    ),
    "several lines, some indented": (
        "raise RuntimeError('Error(s):\\n  first\\n\\n    second\\nthird')",
        "raised RuntimeError: Error(s):", "Error(s):\n  first\n\n    second\nthird", [1],
    ),
    "a group": (
        "def f():\n    raise ExceptionGroup('all', [ValueError('a'), KeyError('b')])\nf()",
        "raised ExceptionGroup: all (2 sub-exceptions)", "all (2 sub-exceptions)", [3, 2],
    ),
    "no valid Python": (
        "x = 1\ndef f(:\n    pass",
        "raised SyntaxError: invalid syntax", "invalid syntax", [2],
    ),
    "a module that is not there": (
        "import no_such_module_at_all",
        "raised ModuleNotFoundError: No module named 'no_such_module_at_all'", None, [1],
    ),
    "what torch adds in front of each line": (
        "import sys, traceback\n"
        "def hook(*what):\n"
        "    for line in ''.join(traceback.format_exception(*what)).splitlines():\n"
        "        print(f'[rank13]: {line}', file=sys.stderr)\n"
        "    print('[rank13]:[W1122 10:00:00.0 x.cpp:1] Warning: y', file=sys.stderr)\n"
        "sys.excepthook = hook\n"
        "raise KeyError('label')",
        "raised KeyError: 'label'", "'label'", [7],
    ),
    "deep recursion": (
        "def f():\n    f()\nf()",
        "raised RecursionError: maximum recursion depth exceeded", None, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "what", "message", "lines"), ENDS.values(), ids=ENDS)
def test_how_a_rank_ended(log, run, code, what, message, lines):
    event = log.event(run(code))
    assert event.what == what
    assert event.rank == 13
    assert message is None or event.message == message
    assert lines is None or [frame.line for frame in event.frames] == lines
    assert event.frames[0].filename.endswith("program.py")
    assert event.when > 0


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import os\nos._exit(3)", "exited with code 3"),
        ("import sys\nsys.exit('no data here')", "exited with code 1: no data here"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
    ],
)
def test_ends_without_an_exception(log, run, code, what):
    assert log.event(run(code)).what == what


def test_a_rank_that_is_still_ending(log, run):
    run("def f():\n    {}['label']\nf()")
    assert log.event(None) is None  # not seen yet
    log.new_lines()
    assert log.event(None).what == "raised KeyError: 'label'"


def test_one_that_goes_on_after_what_it_handled(log, run):
    run(
        "import logging\ndef f():\n    try:\n        {}[1]\n    except KeyError:\n"
        "        logging.exception('bad')\nf()"
    )
    log.new_lines()
    assert log.event(None) is None


def test_ends_that_are_none(log, run):
    assert log.event(None) is None
    assert log.event(run("pass")) is None


def test_where_an_aborted_rank_stood(log, run):
    code = run(
        "import faulthandler, os, threading, time\nfaulthandler.enable()\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "def stand():\n    os.abort()\nstand()"
    )
    event = log.event(code)
    assert event.what == "was killed by SIGABRT"
    assert [frame.line for frame in event.frames] == [6, 5]
    log.new_lines()
    assert log.handled() == []
