"""``leekfanout run``: the agent itself."""

import argparse
import gc
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from leekfanout import logs
from leekfanout.configuration import config, places, references
from leekfanout.configuration.config import Subscription
from leekfanout.configuration.file_watch import FileWatch
from leekfanout.control import control_client
from leekfanout.delivery import subscription
from leekfanout.errors import ConfigError, FixedConfigError
from leekfanout.metrics import metrics_options
from leekfanout.metrics.metrics_options import Address
from leekfanout.supervision import proctitle, startup_checks
from leekfanout.supervision.side_process import Work
from leekfanout.supervision.supervisor import Supervisor
from leekfanout.web import options as web_options
from leekfanout.web import process as page_process
from leekfanout.web import tokens
from leekfanout.web.agent import Agent
from leekfanout.web.options import WebOptions

WATCH_VARIABLE: Final = "LEEKFANOUT_WATCH_CONFIG"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``."""
    config.add_settings_options(parser)
    control_client.add_socket_option(parser)
    web_options.add_options(parser)
    metrics_options.add_options(parser)
    parser.add_argument(
        "--watch-config",
        action="store_true",
        default=None,
        help=f"apply changes of the subscriptions' file by itself (default: ${WATCH_VARIABLE})",
    )


def run(args: argparse.Namespace) -> int:
    """Run the agent until a signal ends it.

    Raises ConfigError, with nothing started, and AgentRunsError.
    """
    settings = config.load_settings(args, os.environ)
    logs.configure(settings.log_level, settings.log_format)
    socket_path = control_client.socket_path(args, os.environ)
    places.check(args, os.environ, settings.state_dir, socket_path)
    page = web_options.load(args, os.environ)
    metrics = metrics_options.load(args, os.environ)
    subscriptions = _first_subscriptions(args, with_page=page is not None)
    os.umask(0o077)  # what the agent writes may quote events, which are nobody else's business
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold keys and passwords
    load, watch = _loader(args), _watch(args)
    sides: dict[str, Work] = {}
    if page is not None:
        sides["page"] = _page(Agent(settings, socket_path, _file(args)), page)
    if metrics is not None:
        sides["metrics"] = _metrics(metrics, socket_path)
    _hide_secrets(args)
    proctitle.forget_variable(config.SUBSCRIPTIONS_VARIABLE)
    supervisor = Supervisor(settings, socket_path, subscription.run, load, watch)
    # What is imported by now stays shared between all processes: frozen, the collector doesn't
    # write to it, and so doesn't copy its pages.
    gc.collect()
    gc.freeze()
    return supervisor.run(subscriptions, startup_checks.report, sides)


def _first_subscriptions(args: argparse.Namespace, *, with_page: bool) -> list[Subscription]:
    """Load the subscriptions; with the page there may be none yet, since that can add them."""
    fixed = config.subscriptions_from_variable(os.environ)
    if with_page and not fixed and not _file(args).exists():
        return []
    return config.for_processes(
        config.load_subscriptions(os.environ, args.config, allow_none=with_page)
    )


def _page(agent: Agent, options: WebOptions) -> Work:
    variable = config.SUBSCRIPTIONS_VARIABLE
    forgotten = {variable: os.environ[variable]} if variable in os.environ else {}

    def serve(lifeline_fd: int) -> int:
        page_process.become(agent, options, {**os.environ, **forgotten}, lifeline_fd)

    return serve


def _metrics(address: Address, socket_path: Path) -> Work:
    def serve(lifeline_fd: int) -> int:
        from leekfanout.metrics import metrics_server  # noqa: PLC0415  # its packages, too

        return metrics_server.serve(address.host, address.port, socket_path, lifeline_fd)

    return serve


def _file(args: argparse.Namespace) -> Path:
    return config.subscriptions_file(args.config, os.environ)


def _watch(args: argparse.Namespace) -> FileWatch | None:
    wanted = args.watch_config
    if wanted is None:
        text = os.environ.get(WATCH_VARIABLE, "").strip().lower() or "false"
        if text not in {"true", "false"}:
            raise ConfigError([f"{WATCH_VARIABLE}: {text!r}: must be true or false"])
        wanted = text == "true"
    if not wanted:
        return None
    if config.subscriptions_from_variable(os.environ):
        raise ConfigError(
            [f"There is no file to watch: {config.SUBSCRIPTIONS_VARIABLE} holds the subscriptions."]
        )
    path = _file(args)
    try:
        return FileWatch(path)
    except OSError as error:
        raise ConfigError([f"{path.parent} can't be watched: {error.strerror}."]) from None


def _loader(args: argparse.Namespace) -> Callable[[], Sequence[Subscription]]:
    if config.subscriptions_from_variable(os.environ):
        return _refuse

    def load() -> Sequence[Subscription]:
        subscriptions = config.load_subscriptions(os.environ, args.config, allow_none=True)
        _hide_secrets(args)
        return config.for_processes(subscriptions)

    return load


def _hide_secrets(args: argparse.Namespace) -> None:
    """Take the variables that hold secrets out of ``/proc``; they are read again at a reload."""
    try:
        _, entries = config.read_entries(os.environ, args.config)
    except ConfigError:  # there is no file yet
        entries = []
    for name in {*tokens.VARIABLES, *references.variables_in(entries)}:
        proctitle.hide_variable(name)


def _refuse() -> Sequence[Subscription]:
    raise FixedConfigError(
        [
            f"The subscriptions come from {config.SUBSCRIPTIONS_VARIABLE}, which can't change while "
            "the agent runs: change it and start the agent again, or use a file instead."
        ]
    )
