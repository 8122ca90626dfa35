"""What the HTTP interface is, as an OpenAPI 3.1 description."""

from typing import Any, Final

from leekfanout.configuration.rules import AnyObject, Choice, Key, Number, Object, Text
from leekfanout.configuration.validation import SUBSCRIPTION_KEYS
from leekfanout.version import VERSION
from leekfanout.web.orders import PROCESS_NAME

Schema = dict[str, Any]

_OK: Final[Schema] = {"type": "object"}
_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer"}
_YES_NO: Final[Schema] = {"type": "boolean"}

_MEANINGS: Final = {
    400: "The request, or what it holds, is not valid.",
    401: "The token is missing or wrong.",
    403: "A request with a cookie lacks its CSRF token.",
    404: "There is no such thing.",
    409: "It can't be done as things are.",
    412: "There is a subscription of this name already.",
    413: "The body is too large.",
    429: "Too many wrong tokens: wait as Retry-After says.",
    503: "The agent, the broker or the API can't be reached.",
}


def description() -> Schema:
    """Return the description of all routes that speak JSON."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "leekfanout's agent page",
            "version": VERSION,
            "description": "Leek's routes for its agent under /v1, and the page's own under /agent.",
        },
        "security": [{"token": []}, {"session": []}],
        "paths": {**_leek_paths(), **_page_paths()},
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "leekfanout_session"},
            },
            "schemas": {
                "Error": _error(),
                "Process": _process(),
                "Subscription": _subscription(),
                "SavedSubscription": _saved(),
            },
        },
    }


def _leek_paths() -> Schema:
    process, saved = _ref("Process"), _ref("SavedSubscription")
    return {
        "/v1/agent/control": {
            "get": _operation("How the agent is", process, 503),
            "post": _operation("Start the agent, or restart it", process, 400, 409, 503),
            "delete": _operation("Drain and stop the agent", process, 409, 503),
        },
        "/v1/agent/subscriptions": {
            "get": _operation("All subscriptions", {"type": "array", "items": saved}, 400, 409),
            "post": _operation(
                "Add a subscription whose broker and API take it (401: one of them refuses)",
                saved,
                *(400, 409, 412, 413, 503),
                body=_ref("Subscription"),
            ),
        },
        "/v1/agent/subscriptions/{name}": {
            "parameters": [_name()],
            "delete": _operation(
                "Remove a subscription, and its queue too if asked to",
                _object(name=_TEXT, queue=_TEXT, note=_TEXT),
                *(400, 404, 409, 503),
                parameters=[_flag("delete_queue"), _flag("force")],
            ),
        },
    }


def _page_paths() -> Schema:
    one = "/agent/api/subscriptions/{name}"
    which = {
        "anyOf": [
            {
                "type": "object",
                "required": ["ids"],
                "properties": {
                    "ids": {
                        "type": "array",
                        "items": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
                        "minItems": 1,
                        "maxItems": 1_000,
                    }
                },
            },
            {"type": "object", "required": ["all"], "properties": {"all": {"const": True}}},
        ]
    }
    process = _name(PROCESS_NAME)
    letter = _object(id=_COUNT, at={"type": "number"}, kind=_TEXT, reason=_TEXT, size_bytes=_COUNT)
    replayed = _object(delivered=_COUNT, staying=_OK, stopped={"type": ["string", "null"]})
    done = _object(done={"type": "array", "items": _TEXT})
    check = _object(ok=_YES_NO, words=_TEXT, advice=_TEXT)
    return {
        "/agent/api/validate": {
            "post": _operation(
                "What is wrong with a subscription, without asking anybody",
                _object(problems={"type": "array", "items": _object(key=_TEXT, rule=_TEXT)}),
                *(400, 413),
                body=_OK,
            )
        },
        "/agent/api/check": {
            "post": _operation(
                "Ask a subscription's broker and API",
                _object(broker=check, api=check),
                *(400, 413),
                body=_ref("Subscription"),
            )
        },
        "/agent/api/reload": {
            "post": _operation("Take up what the subscriptions' file says", _OK, 400, 503)
        },
        "/agent/api/all/{order}": {
            "parameters": [_order()],
            "post": _operation("Start, stop or restart all", done, 404, 409, 503),
        },
        f"{one}/{{order}}": {
            "parameters": [process, _order()],
            "post": _operation("Start, stop or restart one process", done, 404, 409, 503),
        },
        f"{one}/log": {
            "parameters": [process],
            "get": _operation(
                "The end of its log",
                _object(content=_TEXT, offset=_COUNT, skipped=_YES_NO),
                *(400, 404, 503),
                parameters=[_query("offset", 999_999_999)],
            ),
        },
        f"{one}/letters": {
            "parameters": [process],
            "get": _operation(
                "Dead letters, the oldest first",
                _object(total=_COUNT, more=_YES_NO, letters={"type": "array", "items": letter}),
                *(400, 404, 503),
                parameters=[_query("after", 10**18 - 1)],
            ),
        },
        f"{one}/letters/{{id}}": {
            "parameters": [
                process,
                {
                    "name": "id",
                    "in": "path",
                    "required": True,
                    "schema": {"type": "integer", "minimum": 1},
                },
            ],
            "get": _operation("One dead letter with its payload", letter, 404, 503),
        },
        f"{one}/letters/replay": {
            "parameters": [process],
            "post": _operation(
                "Deliver again, and remove what is confirmed",
                replayed,
                *(400, 404, 409, 413, 503),
                body=which,
            ),
        },
        f"{one}/letters/purge": {
            "parameters": [process],
            "post": _operation(
                "Remove for good", _object(purged=_COUNT), *(400, 404, 413, 503), body=which
            ),
        },
    }


def _operation(
    summary: str,
    answer: Schema,
    *errors: int,
    body: Schema | None = None,
    parameters: list[Schema] | None = None,
) -> Schema:
    statuses = sorted({*errors, 401, 403, 429})
    operation: Schema = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done.", "content": _json(answer)},
            **{
                str(status): {"description": _MEANINGS[status], "content": _json(_ref("Error"))}
                for status in statuses
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    if parameters:
        operation["parameters"] = parameters
    return operation


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _error() -> Schema:
    return _object(error=_object(code=_TEXT, message=_TEXT, reason=_TEXT))


def _process() -> Schema:
    return _object(
        **dict.fromkeys(("name", "statename", "description", "spawnerr"), _TEXT),
        **dict.fromkeys(("start", "stop", "now", "state", "pid"), _COUNT),
        type={"enum": ["local"]},
    )


def _name(pattern: str = "[a-z]+-[a-z]+") -> Schema:
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return {"name": "name", "in": "path", "required": True, "schema": schema}


def _order() -> Schema:
    schema = {"enum": ["start", "stop", "restart"]}
    return {"name": "order", "in": "path", "required": True, "schema": schema}


def _flag(name: str) -> Schema:
    return {"name": name, "in": "query", "schema": {"enum": ["true", "false"]}}


def _query(name: str, most: int) -> Schema:
    schema = {"type": "integer", "minimum": 0, "maximum": most}
    return {"name": name, "in": "query", "schema": schema}


def _subscription() -> Schema:
    return {
        "type": "object",
        "properties": {key.name: _schema_of(key) for key in SUBSCRIPTION_KEYS},
        "required": [key.name for key in SUBSCRIPTION_KEYS if key.required == "it is required"],
        "additionalProperties": False,
    }


def _saved() -> Schema:
    """Describe a subscription as it is written down, valid or not; secrets are ``***``."""
    return {
        "type": "object",
        "required": ["name"],
        "properties": {"name": _TEXT, "note": _TEXT},
    }


def _schema_of(key: Key) -> Schema:
    schema: Schema
    match key.kind:
        case Number(least=least, above=above, most=most, whole=whole):
            schema = {"type": "integer" if whole else "number", "maximum": most}
            if least is not None:
                schema["minimum"] = least
            if above is not None:
                schema["exclusiveMinimum"] = above
        case Choice(values=values):
            schema = {"enum": list(values)}
        case Object() | AnyObject():
            schema = {"type": "object"}
        case Text(pattern=pattern):
            schema = {"type": "string", "pattern": f"^{pattern}$"}
        case _:
            schema = {"type": "string"}
    description = f"{key.meaning} It {key.kind.rule}."
    if not key.required:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "description": description}
