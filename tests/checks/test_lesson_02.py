"""Exercises of lesson 02: wrong answers are told apart, right ones written differently pass."""

import time

import pytest
import torch
import torch.distributed as dist
from torch.distributed import recv, send

from course_lib.checks import lesson_02 as check


def place():
    """This rank, the next one, the one before, and how many there are."""
    rank, n = dist.get_rank(), dist.get_world_size()
    return rank, (rank + 1) % n, (rank - 1) % n, n


# ---- 2.1 · Ping-pong


def play(rounds, start, *, one=1, two=1, times=1):
    """The right answer, unless told otherwise: what each player adds, how often it sends."""
    rank = dist.get_rank()
    if rank > 1:
        return None
    ball = torch.tensor([float(start or 0)])
    for _ in range(rounds):
        for player, step in ((0, one), (1, two)):
            if rank == player:
                ball += step
            for _ in range(times):
                send(ball, 1 - rank) if rank == player else recv(ball, 1 - rank)
    return ball.item()


def lets_one_player_add(rounds, start):
    return play(rounds, start, two=0)


def adds_too_much(rounds, start):
    return play(rounds, start, one=2)


def sends_every_ball_twice(rounds, start):
    return play(rounds, start, times=2)


def plays_one_round_too_many(rounds, start):
    return play(rounds + 1, start)


def answers_without_listening(rounds, start):
    """Rank 1 sends back its own count and not what came."""
    rank, ball, away = dist.get_rank(), torch.tensor([start or 0]), torch.zeros(1, dtype=int)
    if rank > 1:
        return None
    for played in range(rounds):
        if rank == 0:
            ball += 1
            dist.send(ball, 1)
            dist.recv(ball, 1)
        else:
            dist.recv(away, 0)
            ball = torch.tensor([2 * played + 2])
            dist.send(ball, 0)
    return ball.item()


def tells_everybody(rounds, start):
    number = [start]
    dist.broadcast_object_list(number, src=0)
    return number[0] + 2 * rounds if dist.get_rank() < 2 else None


def meets_after_the_game(rounds, start):
    end = play(rounds, start)
    dist.barrier()
    return end


def does_not_wait_for_the_last_ball(rounds, start):
    """Rank 1 returns when the other side may not have received yet."""
    if dist.get_rank() != 1:
        return play(rounds, start)
    ball = torch.zeros(1)
    for played in range(rounds):
        dist.recv(ball, 0)
        ball += 1
        dist.isend(ball, 0) if played == rounds - 1 else dist.send(ball, 0)
    return ball.item()


def returns_it_on_rank_0_only(rounds, start):
    end = play(rounds, start)
    return end if dist.get_rank() == 0 else None


def returns_what_came_last(rounds, start):
    end = play(rounds, start)
    return end - 1 if dist.get_rank() == 1 else end


def returns_a_tensor(rounds, start):
    end = play(rounds, start)
    return None if end is None else torch.tensor(end)


def returns_a_number_on_watchers(rounds, start):
    return play(rounds, start) or 0.0


def lets_the_watchers_play(rounds, start):
    """Right on 2 ranks; on 3, rank 2 waits for a ball that never comes."""
    if dist.get_rank() > 1:
        dist.recv(torch.zeros(1), 0)
    return play(rounds, start)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(lets_one_player_add, "both add one", id="one adds"),
        pytest.param(adds_too_much, "each adds one to the number", id="adds two"),
        pytest.param(sends_every_ball_twice, "sent was 2 from 0 to 1, 2 from 1 to 0", id="twice"),
        pytest.param(plays_one_round_too_many, "got [9.0, 9.0]", id="a round too many"),
        pytest.param(answers_without_listening, "each adds one to the number", id="swallows"),
        pytest.param(tells_everybody, "not broadcast_object_list", id="broadcast"),
        pytest.param(meets_after_the_game, "not barrier", id="barrier"),
        pytest.param(does_not_wait_for_the_last_ball, "the isend in line", id="isend, no wait"),
        pytest.param(returns_it_on_rank_0_only, "both players return", id="rank 0 only"),
        pytest.param(returns_what_came_last, "what it sent back last", id="one too few"),
        pytest.param(returns_a_tensor, "tensor.item()", id="a tensor"),
        pytest.param(returns_a_number_on_watchers, "3 ranks, 3 rounds: who watches", id="watchers"),
    ],
)
def test_ping_pong_rejects(rejects, answer, says):
    rejects(check.ping_pong, answer, says)


