"""A text to subscriptions: valid ones that the agent can begin with, or a ConfigError in lines."""

from leekfanout.configuration import config
from leekfanout.configuration.config import Subscription
from leekfanout.errors import ConfigError
from leekfanout.redaction import Mask, secrets_of
from leekfanout.sources.amqp import AmqpSource
from leekfanout.sources.redis import RedisSource
from leekfanout.sources.redis_channels import channels

ENVIRONMENT = {"BROKER_PASSWORD": "p@ss/word", "APP_KEY": "a-key", "EMPTY": ""}


def one_input(text: bytes) -> None:
    """Raise if a text is refused in another way, or taken and then of no use."""
    # As os.environ gives what isn't UTF-8.
    variable = text.decode("utf-8", "surrogateescape")
    if not variable.strip():
        return
    environ = {**ENVIRONMENT, config.SUBSCRIPTIONS_VARIABLE: variable}
    try:
        subscriptions = config.load_subscriptions(environ, None)
    except ConfigError as error:
        check_lines(error)
        return
    assert subscriptions
    for subscription in config.for_processes(subscriptions):
        begin_with(subscription)


def check_lines(error: ConfigError) -> None:
    """Each mistake is one line that can be shown anywhere."""
    assert error.problems
    for line in error.problems:
        assert line.isprintable(), ascii(line)


def begin_with(subscription: Subscription) -> None:
    """Do what a subscription's process does before it connects."""
    Mask(secrets_of(subscription))(f"{subscription!r}")
    if subscription.transport == "amqp":
        AmqpSource(subscription)
    else:
        RedisSource(subscription)
        channels(subscription, 0)
