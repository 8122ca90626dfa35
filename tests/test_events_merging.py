"""The contract's rules for merging documents with the same id inside one batch."""

from typing import Any

import pytest

from tests.event_factory import MILLISECONDS, SECONDS, document_of, task, worker

LATER = SECONDS + 1
EARLIER = SECONDS - 1
LATER_MS = MILLISECONDS + 1000
EARLIER_MS = MILLISECONDS - 1000
OPEN = ["sent", "received", "started", "retried"]
TERMINAL = ["succeeded", "failed", "rejected", "revoked"]
STATES = {
    "sent": "QUEUED",
    "received": "RECEIVED",
    "started": "STARTED",
    "retried": "RETRY",
    "succeeded": "SUCCEEDED",
    "failed": "FAILED",
    "rejected": "REJECTED",
    "revoked": "REVOKED",
}
TIME_FIELDS = {
    event_type: f"{'queued' if event_type == 'sent' else event_type}_at" for event_type in STATES
}

# Of every field a value that only this event has.
FULL: dict[str, Any] = {
    "clock": 1,
    "pid": 2,
    "utcoffset": 3,
    "hostname": "new",
    "name": "new.task",
    "args": "('new',)",
    "kwargs": "{'new': 1}",
    "root_id": "new-root",
    "parent_id": "new-parent",
    "eta": "2001-01-01",
    "expires": "2002-01-01",
    "retries": 0,
    "exchange": "new",
    "routing_key": "new",
    "queue": "new",
    "result": "'new'",
    "runtime": 0.5,
    "exception": "NewError()",
    "traceback": "new",
    "terminated": True,
    "expired": True,
    "signum": "new",
    "requeue": True,
}
CALL = [
    "name",
    "name_parts",
    "args",
    "kwargs",
    "root_id",
    "parent_id",
    "eta",
    "expires",
    "retries",
    "args_0",
    "kwargs_flattened",
]
FAILURE = ["exception", "traceback", "lang", "error", "stack", "trace"]
OWNED = {
    "sent": ["exchange", "routing_key", "queue", "client"],
    "received": [],
    "started": [],
    "retried": [],
}


def merged(have: dict[str, Any], new: dict[str, Any]) -> tuple[set[str], dict[str, Any]]:
    """The fields that ``new`` wrote into the document of ``have``, and the document."""
    before, alone, after = document_of(have), document_of(new), document_of(have, new)
    bookkeeping = {"events", "events_count", "state"}
    written = {
        field
        for field in alone.keys() - bookkeeping
        if after.get(field) == alone[field] and before.get(field) != alone[field]
    }
    untouched = after.keys() - written - bookkeeping
    assert all(after[field] == before[field] for field in untouched)
    return written, after


def everything(event: dict[str, Any]) -> set[str]:
    return document_of(event).keys() - {
        "id",
        "uuid",
        "kind",
        "app_env",
        "updated_at",
        "events",
        "events_count",
        "state",
    }


@pytest.mark.parametrize("have", [*OPEN, *TERMINAL])
@pytest.mark.parametrize("new", TERMINAL)
@pytest.mark.parametrize("seconds", [EARLIER, LATER])
def test_all_of_a_terminal_event_is_written(have: str, new: str, seconds: float) -> None:
    event = task(new, **FULL, timestamp=seconds)

    written, document = merged(task(have), event)

    assert written == everything(event)
    assert document["state"] == STATES[new]


@pytest.mark.parametrize("have", TERMINAL)
@pytest.mark.parametrize("new", OPEN)
@pytest.mark.parametrize("seconds", [EARLIER, LATER])
def test_what_comes_after_a_terminal_event_writes_only_what_it_may(
    have: str, new: str, seconds: float
) -> None:
    written, document = merged(task(have), task(new, **FULL, timestamp=seconds))

    expected = {TIME_FIELDS[new], *OWNED[new]}
    if new == "retried" and have != "failed":
        expected |= set(FAILURE)
    if new in {"sent", "received"}:
        expected |= set(CALL)
    assert written == expected
    assert document["state"] == STATES[have]


def test_a_retry_doesnt_overwrite_the_failure_of_a_critical_task() -> None:
    failed = task("failed", retries=1, exception="Final()", traceback="final")
    late = task("retried", exception="First()", traceback="first", timestamp=EARLIER)

    document = document_of(task("sent", timestamp=EARLIER), failed, late)

    assert document["state"] == "CRITICAL"
    assert document["exception"] == "Final()"
    assert document["trace"]["raw"] == "final"
    assert document["retried_at"] == EARLIER_MS