@pytest.mark.faults
def test_ping_pong_rejects_what_hangs_on_3_ranks_only(rejects, impatient):
    says = "rank 2: still in recv, test_lesson_02.py, line"
    rejects(check.ping_pong, lets_the_watchers_play, says)


def in_objects(rounds, start):
    rank, ball = dist.get_rank(), [start]
    for turn in range(2 * rounds):
        if rank == turn % 2:
            ball[0] += 1
            dist.send_object_list(ball, 1 - rank)
        elif rank < 2:
            dist.recv_object_list(ball, 1 - rank)
    return ball[0]


def with_handles(rounds, start):
    rank = dist.get_rank()
    if rank > 1:
        return None
    ball = torch.tensor(start or 0)
    if rank == 0:
        for _ in range(rounds):
            dist.isend(ball + 1, dst=1).wait()
            dist.irecv(ball, src=1).wait()
    else:
        for _ in range(rounds):
            listening = dist.irecv(ball)
            listening.wait()
            ball = ball + 1
            dist.send(tensor=ball, dst=0, tag=0)
    return int(ball)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(play, id="imported names, float"),
        pytest.param(in_objects, id="objects"),
        pytest.param(with_handles, id="isend and irecv"),
    ],
)
def test_ping_pong_accepts(accepts, answer):
    accepts(check.ping_pong, answer)


# ---- 2.2 · Speak in order


def in_turn(say, *, before=lambda: None, after=lambda: None):
    rank, _, _, n = place()
    word = torch.zeros(1)
    before()
    if rank > 0:
        recv(word, rank - 1)
    say()
    if rank < n - 1:
        send(word, rank + 1)
    after()


def speaks_at_once(say):
    say()


def sleeps(say):
    time.sleep(0.1 * dist.get_rank())
    say()


def meets_after_each(say):
    for rank in range(dist.get_world_size()):
        if rank == dist.get_rank():
            say()
        dist.barrier()


def speaks_before_it_hears(say):
    say()
    in_turn(lambda: None)


def passes_it_on_before_it_speaks(say):
    in_turn(lambda: None)
    say()


def closes_the_ring(say):
    rank, to, _, n = place()
    in_turn(say)
    if rank == n - 1:
        dist.send(torch.zeros(1), to)
    elif rank == 0:
        dist.recv(torch.zeros(1), n - 1)


def asks_rank_0(say):
    """Rank 0 calls them up one by one, and each of them answers."""
    word = torch.zeros(1)
    if dist.get_rank() == 0:
        say()
        for rank in range(1, dist.get_world_size()):
            dist.send(word, rank)
            dist.recv(word, rank)
    else:
        dist.recv(word, 0)
        say()
        dist.send(word, 0)


def rank_0_frees_everybody(say):
    """As many messages as needed; in order on 2 ranks only."""
    word = torch.zeros(1)
    if dist.get_rank() == 0:
        say()
        for rank in range(1, dist.get_world_size()):
            dist.send(word, rank)
    else:
        dist.recv(word, 0)
        say()


def begins_with_the_last(say):
    rank, _, _, n = place()
    word = torch.zeros(1)
    if rank < n - 1:
        dist.recv(word, rank + 1)
    say()
    if rank > 0:
        dist.send(word, rank - 1)


def believes_in_four_ranks(say):
    rank, word = dist.get_rank(), torch.zeros(1)
    if rank > 0:
        dist.recv(word, rank - 1)
    say()
    if rank < 3:
        dist.send(word, rank + 1)


def does_not_wait_for_the_listener(say):
    rank, to, source, n = place()
    if rank > 0:
        dist.recv(torch.zeros(1), source)
    say()
    if rank < n - 1:
        dist.isend(torch.zeros(1), to)


def does_not_wait_for_the_word(say):
    rank, to, source, n = place()
    if rank > 0:
        dist.irecv(torch.zeros(1), source)
    say()
    if rank < n - 1:
        dist.send(torch.zeros(1), to)


def speaks_twice(say):
    in_turn(say, after=say)


