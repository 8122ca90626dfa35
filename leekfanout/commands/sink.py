"""``leekfanout sink``: a small Leek API that shows what arrives."""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from leekfanout import logs
from leekfanout.sink.arrivals import Arrivals
from leekfanout.sink.leek_api import Sink
from leekfanout.terminal.screen import Screen, has_colour, is_live
from leekfanout.terminal.stopping import StopSignals

REDRAW_S: Final = 0.5
PLAIN_INTERVAL_S: Final = 10.0
"""How often lines are printed, if anything arrived, where standard output is no terminal."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=_port, default=5000, help="port, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="append each document as a JSON line"
    )
    parser.add_argument(
        "--delay-ms", type=_delay, default=0, metavar="MS", help="how long each POST takes"
    )
    parser.add_argument(
        "--app-key",
        default=os.environ.get("LEEKFANOUT_SINK_APP_KEY"),
        metavar="KEY",
        help="refuse any other key (or LEEKFANOUT_SINK_APP_KEY, which other users can't see in ps)",
    )
    parser.add_argument(
        "--application",
        type=_application,
        action="append",
        default=[],
        metavar="ORG/APP",
        help="an application that exists, any number of times; without it all do",
    )


def run(args: argparse.Namespace) -> int:
    logs.configure()
    arrivals = Arrivals()
    sink = Sink(
        args.host,
        args.port,
        app_key=args.app_key,
        applications=args.application,
        delay_s=args.delay_ms / 1000,
        record=args.record,
        on_documents=arrivals.add,
    )
    with StopSignals() as stop, sink:
        title = f"A Leek API for trying things, on {sink.url}; Ctrl-C ends it."
        if is_live(sys.stdout):
            _show_live(arrivals, stop, title)
        else:
            _print_plain(arrivals, stop, title)
    print("\n".join(arrivals.summary(colour=has_colour(sys.stdout))))
    return 0


def _show_live(arrivals: Arrivals, stop: StopSignals, title: str) -> None:
    colour = has_colour(sys.stdout)
    screen = Screen(sys.stdout)
    try:
        screen.draw(arrivals.lines(title, screen.size, colour=colour))
        while not stop.wait(REDRAW_S):
            screen.draw(arrivals.lines(title, screen.size, colour=colour))
    finally:
        screen.close()


def _print_plain(arrivals: Arrivals, stop: StopSignals, title: str) -> None:
    print(title, flush=True)
    shown = 0
    while not stop.wait(PLAIN_INTERVAL_S):
        if arrivals.posts != shown:
            shown = arrivals.posts
            print("\n".join(arrivals.summary(colour=False)), flush=True)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError("a port is 0 to 65535")
    return port


def _delay(text: str) -> float:
    delay_ms = float(text)
    if not 0 <= delay_ms <= 3_600_000:
        raise argparse.ArgumentTypeError("a delay is 0 to 3600000 milliseconds")
    return delay_ms


def _application(text: str) -> tuple[str, str]:
    organisation, separator, application = text.partition("/")
    if not (organisation and separator and application):
        raise argparse.ArgumentTypeError("an application is written as ORGANISATION/NAME")
    return organisation, application
