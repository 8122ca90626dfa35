"""Events to documents, slowly and plainly: the contract's rules one after the other.

What the tests compare :mod:`leekfanout.documents.events` with. It shares no code and no table with
it, builds each event's whole document before it merges, and does nothing for speed. Where the
contract leaves something open, the docstring of the function here says what leekfanout decided.
"""

import ast
import json
import math
import re
import warnings
from datetime import UTC, datetime, timedelta

TASK_STATES = {
    "task-sent": ("QUEUED", "queued_at"),
    "task-received": ("RECEIVED", "received_at"),
    "task-started": ("STARTED", "started_at"),
    "task-succeeded": ("SUCCEEDED", "succeeded_at"),
    "task-failed": ("FAILED", "failed_at"),
    "task-rejected": ("REJECTED", "rejected_at"),
    "task-revoked": ("REVOKED", "revoked_at"),
    "task-retried": ("RETRY", "retried_at"),
}
WORKER_STATES = {
    "worker-online": ("ONLINE", "online_at"),
    "worker-heartbeat": ("HEARTBEAT", "last_heartbeat_at"),
    "worker-offline": ("OFFLINE", "offline_at"),
}
TASK_TEXT = (
    "uuid timestamp utcoffset pid clock name args kwargs exchange routing_key queue root_id "
    "parent_id eta expires hostname result runtime retries exception traceback terminated expired "
    "signum requeue"
)
TASK_FIELDS = TASK_TEXT.split()
WORKER_OWN = ["freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"]
WORKER_FIELDS = ["hostname", "timestamp", "utcoffset", "pid", "clock", *WORKER_OWN]
ANY_NUMBER = ["timestamp", "utcoffset", "freq", "runtime"]
WHOLE_NUMBER = ["pid", "clock", "retries", "active", "processed"]
TRUE_OR_FALSE = ["terminated", "expired", "requeue"]

TERMINAL = ["SUCCEEDED", "FAILED", "REJECTED", "REVOKED", "RECOVERED", "CRITICAL"]
OWNED = {
    "QUEUED": ["queued_at", "exchange", "routing_key", "queue", "client"],
    "RECEIVED": ["received_at"],
    "STARTED": ["started_at"],
    "RETRY": ["retried_at"],
    "ONLINE": ["online_at"],
    "HEARTBEAT": ["last_heartbeat_at", "processed", "active", "freq", "loadavg"],
    "OFFLINE": ["offline_at"],
}
CALL_TEXT = "name name_parts args kwargs root_id parent_id eta expires retries kwargs_flattened"
CALL = [*CALL_TEXT.split(), *(f"args_{index}" for index in range(10))]
FAILURE = ["exception", "traceback", "lang", "error", "stack", "trace"]


class Bad(Exception):
    """The event goes to the dead letters."""


class NotReadable(Exception):
    """The text is no literal, or no JSON."""


# One event


def document(event, app_env, updated_at):
    """The document of one event alone; None where Leek has no use for it; Bad where it is bad."""
    if not isinstance(event, dict):
        raise Bad
    event = {key: value for key, value in event.items() if value is not None}
    event_type = event.get("type")
    if not isinstance(event_type, str) or event_type == "":
        raise Bad
    if event_type in TASK_STATES:
        doc = task_document(event)
    elif event_type in WORKER_STATES:
        doc = worker_document(event)
    else:
        return None
    return {**doc, "app_env": app_env, "updated_at": updated_at, "events_count": 1}


def task_document(event):
    state, time_field = TASK_STATES[event["type"]]
    fields = checked(event, TASK_FIELDS, ["uuid"])
    doc = common(fields, "task", fields["uuid"], state, time_field)
    doc["events"] = [state]
    for name in TASK_FIELDS:
        if name in fields and name not in ("hostname", "timestamp"):
            doc[name] = fields[name]
    doc["client" if state == "QUEUED" else "worker"] = fields["hostname"]
    for name in ("eta", "expires"):
        if name in fields:
            doc[name] = milliseconds_of(fields[name])
    if "name" in fields:
        module, _, function = fields["name"].rpartition(".")
        doc["name_parts"] = {"module": module, "function": function}
    if "args" in fields:
        for index, item in enumerate(args_items(fields["args"])):
            doc[f"args_{index}"] = item
    if "kwargs" in fields:
        doc["kwargs_flattened"] = flattened(fields["kwargs"])
    if "traceback" in fields:
        doc.update(failure(fields["traceback"], fields.get("exception", "")))
    return doc


