"""AMQP frames off the socket with few system calls, and deliveries out of them with few objects.

py-amqp asks the kernel three times for each frame, and there are three frames to a message; it also
builds a message object with all properties, of which an event needs two. Here the socket is read in
large pieces, and a delivery goes to the inbox as delivery tag, body and content type. Whatever is no
delivery is left to py-amqp, whose connection these classes plug into by its own extension points:
``Connection.Transport`` and ``frame_handler``. Frame layout: AMQP 0-9-1, section 2.3.5; methods,
headers and bodies: 4.2.

One thread at a time; the socket never blocks, and whoever needs to wait polls it.
"""

import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from struct import Struct
from typing import Any, Final

from amqp import spec
from amqp.exceptions import UnexpectedFrame
from amqp.transport import SSLTransport, TCPTransport
from kombu.transport import pyamqp

from leekfanout.sources import Ack, Inbox

RECEIVE_BYTES: Final = 256 * 1024
PUMP_MAX_READS: Final = 4
"""Reads in one go, so that large messages don't run far beyond the bound on bytes in flight."""
ANSWER_TIMEOUT_S: Final = 10.0
"""How long the broker may take to answer a request, or to take what is written to it."""

CONSUMER_TAG: Final = "events"
"""Ours to choose, since it is unique within a channel; fixed, so that a delivery's layout is known."""

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_FRAME_END: Final = 0xCE
_FRAME = Struct(">BHI")  # type, channel, payload size
_DELIVER: Final = (spec.Basic.Deliver[0] << 16) | spec.Basic.Deliver[1]
# type, channel, size, class and method, consumer tag as a short string, delivery tag
_DELIVER_FRAME = Struct(f">BHII{len(CONSUMER_TAG) + 1}sQ")
# type, channel, size, class, weight, body size, property flags
_HEADER_FRAME = Struct(">BHIHHQH")
_HEADER_PAYLOAD = Struct(">HHQH")
_METHOD_ID = Struct(">I")
_DELIVERY_TAG = Struct(">Q")
_ACK_FRAME = Struct(">BHIIQBB")
_ACK: Final = (spec.Basic.Ack[0] << 16) | spec.Basic.Ack[1]
_HAS_CONTENT_TYPE: Final = 0x8000
_JSON: Final = "application/json"
_JSON_SHORT_STRING: Final = bytes([len(_JSON)]) + _JSON.encode()

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Buffered:
    """A py-amqp transport that reads as much as there is and cuts frames out of its buffer."""

    sock: Any
    connected: bool

    def _setup_transport(self) -> None:
        super()._setup_transport()  # type: ignore[misc]
        self.sock.setblocking(False)
        self._write = self._send
        self.answer_timeout_s = ANSWER_TIMEOUT_S
        self._timeout_s = ANSWER_TIMEOUT_S
        self.buffer = b""
        self.position = 0
        self.received_at = time.monotonic()

    @contextmanager
    def having_timeout(self, timeout: float | None) -> Iterator[Any]:
        """Bound the reads inside; None means ``answer_timeout_s``, never for ever."""
        self._timeout_s = self.answer_timeout_s if timeout is None else timeout
        yield self.sock

    def fill(self) -> bool:
        """Read what the socket has, without waiting; False if it has nothing now.

        Raises OSError when the connection is gone.
        """
        try:
            chunk = self.sock.recv(RECEIVE_BYTES)
        except _WOULD_BLOCK:
            return False
        except OSError:
            self.connected = False
            raise
        if not chunk:
            self.connected = False
            raise ConnectionResetError("the broker closed the connection")
        self.buffer = (
            self.buffer[self.position :] + chunk if self.position < len(self.buffer) else chunk
        )
        self.position = 0
        self.received_at = time.monotonic()
        return True

    def read_frame(self) -> tuple[int, int, bytes]:
        """Return the next frame, waiting for it; py-amqp calls this during its own exchanges."""
        deadline = time.monotonic() + self._timeout_s
        while (frame := self.next_frame()) is None:
            if not self.fill():
                self._wait(select.POLLIN, deadline)
        return frame

    def next_frame(self) -> tuple[int, int, bytes] | None:
        """Cut the next whole frame out of the buffer: type, channel, payload; None if it isn't in."""
        buffer, position = self.buffer, self.position
        if len(buffer) - position < _FRAME.size:
            return None
        frame_type, channel, size = _FRAME.unpack_from(buffer, position)
        start = position + _FRAME.size
        end = start + size
        if len(buffer) <= end:
            return None
        check_frame_end(buffer, end)
        self.position = end + 1
        return frame_type, channel, buffer[start:end]

    def _send(self, data: Any) -> None:
        view = memoryview(data)
        deadline = time.monotonic() + self.answer_timeout_s
        while view:
            try:
                view = view[self.sock.send(view) :]
            except _WOULD_BLOCK:
                self._wait(select.POLLOUT, deadline)

    def _wait(self, for_what: int, deadline: float) -> None:
        poll = select.poll()
        # TLS may need to read in order to write, and the other way round.
        poll.register(self.sock, for_what | (select.POLLIN if for_what == select.POLLOUT else 0))
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            raise TimeoutError("the broker did not answer in time")