def all_listen_first(say):
    _, to, source, _ = place()
    word = torch.zeros(1)
    dist.recv(word, source)
    say()
    dist.send(word, to)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(speaks_at_once, "without one, nobody knows who has spoken", id="at once"),
        pytest.param(sleeps, "to sleep is to guess", id="sleep"),
        pytest.param(meets_after_each, "not barrier", id="barrier"),
        pytest.param(speaks_before_it_hears, "rank 1 calls say() before its message", id="early"),
        pytest.param(passes_it_on_before_it_speaks, "rank 0 sends before it has", id="late"),
        pytest.param(closes_the_ring, "1 from 0 to 1, 1 from 1 to 0: each", id="a ring"),
        pytest.param(asks_rank_0, "nobody needs anything else", id="2(N-1) messages"),
        pytest.param(rank_0_frees_everybody, "1 from 0 to 1, 1 from 0 to 2: each", id="a star"),
        pytest.param(begins_with_the_last, "sent was 1 from 1 to 0", id="the last first"),
        pytest.param(does_not_wait_for_the_listener, "the isend in line", id="isend, no wait"),
        pytest.param(does_not_wait_for_the_word, "the irecv in line", id="irecv, no wait"),
        pytest.param(speaks_twice, "calls of say() on each rank: [2, 2]", id="twice"),
    ],
)
def test_speak_in_order_rejects(rejects, answer, says):
    rejects(check.speak_in_order, answer, says)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(all_listen_first, "ranks 0, 1: still in recv, test_lesson_02.py", id="recv"),
        pytest.param(believes_in_four_ranks, "the last rank sends nothing", id="4 ranks"),
    ],
)
def test_speak_in_order_rejects_what_hangs(rejects, impatient, answer, says):
    rejects(check.speak_in_order, answer, says)


def from_anyone(say):
    rank, to, _, n = place()
    word = torch.full((1,), n)
    if rank:
        dist.recv(word)
    say()
    if to:
        dist.send(word, group_dst=to)


def listens_early(say):
    rank, to, source, _ = place()
    word = torch.empty(3, dtype=torch.int64)
    listening = dist.irecv(word, source) if rank else None
    if listening:
        listening.wait()
    say()
    if to:
        dist.isend(word, to).wait()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(in_turn, id="imported names"),
        pytest.param(from_anyone, id="from anyone"),
        pytest.param(listens_early, id="isend and irecv"),
    ],
)
def test_speak_in_order_accepts(accepts, answer):
    accepts(check.speak_in_order, answer)


# ---- 2.3 · Mend the ring


def ring(token, rounds, *, listens=lambda rank, n: rank % 2 == 1, step=1, times=1, room=None):
    """The right answer, unless told otherwise: who begins with recv, how far, how often."""
    rank, _, _, n = place()
    if n == 1:
        return token
    room = room or torch.empty_like
    for _ in range(rounds):
        arrived, moves = room(token), [(send, (rank + step) % n), (recv, (rank - step) % n)]
        for move, other in moves[::-1] if listens(rank, n) else moves:
            for _ in range(times):
                move(token if move is send else arrived, other)
        token = arrived
    return token


def turns_the_wrong_way(token, rounds):
    return ring(token, rounds, step=-1)


def goes_around_once_only(token, rounds):
    return ring(token, 1)


def sends_its_own_every_round(token, rounds):
    for _ in range(rounds):
        arrived = ring(token, 1)
    return arrived


def returns_its_own(token, rounds):
    ring(token, rounds)
    return token


def sends_everything_twice(token, rounds):
    return ring(token, rounds, times=2)


def takes_the_shortcut(token, rounds):
    """The right tokens, in one message for all the rounds."""
    n = dist.get_world_size()
    return ring(token, 1, step=rounds % n) if rounds % n else token


def gathers_all(token, rounds):
    rank, _, _, n = place()
    tokens = [torch.empty_like(token) for _ in range(n)]
    dist.all_gather(tokens, token)
    return tokens[(rank - rounds) % n]


def meets_after_every_round(token, rounds):
    for _ in range(rounds):
        token = ring(token, 1)
        dist.barrier()
    return token


def offers(token, rounds):
    _, to, source, n = place()
    for _ in range(rounds if n > 1 else 0):
        arrived = torch.empty_like(token)
        handles = [dist.isend(token, to), dist.irecv(arrived, source)]
        for handle in handles:
            handle.wait()
        token = arrived
    return token


def offers_and_does_not_wait(token, rounds):
    _, to, source, n = place()
    for _ in range(rounds if n > 1 else 0):
        arrived = torch.empty_like(token)
        offer = dist.isend(token, to)
        dist.recv(arrived, source)
        token = arrived
    return token if n == 1 or offer else None


def believes_in_four(token, rounds):
    rank = dist.get_rank()
    for _ in range(rounds):
        arrived = torch.empty_like(token)
        if rank % 2:
            dist.recv(arrived, (rank - 1) % 4)
            dist.send(token, (rank + 1) % 4)
        else:
            dist.send(token, (rank + 1) % 4)
            dist.recv(arrived, (rank - 1) % 4)
        token = arrived
    return token


