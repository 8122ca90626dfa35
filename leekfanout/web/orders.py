"""What the page can have done to one process or to all: start, stop, restart, logs, checks."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leekfanout import health
from leekfanout.control.process_info import GROUP
from leekfanout.control.rpc import Fault
from leekfanout.web.agent import Agent
from leekfanout.web.fields import checked, problems_of
from leekfanout.web.replies import JsonReply, error_reply, json_object, route

LOG_BYTES: Final = 64_000
"""What the page shows of a log at most."""

ORDERS: Final = {
    "start": "supervisor.startProcessGroup",
    "stop": "supervisor.stopProcessGroup",
    "restart": "leekfanout.restartProcesses",
}
PROCESS_NAME: Final = r"[a-z]+-[a-z]+(-[1-9][0-9]?)?"
"""``shop-prod``, and ``shop-prod-2`` for the second process of a subscription that has several."""


def name_in(request: Request) -> str:
    """Return the name of a process in the path; HTTPException 404 if it is no such name."""
    name: str = request.path_params["name"]
    if not re.fullmatch(PROCESS_NAME, name):
        raise HTTPException(404, "There is no such subscription.")
    return name


class Orders:
    """Each endpoint runs on a worker thread, since it waits for the agent."""

    def __init__(self, agent: Agent, changed: Callable[[], None]) -> None:
        """``changed`` is called after each change."""
        self._agent = agent
        self._changed = changed

    def routes(self) -> list[Route]:
        one = "/agent/api/subscriptions/{name}"
        return [
            route("/agent/api/validate", POST=self.validate),
            route("/agent/api/check", POST=self.check),
            route("/agent/api/reload", POST=self.reload),
            route(f"{one}/log", GET=self.log),
            *(
                route(f"/agent/api/all/{each}", POST=partial(self.order_all, each))
                for each in ORDERS
            ),
            *(route(f"{one}/{each}", POST=partial(self.order_one, each)) for each in ORDERS),
        ]

    def order_all(self, order: str, _: Request) -> Response:
        """Start, stop or restart all processes."""
        return self._order(order, GROUP)

    def order_one(self, order: str, request: Request) -> Response:
        """Start, stop or restart one process."""
        return self._order(order, f"{GROUP}:{name_in(request)}")

    def reload(self, _: Request) -> Response:
        """Let the agent take up what the subscriptions' file says."""
        done = self._agent.call("leekfanout.reload")
        self._changed()
        return JsonReply(done)

    def log(self, request: Request) -> Response:
        """Return what a log has beyond ``?offset=``, or its end, and the offset to ask for next."""
        text = request.query_params.get("offset", "0")
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise HTTPException(400, "offset must be a whole number.")
        name, offset = name_in(request), int(text)
        method = "supervisor.tailProcessStdoutLog"
        content, size, overflow = self._agent.call(method, name, offset, LOG_BYTES)
        if size < offset:  # a new file has begun
            offset = 0
            content, size, overflow = self._agent.call(method, name, offset, LOG_BYTES)
        # The tail is the last bytes of the file; what the page has already is cut off.
        if not overflow and offset:
            content = content.encode()[-(size - offset) :].decode(errors="replace")
            content = content if size > offset else ""
        return JsonReply({"content": content, "offset": size, "skipped": bool(overflow)})

    def validate(self, request: Request) -> Response:
        """Say what is wrong with a subscription, by key; nobody else is asked."""
        return JsonReply({"problems": problems_of(json_object(request))})

    def check(self, request: Request) -> Response:
        """Ask the broker and the API of a subscription that isn't saved yet."""
        subscription = checked(json_object(request))
        found = {
            "broker": health.check_broker(subscription),
            "api": health.check_api(subscription),
        }
        return JsonReply(
            {
                what: {"ok": each.ok, "words": each.words, "advice": each.advice}
                for what, each in found.items()
            }
        )

    def _order(self, order: str, target: str) -> Response:
        results: list[dict[str, Any]] = self._agent.call(ORDERS[order], target)
        self._changed()
        failed = [each for each in results if each["status"] != Fault.SUCCESS]
        if failed:
            return error_reply(409, " ".join(each["description"] for each in failed))
        return JsonReply({"done": [each["name"] for each in results]})
