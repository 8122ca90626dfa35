"""A real Celery application: tasks that end in every way there is, a worker, and a client of it.

The module is what ``celery -A tests.celeryapp worker`` imports; its broker comes from the variable
``CELERYAPP_BROKER``.
"""

import os
import sys
from pathlib import Path
from typing import Any, Self

from celery import VERSION, Celery
from celery.exceptions import Reject

from tests.processes import ChildProcess
from tests.waiting import until

BROKER_VARIABLE = "CELERYAPP_BROKER"
ROOT = Path(__file__).parents[1]
WORKER_START_TIMEOUT_S = 60.0
POOL = "threads" if VERSION >= (5, 7) else "prefork"
"""Before Celery 5.7, events of tasks in a thread pool get lost in the worker now and then."""


def make_app(broker: str) -> Celery:
    """Return the application on a broker; the client's own events go there too."""
    celery = Celery("shop", broker=broker, set_as_current=False)
    celery.conf.update(
        task_send_sent_event=True,
        worker_send_task_events=True,
        task_ignore_result=True,
        task_acks_late=True,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        # Redis: an unacked task that waits for its time must not come twice within a test.
        broker_transport_options={"visibility_timeout": 3600} if "redis" in broker else {},
    )
    celery.task(name="shop.tasks.pay")(pay)
    celery.task(name="shop.tasks.fail")(fail)
    celery.task(name="shop.tasks.retry", bind=True, max_retries=2)(retry)
    celery.task(name="shop.tasks.reject", acks_late=True)(reject)
    return celery


def pay(amount: float, **details: Any) -> dict[str, Any]:
    return {"paid": amount, **details}


def fail(reason: str) -> None:
    raise ValueError(reason)


def retry(task: Any, succeed_at_last: bool) -> str:
    if succeed_at_last and task.request.retries == task.max_retries:
        return "at last"
    raise task.retry(exc=ValueError("not yet"), countdown=0.05)


def reject() -> None:
    raise Reject("no reason", requeue=False)


if BROKER_VARIABLE in os.environ:
    app = make_app(os.environ[BROKER_VARIABLE])


class Worker:
    """A Celery worker with task events on, as a process; a context manager."""

    def __init__(self, broker: str, folder: Path, hostname: str = "celery@worker") -> None:
        self._broker = broker
        self._folder = folder
        self.hostname = hostname
        self._process: ChildProcess | None = None

    def __enter__(self) -> Self:
        command = [
            *(sys.executable, "-m", "celery", "-A", "tests.celeryapp", "worker", "-E"),
            *("--pool", POOL, "--concurrency", "4", "--hostname", self.hostname),
            *("--without-mingle", "--without-gossip", "--loglevel", "INFO"),
        ]
        env = {**os.environ, BROKER_VARIABLE: self._broker, "PYTHONPATH": str(ROOT)}
        log = self._folder / "worker.log"
        self._process = process = ChildProcess(command, log, env, cwd=ROOT)
        try:
            until(
                lambda: process.returncode is not None or b" ready." in log.read_bytes(),
                WORKER_START_TIMEOUT_S,
                "the Celery worker to be ready",
            )
            assert process.returncode is None, "The Celery worker has ended."
        except AssertionError as error:
            process.kill()
            raise AssertionError(f"{error}\n{process.output()}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Warm shutdown: tasks end, and the worker sends ``worker-offline``."""
        if self._process is not None:
            self._process.stop(timeout_s=30.0)


class Client:
    """Sends tasks; :attr:`finals` tells for each uuid the event that ends its life."""

    def __init__(self, broker: str) -> None:
        self._app = make_app(broker)
        self.finals: dict[str, str] = {}

    def send_all_kinds(self, rounds: int = 1) -> None:
        """Send tasks that succeed, fail, are retried, revoked, expired, rejected and scheduled."""
        for number in range(rounds):
            self._send("pay", (number,), {"to": "ü", "items": [{"sku": "a0"}]}, "task-succeeded")
            self._send("fail", ("card declined",), {}, "task-failed")
            self._send("retry", (True,), {}, "task-succeeded")
            self._send("retry", (False,), {}, "task-failed")
            self._send("reject", (), {}, "task-rejected")
            self._send("pay", (number,), {}, "task-succeeded", countdown=0.2)
            # Expired by the time that it is due; RabbitMQ itself drops what expires in a queue.
            self._send("pay", (number,), {}, "task-revoked", countdown=3.2, expires=3.0)
        doomed = self._send("pay", (0,), {}, "task-revoked", countdown=1.0)
        self._app.control.revoke(doomed)

    def close(self) -> None:
        self._app.close()

    def _send(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], final: str, **options: Any
    ) -> str:
        result = self._app.tasks[f"shop.tasks.{name}"].apply_async(args, kwargs, **options)
        self.finals[result.id] = final
        return result.id
