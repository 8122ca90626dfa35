"""The table that ``leekfanout status`` draws: one row for each subscription, and what ails it. Pure."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from leekfanout.status.diagnosis import Diagnosis, Level, diagnose, duration
from leekfanout.supervision.lifecycle import UP, State
from leekfanout.terminal.screen import COLOURS, RESET, Cell, columns, printable

HEAD: Final = (
    "SUBSCRIPTION",
    "STATE",
    "CONDITION",
    "UPTIME",
    "EVENTS/S",
    "BACKLOG",
    "IN FLIGHT",
    "DELIVERED",
)
_WIDTHS_MAX: Final = (40, 10, 40, 14, 10, 12, 10, 20)
_RIGHT: Final = frozenset({4, 5, 6})

_STYLES: Final = {
    Level.GOOD: "green",
    Level.ATTENTION: "yellow",
    Level.BAD: "red",
    Level.OFF: "dim",
}


def rates(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], seconds: float
) -> dict[str, float]:
    """Return events received per second by subscription, from two statuses ``seconds`` apart."""
    then = {status["name"]: status["counters"]["events_received"] for status in before}
    return {
        status["name"]: max(0.0, status["counters"]["events_received"] - then[status["name"]])
        / seconds
        for status in now
        if status["name"] in then and seconds > 0
    }


def lines(
    statuses: Sequence[Mapping[str, Any]],
    rates_by_name: Mapping[str, float],
    now: float,
    width: int,
    *,
    colour: bool,
) -> list[str]:
    """Return the table's lines, none wider than ``width`` columns."""
    if not statuses:
        return ["The agent runs, and has no subscriptions."]
    diagnoses = [diagnose(status, now) for status in statuses]
    rows = [[Cell(title, "bold", index in _RIGHT) for index, title in enumerate(HEAD)]]
    rows += [
        _row(status, diagnosis, rates_by_name.get(status["name"]), now)
        for status, diagnosis in zip(statuses, diagnoses, strict=True)
    ]
    head, *drawn = columns(rows, _WIDTHS_MAX, width, colour=colour)
    table = [head]
    for line, diagnosis in zip(drawn, diagnoses, strict=True):
        table.append(line)
        table += _remarks(diagnosis, width, colour)
    return table


def _row(
    status: Mapping[str, Any], diagnosis: Diagnosis, rate: float | None, now: float
) -> list[Cell]:
    gauges = status["gauges"]
    up = status["state"] in UP
    style = _STYLES[diagnosis.level]
    backlog = gauges["broker_backlog"]
    delivered_at = gauges["last_delivery_at"]
    return [
        Cell(status["name"]),
        Cell(State(status["state"]).name, style),
        Cell(diagnosis.words, style),
        Cell(duration(now - status["started_at"]) if up else "-"),
        Cell("-" if rate is None or not up else f"{rate:,.1f}", right=True),
        Cell("-" if backlog < 0 or not up else f"{backlog:,.0f}", right=True),
        Cell(f"{gauges['messages_in_flight']:,.0f}", right=True),
        Cell(f"{duration(now - delivered_at)} ago" if delivered_at else "never"),
    ]


def _remarks(diagnosis: Diagnosis, width: int, colour: bool) -> list[str]:
    if not diagnosis.error:
        return []
    age = diagnosis.error_age_s
    error = diagnosis.error if age is None else f"{diagnosis.error} ({duration(age)} ago)"
    style = "dim" if diagnosis.level is Level.GOOD else _STYLES[diagnosis.level]
    remarks = _wrapped(error, "  ", width)
    if diagnosis.advice:
        remarks += _wrapped(diagnosis.advice, "  → ", width)
    return [f"{COLOURS[style]}{line}{RESET}" if colour else line for line in remarks]


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        printable(text),
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
    )
