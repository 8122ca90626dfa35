"""A supervisor with stand-in children, run as a program by the tests of the farm.

``python -m tests.farm_agent STATE_DIR FILE``: each entry of the file has a ``name`` and may have a
``behaviour``, how its child lives: obedient, slow, stubborn, hanging, littering or crashing.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from leekfanout import logs
from leekfanout.configuration.config import Settings, Subscription
from leekfanout.errors import ConfigError
from leekfanout.status.stats import Condition, Stats
from leekfanout.supervision import farm
from leekfanout.supervision.supervisor import Supervisor

PR_SET_CHILD_SUBREAPER = 36
SECRET = "not-for-the-log"


def subscription_from(entry: dict[str, Any]) -> Subscription:
    """Build a subscription from ``{"name": "shop-prod", "behaviour": "crashing"}``."""
    app_name, _, app_env = entry["name"].partition("-")
    return Subscription(
        org_name="mono",
        app_name=app_name,
        app_env=app_env,
        broker=(f"amqp://leek:{SECRET}@localhost//",),
        app_key=SECRET,
        api_url="http://localhost:1",
        transport_options=entry,
        max_memory_mb=entry.get("max_memory_mb"),
    )


def load(path: Path) -> list[Subscription]:
    """Read the subscriptions' file as the real loader would; ConfigError for what is no list."""
    try:
        return [subscription_from(entry) for entry in json.loads(path.read_text())]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError([f"{path.name} can't be used: {error}"]) from error


def live(subscription: Subscription, settings: Settings, stats: Stats, lifeline_fd: int) -> int:
    """Stand in for a subscription's process: turn, drain on SIGTERM or at the lifeline's end."""
    options = subscription.transport_options
    behaviour = options.get("behaviour", "obedient")
    if behaviour == "crashing":
        raise RuntimeError(f"no luck with {subscription.app_key}")
    if behaviour in {"stubborn", "hanging"}:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            if behaviour == "stubborn":
                stats.set("turned_at", time.monotonic())
            time.sleep(0.1)
    if behaviour == "littering":
        litter()
    wakeup, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    stats.set("condition", Condition.DELIVERING)
    stats.set("connected_at", time.time())
    ballast = bytearray(options.get("ballast_mb", 0) * 1_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])  # so that its pages are there
    ready: list[int] = []
    while not ready:
        stats.set("turned_at", time.monotonic())
        stats.add("events_delivered")
        ready, _, _ = select.select([wakeup, lifeline_fd], [], [], options.get("beat_s", 0.2))
    if behaviour == "slow":
        time.sleep(0.5)
    return 0


def litter() -> None:
    """Make three orphans, which end soon."""
    for _ in range(3):
        parent = os.fork()
        if parent == 0:
            if os.fork() == 0:
                time.sleep(0.3)
            os._exit(0)
        os.waitpid(parent, 0)
    logs.get("farm_agent").info("littered")


def main() -> int:
    state_dir, path = Path(sys.argv[1]), Path(sys.argv[2])
    logs.configure("DEBUG", "json")
    for name in ("HANG_AFTER_S", "OVERSLEPT_S", "MEMORY_EVERY_S"):
        setattr(farm, name, float(os.environ.get(name, getattr(farm, name))))
    if os.environ.get("SUBREAPER"):  # orphans come to it, as to process 1
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    settings = Settings(state_dir=state_dir, drain_timeout_s=float(os.environ.get("DRAIN_S", "3")))
    supervisor = Supervisor(settings, state_dir / "control.sock", live, lambda: load(path))
    return supervisor.run(load(path), lambda _: 0)


if __name__ == "__main__":
    sys.exit(main())
