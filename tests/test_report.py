"""What is told while nothing more happens, and what the log says of the API."""

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest

from leekfanout.delivery.outcome import BreakerState
from leekfanout.delivery.report import EVERY_S, REASON_EVERY_S, Report
from leekfanout.status.stats import Condition, Stats


class Reporting:
    """A report of parts that say what the test wants."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.batcher = SimpleNamespace(
            messages_taken=0, tally=SimpleNamespace(events=0, task_events=0, ignored={})
        )
        self.outbox = SimpleNamespace(
            batches_held=0,
            oldest_put_at=0.0,
            posts_under_way=0,
            breaker_state=BreakerState.CLOSED,
            breaker_opened_at=None,
            evidence=SimpleNamespace(failure_reason="HTTP 503"),
        )
        letters = SimpleNamespace(changed=False, stock=lambda: (0, 0))
        parts: Any = (self.stats, self.batcher, self.outbox, letters, None)
        self.report = Report(*parts)

    def turn(self, now: float, messages: int = 0) -> float:
        return self.report.turn(now, Condition.DELIVERING, messages, 0)


def test_what_has_left_is_told_though_nothing_comes_after_it() -> None:
    reporting = Reporting()
    reporting.batcher.messages_taken = 300
    assert reporting.turn(10.0, 300) == math.inf
    assert reporting.stats.get("messages_in_flight") == 300
    # Soon after, all is acked: too soon to tell, but it has to be told.
    assert reporting.turn(10.1, 0) == 10.0 + EVERY_S
    assert reporting.turn(10.0 + EVERY_S, 0) == math.inf
    assert reporting.stats.get("messages_in_flight") == 0
    assert reporting.turn(12.0, 0) == math.inf


def test_an_api_that_flaps_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    reporting = Reporting()
    with caplog.at_level(logging.INFO):
        for second in range(20):
            reporting.outbox.breaker_opened_at = 100.0 + second if second % 2 else None
            reporting.turn(100.5 + second)
    assert [record.getMessage() for record in caplog.records] == ["api.away", "api.back"]


def reasons(records: list[Any]) -> list[str]:
    return [each.fields["reason"] for each in records if each.getMessage() == "api.away"]


def test_an_outage_whose_reason_changes_is_told_of_again(caplog: pytest.LogCaptureFixture) -> None:
    reporting = Reporting()
    evidence = reporting.outbox.evidence
    reporting.outbox.breaker_opened_at = 100.0
    for now in (100.0, 101.0, 300.0):
        reporting.turn(now)
    evidence.failure_reason = "HTTP 401"
    for now in (301.0, 302.0):
        reporting.turn(now)
    evidence.failure_reason = "HTTP 404"
    reporting.turn(303.0)
    assert reasons(caplog.records) == ["HTTP 503", "HTTP 401"]
    # It comes late, but it comes.
    reporting.turn(301.0 + REASON_EVERY_S)
    assert reasons(caplog.records) == ["HTTP 503", "HTTP 401", "HTTP 404"]


def test_an_outage_of_an_hour_whose_reason_flaps_fills_tens_of_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reporting = Reporting()
    reporting.outbox.breaker_opened_at = 0.0
    for second in range(3_600):
        reporting.outbox.evidence.failure_reason = f"HTTP {500 + second % 4}"
        reporting.turn(float(second))
    assert 10 < len(caplog.records) <= 61


def test_a_reason_that_changes_after_the_outage_is_not_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reporting = Reporting()
    reporting.outbox.breaker_opened_at = 100.0
    reporting.turn(100.0)
    reporting.outbox.breaker_opened_at = None
    reporting.turn(200.0)
    reporting.outbox.evidence.failure_reason = "HTTP 500"
    reporting.turn(300.0)
    assert reasons(caplog.records) == ["HTTP 503"]
