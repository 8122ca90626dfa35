"""Leek's own routes (contract, section 6), so that Leek's page can drive this agent too."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leekfanout.control.control_client import RefusedError
from leekfanout.control.process_info import GROUP
from leekfanout.control.rpc import Fault
from leekfanout.web.agent import Agent
from leekfanout.web.replies import JsonReply, error_reply, json_object, route


class LeekRoutes:
    """``/v1/agent/control`` and ``/v1/agent/subscriptions``; each endpoint runs on a worker thread."""

    def __init__(self, agent: Agent, changed: Callable[[], None]) -> None:
        """``changed`` is called after each change."""
        self._agent = agent
        self._changed = changed

    def routes(self) -> list[Route]:
        control, subscriptions = "/v1/agent/control", "/v1/agent/subscriptions"
        return [
            route(control, GET=self.control, POST=self.start, DELETE=self.stop),
            route(subscriptions, GET=self.list, POST=self.add),
            route(f"{subscriptions}/{{name}}", DELETE=self.delete),
        ]

    def control(self, _: Request) -> Response:
        """Return Supervisor's struct for the agent.

        Its type is ``local`` even for a standalone agent: to Leek's page that means that it can be
        controlled here.
        """
        return JsonReply(self._info())

    def start(self, _: Request) -> Response:
        """Start the agent, or restart it if it runs."""
        if not self._agent.entries():
            return error_reply(400, "There are no subscriptions: add one first.")
        self._agent.restart()
        self._changed()
        return JsonReply(self._info())

    def stop(self, _: Request) -> Response:
        """Drain and stop the agent; nothing if it is stopped."""
        try:
            self._agent.call("supervisor.stopProcess", GROUP)
        except RefusedError as error:
            if error.code != Fault.NOT_RUNNING:
                raise
        self._changed()
        return JsonReply(self._info())

    def list(self, _: Request) -> Response:
        """Return all subscriptions, without their secrets."""
        return JsonReply(self._agent.entries())

    def add(self, request: Request) -> Response:
        """Add a subscription, if its broker and its API take it, and start it."""
        entry = json_object(request)
        entry.pop("name", None)  # it follows from app_name and app_env
        note = self._agent.add(entry)
        self._changed()
        name = f"{entry['app_name']}-{entry['app_env']}"
        added = next((each for each in self._agent.entries() if each["name"] == name), {})
        return JsonReply({**added, "note": note} if note else added)

    def delete(self, request: Request) -> Response:
        """Remove a subscription; its queue stays, unless ``?delete_queue=true``."""
        query = request.query_params
        removed = self._agent.remove(
            request.path_params["name"],
            queue_too=query.get("delete_queue") == "true",
            force=query.get("force") == "true",
        )
        self._changed()
        return JsonReply({"name": removed.name, "queue": removed.queue, "note": removed.note})

    def _info(self) -> dict[str, Any]:
        return {**self._agent.info(), "type": "local"}
