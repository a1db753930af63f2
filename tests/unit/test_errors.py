"""One short error for N ranks: whose fault it was, where each rank stood, in few lines."""

import faulthandler
import linecache
import os
import pickle
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ipykernel.compiler import XCachingCompiler
from IPython.core.compilerop import CachingCompiler

from course_lib import _child, _places
from course_lib._places import Frame, excerpt, frames_in_dump, frames_of, place
from course_lib.errors import Event, RankError, _spans, root_cause

TORCH = str(Path(torch.__file__).with_name("distributed.py"))
STDLIB = threading.__file__
OURS = str(Path(_places.__file__).with_name("reporting.py"))


def raised(rank, exception="KeyError", message="'label 17'", when=0.0, frames=()):
    first = message.split("\n")[0]
    return Event(rank, f"raised {exception}: {first}", when, frames, exception, message)


def lost(rank, when=0.0, message="Connection closed by peer [127.0.0.1]:42"):
    return raised(rank, "RuntimeError", message, when)


def killed(rank, when=0.0):
    return Event(rank, "was killed by SIGKILL", when)


# --- cause and consequence ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ([], None),
        ([lost(0, 1.0), raised(1, when=2.0)], 1),  # earlier, but only a consequence
        ([raised(1, when=2.0), lost(0, 1.0), lost(2, 3.0)], 1),
        ([lost(0, 1.0), killed(2, 3.0)], 2),
        ([raised(0, when=2.0), raised(1, message="'other'", when=1.0)], 1),  # the earliest
        ([raised(2, when=1.0), raised(0, when=1.2), raised(1, when=1.1)], 0),  # one bug, told once
        ([raised(2, when=1.0), lost(0, 0.5), raised(1, when=1.1)], 1),
        ([raised(0, when=2.0), raised(1, "ValueError", when=1.0)], 1),  # alike in the text only
        ([raised(0, message="a\nb", when=2.0), raised(1, message="a\nc", when=1.0)], 1),
        ([lost(1, 1.0), lost(0, 2.0, "Connection reset by peer")], 1),  # nothing better is known
    ],
)
def test_the_root_cause(events, cause):
    found = root_cause(events)
    assert (found and found.rank) == cause


@pytest.mark.parametrize(
    ("exception", "message", "consequence"),
    [
        ("RuntimeError", "[gloo/transport/tcp/pair.cc] Connection closed by peer", True),
        (
            "DistBackendError",
            "NCCL error: remote process exited or there was a network error",
            True,
        ),
        ("DistNetworkError", "The client socket has timed out after 60000ms", True),
        ("DistNetworkError", "The server socket cannot listen: address already in use", False),
        ("DistStoreError", "wait timeout after 300000ms, keys: /a", True),
        ("RuntimeError", "Timed out waiting 1000ms for recv operation", True),
        ("BrokenPipeError", "[Errno 32] Broken pipe", True),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied", False),
        ("OSError", "[Errno 28] No space left on device", False),
    ],
)
def test_what_survivors_say_is_a_consequence(exception, message, consequence):
    assert raised(0, exception, message).is_consequence is consequence


def test_only_an_exception_can_be_a_consequence():
    assert not Event(0, "was killed by SIGPIPE", 0.0, message="Broken pipe").is_consequence


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (raised(0), "raised KeyError"),  # the message stands in the headline and the traceback
        (raised(0, frames=[Frame("/home/me/a.py", 7, "f")]), "raised KeyError in a.py, line 7"),
        (lost(0), "lost the connection to another rank"),
        (
            Event(0, "exited with code 0 before returning", 0.0, [Frame("/home/me/a.py", 7, "f")]),
            "exited with code 0 before returning in a.py, line 7",
        ),
        (Event(0, "was killed by SIGSEGV", 0.0), "was killed by SIGSEGV"),
        (
            killed(0),
            "was killed by SIGKILL (from outside; often the system's answer to memory running out)",
        ),
    ],
)
def test_a_ranks_line(event, state):
    assert event.state == state


# --- the text -----------------------------------------------------------------------------------


@pytest.fixture
def deep(tmp_path):
    """Frames of 40 calls in the reader's file, one a line, ending in torch."""
    file = tmp_path / "mine.py"
    file.write_text("".join(f"call({i})  # {'x' * 500 * (i == 39)}\n" for i in range(40)))
    return [Frame(str(file), i + 1, f"level_{i}") for i in range(40)] + [Frame(TORCH, 9, "gather")]


