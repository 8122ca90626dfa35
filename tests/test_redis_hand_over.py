"""The hand-over of a lease: every event is taken, and by one of the two if they can agree on that."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.errors import SourceStandbyError
from leekfanout.sources import redis_hand_over
from leekfanout.sources.redis import RedisSource
from leekfanout.sources.redis_channels import Copies, channels, open_envelope
from leekfanout.sources.redis_hand_over import HELD_BYTES_MAX, HandOver, take_over
from tests.inbox import CollectingInbox
from tests.redis_sources import payload, publish, receive, subscription
from tests.waiting import until


def event(number: int, size: int = 0) -> list[bytes]:
    return [b"pmessage", b"/0.celeryev/*", b"/0.celeryev/x", b"%d" % number + bytes(size)]


def on_channel(hand_over: HandOver, text: bytes) -> list[bytes]:
    return [b"message", hand_over.channel, text]


def answer_of_the_other(hand_over: HandOver) -> bytes:
    answer = HandOver("lease").answer_to(on_channel(hand_over, hand_over.marker))
    assert answer is not None
    return answer


def played(hand_over: HandOver, replies: list, *, hearers: int | None = 2) -> list[bytes]:
    """Let these replies come; return the payloads of those that the other one has taken."""
    left = deque([[b"subscribe", hand_over.channel, 2], *replies])
    taken = take_over(
        hand_over,
        lambda _: hearers,
        lambda _: left.popleft() if left else None,
        stood_by=True,
    )
    hand_over.held.extend(left)  # what is still to be read
    return [reply[-1] for reply in taken]


def kept(hand_over: HandOver) -> list[bytes]:
    return [reply[-1] for reply in hand_over.held if reply[0] == b"pmessage"]


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_every_event_is_taken_and_once_if_the_other_answers(before, between, after, answered):
    hand_over = HandOver("lease")
    events = [event(number) for number in range(before + between + after)]
    replies = [
        *events[:before],
        on_channel(hand_over, hand_over.marker),
        *events[before : before + between],
        *([on_channel(hand_over, answer_of_the_other(hand_over))] if answered else []),
        *events[before + between :],
    ]
    others = played(hand_over, replies)
    numbers = [reply[-1] for reply in events]
    assert others == (numbers[:before] if answered else [])
    assert others + kept(hand_over) == numbers


def test_an_answer_to_an_earlier_marker_is_none():
    earlier, hand_over = HandOver("lease"), HandOver("lease")
    late = on_channel(hand_over, answer_of_the_other(earlier))
    marker = on_channel(hand_over, hand_over.marker)
    assert played(hand_over, [event(1), late, marker, late, event(2)]) == []
    assert kept(hand_over) == [b"1", b"2"]


@pytest.mark.parametrize("hearers", [None, 0, 1])
def test_who_is_heard_by_nobody_else_waits_for_nothing(hearers):
    hand_over = HandOver("lease")
    asked = []

    def wait_for_reply(_deadline: float) -> list:
        asked.append(True)
        return [b"subscribe", hand_over.channel, 2]

    assert take_over(hand_over, lambda _: hearers, wait_for_reply, stood_by=True) == []
    assert len(asked) == 1


def test_who_may_not_hear_the_channel_publishes_no_marker():
    hand_over, marked = HandOver("lease"), []
    replies = deque([event(1), redis.ResponseError("NOPERM")])
    others = take_over(hand_over, marked.append, lambda _: replies.popleft(), stood_by=False)
    assert (others, marked, kept(hand_over)) == ([], [], [b"1"])


def test_what_is_held_is_bounded_and_then_kept():
    hand_over = HandOver("lease")
    large = HELD_BYTES_MAX // 2
    marker = on_channel(hand_over, hand_over.marker)
    answer = on_channel(hand_over, answer_of_the_other(hand_over))
    assert played(hand_over, [marker, *(event(n, large) for n in range(3)), answer]) == []
    assert len(kept(hand_over)) == 3


def test_only_a_marker_of_another_is_answered():
    hand_over, other = HandOver("lease"), HandOver("lease")
    for reply in (
        on_channel(hand_over, hand_over.marker),
        on_channel(hand_over, answer_of_the_other(other)),
        [b"subscribe", hand_over.channel, 2],
        [b"unsubscribe", None, 0],
        event(1),
        b"PONG",
    ):
        assert hand_over.answer_to(reply) is None
    assert hand_over.answer_to(on_channel(hand_over, other.marker)) is not None


@pytest.fixture
def server(own_redis):
    with own_redis.client() as client:
        yield client


@pytest.fixture
def pair(own_redis, tmp_path):
    """Return two agents' sources with these transport options: one hears, and the other stands by."""
    sources = []

    def pair(**options) -> list[RedisSource]:
        wanted = subscription(own_redis.url(), transport_options=options)
        sources.extend(RedisSource(wanted, folder) for folder in (None, tmp_path))
        sources[0].connect()
        with pytest.raises(SourceStandbyError):
            sources[1].connect()
        return sources

    yield pair
    for source in sources:
        source.close()


