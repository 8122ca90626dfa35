"""An address to listen on, as people write it: ``127.0.0.1:9808``, ``[::1]:9808``."""

import re
from ipaddress import ip_address
from typing import Final

RULE: Final = "must be an IP address and a port, such as {}"

_ADDRESS: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9.]+|localhost):(?P<port>[0-9]{1,5})")


def parse(text: str) -> tuple[str, int] | None:
    """Return host and port; None if ``text`` is no such address.

    >>> parse("[::1]:9808"), parse("example.com:80")
    (('::1', 9808), None)
    """
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65_535:
        return None
    host = match["host"].strip("[]")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ip_address(host)
    except ValueError:
        return None
    return host, int(match["port"])


def shown(host: str, port: int) -> str:
    """Return the address as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
