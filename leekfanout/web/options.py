"""Whether there is an agent page, where it listens, and which names it answers to."""

import argparse
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from leekfanout import logs
from leekfanout.configuration import listen_address
from leekfanout.configuration.rules import shown
from leekfanout.errors import ConfigError

DEFAULT_ADDRESS: Final = "127.0.0.1:8000"
"""Nobody but this machine reaches it."""

ADDRESS_VARIABLE: Final = "LEEKFANOUT_WEB"
HOSTS_VARIABLE: Final = "LEEKFANOUT_WEB_HOSTS"
ENABLE_VARIABLE: Final = "LEEK_ENABLE_WEB"

PACKAGES: Final = ("jinja2", "starlette", "uvicorn")

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

log = logs.get("web")


@dataclass(frozen=True, slots=True)
class WebOptions:
    """Where the page listens; ``hosts`` are the names under which people reach it, lower-case."""

    host: str = "127.0.0.1"
    port: int = 8_000
    hosts: frozenset[str] = frozenset()

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return ip_address(self.host).is_loopback

    def answers_to(self, header: str) -> bool:
        """Whether a request with this ``Host`` header is meant for the page.

        A name that isn't known is refused: it may be an attacker's, which his own name server
        makes point here (DNS rebinding). An IP address can't be made to point elsewhere.
        """
        host = header.strip().lower()
        host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if host == "localhost" or host in self.hosts:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or not self.loopback


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--web`` and ``--web-host``, for :func:`load`."""
    parser.add_argument(
        "--web",
        metavar="ADDRESS",
        help=f"serve the agent page there, such as {DEFAULT_ADDRESS} (default: ${ADDRESS_VARIABLE}, "
        f"or {DEFAULT_ADDRESS} if {ENABLE_VARIABLE} is true, or no page)",
    )
    parser.add_argument(
        "--web-host",
        metavar="NAME",
        action="append",
        help="a host name by which people reach the page, beside localhost and IP addresses; may "
        f"be repeated (default: ${HOSTS_VARIABLE}, separated by commas)",
    )


def load(args: argparse.Namespace, environ: Mapping[str, str]) -> WebOptions | None:
    """Return where to serve the page, or None for nowhere; ConfigError says what is wrong."""
    origin, text = "--web", args.web
    if text is None:
        origin, text = ADDRESS_VARIABLE, environ.get(ADDRESS_VARIABLE, "").strip()
    if not text:
        if environ.get(ENABLE_VARIABLE, "").strip().lower() != "true":
            return None
        origin, text = ENABLE_VARIABLE, DEFAULT_ADDRESS
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing and origin == ENABLE_VARIABLE:
        # Leek's own deployments set it for all of Leek's parts; delivering is more important.
        log.warning("web.missing", packages=", ".join(missing), advice="install leekfanout[web]")
        return None
    if missing:
        raise ConfigError(
            [
                f"{origin}: the agent page needs packages that are not installed "
                f"({', '.join(missing)}): install leekfanout[web]."
            ]
        )
    names = args.web_host
    if names is None:
        names = environ.get(HOSTS_VARIABLE, "").split(",")
    hosts = frozenset(name.strip().lower() for name in names if name.strip())
    problems = [
        f"--web-host: {shown(name)}: must be a host name, without a scheme and a port"
        for name in sorted(hosts)
        if not _NAME.fullmatch(name)
    ]
    address = listen_address.parse(text)
    if address is None:
        problems.append(f"{origin}: {shown(text)}: {listen_address.RULE.format(DEFAULT_ADDRESS)}")
    if problems or address is None:
        raise ConfigError(problems)
    host, port = address
    return WebOptions(host, port, hosts)
