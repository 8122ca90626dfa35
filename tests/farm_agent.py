"""A supervisor with stand-in children, run as a program by the tests of the farm.

``python -m tests.farm_agent STATE_DIR SUBSCRIPTIONS.json``: each entry of the file has a ``name`` and
may have a ``behaviour``: how its child lives.
"""

import json
import os
import select
import signal
import sys
import time
from pathlib import Path

from leekfanout import logs
from leekfanout.config import Settings, Subscription
from leekfanout.errors import ConfigError
from leekfanout.stats import Condition, Stats
from leekfanout.supervisor import Supervisor


def subscription_from(entry: dict[str, object]) -> Subscription:
    """Build a subscription from ``{"name": "shop-prod", "behaviour": "crash"}``."""
    app_name, _, app_env = str(entry["name"]).partition("-")
    return Subscription(
        org_name="mono",
        app_name=app_name,
        app_env=app_env,
        broker=("amqp://localhost//",),
        app_key="not-for-the-log",
        api_url="http://localhost:1",
        transport_options={"behaviour": entry.get("behaviour", "obedient"), **entry},
        max_memory_mb=entry.get("max_memory_mb"),  # type: ignore[arg-type]
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
    behaviour = options["behaviour"]
    if behaviour == "crash":
        raise RuntimeError(f"no luck with {subscription.app_key}")
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    stats.set("condition", Condition.DELIVERING)
    stats.set("connected_at", time.time())
    ballast = bytearray(int(options.get("ballast_mb", 0)) * 1_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    while True:
        stats.set("turned_at", time.monotonic())
        stats.add("messages_received")
        ready, _, _ = select.select([wakeup_read, lifeline_fd], [], [], options.get("beat_s", 5.0))
        if ready:
            break
    if behaviour == "slow":
        time.sleep(0.5)
    stats.add("events_delivered")
    return 0


def main() -> int:
    state_dir, path = Path(sys.argv[1]), Path(sys.argv[2])
    logs.configure("DEBUG", "json")
    settings = Settings(state_dir=state_dir, drain_timeout_s=float(os.environ.get("DRAIN_S", "2")))
    supervisor = Supervisor(settings, state_dir / "control.sock", live, lambda: load(path))
    return supervisor.run(load(path), lambda _: 0)


if __name__ == "__main__":
    sys.exit(main())
