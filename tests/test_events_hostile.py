"""Hostile events become documents or dead letters, and everything that is sent is strict JSON."""

import gc
import json
import math
from typing import Any

import orjson
import pytest

from leekfanout.documents import json_text
from leekfanout.documents.events import Documents, EventTally, decode
from leekfanout.errors import BadEventError
from tests.event_factory import document_of, documents_of, strictly, task, worker
from tests.hostile_texts import HOSTILE_TEXTS

REPLACED = "\ufffd"


def added(body: bytes) -> tuple[list[Any], list[str]]:
    """The documents of a message, and the reasons of its bad events."""
    batch = Documents("qa", EventTally())
    reasons = []
    for event in decode(body, "application/json"):
        try:
            batch.add(event)
        except BadEventError as error:
            reasons.append(str(error))
    texts = batch.close(5)
    for text in texts:
        orjson.loads(text)
    return [strictly(text) for text in texts], reasons


def body_of(*events: Any) -> bytes:
    return json.dumps(events).encode()


@pytest.mark.parametrize(
    "field", ["hostname", "name", "args", "kwargs", "exchange", "result", "exception", "root_id"]
)
def test_a_lone_surrogate_becomes_the_replacement_character(field: str) -> None:
    document = document_of(task("started", **{field: "a\udfff\ud800b\udc80"}))

    assert document["worker" if field == "hostname" else field] == f"a{REPLACED * 2}b{REPLACED}"


def test_a_surrogate_in_a_traceback_is_replaced_in_all_that_follows_from_it() -> None:
    text = "Traceback (most recent call last):\nA: \udc80"

    document = document_of(task("failed", traceback=text))

    assert document["error"] == {"type": "A", "message": REPLACED}
    assert document["trace"]["wc"] == document["traceback"] == text[:-1] + REPLACED


def test_what_stands_beside_a_lone_surrogate_is_as_it_was() -> None:
    fields = {"terminated": True, "expired": False, "runtime": 1e300, "retries": 2**64 - 1}
    kwargs = {"none": None, "true": True, "float": 1e30, "int": -5, "big": 2**70, "list": [1]}

    document = document_of(task("revoked", name="\ud800", **fields, kwargs=repr(kwargs)))

    assert document["name"] == REPLACED
    for name, value in fields.items():
        assert document[name] == value
        assert type(document[name]) is type(value)
    assert repr(document["kwargs_flattened"]) == repr({**kwargs, "list.0": 1}).replace(
        "'list': [1], ", ""
    )


def test_a_surrogate_that_a_repr_names_is_replaced() -> None:
    document = document_of(
        task("sent", args="('\\ud800', ['\\ud800'])", kwargs="{'a\\ud800': '\\udfff', 'b': 1}")
    )

    assert document["args_0"] == REPLACED
    assert document["args_1"] == "['\\ud800']"
    assert document["kwargs_flattened"] == {f"a{REPLACED}": REPLACED, "b": 1}


def test_a_surrogate_in_json_arguments_is_replaced() -> None:
    kwargs = '{"a": "\\ud800", "\\udc80": {"b": 1}, "pair": "\\ud83d\\ude00"}'

    assert document_of(task("sent", kwargs=kwargs))["kwargs_flattened"] == {
        "a": REPLACED,
        f"{REPLACED}.b": 1,
        "pair": "😀",
    }


@pytest.mark.parametrize(
    "event", [task("sent", uuid="a\ud800"), worker("online", hostname="\udc80")]
)
def test_an_id_with_a_lone_surrogate_is_bad_since_it_could_become_anothers(
    event: dict[str, Any],
) -> None:
    documents, reasons = added(body_of(event, task("sent")))

    assert [document["id"] for document in documents] == ["t1"]
    assert reasons == ["Its id holds a lone surrogate, which can't be sent."]


def test_bytes_that_are_not_utf_8_spoil_only_what_they_stand_in() -> None:
    body = body_of(task("sent", name="NAME"), task("sent", uuid="UUID"), task("sent", uuid="t2"))

    documents, reasons = added(body.replace(b"NAME", b"a\xff\xc3").replace(b"UUID", b"\xff"))

    assert [document["id"] for document in documents] == ["t1", "t2"]
    assert documents[0]["name"] == f"a{REPLACED * 2}"
    assert len(reasons) == 1


