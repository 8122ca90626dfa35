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

import orjson

from leekfanout.delivery import allocator
from leekfanout.documents import reprs
from leekfanout.documents.events import Documents, EventTally, decode

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


def read_arguments(documents: list[dict[str, Any]]) -> None:
    """Do again what closing did to arguments."""
    for document in documents:
        if "args" in document:
            reprs.args_items(document["args"])
        if "kwargs" in document:
            reprs.flatten(document["kwargs"])


def cpu_seconds(work: Callable[[Any], Any], batches_or_documents: list[Any]) -> float:
    start = time.process_time()
    for item in batches_or_documents:
        work(item)
    return time.process_time() - start


def measure(rounds: int) -> dict[str, float]:
    """Return the figures by name; all times in microseconds per event."""
    allocator.map_large_blocks()  # as a subscription's process does
    cut = batches()
    events = sum(len(decode(body, "application/json")) for batch in cut for body in batch)
    closed = [close_too(batch) for batch in cut]
    documents = [[orjson.loads(document) for document in batch] for batch in closed]
    works: list[tuple[Callable[[Any], Any], list[Any]]] = [
        (parse_only, cut),
        (decode_only, cut),
        (add_too, cut),
        (close_too, cut),
        (read_arguments, documents),
    ]
    # Round by round, so that what else the machine does hits all of them alike.
    times = [[cpu_seconds(*work) for work in works] for _ in range(rounds)]
    yardstick, decoding, adding, closing, arguments = (
        min(column) / events * 1e6 for column in zip(*times, strict=True)
    )
    return {
        "events": events,
        "documents": sum(map(len, closed)),
        "yardstick_us": yardstick,
        "total_us": closing,
        "ratio": closing / yardstick,
        "decode_us": decoding,
        "merge_us": adding - decoding,
        "arguments_us": arguments,
        "json_us": closing - adding - arguments,
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
        ("decode", "messages to events"),
        ("merge", "check, convert and merge events"),
        ("arguments", "read args and kwargs, once per document"),
        ("json", "documents to JSON"),
    ):
        spent = figures[f"{step}_us"]
        print(f"  {step:<15} {spent:6.2f} µs  {spent / total:4.0%}  {what}")
    print(f"  in all          {total:6.2f} µs  {figures['ratio']:.2f} times the yardstick")
    print(f"{figures['events_per_second']:,.0f} events per second of one core")


if __name__ == "__main__":
    main()
