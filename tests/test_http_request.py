"""Reading a request from its bytes."""

from contextlib import suppress
from http import HTTPStatus
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.control.http_request import (
    BODY_MAX_BYTES,
    HEAD_MAX_BYTES,
    HttpError,
    Request,
    RequestReader,
    response,
)

WHOLE = b"POST /RPC2 HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: 5 \r\n\r\nhello"


@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=10))
def test_a_request_is_read_however_it_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(set(cuts)), len(WHOLE)]
    pieces = [WHOLE[start:end] for start, end in pairwise(places)]
    reader = RequestReader()
    *before, last = [reader.feed(piece) for piece in pieces]
    assert before == [None] * len(before)
    assert last == Request("POST", "/RPC2", b"hello")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"hello\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/2\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (
            b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
            HTTPStatus.BAD_REQUEST,
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (BODY_MAX_BYTES + 1),
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            HTTPStatus.LENGTH_REQUIRED,
        ),
        (b"x" * HEAD_MAX_BYTES, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)
def test_what_is_not_acceptable_is_refused_at_once(head: bytes, status: HTTPStatus) -> None:
    with pytest.raises(HttpError) as raised:
        RequestReader().feed(head)
    assert raised.value.status is status


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(received: bytes) -> None:
    with suppress(HttpError):
        RequestReader().feed(received)


def test_a_request_without_a_body_is_whole_with_its_head() -> None:
    assert RequestReader().feed(b"GET / HTTP/1.0\r\n\r\n") == Request("GET", "/", b"")


def test_a_response_tells_its_length_and_that_it_is_the_last() -> None:
    assert response(HTTPStatus.OK, b"<a/>", "text/xml") == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 4\r\n"
        b"Connection: close\r\n\r\n<a/>"
    )