@pytest.mark.parametrize("event", [task("sent", uuid=""), worker("online", hostname="")])
def test_an_empty_id_is_bad(event: dict[str, Any]) -> None:
    assert added(body_of(event)) == ([], ["Its id is empty."])


def test_nul_characters_are_kept() -> None:
    document = document_of(task("sent", name="a\x00.b", args="('\x00',)", kwargs='{"\\u0000": 1}'))

    assert document["name_parts"]["module"] == "a\x00"
    assert document["args_0"] == "('\x00',)"
    assert document["kwargs_flattened"] == {"\x00": 1}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("event", "field"),
    [
        (task("sent"), "timestamp"),
        (task("sent"), "utcoffset"),
        (task("sent"), "runtime"),
        (task("sent"), "pid"),
        (task("sent"), "signum"),
        (worker("online"), "freq"),
        (worker("online"), "loadavg"),
    ],
)
def test_a_number_that_json_doesnt_have_spoils_only_its_event(
    event: dict[str, Any], field: str, number: float
) -> None:
    value = [1.0, number] if field == "loadavg" else number

    documents, reasons = added(body_of(task("sent"), {**event, field: value}, worker("online")))

    assert [document["kind"] for document in documents] == ["task", "worker"]
    assert len(reasons) == 1
    assert field in reasons[0]


def test_a_number_that_json_doesnt_have_in_an_extra_field_is_dropped_with_it() -> None:
    assert documents_of(task("sent", extra=[math.nan])) == documents_of(task("sent"))
    assert added(body_of({"type": "shop-sold", "value": math.nan}, task("sent")))[1] == []


def test_what_was_set_aside_can_be_written_as_python_writes_it() -> None:
    (event,) = decode(body_of(task("sent", pid=math.nan, name="\ud800")), "application/json")

    assert json.loads(json.dumps(event))["name"] == "\ud800"
    assert "NaN" in json.dumps(event)


def test_a_number_beyond_all_floats_is_bad_as_infinity_is() -> None:
    for digits in (b"1e999", b"9" * 400, b"-" + b"9" * 4_000):
        body = body_of(task("sent", runtime=12321), task("started"))
        documents, reasons = added(body.replace(b"12321", digits))
        assert [document["events"] for document in documents] == [["STARTED"]]
        assert reasons == ["Its runtime is not a number."]


def test_a_message_with_a_number_that_python_doesnt_read_is_refused_as_a_whole() -> None:
    with pytest.raises(BadEventError, match="digits"):
        decode(
            body_of(task("sent")).replace(b"}]", b', "extra": ' + b"9" * 5_000 + b"}]"),
            "application/json",
        )


def test_a_message_of_too_many_lists_is_read_only_if_it_is_strict() -> None:
    body = json.dumps({**task("sent"), "extra": [[]] * 100_001, "more": math.nan}).encode()

    for refused in (body, body.replace(b"[]", b"{}"), body.replace(b"[], []", b"[], {}")):
        with pytest.raises(BadEventError) as caught:
            decode(refused, "application/json")
        assert str(caught.value) == (
            "It is no JSON: it isn't strict, and has too many lists and objects."
        )
    assert len(decode(body.replace(b"NaN", b"1"), "application/json")) == 1
    assert len(decode(body.replace(b"[], " * 10, b""), "application/json")) == 1


@pytest.mark.parametrize("characters", [1, 100_000])
def test_a_strict_message_is_not_read_leniently(
    monkeypatch: pytest.MonkeyPatch, characters: int
) -> None:
    monkeypatch.setattr(json_text, "loads_leniently", lambda _: pytest.fail("was asked"))
    events = [task("sent", name="x" * characters)]

    assert decode(body_of(*events), "application/json") == events


def test_whole_numbers_beyond_64_bits_where_any_number_may_be_become_floats() -> None:
    document = document_of(task("succeeded", runtime=2**64, utcoffset=-(2**70)))

    assert document["runtime"] == 2.0**64
    assert type(document["runtime"]) is float
    assert document["utcoffset"] == -(2.0**70)