def test_a_retry_writes_its_failure_into_a_recovered_task() -> None:
    done = task("succeeded", retries=1)
    late = task("retried", exception="First()", traceback="first", timestamp=EARLIER)

    document = document_of(task("sent", timestamp=EARLIER), done, late)

    assert document["state"] == "RECOVERED"
    assert document["exception"] == "First()"
    assert document["trace"]["raw"] == "first"


@pytest.mark.parametrize("have", OPEN)
@pytest.mark.parametrize("new", OPEN)
def test_all_of_a_later_event_is_written(have: str, new: str) -> None:
    event = task(new, **FULL, timestamp=LATER)

    written, document = merged(task(have), event)

    assert written == everything(event)
    assert document["state"] == STATES[new]


@pytest.mark.parametrize("have", OPEN)
@pytest.mark.parametrize("new", OPEN)
@pytest.mark.parametrize("seconds", [EARLIER, SECONDS])
def test_what_is_not_later_writes_only_what_it_may(have: str, new: str, seconds: float) -> None:
    written, document = merged(task(have), task(new, **FULL, timestamp=seconds))

    expected = {TIME_FIELDS[new], *OWNED[new]}
    if new == "retried":
        expected |= set(FAILURE)
    if new in {"sent", "received"} and have not in {"sent", "received"}:
        expected |= set(CALL)
    assert written == (set() if new == have else expected)
    assert document["state"] == STATES[have]


def test_times_are_compared_as_they_are_told_by_exact_timestamp() -> None:
    # As floats the two are equal, so the second is no later.
    document = document_of(
        task("sent", timestamp=2**53, clock=1), task("started", timestamp=2**53 + 1, clock=2)
    )

    assert document["state"] == "QUEUED"


def test_only_what_an_event_has_is_written() -> None:
    document = document_of(
        task("sent", **FULL), task("received", timestamp=LATER, args=None, name=None)
    )

    assert document["args_0"] == "new"
    assert document["name_parts"] == {"module": "new", "function": "task"}
    assert document["client"] == "new"
    assert document["worker"] == "celery@vm"


def test_arguments_beyond_those_of_a_later_event_stay() -> None:
    document = document_of(
        task("sent", args="(1, 2, 3)"), task("received", args="('x',)", timestamp=LATER)
    )

    assert [document[f"args_{index}"] for index in range(3)] == ["x", "2", "3"]
    assert document["args"] == "('x',)"


def test_arguments_of_a_late_event_overwrite_as_many_as_they_are() -> None:
    document = document_of(
        task("started", args="(1, 2, 3)"),
        task("received", args="('x',)", timestamp=EARLIER),
        task("sent", args="()", timestamp=EARLIER),
    )

    assert [document[f"args_{index}"] for index in range(3)] == ["x", "2", "3"]
    assert document["args"] == "()"


def test_keyword_arguments_are_overwritten_as_a_whole() -> None:
    document = document_of(
        task("sent", kwargs="{'a': 1}"), task("received", kwargs="{'b': 2}", timestamp=LATER)
    )

    assert document["kwargs_flattened"] == {"b": 2}


def test_an_exception_without_a_traceback_leaves_the_trace_of_the_one_before() -> None:
    retried = task("retried", exception="A()", traceback="x celery.exceptions.Retry: y")
    document = document_of(retried, task("failed", exception="B()", timestamp=LATER))

    assert document["exception"] == "B()"
    assert document["error"]["message"] == "A()"


def test_a_traceback_without_an_exception_has_none_of_the_one_before() -> None:
    first = task("retried", exception="A()", traceback="celery.exceptions.Retry: x")
    second = task("retried", traceback="celery.exceptions.Retry: y", timestamp=LATER)

    document = document_of(first, second)

    assert document["exception"] == "A()"
    assert document["error"]["message"] == ""
    assert document["trace"]["raw"] == "celery.exceptions.Retry: "


@pytest.mark.parametrize(("outcome", "state"), [("failed", "CRITICAL"), ("succeeded", "RECOVERED")])
def test_a_task_that_was_retried_ends_as_critical_or_recovered(outcome: str, state: str) -> None:
    document = document_of(task("received", retries=1), task(outcome, timestamp=LATER))

    assert document["state"] == state
    assert document["events"] == [STATES[outcome], "RECEIVED"]


@pytest.mark.parametrize(("outcome", "state"), [("failed", "CRITICAL"), ("succeeded", "RECOVERED")])
def test_an_outcome_that_retries_have_renamed_is_as_terminal(outcome: str, state: str) -> None:
    done = [task("received", retries=1), task(outcome, timestamp=LATER)]

    document = document_of(*done, task("started", **FULL, timestamp=LATER + 1))

    assert document["state"] == state
    assert document["started_at"] == LATER_MS + 1000
    assert document["pid"] == 7


