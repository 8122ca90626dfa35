"""Sessions of people who have logged in: signed cookies, which nobody else can make."""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from leekfanout.web.logouts import Logouts

LIFETIME_S: Final = 12 * 3_600.0
"""A working day; then the token is asked for again."""

BROWSER_LIFETIME_S: Final = 400 * 86_400.0
"""The longest that browsers keep a cookie."""

_SALT: Final = b"leekfanout agent page, sessions"


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has shown the token; ``expires_at`` is epoch seconds."""

    id: str
    expires_at: int


class Sessions:
    """Makes and checks cookies and CSRF tokens; needs no memory, but for the ``logouts``.

    A cookie is ``<expiry>.<id>.<signature>``. The key comes from the token, so that sessions outlive
    a restart of the page, and end when the token changes. Times are epoch seconds.
    """

    def __init__(self, token: str, logouts: Logouts | None = None) -> None:
        # scrypt, since whoever has a cookie could otherwise try tokens against it at full speed.
        self._key = hashlib.scrypt(token.encode(), salt=_SALT, n=2**14, r=8, p=1)
        self._logouts = logouts or Logouts()

    def open(self, now: float) -> str:
        """Return the cookie of a new session."""
        stem = f"{int(now + LIFETIME_S)}.{secrets.token_urlsafe(24)}"
        return f"{stem}.{self._sign('session', stem)}"

    def find(self, cookie: str, now: float) -> Session | None:
        """Return the session of a cookie, or None if it is no good, or not any more."""
        stem, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign("session", stem).encode(), signature.encode()):
            return None
        expiry, _, session_id = stem.partition(".")
        session = Session(session_id, int(expiry))
        return None if session.expires_at <= now or session.id in self._logouts else session

    def close(self, session: Session, now: float) -> None:
        """Make the session's cookie worthless; may block for the disk."""
        self._logouts.add(session.id, session.expires_at, now)

    def new_browser(self) -> str:
        """Return the cookie of a browser that gets in for the first time; it opens nothing."""
        browser = secrets.token_urlsafe(16)
        return f"{browser}.{self._sign('browser', browser)}"

    def find_browser(self, cookie: str) -> str | None:
        """Return which browser has this cookie, and so has been in before; None if it is no good."""
        browser, _, signature = cookie.rpartition(".")
        right = hmac.compare_digest(self._sign("browser", browser).encode(), signature.encode())
        return browser if right else None

    def csrf_token(self, session: Session) -> str:
        """Return what a request of this session must carry to change anything."""
        return self._sign("csrf", session.id)

    def _sign(self, purpose: str, text: str) -> str:
        digest = hmac.digest(self._key, f"{purpose}:{text}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
