"""How the kernel reads a rank's pipes, without starting any rank."""

import multiprocessing as mp
import os
import pickle
import signal
from types import SimpleNamespace

import pytest

from course_lib import _child
from course_lib._display import Display
from course_lib._rank import _CHUNK, Rank
from course_lib._supervisor import interrupts_held


@pytest.fixture
def rank():
    """Rank 3 with its pipes; the test writes into ``rank._theirs`` what a process would."""
    made = Rank(3, mp.get_context("spawn"), _child.Job(b"", {}, {}))
    made.process = SimpleNamespace(start=lambda: None, exitcode=None)
    theirs, made._theirs = made._theirs, SimpleNamespace(close=lambda: None)
    made.start()
    made._theirs = theirs
    yield made
    theirs.close()
    for pipe in made._pipes:
        pipe.close()


def write(pipe, data: bytes) -> None:
    assert os.write(pipe.fileno(), data) == len(data)


def message(kind, payload, when=1.0) -> bytes:
    body = pickle.dumps((kind, payload, when))
    return _child.HEADER.pack(len(body)) + body


def test_messages_are_put_together_however_they_arrive(rank):
    stream = message("started", 77) + message("returned", b"result")
    for i in range(len(stream)):
        assert rank.running
        write(rank._theirs.messages, stream[i : i + 1])
        assert rank.read(Display(4))
    assert (rank.main_thread, rank.result, rank.running) == (77, b"result", False)
    assert not rank.read(Display(4))  # nothing came: no sign of life


def test_messages_that_arrive_together(rank, capsys):
    write(rank._theirs.messages, message("notice", "supervised once") + message("returned", b"r"))
    rank.read(Display(4))
    assert (capsys.readouterr().out, rank.result) == ("supervised once\n", b"r")


def test_output_is_shown_by_whole_lines(rank, capsys):
    display = Display(4)
    for data, shown in [
        (b"one\ntw", "[rank 3] one\n"),
        (b"o\r\n", "[rank 3] two\n"),
        (b"10%\r50%\r100%\n", "[rank 3] 100%\n"),
        (b"\xff\n", "[rank 3] �\n"),
        (b"an umlaut in two halves \xc3", ""),
        (b"\xbc\n", "[rank 3] an umlaut in two halves ü\n"),
    ]:
        write(rank._theirs.output, data)
        rank.read(display)
        assert capsys.readouterr().out == shown


def test_a_line_without_end_is_not_kept_for_ever(rank, capsys):
    for _ in range(3):
        write(rank._theirs.output, b"x" * (_CHUNK // 2))
        rank.read(Display(4))
    assert capsys.readouterr().out.startswith("[rank 3] xxx")


@pytest.mark.parametrize(
    ("exitcode", "what"),
    [
        (-9, "was killed by SIGKILL"),
        (-11, "was killed by SIGSEGV"),
        (-50, "was killed by 50"),  # a real-time signal has no name
        (0, "exited with code 0 before returning"),
        (7, "exited with code 7 before returning"),
    ],
)
def test_an_end_without_a_message(rank, exitcode, what):
    rank.look(Display(4))
    assert rank.running
    rank.process.exitcode = exitcode
    rank.look(Display(4))
    assert (rank.event.rank, rank.event.what) == (3, what)


def test_last_words_count_more_than_the_exit_code(rank):
    write(rank._theirs.messages, message("raised", ("KeyError", "'a'\nhint", []), when=5.0))
    rank.process.exitcode = 1
    rank.look(Display(4))
    assert (rank.event.what, rank.event.when) == ("raised KeyError: 'a'", 5.0)
    assert rank.event.message == "'a'\nhint"


def test_a_dump_says_where_the_rank_stands(rank):
    assert rank.state() == "was still starting"
    write(rank._theirs.messages, message("started", 0x7F) + message("begun", None))
    rank.read(Display(4))
    assert rank.state() == "still running, and did not answer"
    dump = 'Thread 0x7f (most recent call first):\n  File "/me/a.py", line 4 in f\n'
    write(rank._theirs.stacks, dump.encode())
    assert not rank.read(Display(4))  # an answer is no sign of life
    assert rank.has_answered
    assert rank.state() == "still in a.py, line 4"


def test_interrupts_wait_until_the_end_of_the_block():
    before = signal.getsignal(signal.SIGINT)
    with interrupts_held() as held:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert held == [signal.SIGINT] * 2
    assert signal.getsignal(signal.SIGINT) is before


def test_a_rank_that_begins_only_after_it_was_asked_was_still_starting():
    rank = Rank.__new__(Rank)
    rank.rank, rank.result, rank.event, rank.main_thread = 0, None, None, 0xAB
    rank.dump = b'Thread 0xab (most recent call first):\n  File "<string>", line 4 in <module>\n'
    rank.begun, rank._begun_when_asked = True, False
    assert rank.state() == "was still starting"
    rank.dump = b'Thread 0xab (most recent call first):\n  File "/me/train.py", line 7 in train\n'
    assert rank.state() == "still in train.py, line 7"
    rank._begun_when_asked = True
    assert rank.state() == "still in train.py, line 7"
