"""The sink answers as the contract's section 1 says."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from leekfanout.errors import LeekfanoutError
from leekfanout.sink.leek_api import Sink
from leekfanout.sink.sink_http import BODY_MAX_BYTES, ENDPOINT
from tests.waiting import until

HEADERS = {
    "content-type": "application/json",
    "x-requested-with": "leek-agent",
    "x-agent-version": "0.1.0",
    "x-leek-org-name": "mono",
    "x-leek-app-name": "shop",
    "x-leek-app-env": "qa",
    "x-leek-app-key": "a-key",
}


def task(task_id: str = "1", state: str = "SUCCEEDED", **more: object) -> dict[str, object]:
    return {"id": task_id, "kind": "task", "state": state, "events_count": 1, **more}


class Client:
    """Calls one sink over one kept-alive connection."""

    def __init__(self, sink: Sink) -> None:
        self.session = requests.Session()
        self.url = sink.url + ENDPOINT

    def post(self, body: object, **headers: str) -> requests.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.session.post(self.url, data, headers=HEADERS | headers, timeout=10)

    def get(self, headers: dict[str, str]) -> requests.Response:
        return self.session.get(self.url, headers=headers, timeout=10)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(app_key="a-key", applications=[("mono", "shop")], keep=True) as sink:
        yield sink


@pytest.fixture
def client(sink: Sink) -> Iterator[Client]:
    client = Client(sink)
    yield client
    client.session.close()


def assert_is_an_error(response: requests.Response, status: int, word: str) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"code", "message", "reason"}
    assert all(isinstance(text, str) and text for text in error.values())
    assert word in error["reason"]


def test_options_needs_no_headers_and_no_key(client: Client) -> None:
    response = client.session.options(client.url, timeout=10)
    assert response.status_code == 200


def test_get_says_ready(client: Client) -> None:
    response = client.get(HEADERS)
    assert (response.status_code, response.json()) == (200, "Ready!")


@pytest.mark.parametrize("name", [name for name in HEADERS if name.startswith("x-")])
def test_every_missing_header_is_refused_by_its_name(client: Client, name: str) -> None:
    headers = {key: value for key, value in HEADERS.items() if key != name}
    assert_is_an_error(client.get(headers), 400, name)
    response = client.session.post(client.url, b"[]", headers=headers, timeout=10)
    assert_is_an_error(response, 400, name)


def test_a_wrong_key_is_refused(client: Client, sink: Sink) -> None:
    assert_is_an_error(client.get(HEADERS | {"x-leek-app-key": "another"}), 401, "key")
    response = client.post([task()], **{"x-leek-app-key": "another"})
    assert_is_an_error(response, 401, "key")
    assert "a-key" not in response.text
    assert sink.documents() == []


@pytest.mark.parametrize("name", ["x-leek-org-name", "x-leek-app-name"])
def test_an_unknown_application_is_refused(client: Client, name: str) -> None:
    assert_is_an_error(client.get(HEADERS | {name: "else"}), 404, "application")
    assert_is_an_error(client.post([task()], **{name: "else"}), 404, "application")


def test_without_a_key_and_applications_any_are_taken() -> None:
    with Sink() as sink:
        response = Client(sink).post([], **{"x-leek-app-key": "?", "x-leek-app-name": "else"})
        assert response.status_code == 201


def test_documents_are_confirmed_by_their_number_and_kept_in_order(
    client: Client, sink: Sink
) -> None:
    assert client.post([]).json() == {"success": 0}
    response = client.post([task("1"), task("2")])
    assert (response.status_code, response.json()) == (201, {"success": 2})
    client.post([task("3")])
    assert [document["id"] for document in sink.documents()] == ["1", "2", "3"]


def test_what_lacks_a_needed_field_is_named_and_the_rest_is_indexed(
    client: Client, sink: Sink
) -> None:
    batch = [task("1"), {"id": "2", "kind": "task"}, "?", task("3", events_count=0), task("4")]
    response = client.post(batch)
    assert response.status_code == 400
    answer = response.json()
    assert (answer["success"], answer["failed"]) == (2, 3)
    assert [error["update"]["_id"] for error in answer["errors"]] == ["2", None, "3"]
    assert [document["id"] for document in sink.documents()] == ["1", "4"]


@pytest.mark.parametrize("body", [b"", b"[", b"{}", b'"text"', b"[NaN]", b"\xff", b"[" * 5_000])
def test_a_body_that_is_no_json_array_is_refused(client: Client, body: bytes) -> None:
    assert_is_an_error(client.post(body), 400, "The body")
    assert client.post([task()]).status_code == 201


def test_a_body_that_is_not_called_json_is_refused(client: Client) -> None:
    assert_is_an_error(client.post([], **{"content-type": "text/plain"}), 400, "content-type")
    response = client.post([], **{"content-type": "application/json; charset=utf-8"})
    assert response.status_code == 201


def test_a_path_before_the_endpoint_is_kept(sink: Sink) -> None:
    url = f"{sink.url}/behind/a/proxy{ENDPOINT}"
    assert requests.get(url, headers=HEADERS, timeout=10).status_code == 200


def test_nothing_else_is_served(client: Client, sink: Sink) -> None:
    assert_is_an_error(requests.get(sink.url + "/", timeout=10), 404, ENDPOINT)
    assert_is_an_error(requests.put(client.url, b"[]", timeout=10), 405, "PUT")
    assert requests.head(client.url, timeout=10).status_code == 405


def test_a_body_above_the_bound_is_refused(client: Client, sink: Sink) -> None:
    assert_is_an_error(client.post(b" " * (BODY_MAX_BYTES + 1)), 413, str(BODY_MAX_BYTES))
    assert client.post([task()]).status_code == 201


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Length: -1", 400),
        ("Content-Length: 1e3", 400),
        (f"Content-Length: {10**30}", 400),
        ("Transfer-Encoding: chunked", 411),
    ],
)
def test_a_body_without_a_usable_length_is_refused(sink: Sink, head: str, status: int) -> None:
    address = ("127.0.0.1", int(sink.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=10) as peer:
        peer.sendall(f"POST {ENDPOINT} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        with peer.makefile("rb") as answer:
            assert answer.read().startswith(f"HTTP/1.1 {status} ".encode())


def test_a_client_that_asks_before_sending_is_told_to_go_on(sink: Sink) -> None:
    address = ("127.0.0.1", int(sink.url.rpartition(":")[2]))
    lines = [f"{name}: {value}" for name, value in HEADERS.items()]
    head = [f"POST {ENDPOINT} HTTP/1.1", "Host: x", "Content-Length: 2", "Expect: 100-continue"]
    with socket.create_connection(address, timeout=10) as peer, peer.makefile("rb") as answer:
        peer.sendall("\r\n".join([*head, *lines, "", ""]).encode())
        assert answer.readline().startswith(b"HTTP/1.1 100 ")
        assert answer.readline() == b"\r\n"
        peer.sendall(b"[]")
        assert answer.readline().startswith(b"HTTP/1.1 201 ")


def test_an_answer_is_one_piece_on_a_kept_connection(sink: Sink) -> None:
    address = ("127.0.0.1", int(sink.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=10) as peer:
        for _ in range(20):
            peer.sendall(f"OPTIONS {ENDPOINT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            # A segment of its own for the body would come 40 ms later, with the client's ack.
            assert peer.recv(65_536).endswith(b'\r\n\r\n"Up!"')


def test_posts_that_are_under_way_at_once_are_counted() -> None:
    def post(sink: Sink) -> None:
        with contextlib.suppress(requests.ConnectionError):
            Client(sink).post([])

    with Sink(delay_s=3600) as sink:
        threads = [threading.Thread(target=post, args=(sink,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: sink.posts_under_way_max == 4, 10, "four POSTs at once")
    for thread in threads:
        thread.join(10)


def test_a_stop_cuts_what_is_under_way_and_a_start_listens_again(tmp_path: Path) -> None:
    record = tmp_path / "documents.jsonl"
    sink = Sink(delay_s=3600, record=record, keep=True)
    sink.start()
    failed = threading.Event()

    def post() -> None:
        try:
            Client(sink).post([task()])
        except requests.ConnectionError:
            failed.set()

    thread = threading.Thread(target=post)
    thread.start()
    until(lambda: sink.posts_under_way_max == 1, 10, "the POST to arrive")
    url = sink.url
    sink.stop()
    assert failed.wait(10)
    thread.join(10)
    sink.start()
    assert sink.url == url
    assert requests.options(url + ENDPOINT, timeout=10).status_code == 200
    sink.stop()
    assert sink.documents() == []
    assert record.read_bytes() == b""


def test_documents_are_recorded_before_they_are_confirmed(tmp_path: Path) -> None:
    record = tmp_path / "documents.jsonl"
    record.write_text('{"id": "before"}\n')
    with Sink(record=record) as sink:
        client = Client(sink)
        assert client.post([task("1", name="é"), {"id": "?"}]).status_code == 400
        assert client.post([task("2")]).status_code == 201
        lines = record.read_text("utf-8").splitlines()
        assert [json.loads(line)["id"] for line in lines] == ["before", "1", "2"]


def test_a_record_that_is_full_confirms_nothing() -> None:
    with Sink(record=Path("/dev/full"), keep=True) as sink:
        assert_is_an_error(Client(sink).post([task()]), 503, "record")
        assert sink.documents() == []


def test_a_document_that_is_too_deep_to_be_recorded_is_refused(tmp_path: Path) -> None:
    deep: object = 1
    for _ in range(400):
        deep = [deep]
    with Sink(record=tmp_path / "documents.jsonl") as sink:
        assert_is_an_error(Client(sink).post([task(args=deep)]), 400, "deeply")


def test_a_taken_address_and_a_bad_record_are_named(sink: Sink, tmp_path: Path) -> None:
    port = int(sink.url.rpartition(":")[2])
    with pytest.raises(LeekfanoutError, match=f"can't listen on 127.0.0.1:{port}: Address"):
        Sink(port=port).start()
    with pytest.raises(LeekfanoutError, match="can't be written: No such file"):
        Sink(record=tmp_path / "missing" / "documents.jsonl").start()
