"""What a trace records, and what is concluded from the traces of all ranks."""

import pickle

import pytest
import tracing_ranks as ranks

from course_lib import RankError, launch
from course_lib._matching import match, matches, segments, summary
from course_lib.plots import lanes
from course_lib.tracing import trace


@pytest.fixture(scope="module")
def ring():
    results = launch(ranks.ring, 1000, nprocs=3)
    assert [out[0].item() for _, out in results] == [1, 2, 0]
    return [mine for mine, _ in results]


@pytest.fixture(scope="module")
def everything():
    return launch(ranks.every_operation, nprocs=3)


def test_messages_of_a_ring_are_counted_with_partner_bytes_and_line(ring):
    for rank, mine in enumerate(ring):
        assert mine.rank == rank
        assert mine.world_size == 3
        assert [(o.name, o.peer, o.nbytes) for o in mine.sent] == [
            ("isend", (rank + 1) % 3, 4000)
        ] * 2
        assert [(o.name, o.peer, o.nbytes) for o in mine.received] == [
            ("recv", (rank - 1) % 3, 4000)
        ] * 2
        assert all(o.group == (0, 1, 2) for o in mine.operations)
        lines = {o.where for o in mine.sent}
        assert len(lines) == 1
        assert lines.pop().startswith("tracing_ranks.py, line ")


def test_times_are_in_order_and_inside_the_trace(ring):
    for mine in ring:
        for o in mine.operations:
            assert mine.begin <= o.begin <= o.returned <= mine.end
            assert o.begin <= o.end <= mine.end
            assert (o.waited is not None) == (o.name == "isend")
    begun = [o.begin for o in ring[1].operations]
    assert begun == sorted(begun)


def test_a_message_meets_its_receive(ring):
    met = match(ring)
    assert len(met) == 6
    assert all(m.complete for m in met)
    for m in met:
        sender, receiver = m.operations
        assert (sender.peer, receiver.peer) == (receiver.rank, sender.rank)
        assert m.ready == max(sender.begin, receiver.begin)


def test_who_comes_late_lets_the_others_wait(ring):
    waited = [
        sum(s.end - s.begin for s in segments(mine, match(ring)) if s.kind == "waiting")
        for mine in ring
    ]
    assert waited[1] > 0.15  # rank 0, which sends to it, slept 0.2 s
    assert waited[0] < 0.1
    table = summary(ring)
    assert table.loc["rank 1", "waiting, ms"] == pytest.approx(1e3 * waited[1])
    assert table.loc["rank 0", "else, ms"] >= 200
    assert list(table["messages sent"]) == [2, 2, 2]
    assert list(table["bytes received"]) == [8000, 8000, 8000]


def test_a_trace_changes_no_result_and_leaves_no_trace_behind(everything):
    for _, same, restored in everything:
        assert same
        assert restored


def test_every_operation_is_recorded_once_with_its_bytes(everything):
    names = [
        "broadcast all_reduce reduce all_gather gather all_gather_into_tensor scatter "
        "reduce_scatter reduce_scatter_tensor all_to_all all_to_all_single barrier "
        "monitored_barrier all_gather_object broadcast_object_list isend irecv all_reduce"
    ][0].split()
    for rank, (mine, _, _) in enumerate(everything):
        assert [o.name for o in mine.operations] == names
        by_name = {o.name: o for o in mine.operations}
        for name in names[:6] + names[7:11]:
            assert by_name[name].nbytes == 24, name
        assert by_name["scatter"].nbytes == (24 if rank == 0 else 8)
        assert by_name["barrier"].nbytes == 0
        assert by_name["all_gather_object"].nbytes > 10  # the pickled object, and its length
        assert (by_name["broadcast"].peer, by_name["reduce"].peer, by_name["scatter"].peer) == (
            (1, 1, 0)
        )