def taking_over(pool: ThreadPoolExecutor, source: RedisSource, server: redis.Redis) -> Future:
    """Let a source wait for the lease."""
    taking = pool.submit(source.connect)
    until(lambda: server.info("clients")["blocked_clients"] == 1, 10, "somebody to wait")
    return taking


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fanout_patterns": False},
        {"global_keyprefix": "shop:"},
        {"sentinel_fanout_compat": True},
    ],
    ids=str,
)
def test_what_comes_while_one_hands_over_is_taken_once(pair, server, options):
    first, second = pair(**options)
    wanted = channels(subscription("redis://x", transport_options=options), 0)
    names = [name.replace("*", "task.sent") for name in wanted.names]
    inboxes, published = (CollectingInbox(), CollectingInbox()), []

    def publish_one() -> None:
        published.append(b"%d" % len(published))
        text = payload(published[-1])
        for name in names:  # the second one is the copy of a worker that publishes to both
            server.publish(name, text)

    with ThreadPoolExecutor(1) as pool:
        taking = taking_over(pool, second, server)
        publish_one()
        first.stop_consuming()

        def handed_over() -> bool:
            publish_one()
            if first.still_arriving:
                first.tick(time.monotonic())
                first.receive(inboxes[0], 10)
            return taking.done() and not first.still_arriving

        until(handed_over, 10, "the second to take over")
        taking.result()
    publish_one()
    taken = len(inboxes[0].messages)
    receive(second, inboxes[1], len(published) - taken)
    assert inboxes[0].bodies + inboxes[1].bodies == published
    assert inboxes[1].bodies
    assert not second.receive(inboxes[1], 10)
    assert [inbox.refused for inbox in inboxes] == [[], []]


def test_the_second_copy_of_what_the_other_has_taken_is_known():
    copies, text = Copies(), payload(b"event")
    copies.taken([text, b"no envelope"])
    assert copies.is_second(open_envelope(text)[2])
    assert not copies.is_second(open_envelope(payload(b"event"))[2])


def test_a_standby_that_is_about_to_wait_is_waited_for(pair, server, monkeypatch):
    monkeypatch.setattr(redis_hand_over, "HAND_OVER_S", 1_000_000.0)
    first, second = pair()
    first.stop_consuming()
    assert first._lease is not None
    assert first._lease._thread is not None
    first._lease._thread.join()
    first.tick(time.monotonic())
    inbox = CollectingInbox()
    assert not first.receive(inbox, 10)
    assert publish(server, 0, b"event") == 1
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(second.connect)
        until(lambda: first.receive(inbox, 10) or not first.still_arriving, 10, "the marker")
        taking.result()
    assert inbox.bodies == [b"event"]
    assert not second.receive(inbox, 10)
    assert inbox.bodies == [b"event"]


def test_what_the_second_has_heard_is_kept_if_the_first_ends_without_an_answer(
    pair, server, monkeypatch, caplog
):
    monkeypatch.setattr(redis_hand_over, "ANSWER_S", 1.0)
    first, second = pair()
    with ThreadPoolExecutor(1) as pool:
        taking = taking_over(pool, second, server)
        first.stop_consuming()
        until(lambda: publish(server, 0, b"event") == 2, 10, "both to hear the events")
        first.close()
        taking.result()
    inbox = CollectingInbox()
    receive(second, inbox, 1)
    assert inbox.bodies == [b"event"]
    assert [record.message for record in caplog.records].count("lease.overlap") == 1


def test_who_hears_a_marker_without_having_left_goes_on(pair, server):
    (first, _), inbox = pair(), CollectingInbox()
    (name,) = server.pubsub_channels()
    assert server.publish(name, HandOver("").marker) == 1
    publish(server, 0, b"event")
    receive(first, inbox, 1)
    assert first.still_arriving


def test_only_who_holds_the_lease_publishes_a_marker(pair, server):
    first, _ = pair()
    lease = first._lease
    assert lease is not None
    hand_over = HandOver(lease.key)
    assert lease.mark(hand_over) == 1
    server.set(lease.key, f"{32 * '0'} host-b:7", px=60_000)
    assert lease.mark(hand_over) == 0
