"""What a removed subscription leaves at RabbitMQ: a durable queue that is bound, and fills."""

from typing import NamedTuple

from amqp import exceptions as amqp_errors

from leekfanout.configuration.addresses import parse_address
from leekfanout.configuration.config import Subscription
from leekfanout.errors import LeekfanoutError
from leekfanout.health.amqp import amqp_trouble, connect


class Deleted(NamedTuple):
    """What was deleted."""

    existed: bool
    messages: int
    consumers: int


def left_behind(subscription: Subscription) -> str:
    """Say what stays at the broker once nobody reads the subscription's queue any more."""
    if subscription.transport == "redis":
        return "Redis keeps nothing for it."
    address = parse_address(subscription.broker[0])
    return (
        f"The durable queue {subscription.queue} stays bound at {address.place} and goes on filling: "
        f"delete it (rabbitmqctl delete_queue -p {address.path} {subscription.queue}), "
        "or let another subscription read it."
    )


def delete_queue(subscription: Subscription, *, force: bool) -> Deleted:
    """Delete the queue, if it is empty and nobody reads it, or with ``force`` in any case.

    Raises LeekfanoutError with the reason if it isn't deleted; a queue that isn't there is no error.
    """
    troubles = []
    for url in subscription.broker:
        place = parse_address(url).place
        try:
            connection = connect(subscription, url)
        except Exception as error:  # noqa: BLE001  # py-amqp raises AttributeError and others, too
            troubles.append(str(amqp_trouble(error, place)))
            continue
        try:
            channel = connection.channel()
            declared = channel.queue_declare(subscription.queue, passive=True)
            found = Deleted(True, int(declared.message_count), int(declared.consumer_count))
            if not force:
                _refuse_unless_idle(subscription.queue, found)
            # Not RabbitMQ's own if-unused and if-empty: quorum queues don't know them.
            channel.queue_delete(subscription.queue)
        except amqp_errors.NotFound:
            return Deleted(False, 0, 0)
        except amqp_errors.AccessRefused as error:
            raise LeekfanoutError(
                f"{place} doesn't let this user delete the queue: {error.reply_text}"
            ) from None
        except (amqp_errors.AMQPError, OSError) as error:
            raise LeekfanoutError(str(amqp_trouble(error, place))) from None
        else:
            return found
        finally:
            connection.collect()
    raise LeekfanoutError(f"The queue can't be deleted. {' '.join(troubles)}")


def _refuse_unless_idle(queue: str, found: Deleted) -> None:
    if found.consumers:
        raise LeekfanoutError(
            f"The queue {queue} is not deleted, because it is still being read "
            f"({found.consumers} consumers): stop the subscription first, or add --force."
        )
    if found.messages:
        raise LeekfanoutError(
            f"The queue {queue} is not deleted, because it holds {found.messages:,} messages: "
            "add --force to delete them with it."
        )
