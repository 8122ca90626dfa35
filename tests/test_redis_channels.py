"""Channel names and envelopes: as kombu makes them, and as nobody should."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.errors import BadEventError
from leekfanout.sources.redis_channels import channels, open_envelope
from tests.redis_sources import subscription


@pytest.mark.parametrize(
    ("options", "database", "expected"),
    [
        ({}, 0, ("/0.celeryev/*",)),
        ({}, 7, ("/7.celeryev/*",)),
        ({"global_keyprefix": "shop:"}, 2, ("shop:/2.celeryev/*",)),
        ({"fanout_prefix": False}, 2, ("celeryev/*",)),
        ({"fanout_prefix": "/events-{db}."}, 2, ("/events-2.celeryev/*",)),
        ({"fanout_prefix": "/{{db}}."}, 2, ("/{db}.celeryev/*",)),
        ({"sentinel_fanout_compat": True}, 2, ("/2.celeryev/*", "/{db}.celeryev/*")),
        ({"sentinel_fanout_compat": True, "fanout_prefix": "/x."}, 2, ("/x.celeryev/*",)),
        ({"global_keyprefix": "[a]*:"}, 0, (r"\[a\]\*:/0.celeryev/*",)),
    ],
)
def test_a_pattern_names_prefix_database_and_exchange(options, database, expected):
    found = channels(subscription("redis://h", transport_options=options), database)
    assert (found.command, found.names) == ("PSUBSCRIBE", expected)


@pytest.mark.parametrize(
    ("routing_key", "expected"),
    [("#", "/0.celeryev/*"), ("task.#", "/0.celeryev/task.*"), ("task.*", "/0.celeryev/task.*")],
)
def test_a_hash_in_the_routing_key_becomes_a_star(routing_key, expected):
    assert channels(subscription("redis://h", routing_key=routing_key), 0).names == (expected,)


@pytest.mark.parametrize(
    "keys", [{"transport_options": {"fanout_patterns": False}}, {"routing_key": ""}]
)
def test_without_patterns_one_channel_is_subscribed_to(keys):
    found = channels(subscription("redis://h", **keys), 3)
    assert (found.command, found.names) == ("SUBSCRIBE", ("/3.celeryev",))


def envelope(**parts) -> bytes:
    body = base64.b64encode(b'{"type": "task-sent"}').decode()
    properties = {"body_encoding": "base64", "delivery_tag": "tag-1"}
    whole = {"body": body, "content-type": "application/json", "properties": properties} | parts
    return json.dumps(whole).encode()


def test_a_body_is_taken_out_of_base64():
    opened = open_envelope(envelope())
    assert opened == (b'{"type": "task-sent"}', "application/json", "tag-1")


def test_a_body_without_an_encoding_is_text():
    opened = open_envelope(envelope(body='{"ü": 1}', properties={"delivery_tag": "tag-1"}))
    assert opened == ('{"ü": 1}'.encode(), "application/json", "tag-1")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"null", "not kombu's"),
        (b"[]", "not kombu's"),
        (b"{}", "not kombu's"),
        (envelope(properties=None), "not kombu's"),
        (envelope(body=None), "not kombu's"),
        (envelope(body={"type": "task-sent"}, properties={}), "not kombu's"),
        (envelope(body="a"), "not base64"),
        (envelope(body="ü"), "not base64"),
        (envelope(properties={"body_encoding": "rot13"}), "'rot13', which is unknown"),
        (envelope(**{"content-type": ["application/json"]}), "content type"),
    ],
)
def test_an_envelope_that_is_not_kombus_is_refused_with_its_reason(payload, reason):
    with pytest.raises(BadEventError, match=reason):
        open_envelope(payload)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_PARTS = st.sampled_from(["body", "properties", "content-type", "headers"])


@given(st.binary() | st.dictionaries(_PARTS, _JSON).map(lambda parts: json.dumps(parts).encode()))
def test_any_payload_is_opened_or_refused(payload):
    try:
        body, content_type, _ = open_envelope(payload)
    except BadEventError:
        return
    assert isinstance(body, bytes)
    assert content_type is None or isinstance(content_type, str)
