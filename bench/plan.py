"""What is measured: parts, and in each part cases that are measured in turn, round by round.

The quick plan holds what has a target. The full one looks at everything that can be chosen, one or two
choices at a time: all of them together would take days.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench import fleet_measures, measures, neighbours, one_bad
from bench.load import LIST_EVENTS, SHAPES

DELAYS_MS = (0, 50, 200)
PREFETCH_COUNTS = (1_000, 2_500, 5_000, 10_000)
POOL_SIZES = (1, 2, 5, 10, 20)
BATCH_NUMBERS = (100, 300, 1_000, 3_000, 10_000)
BATCH_SIZES_MB = (1, 2, 5, 10)
WINDOWS_S = (0.5, 2, 5)
SUBSCRIPTIONS = (1, 10, 100)
IN_FLIGHT_MAX_MB = (8, 16, 32, 64)
SHARE_OF_REDIS = 0.8
LARGE_EVENTS = 600
WIDE = {"prefetch_count": 10_000, "batch_max_number_of_messages": 1_000}
SPREAD = {**WIDE, "concurrency_pool_size": 10}
MANY = 100
STALLED = {
    "prefetch_count": 10_000,
    "batch_max_number_of_messages": 10_000,
    "batch_max_size_in_mb": 10,
    "concurrency_pool_size": 20,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure; ``name`` is unique within its part."""

    name: str
    measure: Callable[..., dict[str, float]]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Cases that are compared with each other, and how many rounds of them the median is of."""

    name: str
    title: str
    cases: tuple[Case, ...]
    rounds: int = 1


def _case(name: str, measure: Callable[..., dict[str, float]], **settings: Any) -> Case:
    return Case(name, measure, settings)


def plan(quick: bool) -> list[Part]:
    """Return the parts, in the order in which they are measured."""
    parts = [_stub(), _documents(quick), _amqp(quick), _redis(quick), _redis_steady(quick)]
    if not quick:
        parts += [_prefetch(), _pool(), _batches(), _windows(), _shapes()]
    parts += [_idle(quick), _memory(quick), _subscriptions(quick)]
    return parts if quick else [*parts, _start(), _neighbours(), _one_bad(), compare(quick)]


def _stub() -> Part:
    cases = (_case("at most", measures.stub_alone, seconds=1.0),)
    return Part("stub", "The API stub by itself", cases)


def _documents(quick: bool) -> Part:
    cases = (_case("events", measures.event_to_document, rounds=5 if quick else 15),)
    return Part("documents", "Events to documents, without broker and API", cases)


def _amqp(quick: bool) -> Part:
    events = 20_000 if quick else 60_000
    single = {"shape": "single", "events": events}
    lists = {"shape": "lists of ten", "events": 2 * events}
    # So many that filling ten senders, and emptying them, is a small part of it.
    pool = {**single, **SPREAD, "events": 60_000}
    cases = (
        _case("plain 1000", measures.plain_amqp, **single, prefetch_count=1_000),
        _case("plain 10000", measures.plain_amqp, **single, prefetch_count=10_000),
        _case("source 1000", measures.source_amqp, **single, prefetch_count=1_000),
        _case("source 10000", measures.source_amqp, **single, prefetch_count=10_000),
        _case("agent 1000", measures.agent_amqp, **single, prefetch_count=1_000),
        _case("agent 10000", measures.agent_amqp, **single, **WIDE),
        _case("plain lists", measures.plain_amqp, **lists, prefetch_count=1_000),
        _case("agent lists", measures.agent_amqp, **lists, prefetch_count=1_000),
        _case("agent pool 10", measures.agent_amqp, **pool),
        _case(
            "source pool 10, 200 ms",
            measures.source_amqp,
            shape="single",
            events=60_000,
            prefetch_count=10_000,
            ack_after_s=0.2,
        ),
        _case("agent pool 10, 200 ms", measures.agent_amqp, **pool, delay_s=0.2),
        _case(
            "source pool 1, 200 ms",
            measures.source_amqp,
            **single,
            prefetch_count=1_000,
            ack_after_s=0.2,
        ),
        _case(
            "agent pool 1, 200 ms", measures.agent_amqp, **single, prefetch_count=1_000, delay_s=0.2
        ),
    )
    return Part("amqp", "RabbitMQ: a filled queue is drained", cases, 1 if quick else 3)


def _redis(quick: bool) -> Part:
    events = 40_000 if quick else 150_000
    cases = (
        _case("plain flat out", measures.plain_redis, events=events, share=None),
        _case("source flat out", measures.source_redis, events=events, share=None),
        _case("agent flat out", measures.flat_out_redis, events=events),
    )
    title = "Redis: published as fast as it is read"
    return Part("redis", title, cases, 1 if quick else 3)


def _redis_steady(quick: bool) -> Part:
    events, seconds = (40_000, 5) if quick else (200_000, 60)
    cases = (
        _case("plain", measures.plain_redis, events=events, share=SHARE_OF_REDIS),
        _case("source", measures.source_redis, events=events, share=SHARE_OF_REDIS),
        _case("agent", measures.agent_redis, seconds=seconds, share=SHARE_OF_REDIS),
    )
    title = f"Redis: published at {SHARE_OF_REDIS:g} of the rate of plain redis-py"
    return Part("redis steady", title, cases)


def _prefetch() -> Part:
    cases = tuple(
        _case(
            f"{prefetch_count}, {delay_ms} ms",
            measures.agent_amqp,
            shape="single",
            events=40_000,
            delay_s=delay_ms / 1000,
            prefetch_count=prefetch_count,
            batch_max_number_of_messages=1_000,
            concurrency_pool_size=4,
        )
        for prefetch_count in PREFETCH_COUNTS
        for delay_ms in DELAYS_MS
    )
    return Part("prefetch", "prefetch_count, with batches of 1,000 and a pool of 4", cases)


def _pool() -> Part:
    cases = tuple(
        _case(
            f"{size}, {delay_ms} ms",
            measures.agent_amqp,
            shape="single",
            # So many that the slowest case ends within some seconds.
            events=min(40_000, 20_000 * size),
            delay_s=delay_ms / 1000,
            concurrency_pool_size=size,
            **WIDE,
        )
        for size in POOL_SIZES
        for delay_ms in DELAYS_MS
    )
    return Part(
        "pool", "concurrency_pool_size, with batches of 1,000 and a prefetch of 10,000", cases
    )


def _batches() -> Part:
    largest = max(BATCH_SIZES_MB)
    bounds = [(f"{number} messages", "single", number, largest) for number in BATCH_NUMBERS]
    # Of usual events even 10,000 are smaller than 5 MB.
    bounds += [(f"{size_mb} MB", "long arguments", 10_000, size_mb) for size_mb in BATCH_SIZES_MB]
    cases = tuple(
        _case(
            name,
            measures.agent_amqp,
            shape=shape,
            events=50_000,
            prefetch_count=10_000,
            batch_max_number_of_messages=number,
            batch_max_size_in_mb=size_mb,
        )
        for name, shape, number, size_mb in bounds
    )
    return Part("batches", "Bounds of a batch, with a prefetch of 10,000", cases)


def _windows() -> Part:
    cases = tuple(
        _case(
            f"{window_s:g} s",
            measures.trickle_amqp,
            rate=200,
            seconds=10,
            batch_max_window_in_seconds=window_s,
        )
        for window_s in WINDOWS_S
    )
    return Part("windows", "batch_max_window_in_seconds, at 200 events per second", cases)


def _shapes() -> Part:
    cases: list[Case] = []
    for shape in SHAPES:
        events = LARGE_EVENTS if shape == "100 kB" else 40_000
        settings = {"shape": shape, "events": events, "prefetch_count": 1_000}
        cases += (
            _case(f"plain, {shape}", measures.plain_amqp, **settings),
            _case(f"agent, {shape}", measures.agent_amqp, **settings),
        )
    title = f"Shapes of messages on RabbitMQ (a list holds {LIST_EVENTS} events)"
    return Part("shapes", title, tuple(cases), 2)


def _idle(quick: bool) -> Part:
    seconds = 6 if quick else 20
    case = _case("idle", fleet_measures.idle_subscriptions, count=10, seconds=seconds)
    return Part("idle", "Ten subscriptions without any event", (case,))


def _memory(quick: bool) -> Part:
    small = {"shape": "single", "events": 20_000, "in_flight_max_mb": 64}
    cases = [_case("captured events", fleet_measures.stalled_api_memory, **small, **STALLED)]
    large = {"shape": "100 kB", "events": 2 * LARGE_EVENTS}
    cases += (
        _case(
            f"100 kB events, {in_flight_mb} MB",
            fleet_measures.stalled_api_memory,
            in_flight_max_mb=in_flight_mb,
            **large,
            **STALLED,
        )
        for in_flight_mb in (IN_FLIGHT_MAX_MB[-1:] if quick else IN_FLIGHT_MAX_MB)
    )
    title = "Memory with a stalled API: prefetch 10,000, batches of 10 MB, pool of 20"
    return Part("memory", title, tuple(cases))


def _subscriptions(quick: bool) -> Part:
    cases = tuple(
        _case(
            f"{count}",
            fleet_measures.subscriptions_at_work,
            count=count,
            rate_each=10,
            seconds=8 if quick else 15,
        )
        for count in (SUBSCRIPTIONS[-1:] if quick else SUBSCRIPTIONS)
    )
    return Part("subscriptions", "Subscriptions with 10 events per second each", cases)


def _start() -> Part:
    cases = (_case("100 subscriptions", fleet_measures.start_of_many, count=MANY, seconds=10.0),)
    return Part("start", "The start of an agent with many subscriptions", cases)


def _neighbours() -> Part:
    settings = {"rate_each": 200, "seconds": 15}
    cases = tuple(
        _case(name, neighbours.three_subscriptions, **settings, disturbed=disturbed)
        for name, disturbed in (("nothing is done", False), ("restarts, stops, reloads", True))
    )
    return Part("neighbours", "Three subscriptions, of which one is disturbed", cases)


def _one_bad() -> Part:
    cases = tuple(
        # What can only be told from an outage by trying takes seconds, so that once will do.
        _case(bad or "none is bad", one_bad.all_others, bad=bad, runs=3 if quickly else 1)
        for bad, quickly in (
            (None, True),
            (one_bad.MALFORMED, True),
            *((answer, not answer.startswith("the API")) for answer in one_bad.ANSWERS),
        )
    )
    return Part("one bad", f"One bad one among {one_bad.EVENTS:,}, each a document", cases)


def compare(quick: bool) -> Part:
    """Return the comparison with the agent that anyone would write first."""
    events = 10_000 if quick else 20_000
    single = {"shape": "single", "events": events}
    lists = {"shape": "lists of ten", "events": 2 * events}
    cases = (
        _case("simple, single", measures.simple_amqp, **single),
        _case("agent, single", measures.agent_amqp, **single),
        _case("simple, lists of ten", measures.simple_amqp, **lists),
        _case("agent, lists of ten", measures.agent_amqp, **lists),
        _case("simple, single, API 200 ms", measures.simple_amqp, **single, delay_s=0.2),
        _case("agent, single, API 200 ms", measures.agent_amqp, **single, delay_s=0.2, **SPREAD),
        _case("simple, Redis", measures.simple_redis, events=events // 2),
        _case("agent, Redis", measures.flat_out_redis, events=2 * events),
    )
    return Part("compare", "Beside kombu's ConsumerMixin and requests.post", cases)
