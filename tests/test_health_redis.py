"""Health checks of Redis and Sentinel tell what is wrong."""

from typing import Any

import pytest

from leekfanout.configuration.config import Subscription
from leekfanout.health import Kind, check_broker
from tests.brokers import Redis, SentinelSetup
from tests.processes import free_ports
from tests.silent import SilentServer
from tests.test_config import load_one


def subscription(*urls: str, **options: Any) -> Subscription:
    return load_one(broker=";".join(urls), transport_options=options)


def refused_port() -> int:
    (port,) = free_ports(1)
    return port


@pytest.fixture
def protected(own_redis: Redis) -> Redis:
    with own_redis.client() as client:
        client.config_set("requirepass", "server-pw")
    return own_redis


def test_a_server_that_is_well_is_told_so(redis_url: str) -> None:
    check = check_broker(subscription(redis_url))
    assert check.ok
    assert redis_url.rpartition("/")[0] in check.words


def test_nothing_stays_behind(own_redis: Redis) -> None:
    check_broker(subscription(own_redis.url()))
    with own_redis.client() as client:
        assert client.pubsub_numpat() == 0
        assert client.dbsize() == 0


@pytest.mark.parametrize("credentials", ["", ":wrong-pw@", "nobody:server-pw@"])
def test_refused_credentials_are_told(protected: Redis, credentials: str) -> None:
    check = check_broker(subscription(f"redis://{credentials}127.0.0.1:{protected.port}/0"))
    assert check.kind is Kind.CREDENTIALS
    assert check.refused
    assert "-pw" not in str(check)


def test_a_password_that_the_server_does_not_have_is_told(redis_server: Redis) -> None:
    check = check_broker(subscription(f"redis://:some-pw@127.0.0.1:{redis_server.port}/0"))
    assert check.kind is Kind.CREDENTIALS
    assert "Take the password out" in check.advice


def test_right_credentials_are_taken(protected: Redis) -> None:
    assert check_broker(subscription(f"redis://:server-pw@127.0.0.1:{protected.port}/3")).ok


def test_a_database_that_does_not_exist_is_told(protected: Redis) -> None:
    url = f"redis://:server-pw@127.0.0.1:{protected.port}/999999"
    check = check_broker(subscription(url))
    assert check.kind is Kind.DATABASE
    assert check.refused
    assert "no database 999999" in check.words


def test_a_user_who_may_not_subscribe_is_told_the_channels(own_redis: Redis) -> None:
    with own_redis.client() as client:
        client.execute_command("ACL SETUSER deaf on >deaf-pw +@all resetchannels")
        client.execute_command("ACL SETUSER hears on >hears-pw +@pubsub +ping &/0.celeryev/*")
    check = check_broker(subscription(f"redis://deaf:deaf-pw@127.0.0.1:{own_redis.port}/0"))
    assert check.kind is Kind.PERMISSIONS
    assert "/0.celeryev/*" in check.words
    hears = f"redis://hears:hears-pw@127.0.0.1:{own_redis.port}/0"
    assert check_broker(subscription(hears)).ok
    assert check_broker(subscription(hears, global_keyprefix="x")).kind is Kind.PERMISSIONS


def test_a_server_without_room_is_told(redis_server: Redis) -> None:
    with Redis("--maxclients", "1") as server, server.client() as client:
        client.ping()
        check = check_broker(subscription(server.url()))
    assert check.kind is Kind.BUSY
    assert not check.refused


def test_a_port_where_nobody_listens_refuses() -> None:
    check = check_broker(subscription(f"redis://:pw@127.0.0.1:{refused_port()}"))
    assert check.kind is Kind.CONNECTION_REFUSED


def test_a_host_that_does_not_exist_is_named() -> None:
    check = check_broker(subscription("redis://nowhere.invalid"))
    assert check.kind is Kind.HOST_UNKNOWN


def test_a_server_that_stays_silent_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leekfanout.sources.redis_connection.ANSWER_TIMEOUT_S", 0.2)
    with SilentServer() as port:
        check = check_broker(subscription(f"redis://127.0.0.1:{port}", socket_timeout=600))
    assert check.kind is Kind.TIMEOUT


def test_another_kind_of_server_is_recognised() -> None:
    with SilentServer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        check = check_broker(subscription(f"redis://127.0.0.1:{port}"))
    assert check.kind is Kind.PROTOCOL
    with SilentServer(closes=True) as port:
        check = check_broker(subscription(f"redis://127.0.0.1:{port}"))
    assert check.kind is Kind.PROTOCOL


def test_tls_on_a_plain_port_is_told(redis_server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    with SilentServer(b"-ERR unknown command\r\n") as port:
        check = check_broker(subscription(f"rediss://127.0.0.1:{port}"))
    assert check.kind is Kind.TLS
    # Redis itself waits for a line's end, which never comes.
    monkeypatch.setattr("leekfanout.sources.redis_connection.ANSWER_TIMEOUT_S", 0.2)
    check = check_broker(subscription(f"rediss://127.0.0.1:{redis_server.port}"))
    assert check.kind is Kind.TIMEOUT
    assert "TLS" in check.advice


def test_one_address_that_is_well_suffices(redis_url: str) -> None:
    dead = f"redis://127.0.0.1:{refused_port()}"
    check = check_broker(subscription(dead, redis_url))
    assert check.ok
    assert f"{dead} refuses connections" in check.advice


def test_sentinel_is_asked_for_the_master(sentinel: SentinelSetup) -> None:
    assert sentinel.sentinel is not None
    url, dead = sentinel.sentinel.url(), f"sentinel://127.0.0.1:{refused_port()}"
    check = check_broker(subscription(url, master_name="mymaster"))
    assert check.ok
    assert f"redis://127.0.0.1:{sentinel.master.port}, the master mymaster of" in check.words
    check = check_broker(subscription(dead, url, master_name="mymaster"))
    assert check.ok
    assert f"{dead} refuses connections" in check.advice

    check = check_broker(subscription(url, master_name="other"))
    assert check.kind is Kind.MASTER_UNKNOWN
    assert check.refused
    assert "master_name" in check.advice
    check = check_broker(subscription(dead, master_name="mymaster"))
    assert check.kind is Kind.CONNECTION_REFUSED

    credentials = url.replace("sentinel://", "sentinel://:wrong-pw@")
    check = check_broker(subscription(credentials, master_name="mymaster"))
    assert check.kind is Kind.CREDENTIALS
    kwargs = {"password": "sentinel-pw"}
    check = check_broker(subscription(url, master_name="mymaster", sentinel_kwargs=kwargs))
    assert check.kind is Kind.CREDENTIALS
    assert "sentinel_kwargs" in check.advice or "broker" in check.advice
    assert "-pw" not in str(check)
