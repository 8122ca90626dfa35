"""The plots of a run, as SVG."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.load import SHAPES
from bench.plan import DELAYS_MS
from bench.results import Found, Results

SIZE_INCHES = (6.4, 3.6)
mpl.rcParams |= {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.3,
    "svg.fonttype": "none",
    # The same results make the same file.
    "svg.hashsalt": "leekfanout",
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw each plot whose figures were measured into ``folder``; return the files."""
    drawn = []
    for name, plot in _PLOTS.items():
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        if plot(results, axes):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            drawn.append(path)
    return drawn


def _delay_ms(found: Found) -> int:
    return round(found.settings["delay_s"] * 1000)


def _by_delay(results: Results, axes: Axes, part: str, setting: str) -> bool:
    """Draw the rate over a setting, a line for each latency of the API."""
    cases = [found for found in results.of(part) if found.figures]
    for delay_ms in DELAYS_MS:
        line = [found for found in cases if _delay_ms(found) == delay_ms]
        axes.plot(
            [found.settings[setting] for found in line],
            [found.figures["rate"] for found in line],
            marker="o",
            label=f"API {delay_ms} ms",
        )
    axes.set_xticks(sorted({found.settings[setting] for found in cases}))
    axes.set(xlabel=setting, ylabel="events per second", ylim=(0, None))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend()
    return bool(cases)


def _prefetch(results: Results, axes: Axes) -> bool:
    axes.set_title("Batches of 1,000, concurrency_pool_size 4")
    return _by_delay(results, axes, "prefetch", "prefetch_count")


def _pool(results: Results, axes: Axes) -> bool:
    axes.set_title("Batches of 1,000, prefetch_count 10,000")
    return _by_delay(results, axes, "pool", "concurrency_pool_size")


def _shapes(results: Results, axes: Axes) -> bool:
    """Draw CPU time per event for each shape, beside plain kombu's."""
    kinds = {"plain": "plain kombu: receive and parse", "agent": "leekfanout: deliver"}
    shapes = [shape for shape in SHAPES if results.figure("shapes", f"agent, {shape}", "cpu_us")]
    for offset, (kind, label) in enumerate(kinds.items()):
        heights = [results.figure("shapes", f"{kind}, {s}", "cpu_us") or 0 for s in shapes]
        places = [place + 0.4 * offset - 0.2 for place in range(len(shapes))]
        bars = axes.bar(places, heights, 0.38, label=label)
        axes.bar_label(bars, fmt="{:.0f}", padding=2)
    axes.set_xticks(range(len(shapes)), shapes)
    axes.set(title="RabbitMQ, prefetch_count 1,000", ylabel="CPU per event, µs (log)")
    axes.set(yscale="log", ylim=(1, 20_000))
    axes.legend()
    return bool(shapes)


def _memory(results: Results, axes: Axes) -> bool:
    cases = [f for f in results.of("memory") if f.figures and f.name.startswith("100 kB")]
    points = sorted((f.figures["in_flight_mb"], f.figures["rss_mb"]) for f in cases)
    axes.plot(*_columns(points), marker="o", label="resident memory")
    bound = [(0.0, 80.0), *((in_flight, in_flight + 80) for in_flight, _ in points[-1:])]
    axes.plot(*_columns(bound), linestyle="--", color="grey", label="in flight + 80 MB")
    axes.set(
        title="API stalled: prefetch_count 10,000, 10 MB batches, pool of 20",
        xlabel="in flight, MB",
        ylabel="RSS, MB",
        ylim=(0, None),
        xlim=(0, None),
    )
    axes.legend()
    return bool(cases)


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _batches(results: Results, axes: Axes) -> bool:
    """Draw CPU time and rate over the number of messages in a batch."""
    cases = [f for f in results.of("batches") if f.figures and f.name.endswith("messages")]
    numbers = [found.settings["batch_max_number_of_messages"] for found in cases]
    axes.plot(numbers, [found.figures["cpu_us"] for found in cases], marker="o", color="C1")
    axes.set(
        title="prefetch_count 10,000, API 0 ms",
        xlabel="batch_max_number_of_messages (log)",
        xscale="log",
        ylabel="CPU per event, µs",
        ylim=(0, None),
    )
    return bool(cases)


def _subscriptions(results: Results, axes: Axes) -> bool:
    cases = [found for found in results.of("subscriptions") if found.figures]
    counts = [found.settings["count"] for found in cases]
    axes.plot(counts, [found.figures["cores"] for found in cases], marker="o")
    axes.set(
        title="10 events per second for each subscription",
        xlabel="subscriptions",
        ylabel="cores in all",
        ylim=(0, None),
        xlim=(0, None),
    )
    return len(cases) > 1


_PLOTS: dict[str, Callable[[Results, Any], bool]] = {
    "rate-over-prefetch": _prefetch,
    "rate-over-pool": _pool,
    "cpu-per-shape": _shapes,
    "cpu-over-batch": _batches,
    "memory-over-in-flight": _memory,
    "cpu-over-subscriptions": _subscriptions,
}