@pytest.mark.parametrize("n_states", [1, 2, 7, 8, 9, 64])
@pytest.mark.parametrize("n_lines", [1, 2, 30])
def test_never_more_than_15_lines(deep, n_states, n_lines):
    message = "\n".join(f"message {i} {'y' * 300}" for i in range(n_lines))
    states = {rank: f"still in place {rank} {'z' * 300}" for rank in range(n_states)}
    cause = raised(3, "ValueError", message, frames=deep)
    error = RankError(f"rank 3 {cause.what}", states, cause)
    lines = str(error).splitlines()
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 160
    assert lines[0].startswith("rank 3 raised ValueError: message 0 yy")
    assert "Traceback of rank 3:" in lines
    text = str(error)
    assert "mine.py, line 40" in text  # the innermost line of the reader
    assert f"message {n_lines - 1} y" in text  # the message's last line
    if n_states <= 8:
        assert all(f"  rank {rank}: still in place {rank} " in text for rank in states)
    else:
        assert f"  … and {n_states - 7} more states" in lines


def test_a_short_story_is_told_whole(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("train()\nlook_up()\n")
    frames = [Frame(str(file), 1, "<module>"), Frame(str(file), 2, "train")]
    cause = raised(1, message="'a'\n  first\n  second", frames=frames)
    states = {0: "had returned", 1: cause.state, 2: "had returned", 3: "had returned"}
    assert str(RankError("rank 1 raised KeyError: 'a'", states, cause)).splitlines() == [
        "rank 1 raised KeyError: 'a'",
        "  ranks 0, 2, 3: had returned",
        "  rank 1: raised KeyError in mine.py, line 2: look_up()",
        "Traceback of rank 1:",
        "  mine.py, line 1, in <module>",
        "    train()",
        "  mine.py, line 2, in train",
        "    look_up()",
        "    first",
        "    second",
    ]


def test_without_a_cause_there_is_no_traceback():
    error = RankError("interrupted", {0: "still in a", 1: "still in b"})
    assert str(error) == "interrupted\n  rank 0: still in a\n  rank 1: still in b"
    assert (error.rank, error.exception, error.traceback) == (None, None, "")


def test_the_whole_traceback_is_kept_beside_the_short_one(deep):
    error = RankError("…", {}, raised(3, message="'a'\nb", frames=deep))
    lines = error.traceback.splitlines()
    assert (error.rank, error.exception) == (3, "KeyError")
    assert len(lines) == 41 + 2
    assert lines[0].endswith("mine.py, line 1, in level_0")
    assert lines[-2:] == ["KeyError: 'a'", "b"]


def test_a_notebook_shows_the_text_and_nothing_else():
    error = RankError("interrupted", {0: "had returned"})
    assert error._render_traceback_() == ["RankError: interrupted", "  rank 0: had returned"]


def test_it_survives_pickling(deep):
    error = RankError("rank 3 …", {0: "had returned", 3: "raised KeyError"}, raised(3, frames=deep))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is RankError
    assert (copy.headline, copy.states, copy.cause) == (error.headline, error.states, error.cause)
    assert str(copy) == str(error)
    assert copy.traceback == error.traceback


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([3], "3"),
        ([0, 1], "0, 1"),
        ([0, 1, 2], "0–2"),
        ([0, 1, 4, 5, 6, 7], "0, 1, 4–7"),
        ([0, 2, 4], "0, 2, 4"),
        ([*range(64)], "0–63"),
    ],
)
def test_spans(numbers, text):
    assert _spans(numbers) == text


# --- places -------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import time\n    time.sleep(60)  # wait\n")
    return str(file)


@pytest.mark.parametrize(
    ("below", "text"),
    [
        ([], "mine.py, line 2: time.sleep(60)  # wait"),
        ([(TORCH, "all_reduce")], "all_reduce, mine.py, line 2"),
        ([(TORCH, "wrapper"), (TORCH, "all_reduce")], "all_reduce, mine.py, line 2"),
        ([(TORCH, "_wrapped_call_impl"), (TORCH, "_call_impl"), (TORCH, "forward")],
         "forward, mine.py, line 2"),
        ([(TORCH, "all_reduce"), (STDLIB, "wait")], "all_reduce, mine.py, line 2"),
        ([(OURS, "progress")], "progress, mine.py, line 2"),
        ([("<frozen importlib._bootstrap>", "_load")], "_load, mine.py, line 2"),
        ([(TORCH, "wrapper")], "mine.py, line 2: time.sleep(60)  # wait"),
    ],
)  # fmt: skip
def test_a_place_is_the_readers_line_and_what_it_called(mine, below, text):
    frames = [Frame(STDLIB, 1, "run"), Frame(mine, 2, "train")]
    assert place(frames + [Frame(name, 5, function) for name, function in below]) == text


def test_the_innermost_of_the_readers_lines_counts(mine):
    called_back = [Frame(mine, 1, "a"), Frame(TORCH, 5, "backward"), Frame(mine, 2, "hook")]
    assert place(called_back) == "mine.py, line 2: time.sleep(60)  # wait"


