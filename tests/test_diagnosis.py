"""How a subscription is, in words."""

from typing import Any

import pytest

from leekfanout.status.diagnosis import Diagnosis, Level, diagnose, duration
from leekfanout.supervision.lifecycle import State

NOW = 1_800_000_000.0


def status(
    state: State = State.RUNNING, condition: str = "DELIVERING", **more: Any
) -> dict[str, Any]:
    """Return a status of a subscription that is well, but for what is given."""
    gauges = {
        "connected_at": NOW - 3_600,
        "last_event_at": NOW - 1,
        "last_task_event_at": NOW - 2,
        "last_error_at": 0,
        "spool_batches": 0,
        "spool_bytes": 0,
        **{key: value for key, value in more.items() if key.endswith("_at") or "spool" in key},
    }
    return {
        "state": int(state),
        "condition": condition,
        "transport": more.get("transport", "amqp"),
        "reason": more.get("reason", ""),
        "stopped_at": more.get("stopped_at", 0),
        "next_start_in_s": more.get("next_start_in_s", 0),
        "last_error": more.get("last_error", ""),
        "advice": more.get("advice", ""),
        "lease_holder": more.get("lease_holder", ""),
        "gauges": gauges,
    }


@pytest.mark.parametrize(
    ("given", "level", "words"),
    [
        (status(), Level.GOOD, "delivering"),
        (status(spool_batches=2, spool_bytes=1_500_000), Level.GOOD, "delivering, 1.5 MB spooled"),
        (status(State.STOPPED), Level.OFF, "stopped"),
        (status(State.STOPPING), Level.ATTENTION, "draining"),
        (status(State.STARTING, "STARTING"), Level.ATTENTION, "starting"),
        (status(State.BACKOFF, "STOPPED", next_start_in_s=4.2), Level.BAD, "starts again in 4 s"),
        (status(State.EXITED, "STOPPED", next_start_in_s=1), Level.BAD, "starts again in 1 s"),
        (status(condition="CONNECTING"), Level.ATTENTION, "connecting to the broker"),
        (status(condition="CONNECTING", last_error="No."), Level.BAD, "connecting to the broker"),
        (status(condition="REFUSED", last_error="No."), Level.BAD, "refused by the broker"),
        (status(condition="WAITING_FOR_API"), Level.BAD, "waiting for the API"),
        (status(condition="DRAINING"), Level.ATTENTION, "draining"),
        (status(condition="STANDING_BY"), Level.GOOD, "standing by"),
        (status(last_event_at=NOW - 59), Level.GOOD, "delivering"),
        (status(last_event_at=NOW - 60), Level.ATTENTION, "nothing heard for 1 min"),
        (status(last_event_at=0, connected_at=NOW - 59), Level.GOOD, "delivering"),
        (status(last_event_at=0), Level.ATTENTION, "nothing heard for 1 h"),
        (status(last_task_event_at=0), Level.ATTENTION, "heartbeats only"),
        (status(last_task_event_at=0, connected_at=NOW - 30), Level.GOOD, "delivering"),
        (status(last_task_event_at=NOW - 9_999), Level.GOOD, "delivering"),
    ],
)
def test_a_status_has_a_level_and_words(given: dict[str, Any], level: Level, words: str) -> None:
    diagnosis = diagnose(given, NOW)
    assert (diagnosis.level, diagnosis.words) == (level, words)


def test_silence_from_the_beginning_is_explained_by_the_kind_of_broker() -> None:
    on_redis = diagnose(status(last_event_at=0, transport="redis"), NOW)
    assert "database" in on_redis.advice
    assert "prefix" in on_redis.advice
    on_amqp = diagnose(status(last_event_at=0), NOW)
    assert "virtual host" in on_amqp.advice
    assert on_redis.error == on_amqp.error != ""


def test_silence_after_events_is_no_matter_of_names() -> None:
    assert "workers run" in diagnose(status(last_event_at=NOW - 600), NOW).advice


def test_heartbeats_without_tasks_are_explained() -> None:
    assert "-E" in diagnose(status(last_task_event_at=0), NOW).advice


def test_a_standby_tells_who_delivers() -> None:
    given = status(condition="STANDING_BY", lease_holder="host-b:7", last_error="It was away.")
    assert diagnose(given, NOW).error.startswith("host-b:7 delivers; ")


def test_an_error_is_told_with_its_age_and_advice() -> None:
    given = status(
        condition="WAITING_FOR_API", last_error="It is away.", advice="Wait.", last_error_at=NOW - 5
    )
    assert diagnose(given, NOW) == Diagnosis(
        Level.BAD, "waiting for the API", "It is away.", "Wait.", 5.0
    )


def test_an_old_error_of_a_subscription_that_is_well_again_is_not_told() -> None:
    fresh = status(last_error="It was away.", last_error_at=NOW - 599)
    assert diagnose(fresh, NOW).error == "It was away."
    assert diagnose(fresh, NOW).level is Level.GOOD
    assert diagnose(status(last_error="It was away.", last_error_at=NOW - 601), NOW).error == ""


def test_what_to_do_about_an_error_is_told_only_while_it_may_last() -> None:
    def diagnosed(age_s: float, condition: str = "DELIVERING") -> Diagnosis:
        given = status(
            condition=condition, last_error="No.", advice="Act.", last_error_at=NOW - age_s
        )
        return diagnose(given, NOW)

    assert diagnosed(60).advice == "Act."
    assert diagnosed(61) == Diagnosis(Level.GOOD, "delivering", "No.", "", 61.0)
    assert diagnosed(500, "WAITING_FOR_API").advice == "Act."


def test_the_reason_for_a_restart_is_told_for_a_while() -> None:
    restarted = status(reason="It was killed.", stopped_at=NOW - 60)
    assert diagnose(restarted, NOW) == Diagnosis(
        Level.GOOD, "delivering", "It was killed.", "", 60.0
    )
    earlier = status(reason="It was killed.", stopped_at=NOW - 601)
    assert diagnose(earlier, NOW).error == ""


def test_a_crash_loop_tells_the_reason_and_the_advice_that_belongs_to_it() -> None:
    crashed = status(
        State.BACKOFF,
        "STOPPED",
        reason="It crashed.",
        last_error="It crashed.",
        advice="Report it.",
    )
    assert (diagnose(crashed, NOW).error, diagnose(crashed, NOW).advice) == (
        "It crashed.",
        "Report it.",
    )
    killed = status(
        State.BACKOFF, "STOPPED", reason="It was killed.", last_error="Older.", advice="Older."
    )
    assert (diagnose(killed, NOW).error, diagnose(killed, NOW).advice) == ("It was killed.", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3_600, "1 h"),
        (3_601, "1 h"),
        (7_530, "2 h 5 min"),
        (90_000, "1 d 1 h"),
        (86_400 * 400, "400 d"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words
