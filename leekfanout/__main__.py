"""``python -m leekfanout`` is the console script ``leekfanout``."""

import sys

from leekfanout.cli import main

if __name__ == "__main__":
    sys.exit(main())
