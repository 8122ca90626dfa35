"""Figures as rows of text, for the terminal and for Markdown alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.plan import Part
from bench.results import Found, Results
from bench.verdict import Line

FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "cpu_us": ("CPU, µs/event", "{:.1f}".format),
    "rate": ("events/s", "{:,.0f}".format),
    "events_per_post": ("events/POST", "{:,.0f}".format),
    "megabytes_per_post": ("MB/POST", "{:.2f}".format),
    "in_flight_mb": ("in flight, MB", "{:.0f}".format),
    "messages_in_flight": ("messages", "{:,.0f}".format),
    "rss_mb": ("RSS, MB", "{:.0f}".format),
    "memory_mb": ("memory in all, MB", "{:.0f}".format),
    "cores": ("cores in all", "{:.3f}".format),
    "cores_per_subscription": ("cores/subscription", "{:.5f}".format),
    "cores_of_supervisor": ("supervisor, cores", "{:.5f}".format),
    "started_s": ("all started after, s", "{:.2f}".format),
    "connected_s": ("all connected after, s", "{:.2f}".format),
    "own_memory_mb": ("own memory (USS), MB", "{:.1f}".format),
    "threads": ("threads", "{:.0f}".format),
    "descriptors": ("descriptors", "{:.0f}".format),
    "disturbances": ("times", "{:.0f}".format),
    "others_silence_ms": ("others without a POST at most, ms", "{:.0f}".format),
    "own_silence_ms": ("itself, ms", "{:.0f}".format),
    "others_s": ("all others delivered after, s", "{:.2f}".format),
    "missing": ("missing", "{:,.0f}".format),
    "api_cpu_share": ("API stub, cores", "{:.3f}".format),
    "posts_per_s": ("POSTs/s of 1 MB", "{:,.0f}".format),
    "api_cpu_us_per_megabyte": ("API stub, µs/MB", "{:.0f}".format),
    "yardstick_us": ("json.loads, µs", "{:.2f}".format),
    "total_us": ("to document, µs", "{:.2f}".format),
    "ratio": ("times json.loads", "{:.2f}".format),
}
"""The figures that are shown, in the order of their columns: heading, and how to write one."""

MET = {True: "met", False: "NOT MET", None: ""}


@dataclass(frozen=True, slots=True)
class Table:
    """A heading and rows of text; the first column is words, the others may be figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return it as a table in Markdown, without the title."""
        rule = ("---", *["---:"] * (len(self.columns) - 1))
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows))


def of_part(part: Part, results: Results) -> Table:
    """Return what was found in a part; a column for each figure that any of its cases has."""
    found = results.of(part.name)
    names = [name for name in FIGURES if any(name in each.figures for each in found)]
    columns = (part.name, *(FIGURES[name][0] for name in names))
    return Table(part.title, columns, tuple(_row(each, names) for each in found))


def _row(found: Found, names: Sequence[str]) -> tuple[str, ...]:
    if found.error:
        return (found.name, *["failed"] * len(names))
    cells = (
        FIGURES[name][1](found.figures[name]) if name in found.figures else "" for name in names
    )
    return (found.name, *cells)


def of_verdict(lines: Sequence[Line]) -> Table:
    """Return the targets as a table."""
    rows = tuple((line.work, line.target, line.measured, MET[line.met]) for line in lines)
    return Table("Targets", ("work", "target", "measured", ""), rows)
