"""The errors that leekfanout raises on purpose.

Every message is a whole sentence for the person on call: what is wrong, where, and what to do.
A subclass exists only where a caller acts differently on it.
"""


class LeekfanoutError(Exception):
    """Something that leekfanout can name; the command line shows it as one line and exits with 2."""


class ConfigError(LeekfanoutError):
    """The configuration can't be used; ``problems`` holds one line for each mistake in it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class FixedConfigError(ConfigError):
    """The subscriptions come from where they can't change while the agent runs."""


class SubscriptionExistsError(LeekfanoutError):
    """There is a subscription of this name already."""


class SubscriptionUnknownError(LeekfanoutError):
    """There is no subscription of this name."""


class SubscriptionRefusedError(LeekfanoutError):
    """The broker or the API of a new subscription can't be used.

    ``refused``: it answered with a no; otherwise it was not reachable, or not able to serve.
    """

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


class AgentRunsError(LeekfanoutError):
    """Another agent runs with the same state folder or control socket, so this one must not."""


class SourceError(LeekfanoutError):
    """The broker can't be reached or used at the moment; trying again later may help.

    ``silent_s``: how long nothing had come, where it is by its silence that a loss was noticed.
    """

    def __init__(self, message: str, *, silent_s: float = 0.0) -> None:
        super().__init__(message)
        self.silent_s = silent_s


class SourceRefusedError(SourceError):
    """The broker answered and refused: credentials, virtual host or permissions are wrong.

    Trying again helps only once somebody has changed something there or in the configuration.
    """


class SourceStandbyError(SourceError):
    """Another agent hears the subscription's events; this one takes over when that one stops.

    ``holder``: that agent, as ``host:pid``.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"{holder} holds the lease and hears the events; this agent stands by.")
        self.holder = holder


class BadEventError(LeekfanoutError):
    """One event, or one message of events, can't become a document; the message is the reason."""


class StoreError(LeekfanoutError):
    """The state directory can't keep something at the moment (disk full, read-only, damaged)."""
