"""What hypothesis makes: events, reprs of arguments, tracebacks, batches; good, odd and broken."""

import json
from typing import Any

from hypothesis import strategies as st

ALL_CHARACTERS = st.characters(exclude_categories=())
"""Lone surrogates and control characters too."""

ODD_TEXTS = st.text(
    st.one_of(st.sampled_from("ab'\"\\\n\t{}[](),:#éü☃😀\ud800\udfff\x00 1eNTF"), ALL_CHARACTERS),
    max_size=12,
)
LONG_TEXTS = st.builds(
    lambda text, times: text * times, ODD_TEXTS, st.sampled_from([1, 1, 1, 10, 30, 300])
)
_KEYS = st.builds(lambda text, times: text * times, ODD_TEXTS, st.sampled_from([1, 1, 1, 15]))
"""Not so long that their repetition in paths is bounded: what is left out then is tested elsewhere."""

INTEGERS = st.one_of(
    st.integers(-3, 300),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 10**18, 10**19]),
)
FLOATS = st.one_of(st.floats(), st.floats(-1e3, 1e3), st.sampled_from([1e16, 1e22, 1e300, 5e-324]))

_HASHABLE = st.one_of(
    st.none(), st.booleans(), INTEGERS, FLOATS, _KEYS, st.binary(max_size=8), st.just(...)
)
_SCALARS = st.one_of(
    _HASHABLE, LONG_TEXTS, st.complex_numbers(allow_nan=False, allow_infinity=False)
)
_JSON_SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, FLOATS, LONG_TEXTS)


def _containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(items, max_size=4),
        st.lists(items, max_size=4).map(tuple),
        st.dictionaries(_KEYS, items, max_size=4),
        st.dictionaries(st.one_of(_HASHABLE, st.tuples(_HASHABLE)), items, max_size=3),
        st.sets(st.integers(0, 50), max_size=3),
    )


def literal_values() -> st.SearchStrategy[Any]:
    """Whatever has a repr that could be a literal; not all do: NaN, an empty set's key."""
    return st.recursive(_SCALARS, _containers, max_leaves=12)


def json_values() -> st.SearchStrategy[Any]:
    return st.recursive(
        _JSON_SCALARS,
        lambda items: st.one_of(
            st.lists(items, max_size=4), st.dictionaries(_KEYS, items, max_size=4)
        ),
        max_leaves=12,
    )


@st.composite
def _nested(draw: st.DrawFn) -> Any:
    """Something at a depth around that where Leek's paths end."""
    value = draw(literal_values())
    for _ in range(draw(st.integers(8, 16))):
        value = {draw(st.sampled_from("ab.")): value} if draw(st.booleans()) else [value]
    return value


_LONG_LISTS = st.builds(
    lambda item, times: [item] * times,
    st.one_of(_SCALARS, st.sampled_from([[], {"a": 1}, (1,)])),
    st.sampled_from([99, 100, 101]),
)
"""Of short items: what has more tokens than Python's parser is given is tested elsewhere."""

_WORDS = (
    "( ) [ ] { } , : ' \" ''' \\ \\n \\' \\\" \\x41 \\ud800 None True False null true NaN e 1 -1 1.5 "
    "1e5 1e999 - + j b r u f set() ... 'a' \"b\" b'c' 0x1f 1_0 01 99999999999999999999 # é <a> "
    "'a': {'a': (1, [1, (1) (1,) 'a',"
)
_TOKENS = st.sampled_from([*_WORDS.split(), " ", "\n", "\t", "\r", "\x00", "", ", "])


