"""Whatever is done to one subscription, the others don't notice."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from leekfanout.control.control_client import Client
from leekfanout.supervision.lifecycle import State
from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import FileAgent, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Post
from tests.brokers import RabbitMQ
from tests.streams import streams
from tests.waiting import until

NAMES = ("shop-prod", "blog-prod", "docs-prod")
"""The first two on RabbitMQ, the third on Redis."""
DISTURBED, *OTHERS = NAMES
MESSAGES_PER_S = 100.0
WINDOW_S = 0.1
EVENTS_MEANWHILE = 100

Entry = dict[str, Any]


def posts_of(api: ApiDouble, name: str) -> list[Post]:
    """Return a subscription's POSTs, in the order of their ends."""
    app_name = name.partition("-")[0]
    return [post for post in api.posts[:] if post.request.headers["x-leek-app-name"] == app_name]


def events_of(api: ApiDouble, name: str) -> int:
    return sum(d["events_count"] for post in posts_of(api, name) for d in post.confirmed)


def disturbances(agent: FileAgent, control: Client, entries: list[Entry]) -> Iterator[str]:
    """Do to the first subscription all that a person can, one after the other; say what was done."""
    first, *others = entries
    control.call("leekfanout.restartProcesses", DISTURBED)
    yield "restarted"
    control.call("supervisor.stopProcess", DISTURBED)
    yield "stopped"
    control.call("supervisor.startProcess", DISTURBED)
    yield "started"
    agent.write([{**first, "batch_max_window_in_seconds": 2 * WINDOW_S}, *others])
    control.call("leekfanout.reload")
    yield "changed"
    agent.write(others)
    control.call("leekfanout.reload")
    yield "removed"
    agent.write(entries)
    control.call("leekfanout.reload")
    yield "added"


def test_what_is_done_to_one_subscription_interrupts_no_other(
    rabbitmq: RabbitMQ, redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    vhosts = [rabbitmq.new_vhost() for _ in range(2)]
    urls = [*vhosts, redis_url]
    entries = [
        subscription(
            url, api, app_name=name.partition("-")[0], batch_max_window_in_seconds=WINDOW_S
        )
        for name, url in zip(NAMES, urls, strict=True)
    ]
    with FileAgent(tmp_path, entries) as agent:
        control = Client(agent.state_dir / "control.sock")

        def statuses() -> dict[str, dict[str, Any]]:
            return {each["name"]: each for each in control.call("leekfanout.getStatus")}

        agent.wait_until_connected(len(NAMES))
        before = statuses()
        with streams(urls, MESSAGES_PER_S) as published:
            begun_at = time.monotonic()
            for done in disturbances(agent, control, entries):
                # It is so now, and the others deliver.
                for name in OTHERS:
                    enough = events_of(api, name) + EVENTS_MEANWHILE
                    until(
                        lambda name=name, enough=enough: events_of(api, name) >= enough,
                        30,
                        f"{name} to deliver while {DISTURBED} is {done}",
                    )
            until(
                lambda: statuses()[DISTURBED]["state"] == State.RUNNING, 30, f"{DISTURBED} to run"
            )
            ended_at = time.monotonic()
        for name, messages in zip(NAMES, published, strict=True):
            sent = of_messages(messages)
            until(
                lambda name=name, sent=sent: events_of(api, name) >= sent.total(),
                30,
                f"all events of {name}",
            )
            documents = [d for post in posts_of(api, name) for d in post.confirmed]
            assert_complete(sent, of_documents(documents))
        after = statuses()
        for name in OTHERS:
            assert [after[name][key] for key in ("pid", "starts")] == [before[name]["pid"], 1]
            for gauge in ("started_at", "connected_at"):
                assert after[name]["gauges"][gauge] == before[name]["gauges"][gauge]
            assert after[name]["counters"]["reconnects"] == 0
            (_,) = agent.lines("broker.connected", subscription=name)
            ends = [post.ended_at for post in posts_of(api, name)]
            inside = [begun_at, *(end for end in ends if begun_at < end < ended_at), ended_at]
            silence_s = max(later - sooner for sooner, later in pairwise(inside))
            print(f"{name}: {silence_s:.2f} s without a delivery at most")
        assert agent.stop() == 0
    for url in vhosts:
        rabbitmq.delete_vhost(url)
