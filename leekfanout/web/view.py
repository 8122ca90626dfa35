"""What the page shows of each process of the subscriptions, made of the agent's status: pure."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from leekfanout.status.diagnosis import diagnose
from leekfanout.supervision.lifecycle import UP, State

Status = Mapping[str, Any]


def subscription_of(process: str) -> str:
    """Return the name of the subscription that a process is of.

    >>> subscription_of("shop-prod"), subscription_of("shop-prod-2")
    ('shop-prod', 'shop-prod')
    """
    return re.sub(r"-\d+$", "", process)


def overview(
    statuses: Sequence[Status], before: Sequence[Status], elapsed_s: float, now: float
) -> list[dict[str, Any]]:
    """Return one row for each process; rates are over the ``elapsed_s`` since ``before``.

    Times are epoch seconds, None for never or not known.
    """
    earlier = {status["name"]: status for status in before}
    processes = Counter(subscription_of(status["name"]) for status in statuses)
    return [
        {
            **_row(status, earlier.get(status["name"]), elapsed_s, now),
            "subscription": (subscription := subscription_of(status["name"])),
            "processes": processes[subscription],
        }
        for status in statuses
    ]


def steady(
    rows: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows with the rates of ``before``, for a look that comes too soon to measure any.

    A process that wasn't there before has none yet, one that has ended has none any more.
    """
    none = {"events_per_s": 0.0, "cpu_percent": None}
    measured = {
        (row["name"], row["pid"]): {key: row[key] for key in none} for row in before if row["pid"]
    }
    return [{**row, **measured.get((row["name"], row["pid"]), none)} for row in rows]


def _row(status: Status, before: Status | None, elapsed_s: float, now: float) -> dict[str, Any]:
    counters, gauges = status["counters"], status["gauges"]
    diagnosis = diagnose(status, now)
    up = status["state"] in UP
    backlog = gauges["broker_backlog"]
    error_at = None if diagnosis.error_age_s is None else now - diagnosis.error_age_s
    return {
        "name": status["name"],
        "transport": status["transport"],
        "broker": status["broker"],
        "api_url": status["api_url"],
        "state": State(status["state"]).name,
        "wanted": status["wanted"],
        "level": diagnosis.level.value,
        "words": diagnosis.words,
        "error": diagnosis.error,
        "advice": diagnosis.advice,
        "error_at": error_at,
        "events_per_s": _rate(status, before, elapsed_s) if up else 0.0,
        "backlog": int(backlog) if up and backlog >= 0 else None,
        "in_flight": int(gauges["messages_in_flight"]),
        "delivered": int(counters["events_delivered"]),
        "retries": int(counters["posts_retried"]),
        "dropped": int(
            sum(count for name, count in counters.items() if name.startswith("events_dropped"))
        ),
        "dead_letters": int(gauges["dead_letters"]),
        "spool_bytes": int(gauges["spool_bytes"]),
        "memory_bytes": int(status["memory_bytes"]),
        "cpu_percent": _cpu_percent(status, before, elapsed_s),
        "started_at": status["started_at"] if up else None,
        "last_delivery_at": gauges["last_delivery_at"] or None,
        "starts": status["starts"],
        "pid": status["pid"],
    }


def _rate(status: Status, before: Status | None, elapsed_s: float) -> float:
    if before is None or elapsed_s <= 0:
        return 0.0
    received = status["counters"]["events_received"] - before["counters"]["events_received"]
    return max(0.0, float(received)) / elapsed_s


def _cpu_percent(status: Status, before: Status | None, elapsed_s: float) -> float | None:
    """Return the share of one core; None if it isn't the same process as before."""
    if before is None or elapsed_s <= 0 or status["pid"] == 0 or status["pid"] != before["pid"]:
        return None
    return max(0.0, 100 * float(status["cpu_seconds"] - before["cpu_seconds"]) / elapsed_s)
