"""The targets: the inputs that each begins with, and the words that its inputs are made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent

TARGETS: Final[Mapping[str, str]] = {
    "decoder": "events",
    "envelope": "envelopes",
    "amqp_frames": "frames",
    "configuration": "subscriptions",
    "secrets": "urls",
    "rpc": "calls",
    "control": "http",
    "metrics": "http",
    "sink": "http",
    "page": "http",
}
"""Modules of this package, each with its file in ``words/``."""


def corpus(target: str) -> Path:
    """Return the folder of the inputs that the making up begins with."""
    return FOLDER / "corpus" / target


def words(target: str) -> Path:
    """Return the file of a target's words (libFuzzer: "Dictionaries")."""
    return FOLDER / "words" / f"{TARGETS[target]}.txt"