@st.composite
def spoiled_texts(draw: st.DrawFn) -> str:
    """Texts that are almost literals, or of the parts that literals have."""
    if draw(st.booleans()):
        return "".join(draw(st.lists(_TOKENS, max_size=14)))
    text = repr(draw(literal_values()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        until = at + draw(st.sampled_from([0, 0, 1, 2]))
        text = text[:at] + draw(_TOKENS) + text[until:]
    return text


def args_texts() -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(literal_values(), max_size=12).map(lambda items: repr(tuple(items))),
        literal_values().map(repr),
        _LONG_LISTS.map(repr),
        spoiled_texts(),
        LONG_TEXTS,
        st.sampled_from(["", "()", "None", "(1, 2, ...)", "('a', 'b...')", "(<User: 7>, 1)"]),
    )


def kwargs_texts() -> st.SearchStrategy[str]:
    mappings = st.dictionaries(
        _KEYS, st.one_of(literal_values(), _LONG_LISTS, _nested()), max_size=4
    )
    json_mappings = st.dictionaries(_KEYS, json_values(), max_size=4)
    return st.one_of(
        mappings.map(repr),
        json_mappings.map(json.dumps),
        json_mappings.map(lambda value: json.dumps(value, ensure_ascii=False)),
        st.dictionaries(_HASHABLE, literal_values(), max_size=4).map(repr),
        literal_values().map(repr),
        json_values().map(json.dumps),
        spoiled_texts(),
        LONG_TEXTS,
        st.sampled_from(
            ["", "{}", "{ }", "null", "[1, 2]", "{'a': <User: 7>}", '{"a": 1, "a": 2}']
        ),
    )


_TRACEBACK_PARTS = st.one_of(
    st.sampled_from(
        [
            "Traceback (most recent call last):",
            "Traceback (most recent call last)",
            "celery.exceptions.Retry:",
            "celery.exceptions.Retry: Retry in 3s",
            "\n",
            "\n",
            "\n",
            "\r\n",
            " ",
            "  File 't.py', line 1, in f\n",
            "ValueError: x",
            "shop.errors.Declined: card é",
            "shop..Declined: x",
            "a.b.c_1.Été: x",
            "é.B: x",
            "ValueError:",
            "ValueError:x",
            "ValueError:  x",
            "ValueError:\tx",
            "KeyError",
            "1Error: x",
            ".Error: x",
            "\x0b",
            "\u2028",
            ": ",
        ]
    ),
    ODD_TEXTS,
)
TRACEBACKS = st.builds(
    lambda parts, filler, end: "".join(parts) + filler + "".join(end),
    st.lists(_TRACEBACK_PARTS, max_size=6),
    st.sampled_from(["", "", "", "x" * 29_990, "  File\n" * 4_285]),
    st.lists(_TRACEBACK_PARTS, max_size=3),
)
EXCEPTIONS = st.one_of(ODD_TEXTS, st.sampled_from(["ValueError('x')", "x" * 29_975, "x" * 40_000]))

DATES = st.one_of(
    st.datetimes(timezones=st.one_of(st.none(), st.timezones())).map(lambda date: date.isoformat()),
    st.sampled_from(
        ["2025-10-09T08:54:20Z", "2025-10-09", "never", "", "2025-10-09T08:54:20.123456Z"]
    ),
)

_SECONDS = st.one_of(
    st.integers(0, 8).map(lambda step: 1_760_000_000 + step / 4),
    st.integers(0, 3).map(lambda step: 1_760_000_000 + step),
    st.floats(-1e17, 1e17),
    st.sampled_from([2**53, 2**53 + 1, 2**62, 10**25, 9.3e15, 9.2e15]),
)
_IDS = st.one_of(
    st.sampled_from(["t1", "t1", "t2", "celery@vm"]), st.sampled_from(["", "é", "\ud800"])
)
_WHOLE = st.one_of(st.integers(0, 3), INTEGERS, st.sampled_from([3.0, 1e19, 0.5]))
_NUMBERS = st.one_of(st.integers(-12, 12), FLOATS, INTEGERS)
_LOADS = st.lists(_NUMBERS, max_size=3)
_NAMES = st.one_of(ODD_TEXTS, st.sampled_from(["shop.tasks.pay", "pay", "a."]))
_WRONG = st.sampled_from(
    [None, None, None, 5, 1.5, True, "x", [], [1], {}, float("nan"), float("inf")]
)

_REQUIRED: dict[str, st.SearchStrategy[Any]] = {
    "hostname": st.sampled_from(["celery@vm", "celery@vm", "gen1@vm", "é"]),
    "timestamp": _SECONDS,
    "utcoffset": st.sampled_from([0, -5.5, 5.75, 0.0, 2**70]),
    "pid": st.integers(1, 99),
    "clock": st.integers(1, 99),
}
_TASK: dict[str, st.SearchStrategy[Any]] = {
    "name": _NAMES,
    "args": args_texts(),
    "kwargs": kwargs_texts(),
    "exchange": ODD_TEXTS,
    "routing_key": ODD_TEXTS,
    "queue": ODD_TEXTS,
    "root_id": _IDS,
    "parent_id": _IDS,
    "eta": DATES,
    "expires": DATES,
    "result": LONG_TEXTS,
    "runtime": _NUMBERS,
    "retries": _WHOLE,
    "exception": EXCEPTIONS,
    "traceback": TRACEBACKS,
    "terminated": st.booleans(),
    "expired": st.booleans(),
    "signum": st.one_of(_WHOLE, st.sampled_from(["SIGTERM"])),
    "requeue": st.booleans(),
}
_WORKER: dict[str, st.SearchStrategy[Any]] = {
    "freq": _NUMBERS,
    "active": _WHOLE,
    "processed": _WHOLE,
    "loadavg": _LOADS,
    "sw_ident": ODD_TEXTS,
    "sw_ver": ODD_TEXTS,
    "sw_sys": ODD_TEXTS,
}
_BROUGHT = {
    "task-sent": "name args kwargs root_id parent_id eta expires retries queue exchange routing_key",
    "task-received": "name args kwargs root_id parent_id eta expires retries",
    "task-started": "",
    "task-succeeded": "result runtime",
    "task-failed": "exception traceback",
    "task-retried": "exception traceback",
    "task-rejected": "requeue",
    "task-revoked": "terminated expired signum",
    "worker-online": "freq active processed loadavg sw_ident sw_ver sw_sys",
    "worker-heartbeat": "freq active processed loadavg sw_ident sw_ver sw_sys",
    "worker-offline": "freq sw_ident sw_ver sw_sys",
}


@st.composite
def events(draw: st.DrawFn) -> Any:
    """An event as a worker or a client sends it, or with something odd or wrong about it."""
    event_type = draw(st.sampled_from([*_BROUGHT, *_BROUGHT, "task-cancelled"]))
    is_task = event_type.startswith("task-")
    known = _TASK if is_task else _WORKER
    event: dict[str, Any] = {"type": event_type}
    if is_task:
        event["uuid"] = draw(st.sampled_from(["t1", "t1", "t2", "celery@vm"]))
    for name, values in _REQUIRED.items():
        event[name] = draw(values)
    for name in _BROUGHT.get(event_type, "").split():
        if draw(st.integers(0, 4)):
            event[name] = draw(known[name])
    oddity = draw(st.integers(0, 12))
    if oddity == 0:
        name = draw(st.sampled_from([*known, *_REQUIRED, "type", "uuid"]))
        event[name] = draw(_WRONG)
    elif oddity == 1:
        name = draw(st.sampled_from([*_TASK, *_WORKER, "state", "id", "é", "\ud800"]))
        event[name] = draw(st.one_of(_TASK.get(name, _WRONG), _WRONG))
    elif oddity == 2:
        del event[draw(st.sampled_from(sorted(event)))]
    elif oddity == 3 and is_task:
        event["uuid"] = draw(_IDS)
    return event


def batches() -> st.SearchStrategy[list[Any]]:
    """Events of a few tasks and workers, mixed and out of order, and what is no event."""
    return st.lists(st.one_of(events(), events(), events(), _WRONG), max_size=9)
