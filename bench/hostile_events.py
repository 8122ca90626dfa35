"""CPU time of single events of about a megabyte that are made to be slow, the slowest first.

    python -m bench.hostile_events [--rounds N]

Each goes the whole way from the message to its document. The best of several rounds counts.
"""

import argparse
import json
import time

from leekfanout.documents.events import Documents, EventTally, decode
from leekfanout.errors import BadEventError
from tests.event_factory import task
from tests.hostile_texts import HOSTILE_TEXTS

FIELDS = ("args", "kwargs", "traceback", "exception", "result", "name")


def messages() -> dict[str, bytes]:
    """Return the messages by what is hostile in them."""
    event = task("failed")
    hostile = {
        f"{text_name} as {field}": json.dumps({**event, field: text}).encode()
        for text_name, text in HOSTILE_TEXTS.items()
        for field in FIELDS
    }
    start = json.dumps(event)[:-1]
    for name, value in {
        "lists": "[" + "[[]]," * 200_000 + "1]",
        "objects": "[" + "{}," * 333_000 + "1]",
        "keys": json.dumps({str(index): 1 for index in range(90_000)}),
        "NaN": "[" + "NaN," * 250_000 + "1]",
        "NaN and numbers": "[NaN," + "1," * 500_000 + "1]",
        "NaN and big numbers": "[NaN," + "99999999999999999999," * 50_000 + "1]",
        "NaN and lists": "[NaN," + "[[]]," * 200_000 + "1]",
        "numbers": "[" + "9" * 1_000_000 + "]",
    }.items():
        hostile[f"{name} in an extra field"] = f'{start}, "extra": {value}}}'.encode()
    hostile["extra fields"] = (
        start + "".join(f', "{index}": 1' for index in range(80_000)) + "}"
    ).encode()
    hostile["NaN and extra fields"] = hostile["extra fields"][:-1] + b', "x": NaN}'
    return hostile


def cpu_seconds(body: bytes) -> float:
    start = time.process_time()
    batch = Documents("prod", EventTally())
    try:
        for event in decode(body, "application/json"):
            batch.add(event)
    except BadEventError:
        pass
    batch.close(0)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    rounds = range(parser.parse_args().rounds)
    slowest = sorted(
        (
            (min(cpu_seconds(body) for _ in rounds), name, len(body))
            for name, body in messages().items()
        ),
        reverse=True,
    )
    for seconds, name, size in slowest[:20]:
        print(f"{seconds * 1e3:7.1f} ms  {size / 1e6:5.1f} MB  {name}")


if __name__ == "__main__":
    main()
