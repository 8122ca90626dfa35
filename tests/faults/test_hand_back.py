"""Long outages of the API on RabbitMQ: messages go back to the broker, and come once in the end."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Alone, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Reply, Request
from tests.brokers import RabbitMQ
from tests.load import Event, Load
from tests.proxy import TcpProxy
from tests.publishers import publish_amqp
from tests.waiting import until

QUEUE = "leek.fanout"
SOON = {"delivery.hand_backs.HAND_BACK_AFTER_S": 0.5}


def one_passes() -> Callable[[Request], Reply | None]:
    """Answer one POST as the contract says, and then 503."""
    first = iter([None])
    return lambda _: next(first, Reply(503))


def test_messages_return_to_the_queue_while_the_api_is_away_and_come_once_when_it_is_back(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with Alone(subscription(amqp_url, api), tmp_path, constants=SOON) as agent:
        agent.wait_until_connected()
        api.go_down()
        sent = of_messages(publish_amqp(amqp_url, Load(seed=21).messages(1_500)))
        agent.wait_for_stat("hand_backs")
        assert rabbitmq.queues(amqp_url) == {QUEUE: (1_500, 0, 0)}
        assert agent.stats["messages_in_flight"] == 0
        api.come_up()
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    assert api.most_probes_at_once == 1


def test_a_few_messages_that_were_handed_back_have_time_to_fill_a_batch_when_the_api_is_back(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    # Between the probe that succeeds and the POST that proves it lies the batch's window.
    keys = subscription(amqp_url, api, batch_max_window_in_seconds=1.5)
    with Alone(keys, tmp_path, constants=SOON) as agent:
        agent.wait_until_connected()
        api.go_down()
        sent = of_messages(publish_amqp(amqp_url, Load(seed=22).messages(10)))
        agent.wait_for_stat("hand_backs")
        api.come_up()
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
        assert agent.stats["hand_backs"] == 1
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_broker_that_goes_while_it_has_the_messages_back_is_reconnected_and_nothing_is_lost(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with TcpProxy(urlsplit(amqp_url).port) as proxy:
        keys = subscription(proxy.url(amqp_url), api)
        with Alone(keys, tmp_path, constants=SOON) as agent:
            agent.wait_until_connected()
            api.go_down()
            sent = of_messages(publish_amqp(amqp_url, Load(seed=23).messages(500)))
            agent.wait_for_stat("hand_backs")
            proxy.go_down()
            api.come_up()
            agent.wait_for_line("broker.down")
            proxy.heal()
            api.wait_for_events(sent.total())
            assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_an_api_that_takes_one_batch_and_goes_again_gets_each_event_once(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    keys = subscription(amqp_url, api, batch_max_number_of_messages=50)
    with Alone(keys, tmp_path, constants=SOON) as agent:
        agent.wait_until_connected()
        sent: Counter[Event] = Counter()
        load = Load(seed=24)
        for number in range(1, 4):
            confirmed = api.confirmed_events()
            api.always(Reply(503))
            sent += of_messages(publish_amqp(amqp_url, load.messages(400)))
            agent.wait_for_stat("hand_backs", number)
            api.script(one_passes())
            api.script_probes(None)
            until(lambda was=confirmed: api.confirmed_events() > was, 30, "a batch to pass")
        api.behave()
        api.wait_for_events(sent.total(), timeout_s=60)
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
