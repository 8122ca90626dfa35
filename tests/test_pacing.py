"""When the broker's socket is looked at again."""

from hypothesis import given
from hypothesis import strategies as st

from leekfanout.pacing import BURST_MESSAGES, PAUSE_S, SLOW_PER_S, Pacing


def _slow(now: float) -> Pacing:
    """Return a pacing that has seen one message a second up to ``now``."""
    pacing = Pacing()
    pacing.connected(now - 2)
    pacing.took(now - 1, 1, more=False)
    pacing.took(now, 1, more=False)
    return pacing


def test_reading_pauses_while_little_comes() -> None:
    assert _slow(100.0).due == 100.0 + PAUSE_S


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
    assert pacing.due == 100.0 + PAUSE_S


def test_what_waits_already_is_read_without_a_pause() -> None:
    pacing = _slow(100.0)
    pacing.took(101.0, 1, more=True)
    assert pacing.due == 100.0 + PAUSE_S


def test_a_burst_ends_the_pauses() -> None:
    pacing = _slow(100.0)
    pacing.took(100.3, BURST_MESSAGES, more=False)
    pacing.took(100.4, 1, more=False)
    assert pacing.due == 100.0 + PAUSE_S


@given(st.integers(min_value=1, max_value=1_000), st.lists(st.integers(0, 20), max_size=50))
def test_reading_never_pauses_above_the_slow_rate(steps: int, takes: list[int]) -> None:
    """Every second has as many messages as are not slow, in however many reads."""
    pacing = Pacing()
    pacing.connected(0.0)
    for step in range(1, steps + 1):
        pacing.took(step / 20, int(SLOW_PER_S / 20) + 1, more=False)
    for take in takes:
        pacing.took(steps / 20, take, more=False)
    assert pacing.due <= steps / 20


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 200), st.booleans())))
def test_a_pause_is_never_longer_than_the_pause(reads: list[tuple[float, int, bool]]) -> None:
    pacing, now = Pacing(), 10.0
    pacing.connected(now)
    for after_s, messages, more in reads:
        now += after_s
        pacing.took(now, messages, more=more)
        assert pacing.due <= now + PAUSE_S
