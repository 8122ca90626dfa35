"""Deliveries come out of the byte stream whole and in order, wherever the stream is cut."""

import socket
from struct import pack

import pytest
from amqp.exceptions import UnexpectedFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from leekfanout.sources import Ack
from leekfanout.sources.amqp_frames import (
    BufferedTCP,
    Deliveries,
    ack_frames,
    frame_handler,
    pump,
)
from tests.inbox import CollectingInbox

CHANNEL = 1


def frame(kind: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return pack(">BHI", kind, CHANNEL, len(payload)) + payload + end


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def deliver(tag: int, routing_key: bytes = b"task.multi", consumer: bytes = b"events") -> bytes:
    arguments = short(consumer) + pack(">QB", tag, 0) + short(b"celeryev") + short(routing_key)
    return frame(1, pack(">HH", 60, 60) + arguments)


def header(size: int, content_type: bytes | None = b"application/json") -> bytes:
    # delivery_mode stands in every event that Celery publishes; it follows the content type.
    if content_type is None:
        return frame(2, pack(">HHQHB", 60, 0, size, 0x1000, 1))
    return frame(2, pack(">HHQH", 60, 0, size, 0x9000) + short(content_type) + b"\x01")


def message(
    tag: int, pieces: list[bytes], content_type: bytes | None = b"application/json"
) -> bytes:
    body = b"".join(pieces)
    return deliver(tag) + header(len(body), content_type) + b"".join(frame(3, p) for p in pieces)


HEARTBEAT = pack(">BHI", 8, 0, 0) + b"\xce"
QOS_OK = frame(1, pack(">HH", 60, 11))


class Stream:
    """A transport fed by hand, and a stand-in for py-amqp's connection."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.transport = BufferedTCP("localhost:1")
        self.transport.sock = theirs
        self.transport._setup_transport()
        self.deliveries = Deliveries()
        self.methods: list[tuple[int, int]] = []
        self.bytes_recv = 0
        self.on_frame = frame_handler(self.deliveries)(self, self._dispatch)

    def _dispatch(
        self, channel: int, method: tuple[int, int], payload: bytes, content: object
    ) -> None:
        self.methods.append(method)

    def pump(self, inbox: CollectingInbox, limit: int = 1_000) -> bool:
        return pump(self.transport, self.deliveries, self.on_frame, inbox, limit)

    def close(self) -> None:
        self.ours.close()
        self.transport.sock.close()


@pytest.fixture
def stream():
    stream = Stream()
    yield stream
    stream.close()


pieces = st.lists(st.binary(min_size=1, max_size=300), max_size=3)
content_types = st.sampled_from(
    [b"application/json", b"text/plain", b"application/x-python-serialize", None]
)
items = st.one_of(
    st.tuples(pieces, content_types),
    st.just("heartbeat"),
    st.just("qos"),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(items, max_size=12), st.data())
def test_a_stream_cut_anywhere_gives_the_same_deliveries(stream_items, data):
    wire, expected, methods = b"", [], 0
    for item in stream_items:
        if item == "heartbeat":
            wire += HEARTBEAT
        elif item == "qos":
            wire += QOS_OK
            methods += 1
        else:
            chunks, content_type = item
            tag = len(expected) + 1
            wire += message(tag, chunks, content_type)
            expected.append((tag, b"".join(chunks), content_type and content_type.decode()))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    limits = st.integers(1, 5)
    stream, inbox = Stream(), CollectingInbox()
    try:
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            stream.ours.sendall(wire[start:end])
            while stream.pump(inbox, data.draw(limits)):
                pass
        assert inbox.messages == expected
        assert len(stream.methods) == methods
        assert stream.deliveries.idle
    finally:
        stream.close()


def test_the_limit_is_kept_and_the_rest_comes_with_the_next_call(stream):
    inbox = CollectingInbox()
    stream.ours.sendall(b"".join(message(tag, [b"{}"]) for tag in range(1, 8)))
    assert stream.pump(inbox, 3) is True
    assert inbox.tags == [1, 2, 3]
    assert stream.pump(inbox, 100) is False
    assert inbox.tags == [1, 2, 3, 4, 5, 6, 7]


def test_deliveries_that_come_while_an_answer_is_awaited_are_kept(stream):
    inbox = CollectingInbox()
    stream.ours.sendall(message(1, [b"one"]) + message(2, [b"t", b"wo"]) + QOS_OK)
    while not stream.methods:
        stream.on_frame(stream.transport.read_frame())
    assert stream.pump(inbox) is False
    assert inbox.bodies == [b"one", b"two"]


def test_deliveries_that_come_while_the_channel_closes_are_forgotten(stream):
    inbox = CollectingInbox()
    stream.deliveries.discard = True
    stream.ours.sendall(message(1, [b"one"]) + QOS_OK)
    while not stream.methods:
        stream.on_frame(stream.transport.read_frame())
    stream.pump(inbox)
    assert inbox.messages == []


@pytest.mark.parametrize("broken", [0, 1, 2], ids=["method", "header", "body"])
def test_a_frame_without_its_end_is_an_error_and_no_delivery(stream, broken):
    frames = [deliver(1), header(2), frame(3, b"{}")]
    frames[broken] = frames[broken][:-1] + b"\x00"
    inbox = CollectingInbox()
    stream.ours.sendall(b"".join(frames) + bytes(100))
    with pytest.raises(UnexpectedFrame, match="0xce"):
        stream.pump(inbox)
    assert inbox.messages == []


def test_content_out_of_order_is_an_error(stream):
    stream.ours.sendall(header(2))
    with pytest.raises(UnexpectedFrame):
        stream.pump(CollectingInbox())


def test_a_body_longer_than_announced_is_an_error(stream):
    stream.ours.sendall(deliver(1) + header(1) + frame(3, b"{}"))
    with pytest.raises(UnexpectedFrame):
        stream.pump(CollectingInbox())


def test_the_end_of_the_stream_is_an_error(stream):
    inbox = CollectingInbox()
    stream.ours.sendall(message(1, [b"{}"]))
    stream.ours.close()
    with pytest.raises(ConnectionResetError):
        stream.pump(inbox)
    assert inbox.tags == [1]


def test_waiting_for_a_frame_ends_after_the_given_time(stream):
    with pytest.raises(TimeoutError), stream.transport.having_timeout(0.01):
        stream.transport.read_frame()


def test_writing_waits_for_a_full_socket(stream):
    import threading

    data = bytes(5_000_000)
    received = bytearray()

    def read() -> None:
        while len(received) < len(data):
            received.extend(stream.ours.recv(65_536))

    reader = threading.Thread(target=read)
    reader.start()
    stream.transport.write(data)
    reader.join(10)
    assert bytes(received) == data


def test_acks_are_the_frames_that_the_protocol_defines():
    frames = ack_frames(7, [Ack(1, multiple=False), Ack(2**40, multiple=True)])
    assert frames == (
        pack(">BHI", 1, 7, 13) + pack(">HHQB", 60, 80, 1, 0) + b"\xce"
        + pack(">BHI", 1, 7, 13) + pack(">HHQB", 60, 80, 2**40, 1) + b"\xce"
    )  # fmt: skip
