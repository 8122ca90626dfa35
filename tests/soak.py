"""Random faults on both brokers at once under a steady load, and a report of what became of it.

``python -m tests.soak [--minutes 30] [--seed N] [--report docs/soak-report.md]``; not a part of the
test suite. The whole agent runs, with a subscription on RabbitMQ (a quorum queue, since RabbitMQ itself
dies here too) and one on Redis, through proxies. Every event is counted by id.

PUB/SUB keeps nothing, so what is published on Redis while the agent isn't subscribed, or is killed, is
counted apart as fallen into a gap.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import amqp
import psutil
import redis

from tests import accounting
from tests.accounting import of_documents
from tests.agent import Agent, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Reply
from tests.brokers import RabbitMQ, Redis
from tests.load import Event, Load, Message
from tests.proxy import TcpProxy
from tests.publishers import publish_amqp, publish_redis
from tests.waiting import until

CHUNK_MESSAGES = 20
CHUNK_EVERY_S = 0.25
PAUSE_S = (4.0, 15.0)
"""Between two faults."""
SETTLE_S = 120.0
FOREVER_REFUSED = "f"
"""Tasks whose id ends so are refused by the API, one in sixteen."""


@dataclass
class Sent:
    """What one publisher has sent; only its own thread writes."""

    surely: Counter[Event] = field(default_factory=Counter)
    perhaps: Counter[Event] = field(default_factory=Counter)
    """The broker died before it had confirmed them, or they fell into a gap."""


class Soak:
    """The servers, the agent, the load and the faults."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.rabbitmq, self.redis, self.api = RabbitMQ(), Redis(), ApiDouble()
        self.sent = {"rabbitmq": Sent(), "redis": Sent()}
        self.faults: Counter[str] = Counter()
        self.longest_stall_s = 0.0
        self.highest_rss_bytes: dict[str, int] = {}
        self.folder = folder
        self._over = threading.Event()
        self._in_gap = threading.Event()

    def run(self, minutes: float) -> None:
        with self.rabbitmq, self.redis, self.api:
            self.proxies = {
                "rabbitmq": TcpProxy(self.rabbitmq.port),
                "redis": TcpProxy(self.redis.port),
            }
            with self.proxies["rabbitmq"], self.proxies["redis"]:
                self._run_with_proxies(minutes)

    def _run_with_proxies(self, minutes: float) -> None:
        keys = {"concurrency_pool_size": 3, "api_read_timeout_in_seconds": 3}
        subscriptions = [
            subscription(
                self.proxies["rabbitmq"].url(self.rabbitmq.url()),
                self.api,
                app_name="rabbit",
                queue_type="quorum",
                **keys,
            ),
            subscription(
                self.proxies["redis"].url(self.redis.url()), self.api, app_name="redis", **keys
            ),
        ]
        self.api.refuse(lambda document: document["id"].endswith(FOREVER_REFUSED))
        with Agent(subscriptions, self.folder, options=("--spool-memory-max-mb", "1")) as agent:
            self.agent = agent
            agent.wait_until_connected(2)
            threads = [
                threading.Thread(target=self._publish_rabbitmq),
                threading.Thread(target=self._publish_redis),
                threading.Thread(target=self._watch),
            ]
            for thread in threads:
                thread.start()
            try:
                self._do_harm(time.monotonic() + minutes * 60)
            finally:
                self._heal()
                self._over.set()
                for thread in threads:
                    thread.join(60)
            self._settle()
            self.exit_code = agent.stop()
        self._take_stock()

    # The load

    def _publish_rabbitmq(self) -> None:
        load, sent = Load(seed=1), self.sent["rabbitmq"]
        while not self._over.wait(CHUNK_EVERY_S):
            chunk = list(_tasks(load))
            try:
                publish_amqp(self.rabbitmq.url(), chunk, persistent=True, confirm=True)
                sent.surely += accounting.of_messages(chunk)
            except (OSError, amqp.exceptions.AMQPError):
                sent.perhaps += accounting.of_messages(chunk)

    def _publish_redis(self) -> None:
        load, sent = Load(seed=2), self.sent["redis"]
        while not self._over.wait(CHUNK_EVERY_S):
            chunk = list(_tasks(load))
            before = self._in_gap.is_set()
            with suppress(redis.RedisError):
                publish_redis(self.redis.url(), chunk)
            # It counts as certain only if the agent listened before and after.
            whole = not before and not self._in_gap.is_set()
            (sent.surely if whole else sent.perhaps).update(accounting.of_messages(chunk))

    # The faults

    def _do_harm(self, until_s: float) -> None:
        harms: list[Callable[[], None]] = [
            self.api_down,
            self.api_overloaded,
            self.api_silent,
            self.api_refuses_the_key,
            self.rabbitmq_cut,
            self.rabbitmq_black_hole,
            self.rabbitmq_killed,
            self.rabbitmq_frozen,
            self.redis_cut,
            self.rabbit_process_killed,
            self.redis_process_restarted,
        ]
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, self.random.uniform(*PAUSE_S)))
            harm = self.random.choice(harms)
            self.faults[harm.__name__] += 1
            print(f"{datetime.now(UTC):%H:%M:%S} {harm.__name__}", file=sys.stderr)
            harm()

    def _last(self, longest_s: float = 20.0) -> None:
        time.sleep(self.random.uniform(1.0, longest_s))

    def api_down(self) -> None:
        self.api.go_down()
        self._last(60.0)
        self.api.come_up()

    def api_overloaded(self) -> None:
        self._answering(Reply(503, headers={"Retry-After": "1"}), Reply(429), Reply(500))

    def api_silent(self) -> None:
        self._answering(Reply(201, takes=False, silent=True))

    def api_refuses_the_key(self) -> None:
        self._answering(Reply(401))

    def _answering(self, *replies: Reply) -> None:
        self.api.script(lambda _: self.random.choice([None, *replies]))
        self._last()
        self.api.script(None)

    def rabbitmq_cut(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.proxies["rabbitmq"].cut(reset=self.random.random() < 0.5)
            self._last(2.0)

    def rabbitmq_black_hole(self) -> None:
        self.proxies["rabbitmq"].black_hole = True
        self._last()
        self.proxies["rabbitmq"].heal()

    def rabbitmq_killed(self) -> None:
        self.rabbitmq.kill()
        self._last(5.0)
        self.rabbitmq.start()

    def rabbitmq_frozen(self) -> None:
        self.rabbitmq.pause()
        self._last()
        self.rabbitmq.resume()

    def redis_cut(self) -> None:
        self._while_redis_is_deaf(lambda: self.proxies["redis"].cut(reset=True))

    def rabbit_process_killed(self) -> None:
        with suppress(KeyError, ProcessLookupError):
            self.agent.kill_child("rabbit-prod")

    def redis_process_restarted(self) -> None:
        """Drain and restart it, with the API away: what it has goes to the disk."""
        self.api.go_down()
        time.sleep(2.0)

        def terminate() -> None:
            with suppress(KeyError, ProcessLookupError):
                psutil.Process(self.agent.children()["redis-prod"]).send_signal(signal.SIGTERM)

        self._while_redis_is_deaf(terminate)
        self.api.come_up()

    def _while_redis_is_deaf(self, harm: Callable[[], object]) -> None:
        self._in_gap.set()
        time.sleep(2 * CHUNK_EVERY_S)
        heard = len(self.agent.lines("broker.connected", subscription="redis-prod"))
        harm()
        with suppress(AssertionError):
            self.agent.wait_until_connected(heard + 1, 60.0, subscription="redis-prod")
        time.sleep(2 * CHUNK_EVERY_S)
        self._in_gap.clear()

    def _heal(self) -> None:
        self.api.script(None)
        self.api.come_up()
        for proxy in self.proxies.values():
            proxy.heal()

    # What became of it

    def _watch(self) -> None:
        """Note the longest time without a confirmed POST, and the highest memory."""
        seen, since = 0, time.monotonic()
        while not self._over.wait(0.5):
            posts = len(self.api.posts)
            confirmed = any(post.confirmed for post in self.api.posts[seen:posts])
            seen = posts
            now = time.monotonic()
            if confirmed:
                since = now
            self.longest_stall_s = max(self.longest_stall_s, now - since)
            for name, pid in self.agent.children().items():
                with suppress(psutil.NoSuchProcess):
                    rss = psutil.Process(pid).memory_info().rss
                    self.highest_rss_bytes[name] = max(rss, self.highest_rss_bytes.get(name, 0))

    def _settle(self) -> None:
        def all_there() -> bool:
            found = self._found("rabbit-prod") + self._found("redis-prod")
            return not any((sent.surely - found) for sent in self.sent.values())

        with suppress(AssertionError):
            until(all_there, SETTLE_S, "everything to arrive")

    def _found(self, name: str) -> Counter[Event]:
        return of_documents(self._confirmed(name)) + accounting.dead_lettered(
            self.agent.state_of(name)
        )

    def _confirmed(self, name: str) -> list[dict[str, object]]:
        app = name.partition("-")[0]
        return [
            document
            for post in list(self.api.posts)
            if post.request.headers["x-leek-app-name"] == app
            for document in post.confirmed
        ]

    def _take_stock(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.lost = 0
        for label, name in (("RabbitMQ", "rabbit-prod"), ("Redis", "redis-prod")):
            sent = self.sent[label.lower()]
            confirmed = of_documents(self._confirmed(name))
            dead = accounting.dead_lettered(self.agent.state_of(name))
            spooled = accounting.spooled(self.agent.state_of(name))
            at_broker: Counter[Event] = Counter()
            if label == "RabbitMQ":
                at_broker = accounting.at_broker(self.rabbitmq.url())
            places = confirmed + dead + spooled + at_broker
            lost = sent.surely - places
            twice = places - sent.surely - sent.perhaps
            self.lost += lost.total()
            self.rows.append(
                (
                    label,
                    *(
                        f"{count.total():,}"
                        for count in (
                            sent.surely, sent.perhaps, confirmed, twice, dead, spooled, at_broker, lost,
                        )
                    ),
                )
            )  # fmt: skip

    def report(self, minutes: float, seed: int) -> str:
        """Return the report in Markdown."""
        columns = (
            "broker", "sent", "sent into a gap", "confirmed", "more than once", "dead-lettered",
            "spooled", "at the broker", "lost",
        )  # fmt: skip
        memory = ", ".join(
            f"{name} {rss / 1e6:.0f} MB" for name, rss in sorted(self.highest_rss_bytes.items())
        )
        faults = ", ".join(
            f"{name.replace('_', ' ')} {count}" for name, count in sorted(self.faults.items())
        )
        return "\n".join(
            [
                "# Soak report",
                "",
                f"Made by `make soak` on {datetime.now(UTC):%Y-%m-%d}: {minutes:g} minutes,"
                f" seed {seed}.",
                "",
                "| " + " | ".join(columns) + " |",
                "|" + " --- |" * len(columns),
                *("| " + " | ".join(row) + " |" for row in self.rows),
                "",
                f"- Longest time without a confirmed POST: {self.longest_stall_s:.0f} s"
                " (outages of the API last up to 60 s here).",
                f"- Highest memory: {memory}.",
                f"- Faults: {faults}.",
                f"- Exit code of the agent at the end: {self.exit_code}.",
                "",
                "*Sent into a gap*: RabbitMQ died before it had confirmed them, or Redis had no",
                "subscriber; they may or may not have arrived. *More than once*: posted again after a",
                "crash of the agent's process or an answer that was lost, which nobody can avoid.",
                "",
            ]
        )


def _tasks(load: Load) -> list[Message]:
    return [message for message in load.messages(CHUNK_MESSAGES) if "task" in message.routing_key]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--report", type=Path, help="where to write the report (default: printed)")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="leekfanout-soak-"))
    soak = Soak(folder, args.seed)
    try:
        soak.run(args.minutes)
        text = soak.report(args.minutes, args.seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(text)
    if args.report:
        args.report.write_text(text)
    return 1 if soak.lost else 0


if __name__ == "__main__":
    sys.exit(main())
