"""The contract's rules for one event: its type, its fields, its document."""

import doctest
import json
import pickle
from typing import Any

import pytest

from leekfanout.documents import event_shapes, events
from leekfanout.documents.events import Documents, EventTally, decode, documents
from leekfanout.errors import BadEventError
from tests.event_factory import MILLISECONDS, SECONDS, document_of, documents_of, task, worker

TASK_TYPES = [
    ("sent", "QUEUED", "queued_at"),
    ("received", "RECEIVED", "received_at"),
    ("started", "STARTED", "started_at"),
    ("succeeded", "SUCCEEDED", "succeeded_at"),
    ("failed", "FAILED", "failed_at"),
    ("rejected", "REJECTED", "rejected_at"),
    ("revoked", "REVOKED", "revoked_at"),
    ("retried", "RETRY", "retried_at"),
]
WORKER_TYPES = [
    ("online", "ONLINE", "online_at"),
    ("heartbeat", "HEARTBEAT", "last_heartbeat_at"),
    ("offline", "OFFLINE", "offline_at"),
]


def reason(event: Any) -> str:
    with pytest.raises(BadEventError) as caught:
        Documents("qa", EventTally()).add(event)
    return str(caught.value)


@pytest.mark.parametrize(("event_type", "state", "time_field"), TASK_TYPES)
def test_a_lone_task_event_becomes_its_whole_document(
    event_type: str, state: str, time_field: str
) -> None:
    host = "client" if state == "QUEUED" else "worker"

    assert document_of(task(event_type)) == {
        "id": "t1",
        "uuid": "t1",
        "kind": "task",
        "state": state,
        "app_env": "qa",
        "clock": 9,
        "utcoffset": -2,
        "pid": 7,
        "exact_timestamp": SECONDS,
        "timestamp": MILLISECONDS,
        time_field: MILLISECONDS,
        "updated_at": 5,
        "events_count": 1,
        "events": [state],
        host: "celery@vm",
    }


@pytest.mark.parametrize(("event_type", "state", "time_field"), WORKER_TYPES)
def test_a_lone_worker_event_becomes_its_whole_document(
    event_type: str, state: str, time_field: str
) -> None:
    own = {
        "freq": 2.0,
        "active": 1,
        "processed": 30,
        "loadavg": [0.5, 1, 2],
        "sw_ident": "py-celery",
        "sw_ver": "5.7.0",
        "sw_sys": "Linux",
    }

    assert document_of(worker(event_type, **own)) == {
        "id": "celery@vm",
        "hostname": "celery@vm",
        "kind": "worker",
        "state": state,
        "app_env": "qa",
        "clock": 9,
        "utcoffset": -2,
        "pid": 7,
        "exact_timestamp": SECONDS,
        "timestamp": MILLISECONDS,
        time_field: MILLISECONDS,
        "updated_at": 5,
        "events_count": 1,
        **own,
    }


def test_a_heartbeat_may_lack_what_tells_of_the_load() -> None:
    document = document_of(worker("heartbeat", freq=2, sw_ident="py-celery"))

    assert {"active", "processed", "loadavg"}.isdisjoint(document)


OWN_FIELDS = {
    "exchange": "",
    "routing_key": "celery",
    "queue": "celery",
    "root_id": "r",
    "parent_id": "p",
    "result": "'x'",
    "runtime": 0.25,
    "retries": 0,
    "exception": "ValueError('x')",
    "terminated": True,
    "expired": False,
    "signum": "SIGTERM",
    "requeue": False,
}


@pytest.mark.parametrize(("field", "value"), OWN_FIELDS.items())
def test_a_task_events_own_field_is_in_its_document(field: str, value: Any) -> None:
    document = document_of(task("started", **{field: value}))

    assert document[field] == value
    assert type(document[field]) is type(value)


@pytest.mark.parametrize("event", [task("sent"), worker("online")])
def test_a_null_field_counts_as_absent(event: dict[str, Any]) -> None:
    also = (
        "name args kwargs eta expires traceback freq active processed loadavg sw_ident sw_ver extra"
    )
    nulls = dict.fromkeys([*OWN_FIELDS, *also.split()])

    assert document_of({**nulls, **event}) == document_of(event)


