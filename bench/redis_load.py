"""Publishing on Redis, as fast as the subscriber takes it, or at a given rate.

PUB/SUB keeps nothing, so the load runs while it is measured, in a process of its own. What is sent is
made beforehand: envelopes as kombu writes them, in Redis' protocol. They come round again after
:data:`DISTINCT`, which is many more than a batch holds.
"""

import base64
import itertools
import socket
import time
import uuid
from collections.abc import Iterator

import redis

from bench.load import Message, messages
from bench.pace import at_rate

DISTINCT = 20_000
CHUNK_MESSAGES = 50
UNREAD_MAX_BYTES = 4_000_000
"""Redis cuts off a subscriber with 8 MB unread for a minute (client-output-buffer-limit)."""
LOOK_EVERY_CHUNKS = 20
_ENVELOPE = (
    '{"body": "%s", "content-encoding": "utf-8", "content-type": "application/json", '
    '"headers": {"hostname": "celery@vm"}, "properties": {"delivery_mode": 1, "delivery_info": '
    '{"exchange": "celeryev", "routing_key": "%s"}, "priority": 0, "body_encoding": "base64", '
    '"delivery_tag": "%s"}}'
)


def command(message: Message) -> bytes:
    """Return the PUBLISH command of a message, as kombu sends it."""
    body = base64.b64encode(message.body).decode()
    payload = (_ENVELOPE % (body, message.routing_key, uuid.uuid4())).encode()
    channel = f"/0.celeryev/{message.routing_key}".encode()
    head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n" % (len(channel), channel)
    return head + b"$%d\r\n%b\r\n" % (len(payload), payload)


def publish(port: int, count: int, rate: float | None) -> float:
    """Publish ``count`` single events (a multiple of 50), and return the seconds it took.

    ``rate`` is in events per second; None: as fast as the subscriber reads.
    """
    distinct = [command(message) for message in messages("single", min(count, DISTINCT))]
    chunks = [
        b"".join(distinct[at : at + CHUNK_MESSAGES])
        for at in range(0, len(distinct), CHUNK_MESSAGES)
    ]
    endless = itertools.islice(itertools.cycle(chunks), count // CHUNK_MESSAGES)
    with socket.create_connection(("127.0.0.1", port)) as sock, redis.Redis(port=port) as client:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"CLIENT REPLY OFF\r\n")
        per_s = rate / CHUNK_MESSAGES if rate else 1e9
        took_s = at_rate(endless if rate else _patient(endless, client), per_s, sock.sendall)
        sock.sendall(b"CLIENT REPLY ON\r\n")
        sock.recv(64)  # Redis has dealt with all of them
    return took_s


def _patient(chunks: Iterator[bytes], client: redis.Redis) -> Iterator[bytes]:
    """Yield chunks only while the subscriber keeps up."""
    for number, chunk in enumerate(chunks):
        if number % LOOK_EVERY_CHUNKS == 0:
            while _unread_bytes(client) > UNREAD_MAX_BYTES:
                time.sleep(0.001)
        yield chunk


def _unread_bytes(client: redis.Redis) -> int:
    return max((int(peer["omem"]) for peer in client.client_list(_type="pubsub")), default=0)
