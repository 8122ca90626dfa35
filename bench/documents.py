"""CPU time of turning Celery events into Leek documents, beside that of merely parsing them.

    python -m bench.documents [--json] [--rounds N]

The events are those of a real worker and client (tasks that succeed, fail, are retried), repeated with
other ids and cut into batches of 1,000. The yardstick is the standard library's ``json.loads`` of the
same messages. Time is the process's CPU time, the best of several rounds.
"""

import argparse
import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from leekfanout.events import Documents, EventTally, decode

EVENTS = Path(__file__).parent / "data" / "celery_events.jsonl.gz"
BATCH_EVENTS = 1_000
COPIES = 24
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
Batches = list[list[bytes]]


def messages() -> Iterator[bytes]:
    """Yield the messages' bodies, the tasks of each copy with ids of their own."""
    bodies = gzip.decompress(EVENTS.read_bytes()).splitlines()
    for copy in range(COPIES):
        mark = b"%08x" % copy
        for body in bodies:
            yield UUID.sub(lambda uuid, mark=mark: mark + uuid[0][8:], body)


def batches() -> Batches:
    """Return the messages of each batch."""
    cut: Batches = [[]]
    events = 0
    for body in messages():
        count = len(decode(body, "application/json"))
        if events + count > BATCH_EVENTS:
            cut.append([])
            events = 0
        cut[-1].append(body)
        events += count
    return cut[:-1]


def parse_only(batch: list[bytes]) -> None:
    for body in batch:
        json.loads(body)


def decode_only(batch: list[bytes]) -> None:
    for body in batch:
        decode(body, "application/json")


def add_too(batch: list[bytes]) -> Documents:
    documents = Documents("prod", EventTally())
    for body in batch:
        for event in decode(body, "application/json"):
            documents.add(event)
    return documents


def close_too(batch: list[bytes]) -> list[bytes]:
    return add_too(batch).close(1_700_000_000_000)


def cpu_seconds(work: Callable[[list[bytes]], Any], cut: Batches) -> float:
    start = time.process_time()
    for batch in cut:
        work(batch)
    return time.process_time() - start


def measure(rounds: int) -> dict[str, float]:
    """Return the figures by name; all times in microseconds per event."""
    cut = batches()
    events = sum(len(decode(body, "application/json")) for batch in cut for body in batch)
    works = (parse_only, decode_only, add_too, close_too)
    # Round by round, so that what else the machine does hits all of them alike.
    times = [[cpu_seconds(work, cut) for work in works] for _ in range(rounds)]
    yardstick, decoding, adding, closing = (
        min(column) / events * 1e6 for column in zip(*times, strict=True)
    )
    closed = [close_too(batch) for batch in cut]
    return {
        "events": events,
        "documents": sum(map(len, closed)),
        "yardstick_us": yardstick,
        "total_us": closing,
        "ratio": closing / yardstick,
        "decode_us": decoding,
        "add_us": adding - decoding,
        "close_us": closing - adding,
        "events_per_second": 1e6 / closing,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=15, help="rounds (default: %(default)s)")
    args = parser.parse_args()
    figures = measure(args.rounds)
    if args.json:
        print(json.dumps(figures))
        return
    total = figures["total_us"]
    print(f"{figures['events']} events, {figures['documents']} documents, CPU time per event:")
    print(f"  json.loads      {figures['yardstick_us']:6.2f} µs  the yardstick")
    for step, what in (
        ("decode", "the message to events"),
        ("add", "check, convert and merge"),
        ("close", "arguments, and the documents to JSON"),
    ):
        spent = figures[f"{step}_us"]
        print(f"  {step:<15} {spent:6.2f} µs  {spent / total:4.0%}  {what}")
    print(f"  in all          {total:6.2f} µs  {figures['ratio']:.2f} times the yardstick")
    print(f"{figures['events_per_second']:,.0f} events per second of one core")


if __name__ == "__main__":
    main()
