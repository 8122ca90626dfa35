"""What the soak observes while it runs: publishing, deliveries, stalls and memory."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import urlsplit

import amqp
import psutil
import redis

from tests.accounting import of_documents
from tests.agent import Agent
from tests.api_double import ApiDouble
from tests.load import Event, Load, Message
from tests.publishers import EXCHANGE, amqp_channel, amqp_message, envelope
from tests.soak_faults import Faults


class _Background:
    """A thread that turns every ``every_s`` seconds, or as soon as it can, until it is stopped."""

    def __init__(self, name: str, every_s: float) -> None:
        self._every_s = every_s
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def turn(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Turn a last time and end."""
        self._ending.set()
        self._thread.join(60)
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(60)

    def _run(self) -> None:
        try:
            while not self._ending.wait(self._every_s):
                self.turn()
            self.turn()
        except BaseException as error:
            self._failure = error


class Publisher(_Background):
    """Publishes at a steady rate, straight to the broker, and knows what the broker has taken."""

    def __init__(self, url: str, rate: float, seed: int) -> None:
        super().__init__("publisher", 1 / rate)
        self.sure: list[Message] = []
        """RabbitMQ has confirmed them; Redis had a subscriber for them."""
        self.unsure: list[Message] = []
        """The broker went while they were published."""
        self._url = url
        self._messages = Load(seed=seed).messages(1_000_000_000)
        self._stack = contextlib.ExitStack()
        self._publish: Any = None

    def turn(self) -> None:
        if self._publish is None and not self._connect():
            return
        message = next(self._messages)
        try:
            taken = self._publish(message)
        except (OSError, amqp.AMQPError, redis.RedisError, AttributeError):
            self.unsure.append(message)
            self._publish = None
            with contextlib.suppress(Exception):
                self._stack.close()
        else:
            if taken:
                self.sure.append(message)

    def _connect(self) -> bool:
        self._stack = contextlib.ExitStack()
        try:
            if self._url.startswith("redis"):
                client = redis.Redis.from_url(self._url, socket_timeout=10)
                self._stack.enter_context(client)
                client.ping()
                database = urlsplit(self._url).path.strip("/") or "0"
                self._publish = lambda message: client.publish(
                    f"/{database}.{EXCHANGE}/{message.routing_key}", envelope(message)
                )
            else:
                channel = self._stack.enter_context(amqp_channel(self._url, confirm=True))

                def publish(message: Message) -> bool:
                    channel.basic_publish(
                        amqp_message(message, persistent=True),
                        EXCHANGE,
                        message.routing_key,
                        timeout=10,
                    )
                    return True

                self._publish = publish
        except (OSError, amqp.AMQPError, redis.RedisError, AttributeError):
            return False
        return True


class Deliveries(_Background):
    """Counts what the API confirms, and lets go of the bodies."""

    def __init__(self, api: ApiDouble) -> None:
        super().__init__("deliveries", 0.1)
        self.confirmed: Counter[Event] = Counter()
        self.last_at = time.monotonic()
        """When the last POST was confirmed that had anything in it."""
        self._api = api

    def turn(self) -> None:
        posts = self._api.posts
        count = len(posts)
        for post in posts[:count]:
            if documents := post.confirmed:
                self.confirmed += of_documents(documents)
                self.last_at = max(self.last_at, post.ended_at)
        del posts[:count]


class Watch(_Background):
    """Watches how long nothing is delivered, and how much memory the processes take."""

    def __init__(
        self, agents: Sequence[Agent], deliveries: Sequence[Deliveries], faults: Faults
    ) -> None:
        super().__init__("watch", 0.1)
        now = time.monotonic()
        self.longest_stalls_s = [0.0] * len(agents)
        self.longest_recoveries_s = [0.0] * len(agents)
        """From the end of the last fault to the first delivery after it."""
        self.most_memory_mb = [0.0] * len(agents)
        self._agents = agents
        self._deliveries = deliveries
        self._faults = faults
        self._calm_since: list[float | None] = [now] * len(agents)

    def turn(self) -> None:
        now = time.monotonic()
        for side, (agent, deliveries) in enumerate(
            zip(self._agents, self._deliveries, strict=True)
        ):
            last_at = deliveries.last_at
            self.longest_stalls_s[side] = max(self.longest_stalls_s[side], now - last_at)
            if self._faults.disturbs(side):
                self._calm_since[side] = None
            elif self._calm_since[side] is None:
                self._calm_since[side] = now
            calm_since = self._calm_since[side]
            if calm_since is not None and last_at < calm_since:
                self.longest_recoveries_s[side] = max(
                    self.longest_recoveries_s[side], now - calm_since
                )
            for pid in list(agent.children().values()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    rss_mb = psutil.Process(pid).memory_info().rss / 1e6
                    self.most_memory_mb[side] = max(self.most_memory_mb[side], rss_mb)
