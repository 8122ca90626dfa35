"""Documents are those of the plain reference, for real events, examples and invented ones.

``LEEKFANOUT_TEST_EXAMPLES`` says how many batches are invented.
"""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from leekfanout.documents.events import Documents, EventTally, decode, documents
from leekfanout.errors import BadEventError
from tests import reference
from tests.event_factory import strictly
from tests.event_strategies import batches

EXAMPLES = int(os.environ.get("LEEKFANOUT_TEST_EXAMPLES", "300"))
ROOT = Path(__file__).parents[1]
BATCHES = [
    json.loads(line)
    for line in gzip.decompress(
        (ROOT / "tests/data/example_batches.jsonl.gz").read_bytes()
    ).splitlines()
]


def canonical(value: Any) -> str:
    """Text that tells 1 from 1.0 and True, and doesn't tell the order of keys."""
    return json.dumps(value, sort_keys=True)


def check(body: bytes) -> None:
    """Compare what becomes of a message: its documents, and which of its events are bad."""
    batch = Documents("qa", EventTally())
    bad = []
    for index, event in enumerate(decode(body, "application/json")):
        try:
            batch.add(event)
        except BadEventError:
            bad.append(index)
    expected, expected_bad = reference.documents(json.loads(body), "qa", 5)
    assert bad == expected_bad
    assert canonical([strictly(text) for text in batch.close(5)]) == canonical(expected)


@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_an_example_batch_becomes_its_documents(number: int) -> None:
    batch = BATCHES[number]

    docs, bad = documents(batch["events"], batch["app_env"], 5)

    assert bad == []
    assert {doc.pop("updated_at") for doc in docs} == {5}
    assert canonical(docs) == canonical(batch["docs"])


def test_the_reference_agrees_with_the_examples() -> None:
    for batch in BATCHES:
        docs, bad = reference.documents(batch["events"], batch["app_env"], 5)
        assert bad == []
        for doc in docs:
            del doc["updated_at"]
        assert canonical(docs) == canonical(batch["docs"])


def test_events_of_a_real_worker_become_what_the_reference_says() -> None:
    bodies = gzip.decompress((ROOT / "bench/data/celery_events.jsonl.gz").read_bytes())
    events = [event for body in bodies.splitlines() for event in decode(body, "application/json")]

    check(json.dumps(events).encode())


@settings(max_examples=EXAMPLES, deadline=None)
@given(batches())
def test_an_invented_batch_becomes_what_the_reference_says(batch: list[Any]) -> None:
    check(json.dumps(batch).encode())
