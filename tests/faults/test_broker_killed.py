"""RabbitMQ killed with -9 under a running publisher: what it has confirmed is accounted for."""

import time
from pathlib import Path

import pytest

from tests.accounting import balance, of_documents, of_messages
from tests.agent import Alone, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ
from tests.soak_watch import Publisher
from tests.waiting import until

RATE_PER_S = 400.0
KILLS = 2


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_every_confirmed_persistent_event_outlives_the_brokers_death_under_load(
    queue_type: str, own_rabbitmq: RabbitMQ, api: ApiDouble, tmp_path: Path
) -> None:
    url = own_rabbitmq.url()
    # Small batches that take a while: it dies with some acked, some delivered, and some not read.
    api.delay_s = 0.05
    keys = subscription(url, api, queue_type=queue_type, batch_max_number_of_messages=50)
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        with Publisher(url, RATE_PER_S, seed=91) as publisher:
            for kill in range(1, KILLS + 1):
                until(lambda n=kill: len(publisher.sure) > n * 300, 60, "confirmed publishing")
                api.wait_for_posts(len(api.posts) + 3)
                killed_at = len(publisher.sure)
                own_rabbitmq.kill()
                agent.wait_for_line("broker.down", kill)
                own_rabbitmq.start()
                agent.wait_until_connected(kill + 1)
                until(lambda n=killed_at: len(publisher.sure) > n + 50, 60, "publishing again")
            publisher.stop()
        sure, unsure = of_messages(publisher.sure), of_messages(publisher.unsure)
        until(lambda: not sure - of_documents(api.confirmed()), 60, "all that was confirmed")
        _until_silent(api)
        assert agent.stop() == 0
    assert publisher.unsure, "RabbitMQ was not killed while something was published"
    result = balance(sure, of_documents(api.confirmed()))
    assert not result.lost, str(result)
    # Only what RabbitMQ had taken and couldn't say so any more comes besides, and nothing twice.
    assert result.surplus <= unsure, str(result)


def _until_silent(api: ApiDouble, seconds: float = 1.0) -> None:
    """Wait until no POST has come for a while: what nobody knows of may come as well."""

    def silent() -> bool:
        return time.monotonic() - api.posts[-1].ended_at > seconds

    until(silent, 60, "the API to hear no more")
