"""The targets, and whether they are met: each against what was measured in the same run."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.plan import SHARE_OF_REDIS
from bench.results import Results

AMQP_CPU_RATIO = 1.0
AMQP_CPU_AIM = 0.8
AMQP_RATE_RATIO = 1.0
LISTS_CPU_US = 8.0
LISTS_CPU_RATIO = 2.6
REDIS_CPU_RATIO = 2.0
POOL_RATE_RATIO = 0.9
ONE_POST_SHARE = 0.9
ONE_POST_RATE = 1_000 / 0.2
"""A batch of 1,000 in each POST of 200 ms."""
IDLE_CORES = 0.001
MEMORY_OVER_IN_FLIGHT_MB = 80
MEMORY_IN_FLIGHT_MB = 64
SUBSCRIPTIONS_CORES = 0.4


@dataclass(frozen=True, slots=True)
class Line:
    """One target. ``met`` is None where its figures weren't measured."""

    work: str
    target: str
    measured: str
    met: bool | None


def verdict(results: Results) -> list[Line]:
    """Return a line for each target; pure."""
    return [
        *(line for prefetch in ("1000", "10000") for line in _amqp(results, prefetch)),
        _lists(results),
        *_redis(results),
        *_slow_api(results),
        *_whole_agent(results),
    ]


def _line(
    work: str, target: str, figures: list[float | None], judge: Callable[..., tuple[str, bool]]
) -> Line:
    if any(figure is None for figure in figures):
        return Line(work, target, "not measured", None)
    return Line(work, target, *judge(*figures))


def _at_most(ratio: float) -> Callable[[float, float], tuple[str, bool]]:
    def judge(ours: float, theirs: float) -> tuple[str, bool]:
        seen = ours / theirs
        return f"{seen:.2f} times ({ours:.1f} to {theirs:.1f} µs)", seen <= ratio

    return judge


def _at_least(ratio: float) -> Callable[[float, float], tuple[str, bool]]:
    def judge(ours: float, theirs: float) -> tuple[str, bool]:
        seen = ours / theirs
        return f"{seen:.2f} times ({ours:,.0f} to {theirs:,.0f}/s)", seen >= ratio

    return judge


def _amqp(results: Results, prefetch: str) -> list[Line]:
    def of(case: str, figure: str) -> float | None:
        return results.figure("amqp", f"{case} {prefetch}", figure)

    work = f"RabbitMQ, one event per message, prefetch {int(prefetch):,}"
    cpu = [of("agent", "cpu_us"), of("plain", "cpu_us")]
    rates = [of("agent", "rate"), of("plain", "rate")]
    return [
        _line(
            f"{work}: CPU per event",
            f"≤ {AMQP_CPU_RATIO} times plain kombu (aim: {AMQP_CPU_AIM})",
            cpu,
            _at_most(AMQP_CPU_RATIO),
        ),
        _line(
            f"{work}: rate",
            f"≥ {AMQP_RATE_RATIO} times plain kombu",
            rates,
            _at_least(AMQP_RATE_RATIO),
        ),
    ]


def _lists(results: Results) -> Line:
    def judge(ours: float, theirs: float) -> tuple[str, bool]:
        seen, _ = _at_most(LISTS_CPU_RATIO)(ours, theirs)
        return seen, ours <= LISTS_CPU_US or ours <= LISTS_CPU_RATIO * theirs

    cpu = [results.figure("amqp", f"{case} lists", "cpu_us") for case in ("agent", "plain")]
    target = f"≤ {LISTS_CPU_US:g} µs or {LISTS_CPU_RATIO} times plain kombu"
    return _line("RabbitMQ, lists of ten: CPU per event", target, cpu, judge)


def _redis(results: Results) -> list[Line]:
    def keeps_up(missing: float, rate: float, own_rate: float) -> tuple[str, bool]:
        share = rate / own_rate
        return (
            f"{rate:,.0f}/s ({share:.2f} of it), {missing:,.0f} dropped",
            not missing and share >= 0.98 * SHARE_OF_REDIS,
        )

    cpu = [results.figure("redis steady", case, "cpu_us") for case in ("agent", "plain")]
    steady = [results.figure("redis steady", "agent", name) for name in ("missing", "rate")]
    return [
        _line(
            "Redis, one event per message: CPU per event",
            f"≤ {REDIS_CPU_RATIO} times plain redis-py",
            cpu,
            _at_most(REDIS_CPU_RATIO),
        ),
        _line(
            f"Redis, published at {SHARE_OF_REDIS} of redis-py's own rate",
            "keeps up, nothing dropped",
            [*steady, results.figure("redis", "plain flat out", "rate")],
            keeps_up,
        ),
    ]