def test_all_of_it_matches(everything):
    table = matches([mine for mine, _, _ in everything])
    assert table["complete"].all()
    assert len(table) == 16 + 3
    assert table["what"].iloc[0] == "broadcast"
    assert set(table["what"]) >= {"isend → irecv", "monitored_barrier"}


def test_groups_tags_and_receives_from_anyone():
    traces = launch(ranks.groups_and_anyone, nprocs=3)
    assert [o.group for o in traces[1].operations] == [(1, 2)]
    assert traces[1].operations[0].peer == 2  # group rank 1
    (received,) = traces[0].received
    assert (received.peer, received.tag, received.nbytes) == (2, 7, 32)
    assert all(m.complete for m in match(traces))
    assert list(matches(traces)["ranks"]) in (["1, 2", "2 → 0"], ["2 → 0", "1, 2"])


def test_collectives_in_swapped_order_do_not_match(everything):
    traces = [pickle.loads(pickle.dumps(mine)) for mine, _, _ in everything]
    first, second, *rest = traces[1].operations
    traces[1].operations = [second, first, *rest]
    table = matches(traces)
    assert list(table["complete"][:3]) == [False, False, True]
    swapped = {"broadcast / all_reduce", "all_reduce / broadcast"}
    assert set(table["what"][:2]) <= swapped


def test_a_collective_that_one_rank_never_calls_is_incomplete(ring, everything):
    traces = [mine for mine, _, _ in everything]
    shorter = pickle.loads(pickle.dumps(traces[2]))
    del shorter.operations[-1]
    last = match([*traces[:2], shorter])[-1]
    assert not last.complete
    assert [o.rank for o in last.operations] == [0, 1]
    lost = match([ring[0], ring[1]])  # nobody knows what rank 2 did
    assert sum(m.complete for m in lost) == 2


def test_what_nobody_waits_for_has_no_end():
    results = launch(ranks.nobody_waits, nprocs=2)
    assert [o.end for before, _ in results for o in before.operations] == [None, None]
    lanes([before for before, _ in results], "Nobody waits")
    assert all(o.end > o.waited > o.returned for _, after in results for o in after.operations)


def test_an_operation_that_raises_is_recorded_and_raises():
    ((mine, message),) = launch(ranks.fails, nprocs=1)
    assert [o.name for o in mine.operations] == ["send"]
    assert "same as the rank" in message


@pytest.mark.faults
def test_where_a_traced_rank_is_stuck_is_told_by_the_operations_name():
    with pytest.raises(RankError, match=r"ranks 0, 1: still in send, tracing_ranks\.py, line"):
        launch(ranks.everybody_speaks_first, nprocs=2, timeout=4)


def test_only_one_trace_at_a_time():
    with pytest.raises(RankError, match="a trace is running already"):
        launch(ranks.traced_twice, nprocs=1)


def test_without_a_group_there_is_nothing_to_trace():
    with pytest.raises(RuntimeError, match="needs a process group"), trace():
        pass


def test_lanes_draw_every_rank_and_a_message_as_an_arrow(ring):
    fig = lanes(ring[::-1], "A ring of three")
    (ax,) = fig.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["rank 0", "rank 1", "rank 2"]
    arrows = [a for a in ax.texts if getattr(a, "arrow_patch", None) is not None]
    assert len(arrows) == 6
    words = {t.get_text() for legend in fig.legends for t in legend.get_texts()}
    assert words == {"anything else", "message", "waiting for another rank"}
    with pytest.raises(ValueError, match="no traces"):
        lanes([], "Nothing")


def test_a_trace_says_what_is_in_it(ring):
    assert repr(ring[0]).startswith("<Trace of rank 0: 2 messages sent, 2 received, 0 collectives")
    spent = summary(ring)[["waiting, ms", "communicating, ms", "else, ms"]].sum(axis=1)
    assert list(spent) == pytest.approx([1e3 * (mine.end - mine.begin) for mine in ring])
