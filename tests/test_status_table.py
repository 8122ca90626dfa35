"""The table of ``leekfanout status``."""

from typing import Any

from leekfanout.status.status_table import lines, rates
from leekfanout.terminal.screen import width_of
from tests.test_diagnosis import NOW, status


def full(name: str = "shop-prod", events: float = 0, **more: Any) -> dict[str, Any]:
    given = status(**more)
    gauges = {"broker_backlog": -1, "messages_in_flight": 12, "last_delivery_at": NOW - 3}
    return {
        **given,
        "name": name,
        "started_at": NOW - 7_530,
        "counters": {"events_received": events},
        "gauges": {**gauges, **given["gauges"]},
    }


def test_a_row_tells_how_a_subscription_is() -> None:
    _, row = lines([full()], {"shop-prod": 1234.56}, NOW, 200, colour=False)
    assert " ".join(row.split()) == "shop-prod RUNNING delivering 2 h 5 min 1,234.6 - 12 3 s ago"


def test_trouble_stands_below_its_row_and_is_wrapped() -> None:
    troubled = full(
        condition="REFUSED",
        last_error="The broker refuses the password of the user leek. " * 3,
        advice="Correct it.",
        last_error_at=NOW - 20,
    )
    _, row, *remarks = lines([troubled], {}, NOW, 60, colour=False)
    assert "refused by the broker" in row
    assert len(remarks) >= 4
    assert all(line.startswith("  ") for line in remarks)
    assert remarks[-1] == "  → Correct it."
    assert "(20 s ago)" in " ".join(remarks)


def test_no_line_is_wider_than_the_terminal() -> None:
    troubled = full("a" * 300, condition="REFUSED", last_error="x " * 200, last_error_at=NOW - 20)
    for width in (20, 40, 80, 120):
        table = lines([full(), troubled], {}, NOW, width, colour=False)
        assert max(width_of(line) for line in table) <= width


def test_what_a_terminal_would_obey_is_not_passed_on() -> None:
    nasty = full(condition="REFUSED", last_error="\x1b[2J", last_error_at=NOW)
    assert "\x1b" not in "".join(lines([nasty], {}, NOW, 100, colour=False))


def test_a_rate_is_the_difference_of_two_looks() -> None:
    before = [full(events=100), full("gone-prod", events=5)]
    now = [full(events=150), full("new-prod", events=9)]
    assert rates(before, now, 2.0) == {"shop-prod": 25.0}
    assert rates(now, before, 2.0) == {"shop-prod": 0.0}
