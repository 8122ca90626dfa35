"""Asking a person before something is deleted for good."""

import sys

from leekfanout.errors import LeekfanoutError


def confirmed(question: str) -> bool:
    """Ask on the terminal, and return whether the answer is yes; anything else is a no.

    Raises LeekfanoutError where there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise LeekfanoutError(f"{question} Nobody can be asked here: add --yes.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
