"""The demo's Celery: a small shop whose tasks succeed, fail, retry, wait and are revoked.

``python -m leekfanout.demo_celery worker`` and ``… client [COUNT]``, with the broker's URL in
:data:`BROKER_VARIABLE` (a command line can be read by every user of the machine).
"""

import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from celery import Celery, Task, uuid

from leekfanout.demo.whole_way import BROKER_VARIABLE

SEND_EVERY_S: Final = 0.5


def make_app(broker_url: str) -> Celery:
    """Return the shop's app, its tasks registered."""
    app = Celery("shop", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_send_sent_event=True,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
    )
    for task in (charge_card, send_receipt, fetch_rates, ship_order, refund):
        app.task(name=f"shop.{task.__name__}", bind=True)(task)
    return app


def charge_card(self: Task, order: int, amount: float) -> dict[str, Any]:
    """Succeed."""
    time.sleep(0.02 + order % 7 * 0.04)
    return {"order": order, "charged": amount}


def send_receipt(self: Task, order: int, email: str) -> None:
    """Fail."""
    raise ValueError(f"the mail server refuses {email!r}")


def fetch_rates(self: Task, currency: str) -> float:
    """Retry once, then succeed."""
    if not self.request.retries:
        raise self.retry(exc=TimeoutError(f"no rates for {currency} yet"), countdown=0.5)
    return 1.1


def ship_order(self: Task, order: int, carrier: str = "post") -> str:
    """Succeed, some time after it was received."""
    return f"order {order} left by {carrier}"


def refund(self: Task, order: int) -> None:
    """Never run: it is revoked first."""


def send(app: Celery, number: int) -> None:
    """Send the ``number``-th task; five kinds take turns."""
    _KINDS[number % len(_KINDS)](app, number)


def _send_charge(app: Celery, number: int) -> None:
    app.tasks["shop.charge_card"].delay(number, amount=9.5 + number)


def _send_receipt(app: Celery, number: int) -> None:
    app.tasks["shop.send_receipt"].delay(number, email="someone@example.com")


def _send_rates(app: Celery, number: int) -> None:
    app.tasks["shop.fetch_rates"].delay("EUR")


def _send_shipping(app: Celery, number: int) -> None:
    app.tasks["shop.ship_order"].apply_async((number,), {"carrier": "bike"}, countdown=2)


def _send_refund(app: Celery, number: int) -> None:
    # Revoked before it is sent, and due a moment later: so the worker knows by then, whichever of
    # the two messages overtakes the other.
    task_id = uuid()
    app.control.revoke(task_id)
    app.tasks["shop.refund"].apply_async((number,), countdown=1, task_id=task_id)


_KINDS: Final[tuple[Callable[[Celery, int], None], ...]] = (
    _send_charge,
    _send_receipt,
    _send_rates,
    _send_shipping,
    _send_refund,
)


def run_worker(app: Celery) -> None:
    """Work until a signal ends it."""
    app.worker_main(
        [
            *("worker", "--task-events", "--pool", "threads", "--concurrency", "4"),
            *("--hostname", "shop@%h", "--loglevel", "WARNING"),
            *("--without-gossip", "--without-mingle"),
        ]
    )


def run_client(app: Celery, count: int | None) -> None:
    """Send ``count`` tasks, or go on for ever."""
    for number in itertools.count() if count is None else range(count):
        send(app, number)
        time.sleep(SEND_EVERY_S)


if __name__ == "__main__":
    shop = make_app(os.environ[BROKER_VARIABLE])
    if sys.argv[1] == "worker":
        run_worker(shop)
    else:
        run_client(shop, int(sys.argv[2]) if len(sys.argv) > 2 else None)