def test_the_lenient_way_reads_numbers_as_the_strict_one_does() -> None:
    numbers = [0, -0.0, 1.5, 2**63, 2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 10**25, 1e300, 5e-324]
    for number in numbers:
        event = task("succeeded", runtime=number)
        strict = document_of(event)["runtime"]
        lenient = document_of({**event, "extra": math.nan})["runtime"]
        load = document_of(worker("online", loadavg=[number], extra=math.nan))["loadavg"]
        assert repr(lenient) == repr(strict) == repr(load[0])


@pytest.mark.parametrize(
    "seconds", [2**63 / 1000, -(2**63) / 1000, 9.3e15, -9.3e15, 1e300, -1e300, 10**18, -(10**30)]
)
def test_a_time_of_which_64_bits_cant_hold_the_milliseconds_is_bad(seconds: float) -> None:
    assert added(body_of(task("sent", timestamp=seconds))) == (
        [],
        ["Its timestamp is out of range."],
    )


LATEST = math.nextafter(2**63 / 1000, 0)


@pytest.mark.parametrize("seconds", [LATEST, -LATEST, 0, -1.5, 9 * 10**15])
def test_any_other_time_is_a_time(seconds: float) -> None:
    document = document_of(task("sent", timestamp=seconds))

    assert document["timestamp"] == int(seconds * 1000)


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    body = b'{"pid": "x", ' + json.dumps(task("sent")).encode()[1:-1] + b', "clock": 5}'

    documents, reasons = added(body)

    assert reasons == []
    assert (documents[0]["pid"], documents[0]["clock"]) == (7, 5)


def test_a_message_that_is_nested_too_deeply_is_refused_as_a_whole() -> None:
    for depth in (20_000, 100_000):
        with pytest.raises(BadEventError) as caught:
            decode(b'{"a":' * depth + b"1" + b"}" * depth, "application/json")
        assert str(caught.value) == "It is nested too deeply to be read."


@pytest.mark.parametrize("collects", [True, False])
def test_a_large_message_leaves_the_garbage_collector_as_it_was(collects: bool) -> None:
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        events = [task("sent", name="x" * 100_000)]
        assert decode(body_of(*events), "application/json") == events
        assert gc.isenabled() is collects
        with pytest.raises(BadEventError):
            decode(b"[" * 100_000, "application/json")
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()


def test_an_event_with_a_field_that_is_nested_deeply_is_good_without_it() -> None:
    body = json.dumps(task("sent"))[:-1] + ', "extra": ' + "[" * 900 + "]" * 900 + "}"

    documents, reasons = added(body.encode())

    assert reasons == []
    assert "extra" not in documents[0]


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
@pytest.mark.parametrize("field", ["args", "kwargs", "traceback", "exception", "name", "result"])
def test_a_hostile_text_makes_a_document(name: str, field: str) -> None:
    text = HOSTILE_TEXTS[name]

    documents, reasons = added(body_of(task("failed", **{field: text}), task("sent")))

    assert reasons == []
    assert documents[0]["events"] == ["QUEUED", "FAILED"]
    sent = json.dumps(documents)
    # Proportional: the text, ten arguments, three times the trace, and what flattening may yield.
    assert len(sent) < 10 * len(json.dumps(text)) + 800_000


def test_the_arguments_of_a_hostile_text_are_its_first_characters() -> None:
    for name, text in HOSTILE_TEXTS.items():
        items = document_of(task("sent", args=text))
        if name in {"brackets", "sum", "code", "attributes", "digits", "hexadecimal"}:
            assert items["args_0"] == text[:256]


def test_many_events_with_other_arguments_of_the_same_task_keep_but_the_last() -> None:
    batch = Documents("qa", EventTally())
    for index in range(200):
        batch.add(task("sent", args=f"('{index}', '{'x' * 100_000}')", timestamp=1e9 + index))

    (text,) = batch.close(5)

    assert strictly(text)["args_0"] == "199"
    assert len(text) < 110_000


def test_what_is_sent_is_read_back_equal_by_another_strict_parser() -> None:
    events = [
        task("sent", uuid=f"t{index}", args=text, kwargs=text, name=text[:1000])
        for index, (name, text) in enumerate(HOSTILE_TEXTS.items())
        if name != "long"
    ]
    batch = Documents("qa", EventTally())
    for event in events:
        batch.add(event)

    for text in batch.close(5):
        assert strictly(text) == orjson.loads(text)
