"""A small Leek API for trying an agent, for the demo and for tests (contract, section 1).

It answers as Leek does and keeps nothing but what it is asked to. Faults (overload, lost answers,
refusals out of the blue) are no part of it: it takes every document that has what Leek needs.
"""

import hmac
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import orjson

from leekfanout import logs
from leekfanout.errors import LeekfanoutError
from leekfanout.sink.sink_http import Reply, Server, error_reply

log = logs.get("sink")

REQUIRED_HEADERS: Final = (
    "x-requested-with",
    "x-agent-version",
    "x-leek-org-name",
    "x-leek-app-name",
    "x-leek-app-env",
    "x-leek-app-key",
)
REQUIRED_TEXTS: Final = ("id", "kind", "state")

OnDocuments = Callable[[list[dict[str, Any]], Mapping[str, str]], None]


class Sink:
    """A Leek API on threads of its own between :meth:`start` and :meth:`stop`; a context manager.

    ``port`` 0 takes a free one. ``app_key`` is the key of every application; None: any key will do.
    ``applications`` are the (organisation, application) pairs that exist; empty: any may post.
    ``delay_s`` is how long each POST takes. ``record`` gets each document as a JSON line before the
    POST is confirmed. ``on_documents`` is called, before the POST is confirmed, with what was
    indexed and the POST's headers (lower-case names), on the connection's thread but never by two
    at once. ``keep`` makes :meth:`documents` return everything, which takes memory without bound.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        app_key: str | None = None,
        applications: Collection[tuple[str, str]] = (),
        delay_s: float = 0.0,
        record: Path | None = None,
        on_documents: OnDocuments | None = None,
        keep: bool = False,
    ) -> None:
        self._host = host
        self._port = port
        self._app_key = app_key
        self._applications = frozenset(applications)
        self._delay_s = delay_s
        self._record_path = record
        self._on_documents = on_documents
        self._keep = keep
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        # Guards everything below, the record, and the order of the calls of on_documents.
        self._lock = threading.Lock()
        self._record: BinaryIO | None = None
        self._kept: list[dict[str, Any]] = []
        self._posts_under_way = 0
        self.posts_under_way_max = 0
        """The highest number of POSTs that were under way at once."""

    @property
    def url(self) -> str:
        """What a subscription's ``api_url`` is to be; known once the sink has started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def start(self) -> None:
        """Listen and answer; after a :meth:`stop`, on the same port again.

        Raises LeekfanoutError where the address or the record can't be used.
        """
        if self._record_path is not None:
            try:
                self._record = self._record_path.open("ab", buffering=0)
            except OSError as error:
                what = f"The record {self._record_path} can't be written"
                raise LeekfanoutError(f"{what}: {error.strerror}.") from error
        answers = {"OPTIONS": _answer_options, "GET": self._answer_get, "POST": self._answer_post}
        try:
            self._server = Server(self._host, self._port, answers)
        except OSError as error:
            self._close_record()
            where = f"{self._host}:{self._port}"
            raise LeekfanoutError(f"The sink can't listen on {where}: {error.strerror}.") from error
        self._port = self._server.port
        self._stopping.clear()
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="sink", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut every connection; a POST that is still delayed gets no answer."""
        if self._server is None or self._thread is None:
            return
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.cut_connections()
        self._server = self._thread = None
        self._close_record()

    def _close_record(self) -> None:
        with self._lock:
            if self._record is not None:
                self._record.close()
                self._record = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def documents(self) -> list[dict[str, Any]]:
        """Return what was indexed, in the order of the POSTs; only with ``keep``."""
        with self._lock:
            return list(self._kept)

    def _answer_get(self, headers: Mapping[str, str], body: bytes) -> Reply:
        return self._refuse_caller(headers) or Reply(200, "Ready!")

    def _answer_post(self, headers: Mapping[str, str], body: bytes) -> Reply | None:
        with self._lock:
            self._posts_under_way += 1
            self.posts_under_way_max = max(self.posts_under_way_max, self._posts_under_way)
        try:
            if self._stopping.wait(self._delay_s):
                return None
            return self._refuse_caller(headers) or self._take(headers, body)
        finally:
            with self._lock:
                self._posts_under_way -= 1

    def _refuse_caller(self, headers: Mapping[str, str]) -> Reply | None:
        for name in REQUIRED_HEADERS:
            if not headers.get(name):
                return error_reply(400, "Missing headers", f"The header {name} is missing")
        application = (headers["x-leek-org-name"], headers["x-leek-app-name"])
        if self._applications and application not in self._applications:
            return error_reply(404, "Application not found", "There is no such application")
        if self._app_key is not None and not hmac.compare_digest(
            headers["x-leek-app-key"].encode(), self._app_key.encode()
        ):
            return error_reply(401, "Wrong application key", "This is not the application's key")
        return None

    def _take(self, headers: Mapping[str, str], body: bytes) -> Reply | None:
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            return error_reply(400, "Bad request", "The header content-type is not JSON's")
        try:
            sent = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return error_reply(400, "Bad request", f"The body is not JSON: {error}")
        if not isinstance(sent, list):
            return error_reply(400, "Bad request", "The body is no array of documents")
        indexed, errors = sort_documents(sent)
        try:
            with self._lock:
                if self._stopping.is_set():
                    return None
                self._index(indexed, headers)
        except OSError as error:
            log.warning("record.failed", error=error.strerror)
            return error_reply(503, "Search backend unavailable", "The record can't be written")
        except orjson.JSONEncodeError:  # it reads 1,024 levels and writes 254
            return error_reply(400, "Bad request", "A document is nested too deeply to be recorded")
        if errors:
            return Reply(400, {"success": len(indexed), "failed": len(errors), "errors": errors})
        return Reply(201, {"success": len(indexed)})

    def _index(self, documents: list[dict[str, Any]], headers: Mapping[str, str]) -> None:
        if self._record is not None:
            append_lines(self._record, documents)
        if self._keep:
            self._kept.extend(documents)
        if self._on_documents is not None:
            self._on_documents(documents, headers)


def _answer_options(headers: Mapping[str, str], body: bytes) -> Reply:
    return Reply(200, "Up!")


def append_lines(file: BinaryIO, documents: list[dict[str, Any]]) -> None:
    """Append each document as a JSON line to an unbuffered file: all of them, or none (OSError)."""
    end = file.seek(0, 2)
    lines = memoryview(b"".join(orjson.dumps(document) + b"\n" for document in documents))
    try:
        while lines:
            lines = lines[file.write(lines) :]
    except OSError:
        file.truncate(end)  # a torn line would spoil the one after it
        raise


def sort_documents(sent: list[Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the documents that can be indexed, and an ``errors`` entry for each that can't."""
    indexed, errors = [], []
    for document in sent:
        reason = _problem(document)
        if reason is None:
            indexed.append(document)
        else:
            named = document.get("id") if isinstance(document, dict) else None
            document_id = named if isinstance(named, str) else None
            error = {"type": "mapper_parsing_exception", "reason": reason}
            errors.append({"update": {"_id": document_id, "status": 400, "error": error}})
    return indexed, errors


def _problem(document: Any) -> str | None:
    if not isinstance(document, dict):
        return "a document is no object"
    for key in REQUIRED_TEXTS:
        value = document.get(key)
        if not isinstance(value, str) or not value:
            return f"the field [{key}] is no text, or empty"
    count = document.get("events_count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        return "the field [events_count] is no count"
    return None
