"""The contract's rules for a traceback."""

from typing import Any

import pytest

from tests.event_factory import document_of, task

FIRST = "Traceback (most recent call last):"
BODY = f'{FIRST}\n  File "/srv/t.py", line 7, in run\n    pay()\n'
RETRY = f'{BODY}celery.exceptions.Retry: Retry in 3s: ValueError("x")\n'


def failed(traceback: str, **fields: Any) -> dict[str, Any]:
    return document_of(task("failed", traceback=traceback, **fields))


def test_without_a_traceback_there_is_nothing_of_it() -> None:
    document = document_of(task("failed", exception="ValueError('x')"))

    assert document["exception"] == "ValueError('x')"
    assert {"traceback", "lang", "error", "stack", "trace"}.isdisjoint(document)


def test_a_python_traceback_tells_the_error_and_is_searchable_three_times() -> None:
    text = f"{BODY}shop.errors.Declined: card é: no\n"

    document = failed(text)

    assert document["traceback"] == text
    assert document["lang"] == "python"
    assert document["error"] == {"type": "shop.errors.Declined", "message": "card é: no"}
    assert document["stack"] == []
    assert document["trace"] == {"raw": text, "text": text, "wc": text}


@pytest.mark.parametrize(
    ("last_line", "error_type", "message"),
    [
        ("ValueError: x", "ValueError", "x"),
        ("ValueError:   x y ", "ValueError", "x y"),
        ("_a.b_1.C: x: y", "_a.b_1.C", "x: y"),
        ("a.Bé: x", "a.Bé", "x"),
        ("a.B: x\r", "a.B", "x"),
        ("a.B: x\u2028y\ry", "a.B", "x\u2028y\ry"),
        ("KeyError", "", ""),
        ("KeyError:", "", ""),
        ("KeyError:x", "", ""),
        ("KeyError:\tx", "", ""),
        ("é.B: x", "", ""),
        ("a.é: x", "", ""),
        ("1a.B: x", "", ""),
        ("a..B: x", "", ""),
        (".B: x", "", ""),
        ("a.: x", "", ""),
        ("a b: x", "", ""),
        (": x", "", ""),
    ],
)
def test_the_last_line_gives_type_and_message_if_it_reads_so(
    last_line: str, error_type: str, message: str
) -> None:
    for end in ("", "\n", "\n\n  \n"):
        document = failed(BODY + last_line + end)

        assert document["lang"] == "python"
        assert document["error"] == {"type": error_type, "message": message}


def test_only_the_last_line_counts() -> None:
    assert failed(f"{BODY}ValueError: first\n  second\n")["error"] == {"type": "", "message": ""}
    assert failed(f"A: b\n{FIRST}\nC: d")["error"] == {"type": "C", "message": "d"}
    assert failed(FIRST)["error"] == {"type": "", "message": ""}


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        (FIRST, "python"),
        (f"{FIRST} and more", "python"),
        (f"before\n{FIRST}\n", "python"),
        (f" {FIRST}\nValueError: x", "unknown"),
        (f"before {FIRST}\nValueError: x", "unknown"),
        (f"before\r{FIRST}\nValueError: x", "unknown"),
        ("Traceback (most recent call last)\nValueError: x", "unknown"),
        ("at Shop.pay(Shop.java:7)\nValueError: x", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_line_that_starts_a_traceback_makes_it_pythons(text: str, lang: str) -> None:
    document = failed(text)

    assert document["lang"] == lang
    assert document["trace"] == {"raw": text, "text": text, "wc": text}
    if lang == "unknown":
        assert document["error"] == {"type": "", "message": ""}
        assert document["stack"] == []


def test_a_long_traceback_is_cut_before_it_is_read() -> None:
    text = BODY + "  more\n" * 5_000 + "ValueError: never seen"
    starts_too_late = "x" * 29_980 + "\n" + BODY

    document = failed(text)

    assert document["trace"]["raw"] == document["traceback"] == text[:30_000]
    assert document["error"] == {"type": "", "message": ""}
    assert failed(starts_too_late)["lang"] == "unknown"


def test_a_retrys_trace_is_its_exception() -> None:
    document = failed(RETRY, exception="Retry in 3s: ValueError('x')")

    expected = "celery.exceptions.Retry: Retry in 3s: ValueError('x')"
    assert document["traceback"] == RETRY
    assert document["lang"] == "python"
    assert document["error"] == {
        "type": "celery.exceptions.Retry",
        "message": "Retry in 3s: ValueError('x')",
    }
    assert document["stack"] == []
    assert document["trace"] == {"raw": expected, "text": expected, "wc": expected}


def test_a_retry_without_an_exception_has_an_empty_message() -> None:
    document = failed("x celery.exceptions.Retry:")

    assert document["error"] == {"type": "celery.exceptions.Retry", "message": ""}
    assert document["trace"]["raw"] == "celery.exceptions.Retry: "


def test_a_retrys_exception_and_trace_are_cut_and_its_traceback_is_not() -> None:
    traceback = "x" * 40_000 + RETRY
    exception = "y" * 30_001

    document = failed(traceback, exception=exception)

    assert document["traceback"] == traceback
    assert document["exception"] == exception
    assert document["error"]["message"] == "y" * 30_000
    assert document["trace"]["raw"] == ("celery.exceptions.Retry: " + exception)[:30_000]


def test_a_word_like_retry_makes_no_retry() -> None:
    assert failed("celery.exceptions.Retry")["lang"] == "unknown"
    assert failed("celery.exceptions.RetryTaskError: x")["lang"] == "unknown"
