"""A TCP proxy that spoils what passes through it: delay, pace, cut, truncate, swallow, refuse.

Point an agent at :attr:`TcpProxy.port` in place of its broker or API. ``up`` is the direction from
the client to the server, ``down`` the other.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

from tests.waiting import until

Direction = Literal["up", "down"]
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() send RST instead of FIN."""
CHUNK_BYTES = 65_536


class TcpProxy:
    """Forwards connections to ``(host, port)``; a context manager. Any thread may call any method.

    What is set holds for the connections that exist and for those to come.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.target = (host, port)
        self.latency_s = 0.0
        """Held back for so long in each direction; chunks are delayed one after the other."""
        self.bytes_per_s: float | None = None
        """Pace of each direction of each connection."""
        self.black_hole = False
        """Swallow everything; connections stay, and new ones are accepted."""
        self.connections_accepted = 0
        self.bytes_forwarded: dict[Direction, int] = {"up": 0, "down": 0}
        self._cut_at: dict[Direction, tuple[int, bool]] = {}
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._listener: socket.socket | None = _bound(0)
        self.port: int = self._listener.getsockname()[1]
        self._thread: threading.Thread | None = None

    def url(self, url: str) -> str:
        """Return ``url`` with this proxy in place of its host and port."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    @property
    def connections_open(self) -> int:
        """Connections that neither side has closed yet."""
        return len(self._links)

    def refuse(self) -> None:
        """Refuse new connections; those that exist go on."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        thread.join(10)
        # Bound but not listening: connections are refused, and nobody else gets the port.
        self._listener = _bound(self.port)

    def accept(self) -> None:
        """Accept new connections (again)."""
        if self._thread is None:
            assert self._listener is not None
            self._listener.listen(128)
            self._thread = threading.Thread(
                target=self._run, args=(self._listener,), name="proxy", daemon=True
            )
            self._thread.start()

    def cut(self, reset: bool = False) -> int:
        """End every connection on both sides, with FIN or with RST; return how many."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut(reset)
        return len(links)

    def cut_at(self, direction: Direction, byte: int | None, reset: bool = False) -> None:
        """Cut each connection once exactly ``byte`` bytes of it have passed; None: no longer."""
        with self._lock:
            if byte is None:
                self._cut_at.pop(direction, None)
            else:
                self._cut_at[direction] = (byte, reset)

    def pause(self) -> None:
        """Forward nothing, and read nothing: what is sent waits in the senders' sockets."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def go_down(self, reset: bool = False) -> None:
        """Refuse new connections and cut those that exist."""
        self.refuse()
        self.cut(reset)

    def heal(self) -> None:
        """Forward everything unspoilt again. Connections that were swallowed are cut."""
        self.latency_s = 0.0
        self.bytes_per_s = None
        with self._lock:
            self._cut_at.clear()
        if self.black_hole:
            self.black_hole = False
            self.cut()
        self.resume()
        self.accept()

    def close(self) -> None:
        self._flowing.set()
        self.go_down()
        assert self._listener is not None
        self._listener.close()
        until(lambda: not self._links, 10, "the proxy's connections to close")

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections_accepted += 1
                link = _Link(self, client)
                self._links.add(link)
            threading.Thread(target=link.run, name="proxy-connection", daemon=True).start()

    def _forget(self, link: "_Link") -> None:
        with self._lock:
            self._links.discard(link)

    def _allowance(self, direction: Direction, passed: int) -> tuple[int | None, bool]:
        """How many more bytes may pass before the cut (None: no bound), and the kind of cut."""
        with self._lock:
            byte, reset = self._cut_at.get(direction, (None, False))
        return (None if byte is None else max(0, byte - passed)), reset


class _Link:
    """One connection through the proxy: a thread for each direction."""

    def __init__(self, proxy: TcpProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._ended = False
        self._reset = False

    def run(self) -> None:
        try:
            if not self._connect():
                return
            assert self._server is not None
            up = threading.Thread(
                target=self._pump, args=("up",), name="proxy-connection", daemon=True
            )
            up.start()
            self._pump("down")
            up.join()
        finally:
            for each in (self._client, self._server):
                if each is not None:
                    if self._reset:
                        with contextlib.suppress(OSError):
                            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    each.close()
            self._proxy._forget(self)

    def cut(self, reset: bool) -> None:
        self._reset = reset
        self._ended = True
        for each in (self._client, self._server):
            if each is not None:
                with contextlib.suppress(OSError):
                    # With RST no FIN may leave first; the threads see the end of reading and close.
                    each.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)

    def _connect(self) -> bool:
        if self._proxy.black_hole:  # nobody behind it
            with contextlib.suppress(OSError):
                while self._client.recv(CHUNK_BYTES):
                    pass
            return False
        try:
            self._server = socket.create_connection(self._proxy.target, 10)
        except OSError:
            return False
        self._server.settimeout(None)
        if self._ended:  # cut while it was being connected
            return False
        for each in (self._client, self._server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return True

    def _pump(self, direction: Direction) -> None:
        assert self._server is not None
        pair = (self._client, self._server)
        source, sink = pair if direction == "up" else pair[::-1]
        proxy = self._proxy
        passed = 0
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                while not proxy._flowing.wait(0.1) and not self._ended:
                    pass
                if proxy.black_hole:
                    continue
                if proxy.latency_s:
                    time.sleep(proxy.latency_s)
                allowed, reset = proxy._allowance(direction, passed)
                if allowed is not None and len(chunk) >= allowed:
                    self._send(sink, chunk[:allowed], direction)
                    self.cut(reset)
                    return
                self._send(sink, chunk, direction)
                passed += len(chunk)
        # One side has ended: so does the other, once what was under way has been sent.
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RD if self._reset else socket.SHUT_WR)

    def _send(self, sink: socket.socket, chunk: bytes, direction: Direction) -> None:
        pace = self._proxy.bytes_per_s
        step = len(chunk) if pace is None else max(1, int(pace / 20))
        for start in range(0, len(chunk), max(1, step)):
            part = chunk[start : start + step]
            if pace is not None:
                time.sleep(len(part) / pace)
            self._write(sink, part)
            with self._proxy._lock:
                self._proxy.bytes_forwarded[direction] += len(part)

    def _write(self, sink: socket.socket, part: bytes) -> None:
        """Send it all, but give up when the connection is cut while the receiver takes nothing."""
        while part:
            if self._ended:
                raise ConnectionError
            _, writable, _ = select.select([], [sink], [], 0.1)
            if writable:
                with contextlib.suppress(BlockingIOError):
                    part = part[sink.send(part, socket.MSG_DONTWAIT) :]


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener
