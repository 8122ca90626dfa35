"""The API double keeps the contract by default, and breaks it exactly as it is told."""

import socket
import threading
from collections.abc import Iterator

import pytest
import requests

from tests.api_double import PATH, ApiDouble
from tests.api_exchange import Reply
from tests.waiting import until

HEADERS = {
    "content-type": "application/json",
    "x-requested-with": "leek-agent",
    "x-agent-version": "1.0.0",
    "x-leek-org-name": "mono",
    "x-leek-app-name": "shop",
    "x-leek-app-env": "prod",
    "x-leek-app-key": "secret-app-key",
}


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers.update(HEADERS)
        yield session


def documents(count: int, size: int = 0) -> list[dict[str, object]]:
    return [
        {
            "id": f"id-{n}",
            "kind": "task",
            "events": ["QUEUED"],
            "events_count": 1,
            "args": "x" * size,
        }
        for n in range(count)
    ]


def test_documents_are_confirmed_over_one_kept_connection(
    api: ApiDouble, session: requests.Session
) -> None:
    for _ in range(2):
        answer = session.post(api.url + PATH, json=documents(3), timeout=5)
        assert (answer.status_code, answer.json()) == (201, {"success": 3})
    assert api.connections_accepted == 1
    assert api.confirmed_events() == 6
    assert [document["id"] for document in api.posts[0].confirmed] == ["id-0", "id-1", "id-2"]
    assert session.options(api.url + PATH, timeout=5).status_code == 200
    ready = session.get(api.url + PATH, timeout=5)
    assert (ready.status_code, ready.json(), api.probes) == (200, "Ready!", 1)


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("x-leek-app-key", "wrong", 401),
        ("x-leek-org-name", None, 400),
        ("x-requested-with", "browser", 404),
        ("content-type", "text/plain", 400),
    ],
)
def test_wrong_headers_are_refused(
    api: ApiDouble, session: requests.Session, name: str, value: str | None, status: int
) -> None:
    answer = session.post(api.url + PATH, data=b"[]", headers={name: value}, timeout=5)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "reason"}
    assert api.posts[0].confirmed == []


def test_a_script_answers_one_post_per_entry_and_then_the_contract_holds_again(
    api: ApiDouble, session: requests.Session
) -> None:
    api.script([Reply(503, headers={"Retry-After": "7"}), lambda _: None, Reply(200)])
    answers = [session.post(api.url + PATH, json=documents(1), timeout=5) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 201, 200, 201]
    assert answers[0].headers["Retry-After"] == "7"
    assert [len(post.confirmed) for post in api.posts] == [0, 1, 0, 1]


def test_refused_documents_are_named_and_the_others_are_confirmed(
    api: ApiDouble, session: requests.Session
) -> None:
    api.refuse(lambda document: document["id"] == "id-1")
    answer = session.post(api.url + PATH, json=documents(3), timeout=5)
    assert answer.status_code == 400
    assert (answer.json()["success"], answer.json()["failed"]) == (2, 1)
    assert answer.json()["errors"][0]["update"]["_id"] == "id-1"
    assert [document["id"] for document in api.confirmed()] == ["id-0", "id-2"]


def test_a_conflict_names_nobody_and_confirms_nothing(
    api: ApiDouble, session: requests.Session
) -> None:
    api.refuse(lambda document: document["id"] == "id-1", status=409)
    answer = session.post(api.url + PATH, json=documents(3), timeout=5)
    assert answer.status_code == 409
    assert isinstance(answer.json(), str)
    assert api.confirmed() == []
    assert session.post(api.url + PATH, json=documents(1), timeout=5).status_code == 201


@pytest.mark.parametrize("cut_after_bytes", [0, 8, 100])
@pytest.mark.parametrize("reset", [False, True])
def test_half_an_answer_confirms_nothing_though_the_documents_are_taken(
    api: ApiDouble, session: requests.Session, cut_after_bytes: int, reset: bool
) -> None:
    body = {"success": 1, "padding": "x" * 100}
    api.script([Reply(201, body, cut_after_bytes=cut_after_bytes, reset=reset)])
    with pytest.raises(requests.RequestException):
        session.post(api.url + PATH, json=documents(1), timeout=5)
    api.wait_for_posts(1)
    assert len(api.posts[0].taken) == 1
    assert api.posts[0].confirmed == []


def test_a_silent_answer_lasts_until_the_client_leaves(
    api: ApiDouble, session: requests.Session
) -> None:
    api.script([Reply(503, silent=True)])
    with pytest.raises(requests.ReadTimeout):
        session.post(api.url + PATH, json=documents(1), timeout=0.2)
    session.close()
    (post,) = api.wait_for_posts(1)
    assert (post.taken, post.answered) == ([], False)


def test_a_connection_can_be_closed_under_the_client(
    api: ApiDouble, session: requests.Session
) -> None:
    api.script([Reply(201, close=True)])
    assert session.post(api.url + PATH, json=documents(1), timeout=5).status_code == 201
    until(lambda: api.connections_open == 0, 5, "the connection to close")
    assert api.connections_accepted == 1
    assert session.post(api.url + PATH, json=documents(1), timeout=5).status_code == 201
    until(lambda: api.cut_connections(idle_only=True) == 1, 5, "the kept connection to be idle")


def test_a_body_may_stay_unread(api: ApiDouble, session: requests.Session) -> None:
    api.hang_before_reading = True
    with pytest.raises(requests.RequestException):
        session.post(api.url + PATH, json=documents(1, 20_000_000), timeout=0.5)
    session.close()
    assert api.posts_under_way == 1
    api.hang_before_reading = False
    until(lambda: api.posts_under_way == 0, 5, "the POST to be given up")
    assert api.posts == []


def test_a_slow_reader_takes_the_body_at_its_pace(
    api: ApiDouble, session: requests.Session
) -> None:
    api.read_bytes_per_s = 1_000_000
    session.post(api.url + PATH, json=documents(1, 500_000), timeout=10)
    (post,) = api.posts
    assert post.ended_at - post.started_at >= 0.5


def test_simultaneous_posts_are_counted(api: ApiDouble) -> None:
    api.delay_s = 2.0
    clients = [
        threading.Thread(
            target=lambda: requests.post(api.url + PATH, json=[], headers=HEADERS, timeout=10)
        )
        for _ in range(3)
    ]
    for client in clients:
        client.start()
    until(lambda: api.posts_under_way == 3, 10, "three POSTs to be under way")
    for client in clients:
        client.join()
    assert api.most_posts_at_once == 3
    assert api.posts_under_way == 0


def test_down_refuses_and_up_serves_again_on_the_same_port(
    api: ApiDouble, session: requests.Session
) -> None:
    session.post(api.url + PATH, json=documents(1), timeout=5)
    port = api.port
    api.go_down()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    with pytest.raises(requests.ConnectionError):
        session.post(api.url + PATH, json=documents(1), timeout=5)
    api.come_up()
    assert session.post(api.url + PATH, json=documents(1), timeout=5).status_code == 201
    assert api.port == port