def test_whole_seconds_are_exact_as_a_float_and_in_milliseconds() -> None:
    document = document_of(task("sent", timestamp=1_760_000_000))

    assert type(document["exact_timestamp"]) is float
    assert document["exact_timestamp"] == 1_760_000_000.0
    assert document["timestamp"] == document["queued_at"] == 1_760_000_000_000


def test_milliseconds_are_cut_and_not_rounded() -> None:
    assert document_of(task("sent", timestamp=1.0019))["timestamp"] == 1001


@pytest.mark.parametrize("utcoffset", [-5.5, 5.75, 0.0, 3])
def test_the_offset_is_passed_on_and_never_applied(utcoffset: float) -> None:
    document = document_of(task("sent", utcoffset=utcoffset))

    assert document["utcoffset"] == utcoffset
    assert document["timestamp"] == MILLISECONDS


@pytest.mark.parametrize("field", ["eta", "expires"])
@pytest.mark.parametrize(
    ("date", "milliseconds"),
    [
        ("2025-10-09T08:54:20.072159+00:00", 1760000060072),
        ("2025-10-09T08:54:20.000999+00:00", 1760000060000),
        ("2025-10-09T08:54:20Z", 1760000060000),
        ("2025-10-09T10:54:20+02:00", 1760000060000),
        ("2025-10-09T14:24:20+05:30", 1760000060000),
        ("2025-10-09T08:54:20", 1760000060000),
        ("2025-10-09", 1759968000000),
        ("1970-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00+14:00", -62135647200000),
    ],
)
def test_dates_become_milliseconds(field: str, date: str, milliseconds: int) -> None:
    assert document_of(task("sent", **{field: date}))[field] == milliseconds


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [
        ("shop.tasks.pay", "shop.tasks", "pay"),
        ("pay", "", "pay"),
        ("shop.", "shop", ""),
        (".pay", "", "pay"),
        ("", "", ""),
    ],
)
def test_a_name_is_cut_at_its_last_dot(name: str, module: str, function: str) -> None:
    document = document_of(task("sent", name=name))

    assert document["name"] == name
    assert document["name_parts"] == {"module": module, "function": function}


def test_fields_that_follow_from_others_are_absent_with_them() -> None:
    document = document_of(task("sent"))

    assert {"name_parts", "args_0", "kwargs_flattened", "lang", "trace"}.isdisjoint(document)


def test_extra_fields_are_dropped_and_counted_by_name() -> None:
    tally = EventTally()
    batch = Documents("qa", tally)
    events = [
        task("sent", principal="me", state="DONE", id="x"),
        task("sent", freq=2, principal={"a": [1]}),
        {**task("sent"), "principal": None},
        worker("online", uuid="u", name="n"),
    ]

    assert documents_of(*events) == documents_of(*[task("sent")] * 3, worker("online"))
    for event in events:
        batch.add(event)
    assert tally.extra_fields == {
        "principal": 3,
        "state": 1,
        "id": 1,
        "freq": 1,
        "uuid": 1,
        "name": 1,
    }


def test_names_of_extra_fields_and_types_that_are_told_apart_are_bounded() -> None:
    tally = EventTally()
    batch = Documents("qa", tally)
    for index in range(300):
        batch.add({**task("sent"), f"field-{index}": 1})
        batch.add({"type": f"type-{index}"})
    batch.add({"type": "type-7"})

    for counts in (tally.ignored, tally.extra_fields):
        assert len(counts) == 101
        assert counts["(others)"] == 200
    assert tally.ignored["type-7"] == 2


def test_extra_fields_and_types_are_counted_by_what_can_be_shown_of_their_names() -> None:
    tally = EventTally()
    batch = Documents("qa", tally)
    for name in ("é" * 100, "x" * 101, "x" * 1_000, "a\ud800"):
        batch.add({**task("sent"), name: 1})
        batch.add({"type": name})

    for counts in (tally.ignored, tally.extra_fields):
        assert counts == {"é" * 100: 1, "x" * 100: 2, "a\ufffd": 1}


