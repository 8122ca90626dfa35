"""leekfanout beside the agent that anyone would write first, in one run and on one machine.

    python -m bench.compare

The other one is ``simple_agent``: kombu's ConsumerMixin, requests.post, and little else.
"""

import argparse

from bench.__main__ import console_for_tables, measure
from bench.plan import compare
from bench.results import Results, machine


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="with half the events")
    args = parser.parse_args()
    results = Results(machine())
    measure([compare(args.quick)], results, console_for_tables())


if __name__ == "__main__":
    main()
