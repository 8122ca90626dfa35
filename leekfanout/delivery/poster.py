"""One HTTP connection to the Leek API: POST a body, or ask whether the application is ready.

Contract, section 1. Nothing is decided here: an :class:`~leekfanout.delivery.outcome.Answer` comes
back, also where there was no answer.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter

from leekfanout.configuration.config import Subscription
from leekfanout.delivery.outcome import Answer
from leekfanout.redaction import Mask, secrets_of
from leekfanout.version import VERSION

PROCESS_PATH: Final = "/v1/events/process"
ANSWER_MAX_BYTES: Final = 4_000_000
"""What is read of an answer; 10,000 refused documents with an error each are less."""
SLOWEST_BYTES_PER_S: Final = 50_000
"""How slowly the API may take a body before sending it is given up."""
PROBE_TIMEOUT_S: Final = 5.0
NO_ANSWER_IN_TIME: Final = "no answer from the API in time"


class _PatientlyWriting:
    """Connects within ``connect_timeout_s``, whatever the timeout that sending goes by.

    urllib3 uses one timeout for connecting and for sending the whole body, so that a body that takes
    longer to send than a host may take to answer could never be posted.
    """

    connect_timeout_s: float
    connected: Callable[[socket.socket], None]
    timeout: Any

    def _new_conn(self) -> Any:
        sending_timeout, self.timeout = self.timeout, self.connect_timeout_s
        try:
            sock = super()._new_conn()  # type: ignore[misc]
        finally:
            self.timeout = sending_timeout
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        sock: socket.socket = self.sock  # type: ignore[attr-defined]
        sock.settimeout(self.timeout)
        self.connected(sock)


class _Adapter(HTTPAdapter):
    def __init__(self, connect_timeout_s: float) -> None:
        self._socket: socket.socket | None = None
        self.was_cut = False
        self._traits = {"connect_timeout_s": connect_timeout_s, "connected": self._connected}
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def _connected(self, sock: socket.socket) -> None:
        self._socket = sock

    def cut(self) -> None:
        """Cut the connection under whoever is using it. Any thread."""
        self.was_cut = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own, which lets go of the TLS state that the other thread is using.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_own_connections(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            self._use_own_connections(manager)
        return manager

    def _use_own_connections(self, manager: urllib3.PoolManager) -> None:
        manager.pool_classes_by_scheme = {
            scheme: self._patient(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }

    def _patient(self, pool: Any) -> Any:
        connection = pool.ConnectionCls
        own = type(connection.__name__, (_PatientlyWriting, connection), self._traits)
        return type(pool.__name__, (pool,), {"ConnectionCls": own})


def headers_of(subscription: Subscription) -> dict[str, str]:
    """Return the headers that every call carries (contract, section 1)."""
    return {
        "content-type": "application/json",
        "x-requested-with": "leek-agent",
        "x-agent-version": VERSION,
        "x-leek-org-name": subscription.org_name,
        "x-leek-app-name": subscription.app_name,
        "x-leek-app-env": subscription.app_env,
        "x-leek-app-key": subscription.app_key,
    }


class Poster:
    """A keep-alive connection of one thread to one subscription's API.

    Not thread-safe, since ``requests.Session`` isn't: one per sender. Redirects are not followed: they
    would carry the key elsewhere. Proxies and CA bundles are taken from the environment as requests
    takes them, once.
    """

    def __init__(self, subscription: Subscription) -> None:
        self.url = subscription.api_url + PROCESS_PATH
        self._read_timeout_s = subscription.api_read_timeout_in_seconds
        self._connect_timeout_s = subscription.api_connect_timeout_in_seconds
        self._mask = Mask(secrets_of(subscription))
        self._session = requests.Session()
        self._adapter = _Adapter(self._connect_timeout_s)
        self._session.mount("http://", self._adapter)
        self._session.mount("https://", self._adapter)
        self._session.headers.update(headers_of(subscription))
        tls = subscription.api_tls
        if tls is not None:
            self._session.verify = tls.ca or True
            if tls.cert is not None:
                self._session.cert = (tls.cert, tls.key) if tls.key else tls.cert
        self._options = self._session.merge_environment_settings(
            self.url, {}, True, self._session.verify, self._session.cert
        )
        self._session.trust_env = False
        self._post = self._session.prepare_request(requests.Request("POST", self.url, data=b"[]"))
        self._get = self._session.prepare_request(requests.Request("GET", self.url))

    def post(self, body: bytes) -> Answer:
        """POST ``body``; never raises for what the network or the API does."""
        self._post.body = body
        self._post.headers["Content-Length"] = str(len(body))
        # What is sent may still lie in the system's buffers, so a slow reader answers late as well.
        patience_s = self._read_timeout_s + len(body) / SLOWEST_BYTES_PER_S
        answer = self._send(self._post, (patience_s, patience_s))
        self._post.body = b""
        return answer

    def probe(self) -> Answer:
        """GET: is the API up, and will it take this application's documents?"""
        return self._send(self._get, (PROBE_TIMEOUT_S, PROBE_TIMEOUT_S))

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _send(self, request: requests.PreparedRequest, timeout: tuple[float, float]) -> Answer:
        # urllib3's timeouts begin anew with each byte: an answer that trickles in would never end.
        self._adapter.was_cut = False
        cutter = threading.Timer(sum(timeout) + self._connect_timeout_s, self._adapter.cut)
        cutter.daemon = True
        cutter.start()
        try:
            response = self._session.send(
                request, timeout=timeout, allow_redirects=False, **self._options
            )
            body = _read(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # A cut answer is no answer, whatever its status said.
            late = self._adapter.was_cut
            return Answer(None, error=NO_ANSWER_IN_TIME if late else in_plain_words(error))
        finally:
            cutter.cancel()
        if self._adapter.was_cut:  # so it may be the end of an answer that tells no length
            return Answer(None, error=NO_ANSWER_IN_TIME)
        if response.status_code != requests.codes.created:
            body = self._masked(body)
        return Answer(response.status_code, response.headers, body)

    def _masked(self, body: bytes) -> bytes:
        """Take our secrets out of an answer that quotes them: it ends in the status and on disk."""
        text = body.decode("utf-8", "surrogateescape")
        return self._mask(text).encode("utf-8", "surrogateescape")


def _read(response: requests.Response) -> bytes:
    """Read the answer's body, of bounded size, and free the connection."""
    body = bytearray()
    for chunk in response.iter_content(65_536):
        body += chunk
        if len(body) > ANSWER_MAX_BYTES:
            response.close()
            break
    return bytes(body)


def in_plain_words(error: BaseException) -> str:
    """Say what went wrong between us and the API, without the URL, which may hold a password."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy in front of the API can't be used"
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the API's certificate can't be verified: {cause.verify_message}"
        if isinstance(cause, socket.gaierror):
            return "the API's host name can't be resolved"
        if isinstance(cause, ConnectionRefusedError):
            return "the API refuses connections"
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS with the API failed"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "the API's host does not answer"
    if isinstance(error, requests.exceptions.Timeout) or any(
        isinstance(cause, TimeoutError) for cause in causes
    ):
        return NO_ANSWER_IN_TIME
    return "the API closed the connection before it had answered"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give the error and what lies below it; requests and urllib3 wrap in ``args`` and ``reason``."""
    seen = 0
    pending: list[object] = [error]
    while pending and seen < 20:
        current = pending.pop(0)
        seen += 1
        if isinstance(current, BaseException):
            yield current
            pending += [current.__cause__, current.__context__, getattr(current, "reason", None)]
            pending += current.args
