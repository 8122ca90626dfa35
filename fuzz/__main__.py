"""``python -m fuzz``: each target in turn, for a while; ends with 1 if one has found a fault."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from fuzz.targets import TARGETS

OUT: Final = Path("build", "fuzz")


def main() -> int:
    """Run the targets that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=60, help="for each target (default: 60)")
    args = parser.parse_args()
    if unknown := set(args.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    failed = [name for name in args.targets or TARGETS if not _passes(name, args.minutes * 60)]
    print(f"Faults in: {', '.join(failed)}; inputs are in {OUT}/." if failed else "No faults.")
    return 1 if failed else 0


def _passes(target: str, seconds: float) -> bool:
    found = OUT / target
    found.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzz.engine", target, str(found), f"{seconds:.0f}"]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