class BufferedTCP(_Buffered, TCPTransport):  # type: ignore[misc]
    """The transport for amqp:// and pyamqp://."""


class BufferedTLS(_Buffered, SSLTransport):  # type: ignore[misc]
    """The transport for amqps://. Reading goes on until TLS has nothing decrypted left either."""


def check_frame_end(buffer: bytes, end: int) -> None:
    """Raise UnexpectedFrame unless a frame ends at ``end``: then the stream is out of step."""
    if buffer[end] != _FRAME_END:
        raise UnexpectedFrame(f"frame ends with {buffer[end]:#04x}, not with 0xce")


class Deliveries:
    """Puts frames together to deliveries, across reads and across py-amqp's own exchanges.

    A delivery that arrives while py-amqp waits for an answer is kept in ``complete`` for the next
    :func:`pump`; with ``discard`` set it is forgotten (the channel is being closed).
    """

    __slots__ = ("_chunks", "_content_type", "_delivery_tag", "_left", "complete", "discard")

    def __init__(self) -> None:
        self.complete: deque[tuple[int, bytes, str | None]] = deque()
        self.discard = False
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new channel begins."""
        self.complete.clear()
        self._delivery_tag = 0
        self._content_type: str | None = None
        self._left = -1
        self._chunks: list[bytes] = []

    @property
    def idle(self) -> bool:
        """Whether no delivery is half read."""
        return not self._delivery_tag

    def begin(self, payload: bytes) -> None:
        """Take a basic.deliver method."""
        self._delivery_tag = _DELIVERY_TAG.unpack_from(payload, 5 + payload[4])[0]
        self._left = -1

    def header(self, payload: bytes) -> None:
        """Take the content header: body size and, among the properties, the content type."""
        if self.idle:
            raise UnexpectedFrame("content header without a delivery")
        _, _, self._left, flags = _HEADER_PAYLOAD.unpack_from(payload, 0)
        start = _HEADER_PAYLOAD.size + 1
        self._content_type = (
            payload[start : start + payload[start - 1]].decode("utf-8", "replace")
            if flags & _HAS_CONTENT_TYPE
            else None
        )
        self._finish_if_complete()

    def body(self, payload: bytes) -> None:
        """Take a piece of the body."""
        if self.idle or self._left < len(payload):
            raise UnexpectedFrame("more content than the header announced")
        self._chunks.append(payload)
        self._left -= len(payload)
        self._finish_if_complete()

    def _finish_if_complete(self) -> None:
        if self._left:
            return
        if not self.discard:
            body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self.complete.append((self._delivery_tag, body, self._content_type))
        self._delivery_tag = 0
        self._chunks = []


def frame_handler(deliveries: Deliveries) -> Callable[[Any, Any], Callable[[Any], bool]]:
    """Return what py-amqp takes as ``frame_handler``: deliveries to us, all methods to py-amqp."""

    def make(connection: Any, dispatch: Any) -> Callable[[Any], bool]:
        def on_frame(frame: tuple[int, int, bytes]) -> bool:
            frame_type, channel, payload = frame
            connection.bytes_recv += 1
            if frame_type == _METHOD:
                method = _METHOD_ID.unpack_from(payload)[0]
                if method == _DELIVER:
                    deliveries.begin(payload)
                    return False
                dispatch(channel, (method >> 16, method & 0xFFFF), payload, None)
                return True
            if frame_type == _HEADER:
                deliveries.header(payload)
            elif frame_type == _BODY:
                deliveries.body(payload)
            elif frame_type != _HEARTBEAT:
                raise UnexpectedFrame(f"frame of type {frame_type}")
            return False

        return on_frame

    return make


class Connection(pyamqp.Connection):
    """kombu's connection on a buffered transport; ``transport_options`` carry the frame handler."""

    def Transport(
        self,
        host: str,
        connect_timeout: float,
        ssl: Any = False,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Make the transport; py-amqp calls this by this name while connecting."""
        kind = BufferedTLS if ssl else BufferedTCP
        return kind(
            host,
            connect_timeout=connect_timeout,
            ssl=ssl,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            **options,
        )


class Transport(pyamqp.Transport):
    """What ``kombu.Connection(transport=…)`` takes."""

    Connection = Connection


def pump(
    transport: _Buffered,
    deliveries: Deliveries,
    on_frame: Callable[[tuple[int, int, bytes]], bool],
    inbox: Inbox,
    limit: int,
) -> bool:
    """Give ``inbox`` up to ``limit`` messages that have arrived; True if more may be at hand.

    The usual message lies in the buffer whole, in three frames: it is read in one go. Everything
    else, a message over several frames or any other method, goes frame by frame through ``on_frame``.
    """
    message = inbox.message
    complete = deliveries.complete
    unpack_deliver, unpack_header = _DELIVER_FRAME.unpack_from, _HEADER_FRAME.unpack_from
    unpack_frame = _FRAME.unpack_from
    reads_left = PUMP_MAX_READS
    while limit > 0:
        if complete:
            message(*complete.popleft())
            limit -= 1
            continue
        buffer, position = transport.buffer, transport.position
        # 64 bytes hold a deliver frame up to the delivery tag, so none of the reads below overruns.
        last_start = len(buffer) - 64 if deliveries.idle else -1
        try:
            while limit > 0 and position < last_start:
                _, _, size, method, _, delivery_tag = unpack_deliver(buffer, position)
                if method != _DELIVER or buffer[position] != _METHOD:
                    break
                header_at = position + size + 8
                if header_at > last_start:
                    break
                _, _, size, _, _, body_size, flags = unpack_header(buffer, header_at)
                body_at = header_at + size + 8
                if body_at > last_start:
                    break
                frame_type, _, size = unpack_frame(buffer, body_at)
                start = body_at + 7
                end = start + size
                if (
                    frame_type != _BODY
                    or size != body_size
                    or end >= len(buffer)
                    or buffer[header_at] != _HEADER
                ):
                    break
                if not (buffer[header_at - 1] == buffer[body_at - 1] == buffer[end] == _FRAME_END):
                    break  # on_frame's way finds out which, and says so
                content_type: str | None = None
                if flags & _HAS_CONTENT_TYPE:
                    at = header_at + 21
                    if buffer[at : at + 17] == _JSON_SHORT_STRING:
                        content_type = _JSON
                    else:
                        content_type = buffer[at + 1 : at + 1 + buffer[at]].decode(
                            "utf-8", "replace"
                        )
                position = end + 1
                message(delivery_tag, buffer[start:end], content_type)
                limit -= 1
        finally:
            transport.position = position
        if limit <= 0:
            break
        frame = transport.next_frame()
        if frame is not None:
            on_frame(frame)
        elif not reads_left:
            break
        elif not transport.fill():
            return False
        else:
            reads_left -= 1
    return True


def ack_frames(channel_id: int, acks: Sequence[Ack]) -> bytes:
    """Return basic.ack frames (AMQP 0-9-1, 1.8.3.13) for one write."""
    pack = _ACK_FRAME.pack
    return b"".join(
        [
            pack(_METHOD, channel_id, 13, _ACK, delivery_tag, multiple, _FRAME_END)
            for delivery_tag, multiple in acks
        ]
    )