@pytest.mark.parametrize(
    "event_type", ["task-cancelled", "worker-elect", "shop-sold", "task", "TASK-SENT"]
)
def test_an_unknown_type_is_left_out_and_counted_and_no_error(event_type: str) -> None:
    tally = EventTally()
    batch = Documents("qa", tally)

    assert batch.add({"type": event_type, "what": ["ever"]}) is False
    assert batch.add({"type": event_type}) is False

    assert batch.close(5) == []
    assert tally == EventTally(events=2, ignored={event_type: 2})


def test_the_tally_counts_every_event_and_those_of_tasks_in_documents() -> None:
    tally = EventTally()
    batch = Documents("qa", tally)
    for event in (task("sent"), task("started"), worker("online")):
        batch.add(event)
    with pytest.raises(BadEventError):
        batch.add(task("sent", pid=None))

    assert (tally.events, tally.task_events, tally.bad) == (4, 2, 0)
    assert len(batch) == 2


@pytest.mark.parametrize("event", [None, 5, 1.5, True, "task-sent", [], ["type"], [task("sent")]])
def test_an_event_that_is_no_object_is_bad(event: Any) -> None:
    assert reason(event) == "It is no object."


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "It has no type."),
        ({"type": None}, "It has no type."),
        ({"type": ""}, "Its type is empty."),
        ({"type": 5}, "Its type is no string."),
        ({"type": ["task-sent"]}, "Its type is no string."),
        ({"type": {"a": 1}}, "Its type is no string."),
    ],
)
def test_an_event_without_a_usable_type_is_bad(fields: dict[str, Any], why: str) -> None:
    event = task("sent")
    del event["type"]

    assert reason({**event, **fields}) == why


REQUIRED = ["hostname", "timestamp", "utcoffset", "pid", "clock"]


@pytest.mark.parametrize("value", [{}, {"null": None}], ids=["absent", "null"])
@pytest.mark.parametrize(
    ("event", "field"),
    [(task("sent"), field) for field in ["uuid", *REQUIRED]]
    + [(worker("online"), field) for field in REQUIRED],
)
def test_an_event_without_a_required_field_is_bad(
    event: dict[str, Any], field: str, value: dict[str, None]
) -> None:
    broken = {key: item for key, item in event.items() if key != field}
    if value:
        broken[field] = None

    assert reason(broken) == f"It lacks {field}."


def test_all_fields_that_are_missing_are_named() -> None:
    assert reason({"type": "worker-online"}) == (
        "It lacks hostname, timestamp, utcoffset, pid, clock."
    )


TASK_TEXTS = (
    "uuid hostname name args kwargs exchange routing_key queue root_id parent_id eta expires result "
    "exception traceback"
)
WRONG: list[tuple[dict[str, Any], str, list[Any]]] = [
    (task("sent"), TASK_TEXTS, [1, 1.5, True, ["x"], {}]),
    (worker("online"), "hostname sw_ident sw_ver sw_sys", [1, 1.5, True, ["x"], {}]),
    (task("sent"), "timestamp utcoffset runtime", ["1", True, [1], {}]),
    (worker("online"), "freq", ["1", True, [1], {}]),
    (task("sent"), "pid clock retries", ["1", 1.5, True, [1], {}]),
    (worker("online"), "active processed", ["1", 1.5, False, [1], {}]),
    (task("sent"), "terminated expired requeue", ["true", 0, 1, [True]]),
    (task("sent"), "signum", [1.5, True, [15], {}]),
    (worker("online"), "loadavg", [1, "1", {}, ["1"], [None], [[1]], [True], [1, 2, "3"]]),
]


