"""Live data for a browser: server-sent events (WHATWG HTML, section 9.2)."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from leekfanout.web.guard import SESSION
from leekfanout.web.replies import error_reply
from leekfanout.web.watch import EVERY_S, Look, Watch

STREAMS_MAX: Final = 32
LIFETIME_S: Final = 900.0
"""A browser opens the stream again, and has to show its cookie again."""

WAIT_S: Final = 1.0
"""How long a stream sleeps before it looks whether it should end."""


class Streams:
    """Sends every look at the agent to each browser that listens; a bounded number of them."""

    def __init__(self, watch: Watch, closing: Callable[[], bool]) -> None:
        """``closing`` says whether the page is about to end."""
        self._watch = watch
        self._closing = closing
        self._open = 0

    async def endpoint(self, request: Request) -> Response:
        """Answer ``GET /agent/events``: first ``history``, then ``look`` again and again."""
        if self._open >= STREAMS_MAX:
            return error_reply(503, "Too many pages are open: close some.")
        session = request.scope.get(SESSION)
        end = time.time() + LIFETIME_S
        if session is not None:
            end = min(end, session.expires_at)
        return StreamingResponse(self._events(end), media_type="text/event-stream")

    async def _events(self, end: float) -> AsyncIterator[bytes]:
        self._open += 1
        try:
            look: Look | None = self._watch.latest
            number = -1
            yield _event("history", {"every_s": EVERY_S, "rates": self._watch.history()})
            while time.time() < end and not self._closing():
                if look is not None and look.number != number:
                    # What the first look would add to the charts is in the history already.
                    regular, number = look.regular and number != -1, look.number
                    yield _event("look", {**_shown(look), "regular": regular})
                look = await self._watch.next_after(number, WAIT_S)
        finally:
            self._open -= 1


def _shown(look: Look) -> dict[str, Any]:
    return {
        "at": look.at,
        "age_s": time.time() - look.at,
        "state": look.state,
        "problem": look.problem,
        "pending": look.pending,
        "subscriptions": look.rows,
    }


def _event(name: str, data: dict[str, Any]) -> bytes:
    # JSON has no line breaks of its own, so it is one line of data.
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data))
