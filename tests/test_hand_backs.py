"""When messages go back to the broker while the API is away."""

from leekfanout.delivery.hand_backs import HAND_BACK_AFTER_MAX_S, HAND_BACK_AFTER_S, HandBacks

CONSUMER_TIMEOUT_S = 1_800.0
"""RabbitMQ's default."""


def test_an_outage_of_a_minute_hands_back_and_each_failed_trial_waits_twice_as_long():
    times = HandBacks()
    assert times.due(1_000.0) == 1_000.0 + HAND_BACK_AFTER_S
    assert times.due(1_000.0) == 1_000.0 + HAND_BACK_AFTER_S
    waits, now = [], 2_000.0
    for _ in range(7):
        times.handed_back()
        times.resumed(now)
        waits.append(times.due(1_000.0) - now)
    assert waits == [120.0, 240.0, 480.0, 960.0, 1_200.0, 1_200.0, 1_200.0]
    assert waits[-1] == HAND_BACK_AFTER_MAX_S < CONSUMER_TIMEOUT_S


def test_the_next_outage_begins_anew():
    times = HandBacks()
    times.due(1_000.0)
    times.handed_back()
    times.resumed(1_100.0)
    times.api_is_back()
    assert times.due(5_000.0) == 5_000.0 + HAND_BACK_AFTER_S
