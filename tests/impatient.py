"""``leekfanout`` that takes a process for hung after some seconds instead of a minute.

``python -m tests.impatient SECONDS run …``, for tests that can't wait so long.
"""

import sys

from leekfanout import cli
from leekfanout.supervision import farm

if __name__ == "__main__":
    setattr(farm, "HANG_AFTER_S", float(sys.argv[1]))  # noqa: B010  # it is Final
    sys.exit(cli.main(sys.argv[2:]))
