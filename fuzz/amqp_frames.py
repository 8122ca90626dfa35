"""AMQP frames to deliveries, which are to be the same wherever the stream is cut.

A stream that comes in whole is read by another way than one that comes frame by frame.
"""

import socket
from collections.abc import Iterator
from struct import Struct
from typing import Any

from leekfanout.sources.amqp_frames import BufferedTCP, Deliveries, frame_handler, pump

FRAME = Struct(">BHI")
DELIVER = b"\x00\x3c\x00\x3c"
OUR_CONSUMER = DELIVER + b"\x06events"

Message = tuple[int, bytes]


class Reading:
    """One stream: what comes out of it, and how it breaks if it does."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.broken: Exception | None = None
        self.bytes_recv = 0
        self._deliveries = Deliveries()
        self._on_frame = frame_handler(self._deliveries)(self, _take_method)

    def message(self, delivery_tag: int, body: bytes, content_type: str | None) -> None:
        assert content_type is None or type(content_type) is str
        self.messages.append((delivery_tag, body))

    def unusable(self, delivery_tag: int, payload: bytes, reason: str) -> None:
        raise AssertionError("AMQP has no envelopes.")

    def read(self, pieces: Iterator[bytes]) -> None:
        """Read until the end, or until an exception, which the source takes for a lost connection."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            transport = BufferedTCP("localhost:1")
            transport.sock = theirs
            transport._setup_transport()
            for piece in pieces:
                ours.sendall(piece)
                try:
                    while pump(transport, self._deliveries, self._on_frame, self, 1_000):
                        pass
                except AssertionError:
                    raise
                except Exception as error:  # noqa: BLE001  # as the source does it
                    self.broken = error
                    return


def _take_method(channel: int, method: tuple[int, int], payload: bytes, content: Any) -> None:
    assert method != (60, 60), "A delivery was given to py-amqp."


def one_input(stream: bytes) -> None:
    """Raise if a stream's deliveries depend on how it is cut."""
    frames = list(cut(stream))
    one_by_one, whole = Reading(), Reading()
    one_by_one.read(iter(frames))
    whole.read(iter([stream]))
    for reading in (one_by_one, whole):
        assert sum(len(body) for _, body in reading.messages) <= len(stream)
    # The consumer tag is ours: what a broker makes of another one needn't be the same.
    deliveries = [frame for frame in frames if frame[7:11] == DELIVER]
    if one_by_one.broken is None and all(frame[7:18] == OUR_CONSUMER for frame in deliveries):
        assert whole.broken is None, whole.broken
        assert whole.messages == one_by_one.messages


def cut(stream: bytes) -> Iterator[bytes]:
    """Yield each frame, whole or not."""
    position = 0
    while position < len(stream):
        end = len(stream)
        if end - position >= FRAME.size:
            end = position + FRAME.size + FRAME.unpack_from(stream, position)[2] + 1
        yield stream[position:end]
        position = end
