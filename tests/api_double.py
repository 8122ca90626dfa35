"""A Leek API that honours its contract until a script tells it otherwise, and remembers every POST.

It speaks HTTP/1.1 over plain sockets, one thread per connection, so that it can also misbehave
below HTTP: half an answer, a reset, a connection closed under the client, a body it won't read.
"""

import contextlib
import math
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from tests.api_exchange import Post, Reply, Request, encode, error_body
from tests.waiting import until

PATH = "/v1/events/process"
AGENT_HEADERS = (
    "x-leek-org-name",
    "x-leek-app-name",
    "x-leek-app-env",
    "x-leek-app-key",
    "x-agent-version",
)
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() send RST instead of FIN."""


Script = Callable[[Request], Reply | None]


class ApiDouble:
    """The API on a loopback port; a context manager. Any thread may call any method."""

    def __init__(self, app_key: str = "secret-app-key") -> None:
        self.app_key = app_key
        self.posts: list[Post] = []
        """Every POST that was answered, or won't be, in the order of answering."""
        self.read_bytes_per_s: float | None = None
        """Reads bodies at this pace."""
        self.hang_before_reading = False
        """Reads no body while this is set."""
        self.delay_s = 0.0
        """Added to every POST that no script answers."""
        self.posts_under_way = 0
        self.most_posts_at_once = 0
        self.probes = 0
        self.most_probes_at_once = 0
        self.options = 0
        self.connections_accepted = 0
        self._probes_under_way = 0
        self._numbers: Counter[str] = Counter()
        self._script: Script | Iterator[Reply | Script] | None = None
        self._probe_script: Script | Iterator[Reply | Script] | None = None
        self._refuses: tuple[Callable[[dict[str, Any]], bool], int] | None = None
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, bool] = {}  # whether a request is under way
        self._listener = self._bound(0)
        self.port: int = self._listener.getsockname()[1]
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The subscription's ``api_url``."""
        return f"http://127.0.0.1:{self.port}"

    # What it answers

    def script(self, script: Script | Iterable[Reply | Script] | None) -> None:
        """Answer POSTs so from now on.

        A callable answers each; of a list each entry answers one POST; None, from either or as the
        script, means what the contract says.
        """
        with self._lock:
            self._script = script if script is None or callable(script) else iter(script)

    def script_probes(self, script: Script | Iterable[Reply | Script] | None) -> None:
        """Answer GETs so from now on, as :meth:`script` does for POSTs."""
        with self._lock:
            self._probe_script = script if script is None or callable(script) else iter(script)

    def always(self, reply: Reply) -> None:
        """Answer every POST, and every GET unless ``reply`` is a success, with ``reply``."""
        self.script(lambda _: reply)
        self.script_probes(None if reply.status < 300 else lambda _: reply)

    def behave(self) -> None:
        """Forget scripts, refusals and slowness: honour the contract again."""
        self.script(None)
        self.script_probes(None)
        self._refuses = None
        self.read_bytes_per_s = None
        self.hang_before_reading = False
        self.delay_s = 0.0

    def refuse(self, predicate: Callable[[dict[str, Any]], bool], status: int = 400) -> None:
        """Refuse the documents that ``predicate`` picks.

        With 400, ``errors`` names them and all others are indexed. With any other status (409, 413,
        422) a batch that has one is refused whole and none is named.
        """
        self._refuses = (predicate, status)

    # Whether it is there

    def go_down(self) -> None:
        """Refuse connections, and cut those that exist."""
        # shutdown() wakes the thread in accept(); the port is bound again without listening, so
        # that connections are refused and nobody else gets it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._thread is not None:
            self._thread.join(10)
            assert not self._thread.is_alive(), "The API double's listener doesn't end."
            self._thread = None
        self._listener = self._bound(self.port)
        self.cut_connections()

    def come_up(self) -> None:
        """Accept connections (again)."""
        if self._thread is not None:
            return
        self._listener.listen(128)
        self._thread = threading.Thread(target=self._accept, name="api-double", daemon=True)
        self._thread.start()

    def cut_connections(self, idle_only: bool = False) -> int:
        """Close connections under their clients; return how many."""
        with self._lock:
            cut = [peer for peer, busy in self._connections.items() if not (busy and idle_only)]
        for peer in cut:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        return len(cut)

    def close(self) -> None:
        self.go_down()
        self._listener.close()
        until(lambda: not self._connections, 10, "the API double's connections to close")

    def __enter__(self) -> Self:
        self.come_up()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What it has seen

    @property
    def connections_open(self) -> int:
        return len(self._connections)

    def confirmed(self) -> list[dict[str, Any]]:
        """All documents that were confirmed, in order."""
        return [document for post in self.posts[:] for document in post.confirmed]

    def confirmed_events(self) -> int:
        """How many events stand behind the documents that were confirmed."""
        return sum(document["events_count"] for document in self.confirmed())

    def wait_for_events(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until so many events have been confirmed."""
        seen = 0
        posts = 0

        def enough() -> bool:
            nonlocal seen, posts
            while posts < len(self.posts):
                seen += sum(document["events_count"] for document in self.posts[posts].confirmed)
                posts += 1
            return seen >= count

        try:
            until(enough, timeout_s, "events")
        except AssertionError:
            raise AssertionError(
                f"{seen} of {count} events were confirmed within {timeout_s:g} s, in {posts} POSTs."
            ) from None

    def wait_for_posts(self, count: int, timeout_s: float = 30.0) -> list[Post]:
        """Wait until so many POSTs have ended, and return all of them."""
        until(lambda: len(self.posts) >= count, timeout_s, f"{count} POSTs to the API double")
        return self.posts[:]

    # How it does it

    def _bound(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        return listener

    def _accept(self) -> None:
        listener = self._listener
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections_accepted += 1
                self._connections[peer] = False
            threading.Thread(
                target=self._serve, args=(peer,), name="api-double-connection", daemon=True
            ).start()

    def _serve(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = peer.makefile("rb")
        try:
            while (request := self._read_head(reader)) is not None:
                self._connections[peer] = True
                keep = self._respond(peer, reader, request)
                self._connections[peer] = False
                if not keep:
                    break
        except (OSError, ValueError):
            pass  # the client is gone, or was cut
        finally:
            reader.close()
            peer.close()
            with self._lock:
                del self._connections[peer]

    def _read_head(self, reader: Any) -> Request | None:
        start = reader.readline(65_536).split()
        if len(start) != 3:
            return None
        headers = {}
        while (line := reader.readline(65_536)) not in {b"\r\n", b"\n", b""}:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        method = start[0].decode()
        with self._lock:
            self._numbers[method] += 1
            number = self._numbers[method]
        return Request(method, start[1].decode(), headers, number, time.monotonic())

    def _respond(self, peer: socket.socket, reader: Any, request: Request) -> bool:
        """Answer one request; return whether the connection is kept."""
        if request.method == "POST":
            with self._counted("posts_under_way", "most_posts_at_once"):
                self._read_body(peer, reader, request)
                post = self._judge(request)
                reply = post.reply
                stays = self._wait_until_due(peer, reply)
                # Recorded before it is sent: a client that has the answer finds the POST recorded.
                post.answered = stays and reply.cut_after_bytes is None
                post.ended_at = time.monotonic()
                with self._lock:
                    self.posts.append(post)
                sent = stays and self._send(peer, reply)
                post.answered = post.answered and sent
        elif request.method == "GET":
            with self._counted("_probes_under_way", "most_probes_at_once"):
                self.probes += 1
                reply = self._scripted("_probe_script", request) or self._check_identity(request)
                reply = reply or Reply(200, "Ready!")
                sent = self._wait_until_due(peer, reply) and self._send(peer, reply)
        else:
            self.options += 1
            reply = Reply(200)
            sent = self._send(peer, reply)
        return sent and not reply.close

    @contextlib.contextmanager
    def _counted(self, gauge: str, peak: str) -> Iterator[None]:
        with self._lock:
            setattr(self, gauge, getattr(self, gauge) + 1)
            setattr(self, peak, max(getattr(self, peak), getattr(self, gauge)))
        try:
            yield
        finally:
            with self._lock:
                setattr(self, gauge, getattr(self, gauge) - 1)

    def _read_body(self, peer: socket.socket, reader: Any, request: Request) -> None:
        while self.hang_before_reading:
            if self._left(peer):
                raise ConnectionError
            time.sleep(0.02)
        missing = int(request.headers.get("content-length", 0))
        chunks = []
        while missing:
            pace = self.read_bytes_per_s
            chunk = reader.read(missing if pace is None else min(missing, max(1, int(pace / 20))))
            if not chunk:
                raise ConnectionError
            if pace is not None:
                time.sleep(len(chunk) / pace)
            chunks.append(chunk)
            missing -= len(chunk)
        request.body = b"".join(chunks)

    def _judge(self, request: Request) -> Post:
        scripted = self._scripted("_script", request)
        if scripted is not None:
            return Post(request, scripted)
        refusal = self._check_identity(request)
        if refusal is not None:
            return Post(request, refusal)
        post = Post(request, Reply())
        if not post.body.startswith(b"["):
            post.reply = Reply(400, {"error": error_body("400", "Payload should be a list", "")})
            return post
        post.reply = Reply(201, {"success": len(post.documents)}, delay_s=self.delay_s)
        if self._refuses is not None:
            self._refuse(post, *self._refuses)
        return post

    def _refuse(self, post: Post, predicate: Callable[[dict[str, Any]], bool], status: int) -> None:
        refused = [document["id"] for document in post.documents if predicate(document)]
        if not refused:
            return
        if status != 400:
            post.reply = Reply(status, "A part of the batch was refused", delay_s=self.delay_s)
            return
        post.refused = frozenset(refused)
        error = {"type": "mapper_parsing_exception", "reason": "failed to parse"}
        post.reply = Reply(
            400,
            {
                "success": len(post.documents) - len(refused),
                "failed": len(refused),
                "errors": [{"update": {"_id": i, "status": 400, "error": error}} for i in refused],
            },
            delay_s=self.delay_s,
        )

    def _scripted(self, name: str, request: Request) -> Reply | None:
        with self._lock:
            script = getattr(self, name)
            if script is None:
                return None
            entry = script if callable(script) else next(script, None)
            if entry is None:
                setattr(self, name, None)
        return entry(request) if callable(entry) else entry

    def _check_identity(self, request: Request) -> Reply | None:
        headers = request.headers
        if request.path != PATH or headers.get("x-requested-with") != "leek-agent":
            return Reply(404, {"error": error_body("404", "Not found", request.path)})
        for name in AGENT_HEADERS:
            if not headers.get(name):
                return Reply(400, {"error": error_body("400", "Missing headers", name)})
        if request.method == "POST" and headers.get("content-type") != "application/json":
            return Reply(400, {"error": error_body("400", "Content type", "Must be JSON")})
        if headers["x-leek-app-key"] != self.app_key:
            return Reply(
                401, {"error": error_body("401", "Wrong app key", "Authentication failed")}
            )
        return None

    def _wait_until_due(self, peer: socket.socket, reply: Reply) -> bool:
        """Return True when it is time to answer, or False once the client has left."""
        due_at = math.inf if reply.silent else time.monotonic() + reply.delay_s
        while (left_s := due_at - time.monotonic()) > 0:
            if self._left(peer):
                return False
            time.sleep(min(0.02, left_s))
        return not self._left(peer)

    @staticmethod
    def _send(peer: socket.socket, reply: Reply) -> bool:
        """Send the answer; return whether the connection can be used further."""
        try:
            peer.sendall(encode(reply)[: reply.cut_after_bytes])
        except OSError:
            return False
        if reply.reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return reply.cut_after_bytes is None

    @staticmethod
    def _left(peer: socket.socket) -> bool:
        """Whether the client has closed, even while what it sent before is still unread."""
        poll = select.poll()
        poll.register(peer, select.POLLRDHUP)
        return bool(poll.poll(0))
