"""Bars, metrics and notices: what a rank sends and the kernel draws, what a plain process does."""

from types import SimpleNamespace

import pytest
import torch

from course_lib import _display, reporting
from course_lib._display import Display
from course_lib.reporting import notice, progress, report


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No launch, nothing reported or said yet, and a second between any two looks at the clock."""
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(reporting, "_send", None)
    monkeypatch.setattr(reporting, "_metrics", {})
    monkeypatch.setattr(reporting, "_metrics_sent", 0.0)
    monkeypatch.setattr(reporting, "_bar_is_sent", False)
    monkeypatch.setattr(reporting, "_bars_sent", 0)
    monkeypatch.setattr(Display, "_noticed", set())
    clock = SimpleNamespace(now=100.0, tick=1.0)

    def monotonic() -> float:
        clock.now += clock.tick
        return clock.now

    for module in (reporting, _display):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=monotonic))
    return clock


@pytest.fixture
def sent(monkeypatch):
    """Be a rank under `launch`; collect what it sends."""
    messages = []
    monkeypatch.setattr(reporting, "_send", lambda *message: messages.append(message))
    return messages


# --- outside a launch ---------------------------------------------------------------------------


def test_a_plain_process_draws_one_bar_with_its_metrics(capsys):
    seen = []
    for i in progress(range(3), "epoch"):
        seen += [(i, j) for j in progress("ab", "batch")]
        report(loss=0.5, kind="train")
    assert seen == [(i, j) for i in range(3) for j in "ab"]
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("epoch: 100%")
    assert "3/3" in out
    assert "loss=0.5" in out
    assert "batch" not in out


def test_after_a_bar_that_was_left_early_the_next_is_drawn(capsys):
    for _ in progress(range(5), "first"):
        break
    assert list(progress(range(2), "second")) == [0, 1]
    assert "second: 100%" in capsys.readouterr().out


def test_without_a_bar_numbers_are_printed(capsys):
    report(loss=0.123456, epoch=2, phase="warm-up")
    assert capsys.readouterr().out == "loss=0.1235, epoch=2, phase=warm-up\n"


def test_other_ranks_of_a_torchrun_job_are_silent(monkeypatch, capfd):
    monkeypatch.setenv("RANK", "1")
    assert list(progress(range(3), "epoch")) == [0, 1, 2]
    report(loss=0.5)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [torch.tensor(0.5), None, [0.5], 1j], ids=type)
@pytest.mark.parametrize("place", ["plain", "rank"])
def test_what_is_no_number_and_no_word_is_refused(value, place, request, capsys):
    messages = request.getfixturevalue("sent") if place == "rank" else []
    with pytest.raises(TypeError, match=rf"report\(loss=…\) got a {type(value).__name__}: plain"):
        report(loss=value)
    reporting.flush()
    assert (messages, capsys.readouterr().out) == ([], "")


# --- in a rank ----------------------------------------------------------------------------------


def test_a_rank_sends_where_it_stands_and_prints_nothing(sent, capfd):
    assert list(progress((i for i in range(2)), "epoch", total=2)) == [0, 1]
    assert sent == [
        ("bar", (0, "epoch", 0, 2, False)),
        ("bar", (0, "epoch", 1, 2, False)),
        ("bar", (0, "epoch", 2, 2, False)),
        ("bar", (0, "epoch", 2, 2, True)),
    ]
    assert capfd.readouterr() == ("", "")


def test_the_total_is_the_length_where_there_is_one(sent):
    list(progress("abc"))
    list(progress(iter("abc")))
    assert [message[1][3] for message in sent if message[1][4]] == [3, None]


@pytest.mark.parametrize("inner", ["batch", ""], ids=["named", "named-alike"])
def test_a_ranks_inner_bars_only_pass_items_on(sent, inner):
    for _ in progress(range(2), ""):
        assert list(progress("abc", inner)) == ["a", "b", "c"]
    assert {payload[:2] for _, payload in sent} == {(0, "")}
    assert [payload[2:] for _, payload in sent if payload[4]] == [(2, 2, True)]


def test_a_bar_that_is_left_early_is_closed_where_it_stood(sent):
    for i in progress(range(10), "epoch"):
        if i == 3:
            break
    assert sent[-1] == ("bar", (0, "epoch", 3, 10, True))
    list(progress(range(2), "next"))
    assert sent[-1] == ("bar", (1, "next", 2, 2, True))


def test_a_rank_sends_at_most_ten_times_a_second(sent, fresh):
    fresh.tick = 0.01
    for i in progress(range(100), "step"):
        report(loss=float(i))
    bars = [payload[2] for kind, payload in sent if kind == "bar"]
    assert len(bars) < 35  # 200 looks at the clock are 2 s
    assert bars[-1] == 100
    metrics = [payload["loss"] for kind, payload in sent if kind == "metrics"]
    assert len(metrics) < 35
    assert metrics[-1] == 99.0  # what was held back comes before the bar's end
    reporting.flush()  # nothing is left to send
    assert sent[-1] == ("bar", (0, "step", 100, 100, True))


def test_a_notice_goes_to_the_kernel(sent, capsys):
    notice("hello")
    assert (sent, capsys.readouterr().out) == ([("notice", "hello")], "")


# --- the kernel's side, in a terminal -----------------------------------------------------------


def at(display: Display, rank: int, n: int, bar: int = 0, done: bool = False) -> None:
    display.handle(rank, "bar", (bar, ("epoch", "test")[bar], n, 10, done))


def last_drawn(capsys) -> str:
    return capsys.readouterr().out.rpartition("\r")[2].rstrip()


def test_the_bar_stands_where_the_slowest_rank_stands(capsys):
    display = Display(3)
    for rank, n, slowest in [(0, 4, 4), (2, 7, 4), (1, 5, 4), (0, 9, 5), (1, 8, 7), (2, 10, 8)]:
        at(display, rank, n)
        assert f" {slowest}/10 " in last_drawn(capsys)


def test_a_rank_that_is_ahead_in_the_next_bar_waits_for_the_others(capsys):
    display = Display(2)
    at(display, 1, 3)
    at(display, 0, 10, done=True)
    at(display, 0, 10, bar=1, done=True)
    out = capsys.readouterr().out
    assert "test" not in out
    assert "\n" not in out  # rank 1 is still in the first bar
    at(display, 1, 10, done=True)
    at(display, 1, 4, bar=1)
    out = capsys.readouterr().out
    assert "epoch: 100%" in out
    assert out.rpartition("\r")[2].startswith("test:  40%")


def test_bars_of_one_rank_alone_follow_each_other(capsys):
    display = Display(4)
    at(display, 0, 10, done=True)
    assert " 10/10 " in last_drawn(capsys)  # the others may yet begin theirs
    at(display, 0, 2, bar=1)
    assert last_drawn(capsys).startswith("test:  20%")


def test_the_next_bar_begins_when_all_ranks_have_closed_theirs(capsys):
    display = Display(2)
    at(display, 0, 10, done=True)
    at(display, 1, 6)
    assert "\n" not in capsys.readouterr().out
    at(display, 1, 10, done=True)
    out = capsys.readouterr().out
    assert "epoch: 100%" in out
    assert out.endswith("\n")
    at(display, 0, 1, bar=1)
    assert last_drawn(capsys).startswith("test:  10%")


def test_a_terminals_bar_is_one_line_that_is_overwritten(capsys):
    display = Display(1)
    for n in (1, 2):
        at(display, 0, n)
        out = capsys.readouterr().out
        assert out.startswith("\repoch:")
        assert "\n" not in out
    display.lines(0, ["hello"])
    assert capsys.readouterr().out == "\r" + " " * 90 + "\r[rank 0] hello\n"
    display.close()
    out = capsys.readouterr().out
    assert " 2/10 " in out
    assert out.endswith("\n")
    display.close()
    assert capsys.readouterr().out == ""


def test_the_bar_is_not_drawn_at_every_message_but_its_end_is(capsys, fresh):
    display = Display(1)
    fresh.tick = 0.001
    for n in range(10):
        at(display, 0, n)
    assert capsys.readouterr().out.count("\r") == 1
    at(display, 0, 10, done=True)
    assert "10/10" in last_drawn(capsys)


def test_metrics_of_the_lowest_rank_stand_beside_the_bar(capsys):
    display = Display(2)
    display.handle(1, "metrics", {"loss": 0.25})
    assert capsys.readouterr().out == ""  # no bar yet
    at(display, 1, 1)
    assert "loss=0.25" in last_drawn(capsys)
    display.handle(0, "metrics", {"loss": 0.123456, "epoch": 1})
    display.handle(0, "metrics", {"epoch": 2})
    assert "loss=0.1235, epoch=2" in last_drawn(capsys)


def test_lines_are_labelled(capsys):
    display = Display(2)
    display.lines(1, ["first", "", "third"])
    display.lines(0, [])
    assert capsys.readouterr().out == "[rank 1] first\n[rank 1] \n[rank 1] third\n"


def test_a_notice_is_shown_once_in_the_life_of_a_kernel(capsys):
    first = Display(2)
    for rank in (0, 1):
        first.handle(rank, "notice", "Gloo on CPU")
    Display(2).handle(0, "notice", "Gloo on CPU")
    Display(2).handle(0, "notice", "something else")
    assert capsys.readouterr().out == "Gloo on CPU\nsomething else\n"
