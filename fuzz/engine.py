"""``python -m fuzz.engine TARGET FOLDER SECONDS``: one target, in a process of its own.

FOLDER gets the inputs that reach new code, and beside it those that break something.
"""

import importlib
import logging
import sys
from typing import Final

import atheris

from fuzz.targets import corpus, words

INPUT_MAX_BYTES: Final = 8_192
INPUT_MAX_S: Final = 20
"""An input that takes longer is a fault, too."""

MEMORY_MAX_MB: Final = 1_024


def main() -> None:
    """Never return: libFuzzer ends the process, with 0 unless there was a fault."""
    target, folder, seconds = sys.argv[1:]
    options = {
        "max_total_time": seconds,
        "max_len": INPUT_MAX_BYTES,
        "timeout": INPUT_MAX_S,
        "rss_limit_mb": MEMORY_MAX_MB,
        "artifact_prefix": f"{folder}-",
        "print_final_stats": 1,
        "dict": words(target),
    }
    logging.disable()  # what is said about millions of bad inputs is for nobody
    with atheris.instrument_imports(include=["leekfanout"]):
        module = importlib.import_module(f"fuzz.{target}")
    atheris.Setup(
        [
            sys.argv[0],
            *(f"-{name}={value}" for name, value in options.items()),
            folder,
            str(corpus(target)),
        ],
        module.one_input,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
