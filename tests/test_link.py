"""The link to the broker: when it is tried again, and connecting in the background."""

import math
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.delivery.link import (
    DELAY_MAX_S,
    DELAY_MIN_S,
    HEALTHY_AFTER_S,
    REFUSED_DELAY_MAX_S,
    Link,
    LinkState,
    Retries,
)
from leekfanout.errors import SourceError, SourceRefusedError, SourceStandbyError


def retries(addresses: int = 1, seed: int = 0) -> Retries:
    return Retries(addresses, random.Random(seed))


@pytest.mark.parametrize("addresses", [1, 2, 3, 7])
def test_all_addresses_are_tried_at_once_and_then_comes_a_pause(addresses: int):
    each = retries(addresses)
    for _ in range(5):
        pauses = [each.failed(refused=False) for _ in range(addresses)]
        assert pauses[:-1] == [0.0] * (addresses - 1)
        assert pauses[-1] >= DELAY_MIN_S


@given(st.integers(1, 20), st.integers(), st.integers(1, 400))
def test_the_pauses_grow_to_a_bound(addresses: int, seed: int, rounds: int):
    each = retries(addresses, seed)
    pauses = [each.failed(refused=False) for _ in range(addresses * rounds)]
    between_rounds = pauses[addresses - 1 :: addresses]
    for number, pause in enumerate(between_rounds):
        cap = min(DELAY_MAX_S, DELAY_MIN_S * 2 ** (number + 1))
        assert cap / 2 <= pause <= cap


@given(st.integers(1, 5), st.integers(), st.integers(1, 400))
def test_a_refusal_is_asked_about_less_often(addresses: int, seed: int, count: int):
    each = retries(addresses, seed)
    pauses = [each.failed(refused=True) for _ in range(count)]
    assert all(DELAY_MIN_S / 2 <= pause <= REFUSED_DELAY_MAX_S for pause in pauses)
    if count >= 10 * addresses:
        assert pauses[-1] >= REFUSED_DELAY_MAX_S / 2


@given(st.integers(1, 5), st.integers(), st.integers(0, 200))
def test_a_healthy_connection_that_is_lost_is_back_soon_whatever_came_before(
    addresses: int, seed: int, failures: int
):
    each = retries(addresses, seed)
    for _ in range(failures):
        each.failed(refused=False)
    for _ in range(20):
        # Failures before a success don't count any more: the delay must not grow over the days.
        assert each.lost(HEALTHY_AFTER_S) <= DELAY_MIN_S
        for _ in range(addresses):
            pause = each.failed(refused=False)
        assert pause <= 2 * DELAY_MIN_S


@given(
    st.integers(1, 20),
    st.integers(),
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.01, 9.9]), min_size=30, max_size=60),
)
def test_connections_that_break_at_once_arent_made_ten_times_a_second(
    addresses: int, seed: int, lifetimes: list[float]
):
    each = retries(addresses, seed)
    moments = [0.0]
    for lifetime_s in lifetimes:
        moments.append(moments[-1] + lifetime_s + each.lost(lifetime_s))
    for one, later in zip(moments, moments[5:], strict=False):
        assert later - one >= 1.0


def test_connections_that_break_at_once_are_made_more_and_more_slowly():
    each = retries()
    assert max(each.lost(0.1) for _ in range(3)) < each.lost(0.1) + DELAY_MAX_S / 2
    assert all(DELAY_MAX_S / 2 <= each.lost(0.1) <= DELAY_MAX_S for _ in range(20))


class FakeSource:
    """A source whose connecting ends as the test says."""

    acks = True
    address = "amqp://broker"

    def __init__(self) -> None:
        self.attempts = 0
        self.closed = 0
        self.result: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def connect(self) -> None:
        self.attempts += 1
        assert self.gate.wait(5)
        if self.result is not None:
            raise self.result

    def close(self, wait_s: float = 0.0) -> None:
        self.closed += 1


class Bench:
    def __init__(self, addresses: int = 1) -> None:
        self.source = FakeSource()
        self.told = threading.Event()
        self.link = Link(self.source, addresses, self.told.set)

    def connect(self, result: Exception | None = None) -> None:
        """Begin to connect, and wait for the end of it."""
        self.source.result = result
        self.told.clear()
        self.link.connect()
        assert self.told.wait(5)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_connecting_doesnt_hold_up_whoever_asks_for_it(bench):
    bench.source.gate.clear()
    bench.link.connect()
    assert bench.link.state is LinkState.CONNECTING
    assert bench.link.due == math.inf
    assert not bench.link.connected(1.0)
    bench.source.gate.set()
    assert bench.told.wait(5)
    assert bench.link.connected(2.0)
    assert bench.link.state is LinkState.UP
    assert bench.link.connected_at == 2.0


def test_a_failed_attempt_is_told_and_another_is_due_later(bench):
    bench.connect(SourceError("The broker is away."))
    with pytest.raises(SourceError, match=r"The broker is away\."):
        bench.link.connected(100.0)
    assert bench.link.state is LinkState.DOWN
    assert 100.0 + DELAY_MIN_S / 2 <= bench.link.due <= 100.0 + 2 * DELAY_MIN_S


def test_a_refused_attempt_is_told_as_such(bench):
    for _ in range(20):
        bench.connect(SourceRefusedError("No."))
        with pytest.raises(SourceRefusedError):
            bench.link.connected(100.0)
    assert bench.link.due >= 100.0 + REFUSED_DELAY_MAX_S / 2


def test_a_standby_goes_back_to_waiting_at_once_however_often_its_turn_doesnt_come(bench):
    for _ in range(20):
        bench.connect(SourceStandbyError("host-b:7"))
        with pytest.raises(SourceStandbyError, match="host-b:7 holds the lease"):
            bench.link.connected(100.0)
        assert bench.link.state is LinkState.DOWN
        assert bench.link.due == 100.0


@pytest.mark.parametrize("error", [AttributeError("_sock"), ValueError("amqp://user:pw@host")])
def test_an_error_that_nobody_thought_of_is_a_failed_attempt_too(bench, error):
    bench.connect(error)
    with pytest.raises(SourceError) as raised:
        bench.link.connected(100.0)
    assert type(error).__name__ in str(raised.value)
    assert "pw" not in str(raised.value)
    assert bench.link.state is LinkState.DOWN
    assert bench.link.due < 200.0
    bench.connect()
    assert bench.link.connected(101.0)


def test_a_lost_connection_is_closed_and_made_again(bench):
    bench.connect()
    assert bench.link.connected(100.0)
    bench.link.lost(200.0)
    assert bench.source.closed == 1
    assert bench.link.state is LinkState.DOWN
    assert 200.0 <= bench.link.due <= 200.0 + DELAY_MIN_S
    bench.connect()
    assert bench.link.connected(201.0)
    assert bench.source.attempts == 2


def test_an_old_result_isnt_taken_for_the_new_attempts(bench):
    bench.connect()
    assert bench.link.connected(100.0)
    bench.link.lost(200.0)
    bench.source.gate.clear()
    bench.link.connect()
    assert not bench.link.connected(201.0)
    bench.source.gate.set()
