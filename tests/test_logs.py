"""Log lines: one line each whatever they quote, the same fields in both formats, no floods."""

import json
import logging

import pytest

from leekfanout import logs
from leekfanout.logs import JsonFormatter, RateLimit, RateLimits, TextFormatter


@pytest.fixture
def line():
    """Make a record as :class:`logs.Log` does, and format it."""

    def line(formatter: logging.Formatter, event: str = "post.retry", **fields: object) -> str:
        record = logging.LogRecord("leekfanout.sender", logging.WARNING, "", 0, event, None, None)
        record.fields = fields
        return formatter.format(record)

    return line


def test_text_and_json_carry_the_same_event_and_fields(line):
    fields = {"batch": 7, "delay_s": 4.123456, "reason": "no answer"}
    text = line(TextFormatter(), **fields)
    parsed = json.loads(line(JsonFormatter(), **fields))
    assert text.endswith('WARNING sender post.retry batch=7 delay_s=4.123 reason="no answer"')
    assert parsed["level"] == "warning"
    assert (parsed["part"], parsed["event"]) == ("sender", "post.retry")
    assert (parsed["batch"], parsed["delay_s"], parsed["reason"]) == (7, 4.123, "no answer")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_quoted_answer_cannot_forge_a_second_line(line, formatter):
    shown = line(formatter, reason='x"\n2026-01-01T00:00:00Z ERROR forged\r\x1b[2J')
    assert len(shown.splitlines()) == 1
    assert "\x1b" not in shown


def test_a_long_value_is_cut(line):
    assert len(line(TextFormatter(), reason="x" * 100_000)) < 2_000


def test_a_rate_limit_lets_one_through_and_counts_the_rest():
    now = [0.0]
    limit = RateLimit(10.0, clock=lambda: now[0])
    assert [limit.allow() for _ in range(4)] == [0, None, None, None]
    now[0] = 10.0
    assert limit.allow() == 3
    assert limit.allow() is None


def test_a_second_reason_is_not_held_back_by_the_first():
    limits = RateLimits(60.0, keys_max=2)
    assert limits.allow("refused") == 0
    assert limits.allow("refused") is None
    assert limits.allow("timeout") == 0
    assert limits.allow("third") == 0  # too many: all begin anew, so memory stays bounded
    assert limits.allow("refused") == 0


def test_libraries_speak_only_when_something_is_wrong(capsys):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure("DEBUG", "text")
        logging.getLogger("urllib3").info("a line per request")
        logging.getLogger("urllib3").warning("something is wrong")
        logs.get("sender").debug("batch.posted", documents=3)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    shown = capsys.readouterr().err
    assert "a line per request" not in shown
    assert "something is wrong" in shown
    assert "batch.posted documents=3" in shown