def receives_into_the_token(token, rounds):
    """Whoever listens first loses its own and sends on what has just come."""
    return ring(token, rounds, room=lambda token: token)


def has_room_for_float32_only(token, rounds):
    return ring(token.float(), rounds)


def forgets_the_shape(token, rounds):
    return ring(token.flatten(), rounds)


def swaps_pairs(token, rounds):
    """Right on 2 ranks."""
    rank, n = dist.get_rank(), dist.get_world_size()
    arrived = torch.empty_like(token)
    for _ in range(rounds):
        if rank % 2:
            dist.recv(arrived, rank ^ 1)
            dist.send(token, rank ^ 1)
        elif rank ^ 1 < n:
            dist.send(token, rank ^ 1)
            dist.recv(arrived, rank ^ 1)
        token = arrived.clone()
    return token


def sends_to_itself_when_alone(token, rounds):
    if dist.get_world_size() > 1:
        return ring(token, rounds)
    dist.send(token, 0)
    return token


def returns_none_when_alone(token, rounds):
    return ring(token, rounds) if dist.get_world_size() > 1 else None


def all_send_first(token, rounds):
    return ring(token, rounds, listens=lambda rank, n: False)


def is_right_for_even_numbers(token, rounds):
    return ring(token, rounds, listens=lambda rank, n: n % 2 == 0 and rank % 2 == 0)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(turns_the_wrong_way, "they move the wrong way", id="wrong way"),
        pytest.param(
            goes_around_once_only,
            "4 ranks, 5 rounds, 1 number of float32 each: 5 messages from each",
            id="one round",
        ),
        pytest.param(sends_its_own_every_round, "goes on in the next one", id="its own"),
        pytest.param(returns_its_own, "each has its own token", id="returns its own"),
        pytest.param(sends_everything_twice, "sent was 2 from 0 to 1", id="twice"),
        pytest.param(takes_the_shortcut, "sent was 1 from 0 to 1", id="one message"),
        pytest.param(gathers_all, "only, not all_gather", id="all_gather"),
        pytest.param(meets_after_every_round, "only, not barrier", id="barrier"),
        pytest.param(offers, "only, not irecv, isend", id="isend"),
        pytest.param(offers_and_does_not_wait, "the isend in line", id="isend, no wait"),
        pytest.param(receives_into_the_token, "2 ranks, 1 round, 1 number", id="into the token"),
        pytest.param(has_room_for_float32_only, "whole and unchanged", id="float32"),
        pytest.param(forgets_the_shape, "6 numbers of int64 each", id="flat"),
        pytest.param(swaps_pairs, "4 ranks, 5 rounds", id="pairs"),
        pytest.param(sends_to_itself_when_alone, "nobody to send to", id="alone, sends"),
        pytest.param(returns_none_when_alone, "(got ['None'])", id="alone, None"),
    ],
)
def test_pass_on_rejects(rejects, answer, says):
    rejects(check.pass_on, answer, says)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(all_send_first, "ranks 0, 1: still in send", id="all send first"),
        pytest.param(believes_in_four, "After rank 1 comes rank 0", id="4 ranks"),
        pytest.param(is_right_for_even_numbers, "ranks 0–2: still in send", id="even numbers"),
    ],
)
def test_pass_on_rejects_what_hangs(rejects, impatient, answer, says):
    rejects(check.pass_on, answer, says)


def only_rank_0_listens_first(token, rounds):
    return ring(token, rounds, listens=lambda rank, n: rank == 0)


def only_the_last_speaks_first(token, rounds):
    return ring(token, rounds, listens=lambda rank, n: rank < n - 1)


def with_two_buffers(token, rounds):
    rank, to, source, n = place()
    mine, other = token.clone(), token.clone()
    for _ in range(rounds * (n > 1)):
        if rank % 2 == 0:
            dist.recv(other, src=source)
        dist.send(mine, dst=to)
        if rank % 2 == 1:
            dist.recv(tensor=other, src=source)
        mine, other = other, mine
    return mine


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ring, id="odd ranks listen first"),
        pytest.param(only_rank_0_listens_first, id="rank 0 listens first"),
        pytest.param(only_the_last_speaks_first, id="the last speaks first"),
        pytest.param(with_two_buffers, id="two buffers"),
    ],
)
def test_pass_on_accepts(accepts, answer):
    accepts(check.pass_on, answer)
