"""`make bench`: it compares like with like, hides no missed bar, and leaves nothing behind."""

import json
import math
import os
import re
import sys
import time
from argparse import Namespace
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from bench import launches, report, tracing_cost, trainings, verdicts  # noqa: E402
from bench.processes import ToolFailed, kernel, run_program  # noqa: E402


def trained(losses, times=((0.0, 1.0), (0.0, 2.0)), threads=(1, 1)) -> trainings.Trained:
    return trainings.Trained(list(losses), list(times), list(threads))


# ── like with like ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_bare_script_trains_what_the_lesson_trains():
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with kernel(env) as home:
        trainings.prepare(home)
        ours = trainings.train_with_launch(home, epochs=2, nprocs=2, device="cpu")
        ways = launches.Launches(home, None, 2, env)
        assert len(ways.seconds(launches.COURSE, times=2)) == 2
        assert all(size > 2**20 for size in ways.memory(launches.COURSE, ready=False))
        tracing_cost.prepare(home)
        cost = tracing_cost.measure(home, nprocs=3, repeats=4, turns=2)
        assert tuple(cost) == tracing_cost.NAMES
        assert all(0 < seconds < 10 for times in cost.values() for seconds in times)
        children = psutil.Process(home._pid).children(recursive=True)
    assert not any(child.is_running() for child in children)
    bare = trainings.train_with_script(trainings.BARE, 2, 2, "cpu", env)

    assert len(ours.losses) == len(bare.losses) == 2 * (16_512 // 480)
    assert [len(times) for times in (*ours.times, *bare.times)] == [2] * 4
    runs = {trainings.BARE: bare, trainings.COURSE: ours}
    assert max(trainings.differences(runs).values()) <= trainings.TOLERANCE
    assert bare.losses[-1] < bare.losses[0] / 2  # it learns: equal losses are no accident


def test_the_lessons_functions_come_with_what_they_need_and_nothing_else():
    code = trainings.lesson_code()
    names = {}
    exec(code, names)
    assert {"make_model", "average_over_ranks", "train", "process_group", "progress"} <= {*names}
    assert "pandas" not in code
    with pytest.raises(ValueError, match="has no function trian"):
        trainings.lesson_code(names=("trian",))


def test_only_the_course_side_knows_the_course():
    for program in trainings.PROGRAMS.glob("*.py"):
        assert not re.search(r"^\s*(from|import) course_lib", program.read_text(), re.MULTILINE)


def test_the_rate_is_of_the_slowest_rank_without_the_first_epoch():
    run = trained([0.0] * 30, times=[[1.0, 2.0, 3.0], [1.0, 3.0, 5.0]])
    assert run.rows_per_second(batch=10) == 20 * 10 / 4


def test_one_slow_epoch_does_not_decide_the_rate():
    run = trained([0.0] * 50, times=[[1.0, 2.0, 3.0, 13.0, 14.0]])
    assert run.rows_per_second(batch=10) == 10 * 10 / 1.0


@pytest.mark.parametrize(
    ("theirs", "void"),
    [
        (trained([1.0, 0.5 + 1e-7]), ""),
        (trained([1.0, 0.5 + 1e-4]), "the trainings found other losses"),
        (trained([1.0, math.nan]), "the trainings found other losses"),
        (trained([1.0, 0.5, 0.4]), "the trainings found other losses"),  # other steps
        (trained([1.0, 0.5], threads=[2, 2]), "the trainings used different numbers of threads"),
    ],
)
def test_other_work_makes_the_comparison_void(theirs, void):
    runs = {trainings.BARE: trained([1.0, 0.5]), trainings.COURSE: theirs}
    assert report.why_void(runs, trainings.differences(runs)) == void


def test_the_peers_are_pinned_and_none_is_in_the_lock():
    wanted = (ROOT / "tools/bench/requirements.txt").read_text()
    lines = [line for line in wanted.splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[a-z-]+==[0-9.]+", line) for line in lines)
    locked = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert not locked & {line.split("==")[0] for line in lines}


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────


def test_a_ratio_is_taken_within_its_round():
    spread = verdicts.ratios([1.0, 30.0, None, 2.0], [10.0, 300.0, 5.0, 10.0])
    assert spread == (0.1, 0.1, 0.2)  # the busy round counts as any other
    assert math.isnan(verdicts.ratios([None], [1.0]).middle)


@pytest.mark.parametrize(
    ("ratio", "at_most", "void", "word"),
    [
        (0.5, True, "", "met"),
        (0.51, True, "", "missed"),
        (0.5, False, "", "met"),
        (0.49, False, "", "missed"),
        (math.nan, True, "", "not measured"),
        (0.5, True, "other losses", "void"),
    ],
)
def test_a_verdict(ratio, at_most, void, word):
    verdict = verdicts.Verdict("a ÷ b", verdicts.Spread(ratio, ratio, ratio), 0.5, at_most, void)
    assert verdict.word == verdict.row()[-1] == word


def test_the_report_hides_nothing():
    starters, trainers = [launches.COURSE, launches.SPAWN], [trainings.COURSE, trainings.BARE]
    measured = report.Measured(starters, trainers)
    for slow in (1.0, 2.0):
        measured.rounds.append(
            {
                "first": {},
                "again": {launches.COURSE: 0.04 * slow, launches.SPAWN: slow},
                "memory": {launches.COURSE: 30e6, launches.SPAWN: 100e6},
                "ready": {},
                "rate": {trainings.COURSE: 960.0, trainings.BARE: 1000.0},
                "plain": {tracing_cost.NAMES[0]: 1e-4 * slow},
                "traced": {tracing_cost.NAMES[0]: 1.2e-4 * slow},
                "load": {"others": 0.2 * slow},
            }
        )
    measured.trained = {name: trained([1.0]) for name in trainers}
    measured.failures["torchrun"] = "empty.py ended with code 1:\nno port"
    found = report.summary(Namespace(nprocs=2, device="cpu", threads=1), measured)
    assert json.loads(json.dumps(found)) == found
    assert [row[1:] for row in found["verdicts"]] == [
        ["0.040 (0.040 to 0.040)", "≤ 0.03", "missed"],
        ["0.300 (0.300 to 0.300)", "≤ 0.4", "met"],
        ["–", "≤ 0.4", "not measured"],
        ["0.960 (0.960 to 0.960)", "≥ 0.97", "missed"],
    ]
    costs = ["150 (100 to 200)", "180 (120 to 240)", "30 (20 to 40)", "1.20 (1.20 to 1.20)"]
    traced, not_traced = tracing_cost.NAMES
    assert found["trace"] == [[traced, *costs], [not_traced, *["–"] * 4]]
    text = report.text(found)
    for said in ("missed", "not measured", "no port", "20% to 40%", "0.060 (0.040 to 0.080)"):
        assert said in text


# ── processes ────────────────────────────────────────────────────────────────────────────────────


def test_a_failing_program_is_told_with_its_words(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("print('first'); raise SystemExit('no such thing')")
    with pytest.raises(ToolFailed, match=r"(?s)broken.py ended with code 1:\n.*no such thing"):
        run_program([sys.executable, script], os.environ)


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path):
    script, pids = tmp_path / "slow.py", tmp_path / "pids"
    script.write_text(
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'],\n"
        "    start_new_session=True)\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(100)\n"
    )
    with pytest.raises(ToolFailed, match="not done after 5 s"):
        run_program([sys.executable, script], os.environ, limit=5)
    end = time.monotonic() + 10
    left = [int(pid) for pid in pids.read_text().split()]
    while any(map(psutil.pid_exists, left)) and time.monotonic() < end:
        time.sleep(0.05)
    alive = [psutil.Process(pid).status() for pid in left if psutil.pid_exists(pid)]
    assert set(alive) <= {psutil.STATUS_ZOMBIE}


def test_a_failing_cell_is_told_with_its_error():
    with kernel(os.environ) as home:
        assert home.run("print(6 * 7)") == "42\n"
        with pytest.raises(ToolFailed, match="ZeroDivisionError"):
            home.run("1 / 0")
