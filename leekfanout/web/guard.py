"""Who may ask for what: every request passes here first, and every answer on its way out."""

import asyncio
import hmac
import time
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leekfanout import logs
from leekfanout.web.logouts import Logouts
from leekfanout.web.options import WebOptions
from leekfanout.web.replies import BODY, error_reply
from leekfanout.web.sessions import Session, Sessions
from leekfanout.web.slowdown import Slowdown

COOKIE: Final = "leekfanout_session"
BROWSER_COOKIE: Final = "leekfanout_browser"
CSRF_HEADER: Final = "x-csrf-token"
SESSION: Final = "leekfanout.session"
"""Where a request's scope holds the :class:`Session` of its cookie, or None."""

LOGIN: Final = "/agent/login"
PUBLIC: Final = frozenset({LOGIN, "/agent/static/style.css", "/agent/static/icon.svg"})
"""All that somebody sees who hasn't logged in."""

PAGES: Final = frozenset({"/", "/agent", "/agent/"})
"""What answers with the login rather than an error."""

BODY_MAX_BYTES: Final = 100_000
"""A subscription with certificates' paths has some kilobytes."""

BODY_S: Final = 10.0
"""A request's body must have come within this time."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, browsers would send "Origin: null" with the login form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

log = logs.get("web")


class Door:
    """The token, and what follows from showing it: sessions, and waiting after wrong ones."""

    def __init__(self, token: str, options: WebOptions, logouts: Logouts | None = None) -> None:
        self.options = options
        self.sessions = Sessions(token, logouts)
        self._slowdown = Slowdown()
        self._token = token.encode()

    def try_token(self, token: str, peer: str, browser_cookie: str = "") -> float | None:
        """Return None if it is the token, else how many seconds to wait before the next try (or 0).

        While one has to wait, not even the right token is looked at. A browser that has been in
        before waits for its own failures alone: nobody else at its address, or behind the same
        proxy, can keep it out (OWASP, "Slow Down Online Guessing Attacks with Device Cookies").
        """
        browser = self.sessions.find_browser(browser_cookie)
        guesser = peer if browser is None else f"browser {browser}"
        now = time.monotonic()
        if wait_s := self._slowdown.wait_s(guesser, now):
            return wait_s
        if hmac.compare_digest(token.encode("utf-8", "replace"), self._token):
            self._slowdown.succeeded(guesser)
            return None
        self._slowdown.failed(guesser, now)
        log.warning("web.login_failed", peer=peer)
        return self._slowdown.wait_s(guesser, now)


class Guard:
    """ASGI middleware: host, size and time of a request, who asks, CSRF, and security headers."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = await self._refusal(scope, receive)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    async def _refusal(self, scope: Scope, receive: Receive) -> Response | None:
        """Return the answer to a request that mustn't get further; None: let it pass."""
        headers = Headers(scope=scope)
        if not self._door.options.answers_to(headers.get("host", "")):
            # Whoever isn't listened to mustn't stay and go on sending a body.
            return PlainTextResponse(
                "This host name is not one of the agent page's.", 400, {"Connection": "close"}
            )
        try:
            async with asyncio.timeout(BODY_S):
                scope[BODY] = await _read(headers, receive)
        except TimeoutError:
            return error_reply(408, "The body took too long.", {"Connection": "close"})
        except _TooLargeError:
            return error_reply(
                413, f"The body has more than {BODY_MAX_BYTES:,} bytes.", {"Connection": "close"}
            )
        scope[SESSION] = session = self._door.sessions.find(cookie_of(headers), time.time())
        path: str = scope["path"]
        if path in PUBLIC:
            return _foreign(scope, headers)
        if headers.get("authorization"):
            return self._check_bearer(headers, peer_of(scope))
        if session is None:
            return _ask_for_login(path, scope["method"])
        if scope["method"] not in SAFE_METHODS and not self._has_csrf_token(session, headers):
            return error_reply(403, f"The header {CSRF_HEADER} is missing or wrong.")
        return None

    def _check_bearer(self, headers: Headers, peer: str) -> Response | None:
        scheme, _, token = headers["authorization"].partition(" ")
        if scheme.lower() != "bearer":
            return error_reply(401, "Use the scheme Bearer.", {"WWW-Authenticate": "Bearer"})
        wait_s = self._door.try_token(token.strip(), peer)
        if wait_s is None:
            return None
        if wait_s:
            return error_reply(
                429, "Too many wrong tokens: wait.", {"Retry-After": f"{wait_s + 1:.0f}"}
            )
        return error_reply(401, "The token is wrong.", {"WWW-Authenticate": "Bearer"})

    def _has_csrf_token(self, session: Session, headers: Headers) -> bool:
        expected = self._door.sessions.csrf_token(session).encode()
        return hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), expected)


class _TooLargeError(Exception):
    pass


async def _read(headers: Mapping[str, str], receive: Receive) -> bytes:
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and int(length) <= BODY_MAX_BYTES):
        raise _TooLargeError
    if length == "0" and "transfer-encoding" not in headers:
        return b""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body.extend(message.get("body", b""))
        if len(body) > BODY_MAX_BYTES:
            raise _TooLargeError
        if not message.get("more_body", False):
            return bytes(body)


def _foreign(scope: Scope, headers: Headers) -> Response | None:
    """Refuse a login that another site's page sends (which has no session that could protect it)."""
    if scope["method"] in SAFE_METHODS:
        return None
    # Browsers send the first to addresses that they trust (https, localhost), the other to all.
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        same = site in {"same-origin", "none"}
    else:
        same = origin is None or origin.partition("://")[2].lower() == headers["host"].lower()
    if same:
        return None
    return error_reply(403, "This request comes from another site.")


def _ask_for_login(path: str, method: str) -> Response:
    if path in PAGES and method in SAFE_METHODS:
        return RedirectResponse(LOGIN, 303)
    return error_reply(401, "Log in, or send the token.", {"WWW-Authenticate": "Bearer"})


def cookie_of(headers: Mapping[str, str], name: str = COOKIE) -> str:
    """Return a cookie, the session's if it isn't said which, or an empty string."""
    # By hand: http.cookies stops at the first cookie that isn't to its taste, and other services
    # of this host, whatever their port, have theirs in the same header.
    for pair in headers.get("cookie", "").split(";"):
        key, _, value = pair.partition("=")
        if key.strip() == name:
            return value.strip()
    return ""


def peer_of(scope: Scope) -> str:
    """Return the address that connected; no header can make it another one."""
    client = scope.get("client")
    return client[0] if client else ""
