"""When the broker's socket is looked at again."""

from hypothesis import given
from hypothesis import strategies as st

from leekfanout.delivery.pacing import (
    BURST_MESSAGES,
    PAUSE_MAX_S,
    PAUSE_MESSAGES,
    SLOW_PER_S,
    Pacing,
)


def _slow(now: float) -> Pacing:
    """Return a pacing that has seen one message a second up to ``now``."""
    pacing = Pacing()
    pacing.connected(now - 2)
    pacing.took(now - 1, 1, more=False)
    pacing.took(now, 1, more=False)
    return pacing


def test_reading_pauses_while_little_comes() -> None:
    assert _slow(100.0).due == 100.0 + PAUSE_MAX_S


def test_an_event_after_a_silence_is_read_at_once() -> None:
    assert _slow(100.0).due < 101.0


def test_a_backlog_behind_a_new_connection_is_read_without_a_pause() -> None:
    pacing = _slow(100.0)
    pacing.connected(200.0)
    pacing.took(200.1, 3, more=False)
    assert pacing.due == 200.0


def test_a_read_that_took_nothing_begins_no_pause() -> None:
    pacing = _slow(100.0)
    pacing.took(101.0, 0, more=False)
    assert pacing.due == 100.0 + PAUSE_MAX_S


def test_what_waits_already_is_read_without_a_pause() -> None:
    pacing = _slow(100.0)
    pacing.took(101.0, 1, more=True)
    assert pacing.due == 100.0 + PAUSE_MAX_S


def test_a_burst_ends_the_pauses() -> None:
    pacing = _slow(100.0)
    pacing.took(100.3, BURST_MESSAGES, more=False)
    pacing.took(100.4, 1, more=False)
    assert pacing.due == 100.0 + PAUSE_MAX_S


def test_a_pause_gathers_a_number_of_messages() -> None:
    pacing = Pacing()
    pacing.connected(0.0)
    pacing.took(1.0, 150, more=False)
    pacing.took(2.0, 1_000, more=False)  # a burst, and the rate from now on
    pacing.took(2.1, 100, more=False)
    assert pacing.due == 1.0 + PAUSE_MAX_S
    pacing.took(3.0, 150, more=False)
    pacing.took(3.1, 50, more=False)
    assert pacing.due == 3.1 + PAUSE_MESSAGES / 250 * 1.0


def test_reading_that_waits_for_deliveries_never_pauses() -> None:
    pacing = _slow(100.0)
    pacing.held_up()
    for second in range(1, 5):
        pacing.took(100.0 + second, 3, more=False)
        pacing.held_up()
    assert pacing.due == 100.0 + PAUSE_MAX_S


def test_reading_pauses_again_after_it_had_to_wait_for_deliveries() -> None:
    pacing = _slow(100.0)
    pacing.held_up()
    for second in range(1, 4):
        pacing.took(100.0 + second, 3, more=False)
    assert pacing.due == 103.0 + PAUSE_MAX_S


@given(st.lists(st.integers(int(SLOW_PER_S / 20) + 1, 500), min_size=1, max_size=200))
def test_reading_never_pauses_above_the_slow_rate(takes: list[int]) -> None:
    pacing = Pacing()
    pacing.connected(0.0)
    for step, take in enumerate(takes, start=1):
        pacing.took(step / 20, take, more=False)
        assert pacing.due <= step / 20


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 200), st.booleans())))
def test_a_pause_is_never_longer_than_the_longest(reads: list[tuple[float, int, bool]]) -> None:
    pacing, now = Pacing(), 10.0
    pacing.connected(now)
    for after_s, messages, more in reads:
        now += after_s
        pacing.took(now, messages, more=more)
        assert pacing.due <= now + PAUSE_MAX_S
