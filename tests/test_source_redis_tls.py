"""rediss: verified servers, servers that must not be trusted, and records of any size."""

import pytest
import redis
import trustme

from leekfanout.configuration.config import Tls
from leekfanout.errors import SourceRefusedError
from leekfanout.sources.redis import RedisSource
from tests.brokers import Redis
from tests.inbox import CollectingInbox
from tests.processes import free_ports
from tests.redis_sources import publish, receive, subscription


class TlsRedis:
    """A Redis that speaks TLS on a second port and asks clients for certificates."""

    def __init__(self, folder) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("localhost", "127.0.0.1")
        client = authority.issue_cert("agent")
        self.tls = Tls(*(str(folder / name) for name in ("ca.pem", "client.pem", "client.key")))
        authority.cert_pem.write_to_path(self.tls.ca)
        client.cert_chain_pems[0].write_to_path(self.tls.cert)
        client.private_key_pem.write_to_path(self.tls.key)
        server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
        server.private_key_pem.write_to_path(str(folder / "server.key"))
        (self.port,) = free_ports(1)
        self.server = Redis(
            *("--tls-port", str(self.port), "--bind", "127.0.0.1 127.0.0.2"),
            *("--tls-ca-cert-file", self.tls.ca),
            *("--tls-cert-file", str(folder / "server.pem")),
            *("--tls-key-file", str(folder / "server.key")),
        )

    def source(self, tls: Tls | None, host: str = "localhost", query: str = "") -> RedisSource:
        url = f"rediss://{host}:{self.port}/0{query}"
        return RedisSource(subscription(url, broker_tls=tls))


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = TlsRedis(tmp_path_factory.mktemp("tls"))
    with broker.server:
        yield broker


@pytest.fixture
def client(broker):
    with broker.server.client() as client:
        yield client


def hears(source: RedisSource, client: redis.Redis, *bodies: bytes) -> list[bytes]:
    inbox = CollectingInbox()
    source.connect()
    publish(client, 0, *bodies)
    receive(source, inbox, len(bodies), limit=7)
    source.tick(1.0)
    source.close()
    return inbox.bodies


def test_messages_of_any_size_come_through_tls(broker, client):
    bodies = [b"x" * size for size in (1, 16_384, 16_385, 300_000, 2, 1_000_000)]
    bodies += [b"%d" % number for number in range(900)]
    assert hears(broker.source(broker.tls), client, *bodies) == bodies


def test_certificates_may_be_named_in_the_url(broker, client):
    tls = broker.tls
    query = f"?ssl_ca_certs={tls.ca}&ssl_certfile={tls.cert}&ssl_keyfile={tls.key}"
    assert hears(broker.source(None, query=query), client, b"1") == [b"1"]


@pytest.mark.parametrize("query", ["?ssl_cert_reqs=none", "?ssl_check_hostname=false"])
def test_verifying_less_must_be_asked_for(broker, client, query):
    refused = broker.source(broker.tls, host="127.0.0.2")
    with pytest.raises(SourceRefusedError, match=r"certificate of .* can't be verified"):
        refused.connect()
    trusting = broker.source(broker.tls, host="127.0.0.2", query=query)
    assert hears(trusting, client, b"1") == [b"1"]


def test_a_server_of_an_unknown_authority_is_refused(broker):
    with pytest.raises(SourceRefusedError, match=r"certificate of .* can't be verified"):
        broker.source(Tls(None, broker.tls.cert, broker.tls.key)).connect()


def test_a_certificate_file_that_is_missing_is_told(broker):
    with pytest.raises(SourceRefusedError, match="file of certificates"):
        broker.source(Tls(ca=f"{broker.tls.ca}.gone")).connect()
