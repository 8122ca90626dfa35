"""How soon delivery is back once an outage has ended."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Agent, subscription
from tests.api_double import ApiDouble
from tests.load import Load, Message
from tests.proxy import TcpProxy
from tests.publishers import publish_amqp, publish_redis
from tests.waiting import until

OUTAGES_S = (1.0, 4.0)
BACK_WITHIN_S = 15.0
SLACK_S = 10.0
"""For a machine that is busy with other things."""
APPS = ("shop", "mail")


@contextmanager
def trickle(publish: Callable[..., list[Message]], url: str) -> Iterator[list[Message]]:
    """Publish some messages each second, all of which are there after leaving."""
    ending = threading.Event()

    def messages() -> Iterator[Message]:
        for message in Load(seed=len(url)).messages(100_000):
            yield message
            if ending.wait(0.05):
                return

    def run() -> list[Message]:
        # One by one, since a publisher of its own connection would make larger steps.
        return [published for message in messages() for published in publish(url, [message])]

    heard: list[Message] = []
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(run)
        try:
            yield heard
        finally:
            ending.set()
        heard += publishing.result(60)


def recovery_s(api: ApiDouble, app: str, since: float) -> float:
    """Wait for a subscription's first POST that the API confirms after ``since``."""

    def first() -> float | None:
        confirmed = (
            post.ended_at
            for post in api.posts[:]
            if post.ended_at > since
            and post.confirmed
            and post.request.headers["x-leek-app-name"] == app
        )
        return next(confirmed, None)

    found = until(first, BACK_WITHIN_S + SLACK_S, f"{app} to deliver again")
    assert found is not None
    return found - since


def test_delivery_is_back_within_seconds_of_the_end_of_an_outage(
    amqp_url: str,
    redis_url: str,
    api: ApiDouble,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    took: dict[str, list[float]] = {"api": [], "broker": []}
    with (
        TcpProxy(urlsplit(amqp_url).port or 0) as rabbitmq_proxy,
        TcpProxy(urlsplit(redis_url).port or 0) as redis_proxy,
        Agent(
            [
                subscription(rabbitmq_proxy.url(amqp_url), api, app_name="shop"),
                subscription(redis_proxy.url(redis_url), api, app_name="mail"),
            ],
            tmp_path,
        ) as agent,
    ):
        agent.wait_until_connected(2)
        with trickle(publish_amqp, amqp_url) as sent, trickle(publish_redis, redis_url) as heard:
            for outage_s in OUTAGES_S:
                api.go_down()
                time.sleep(outage_s)
                api.come_up()
                ended_at = time.monotonic()
                took["api"] += [recovery_s(api, app, ended_at) for app in APPS]
                rabbitmq_proxy.go_down()
                redis_proxy.go_down()
                time.sleep(outage_s)
                rabbitmq_proxy.heal()
                redis_proxy.heal()
                ended_at = time.monotonic()
                took["broker"] += [recovery_s(api, app, ended_at) for app in APPS]
        until(
            lambda: not of_messages(sent) - of_documents(api.confirmed()), 30, "the rest to arrive"
        )
        assert agent.stop() == 0
    confirmed = of_documents(api.confirmed())
    assert_complete(of_messages(sent), confirmed - of_messages(heard))
    # What was on its way from Redis when that connection was cut is in nobody's hand.
    assert max(confirmed.values()) == 1
    assert api.most_probes_at_once <= len(APPS)
    for outage, seconds in took.items():
        record_property(f"recovery from an outage of the {outage}, s", seconds)
        print(outage, [round(each, 1) for each in seconds])
