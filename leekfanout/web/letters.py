"""Dead letters on the page: list them, look at one, deliver them again, remove them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leekfanout.stores.deadletters import DeadLetters
from leekfanout.stores.replay import replay
from leekfanout.web.agent import Agent
from leekfanout.web.orders import name_in
from leekfanout.web.replies import JsonReply, json_object, route

PAGE_ROWS: Final = 100
PAYLOAD_MAX_BYTES: Final = 200_000
"""What is shown of a letter's payload; the command line shows all of it."""

IDS_MAX: Final = 1_000


class Letters:
    """Each endpoint runs on a worker thread, since it waits for the disk or the API."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._replaying: set[str] = set()
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        base = "/agent/api/subscriptions/{name}/letters"
        return [
            route(base, GET=self.list),
            route(f"{base}/replay", POST=self.replay),
            route(f"{base}/purge", POST=self.purge),
            route(f"{base}/{{id:int}}", GET=self.show),
        ]

    def list(self, request: Request) -> Response:
        """Return a page of letters beyond ``?after=``, the oldest first, and how many there are."""
        text = request.query_params.get("after", "0")
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise HTTPException(400, "after must be a whole number.")
        with self._agent.letters(name_in(request)) as store:
            if store is None:
                return JsonReply({"total": 0, "more": False, "letters": []})
            letters = store.select(after=int(text), limit=PAGE_ROWS + 1)
            return JsonReply(
                {
                    "total": store.count(),
                    "more": len(letters) > PAGE_ROWS,
                    "letters": [letter._asdict() for letter in letters[:PAGE_ROWS]],
                }
            )

    def show(self, request: Request) -> Response:
        """Return one letter with its payload as text."""
        number: int = request.path_params["id"]
        with self._agent.letters(name_in(request)) as store:
            letter = store.get(number) if store is not None and number < 2**63 else None
        if letter is None:
            raise HTTPException(404, "There is no such dead letter (any more).")
        payload = letter.payload[:PAYLOAD_MAX_BYTES].decode("utf-8", "backslashreplace")
        shown = {**letter._asdict(), "id": number, "payload": payload}
        return JsonReply(
            {**shown, "size_bytes": len(letter.payload), "cut": len(letter.payload) > len(payload)}
        )

    def replay(self, request: Request) -> Response:
        """Deliver letters again: those of ``ids``, or all; what is confirmed is removed."""
        name, ids = name_in(request), _ids(json_object(request))
        with self._agent.letters(name) as store, self._alone(name):
            if store is None:
                return JsonReply({"delivered": 0, "staying": {}, "stopped": None})
            subscription = self._agent.subscription(name)
            done = replay(store, subscription, _all_ids(store) if ids is None else ids)
        staying = {str(number): reason for number, reason in done.staying.items()}
        return JsonReply({"delivered": done.delivered, "staying": staying, "stopped": done.stopped})

    def purge(self, request: Request) -> Response:
        """Remove letters for good: those of ``ids``, or all."""
        name, ids = name_in(request), _ids(json_object(request))
        with self._agent.letters(name) as store:
            if store is None:
                return JsonReply({"purged": 0})
            return JsonReply({"purged": store.purge() if ids is None else store.remove(ids)})

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Let one replay at a time have a subscription's letters: two would deliver them twice."""
        with self._lock:
            if name in self._replaying:
                raise HTTPException(409, "These dead letters are being delivered already.")
            self._replaying.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._replaying.discard(name)


def _ids(body: dict[str, Any]) -> list[int] | None:
    """Return which letters are meant: None for all of them."""
    ids = body.get("ids")
    if body.get("all") is True and ids is None:
        return None
    if (
        not isinstance(ids, list)
        or not ids
        or len(ids) > IDS_MAX
        or not all(type(each) is int and 0 < each < 2**63 for each in ids)
    ):
        raise HTTPException(400, 'Say which: {"ids": [1, 2]}, or {"all": true}.')
    return ids


def _all_ids(store: DeadLetters) -> list[int]:
    """Return the ids of the letters that are there now."""
    newest, last = store.newest_id(), 0
    ids: list[int] = []
    while page := [letter.id for letter in store.select(after=last) if letter.id <= newest]:
        ids += page
        last = page[-1]
    return ids
