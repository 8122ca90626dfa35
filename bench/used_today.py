"""Leek's own agent, as it was measured when leekfanout was begun, for the comparison in the README.

Its code is not here, so no run repeats these figures. They come from 2 cores and Python 3.11, as
leekfanout's do: what a machine has more or less of is smaller than the differences.
"""

from dataclasses import dataclass

from bench.results import Results
from bench.tables import FIGURES, Table


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of that agent, and the case of the part ``compare`` that leekfanout's is from."""

    work: str
    figure: str
    theirs: str
    case: str


MEASURED = (
    Measured("CPU per event, RabbitMQ, one per message", "cpu_us", "74 µs", "agent, single"),
    Measured("CPU per event, RabbitMQ, lists of ten", "cpu_us", "47 µs", "agent, lists of ten"),
    Measured("CPU per event, Redis", "cpu_us", "over 300 µs", "agent, Redis"),
    Measured("Events per second, RabbitMQ, one per message", "rate", "11,800", "agent, single"),
    Measured("Events per second, RabbitMQ, lists of ten", "rate", "20,800", "agent, lists of ten"),
    Measured("Events per second, Redis", "rate", "2,600", "agent, Redis"),
    Measured(
        "Events per second, RabbitMQ, a pool of 10, an API that takes 200 ms",
        "rate",
        "3,485",
        "agent, single, API 200 ms",
    ),
)
_UNITS = {"cpu_us": " µs", "rate": ""}


def table(results: Results) -> Table:
    """Return that agent's figures beside leekfanout's in ``results``; pure."""
    rows = []
    for line in MEASURED:
        ours = results.figure("compare", line.case, line.figure)
        written = "not measured" if ours is None else FIGURES[line.figure][1](ours)
        rows.append((line.work, line.theirs, f"{written}{_UNITS[line.figure] if ours else ''}"))
    return Table("", ("measured", "Leek's own agent", "leekfanout"), tuple(rows))