def worker_document(event):
    state, time_field = WORKER_STATES[event["type"]]
    fields = checked(event, WORKER_FIELDS, [])
    doc = common(fields, "worker", fields["hostname"], state, time_field)
    for name in ["hostname", *WORKER_OWN]:
        if name in fields:
            doc[name] = fields[name]
    return doc


def common(fields, kind, identity, state, time_field):
    """``timestamp`` is good only if its milliseconds fit 64 bits; an id can't be empty."""
    seconds = fields["timestamp"]
    if identity == "" or not is_unicode(identity):
        raise Bad
    if abs(seconds) >= 2**63 / 1000:
        raise Bad
    milliseconds = int(seconds * 1000)
    return {
        "id": identity,
        "kind": kind,
        "state": state,
        "clock": fields["clock"],
        "utcoffset": fields["utcoffset"],
        "pid": fields["pid"],
        "exact_timestamp": float(seconds),
        "timestamp": milliseconds,
        time_field: milliseconds,
    }


def checked(event, known, also_required):
    for name in ["hostname", "timestamp", "utcoffset", "pid", "clock", *also_required]:
        if name not in event:
            raise Bad
    return {name: checked_value(name, event[name]) for name in known if name in event}


def checked_value(name, value):
    """Whole numbers beyond 64 bits are bad, and NaN and infinity.

    A whole number may be written as 3.0, as far as a float holds each.
    """
    if name in ANY_NUMBER:
        return number(value)
    if name in WHOLE_NUMBER or (name == "signum" and not isinstance(value, str)):
        if number(value) != math.floor(value) or not -(2**63) <= value < 2**64:
            raise Bad
        if isinstance(value, float) and abs(value) > 2**53:
            raise Bad
        return int(value)
    if name in TRUE_OR_FALSE:
        good = isinstance(value, bool)
    elif name == "loadavg":
        if not isinstance(value, list):
            raise Bad
        return [number(item) for item in value]
    else:
        good = isinstance(value, str)
    if not good:
        raise Bad
    return value


def number(value):
    """Integers beyond 64 bits become floats."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Bad
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            value = float(value)
        except OverflowError:
            raise Bad from None
    if not math.isfinite(value):
        raise Bad
    return value


def is_unicode(text):
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def milliseconds_of(text):
    """A date without an offset is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Bad from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


# args and kwargs


def literal(text):
    """A number that Python refuses to write can't be read either."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = ast.literal_eval(text)
            repr(value)
        except Exception:
            raise NotReadable from None
    return value


def args_items(text):
    if text in ("", "()"):
        return []
    try:
        value = literal(text)
    except NotReadable:
        items = [text]
    else:
        items = value if isinstance(value, (tuple, list)) else [value]
    return [str(item)[:256] for item in items[:10]]


def flattened(text):
    """The bounds on what is hostile (nesting, number of entries) are tested elsewhere."""
    try:
        value = json.loads(text)
        str(value)
    except (ValueError, RecursionError):
        try:
            value = literal(text)
        except NotReadable:
            return {}
    if not isinstance(value, dict):
        return {}
    return dict(leaves(value))


def leaves(mapping):
    for key, value in mapping.items():
        yield from leaves_of(str(key), 1, value)


def leaves_of(path, depth, value):
    if isinstance(value, (tuple, set)):
        value = list(value)
    if depth > 12:
        yield path, json.dumps(plain(value), ensure_ascii=False)
    elif isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves_of(f"{path}.{key}", depth + 1, item)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value[:100]):
            yield from leaves_of(f"{path}.{index}", depth + 1, item)
    elif value == {}:
        yield path, "{}"
    elif value == []:
        yield path, "[]"
    else:
        yield path, leaf_of(value)


def plain(value):
    """A value as JSON can hold it: the rules for values, without joining keys."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in list(value)[:100]]
    return leaf_of(value)


