"""Health checks over TLS: certificates are verified, and ours are shown where they are asked for."""

import contextlib
import dataclasses
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from leekfanout.configuration.config import Tls
from leekfanout.health import Check, Kind, check_api, check_broker
from tests.brokers import Redis
from tests.processes import free_ports
from tests.test_config import load_one
from tests.test_health_api import READY, Api
from tests.test_source_amqp_tls import TlsBroker, broker  # noqa: F401  # a fixture
from tests.waiting import until


class Certificates:
    """A test authority, a server's certificate and a client's, as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.server = self.authority.issue_cert("localhost", "127.0.0.1")
        client = self.authority.issue_cert("agent")
        self.ca, self.cert, self.key, self.server_pem = (
            str(folder / name) for name in ("ca.pem", "client.pem", "client.key", "server.pem")
        )
        self.authority.cert_pem.write_to_path(self.ca)
        client.cert_chain_pems[0].write_to_path(self.cert)
        client.private_key_pem.write_to_path(self.key)
        self.server.private_key_and_cert_chain_pem.write_to_path(self.server_pem)

    @property
    def tls(self) -> dict[str, str]:
        return {"ca": self.ca, "cert": self.cert, "key": self.key}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def https(certificates: Certificates) -> Iterator[str]:
    """The URL of an API that asks for a client's certificate."""
    api = Api()
    api.handler.answers = {"GET": READY, "OPTIONS": (200, b"")}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.server.configure_cert(context)
    certificates.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server: ThreadingHTTPServer = api.server
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda request, address: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_an_https_api_is_verified(https: str, certificates: Certificates) -> None:
    def check(url: str = https, **tls: str) -> Check:
        return check_api(load_one(api_url=url, api_tls=tls or None))

    assert check(**certificates.tls).ok
    unknown = check()
    assert unknown.kind is Kind.TLS
    assert "can't be verified" in unknown.words
    assert "api_tls" in unknown.advice
    assert not check(ca=certificates.ca).ok, "without our certificate"
    gone = dataclasses.replace(load_one(api_url=https), api_tls=Tls(ca="/nowhere.pem"))
    assert check_api(gone).kind is Kind.TLS


@pytest.fixture
def rediss(certificates: Certificates) -> Iterator[str]:
    (port,) = free_ports(1)
    options = (
        *("--tls-port", str(port), "--tls-cert-file", certificates.server_pem),
        *("--tls-key-file", certificates.server_pem, "--tls-ca-cert-file", certificates.ca),
        *("--tls-auth-clients", "yes"),
    )
    with Redis(*options):
        yield f"rediss://localhost:{port}"


def test_a_rediss_server_is_verified(rediss: str, certificates: Certificates) -> None:
    def check(query: str = "", **tls: str) -> Check:
        return check_broker(load_one(broker=rediss + query, broker_tls=tls or None))

    assert check(**certificates.tls).ok
    assert check().kind is Kind.TLS
    ours = f"ssl_certfile={certificates.cert}&ssl_keyfile={certificates.key}"
    assert check(f"?ssl_cert_reqs=none&{ours}").ok
    assert check(f"?ssl_ca_certs={certificates.ca}&{ours}").ok


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_an_amqps_broker_is_verified(broker: Any) -> None:  # noqa: F811
    tls_broker: TlsBroker = broker
    url = f"amqps://guest:guest@localhost:{tls_broker.port}//"
    until(lambda: listens(tls_broker.port), 20, "the TLS listener on 127.0.0.1")
    files = tls_broker.trusted()
    tls = {"ca": files.ca, "cert": files.cert, "key": files.key}
    assert check_broker(load_one(broker=url, broker_tls=tls)).ok
    check = check_broker(load_one(broker=url))
    assert check.kind is Kind.TLS
    assert "can't be verified" in check.words
