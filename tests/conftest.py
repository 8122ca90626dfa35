"""Fixtures that every test may use, and a check that no process is left over."""

import os
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import HealthCheck, Phase, settings

from leekfanout.documents.event_shapes import known_shapes
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ, Redis, SentinelSetup
from tests.processes import wait_gone

# How busy the machine is must not decide a test; what is drawn first loads Unicode's tables, too.
settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# A mutant is killed by the first failure, in each run by the same one.
settings.register_profile(
    "mutants",
    settings.get_profile("any-speed"),
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
)
settings.load_profile("any-speed")


@pytest.fixture(autouse=True)
def _no_known_shapes() -> None:
    """Let each test look at its own events, whatever the tests before it have looked at."""
    known_shapes.clear()


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """Fail the run if a process that a test started outlives it."""
    yield
    left = psutil.Process(os.getpid()).children(recursive=True)
    left = wait_gone(left, 5)
    names = [f"{process.pid} {process.name()}" for process in left]
    for process in left:
        process.kill()
    assert not names, f"Tests left processes running: {', '.join(names)}"


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """One RabbitMQ with the management API, shared by all tests; tests must not stop or kill it."""
    with RabbitMQ(management=True) as server:
        yield server


@pytest.fixture
def amqp_url(rabbitmq: RabbitMQ) -> Iterator[str]:
    """The URL of an empty virtual host, which is deleted after the test."""
    url = rabbitmq.new_vhost()
    yield url
    rabbitmq.delete_vhost(url)


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ that the test may kill, stop and start again (it takes some seconds to start)."""
    with RabbitMQ() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """One Redis, shared by all tests; tests must not stop, kill or flush it."""
    with Redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The URL of a database that no other test uses; PUB/SUB channels are named after it too."""
    return redis_server.new_database()


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis that the test may kill, stop and start again."""
    with Redis() as server:
        yield server


@pytest.fixture
def sentinel() -> Iterator[SentinelSetup]:
    """A master, its replica and a Sentinel, for tests of failover."""
    with SentinelSetup() as setup:
        yield setup


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    """A Leek API that honours the contract until it is scripted otherwise."""
    with ApiDouble() as double:
        yield double
