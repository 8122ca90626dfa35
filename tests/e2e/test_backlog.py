"""How much waits at the broker is told, for the status and for those who scale."""

from pathlib import Path
from urllib.parse import urlsplit

from tests.agent import Alone, subscription
from tests.api_double import ApiDouble
from tests.load import Load
from tests.proxy import TcpProxy
from tests.publishers import publish_amqp
from tests.waiting import until

PREFETCH = 1_000


def test_what_waits_at_rabbitmq_is_told_and_forgotten_with_the_connection(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    with (
        TcpProxy(urlsplit(amqp_url).port or 0) as proxy,
        Alone(
            subscription(proxy.url(amqp_url), api, prefetch_count=PREFETCH),
            tmp_path,
            constants={"delivery.pipeline.DEPTH_EVERY_S": 0.2},
        ) as agent,
    ):

        def wait_for_backlog(messages: int) -> None:
            until(
                lambda: agent.stats.get("broker_backlog") == messages,
                30,
                f"a backlog of {messages}",
            )

        agent.wait_until_connected()
        # Two batches wait when the connection breaks: with one sender, the outbox is full.
        publish_amqp(amqp_url, Load(seed=80).messages(10))
        until(lambda: agent.stats.get("posts"), 30, "the first batch to be posted")
        publish_amqp(amqp_url, Load(seed=81).messages(PREFETCH + 490))
        wait_for_backlog(500)
        publish_amqp(amqp_url, Load(seed=82).messages(100))
        wait_for_backlog(600)
        proxy.go_down()
        wait_for_backlog(-1)
        proxy.heal()
        wait_for_backlog(600)
        api.come_up()
        wait_for_backlog(0)
        assert agent.stop() == 0
