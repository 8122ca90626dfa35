"""Random faults on both brokers at once under a steady load, and a report of what became of it all.

``python -m tests.soak --minutes 30 --report docs/soak-report.md``; pytest doesn't collect it. RabbitMQ,
Redis and the API are private ones on the loopback interface. Faults of the API, of each broker and its
network, and of the agent's processes come independently of each other, so they overlap.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from leekfanout.control.control_client import NoAgentError
from tests import accounting
from tests.accounting import of_messages
from tests.agent import Agent, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ, Redis
from tests.proxy import TcpProxy
from tests.publishers import amqp_channel
from tests.soak_faults import Faults, api_faults, broker_faults, process_faults
from tests.soak_report import Figures, Side, markdown
from tests.soak_watch import Deliveries, Publisher, Watch
from tests.waiting import until

SETTLE_S = 180.0
"""How long the rest may take to arrive once all faults are over."""
POISONED = 500
"""The API refuses each document whose task's number is a multiple of this."""
KEYS: dict[str, Any] = {
    "batch_max_number_of_messages": 200,
    "batch_max_window_in_seconds": 1,
    "concurrency_pool_size": 4,
    "api_read_timeout_in_seconds": 5,
    "prefetch_count": 2_000,
}


def main(arguments: Iterable[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=50.0, help="messages per second and broker")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1_000_000))
    parser.add_argument("--report", type=Path, help="where to write the report, besides the screen")
    options = parser.parse_args(list(arguments))
    with tempfile.TemporaryDirectory(prefix="leekfanout-soak-") as folder:
        figures = soak(options.minutes * 60, options.rate, options.seed, Path(folder))
    report = markdown(figures)
    print(report)
    if options.report:
        options.report.write_text(report)
    return 1 if any(side.lost for side in figures.sides) else 0


def soak(seconds: float, rate: float, seed: int, folder: Path) -> Figures:
    """Run for so long, and return what came of it. Nothing is left running."""
    with ExitStack() as stack:
        faults = Faults(seed)
        stack.callback(faults.close)
        rabbitmq = stack.enter_context(RabbitMQ(config="heartbeat = 4\n"))
        redis = stack.enter_context(Redis())
        apis = [stack.enter_context(ApiDouble()) for _ in range(2)]
        for api in apis:
            api.refuse(is_poisoned)
        amqp_proxy = stack.enter_context(TcpProxy(rabbitmq.port))
        redis_proxy = stack.enter_context(TcpProxy(redis.port))
        urls = rabbitmq.url(), redis.new_database()
        agents = [
            stack.enter_context(
                Agent([keys], folder / name, env={"LEEKFANOUT_SPOOL_MEMORY_MAX_MB": "1"})
            )
            for name, keys in (
                (
                    "amqp",
                    subscription(amqp_proxy.url(urls[0]), apis[0], queue_type="quorum", **KEYS),
                ),
                ("redis", subscription(redis_proxy.url(urls[1]), apis[1], **KEYS)),
            )
        ]
        for agent in agents:
            agent.wait_until_connected()
        deliveries = [stack.enter_context(Deliveries(api)) for api in apis]
        publishers = [
            stack.enter_context(Publisher(url, rate, seed + number))
            for number, url in enumerate(urls)
        ]
        watch = stack.enter_context(Watch(agents, deliveries, faults))
        groups = [
            ("api of rabbitmq", api_faults(apis[0], is_poisoned), (0,)),
            ("api of redis", api_faults(apis[1], is_poisoned), (1,)),
            ("rabbitmq", broker_faults(rabbitmq, amqp_proxy), (0,)),
            ("redis", broker_faults(redis, redis_proxy), (1,)),
            ("processes of rabbitmq", process_faults(agents[0], killed=True), (0,)),
            ("processes of redis", process_faults(agents[1], killed=False), (1,)),
        ]
        faults.run(groups, seconds)
        for publisher in publishers:
            publisher.stop()
        settle(rabbitmq, agents)
        watch.stop()
        statuses = [status(agent) for agent in agents]
        for agent in agents:
            agent.stop()
        for delivery in deliveries:
            delivery.stop()
        return Figures(
            seconds=seconds,
            seed=seed,
            faults=faults.counts,
            crashes=faults.crashes,
            sides=[
                amqp_side(publishers[0], deliveries[0], agents[0], urls[0], watch),
                redis_side(publishers[1], deliveries[1], agents[1], statuses[1], watch),
            ],
        )


