"""The soak's figures, and the page that shows them."""

import platform
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Side:
    """What became of one broker's events."""

    name: str
    sent: int
    confirmed: int
    dead_lettered: int
    spooled: int
    dropped: int
    duplicated: int
    lost: int
    unheard: int
    """Redis: published while nobody was subscribed, or cut off on their way."""
    unknown: int
    """Found, but never published."""
    longest_stall_s: float
    longest_recovery_s: float
    most_memory_mb: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of a whole run."""

    seconds: float
    seed: int
    faults: Counter[str]
    crashes: int
    sides: list[Side]


ROWS = (
    ("events sent", "sent"),
    ("confirmed by the API", "confirmed"),
    ("dead-lettered (the API refuses one task in 500)", "dead_lettered"),
    ("spooled at the end", "spooled"),
    ("dropped, counted", "dropped"),
    ("never received: Redis had no subscriber, or cut it off", "unheard"),
    ("confirmed or dead-lettered more than once", "duplicated"),
    ("never published but found", "unknown"),
    ("**lost**", "lost"),
)
MEASURES = (
    ("longest time without a delivery, faults included, s", "longest_stall_s"),
    ("longest time from the end of the last fault to a delivery, s", "longest_recovery_s"),
    ("most memory of a process, MB", "most_memory_mb"),
)


def markdown(figures: Figures) -> str:
    """Return the report as a page."""
    lines = [
        "# Soak",
        "",
        f"{figures.seconds / 60:g} minutes of random faults on both brokers at once under a steady "
        f"load (`make soak`, seed {figures.seed}, Python {platform.python_version()}). The tool "
        "writes this.",
        "",
        "RabbitMQ's events are persistent messages in a quorum queue, and those that it confirmed "
        "count as sent. Redis' PUB/SUB keeps nothing: what nobody was subscribed to, or what was "
        "on its way when a connection ended, was never received. An event is lost if it was received, "
        "or is RabbitMQ's, and is in none of the places below. Repeats can't be avoided where a "
        f"process is killed with -9 between a delivery and its ack: there were {figures.crashes} "
        "kills, on RabbitMQ's side only.",
        "",
        "| | " + " | ".join(side.name for side in figures.sides) + " |",
        "|---|" + "---:|" * len(figures.sides),
        *(
            _row(label, [f"{getattr(side, name):,}" for side in figures.sides])
            for label, name in ROWS
        ),
        *(
            _row(label, [f"{getattr(side, name):.1f}" for side in figures.sides])
            for label, name in MEASURES
        ),
        "",
        "## Faults",
        "",
        f"Each lasted from 0.2 to 12 seconds; {sum(figures.faults.values())} in all.",
        "",
        "| fault | times |",
        "|---|---:|",
        *(_row(name, [str(count)]) for name, count in sorted(figures.faults.items())),
        "",
    ]
    return "\n".join(lines)


def _row(label: str, values: list[str]) -> str:
    return f"| {label} | " + " | ".join(values) + " |"
