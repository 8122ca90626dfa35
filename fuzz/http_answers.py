"""What a server has sent: HTTP answers that a client can read, none of which owns up to a fault."""

import re

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n")


def check_answers(sent: bytes) -> None:
    """Raise unless it is nothing, or begins with an answer; a 500 is a fault nobody foresaw."""
    if not sent:
        return
    first = _STATUS.match(sent)
    assert first is not None, sent[:200]
    for status in _STATUS.findall(sent):
        assert status != b"500", sent[:2_000]