def leaf_of(value):
    """A number that JSON can't hold (NaN, infinity) is an object as any other."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")[:100]
    if value is ...:
        return "<ELLIPSIS>"
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)[:100]


# traceback


def failure(traceback, exception):
    """The document's own ``traceback`` is cut as well, unless it is a retry's."""
    if "celery.exceptions.Retry:" in traceback:
        text = f"celery.exceptions.Retry: {exception}"[:30_000]
        lang, error = "python", ("celery.exceptions.Retry", exception[:30_000])
    else:
        traceback = text = traceback[:30_000]
        lang, error = "unknown", ("", "")
        if any(line.startswith("Traceback (most recent call last):") for line in text.split("\n")):
            lang = "python"
            last_line = text.strip().split("\n")[-1]
            match = re.fullmatch(
                r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*): +(.*)", last_line, flags=re.DOTALL
            )
            if match:
                error = match.groups()
    return {
        "traceback": traceback,
        "lang": lang,
        "error": {"type": error[0], "message": error[1]},
        "stack": [],
        "trace": {"raw": text, "text": text, "wc": text},
    }


# Merging


def merge_task(have, new):
    merged = dict(have)
    if new["state"] in TERMINAL:
        merged.update(new)
    elif have["state"] in TERMINAL:
        fields = list(OWNED[new["state"]])
        if new["state"] == "RETRY" and have["state"] not in ("FAILED", "CRITICAL"):
            fields += FAILURE
        if new["state"] in ("QUEUED", "RECEIVED"):
            fields += CALL
        merged.update({name: new[name] for name in fields if name in new})
    elif new["exact_timestamp"] > have["exact_timestamp"]:
        merged.update(new)
    elif new["state"] != have["state"]:
        fields = list(OWNED[new["state"]])
        if new["state"] == "RETRY":
            fields += FAILURE
        if new["state"] in ("QUEUED", "RECEIVED") and have["state"] not in ("QUEUED", "RECEIVED"):
            fields += CALL
        merged.update({name: new[name] for name in fields if name in new})
    if merged.get("retries", 0) > 0:
        if merged["state"] == "FAILED":
            merged["state"] = "CRITICAL"
        elif merged["state"] == "SUCCEEDED":
            merged["state"] = "RECOVERED"
    for name in ("root_id", "parent_id"):
        if name in merged and merged[name] == merged["id"]:
            del merged[name]
    merged["events_count"] = have["events_count"] + 1
    merged["events"] = [new["state"], *have["events"][:20]]
    return merged


def merge_worker(have, new):
    merged = dict(have)
    if new["exact_timestamp"] > have["exact_timestamp"]:
        merged.update(new)
    elif new["state"] != have["state"]:
        merged.update({name: new[name] for name in OWNED[new["state"]] if name in new})
    merged["events_count"] = have["events_count"] + 1
    return merged


def documents(events, app_env, updated_at):
    """The documents of one batch, and the positions of its bad events.

    A task and a worker of the same id stay apart. What UTF-8 can't hold becomes U+FFFD.
    """
    docs = {}
    bad = []
    for index, event in enumerate(events):
        try:
            new = document(event, app_env, updated_at)
        except Bad:
            bad.append(index)
            continue
        if new is None:
            continue
        key = (new["kind"], new["id"])
        if key not in docs:
            docs[key] = new
        elif new["kind"] == "task":
            docs[key] = merge_task(docs[key], new)
        else:
            docs[key] = merge_worker(docs[key], new)
    return [encodable(doc) for doc in docs.values()], bad


def encodable(value):
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encodable(item) for item in value]
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    return value
