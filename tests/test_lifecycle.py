"""The states of a process, and its restarts' delays."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.supervision.lifecycle import UP, WAITING, Backoff, Move, State, after


@pytest.mark.parametrize(
    ("moves", "state"),
    [
        ([], State.STOPPED),
        ([Move.SPAWN], State.STARTING),
        ([Move.SPAWN, Move.STEADY], State.RUNNING),
        ([Move.SPAWN, Move.CRASH], State.BACKOFF),
        ([Move.SPAWN, Move.STEADY, Move.CRASH], State.BACKOFF),
        ([Move.SPAWN, Move.STEADY, Move.CRASH, Move.SPAWN], State.STARTING),
        ([Move.SPAWN, Move.STEADY, Move.CRASH, Move.STOP], State.STOPPED),
        ([Move.SPAWN, Move.STEADY, Move.END], State.EXITED),
        ([Move.SPAWN, Move.STEADY, Move.STOP], State.STOPPING),
        ([Move.SPAWN, Move.STEADY, Move.STOP, Move.END], State.STOPPED),
        ([Move.SPAWN, Move.STOP, Move.CRASH], State.STOPPED),
    ],
)
def test_moves_lead_from_stopped_to_a_state(moves: list[Move], state: State) -> None:
    reached = State.STOPPED
    for move in moves:
        reached = after(reached, move)
    assert reached is state


@pytest.mark.parametrize(
    ("state", "move"),
    [
        (State.STOPPED, Move.STOP),
        (State.STOPPED, Move.CRASH),
        (State.RUNNING, Move.SPAWN),
        (State.STOPPING, Move.SPAWN),
        (State.STOPPING, Move.STEADY),
        (State.BACKOFF, Move.STEADY),
    ],
)
def test_an_impossible_move_is_refused(state: State, move: Move) -> None:
    with pytest.raises(ValueError, match=f"{move.name} is no move .* {state.name}"):
        after(state, move)


@given(st.lists(st.sampled_from(list(Move)), max_size=50))
def test_only_a_spawn_leads_to_a_process_and_only_an_end_away_from_it(moves: list[Move]) -> None:
    state = State.STOPPED
    for move in moves:
        try:
            then = after(state, move)
        except ValueError:
            continue
        if state in UP and then not in UP:
            assert move in {Move.END, Move.CRASH}
        if state not in UP and then in UP:
            assert move is Move.SPAWN
        if then in WAITING:
            assert state in UP
        state = then
    assert state is not State.FATAL


@given(st.integers(0, 2**32), st.lists(st.floats(0, 59), min_size=1, max_size=40))
def test_delays_stay_between_a_second_and_a_minute_and_grow(seed: int, lives: list[float]) -> None:
    backoff = Backoff(random.Random(seed))
    delays = [backoff.delay(lived_s) for lived_s in lives]
    assert all(1.0 <= delay <= 60.0 for delay in delays)
    for number, delay in enumerate(delays):
        base = min(2.0**number, 40.0)
        assert base <= delay <= base * 1.5


def test_a_minute_of_health_begins_anew() -> None:
    backoff = Backoff(random.Random(1))
    assert [backoff.delay(0.1) for _ in range(5)][-1] >= 16
    assert backoff.delay(60.0) <= 1.5
    assert backoff.delay(0.1) >= 2.0


def test_a_start_that_somebody_asked_for_begins_anew() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(5):
        backoff.delay(0.1)
    backoff.reset()
    assert backoff.delay(0.1) <= 1.5