@pytest.mark.parametrize("outcome", ["rejected", "revoked", "started", "retried"])
def test_other_states_are_the_same_with_retries(outcome: str) -> None:
    document = document_of(task("received", retries=1), task(outcome, timestamp=LATER))

    assert document["state"] == STATES[outcome]


@pytest.mark.parametrize("retries", [0, -1, None])
def test_without_retries_a_task_fails_or_succeeds_as_it_is(retries: int | None) -> None:
    document = document_of(task("received", retries=retries), task("failed", timestamp=LATER))

    assert document["state"] == "FAILED"


def test_the_number_of_retries_may_come_after_the_outcome() -> None:
    late = task("received", retries=2, timestamp=EARLIER)

    assert document_of(task("failed"), late)["state"] == "CRITICAL"
    assert document_of(task("succeeded"), late)["state"] == "RECOVERED"


def test_a_lone_event_is_not_renamed_but_any_merge_renames_it() -> None:
    assert document_of(task("failed", retries=1))["state"] == "FAILED"
    late = task("started", timestamp=EARLIER)
    assert document_of(task("failed", retries=1), late)["state"] == "CRITICAL"
    assert document_of(task("failed", retries=1), task("failed"))["state"] == "CRITICAL"


def test_a_name_that_retries_gave_stays_when_they_are_taken_back() -> None:
    document = document_of(
        task("failed", retries=1),
        task("received", retries=1, timestamp=EARLIER),
        task("sent", retries=0, timestamp=EARLIER),
    )

    assert document["retries"] == 0
    assert document["state"] == "CRITICAL"


@pytest.mark.parametrize("field", ["root_id", "parent_id"])
def test_an_id_that_is_the_tasks_own_goes_with_the_first_merge(field: str) -> None:
    event = task("sent", **{field: "t1"})

    assert document_of(event)[field] == "t1"
    assert field not in document_of(event, task("started", timestamp=LATER))
    assert field not in document_of(task("started"), event)
    assert document_of(task("sent", **{field: "other"}), task("started"))[field] == "other"


def test_each_event_is_counted_whatever_it_writes() -> None:
    assert document_of(task("sent"), task("sent"), task("sent"))["events_count"] == 3
    assert document_of(worker("online"), worker("online"), worker("online"))["events_count"] == 3
    assert "events" not in document_of(worker("online"), worker("online"))


def test_events_tell_the_states_from_the_last_to_the_first_as_they_came() -> None:
    document = document_of(task("started"), task("succeeded", timestamp=LATER), task("sent"))

    assert document["events"] == ["QUEUED", "SUCCEEDED", "STARTED"]


@pytest.mark.parametrize("count", [20, 21, 22, 60])
def test_events_remember_the_last_and_twenty_before_it(count: int) -> None:
    events = [task("sent" if index else "received") for index in range(count)]

    document = document_of(*events)

    kept = ["QUEUED"] * count
    kept[-1] = "RECEIVED"
    assert document["events"] == kept[:21]
    assert document["events_count"] == count


# Workers

LOAD = {"active": 1, "processed": 2, "freq": 3, "loadavg": [4]}
REST = {"clock": 1, "pid": 1, "utcoffset": 1, "sw_ident": "new", "sw_ver": "new", "sw_sys": "new"}
WORKERS = {
    "online": {"online_at"},
    "heartbeat": {"last_heartbeat_at", *LOAD},
    "offline": {"offline_at"},
}


@pytest.mark.parametrize("have", WORKERS)
@pytest.mark.parametrize("new", WORKERS)
def test_all_of_a_later_worker_event_is_written(have: str, new: str) -> None:
    event = worker(new, **LOAD, **REST, timestamp=LATER)

    written, document = merged(worker(have), event)

    assert written == everything(event) - {"hostname"}
    assert document["state"] == new.upper()


@pytest.mark.parametrize("have", WORKERS)
@pytest.mark.parametrize("new", WORKERS)
@pytest.mark.parametrize("seconds", [EARLIER, SECONDS])
def test_a_worker_event_that_is_not_later_writes_what_its_state_owns(
    have: str, new: str, seconds: float
) -> None:
    written, document = merged(worker(have), worker(new, **LOAD, **REST, timestamp=seconds))

    assert written == (set() if new == have else WORKERS[new])
    assert document["state"] == have.upper()
