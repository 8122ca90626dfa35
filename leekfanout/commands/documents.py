"""``leekfanout documents``: what Leek would get, for events from a file or a pipe."""

import argparse
import sys
import time
from typing import BinaryIO, Final

from leekfanout.documents.events import CONTENT_TYPE, Documents, EventTally, decode
from leekfanout.errors import BadEventError, LeekfanoutError

EXIT_BAD_LINES: Final = 2
STDIN: Final = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``documents``."""
    parser.description = (
        "Reads JSON Lines, each line one batch: a list of Celery events in the order of arrival. "
        "Writes for each line the list of documents that the batch becomes, as one line. Bad events "
        "are reported on standard error, and left out; so are lines that are no list, and then the "
        "exit code is 2."
    )
    parser.add_argument(
        "file", nargs="?", default=STDIN, help="file to read (default: standard input)"
    )
    parser.add_argument(
        "--app-env", required=True, help="the environment that the documents name, such as prod"
    )


def run(args: argparse.Namespace) -> int:
    """Turn every line into documents; 2 if a line was no list of events."""
    if args.file == STDIN:
        return _convert_lines(sys.stdin.buffer, args.app_env)
    try:
        with open(args.file, "rb") as lines:
            return _convert_lines(lines, args.app_env)
    except OSError as error:
        raise LeekfanoutError(f"{args.file} can't be read: {error.strerror}.") from None


def _convert_lines(lines: BinaryIO, app_env: str) -> int:
    exit_code = 0
    for number, line in enumerate(lines, start=1):
        try:
            events = _events_in(line)
        except BadEventError as error:
            print(f"line {number}: {error}", file=sys.stderr)
            exit_code = EXIT_BAD_LINES
            continue
        documents = Documents(app_env, EventTally())
        for index, event in enumerate(events):
            try:
                documents.add(event)
            except BadEventError as error:
                print(f"line {number}, event {index}: {error}", file=sys.stderr)
        closed = documents.close(int(time.time() * 1000))
        sys.stdout.buffer.write(b"[" + b",".join(closed) + b"]\n")
    return exit_code


def _events_in(line: bytes) -> list[object]:
    if not line.lstrip().startswith(b"["):
        raise BadEventError("It is no JSON list.")
    return decode(line, CONTENT_TYPE)
