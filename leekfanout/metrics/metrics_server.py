"""The listener for ``/metrics``, ``/livez`` and ``/readyz``, in a process of its own.

It is a client of the control socket, so nothing that happens here can harm delivery. Made for
Prometheus and for Kubernetes' probes: no secrets, no request bodies, one answer per connection.
"""

import os
import threading
import time
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from leekfanout import logs
from leekfanout.configuration.listen_address import shown
from leekfanout.control.control_client import Client
from leekfanout.errors import LeekfanoutError
from leekfanout.metrics.collector import Collector, Status
from leekfanout.metrics.http_server import BoundedHandler, BoundedHTTPServer
from leekfanout.status.health_report import Health, liveness_of, readiness_of

log = logs.get("metrics")

ASK_TIMEOUT_S: Final = 5.0
REQUEST_TIMEOUT_S: Final = 10.0
POLL_S: Final = 10.0
COMPLAIN_EVERY_S: Final = 60.0
EXIT_NO_ADDRESS: Final = 1


class MetricsServer(BoundedHTTPServer):
    """Serves what ``client`` tells."""

    connections_max = 32
    lifetime_s = 30.0

    def __init__(self, host: str, port: int, client: Client) -> None:
        self._client = client
        self._one_at_a_time = threading.Lock()
        self._complaint = logs.RateLimit(COMPLAIN_EVERY_S)
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(Collector(self.ask))
        super().__init__(host, port, _Handler)

    def ask(self) -> list[Status] | None:
        """Return each subscription's status; None: the agent doesn't answer. Any thread."""
        try:
            with self._one_at_a_time:
                statuses: list[Status] = self._client.call("leekfanout.getStatus")
        except LeekfanoutError as error:
            if (held_back := self._complaint.allow()) is not None:
                log.warning("agent.silent", reason=error, held_back=held_back)
            return None
        return statuses


def serve(host: str, port: int, socket_path: Path, lifeline_fd: int) -> int:
    """Serve until SIGTERM or the end of the supervisor; return the exit code.

    For a process of its own, in which SIGTERM has its default effect.
    """
    try:
        server = MetricsServer(host, port, Client(socket_path, answer_timeout_s=ASK_TIMEOUT_S))
    except OSError as error:
        log.error(  # noqa: TRY400  # the reason says it all
            "metrics.address", address=shown(host, port), error=error.strerror
        )
        return EXIT_NO_ADDRESS
    log.info("metrics.started", url=f"http://{shown(host, server.port)}/metrics")
    threading.Thread(
        target=server.serve_forever, args=(POLL_S,), name="listener", daemon=True
    ).start()
    # Nobody writes to the lifeline: it can be read when the supervisor is gone.
    os.read(lifeline_fd, 1)
    return 0


class _Handler(BoundedHandler):
    server: MetricsServer
    timeout = REQUEST_TIMEOUT_S
    server_version = "leekfanout"
    sys_version = ""

    def do_GET(self) -> None:
        try:
            url = urlsplit(self.path)
        except ValueError:  # http://[::1 and the like
            self.send_error(400)
            return
        verbose = "verbose" in parse_qs(url.query, keep_blank_values=True)
        if url.path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._send(200, content_type, encode(self.server.registry))
        elif url.path == "/livez":
            self._send_health(liveness_of(self.server.ask(), time.monotonic()), verbose)
        elif url.path == "/readyz":
            self._send_health(readiness_of(self.server.ask()), verbose)
        else:
            self._send(404, "text/plain", b"Here are /metrics, /livez and /readyz.\n")

    do_HEAD = do_GET

    def _send_health(self, health: Health, verbose: bool) -> None:
        lines = [f"{'ok' if health.ok else 'not ok'}"]
        if verbose or not health.ok:
            lines += [str(line) for line in health.lines]
        text = "".join(f"{line}\n" for line in lines)
        self._send(200 if health.ok else 503, "text/plain; charset=utf-8", text.encode())

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