def _slow_api(results: Results) -> list[Line]:
    def of(case: str, figure: str) -> float | None:
        return results.figure("amqp", case, figure)

    # While POSTs are under way the prefetch is used up, so RabbitMQ's next messages come after
    # them, not meanwhile. What that takes no agent can save: the source alone, acking as late.
    def beside_one_post_at_a_time(ours: float, receiving: float) -> tuple[str, bool]:
        seen, met = _at_least(ONE_POST_SHARE)(ours, ONE_POST_RATE)
        return f"{seen}; merely receiving: {receiving / ONE_POST_RATE:.2f}", met

    def beside_no_delay(ours: float, at_once: float, receiving: float) -> tuple[str, bool]:
        seen, met = _at_least(POOL_RATE_RATIO)(ours, at_once)
        return f"{seen}; merely receiving: {receiving / at_once:.2f}", met

    slow = "agent pool 10, 200 ms"
    work = "API 200 ms, pool 10, batches of 1,000, prefetch 10,000"
    return [
        _line(
            f"{work}: CPU per event",
            f"≤ {AMQP_CPU_RATIO} times plain kombu",
            [of(slow, "cpu_us"), of("plain 10000", "cpu_us")],
            _at_most(AMQP_CPU_RATIO),
        ),
        _line(
            f"{work}: rate",
            f"≥ {POOL_RATE_RATIO} of that at 0 ms",
            [
                of(slow, "rate"),
                of("agent pool 10", "rate"),
                of("source pool 10, 200 ms", "rate"),
            ],
            beside_no_delay,
        ),
        _line(
            "API 200 ms, pool 1, prefetch 1,000: rate",
            f"≥ {ONE_POST_SHARE} of one POST of 1,000 per 200 ms",
            [of("agent pool 1, 200 ms", "rate"), of("source pool 1, 200 ms", "rate")],
            beside_one_post_at_a_time,
        ),
    ]


def _whole_agent(results: Results) -> list[Line]:
    def cores(most: float, decimals: int) -> Callable[[float], tuple[str, bool]]:
        return lambda seen: (f"{seen:.{decimals}%} of a core", seen <= most)

    def memory(rss_mb: float) -> tuple[str, bool]:
        return f"{rss_mb:.0f} MB", rss_mb <= MEMORY_IN_FLIGHT_MB + MEMORY_OVER_IN_FLIGHT_MB

    largest = f"100 kB events, {MEMORY_IN_FLIGHT_MB} MB"
    return [
        _line(
            "Idle, per subscription",
            f"≤ {IDLE_CORES:.1%} of a core",
            [results.figure("idle", "idle", "cores_per_subscription")],
            cores(IDLE_CORES, 3),
        ),
        _line(
            "Memory: prefetch 10,000, 10 MB batches, pool 20, API stalled",
            f"≤ {MEMORY_IN_FLIGHT_MB} MB in flight + {MEMORY_OVER_IN_FLIGHT_MB} MB",
            [results.figure("memory", largest, "rss_mb")],
            memory,
        ),
        _line(
            "100 subscriptions, 10 events/s each",
            f"≤ {SUBSCRIPTIONS_CORES:.0%} of a core",
            [results.figure("subscriptions", "100", "cores")],
            cores(SUBSCRIPTIONS_CORES, 1),
        ),
    ]


def stub_note(results: Results) -> str:
    """Say how far the API stub is from shaping the results, or nothing where that wasn't measured."""
    most = results.figure("stub", "at most", "megabytes_per_s")
    runs = [f.figures for f in results.found.values() if "api_megabytes_per_s" in f.figures]
    if most is None or not runs:
        return ""
    return (
        f"The API stub takes {most:,.0f} MB/s by itself, one connection at a time. The most that it "
        f"was sent in a run is {max(each['api_megabytes_per_s'] for each in runs):.1f} MB/s, for "
        f"{max(each['api_cpu_share'] for each in runs):.1%} of a core at the most."
    )
