"""``python -m leekfanout.web FD`` is the page's process; only the supervisor starts it."""

import sys

from leekfanout.web import process, serve

if __name__ == "__main__":
    sys.exit(process.live(int(sys.argv[1]), serve.run))
