"""Real Celery workers and clients on both brokers: every event that they send becomes documents."""

from pathlib import Path

from tests.accounting import Recorder, assert_complete, of_documents
from tests.agent import Agent, subscription
from tests.api_double import ApiDouble
from tests.celeryapp import Client, Worker
from tests.waiting import until

KINDS = {
    *("task-sent", "task-received", "task-started", "task-succeeded", "task-failed"),
    *("task-retried", "task-revoked", "task-rejected"),
}


def test_every_event_of_real_workers_and_clients_is_in_the_documents(
    amqp_url: str, redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    urls = {"shop": amqp_url, "mail": redis_url}
    subscriptions = [subscription(url, api, app_name=name) for name, url in urls.items()]
    with Agent(subscriptions, tmp_path / "agent") as agent:
        agent.wait_until_connected(2)
        for name, url in urls.items():
            folder = tmp_path / name
            folder.mkdir()
            with Recorder(url) as recorder:
                with Worker(url, folder, hostname=f"{name}@worker"):
                    client = Client(url)
                    client.send_all_kinds(rounds=5)
                    until(
                        lambda client=client, recorder=recorder: (
                            set(client.finals.items()) <= set(recorder.counted())
                        ),
                        30,
                        "the last event of every task",
                    )
                    client.close()
                until(
                    lambda recorder=recorder, name=name: (
                        recorder.counted() <= of_documents(documents(api, name))
                    ),
                    30,
                    "every event to become a document",
                )
            heard = recorder.counted()
            assert_complete(heard, of_documents(documents(api, name)))
            assert {kind for _, kind in heard} >= KINDS | {"worker"}
            states = {each["state"] for each in documents(api, name) if each["kind"] == "worker"}
            assert states >= {"ONLINE", "OFFLINE"}
        assert agent.stop() == 0


def documents(api: ApiDouble, app_name: str) -> list[dict[str, object]]:
    return [
        document
        for post in api.posts[:]
        if post.request.headers["x-leek-app-name"] == app_name
        for document in post.confirmed
    ]
