"""One subscription's process without a supervisor; a program that :class:`tests.agent.Alone` runs.

Standard input is its lifeline. What it tells of itself is written to a file several times a second.
"""

import importlib
import json
import os
import sys
import threading
from pathlib import Path

import orjson

from leekfanout import logs
from leekfanout.configuration import config
from leekfanout.configuration.config import Settings
from leekfanout.delivery import subscription
from leekfanout.status.stats import TEXTS, Stats

EVERY_S = 0.05


def main() -> int:
    arguments = json.loads(sys.argv[1])
    for name, value in arguments["constants"].items():
        module, _, constant = name.rpartition(".")
        setattr(importlib.import_module(f"leekfanout.{module}"), constant, value)
    env = {
        "LEEK_AGENT_SUBSCRIPTIONS": json.dumps([arguments["subscription"]]),
        "LEEK_ENABLE_AGENT": "true",
        "LEEK_ENABLE_API": "false",
        "LEEK_ENABLE_WEB": "false",
    }
    (loaded,) = config.load_subscriptions(env, None)
    settings = Settings(
        **{**arguments["settings"], "state_dir": Path(arguments["settings"]["state_dir"])}
    )
    (settings.state_dir / loaded.name).mkdir(mode=0o700, parents=True, exist_ok=True)
    logs.configure("DEBUG", "json")
    logs.bind(subscription=loaded.name)
    stats, path = Stats(), Path(arguments["stats_file"])
    ended = threading.Event()

    def tell() -> None:
        last = False
        while not last:
            last = ended.wait(EVERY_S)
            told = {**stats.snapshot(), **{name: stats.read_text(name) for name in TEXTS}}
            path.with_suffix(".new").write_bytes(orjson.dumps(told))
            os.replace(path.with_suffix(".new"), path)

    teller = threading.Thread(target=tell, name="teller")
    teller.start()
    try:
        return subscription.run(loaded, settings, stats, lifeline_fd=0)
    finally:
        ended.set()
        teller.join()


if __name__ == "__main__":
    sys.exit(main())
