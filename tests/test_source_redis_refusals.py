"""What a Redis says instead of yes, told in plain words and without the password."""

import contextlib
import socket
import threading

import pytest

from leekfanout.errors import SourceError, SourceRefusedError
from leekfanout.sources.redis import RedisSource
from tests.brokers import Redis
from tests.processes import free_ports
from tests.redis_sources import subscription

SECRET = "s3cret-and-long"


@pytest.fixture(scope="module")
def guarded():
    """A Redis with a password, and users who may do little."""
    with Redis() as server:
        with server.client() as client:
            for user, rules in {
                "deaf": "+@connection",
                "elsewhere": "+@connection +@pubsub resetchannels &/9.celeryev/*",
                "frugal": "+auth +ping +psubscribe resetchannels &/0.celeryev/*",
            }.items():
                client.execute_command("ACL", "SETUSER", user, "on", f">{SECRET}", *rules.split())
            client.config_set("requirepass", SECRET)
        yield server


def failure(url: str, **keys) -> SourceError:
    source = RedisSource(subscription(url, **keys))
    with pytest.raises(SourceError) as caught:
        source.connect()
    assert SECRET not in str(caught.value)
    assert SECRET not in source.address
    source.close()
    return caught.value


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        ("", "asks for a password"),
        (":wrong-password@", "refuses the credentials"),
        (f"nobody:{SECRET}@", "refuses the credentials"),
        (f"deaf:{SECRET}@", "doesn't let this user subscribe to /0.celeryev/"),
        (f"elsewhere:{SECRET}@", "doesn't let this user subscribe to /0.celeryev/"),
    ],
)
def test_credentials_and_permissions_that_dont_do_are_refused(guarded, credentials, words):
    error = failure(f"redis://{credentials}127.0.0.1:{guarded.port}/0")
    assert isinstance(error, SourceRefusedError)
    assert words in str(error)


def test_a_user_who_may_only_subscribe_is_enough(guarded):
    source = RedisSource(subscription(f"redis://frugal:{SECRET}@127.0.0.1:{guarded.port}/0"))
    source.connect()
    assert SECRET not in source.address
    source.close()


def test_a_password_for_a_server_without_one_is_refused(redis_server):
    error = failure(f"redis://:{SECRET}@127.0.0.1:{redis_server.port}/0")
    assert isinstance(error, SourceRefusedError)
    assert "no password" in str(error)


def test_a_server_that_quotes_the_password_is_masked():
    with Redis("--rename-command", "AUTH", "") as server:
        error = failure(f"redis://:{SECRET}@127.0.0.1:{server.port}/0")
    assert "unknown command" in str(error)
    assert "***" in str(error)


class Answering:
    """A server that answers everything with the same bytes, and then hangs up."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://:{SECRET}@127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._answer = answer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            peer, _ = self._listener.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(self._answer)

    def __enter__(self) -> str:
        return self.url

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(10)


@pytest.mark.parametrize(
    ("answer", "refused", "words"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", False, "loading its data"),
        (b"-ERR max number of clients reached\r\n", False, "maxclients"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", False, "without a link to its master"),
        (b"-DENIED Redis is running in protected mode because\r\n", True, "protected mode"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False, "doesn't speak Redis' protocol"),
        (b"", False, "closed"),
    ],
)
def test_what_servers_say_instead_is_told_in_plain_words(answer, refused, words):
    with Answering(answer) as url:
        error = failure(url)
    assert words in str(error)
    assert isinstance(error, SourceRefusedError) is refused


def test_nobody_there_and_a_host_without_an_address_are_told_apart():
    (port,) = free_ports(1)
    assert "refuses connections" in str(failure(f"redis://127.0.0.1:{port}/0"))
    assert "can't be resolved" in str(failure("redis://no-such-host.invalid/0"))


def test_a_server_that_answers_nothing_is_given_up(own_redis):
    own_redis.pause()
    error = failure(own_redis.url(), transport_options={"socket_timeout": 0.2})
    own_redis.resume()
    assert "did not answer in time" in str(error)