@pytest.mark.parametrize(
    ("event", "field", "value"),
    [
        (event, field, value)
        for event, fields, values in WRONG
        for field in fields.split()
        for value in values
    ],
)
def test_a_field_of_the_wrong_json_type_makes_the_event_bad(
    event: dict[str, Any], field: str, value: Any
) -> None:
    assert f"Its {field} is not " in reason({**event, field: value})


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (task("sent", name=5), "Its name is not a string."),
        (task("revoked", expired=0), "Its expired is not true or false."),
        (task("succeeded", runtime="1"), "Its runtime is not a number."),
        (task("sent", retries="1"), "Its retries is not a whole number of 64 bits."),
        (task("revoked", signum=[]), "Its signum is not a string or a whole number of 64 bits."),
        (worker("online", loadavg=1), "Its loadavg is not a list of numbers."),
        (worker("online", loadavg=["1"]), "Its loadavg is not a list of numbers."),
    ],
)
def test_the_reason_says_what_a_field_should_be(event: dict[str, Any], why: str) -> None:
    assert reason(event) == why


@pytest.mark.parametrize("field", ["eta", "expires"])
@pytest.mark.parametrize(
    "text", ["", "soon", "2025-13-01", "1760000060", "2025-10-09T08:54:20+00:00x"]
)
def test_a_date_that_is_none_makes_the_event_bad(field: str, text: str) -> None:
    assert reason(task("sent", **{field: text})) == f"Its {field} is no date in ISO 8601."


@pytest.mark.parametrize("field", ["pid", "clock", "retries", "signum"])
@pytest.mark.parametrize("value", [3.0, -1.0, 0.0, 2.0**53])
def test_a_whole_number_may_be_written_as_a_float(field: str, value: float) -> None:
    document = document_of(task("sent", **{field: value}))

    assert document[field] == value
    assert type(document[field]) is int


@pytest.mark.parametrize("field", ["pid", "clock", "active", "processed"])
def test_a_workers_whole_number_may_be_written_as_a_float(field: str) -> None:
    document = document_of(worker("heartbeat", **{field: 3.0}))

    assert document[field] == 3
    assert type(document[field]) is int


@pytest.mark.parametrize("field", ["pid", "clock", "retries", "signum"])
@pytest.mark.parametrize("value", [2.0**53 + 2, 2**64, -(2**63) - 1, 10**25, -(10**25), 10**400])
def test_a_whole_number_beyond_64_bits_makes_the_event_bad(field: str, value: float) -> None:
    (event,) = decode(json.dumps(task("sent", **{field: value})).encode(), "application/json")

    assert reason(event).startswith(f"Its {field} is not ")


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 2**63])
def test_a_whole_number_of_64_bits_is_kept_exactly(value: int) -> None:
    assert document_of(task("sent", clock=value))["clock"] == value


def test_a_signal_may_be_a_name_or_a_number() -> None:
    assert document_of(task("revoked", signum=15))["signum"] == 15
    assert document_of(task("revoked", signum="SIGKILL"))["signum"] == "SIGKILL"


def test_the_same_shape_with_another_value_is_judged_by_its_value() -> None:
    assert document_of(task("sent", pid=3.0, eta="2025-10-09"))
    assert "pid" in reason(task("sent", pid=3.5, eta="2025-10-09"))
    assert "eta" in reason(task("sent", pid=3.0, eta="2025-10-99"))
    assert document_of(worker("online", loadavg=[1]))
    assert "loadavg" in reason(worker("online", loadavg=["1"]))


def test_a_bad_event_is_left_as_it_was() -> None:
    for broken in (
        task("sent", pid=3.0, expires="never", extra=1),
        task("sent", uuid="", extra=1),
        worker("online", loadavg=["x"]),
        task("sent", timestamp=1e300),
    ):
        event = dict(broken)
        reason(event)
        assert event == broken


def test_a_bad_event_spoils_neither_its_neighbours_nor_its_own_document() -> None:
    good = [task("sent"), task("started", timestamp=SECONDS + 1)]
    bad = [task("failed", pid="x"), task("sent", uuid=""), None, task("failed", timestamp="x")]

    docs, set_aside = documents([good[0], *bad, good[1]], "qa", 5)

    assert docs == documents_of(*good)
    assert [event for event, _ in set_aside] == bad
    assert [why for _, why in set_aside] == [
        "Its pid is not a whole number of 64 bits.",
        "Its id is empty.",
        "It is no object.",
        "Its timestamp is not a number.",
    ]


def test_a_task_that_is_called_like_a_worker_stays_apart() -> None:
    first, second = documents_of(task("sent", uuid="celery@vm"), worker("online"))

    assert (first["id"], first["kind"]) == ("celery@vm", "task")
    assert (second["id"], second["kind"]) == ("celery@vm", "worker")


