"""What fuzzing begins with, and what it has found: each input is taken as its target demands."""

import importlib
from pathlib import Path

import pytest

from fuzz.targets import TARGETS, corpus, words

INPUTS = [(target, path) for target in TARGETS for path in sorted(corpus(target).iterdir())]


@pytest.mark.parametrize(
    ("target", "path"), INPUTS, ids=[f"{target}-{path.name}" for target, path in INPUTS]
)
def test_an_input_is_taken(target: str, path: Path) -> None:
    importlib.import_module(f"fuzz.{target}").one_input(path.read_bytes())


def test_every_target_has_words_and_something_to_begin_with() -> None:
    for target in TARGETS:
        assert any(corpus(target).iterdir()), target
        assert words(target).exists(), target
