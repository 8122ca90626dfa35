"""What the page's routes answer: JSON, and errors in the shape that Leek gives them."""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from leekfanout import logs
from leekfanout.control.control_client import NoAgentError, RefusedError
from leekfanout.control.rpc import Fault
from leekfanout.errors import (
    ConfigError,
    FixedConfigError,
    LeekfanoutError,
    StoreError,
    SubscriptionExistsError,
    SubscriptionRefusedError,
    SubscriptionUnknownError,
)

BODY: Final = "leekfanout.body"
"""Where a request's scope holds its whole body, which has been read and bounded before."""

_STRICT: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

log = logs.get("web")

_STATUSES: Final = (
    (FixedConfigError, HTTPStatus.CONFLICT),
    (ConfigError, HTTPStatus.BAD_REQUEST),
    (SubscriptionExistsError, HTTPStatus.PRECONDITION_FAILED),
    (SubscriptionUnknownError, HTTPStatus.NOT_FOUND),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (NoAgentError, HTTPStatus.SERVICE_UNAVAILABLE),
)

_FAULTS: Final = {
    Fault.BAD_NAME: HTTPStatus.NOT_FOUND,
    Fault.SHUTDOWN_STATE: HTTPStatus.SERVICE_UNAVAILABLE,
    Fault.CANT_REREAD: HTTPStatus.BAD_REQUEST,
    Fault.INCORRECT_PARAMETERS: HTTPStatus.BAD_REQUEST,
}


def route(path: str, **endpoints: Callable[[Request], Response]) -> Route:
    """Return one route for all methods of a path, so that a 405 can name each of them.

    The endpoints, by method, run on a worker thread.
    """

    def dispatch(request: Request) -> Response:
        return endpoints["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, dispatch, methods=list(endpoints))


class JsonReply(JSONResponse):
    """JSON that can be written whatever is in it: it shows files that anybody may have edited."""

    def render(self, content: Any) -> bytes:
        # ASCII, so that a lone surrogate, which has no UTF-8, stays the escape that it was.
        try:
            return _STRICT.encode(content).encode("ascii")
        except ValueError:  # NaN and infinities, which Python reads, but JSON hasn't
            spelt_out = json.loads(json.dumps(content), parse_constant=str)
            return _STRICT.encode(spelt_out).encode("ascii")


def error_reply(status: int, reason: str, headers: Mapping[str, str] | None = None) -> JsonReply:
    """Return an error as Leek's routes give it: ``{"error": {"code", "message", "reason"}}``."""
    message = HTTPStatus(status).phrase
    error = {"code": f"{status:d}001", "message": message, "reason": reason}
    return JsonReply({"error": error}, int(status), headers)


def body_of(request: Request) -> bytes:
    """Return the request's body."""
    body: bytes = request.scope.get(BODY, b"")
    return body


def json_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in a request's body; HTTPException 400 if it is anything else."""
    try:
        value = json.loads(body_of(request))
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "The body must be a JSON object.")
    return value


def status_of(error: LeekfanoutError) -> int:
    """Return the HTTP status that says what kind of error it is."""
    if isinstance(error, SubscriptionRefusedError):
        return HTTPStatus.UNAUTHORIZED if error.refused else HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, RefusedError):
        return next((status for code, status in _FAULTS.items() if code == error.code), 409)
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 409)


def on_known_error(_: Request, error: Exception) -> Response:
    """Answer with an error that leekfanout can name."""
    assert isinstance(error, LeekfanoutError)
    return error_reply(status_of(error), str(error))


def on_http_error(_: Request, error: Exception) -> Response:
    """Answer with an error of HTTP: no such route, a bad request."""
    assert isinstance(error, HTTPException)
    return error_reply(error.status_code, str(error.detail), error.headers)


def on_unknown_error(request: Request, error: Exception) -> Response:
    """Answer that something was overlooked; the log has the traceback."""
    return error_reply(500, "This is a fault in leekfanout: the agent's log has the traceback.")
