"""Outages of APIs and brokers, short ones and long ones, and a report of how soon delivery was back.

``python -m tests.outages [--report docs/recovery-report.md]``; pytest doesn't collect it. Takes a
quarter of an hour and hardly any CPU time: the long outages run beside the short ones, each kind with
an agent of its own. RabbitMQ, Redis and the APIs are private ones on the loopback interface.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.brokers import RabbitMQ, Redis
from tests.outages_lanes import (
    HANGS,
    NEVER_ANSWERS,
    REFUSES,
    ApiLane,
    Lane,
    RabbitLane,
    RedisLane,
)
from tests.outages_report import markdown

OFTEN = {1.0: 6, 5.0: 6, 20.0: 4, 60.0: 2, 120.0: 1}
"""How often an outage of so many seconds comes."""
OF_BROKERS = {1.0: 4, 5.0: 4, 15.0: 3, 30.0: 2}
LONG = {600.0: 1}


def main(arguments: Iterable[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.outages", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: all outages last a tenth")
    parser.add_argument("--report", type=Path, help="where to write the report, besides the screen")
    options = parser.parse_args(list(arguments))
    with tempfile.TemporaryDirectory(prefix="leekfanout-outages-") as folder:
        lanes = measure(options.scale, Path(folder))
    report = markdown(lanes)
    print(report)
    if options.report:
        options.report.write_text(report)
    return 1 if any(lane.lost for lane in lanes) else 0


def measure(scale: float, folder: Path) -> list[Lane]:
    """Run all lanes at once, and return them with what they found. Nothing is left running."""
    with RabbitMQ() as rabbitmq, Redis() as redis:
        apis = [
            ApiLane(kind, plan, lambda: (rabbitmq.new_vhost(), redis.new_database()))
            for plan in (OFTEN, LONG)
            for kind in (REFUSES, HANGS, NEVER_ANSWERS)
        ]
        lanes = [*apis, RabbitLane(OF_BROKERS), RedisLane(OF_BROKERS)]
        # Each in a thread of its own for as long as it lasts: Linux counts the thread that starts a
        # process as its parent, with which it ends (see tests.processes.ChildProcess).
        with ThreadPoolExecutor(len(lanes)) as pool:
            running = [
                pool.submit(lane.run, folder / str(number), scale)
                for number, lane in enumerate(lanes)
            ]
            for each in running:
                each.result()
    return lanes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
