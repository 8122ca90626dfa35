"""A Leek API in a process of its own that costs nearly nothing: it takes in bodies and says 201.

One thread, one epoll. A body is counted by its content-length and never looked at. What it costs is
measured (:meth:`ApiStub.cpu_s`), and so is what it could take at most (:func:`most`).
"""

import heapq
import mmap
import select
import socket
import time
from typing import Self

from bench.forked import Forked, cpu_seconds

_HEAD = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
ANSWER = _HEAD % (b"201 Created", 13, b'{"success":1}')
READY = _HEAD % (b"200 OK", 8, b'"Ready!"')
BUFFER_BYTES = 1_048_576
STALLED = float("inf")


class _Connection:
    """One client's: at the head of a request, or with ``left`` bytes of a body to come."""

    __slots__ = ("answer", "head", "left", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = b""
        self.left = 0
        self.answer = READY

    def took(self, data: memoryview) -> bool:
        """Take what has been read; True at the end of a request."""
        if self.left:
            self.left -= len(data)
            return not self.left
        self.head += data
        end = self.head.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self.head[:end].lower()
        self.answer = ANSWER if head.startswith(b"post") else READY
        _, found, rest = head.partition(b"\r\ncontent-length:")
        length = int(rest.partition(b"\r\n")[0]) if found else 0
        self.left = length - (len(self.head) - end - 4)
        self.head = b""
        return not self.left


class ApiStub:
    """The stub's process, and the counters and the delay that are shared with it.

    ``delay_s`` may be changed at any time; :data:`STALLED` answers no POST at all.
    """

    def __init__(self) -> None:
        self._shared = memoryview(mmap.mmap(-1, 40)).cast("d")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process = Forked(lambda: _serve(self._listener, self._shared))
        self._listener.close()

    @property
    def delay_s(self) -> float:
        return self._shared[0]

    @delay_s.setter
    def delay_s(self, delay_s: float) -> None:
        self._shared[0] = delay_s

    @property
    def posts(self) -> float:
        """POSTs that were read to their end, so far."""
        return self._shared[1]

    @property
    def megabytes(self) -> float:
        """Megabytes that were read, so far."""
        return self._shared[2] / 1e6

    @property
    def longest_silence_s(self) -> float:
        """The longest time, in seconds, from the end of one POST to that of the next, so far."""
        return self._shared[4]

    def cpu_s(self) -> float:
        """CPU seconds that it has used so far."""
        return cpu_seconds(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.__exit__()


def _serve(listener: socket.socket, shared: memoryview) -> None:
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections: dict[int, _Connection] = {}
    due: list[tuple[float, int, _Connection]] = []
    buffer = memoryview(bytearray(BUFFER_BYTES))
    while True:
        wait_s = max(0.0, due[0][0] - time.monotonic()) if due else -1
        for fd, _ in poll.poll(wait_s):
            connection = connections.get(fd)
            if connection is None:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[sock.fileno()] = _Connection(sock)
                poll.register(sock, select.EPOLLIN)
                continue
            size = _read(connection.sock, buffer)
            if not size:
                del connections[fd]
                connection.sock.close()
                continue
            shared[2] += size
            if connection.took(buffer[:size]):
                _finished(connection, shared, due)
        while due and due[0][0] <= time.monotonic():
            _send(heapq.heappop(due)[2])


def _finished(
    connection: _Connection, shared: memoryview, due: list[tuple[float, int, _Connection]]
) -> None:
    if connection.answer is READY:
        _send(connection)
        return
    now = time.monotonic()
    if shared[1]:
        shared[4] = max(shared[4], now - shared[3])
    shared[3] = now
    shared[1] += 1
    if not shared[0]:
        _send(connection)
    elif shared[0] != STALLED:
        entry = (now + shared[0], connection.sock.fileno(), connection)
        heapq.heappush(due, entry)


def _read(sock: socket.socket, buffer: memoryview) -> int:
    try:
        return sock.recv_into(buffer)
    except ConnectionError:
        return 0


def _send(connection: _Connection) -> None:
    try:
        connection.sock.send(connection.answer)
    except OSError:
        return  # the client has gone, which poll tells as well


def most(stub: ApiStub, body_bytes: int, seconds: float) -> dict[str, float]:
    """Return what the stub takes at most, from one client that does nothing but send bodies."""
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % body_bytes + bytes(body_bytes)
    begun, posts, cpu_s = time.monotonic(), 0, stub.cpu_s()
    with socket.create_connection(("127.0.0.1", stub.port)) as sock:
        while (took_s := time.monotonic() - begun) < seconds:
            sock.sendall(request)
            sock.recv(4096)
            posts += 1
    return {
        "posts_per_s": posts / took_s,
        "megabytes_per_s": posts * body_bytes / 1e6 / took_s,
        "api_cpu_us_per_megabyte": (stub.cpu_s() - cpu_s) * 1e12 / (posts * body_bytes),
    }
