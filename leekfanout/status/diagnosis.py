"""How a subscription is, in words: from what the supervisor tells of it, for people. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from leekfanout.status.stats import Condition
from leekfanout.supervision.lifecycle import State

SILENCE_S: Final = 60.0
"""Celery's workers send a heartbeat every two seconds: nothing for so long means something."""

ERROR_FRESH_S: Final = 600.0
"""An error, or the reason for a restart, of a subscription that is well is shown for so long."""

ADVICE_FRESH_S: Final = 60.0
"""What to do about such an error is shown for so long: one that lasts is met again at least as often,
with the longest pause between two attempts; one that doesn't asks nothing of anybody."""


class Level(Enum):
    """How much a person should care."""

    GOOD = "good"
    ATTENTION = "attention"
    BAD = "bad"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A subscription's condition, and what to do about it if anything."""

    level: Level
    words: str
    """A few words: "delivering", "waiting for the API"."""
    error: str = ""
    """What is wrong, or worth knowing, in a sentence; empty if nothing is."""
    advice: str = ""
    error_age_s: float | None = None
    """How old the error is, if it has a time."""


_CONDITIONS: Final = {
    Condition.STARTING: (Level.ATTENTION, "starting"),
    Condition.CONNECTING: (Level.BAD, "connecting to the broker"),
    Condition.REFUSED: (Level.BAD, "refused by the broker"),
    Condition.WAITING_FOR_API: (Level.BAD, "waiting for the API"),
    Condition.DRAINING: (Level.ATTENTION, "draining"),
    Condition.STOPPED: (Level.ATTENTION, "starting"),
}


def diagnose(status: Mapping[str, Any], now: float) -> Diagnosis:
    """Return how the subscription is whose ``leekfanout.getStatus`` is given; ``now`` is epoch s."""
    state = State(status["state"])
    if state is State.STOPPED:
        return Diagnosis(Level.OFF, "stopped", status["reason"])
    if state is State.STOPPING:
        return Diagnosis(Level.ATTENTION, "draining")
    if state in {State.BACKOFF, State.EXITED}:
        words = f"starts again in {status['next_start_in_s']:.0f} s"
        crashed = status["reason"] == status["last_error"]
        return Diagnosis(Level.BAD, words, status["reason"], status["advice"] if crashed else "")
    condition = Condition[status["condition"]]
    if condition is Condition.DELIVERING:
        return _delivering(status, now)
    if condition is Condition.STANDING_BY:
        who = f"{status['lease_holder']} delivers; this agent takes over when that one stops."
        return Diagnosis(Level.GOOD, "standing by", who)
    level, words = _CONDITIONS[condition]
    if condition is Condition.CONNECTING and not status["last_error"]:
        level = Level.ATTENTION
    return _with_error(level, words, status, now)


def _delivering(status: Mapping[str, Any], now: float) -> Diagnosis:
    gauges = status["gauges"]
    connected_at, last_event_at = gauges["connected_at"], gauges["last_event_at"]
    if now - max(connected_at, last_event_at) >= SILENCE_S:
        return _silent(status, now)
    never_a_task = gauges["last_task_event_at"] == 0 and now - connected_at >= SILENCE_S
    if never_a_task and last_event_at >= connected_at:
        return Diagnosis(
            Level.ATTENTION,
            "heartbeats only",
            "Workers send heartbeats, but no task event has come yet.",
            "Start the workers with -E (or set worker_send_task_events), unless no task has run; "
            "for events of clients set task_send_sent_event.",
        )
    words = "delivering"
    if gauges["spool_batches"] > 0:
        words = f"delivering, {gauges['spool_bytes'] / 1_000_000:.1f} MB spooled"
    if status["last_error"] and now - gauges["last_error_at"] <= ERROR_FRESH_S:
        diagnosis = _with_error(Level.GOOD, words, status, now)
        lasts = now - gauges["last_error_at"] <= ADVICE_FRESH_S
        return diagnosis if lasts else replace(diagnosis, advice="")
    if status["reason"] and now - status["stopped_at"] <= ERROR_FRESH_S:
        return Diagnosis(Level.GOOD, words, status["reason"], "", now - status["stopped_at"])
    return Diagnosis(Level.GOOD, words)


def _silent(status: Mapping[str, Any], now: float) -> Diagnosis:
    gauges = status["gauges"]
    quiet_s = now - max(gauges["connected_at"], gauges["last_event_at"])
    words = f"nothing heard for {duration(quiet_s)}"
    error = "The broker is connected, but no event comes, not even a worker's heartbeat."
    if gauges["last_event_at"] > 0:
        advice = "Look whether the workers run, and reach the broker."
    elif status["transport"] == "redis":
        advice = (
            "Either no worker runs, or the broker URL's database, a key prefix in "
            "transport_options, or the exchange is not the one that they use."
        )
    else:
        advice = (
            "Either no worker runs, or the broker URL's virtual host, or the exchange or "
            "routing_key is not the one that they use."
        )
    return Diagnosis(Level.ATTENTION, words, error, advice)


def _with_error(level: Level, words: str, status: Mapping[str, Any], now: float) -> Diagnosis:
    at = status["gauges"]["last_error_at"]
    age_s = max(0.0, now - at) if at else None
    return Diagnosis(level, words, status["last_error"], status["advice"], age_s)


def duration(seconds: float) -> str:
    """Return a time in its two largest units: ``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``4 d 1 h``.

    >>> duration(7_530)
    '2 h 5 min'
    """
    left = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)
