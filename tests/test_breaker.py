"""The circuit breaker: who may ask the API when, as tables and as a state machine."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leekfanout.delivery.outcome import (
    FAILURES_TO_OPEN,
    PROBE_DELAY_MAX_S,
    PROBE_DELAY_MIN_S,
    Breaker,
    BreakerState,
)

PROBE_AT_LEAST_EVERY_S = 10.0


def fail(breaker: Breaker, now: float, **keys) -> None:
    keys = {"begun_at": now, "at_once": False, "retry_after_s": None, **keys}
    breaker.failed(now, **keys)


def begin(breaker: Breaker) -> bool:
    """Begin a POST if one may start."""
    if allowed := breaker.may_post():
        breaker.post_begun()
    return allowed


def opened(now: float = 100.0, seed: int = 0) -> Breaker:
    breaker = Breaker(random.Random(seed))
    fail(breaker, now, at_once=True)
    assert breaker.state is BreakerState.OPEN
    return breaker


def half_open(now: float = 110.0) -> Breaker:
    breaker = opened(now - 10)
    assert breaker.may_probe(now)
    breaker.probed(True, now)
    assert breaker.state is BreakerState.HALF_OPEN
    return breaker


def test_a_new_breaker_lets_everything_through():
    breaker = Breaker(random.Random(0))
    assert all(begin(breaker) for _ in range(50))
    assert not breaker.may_probe(1e9)
    assert breaker.opened_at is None


def test_it_opens_after_some_failures_in_a_row():
    breaker = Breaker(random.Random(0))
    for number in range(1, FAILURES_TO_OPEN):
        fail(breaker, number)
        assert begin(breaker)
    fail(breaker, 50.0)
    assert breaker.state is BreakerState.OPEN
    assert breaker.opened_at == 50.0
    assert not begin(breaker)


def test_failures_between_successes_never_open_it():
    breaker = Breaker(random.Random(0))
    for number in range(100):
        fail(breaker, number)
        if number % (FAILURES_TO_OPEN - 1):
            breaker.succeeded()
        assert breaker.state is BreakerState.CLOSED


def test_one_failure_is_enough_where_it_speaks_for_all():
    assert opened().opened_at == 100.0


def test_the_first_probe_comes_soon_and_the_later_ones_more_slowly():
    for seed in range(50):
        breaker = opened(seed=seed)
        now, waits = 100.0, []
        for _ in range(8):
            waits.append(breaker.next_probe_at - now)
            assert not breaker.may_probe(breaker.next_probe_at - 0.001)
            now = breaker.next_probe_at
            assert breaker.may_probe(now)
            breaker.probed(False, now)
        assert PROBE_DELAY_MIN_S / 2 <= waits[0] <= PROBE_DELAY_MIN_S
        assert PROBE_DELAY_MAX_S / 2 <= waits[-1] <= PROBE_DELAY_MAX_S
        assert max(waits) <= PROBE_DELAY_MAX_S


def test_only_one_probe_is_under_way():
    breaker = opened()
    assert breaker.may_probe(200.0)
    assert not any(breaker.may_probe(200.0 + later) for later in (0, 1, 1000))
    breaker.probed(False, 201.0)
    assert breaker.may_probe(220.0)


@pytest.mark.parametrize("retry_after_s", [30.0, 3600.0])
def test_retry_after_postpones_the_probe(retry_after_s: float):
    breaker = Breaker(random.Random(0))
    fail(breaker, 100.0, at_once=True, retry_after_s=retry_after_s)
    assert breaker.next_probe_at == 100.0 + retry_after_s
    assert not breaker.may_probe(100.0 + retry_after_s - 0.1)


def test_a_short_retry_after_doesnt_hasten_the_probe():
    breaker = Breaker(random.Random(0))
    fail(breaker, 100.0, at_once=True, retry_after_s=0.01)
    assert breaker.next_probe_at >= 100.0 + PROBE_DELAY_MIN_S / 2


def test_half_open_lets_exactly_one_trial_through():
    breaker = half_open()
    assert begin(breaker)
    assert not any(begin(breaker) for _ in range(50))
    assert not breaker.may_probe(1e9)


def test_a_trial_that_succeeds_closes_it():
    breaker = half_open()
    assert begin(breaker)
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.opened_at is None
    assert all(begin(breaker) for _ in range(5))


def test_a_trial_that_fails_opens_it_again_for_longer():
    breaker = half_open(110.0)
    waits = []
    for now in (200.0, 300.0, 400.0, 500.0):
        assert begin(breaker)
        fail(breaker, now)
        assert breaker.state is BreakerState.OPEN
        assert breaker.opened_at == 100.0  # a short try in between doesn't count as being back
        waits.append(breaker.next_probe_at - now)
        assert breaker.may_probe(now + 50)
        breaker.probed(True, now + 50)
    assert waits[-1] > PROBE_DELAY_MAX_S / 2


def test_a_post_that_was_begun_before_the_outage_and_fails_late_changes_nothing():
    breaker = opened(100.0)
    due = breaker.next_probe_at
    fail(breaker, 100.5, begun_at=90.0, at_once=True)
    assert breaker.next_probe_at == due
    breaker = half_open(110.0)
    fail(breaker, 110.1, begun_at=90.0, at_once=True)
    assert breaker.state is BreakerState.HALF_OPEN
    assert begin(breaker)
    fail(breaker, 110.2, begun_at=90.0, at_once=True)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not begin(breaker)


def test_a_late_answer_that_asks_for_time_postpones_the_next_probe():
    breaker = opened(100.0)
    fail(breaker, 100.5, begun_at=90.0, at_once=True, retry_after_s=20.0)
    assert breaker.next_probe_at == 120.5
    fail(breaker, 100.6, begun_at=90.0, at_once=True, retry_after_s=5.0)
    assert breaker.next_probe_at == 120.5
    assert not breaker.may_probe(120.4)
    assert breaker.may_probe(120.5)


def test_a_late_answer_that_asks_for_time_ends_the_wait_for_a_trial():
    breaker = half_open(110.0)
    fail(breaker, 110.1, begun_at=90.0, at_once=True, retry_after_s=20.0)
    assert breaker.state is BreakerState.OPEN
    assert breaker.opened_at == 100.0
    assert breaker.next_probe_at == 130.1
    assert not breaker.may_post()


def test_an_answer_that_asks_for_time_outweighs_a_probe_that_says_ready_meanwhile():
    breaker = opened(100.0)
    assert breaker.may_probe(105.0)
    fail(breaker, 105.1, begun_at=90.0, at_once=True, retry_after_s=20.0)
    breaker.probed(True, 105.2)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.may_probe(125.0)
    assert breaker.may_probe(125.1)
    breaker.probed(True, 125.2)
    assert breaker.may_post()


def test_what_was_asked_for_ends_once_the_api_takes_something():
    breaker = opened(100.0)
    fail(breaker, 100.5, begun_at=90.0, at_once=True, retry_after_s=900.0)
    breaker.succeeded()
    fail(breaker, 200.0, at_once=True)
    assert breaker.next_probe_at <= 200.0 + PROBE_DELAY_MIN_S


def test_failures_that_are_a_documents_own_dont_open_it():
    breaker = Breaker(random.Random(0))
    for number in range(100):
        fail(breaker, number, counts=False)
    assert breaker.state is BreakerState.CLOSED
    for number in range(FAILURES_TO_OPEN):
        fail(breaker, number)
    assert breaker.state is BreakerState.OPEN


def test_a_trial_opens_it_again_whoever_is_to_blame():
    breaker = half_open(110.0)
    assert begin(breaker)
    fail(breaker, 200.0, counts=False)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.may_post()


def test_a_post_that_was_begun_before_the_outage_and_succeeds_late_closes_it():
    breaker = opened()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_that_ends_after_the_breaker_was_closed_changes_nothing():
    breaker = opened()
    assert breaker.may_probe(200.0)
    breaker.succeeded()
    breaker.probed(True, 201.0)
    assert breaker.state is BreakerState.CLOSED
    assert not breaker.probing
    assert begin(breaker)


def test_after_an_outage_the_failures_are_counted_anew():
    breaker = half_open()
    assert begin(breaker)
    breaker.succeeded()
    for _ in range(FAILURES_TO_OPEN - 1):
        fail(breaker, 300.0)
    assert breaker.state is BreakerState.CLOSED


class BreakerMachine(RuleBasedStateMachine):
    """Some senders that post and probe whenever they may, at moments of hypothesis's choice."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(random.Random(7))
        self.now = 1000.0
        self.posts: list[tuple[float, bool]] = []
        """When each that is under way was begun, and whether it is the trial of the latest opening."""
        self.probes = 0
        self.nobody_asks_since = self.now
        self.asked_to_wait_until = 0.0

    @rule(seconds=st.sampled_from([0.001, 0.3, 1.0, 4.0, 9.9, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_sender_asks(self) -> None:
        if self.breaker.may_probe(self.now):
            self.probes += 1
        elif begin(self.breaker):
            trial = self.breaker.state is BreakerState.HALF_OPEN
            if trial:
                assert not any(is_trial for _, is_trial in self.posts), "two trials"
            self.posts.append((self.now, trial))

    @precondition(lambda self: self.probes)
    @rule(ready=st.booleans())
    def a_probe_ends(self, ready: bool) -> None:
        was_open = self.breaker.state is BreakerState.OPEN
        self.probes -= 1
        self.breaker.probed(ready, self.now)
        if was_open:
            waits = self.now < self.asked_to_wait_until
            assert (self.breaker.state is BreakerState.HALF_OPEN) == (ready and not waits)
            self.nobody_asks_since = self.now
            self._no_trials()

    @precondition(lambda self: self.posts)
    @rule(data=st.data())
    def a_post_succeeds(self, data: st.DataObject) -> None:
        self.posts.pop(data.draw(st.integers(0, len(self.posts) - 1)))
        self.breaker.succeeded()
        self._no_trials()
        self.asked_to_wait_until = 0.0
        assert self.breaker.state is BreakerState.CLOSED

    @precondition(lambda self: self.posts)
    @rule(
        data=st.data(),
        at_once=st.booleans(),
        counts=st.booleans(),
        retry_after_s=st.sampled_from([None, None, 0.0, 5.0, 60.0]),
    )
    def a_post_fails(
        self, data: st.DataObject, at_once: bool, counts: bool, retry_after_s: float | None
    ) -> None:
        begun_at, trial = self.posts.pop(data.draw(st.integers(0, len(self.posts) - 1)))
        before = self.breaker.state
        self.breaker.failed(
            self.now,
            begun_at=begun_at,
            at_once=at_once,
            retry_after_s=retry_after_s,
            counts=counts,
        )
        after = self.breaker.state
        if before is BreakerState.HALF_OPEN:
            reopens = trial or retry_after_s
            assert after is (BreakerState.OPEN if reopens else BreakerState.HALF_OPEN)
        elif (at_once and counts) or before is BreakerState.OPEN:
            assert after is BreakerState.OPEN
        elif not counts:
            assert after is BreakerState.CLOSED
        if after is BreakerState.OPEN and retry_after_s:
            asked_until = self.now + retry_after_s
            self.asked_to_wait_until = max(self.asked_to_wait_until, asked_until)
            assert self.breaker.next_probe_at >= asked_until
        if before is not after:
            self.nobody_asks_since = self.now
            self._no_trials()

    def _no_trials(self) -> None:
        self.posts = [(begun_at, False) for begun_at, _ in self.posts]

    @invariant()
    def at_most_one_probe_is_under_way(self) -> None:
        assert self.probes == self.breaker.probing <= 1

    @invariant()
    def a_probe_is_due_at_least_every_ten_seconds(self) -> None:
        if self.breaker.state is BreakerState.OPEN and not self.probes:
            due = self.breaker.next_probe_at
            assert due <= max(
                self.nobody_asks_since + PROBE_AT_LEAST_EVERY_S, self.asked_to_wait_until
            )

    @invariant()
    def it_has_been_open_since_some_moment_unless_it_is_closed(self) -> None:
        opened_at = self.breaker.opened_at
        assert (opened_at is None) == (self.breaker.state is BreakerState.CLOSED)
        assert opened_at is None or opened_at <= self.now

    @invariant()
    def a_trial_is_for_the_half_open_breaker(self) -> None:
        if any(trial for _, trial in self.posts):
            assert self.breaker.state is BreakerState.HALF_OPEN


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
