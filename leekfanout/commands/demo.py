"""``leekfanout demo``: real Celery tasks arriving as documents, with nothing to configure."""

import argparse
import sys

from leekfanout import logs
from leekfanout.demo import whole_way


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--broker",
        choices=("redis", "rabbitmq"),
        default="redis",
        help="a bundled Redis, or RabbitMQ if it is installed (default: %(default)s)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=_seconds, metavar="S", help="end after so many seconds of tasks"
    )
    length.add_argument(
        "--tasks",
        type=_count,
        metavar="N",
        help="send so many tasks, and end when all have arrived",
    )


def run(args: argparse.Namespace) -> int:
    logs.configure()
    return whole_way.run(whole_way.Options(args.broker, args.seconds, args.tasks), sys.stdout)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("a number of seconds above 0")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("a whole number above 0")
    return count
