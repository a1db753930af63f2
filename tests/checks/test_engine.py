"""The engine behind every check: it survives any answer, and says what it saw."""

import inspect
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch
import torch.distributed as dist

from course_lib import checks
from course_lib.checks import _engine
from course_lib.checks._engine import Ask, _Tail, _WrongAnswer, exercise
from course_lib.group import process_group

BACK = 60  # seconds by which control must be back; measured 0.3 to 9 on a quiet machine


@exercise("9.1 · A number")
def a_number(ask, answer):
    """``answer() -> float``: 1.5 on every rank."""
    got = ask.run(answer, nprocs=2, hint="try again")
    ask.equal(got, [1.5, 1.5], "2 ranks: both return 1.5", "the number is 1.5")


@exercise("9.2 · Two answers")
def two_numbers(ask, first, second):
    ask.equal(ask.run(first, nprocs=1), [1.5], "the first returns 1.5")
    ask.equal(ask.run(second, nprocs=1), [1.5], "the second returns 1.5")


def right():
    return 1.5


def stub():
    raise NotImplementedError


def wrong():
    return 2.5


# ---- The three ends of a check


def test_a_right_answer_gets_a_tick_and_its_output_is_kept_out(verdict):
    def talkative():
        print("loss 0.3")
        return 1.5

    assert verdict(a_number, talkative) == "9.1 · A number\n✓ 2 ranks: both return 1.5\n"


def test_a_wrong_answer_gets_a_cross_and_a_hint(verdict):
    assert verdict(a_number, wrong) == (
        "9.1 · A number\n"
        "✗ 2 ranks: both return 1.5 (got [2.5, 2.5], not [1.5, 1.5])\n"
        "  hint: the number is 1.5\n"
    )


def test_a_stub_is_not_done_yet(verdict):
    assert verdict(a_number, stub) == "9.1 · A number\n○ not done yet\n"
    assert verdict(two_numbers, right, stub).endswith("✓ the first returns 1.5\n○ not done yet\n")


def test_torch_raising_not_implemented_is_no_stub(rejects):
    def without_forward():
        return torch.nn.Module()(1.5)

    rejects(a_number, without_forward, 'missing the required "forward" function')


@pytest.mark.parametrize(
    ("answer", "says"), [(stub, "not done yet"), (wrong, "the number is 1.5"), (1.5, "a function")]
)
def test_in_solutions_anything_but_a_tick_raises(capsys, answer, says):
    checks.raise_on_failure()
    with pytest.raises(checks.CheckFailed, match=says):
        a_number(answer)
    assert says in capsys.readouterr().out


def test_in_solutions_a_right_answer_does_not_raise(accepts):
    checks.raise_on_failure()
    accepts(a_number, right)


# ---- Whatever the learner wrote


def raises():
    return {}["label 17"]


def imports_what_is_not_there():
    import a_package_nobody_has  # noqa: F401


def exits_quietly():
    os._exit(0)


def exits_politely():
    sys.exit("bye")


def kills_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def closes_every_file():
    os.closerange(3, 1000)
    return 1.5


def returns_a_lock():
    return threading.Lock()


def returns_what_cannot_be_read():
    class Odd:
        def __reduce__(self):
            return int, ("1.5",)

    return Odd()


def returns_an_array():
    import numpy as np

    return np.array([1.5, 1.5])


def takes_arguments(rank, world_size):
    return 1.5


def starts_ranks_of_its_own():
    from course_lib import launch

    return launch(right)


lock = threading.Lock()


def captures_a_lock():
    with lock:
        return 1.5


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(raises, "raised KeyError: 'label 17'", id="raises"),
        pytest.param(imports_what_is_not_there, "No module named 'a_package", id="import"),
        pytest.param(exits_quietly, "exited with code 0 before returning", id="os._exit"),
        pytest.param(exits_politely, "exited with code 1 before returning", id="sys.exit"),
        pytest.param(kills_itself, "killed by SIGKILL", id="SIGKILL"),
        pytest.param(closes_every_file, "before returning", id="closes files"),
        pytest.param(returns_a_lock, "the returned lock cannot be sent", id="unpicklable"),
        pytest.param(returns_what_cannot_be_read, "could not be judged", id="unreadable"),
        pytest.param(returns_an_array, "got [array([1.5, 1.5]), array", id="array"),
        pytest.param(lambda: math.nan, "got [nan, nan]", id="NaN"),
        pytest.param(lambda: torch.tensor(1.5), "got [tensor(1.5000)", id="tensor"),
        pytest.param(takes_arguments, "missing a required argument: 'rank'", id="arguments"),
        pytest.param(starts_ranks_of_its_own, "launch was called inside a rank", id="launch"),
        pytest.param(captures_a_lock, "the global name 'lock'", id="captures a lock"),
        pytest.param(1.5, "a function is needed here, not 1.5", id="a number"),
        pytest.param(None, "a function is needed here, not None", id="None"),
    ],
)
def test_survives(rejects, answer, says):
    begun = time.monotonic()
    rejects(a_number, answer, says)
    assert time.monotonic() - begun < BACK


def both_receive_first():
    with process_group() as pg:
        got = torch.zeros(1)
        dist.recv(got, src=1 - pg.rank)
        dist.send(torch.ones(1), dst=1 - pg.rank)
    return got.item()


