"""Whether metrics are served, and where."""

import argparse
import importlib.util
from collections.abc import Mapping
from typing import Final, NamedTuple

from leekfanout.configuration import listen_address
from leekfanout.configuration.rules import shown
from leekfanout.errors import ConfigError

USUAL_ADDRESS: Final = "127.0.0.1:9808"
VARIABLE: Final = "LEEKFANOUT_METRICS"
PACKAGE: Final = "prometheus_client"


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--metrics``, for :func:`load`."""
    parser.add_argument(
        "--metrics",
        metavar="ADDRESS",
        help=f"serve /metrics, /livez and /readyz there, such as {USUAL_ADDRESS} "
        f"(default: ${VARIABLE}, or nowhere)",
    )


def load(args: argparse.Namespace, environ: Mapping[str, str]) -> Address | None:
    """Return where to serve metrics, or None for nowhere; ConfigError says what is wrong."""
    origin, text = "--metrics", args.metrics
    if text is None:
        origin, text = VARIABLE, environ.get(VARIABLE, "").strip()
    if not text:
        return None
    if importlib.util.find_spec(PACKAGE) is None:
        raise ConfigError(
            [
                f"{origin}: metrics need the package prometheus-client, which is not installed: "
                "install leekfanout[metrics]."
            ]
        )
    address = listen_address.parse(text)
    if address is None:
        rule = listen_address.RULE.format(USUAL_ADDRESS)
        raise ConfigError([f"{origin}: {shown(text)}: {rule}"])
    return Address(*address)
