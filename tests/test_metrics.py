"""The metrics: named by Prometheus' conventions, complete, and bounded in their labels."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from leekfanout.metrics import collector
from leekfanout.metrics.collector import Collector
from leekfanout.status.health_report import liveness_of, readiness_of
from leekfanout.status.stats import COUNTERS, GAUGES, Stats

NOW = 2_000.0


def status(name: str = "shop-qa", stats: Stats | None = None, **changes) -> dict:
    if stats is None:
        stats = Stats()
        stats.set("turned_at", NOW)
    values = stats.snapshot()
    return {
        "name": name,
        "state": 20,
        "statename": "RUNNING",
        "wanted": True,
        "reason": "",
        "condition": "DELIVERING",
        "starts": 3,
        "ends": {"crash": 2, "hang": 0},
        "memory_bytes": 50e6,
        "cpu_seconds": 1.5,
        "last_error": "",
        "counters": {key: values[key] for key in COUNTERS},
        "gauges": {key: values[key] for key in GAUGES},
        **changes,
    }


def scrape(*statuses: dict) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    registry.register(Collector(lambda: list(statuses)))
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_and_gauges_carry_the_subscription_and_their_values():
    stats = Stats()
    stats.add("events_delivered", 7)
    stats.add("events_dropped_by_disk", 2)
    stats.add("batches_closed_by_window", 5)
    stats.set("bytes_in_flight", 1234)
    samples = scrape(status(stats=stats))
    shop = ("subscription", "shop-qa")
    assert samples["leekfanout_events_delivered_total", (shop,)] == 7
    assert samples["leekfanout_events_dropped_total", (("reason", "disk"), shop)] == 2
    assert samples["leekfanout_batches_closed_total", (("by", "window"), shop)] == 5
    assert samples["leekfanout_in_flight_bytes", (shop,)] == 1234
    assert samples["leekfanout_process_starts_total", (shop,)] == 3
    assert samples["leekfanout_process_cpu_seconds_total", (shop,)] == 1.5
    assert samples["leekfanout_process_ends_total", (("cause", "crash"), shop)] == 2
    assert samples["leekfanout_up", ()] == 1


def test_post_seconds_are_a_cumulative_histogram_by_the_class_of_the_answer():
    stats = Stats()
    for seconds, code in [(0.004, 201), (0.004, 201), (0.3, 201), (70.0, None), (0.3, 503)]:
        stats.observe_post(seconds, code)
    samples = scrape(status(stats=stats))

    def bucket(answer: str, bound: str) -> float:
        labels = (("answer", answer), ("le", bound), ("subscription", "shop-qa"))
        return samples["leekfanout_post_seconds_bucket", labels]

    assert [bucket("2xx", le) for le in ("0.01", "0.25", "0.5", "+Inf")] == [2, 2, 3, 3]
    assert [bucket("none", le) for le in ("30.0", "+Inf")] == [0, 1]
    assert bucket("5xx", "0.5") == 1
    labels = (("answer", "2xx"), ("subscription", "shop-qa"))
    assert samples["leekfanout_post_seconds_sum", labels] == pytest.approx(0.308)
    assert samples["leekfanout_post_seconds_count", labels] == 3


def test_what_is_not_known_or_never_happened_is_left_out():
    stats = Stats()
    stats.set("broker_backlog", -1)
    samples = scrape(status(stats=stats))
    names = {name for name, _ in samples}
    assert "leekfanout_broker_backlog_messages" not in names
    assert "leekfanout_last_delivery_timestamp_seconds" not in names
    stats.set("broker_backlog", 12)
    stats.set("last_delivery_at", 99.0)
    samples = scrape(status(stats=stats))
    shop = (("subscription", "shop-qa"),)
    assert samples["leekfanout_broker_backlog_messages", shop] == 12
    assert samples["leekfanout_last_delivery_timestamp_seconds", shop] == 99


def test_an_agent_that_does_not_answer_is_down_and_nothing_else_is_told():
    registry = CollectorRegistry()
    registry.register(Collector(lambda: None))
    text = generate_latest(registry).decode()
    assert "leekfanout_up 0.0" in text
    assert "subscription" not in text


def test_every_counter_of_the_stats_is_told():
    told = {sample.stats_name for sample in collector.COUNTERS}
    told |= {*collector.DEAD_LETTERED.values(), *collector.DROPPED.values()}
    told |= {name for name in COUNTERS if name.startswith(("batches_closed_by_", "post_seconds_"))}
    # The histogram counts POSTs, those that were confirmed are its answers 2xx.
    assert set(COUNTERS) - told == {"posts", "posts_confirmed"}


def test_the_age_of_the_oldest_batch_is_how_far_acks_lag():
    stats = Stats()
    stats.set("oldest_batch_at", NOW - 8)
    families = {family.name: family for family in collector.families([status(stats=stats)], NOW)}
    (sample,) = families["leekfanout_oldest_batch_age_seconds"].samples
    assert sample.value == 8


CRASHED = {"statename": "BACKOFF", "state": 30, "reason": "It crashed."}


def test_one_subscription_that_is_not_kept_up_is_no_reason_to_restart_the_others():
    crashed = status("shop-qa", **CRASHED)
    alive = liveness_of([crashed, status("blog-qa")], NOW)
    assert alive.ok
    assert alive.lines == (
        "shop-qa: not ok (BACKOFF: It crashed.)",
        "blog-qa: ok (RUNNING, delivering)",
    )
    assert not readiness_of([crashed, status("blog-qa")]).ok


@pytest.mark.parametrize("statename", ["BACKOFF", "EXITED", "FATAL"])
def test_an_agent_that_keeps_nothing_up_is_not_alive(statename):
    crashed = status(**{**CRASHED, "statename": statename})
    stopped = status(statename="STOPPED", wanted=False)
    assert not liveness_of([crashed], NOW).ok
    assert not liveness_of([crashed, crashed, stopped], NOW).ok


def test_a_process_that_hangs_though_it_was_killed_is_not_kept_up():
    stats = Stats()
    stats.set("turned_at", NOW - 91)
    (line,) = liveness_of([status(stats=stats)], NOW).lines
    assert line == ("shop-qa: not ok (RUNNING, delivering: its main loop has not turned for 91 s)")
    assert not liveness_of([status(stats=stats)], NOW).ok
    stats.set("turned_at", NOW - 89)
    assert liveness_of([status(stats=stats)], NOW).ok


def test_an_agent_that_answers_is_alive_though_nothing_of_it_is_to_run():
    assert liveness_of([], NOW).ok
    assert liveness_of([status(statename="STOPPED", wanted=False)], NOW).ok
    # It waits for its forerunner, or is being restarted.
    assert liveness_of([status(statename="STOPPED")], NOW).ok
    assert liveness_of([status(statename="STOPPING")], NOW).ok
    assert liveness_of(None, NOW).lines == ("The agent doesn't answer.",)
    assert not liveness_of(None, NOW).ok


def test_readiness_asks_for_delivery():
    waiting = status(condition="WAITING_FOR_API", last_error="The API is away.")
    stopped = status(statename="STOPPED", state=0, wanted=False)
    assert readiness_of([status(), stopped]).ok
    assert not readiness_of([status(), waiting]).ok
    assert readiness_of([status(condition="STANDING_BY")]).ok
    assert not readiness_of(None).ok
    assert readiness_of([waiting]).lines == (
        "shop-qa: not ok (RUNNING, waiting for api: The API is away.)",
    )


def test_a_reason_that_is_the_last_error_too_is_told_once():
    crashed = status(**CRASHED, last_error="It crashed.")
    assert readiness_of([crashed]).lines == ("shop-qa: not ok (BACKOFF: It crashed.)",)
    other = {**crashed, "last_error": "The API is away."}
    assert readiness_of([other]).lines == (
        "shop-qa: not ok (BACKOFF: It crashed.: The API is away.)",
    )
