"""The agent's metrics in Prometheus' format, made of what ``leekfanout.getStatus`` tells.

Names and units follow Prometheus' "Metric and label naming". The only labels are the subscription's
name and words of ours, so that their number is bounded by the configuration. Counters live in memory
that outlives a subscription's process, so they survive its restarts.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from leekfanout.delivery.batcher import ClosedBy
from leekfanout.status.stats import ANSWERS, POST_SECONDS_BUCKETS, Condition, bucket_counter
from leekfanout.supervision.lifecycle import State
from leekfanout.version import VERSION

Status = dict[str, Any]


class _Sample(NamedTuple):
    """A counter or gauge of the stats, and what Prometheus is told of it."""

    stats_name: str
    name: str
    documentation: str


COUNTERS: Final = (
    _Sample("messages_received", "messages_received", "Messages taken from the broker."),
    _Sample("events_received", "events_received", "Celery events in those messages."),
    _Sample("task_events_received", "task_events_received", "Task events among them."),
    _Sample("events_ignored", "events_ignored", "Events of types that Leek has no use for."),
    _Sample("events_delivered", "events_delivered", "Events that the API has confirmed."),
    _Sample("documents_delivered", "documents_delivered", "Documents that it has confirmed."),
    _Sample("bytes_delivered", "delivered_bytes", "Bytes of the bodies that it has confirmed."),
    _Sample("posts_retried", "posts_retried", "POSTs that have to be tried again."),
    _Sample("redeliveries_recognised", "redeliveries_recognised",
            "Messages that came again after a lost connection and were not posted again."),
    _Sample("reconnects", "broker_reconnects", "Connections to the broker after a lost one."),
    _Sample("hand_backs", "hand_backs", "Times that all messages went back to the broker."),
    _Sample("gap_seconds", "broker_gap_seconds", "Seconds without a Redis subscription."),
    _Sample("events_spooled", "events_spooled", "Events that were put into the spool."),
    _Sample("dead_letters_evicted", "dead_letters_evicted",
            "Dead letters that were deleted to stay within the bound."),
)  # fmt: skip

GAUGES: Final = (
    _Sample("messages_in_flight", "messages_in_flight", "Messages in hand, not delivered yet."),
    _Sample("bytes_in_flight", "in_flight_bytes", "Bytes in memory that aren't delivered yet."),
    _Sample("batches_queued", "batches_in_flight", "Closed batches that aren't delivered yet."),
    _Sample("posts_under_way", "posts_under_way", "POSTs that wait for an answer."),
    _Sample("breaker_open", "breaker_open", "Whether POSTs wait until the API is ready (0 or 1)."),
    _Sample("spool_batches", "spool_batches", "Batches on disk that aren't delivered yet."),
    _Sample("spool_bytes", "spool_bytes", "Bytes that they take."),
    _Sample("dead_letters", "dead_letters", "Dead letters on disk."),
    _Sample("dead_letters_bytes", "dead_letters_bytes", "Bytes that they take."),
)  # fmt: skip

TIMES: Final = (
    _Sample("last_event_at", "last_event_timestamp_seconds", "When an event came last."),
    _Sample("last_delivery_at", "last_delivery_timestamp_seconds", "When a POST was confirmed last."),
    _Sample("last_error_at", "last_error_timestamp_seconds", "When something went wrong last."),
)  # fmt: skip
"""Epoch seconds; left out while it has never happened."""

DEAD_LETTERED: Final = {"bad event": "events_bad", "refused document": "documents_refused"}
DROPPED: Final = {"disk": "events_dropped_by_disk", "spool full": "events_dropped_by_bound"}


class Collector:
    """Makes the metrics anew for each scrape; any thread may collect.

    ``ask`` returns the statuses, or raises LeekfanoutError; then ``leekfanout_up`` is 0 and nothing
    else is told.
    """

    def __init__(self, ask: Callable[[], Sequence[Status] | None]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        """Give all metric families."""
        yield InfoMetricFamily("leekfanout_build", "What is running.", {"version": VERSION})
        statuses = self._ask()
        yield GaugeMetricFamily(
            "leekfanout_up", "Whether the supervisor answers (0 or 1).", float(statuses is not None)
        )
        if statuses is not None:
            yield from families(statuses, time.time())


def families(statuses: Sequence[Status], now: float) -> Iterator[Metric]:
    """Give the metrics of all subscriptions; ``now`` is epoch seconds."""
    for sample in COUNTERS:
        yield _counter(sample.name, sample.documentation, statuses, sample.stats_name)
    for sample in GAUGES:
        yield _gauge(sample.name, sample.documentation, statuses, sample.stats_name)
    for sample in TIMES:
        yield _gauge(
            sample.name,
            sample.documentation,
            [status for status in statuses if status["gauges"][sample.stats_name] > 0],
            sample.stats_name,
        )
    yield _counters_by(
        "dead_lettered", "What was set aside, by reason.", statuses, "reason", DEAD_LETTERED
    )
    yield _counters_by(
        "events_dropped", "Events that nothing could keep, by reason.", statuses, "reason", DROPPED
    )
    yield _counters_by(
        "batches_closed",
        "Batches closed, by what closed them.",
        statuses,
        "by",
        {cause.value: f"batches_closed_by_{cause.value}" for cause in ClosedBy},
    )
    yield from _of_the_broker(statuses)
    yield from _of_the_process(statuses)
    yield _oldest(statuses, now)
    yield _post_seconds(statuses)


def _of_the_broker(statuses: Sequence[Status]) -> Iterator[Metric]:
    known = [status for status in statuses if status["gauges"]["broker_backlog"] >= 0]
    yield _gauge(
        "broker_backlog_messages", "Messages waiting at the broker.", known, "broker_backlog"
    )
    connected = GaugeMetricFamily(
        "leekfanout_broker_connected", "Whether the broker is connected.", labels=["subscription"]
    )
    for status in statuses:
        connected.add_metric([status["name"]], float(status["gauges"]["connected_at"] > 0))
    yield connected


def _of_the_process(statuses: Sequence[Status]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "leekfanout_process_state",
        "1 for the state that the process is in.",
        labels=["subscription", "state"],
    )
    condition = GaugeMetricFamily(
        "leekfanout_condition",
        "1 for what the process is doing.",
        labels=["subscription", "condition"],
    )
    starts = CounterMetricFamily(
        "leekfanout_process_starts", "Times that the process was started.", labels=["subscription"]
    )
    ends = CounterMetricFamily(
        "leekfanout_process_ends",
        "Times that the process ended without being asked, by cause.",
        labels=["subscription", "cause"],
    )
    memory = GaugeMetricFamily(
        "leekfanout_process_resident_memory_bytes", "Resident memory.", labels=["subscription"]
    )
    cpu = CounterMetricFamily(
        "leekfanout_process_cpu_seconds",
        "CPU time of the present process, user and system; begins again with each process.",
        labels=["subscription"],
    )
    for status in statuses:
        name = status["name"]
        for possible in State:
            state.add_metric([name, possible.name.lower()], float(status["state"] == possible))
        for word in Condition:
            condition.add_metric([name, word.name.lower()], float(status["condition"] == word.name))
        starts.add_metric([name], status["starts"])
        for cause, count in status["ends"].items():
            ends.add_metric([name, cause], count)
        memory.add_metric([name], status["memory_bytes"])
        cpu.add_metric([name], status["cpu_seconds"])
    yield from (state, condition, starts, ends, memory, cpu)


def _oldest(statuses: Sequence[Status], now: float) -> Metric:
    age = GaugeMetricFamily(
        "leekfanout_oldest_batch_age_seconds",
        "Age of the oldest closed batch that isn't delivered: how far acks lag behind. 0: none.",
        labels=["subscription"],
    )
    for status in statuses:
        closed_at = status["gauges"]["oldest_batch_at"]
        age.add_metric([status["name"]], max(0.0, now - closed_at) if closed_at else 0.0)
    return age


def _post_seconds(statuses: Sequence[Status]) -> Metric:
    histogram = HistogramMetricFamily(
        "leekfanout_post_seconds",
        "Time from the start of a POST to its answer, by the answer's class.",
        labels=["subscription", "answer"],
    )
    bounds = [*(str(bound) for bound in POST_SECONDS_BUCKETS), "+Inf"]
    for status in statuses:
        counters = status["counters"]
        for answer in ANSWERS:
            total, buckets = 0.0, []
            for bound, limit in zip(bounds, (*POST_SECONDS_BUCKETS, None), strict=True):
                total += counters[bucket_counter(answer, limit)]
                buckets.append((bound, total))
            histogram.add_metric(
                [status["name"], answer], buckets, counters[f"post_seconds_{answer}_sum"]
            )
    return histogram


def _counter(name: str, documentation: str, statuses: Sequence[Status], stats_name: str) -> Metric:
    family = CounterMetricFamily(f"leekfanout_{name}", documentation, labels=["subscription"])
    for status in statuses:
        family.add_metric([status["name"]], status["counters"][stats_name])
    return family


def _gauge(name: str, documentation: str, statuses: Sequence[Status], stats_name: str) -> Metric:
    family = GaugeMetricFamily(f"leekfanout_{name}", documentation, labels=["subscription"])
    for status in statuses:
        family.add_metric([status["name"]], status["gauges"][stats_name])
    return family


def _counters_by(
    name: str, documentation: str, statuses: Sequence[Status], label: str, counters: dict[str, str]
) -> Metric:
    family = CounterMetricFamily(
        f"leekfanout_{name}", documentation, labels=["subscription", label]
    )
    for status in statuses:
        for value, stats_name in counters.items():
            family.add_metric([status["name"], value], status["counters"][stats_name])
    return family
