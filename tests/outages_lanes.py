"""Lanes of outages: an agent under a trickle of events, and one kind of outage again and again."""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import accounting
from tests.accounting import of_messages
from tests.agent import Agent, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Reply
from tests.brokers import RabbitMQ, Redis, Server
from tests.soak_watch import Deliveries, Publisher
from tests.waiting import until

REFUSES, HANGS, NEVER_ANSWERS = (
    "refuses connections",
    "hangs",
    "never answers what it got",
)
RATE_PER_S = 5.0
QUIET_S = (2.0, 12.0)
"""Between two outages: sometimes the connection before has proved good, sometimes not."""
GIVE_UP_S = 120.0
SETTLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """What followed one outage, for one subscription."""

    outage_s: float
    seconds: float
    """From its end to the first POST that was confirmed."""
    log_lines: int
    """Of the whole agent, from its beginning to the recovery, for each of its subscriptions."""


@dataclass
class Side:
    """A subscription with an API of its own, so that its probes are counted apart."""

    name: str
    url: str
    api: ApiDouble
    deliveries: Deliveries
    publisher: Publisher
    recoveries: list[Recovery] = field(default_factory=list)


class Lane:
    """One kind of outage; :meth:`run` fills in the rest."""

    keeps_all = True
    """Whether nothing that was published may be missing in the end."""

    def __init__(self, title: str, plan: Mapping[float, int]) -> None:
        self.title = title
        self.sides: list[Side] = []
        self.lost = 0
        self.sent = 0
        self._random = random.Random(title)
        self._outages_s = [seconds for seconds, times in plan.items() for _ in range(times)]
        self._random.shuffle(self._outages_s)

    def open(self, stack: ExitStack) -> Mapping[str, str]:
        """Start what this lane needs, and return a broker's URL for each subscription's name."""
        raise NotImplementedError

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """End the outage; it is over when this returns."""
        raise NotImplementedError

    @property
    def most_probes_at_once(self) -> int:
        return max(side.api.most_probes_at_once for side in self.sides)

    def run(self, folder: Path, scale: float) -> None:
        with ExitStack() as stack:
            for name, url in self.open(stack).items():
                api = stack.enter_context(ApiDouble())
                deliveries = Deliveries(api)
                publisher = Publisher(url, RATE_PER_S, self._random.randrange(1_000_000))
                self.sides.append(Side(name, url, api, deliveries, publisher))
            agent = stack.enter_context(Agent([self._keys(side) for side in self.sides], folder))
            agent.wait_until_connected(len(self.sides))
            for side in self.sides:
                stack.enter_context(side.deliveries)
                stack.enter_context(side.publisher)
            for outage_s in self._outages_s:
                time.sleep(self._random.uniform(*QUIET_S))
                self._outage(agent, outage_s * scale)
            for side in self.sides:
                side.publisher.stop()
                self._settle(agent, side)
            agent.stop()

    def _keys(self, side: Side) -> dict[str, Any]:
        return subscription(side.url, side.api, app_name=side.name)

    def _outage(self, agent: Agent, outage_s: float) -> None:
        lines = len(agent.lines())
        self.begin()
        time.sleep(outage_s)
        self.end()
        ended_at = time.monotonic()
        published = {side.name: len(side.publisher.sure) for side in self.sides}
        left = list(self.sides)
        while left:
            back = until(
                lambda: [
                    side for side in left if self._is_back(side, ended_at, published[side.name])
                ],
                GIVE_UP_S,
                f"delivery after {outage_s:g} s: {self.title}",
            )
            written = (len(agent.lines()) - lines) // len(self.sides)
            for side in back:
                seconds = side.deliveries.last_at - ended_at
                side.recoveries.append(Recovery(outage_s, seconds, written))
                left.remove(side)
                print(
                    f"{time.strftime('%H:%M:%S')} {self.title} for {outage_s:g} s, {side.name}: "
                    f"back after {seconds:.1f} s, {written} log lines",
                    flush=True,
                )

    def _is_back(self, side: Side, ended_at: float, published: int) -> bool:
        """Whether something is confirmed since ``ended_at``; then ``published`` messages were sent."""
        return side.deliveries.last_at > ended_at

    def _settle(self, agent: Agent, side: Side) -> None:
        """Wait for the rest, and count what is missing."""
        sent = of_messages(side.publisher.sure)
        self.sent += sent.total()
        if not self.keeps_all:
            return

        def missing() -> int:
            dead = accounting.dead_lettered(agent.state_of(f"{side.name}-prod"))
            # A copy, which is made in one go: the other thread goes on counting.
            return (sent - Counter(side.deliveries.confirmed) - dead).total()

        try:
            until(lambda: not missing(), SETTLE_S, "the rest to arrive")
        except AssertionError:
            self.lost += missing()


class ApiLane(Lane):
    """The API is away, in one of three ways."""

    def __init__(
        self, kind: str, plan: Mapping[float, int], urls: Callable[[], tuple[str, str]]
    ) -> None:
        super().__init__(f"the API {kind}", plan)
        self._kind = kind
        self._urls = urls

    def open(self, stack: ExitStack) -> Mapping[str, str]:
        return dict(zip(("rabbit", "redis"), self._urls(), strict=True))

    def begin(self) -> None:
        for side in self.sides:
            if self._kind == REFUSES:
                side.api.go_down()
                continue
            # A probe that has come meanwhile isn't answered even when the API is back.
            side.api.script_probes(lambda _: Reply(silent=True))
            if self._kind == HANGS:
                side.api.hang_before_reading = True
            else:
                side.api.script(lambda _: Reply(silent=True, takes=False))

    def end(self) -> None:
        for side in self.sides:
            side.api.behave()
            side.api.come_up()


class _BrokerLane(Lane):
    """The broker is away."""

    server: Server

    def end(self) -> None:
        self.server.start()

    def _is_back(self, side: Side, ended_at: float, published: int) -> bool:
        # What the agent had in hand before is delivered whether or not the broker is there.
        return any(
            event in side.deliveries.confirmed
            for message in side.publisher.sure[published:]
            for event in message.events
        )


class RabbitLane(_BrokerLane):
    """RabbitMQ is stopped and started again; a quorum queue keeps what it has confirmed."""

    def __init__(self, plan: Mapping[float, int]) -> None:
        super().__init__("RabbitMQ is stopped", plan)

    def open(self, stack: ExitStack) -> Mapping[str, str]:
        self.server = stack.enter_context(rabbitmq := RabbitMQ())
        return {"rabbit": rabbitmq.url()}

    def _keys(self, side: Side) -> dict[str, Any]:
        return {**super()._keys(side), "queue_type": "quorum"}

    def begin(self) -> None:
        self.server.stop()


class RedisLane(_BrokerLane):
    """Redis is killed and started again; what it had on its way is gone, as PUB/SUB has it."""

    keeps_all = False

    def __init__(self, plan: Mapping[float, int]) -> None:
        super().__init__("Redis is killed", plan)

    def open(self, stack: ExitStack) -> Mapping[str, str]:
        self.server = stack.enter_context(redis := Redis())
        return {"redis": redis.new_database()}

    def begin(self) -> None:
        self.server.kill()