def test_places_without_a_line_of_the_reader(mine):
    assert place([]) == ""
    assert place([Frame(STDLIB, 3, "a"), Frame(TORCH, 9, "b")]) == "distributed.py, line 9"
    assert place([Frame("/gone/mine.py", 4, "f")]) == "mine.py, line 4"


@pytest.mark.parametrize("make", [XCachingCompiler, CachingCompiler], ids=["notebook", "terminal"])
def test_a_cell_is_called_by_its_number(monkeypatch, make):
    compiler = make()
    name = compiler.cache("x = 1\ntrain(x)\n", 7)
    shell = SimpleNamespace(compile=compiler)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell)
    assert place([Frame(name, 2, "<module>")]) == "Cell In[7], line 2: train(x)"
    linecache.getline(__file__, 1)
    assert name in _places.cell_sources()
    assert __file__ not in _places.cell_sources()


def test_an_excerpt_leaves_out_what_libraries_did_between(mine):
    frames = [Frame(mine, 1, "a"), Frame(TORCH, 5, "inner"), Frame(mine, 2, "b")]
    shown = ["  mine.py, line 2, in b", "    time.sleep(60)  # wait"]
    assert excerpt(frames, 9) == ["  mine.py, line 1, in a", "    import time", *shown]
    assert excerpt(frames, 3) == shown  # the outermost go first
    assert excerpt([*frames, Frame("/gone.py", 1, "c")], 9)[-1] == "  gone.py, line 1, in c"
    assert excerpt([*frames, Frame("/gone.py", 1, "c"), Frame(TORCH, 10**6, "d")], 9)[-2:] == [
        "  gone.py, line 1, in c",
        "  distributed.py, line 1000000, in d",  # where it went wrong, whoever wrote it
    ]
    assert excerpt([], 9) == []


def test_frames_of_an_exception_are_outermost_first_without_the_launchers():
    child = Path(_places.__file__).with_name("_child.py")
    source = compile("def _run(f): f()", str(child), "exec")
    names = {}
    exec(source, names)

    def fail():
        raise KeyError

    with pytest.raises(KeyError) as caught:
        names["_run"](fail)
    frames = frames_of(_child.stack_of(caught.tb))
    assert [f.function for f in frames] == [sys._getframe().f_code.co_name, "fail"]
    assert {f.filename for f in frames} == {__file__}


def test_frames_in_a_dump_are_those_of_the_thread_asked_for(tmp_path):
    ready, go = threading.Semaphore(0), threading.Event()

    def first():
        wait_here()

    def second():
        wait_here()

    def wait_here():
        ready.release()
        go.wait()

    threads = [threading.Thread(target=f) for f in (first, second)]
    for thread in threads:
        thread.start()
        ready.acquire()
    try:
        with (tmp_path / "dump").open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
    finally:
        go.set()
        for thread in threads:
            thread.join()
    dump = (tmp_path / "dump").read_text()
    for thread, name in zip(threads, ("first", "second"), strict=True):
        frames = frames_in_dump(dump, thread.ident)
        in_this_file = [f.function for f in frames if f.filename == __file__]
        assert in_this_file == [name, "wait_here"]  # outermost first
        assert frames[0].function == "_bootstrap"
    main = frames_in_dump(dump, threading.main_thread().ident)
    assert main[-1].function == sys._getframe().f_code.co_name
    assert "dump_traceback" in main[-1].source
    assert frames_in_dump(dump, 1) == []
    assert frames_in_dump("", threading.main_thread().ident) == []


def test_a_dump_that_a_thread_cut_short(tmp_path):
    block = f'Current thread 0x{os.getpid():016x} (most recent call first):\n  File "a.py", line 3'
    assert frames_in_dump(block, os.getpid()) == []
    assert frames_in_dump(block + " in f\n", os.getpid()) == [Frame("a.py", 3, "f")]


def test_the_rank_that_found_out_who_is_missing_at_a_monitored_barrier_is_the_cause():
    reached = (
        "[Rank 1]: Rank 1 successfully reached monitoredBarrier, but received errors while waiting "
        "for send/recv from rank 0. Original exception: Connection closed by peer"
    )
    missing = (
        "[Rank 0]: Ranks 2 failed to pass monitoredBarrier in 1000 ms. Original exception: "
        "Timed out waiting 1000ms for recv operation to complete"
    )
    told = Event(1, f"raised RuntimeError: {reached}", 1.0, (), "RuntimeError", reached)
    knows = Event(0, f"raised RuntimeError: {missing}", 2.0, (), "RuntimeError", missing)
    assert told.is_consequence
    assert root_cause([told, knows]) is knows