def line_of(function, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


@pytest.mark.faults
def test_a_hang_names_the_operation_and_the_line(verdict):
    begun = time.monotonic()
    said = verdict(a_number, both_receive_first)
    assert "✗ runs on 2 ranks: it hangs (no sign of life for 8 s)" in said
    line = line_of(both_receive_first, "dist.recv(")
    assert f"ranks 0, 1: still in recv, test_engine.py, line {line}\n" in said
    assert said.endswith("hint: try again\n")
    assert time.monotonic() - begun < BACK


@pytest.mark.faults
def test_an_endless_loop_names_its_line(verdict, impatient):
    def counts_on():
        n = 0
        while True:
            n += 1

    said = verdict(a_number, counts_on)
    assert "it hangs" in said
    assert "test_engine.py, line " in said
    assert "n += 1" in said or "while True" in said


@pytest.mark.faults
@pytest.mark.parametrize("end", ["\n", ""])
def test_output_without_end(verdict, monkeypatch, end):
    monkeypatch.setattr(_engine, "LONGEST", 5)

    def prints_forever():
        while True:
            print("loss 0.3", end=end)

    begun = time.monotonic()
    said = verdict(a_number, prints_forever)
    assert "✗ runs on 2 ranks: it does not end (not done after 5 s (deadline))" in said
    assert len(said) < 3000
    assert time.monotonic() - begun < BACK


def test_of_endless_output_only_the_end_is_kept():
    tail = _Tail()
    for n in range(10_000):
        print(f"[rank 0] line {n}", file=tail, flush=True)
    assert tail.text.endswith("[rank 0] line 9999\n")
    assert len(tail.text) == 4000


def test_what_a_failing_rank_printed_last_is_shown(verdict):
    def says_why():
        print("first", "second", "third", "", sep="\n")
        raise ValueError("no")

    said = verdict(a_number, says_why)
    assert "  [rank " in said
    assert "] third\n" in said
    assert "] first\n" not in said


@pytest.mark.faults
def test_processes_an_answer_started_end_with_it(accepts, tmp_path):
    def leaves_a_process():
        sleeper = subprocess.Popen(["sleep", "600"])
        (tmp_path / os.environ["RANK"]).write_text(str(sleeper.pid))
        return 1.5

    accepts(a_number, leaves_a_process)
    pids = [int((tmp_path / rank).read_text()) for rank in "01"]
    alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(alive, timeout=10)
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


@pytest.mark.faults
def test_an_interrupt_is_not_the_answers_fault():
    def interrupts_the_kernel():
        if os.environ["RANK"] == "0":
            os.kill(multiprocessing.parent_process().pid, signal.SIGINT)
        time.sleep(600)

    with pytest.raises(KeyboardInterrupt):
        a_number(interrupts_the_kernel)


def test_answers_compute_on_the_cpu_whatever_the_machine_has(accepts):
    @exercise("9.3 · Device")
    def device(ask, answer):
        ask.equal(ask.run(answer, nprocs=1), ["cpu"], "runs on the CPU")

    accepts(device, lambda: os.environ["COURSE_DEVICE"])


# ---- What counts as the same

ONES = torch.ones(2)


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (1.5, 1.5, True),
        (1, 1.0, True),
        (2.0, 2, False),
        (True, 1, False),
        (1, True, False),
        (math.nan, 1.5, False),
        (math.inf, math.inf, True),
        ("1.5", 1.5, False),
        (None, 1.5, False),
        (None, None, True),
        ("a", "a", True),
        ({"a": 1}, {"a": 1}, True),
        ([0, 1], (0, 1), True),
        ([0], (0, 1), False),
        ([[1], [2]], [[1], [3]], False),
        (torch.tensor(1.5), 1.5, False),
        (1.5, torch.tensor(1.5), False),
        (ONES, ONES.clone(), True),
        (ONES, torch.ones(1, 2), False),
        (ONES, ONES.double(), False),
        (ONES, ONES + 1e-6, False),
        (ONES * math.nan, ONES, False),
        (ONES.tolist(), ONES, False),
        ([ONES, ONES], [ONES, ONES], True),
    ],
)
def test_equal(got, expected, same):
    outcome(Ask().equal, got, expected, same=same)


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (1.5 + 1e-7, 1.5, True),
        (1.5 + 1e-5, 1.5, False),
        (-1.5, 1.5, False),
        (2.0, 2, True),
        (1e-9, 0.0, False),
        (True, 1.0, False),
        (math.nan, 1.5, False),
        (math.inf, 1.5, False),
        (torch.tensor(1.5), 1.5, False),
        (1.5, torch.tensor(1.5), False),
        (ONES + 1e-7, ONES, True),
        (ONES + 1e-5, ONES, False),
        (ONES.double(), ONES, True),
        (ONES * math.nan, ONES, False),
        (torch.ones(3), ONES, False),
        ([1.5, (2.0, ONES)], [1.5, (2.0, ONES)], True),
        ([1.5, (2.1, ONES)], [1.5, (2.0, ONES)], False),
    ],
)
def test_close(got, expected, same):
    outcome(Ask().close, got, expected, same=same)


def outcome(compare, got, expected, same: bool) -> None:
    if same:
        compare(got, expected, "they agree")
    else:
        with pytest.raises(_WrongAnswer, match=r"they agree \(got .*, not .*\)"):
            compare(got, expected, "they agree")


def test_that_prints_or_ends_the_check(capsys):
    Ask().that([1], "it holds")
    assert capsys.readouterr().out == "✓ it holds\n"
    with pytest.raises(_WrongAnswer) as wrong:
        Ask().that([], "it holds", "look again")
    assert (wrong.value.says, wrong.value.hint) == ("it holds", "look again")
    assert not capsys.readouterr().out
