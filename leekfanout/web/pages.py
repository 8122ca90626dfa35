"""The page itself, and logging in and out."""

import os
import time
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from leekfanout.version import VERSION
from leekfanout.web import fields
from leekfanout.web.agent import Agent
from leekfanout.web.guard import (
    BROWSER_COOKIE,
    COOKIE,
    LOGIN,
    SESSION,
    Door,
    cookie_of,
    peer_of,
)
from leekfanout.web.openapi import description
from leekfanout.web.replies import JsonReply, body_of
from leekfanout.web.sessions import BROWSER_LIFETIME_S, LIFETIME_S, Session

FOLDER: Final = Path(__file__).parent
HOME: Final = "/agent"

LOGIN_FIELDS_MAX: Final = 10
"""The form has one; a browser's extension may add some."""


class Pages:
    """HTML, styles and scripts; all of it local."""

    def __init__(self, agent: Agent, door: Door) -> None:
        self._agent = agent
        self._door = door
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[Route | Mount]:
        return [
            Route("/", self.to_home, methods=["GET"]),
            Route(f"{HOME}/", self.to_home, methods=["GET"]),
            Route(HOME, self.home, methods=["GET"]),
            Route(LOGIN, self.login, methods=["GET"]),
            Route(LOGIN, self.try_login, methods=["POST"]),
            Route("/agent/logout", self.logout, methods=["POST"]),
            Route("/agent/api/session", self.session, methods=["GET"]),
            Route("/v1/agent/openapi.json", self.openapi, methods=["GET"]),
            Mount("/agent/static", StaticFiles(directory=FOLDER / "static")),
        ]

    async def to_home(self, _: Request) -> Response:
        """Send the browser to the page."""
        return RedirectResponse(HOME, 303)

    def home(self, request: Request) -> Response:
        """Return the page, which then fills itself from the stream of live data."""
        session: Session | None = request.scope[SESSION]
        html = self._templates.get_template("agent.html").render(
            csrf_token="" if session is None else self._door.sessions.csrf_token(session),
            groups=fields.groups(os.environ),
            fixed=self._agent.fixed is not None,
            version=VERSION,
        )
        return HTMLResponse(html)

    async def login(self, request: Request) -> Response:
        """Return the form that asks for the token."""
        if request.scope[SESSION] is not None:
            return RedirectResponse(HOME, 303)
        return self._login_form()

    async def try_login(self, request: Request) -> Response:
        """Open a session if the token is right."""
        token = _token_in(body_of(request).decode("utf-8", "replace"))
        browser = cookie_of(request.headers, BROWSER_COOKIE)
        wait_s = self._door.try_token(token, peer_of(request.scope), browser)
        if wait_s is not None:
            response = self._login_form(wait_s, failed=True)
            if wait_s:
                response.headers["Retry-After"] = f"{wait_s + 1:.0f}"
            return response
        sessions = self._door.sessions
        if sessions.find_browser(browser) is None:
            browser = sessions.new_browser()
        answer = RedirectResponse(HOME, 303)
        for name, cookie, lifetime_s, path in (
            (COOKIE, sessions.open(time.time()), LIFETIME_S, "/"),
            (BROWSER_COOKIE, browser, BROWSER_LIFETIME_S, LOGIN),
        ):
            answer.set_cookie(
                name,
                cookie,
                max_age=int(lifetime_s),
                path=path,
                httponly=True,
                samesite="strict",
                # A proxy in front says so; a lie would only harm whoever tells it.
                secure=request.headers.get("x-forwarded-proto") == "https",
            )
        return answer

    def logout(self, request: Request) -> Response:
        """Close the session; on a worker thread, since it waits for the disk."""
        session: Session | None = request.scope[SESSION]
        if session is not None:
            self._door.sessions.close(session, time.time())
        answer = JsonReply({})
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer

    async def session(self, _: Request) -> Response:
        """Answer that the session is good, for a browser that has lost the stream."""
        return JsonReply({})

    async def openapi(self, _: Request) -> Response:
        """Return the description of the HTTP interface."""
        return JsonReply(description())

    def _login_form(self, wait_s: float = 0.0, failed: bool = False) -> Response:
        html = self._templates.get_template("login.html").render(
            failed=failed, wait_s=int(wait_s + 0.999)
        )
        return HTMLResponse(html, (429 if wait_s else 401) if failed else 200)


def _token_in(form: str) -> str:
    """Return the token that somebody has typed; what isn't the page's own form holds none."""
    try:
        fields_sent = parse_qs(form, max_num_fields=LOGIN_FIELDS_MAX)
    except ValueError:
        return ""
    return fields_sent.get("token", [""])[0].strip()