def is_poisoned(document: dict[str, Any]) -> bool:
    return document["kind"] == "task" and int(document["id"][-12:], 16) % POISONED == 0


def status(agent: Agent) -> dict[str, Any]:
    (only,) = agent.call("leekfanout.getStatus")
    return only


def waiting(rabbitmq: RabbitMQ) -> int:
    """How many messages wait in the queue."""
    with amqp_channel(rabbitmq.url()) as channel:
        return int(channel.queue_declare("leek.fanout", passive=True).message_count)


def settle(rabbitmq: RabbitMQ, agents: list[Agent]) -> None:
    """Wait until everything is delivered, so that what isn't can be called lost."""

    def settled() -> bool:
        try:
            gauges = [status(agent)["gauges"] for agent in agents]
        except NoAgentError:  # being started again
            return False
        return all(
            gauge["messages_in_flight"] == gauge["batches_queued"] == gauge["spool_batches"] == 0
            for gauge in gauges
        ) and not waiting(rabbitmq)

    until(settled, SETTLE_S, "everything to be delivered")


def amqp_side(
    publisher: Publisher, deliveries: Deliveries, agent: Agent, url: str, watch: Watch
) -> Side:
    """RabbitMQ has confirmed what counts as sent, so it is known one by one."""
    sent, unsure = of_messages(publisher.sure), of_messages(publisher.unsure)
    dead = accounting.dead_lettered(agent.state_of())
    found = deliveries.confirmed + dead + accounting.at_broker(url)
    return Side(
        name="RabbitMQ",
        sent=sent.total(),
        confirmed=deliveries.confirmed.total(),
        dead_lettered=dead.total(),
        spooled=0,
        dropped=0,
        duplicated=sum(count - 1 for count in found.values()),
        lost=(sent - found).total(),
        unheard=0,
        unknown=sum(1 for event in found if event not in sent and event not in unsure),
        longest_stall_s=watch.longest_stalls_s[0],
        longest_recovery_s=watch.longest_recoveries_s[0],
        most_memory_mb=watch.most_memory_mb[0],
    )


def redis_side(
    publisher: Publisher,
    deliveries: Deliveries,
    agent: Agent,
    last: dict[str, Any],
    watch: Watch,
) -> Side:
    """PUB/SUB tells nobody what a subscriber got: what the agent has counted is what it received."""
    sent = of_messages(publisher.sure)
    known = sent + of_messages(publisher.unsure)
    dead = accounting.dead_lettered(agent.state_of())
    spooled = accounting.spooled(agent.state_of())
    found = deliveries.confirmed + dead + spooled
    received = int(last["counters"]["events_received"])
    dropped = sum(int(last["counters"][f"events_dropped_by_{by}"]) for by in ("disk", "bound"))
    return Side(
        name="Redis",
        sent=sent.total(),
        confirmed=deliveries.confirmed.total(),
        dead_lettered=dead.total(),
        spooled=spooled.total(),
        dropped=dropped,
        duplicated=sum(count - 1 for count in found.values()),
        lost=max(0, received - len(found) - dropped),
        unheard=max(0, known.total() - received),
        unknown=sum(1 for event in found if event not in known),
        longest_stall_s=watch.longest_stalls_s[1],
        longest_recovery_s=watch.longest_recoveries_s[1],
        most_memory_mb=watch.most_memory_mb[1],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