def test_documents_come_in_the_order_of_their_first_events() -> None:
    docs = documents_of(
        task("sent", uuid="b"),
        worker("online"),
        task("sent", uuid="a"),
        task("started", uuid="b"),
    )

    assert [doc["id"] for doc in docs] == ["b", "celery@vm", "a"]


def test_closing_an_empty_batch_gives_no_documents() -> None:
    assert Documents("qa", EventTally()).close(5) == []


def test_a_closed_batch_is_empty() -> None:
    batch = Documents("qa", EventTally())
    batch.add(task("sent"))

    assert len(batch) == 1
    assert len(batch.close(5)) == 1
    assert len(batch) == 0
    assert batch.close(5) == []


# Messages


def test_a_message_is_one_event_or_a_list_of_them() -> None:
    assert decode(b'{"type": "task-sent"}', "application/json") == [{"type": "task-sent"}]
    assert decode(b'[{"type": "task-sent"}, 5]', "application/json") == [{"type": "task-sent"}, 5]
    assert decode(b"[]", "application/json") == []
    assert decode(b"5", "application/json") == [5]


@pytest.mark.parametrize(
    "content_type",
    ["application/x-python-serialize", "application/x-yaml", "text/json", "", "json", None],
)
def test_any_other_content_type_is_refused(content_type: str | None) -> None:
    with pytest.raises(BadEventError) as caught:
        decode(b"{}", content_type)
    assert str(caught.value) == f"Its content type is {content_type!r}, not application/json."


def test_a_content_type_without_end_is_shown_in_part() -> None:
    with pytest.raises(BadEventError) as caught:
        decode(b"{}", "x" * 10_000)
    assert len(str(caught.value)) < 200


def test_a_pickle_is_refused_whatever_it_calls_itself() -> None:
    body = pickle.dumps(task("sent"))

    for content_type in ("application/x-python-serialize", "application/json"):
        with pytest.raises(BadEventError):
            decode(body, content_type)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_a_content_type_may_have_a_parameter_and_capitals(content_type: str) -> None:
    assert decode(b"[]", content_type) == []


@pytest.mark.parametrize("body", [b"", b"{", b"{'a': 1}", b"[1,]", b"\xef\xbb\xbf[]", b"null null"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadEventError, match="no JSON"):
        decode(body, "application/json")


def test_the_example_in_the_documentation_is_right() -> None:
    results = doctest.testmod(events)

    assert (results.attempted, results.failed) == (1, 0)


# Shapes


def test_events_of_the_same_shape_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Any] = []
    look_at = event_shapes.look_at
    monkeypatch.setattr(events, "look_at", lambda event: looked_at.append(event) or look_at(event))
    event_shapes.known_shapes.clear()

    documents_of(*[task("sent", uuid=f"t{index}", pid=index) for index in range(9)])
    documents_of(task("started"), task("sent", name="x"), task("sent", name="y"), task("sent"))

    assert len(looked_at) == 3


def test_shapes_that_are_kept_are_bounded_in_number_and_in_size() -> None:
    event_shapes.known_shapes.clear()
    batch = Documents("qa", EventTally())
    for index in range(event_shapes.MAX_SHAPES + 10):
        batch.add({**task("sent"), f"field-{index}": 1})
    assert len(event_shapes.known_shapes) == 10

    event_shapes.known_shapes.clear()
    batch.add({**task("sent"), "x" * event_shapes.MAX_KEPT_CHARACTERS: 1})
    batch.add({**task("sent"), **{f"f{index}": 1 for index in range(event_shapes.MAX_KEPT_FIELDS)}})
    assert not event_shapes.known_shapes
    event = task("sent")
    few = {f"f{index}": 1 for index in range(event_shapes.MAX_KEPT_FIELDS - len(event))}
    batch.add({**event, **few})
    batch.add({**event, "x" * (event_shapes.MAX_KEPT_CHARACTERS - sum(map(len, event))): 1})
    assert len(event_shapes.known_shapes) == 2
