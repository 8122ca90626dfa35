"""amqps: large and small records, a verified broker, and one that must not be trusted."""

import contextlib
import socket
from pathlib import Path

import pytest
import trustme

from leekfanout.configuration.config import Subscription, Tls
from leekfanout.errors import SourceError, SourceRefusedError
from leekfanout.sources import Ack
from leekfanout.sources.amqp import AmqpSource
from tests.brokers import RabbitMQ
from tests.inbox import CollectingInbox
from tests.processes import free_ports
from tests.test_source_amqp import Publisher, receive
from tests.waiting import until


class TlsBroker:
    """A RabbitMQ that speaks TLS and asks clients for certificates; all from one test CA."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("localhost", "127.0.0.1")
        client = authority.issue_cert("agent")
        self.ca = str(folder / "ca.pem")
        self.client_cert, self.client_key = str(folder / "client.pem"), str(folder / "client.key")
        authority.cert_pem.write_to_path(self.ca)
        client.cert_chain_pems[0].write_to_path(self.client_cert)
        client.private_key_pem.write_to_path(self.client_key)
        server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
        server.private_key_pem.write_to_path(str(folder / "server.key"))
        (self.port,) = free_ports(1)
        self.config = (
            f"listeners.ssl.1 = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.2 = 127.0.0.2:{self.port}\n"
            f"ssl_options.cacertfile = {self.ca}\n"
            f"ssl_options.certfile = {folder / 'server.pem'}\n"
            f"ssl_options.keyfile = {folder / 'server.key'}\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = true\n"
        )

    def listens(self) -> bool:
        with contextlib.suppress(OSError):
            for host in ("127.0.0.1", "127.0.0.2"):
                socket.create_connection((host, self.port), 1).close()
            return True
        return False

    def source(self, tls: Tls | None, host: str = "localhost") -> AmqpSource:
        return AmqpSource(
            Subscription(
                org_name="acme",
                app_name="shop",
                app_env="qa",
                broker=(f"amqps://guest:guest@{host}:{self.port}//",),
                app_key="key",
                api_url="http://127.0.0.1:1",
                broker_tls=tls,
            )
        )

    def trusted(self) -> Tls:
        return Tls(self.ca, self.client_cert, self.client_key)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    tls = TlsBroker(tmp_path_factory.mktemp("tls"))
    with RabbitMQ(config=tls.config) as server:
        tls.plain_url = server.url()
        until(tls.listens, 20, "the TLS listener")
        yield tls


def test_messages_of_any_size_come_through_tls_and_acks_go_back(broker):
    source, inbox = broker.source(broker.trusted()), CollectingInbox()
    source.connect()
    publisher = Publisher(broker.plain_url)
    bodies = [b"x" * size for size in (1, 16_384, 16_385, 300_000, 2, 1_000_000)]
    publisher.publish(*bodies)
    publisher.publish(*[b"%d" % n for n in range(900)])
    receive(source, inbox, len(bodies) + 900)
    assert inbox.bodies == bodies + [b"%d" % n for n in range(900)]
    source.ack([Ack(tag, multiple=False) for tag in inbox.tags])
    source.close(wait_s=10)
    assert publisher.depth() == 0
    publisher.close()


def test_a_broker_of_an_unknown_authority_is_refused(broker):
    with pytest.raises(SourceRefusedError, match=r"certificate of .* can't be verified"):
        broker.source(Tls(None, broker.client_cert, broker.client_key)).connect()


def test_a_certificate_file_that_is_missing_is_told(broker):
    with pytest.raises(SourceRefusedError, match="file of certificates"):
        broker.source(Tls(ca=f"{broker.ca}.gone")).connect()


def test_a_broker_of_another_name_is_refused(broker):
    with pytest.raises(SourceRefusedError, match=r"certificate of .* can't be verified"):
        broker.source(broker.trusted(), host="127.0.0.2").connect()


def test_a_client_without_a_certificate_is_told_so(broker):
    with pytest.raises(SourceError):
        broker.source(Tls(broker.ca)).connect()
