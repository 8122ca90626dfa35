"""What a run measures with: a private RabbitMQ, a private Redis, the API stub, and what they told."""

import contextlib
import statistics
from functools import cached_property
from typing import Self

from bench.agent import idle_cost, subscribe
from bench.amqp_load import channel_of, declare
from bench.api_stub import ApiStub
from tests.brokers import RabbitMQ, Redis

IDLE_RUNS = 5


class Rig:
    """Servers that are started when they are first needed; a context manager that ends them."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self.redis_rates: list[float] = []
        """Events per second that plain redis-py has been seen to receive."""

    @cached_property
    def api(self) -> ApiStub:
        return self._open.enter_context(ApiStub())

    @cached_property
    def rabbitmq(self) -> RabbitMQ:
        return self._open.enter_context(RabbitMQ())

    @cached_property
    def redis(self) -> Redis:
        return self._open.enter_context(Redis())

    @property
    def redis_rate(self) -> float:
        """Events per second that plain redis-py receives: the median of its runs."""
        return statistics.median(self.redis_rates)

    @cached_property
    def amqp_idle_s(self) -> float:
        """CPU seconds of an agent on RabbitMQ that delivers nothing: the median of some runs."""
        with channel_of(self.rabbitmq.port) as channel:
            declare(channel)
        return self._idle_s(self.rabbitmq.url())

    @cached_property
    def redis_idle_s(self) -> float:
        """The same on Redis."""
        return self._idle_s(self.redis.url())

    def _idle_s(self, url: str) -> float:
        wanted = subscribe(url, self.api.url)
        return statistics.median(idle_cost(wanted) for _ in range(IDLE_RUNS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
