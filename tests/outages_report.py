"""The page that tells how soon delivery was back after outages."""

import platform
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.outages_lanes import NEVER_ANSWERS, Lane, Recovery

UNANSWERED = f"the API {NEVER_ANSWERS}"
COLUMNS = (
    "outage", "seconds", "times", "median, s", "worst, s", "probes at once", "log lines at most",
)  # fmt: skip


def markdown(lanes: Sequence[Lane]) -> str:
    """Return the report as a page."""
    found = [
        each
        for lane in lanes
        if lane.title != UNANSWERED
        for side in lane.sides
        for each in side.recoveries
    ]
    lost = sum(lane.lost for lane in lanes)
    lines = [
        "# Recovery report",
        "",
        f"Written by `make outages` (Python {platform.python_version()}): how many seconds after the "
        "end of an outage the first POST was confirmed (of a broker's: the first with an event from "
        "after it), for subscriptions on RabbitMQ and on Redis with a few events per second and a "
        "batch window of 0.2 s.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| --- |" + " ---: |" * (len(COLUMNS) - 1),
        *(
            row
            for title in dict.fromkeys(lane.title for lane in lanes)
            for row in _rows(title, lanes)
        ),
        _row(
            f"**all but: {UNANSWERED}**", "", found, max(lane.most_probes_at_once for lane in lanes)
        ),
        "",
        f"Of {sum(lane.sent for lane in lanes):,} events that were published, {lost:,} were lost; what "
        "Redis had on its way when it was killed is not counted.",
        "",
        "*Hangs*: what was under way is answered when the API is back. *Never answers what it got*: "
        "it isn't, so a POST that was under way is only given up after `api_read_timeout_in_seconds` "
        "(30 s). *Log lines*: of the agent, for each subscription, from the outage's beginning to the "
        "recovery.",
        "",
    ]
    return "\n".join(lines)


def _rows(title: str, lanes: Sequence[Lane]) -> Iterator[str]:
    by_length = defaultdict[float, list[Recovery]](list)
    probes = 0
    for lane in lanes:
        if lane.title == title:
            probes = max(probes, lane.most_probes_at_once)
            for side in lane.sides:
                for each in side.recoveries:
                    by_length[each.outage_s].append(each)
    for outage_s, found in sorted(by_length.items()):
        yield _row(title, f"{outage_s:g}", found, probes)


def _row(title: str, outage_s: str, found: Sequence[Recovery], probes: int) -> str:
    seconds = [each.seconds for each in found]
    cells = (
        title,
        outage_s,
        f"{len(found)}",
        f"{statistics.median(seconds):.1f}",
        f"{max(seconds):.1f}",
        f"{probes}",
        f"{max(each.log_lines for each in found)}",
    )
    return "| " + " | ".join(cells) + " |"
