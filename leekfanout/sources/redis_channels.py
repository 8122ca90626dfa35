"""Where and how kombu publishes events on Redis: channel names, and the envelope around a body.

kombu's Redis transport is the reference (``kombu/transport/redis.py``: ``_get_publish_topic``,
``_queue_bind``; ``kombu/transport/virtual/base.py``: ``Message``). Pure.
"""

import re
from binascii import a2b_base64
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import orjson

from leekfanout.configuration.config import Subscription
from leekfanout.errors import BadEventError

KOMBU_PREFIX: Final = "/{db}."
_GLOB: Final = re.compile(r"([*?\[\]\\^-])")


COPIES_REMEMBERED: Final = 1_000
"""As many as kombu remembers where workers publish to two channels (``sentinel_fanout_compat``)."""


@dataclass(frozen=True, slots=True)
class Channels:
    """What to subscribe to, in one command."""

    command: str
    """``PSUBSCRIBE``, or ``SUBSCRIBE`` where channels' names don't hold the routing key."""
    names: tuple[str, ...]
    """Patterns or names; the second one is kombu's before 5.4 (``sentinel_fanout_compat``)."""


def channels(subscription: Subscription, database: int) -> Channels:
    """Return the channels to which Celery publishes the subscription's events.

    PUB/SUB ignores SELECT, so the database's number is part of the name; a mismatch is silent.

    >>> channels(subscription, 0).names
    ('/0.celeryev/*',)
    """
    options = subscription.transport_options
    prefix = _prefix(options.get("fanout_prefix", True))
    prefixes = [prefix.format(db=database)]
    if options.get("sentinel_fanout_compat", False) and prefix not in prefixes:
        prefixes.append(prefix)
    names = [
        f"{options.get('global_keyprefix', '')}{prefix}{subscription.exchange}"
        for prefix in prefixes
    ]
    # In a fanout binding "#" is the only wildcard that kombu translates; "*" is Redis' own.
    routing_key = subscription.routing_key.replace("#", "*")
    if not options.get("fanout_patterns", True) or not routing_key:
        return Channels("SUBSCRIBE", tuple(names))
    return Channels("PSUBSCRIBE", tuple(f"{_literally(name)}/{routing_key}" for name in names))


def _prefix(option: bool | str) -> str:
    if isinstance(option, str):
        return option
    return KOMBU_PREFIX if option else ""


def _literally(name: str) -> str:
    """Return ``name`` as a pattern that matches nothing else (Redis: "PSUBSCRIBE")."""
    return _GLOB.sub(r"\\\1", name) if re.search(r"[*?\[\\]", name) else name


def open_envelope(payload: bytes) -> tuple[bytes, str | None, str | None]:
    """Return a message's body, its content type and its id (kombu's delivery tag, a UUID).

    The envelope is JSON; the body in it is base64, or text where ``body_encoding`` is absent.
    Raises BadEventError, with the reason, for anything else.
    """
    try:
        envelope = orjson.loads(payload)
        properties = envelope["properties"]
        encoded = envelope["body"]
        encoding = properties.get("body_encoding")
        body = a2b_base64(encoded) if encoding == "base64" else encoded.encode()
    except orjson.JSONDecodeError:
        raise BadEventError("the envelope is not JSON") from None
    except (KeyError, TypeError, AttributeError):
        raise BadEventError("the envelope is not kombu's: it lacks body or properties") from None
    except ValueError:  # binascii.Error among them
        raise BadEventError("the body in the envelope is not base64") from None
    if encoding is not None and encoding != "base64":
        raise BadEventError(f"the body's encoding is {encoding!r:.100}, which is unknown")
    content_type = envelope.get("content-type")
    if content_type is not None and type(content_type) is not str:
        raise BadEventError("the envelope's content type is no text")
    return body, content_type, properties.get("delivery_tag")


class Copies:
    """Tells the second copy of a message that came on both channels."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_second(self, message_id: str | None) -> bool:
        """Whether the message came on the other channel already; one without an id never did."""
        seen = self._seen
        if not isinstance(message_id, str):
            return False
        if message_id in seen:
            return True
        seen[message_id] = None
        if len(seen) > COPIES_REMEMBERED:
            seen.popitem(last=False)
        return False

    def taken(self, payloads: Iterable[bytes]) -> None:
        """Remember messages that another agent has taken."""
        for payload in payloads:
            with suppress(BadEventError):
                self.is_second(open_envelope(payload)[2])
