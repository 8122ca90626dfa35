"""What an answer means: the table of answers, Retry-After, and the delays between attempts."""

import random
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.delivery.outcome import (
    CONFLICTS_BEFORE_HALVING,
    FAILURES_BEFORE_BISECT,
    FAILURES_BEFORE_HALVING,
    PAUSES_BEFORE_HALVING,
    REASON_MAX_CHARACTERS,
    REFUSALS_BEFORE_BISECT,
    RETRY_AFTER_MAX_S,
    RETRY_DELAY_BASE_S,
    RETRY_DELAY_MAX_S,
    Answer,
    Others,
    Outcome,
    Verdict,
    failed_enough,
    is_ready,
    judge,
    refused_enough,
    retry_after_s,
    retry_delay_s,
)

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def answer(status: int | None, body: object = b"", **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return Answer(status, {name.replace("_", "-"): each for name, each in headers.items()}, content)


def leek_error(code: str) -> dict[str, object]:
    return {"error": {"code": code, "message": "Something", "reason": "Some reason"}}


def refusing(*entries: object, failed: object = None) -> dict[str, object]:
    body: dict[str, object] = {"success": 7, "errors": list(entries)}
    if failed is not None:
        body["failed"] = failed
    return body


def entry(document_id: object, status: object = 400) -> dict[str, object]:
    return {"update": {"_id": document_id, "status": status, "error": {"type": "x"}}}


@pytest.mark.parametrize(
    ("given_answer", "verdict"),
    [
        (answer(201, {"success": 3}), Verdict.CONFIRMED),
        (answer(201, "Some documents were too large"), Verdict.CONFIRMED),
        (answer(201), Verdict.CONFIRMED),
        (answer(201, b"\xff\xfe no text"), Verdict.CONFIRMED),
        # Not a confirmation: a proxy's or a login page's answer.
        *((answer(status), Verdict.RETRY) for status in (200, 202, 204, 206, 299)),
        *((answer(status, b"<html>"), Verdict.RETRY) for status in (301, 302, 303, 304, 307, 308)),
        (answer(101), Verdict.RETRY),
        (Answer(None), Verdict.RETRY),
        (Answer(None, error="the API refuses connections"), Verdict.RETRY),
        *((answer(status), Verdict.RETRY) for status in (408, 425, 429)),
        *((answer(status), Verdict.RETRY) for status in (500, 501, 502, 503, 504, 507, 511, 599)),
        (answer(503, leek_error("503")), Verdict.RETRY),
        (answer(999), Verdict.RETRY),
        *((answer(status, leek_error(str(status))), Verdict.PAUSE) for status in (401, 403, 404)),
        *((answer(status, b"<html>"), Verdict.PAUSE) for status in (401, 403, 404)),
        (answer(400, leek_error("400")), Verdict.PAUSE),
        # These speak of the URL, the connection or the proxy, and of no document.
        *((answer(status), Verdict.PAUSE) for status in (402, 405, 407, 410, 421, 426, 431)),
        (answer(413), Verdict.SPLIT),
        (answer(413, b"<html>413 Request Entity Too Large</html>"), Verdict.SPLIT),
        (answer(400, refusing(entry("a"), failed=1)), Verdict.REFUSED),
        (answer(400, refusing(entry("a"))), Verdict.REFUSED),
        (answer(400, {"errors": []}), Verdict.BISECT),
        (answer(400, {"errors": "many"}), Verdict.BISECT),
        (answer(400, {"errors": [None, 3, [], {}, {"update": 4}, entry(5)]}), Verdict.BISECT),
        (answer(400, b""), Verdict.BISECT),
        (answer(400, b"<html>"), Verdict.BISECT),
        (answer(400, b"[" * 5000), Verdict.BISECT),
        (answer(400, [1, 2]), Verdict.BISECT),
        (answer(400, {"error": "a string"}), Verdict.BISECT),
        (answer(409, "Conflict"), Verdict.BISECT),
        (answer(409), Verdict.BISECT),
        *((answer(status), Verdict.BISECT) for status in (406, 411, 415, 418, 422, 424, 451, 499)),
    ],
)
def test_each_answer_has_its_verdict(given_answer: Answer, verdict: Verdict) -> None:
    assert judge(given_answer, NOW).verdict is verdict


@given(
    st.integers(100, 999) | st.none(),
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["errors", "error", "failed", "update", "_id", "status", "reason"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(orjson.dumps),
    st.text(max_size=40),
)
def test_no_answer_is_too_strange_to_be_judged(
    status: int | None, body: bytes, retry_after: str
) -> None:
    outcome = judge(Answer(status, {"Retry-After": retry_after}, body, "no answer"), NOW)
    assert outcome.verdict in Verdict
    assert outcome.reason
    assert len(outcome.reason) <= REASON_MAX_CHARACTERS
    assert (outcome.verdict is Verdict.REFUSED) == bool(outcome.refusals)


@given(st.integers(100, 999))
def test_nothing_but_201_confirms(status: int) -> None:
    assert (judge(answer(status)).verdict is Verdict.CONFIRMED) == (status == 201)


def test_the_reason_says_what_the_api_said() -> None:
    assert judge(answer(503, leek_error("503"))).reason == "HTTP 503 Some reason"
    assert judge(answer(409, "Conflict")).reason == "HTTP 409 Conflict"
    assert (
        judge(answer(400, refusing(entry("a"), failed=4))).reason
        == "HTTP 400 (documents refused: 4)"
    )
    assert judge(answer(502, b"<html>")).reason == "HTTP 502"
    assert judge(answer(500, {"error": {"message": "Oops"}})).reason == "HTTP 500 Oops"
    assert judge(Answer(None, error="the API refuses connections")).reason == (
        "the API refuses connections"
    )


def test_refused_documents_are_named_with_what_the_api_says_of_each() -> None:
    outcome = judge(answer(400, refusing(entry("a"), {"index": {"_id": "b", "status": 400}})))
    assert [refusal.document_id for refusal in outcome.refusals] == ["a", "b"]
    assert orjson.loads(outcome.refusals[0].answer) == entry("a")["update"]


@pytest.mark.parametrize(
    ("status", "tries"),
    [
        *((status, 1) for status in (400, 404, "429", None, 4.5, [])),
        (409, REFUSALS_BEFORE_BISECT),
        *((status, FAILURES_BEFORE_BISECT) for status in (429, 500, 503)),
    ],
)
def test_a_refusal_that_may_pass_is_met_with_more_tries(status: object, tries: int) -> None:
    (refusal,) = judge(answer(400, refusing(entry("a", status)))).refusals
    assert refusal.tries == tries


@pytest.mark.parametrize(
    ("body", "names_all"),
    [
        (refusing(entry("a"), entry("b"), failed=2), True),
        (refusing(entry("a"), entry("b")), True),
        (refusing(entry("a"), entry("b"), failed=1), True),
        (refusing(entry("a"), entry("b"), failed="two"), True),
        (refusing(entry("a"), entry("b"), failed=3), False),
        # An entry that names nothing stands for a document that is refused all the same.
        (refusing(entry("a"), "and others"), False),
        (refusing(entry("a"), entry(None)), False),
        (refusing(entry("a"), entry("a"), failed=2), False),
    ],
)
def test_an_answer_that_names_fewer_than_it_refuses_is_noticed(
    body: dict[str, object], names_all: bool
) -> None:
    assert judge(answer(400, body)).names_all is names_all


def test_only_a_get_with_200_says_that_the_api_is_ready() -> None:
    assert is_ready(answer(200, "Ready!"))
    for status in (None, 201, 204, 302, 400, 401, 404, 429, 500, 503):
        assert not is_ready(Answer(status))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("   ", None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("3600", 3600.0),
        ("3601", RETRY_AFTER_MAX_S),
        ("9" * 5000, RETRY_AFTER_MAX_S),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("0x10", None),
        ("²", None),
        ("٣", None),
        ("soon", None),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),
        ("Tue, 24 Nov 2026 13:00:30 +0100", 30.0),
        ("Tuesday, 24-Nov-26 12:01:00 GMT", 60.0),
        ("Tue, 24 Nov 2026 11:59:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX_S),
        ("Tue, 99 Nov 2026 12:00:30 GMT", None),
        ("Tue, 24 Nov 99999999999999999999 12:00:30 GMT", None),
        ("Tue, 24 Nov 2026 12:00:30 +99999999999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_rubbish_is_none(
    value: str, seconds: float | None
) -> None:
    assert retry_after_s({"Retry-After": value}, NOW) == seconds
    assert judge(answer(503, Retry_After=value), NOW).retry_after_s == seconds


def test_an_answer_without_retry_after_asks_for_no_delay() -> None:
    assert retry_after_s({}, NOW) is None


DATE_PARTS = st.sampled_from(
    ["Mon,", "1", "Jan", "January", "2026", "9" * 20, "0000", "10000", "12:00:60", "12:00", "12.30.9.1",
     "GMT", "+0000", "-9999", "+99999999", "EST", ",", ":", "-", "1.5", "٣", "99"]
)  # fmt: skip


@given(
    st.lists(DATE_PARTS, max_size=8).map(" ".join)
    | st.text(max_size=30)
    | st.text(alphabet="0123456789:+-,. JanMoGT", max_size=40)
)
def test_retry_after_is_bounded_whatever_is_written_there(value: str) -> None:
    seconds = retry_after_s({"Retry-After": value}, NOW)
    assert seconds is None or 0.0 <= seconds <= RETRY_AFTER_MAX_S


@given(st.integers(-10_000, 10_000))
def test_a_date_asks_for_the_time_until_then(offset_s: int) -> None:
    date = (NOW + timedelta(seconds=offset_s)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert retry_after_s({"Retry-After": date}, NOW) == min(max(offset_s, 0), RETRY_AFTER_MAX_S)


@given(st.integers(1, 10**6), st.integers())
def test_a_retry_delay_is_jittered_below_an_exponential_cap(attempt: int, seed: int) -> None:
    delay_s = retry_delay_s(attempt, random.Random(seed))
    cap_s = min(RETRY_DELAY_MAX_S, RETRY_DELAY_BASE_S * 2 ** min(attempt - 1, 20))
    assert 0.0 <= delay_s <= cap_s


def test_the_jitter_is_full() -> None:
    randomness = random.Random(1)
    for attempt, cap_s in ((1, 0.5), (2, 1.0), (5, 8.0), (8, 60.0), (1000, 60.0)):
        delays = [retry_delay_s(attempt, randomness) for _ in range(1000)]
        assert min(delays) < 0.1 * cap_s
        assert max(delays) > 0.9 * cap_s


# When a body is cut, or a document given up


@pytest.mark.parametrize(
    ("given_answer", "documents", "suspect", "times"),
    [
        (answer(422), 2, False, 1),
        (answer(409), 2, False, CONFLICTS_BEFORE_HALVING),
        (answer(409), 2, True, 1),
        (answer(422), 1, True, REFUSALS_BEFORE_BISECT),
        (answer(409), 1, False, REFUSALS_BEFORE_BISECT),
    ],
)
def test_a_body_is_cut_soon_and_a_refused_document_has_all_its_chances(
    given_answer: Answer, documents: int, suspect: bool, times: int
) -> None:
    def enough(refusals: int) -> bool:
        return refused_enough(
            judge(given_answer), documents=documents, refusals=refusals, suspect=suspect
        )

    assert [enough(number) for number in range(1, times + 2)] == [False] * (times - 1) + [True] * 2


@pytest.mark.parametrize(
    ("given_answer", "suspect", "confirmed", "times"),
    [
        (answer(500), False, 0, FAILURES_BEFORE_HALVING),
        (answer(403), False, 99, PAUSES_BEFORE_HALVING),
        (answer(404), True, 0, PAUSES_BEFORE_HALVING),
        (Answer(None), True, 0, FAILURES_BEFORE_HALVING),
        (answer(500), True, 1, 1),
        *((answer(status), False, 0, FAILURES_BEFORE_BISECT) for status in (200, 302, 429, 503)),
        (answer(500, Retry_After="1"), False, 0, FAILURES_BEFORE_BISECT),
    ],
)
def test_a_body_that_fails_again_and_again_is_cut_whatever_becomes_of_others(
    given_answer: Answer, suspect: bool, confirmed: int, times: int
) -> None:
    def enough(failures: int) -> bool:
        return failed_enough(
            judge(given_answer),
            documents=2,
            failures=failures,
            others=Others(confirmed, 0),
            suspect=suspect,
        )

    assert [enough(number) for number in range(1, times + 2)] == [False] * (times - 1) + [True] * 2


@given(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100), st.booleans())
def test_a_document_is_given_up_only_while_others_are_confirmed_as_often_as_it_and_they_fail(
    failures: int, confirmed: int, failed: int, suspect: bool
) -> None:
    gives_up = failed_enough(
        Outcome(Verdict.RETRY, "HTTP 500"),
        documents=1,
        failures=failures,
        others=Others(confirmed, failed),
        suspect=suspect,
    )
    assert gives_up == (FAILURES_BEFORE_BISECT < failures <= confirmed and failed <= confirmed)
