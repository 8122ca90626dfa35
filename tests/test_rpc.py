"""XML-RPC in Supervisor's dialect, without a transport."""

import xmlrpc.client
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.control.rpc import BadRequestError, Fault, Reply, Rpc, fault


class Pond:
    """A namespace for the tests."""

    def __init__(self) -> None:
        self.frozen = True
        self.text = ""

    def depth(self, name: str, exact: bool = True) -> dict[str, Any]:
        """Return how deep it is."""
        return {"name": name, "exact": exact}

    def thaw(self) -> Reply:
        """Wait until it isn't frozen."""
        while self.frozen:
            yield
        return "water"

    def drain(self) -> None:
        """Refuse."""
        raise fault(Fault.BAD_NAME, "plug")

    def fall_in(self) -> None:
        """Fail in a way that nobody foresaw."""
        raise KeyError("ice")

    def read(self) -> str:
        """Return what is written on the sign."""
        return self.text

    def count(self) -> list[int]:
        """Return numbers of all sizes."""
        return [1, 2**40, -(2**40)]

    def nothing(self) -> None:
        """Return what XML-RPC can't carry."""

    def _secret(self) -> str:
        return "fish"


def body(method: str, *params: Any) -> bytes:
    return xmlrpc.client.dumps(params, method).encode()


def drive(reply: Generator[None, None, bytes]) -> bytes:
    try:
        next(reply)
    except StopIteration as end:
        return bytes(end.value)
    raise AssertionError("It waits.")


def ask(method: str, *params: Any) -> Any:
    answer = drive(Rpc({"pond": Pond()}).respond(body(method, *params)))
    (value,), _ = xmlrpc.client.loads(answer.decode("ascii"))
    return value


def test_a_method_is_called_with_its_parameters() -> None:
    assert ask("pond.depth", "north") == {"name": "north", "exact": True}
    assert ask("pond.depth", "north", 0) == {"name": "north", "exact": 0}


def test_a_method_that_waits_is_answered_when_its_wait_is_over() -> None:
    pond = Pond()
    reply = Rpc({"pond": pond}).respond(body("pond.thaw"))
    for _ in range(3):
        next(reply)
    pond.frozen = False
    assert b"water" in drive(reply)


@pytest.mark.parametrize(
    ("method", "params", "code", "text"),
    [
        ("pond.none", (), Fault.UNKNOWN_METHOD, "UNKNOWN_METHOD: pond.none"),
        ("pond.nothing", (), Fault.FAILED, "FAILED: pond.nothing has failed"),
        ("pond._secret", (), Fault.UNKNOWN_METHOD, "UNKNOWN_METHOD: pond._secret"),
        ("pond.__init__", (), Fault.UNKNOWN_METHOD, "UNKNOWN_METHOD: pond.__init__"),
        ("pond.depth.__call__", ("a",), Fault.UNKNOWN_METHOD, "UNKNOWN_METHOD"),
        ("nowhere", (), Fault.UNKNOWN_METHOD, "UNKNOWN_METHOD: nowhere"),
        ("pond.depth", (), Fault.INCORRECT_PARAMETERS, "INCORRECT_PARAMETERS: missing a required"),
        ("pond.depth", (1,), Fault.INCORRECT_PARAMETERS, "INCORRECT_PARAMETERS: name must be str"),
        ("pond.depth", ("a", True, 1), Fault.INCORRECT_PARAMETERS, "too many"),
        ("pond.drain", (), Fault.BAD_NAME, "BAD_NAME: plug"),
        ("pond.fall_in", (), Fault.FAILED, "FAILED: pond.fall_in has failed"),
        ("system.methodHelp", ("pond.no",), Fault.SIGNATURE_UNSUPPORTED, "pond.no"),
    ],
)
def test_what_cannot_be_done_is_a_fault(
    method: str, params: tuple[Any, ...], code: Fault, text: str
) -> None:
    with pytest.raises(xmlrpc.client.Fault) as raised:
        ask(method, *params)
    assert raised.value.faultCode == code
    assert text in raised.value.faultString


def test_the_system_namespace_tells_what_there_is() -> None:
    assert "pond.depth" in ask("system.listMethods")
    assert "pond._secret" not in ask("system.listMethods")
    assert ask("system.methodHelp", "pond.depth") == "Return how deep it is."


def test_several_calls_are_answered_together_and_a_fault_stands_alone() -> None:
    calls = [
        {"methodName": "pond.depth", "params": ["north"]},
        {"methodName": "pond.drain"},
        {"methodName": "system.multicall", "params": [[]]},
        {"params": []},
        "nonsense",
        {"methodName": "system.methodHelp", "params": ["pond.drain"]},
    ]
    first, second, third, fourth, fifth, sixth = ask("system.multicall", calls)
    assert first == {"name": "north", "exact": True}
    assert second == {"faultCode": Fault.BAD_NAME, "faultString": "BAD_NAME: plug"}
    assert third["faultString"] == "INCORRECT_PARAMETERS: recursive system.multicall"
    assert fourth["faultCode"] == fifth["faultCode"] == Fault.INCORRECT_PARAMETERS
    assert sixth == "Refuse."


def test_too_many_calls_at_once_are_refused() -> None:
    with pytest.raises(xmlrpc.client.Fault, match="INCORRECT_PARAMETERS"):
        ask("system.multicall", [{}] * 1_001)


@given(st.text())
def test_any_text_can_be_answered(text: str) -> None:
    pond = Pond()
    pond.text = text
    (value,), _ = xmlrpc.client.loads(
        drive(Rpc({"pond": pond}).respond(body("pond.read"))).decode()
    )
    assert len(value) == len(text.replace("\r\n", "\n"))


def test_integers_beyond_32_bits_are_capped() -> None:
    assert ask("pond.count") == [1, 2**31 - 1, -(2**31)]


@pytest.mark.parametrize(
    "request_body",
    [
        b"",
        b"hello",
        b"<methodCall>",
        b"<methodCall></methodCall>",
        b"<methodCall><methodName></methodName></methodCall>",
        b"<methodResponse><params></params></methodResponse>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><methodCall><methodName>&b;</methodName></methodCall>",
        b"<methodCall><methodName>a</methodName><params><param><value><int>x</int></value>"
        b"</param></params></methodCall>",
    ],
)
def test_what_is_no_call_is_refused(request_body: bytes) -> None:
    with pytest.raises(BadRequestError):
        drive(Rpc({"pond": Pond()}).respond(request_body))


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: body("pond.read") + b))
def test_no_bytes_raise_anything_else(request_body: bytes) -> None:
    with suppress(BadRequestError):
        drive(Rpc({"pond": Pond()}).respond(request_body))


def test_a_call_without_params_is_good() -> None:
    request_body = b"<methodCall><methodName>system.listMethods</methodName></methodCall>"
    assert b"pond.depth" in drive(Rpc({"pond": Pond()}).respond(request_body))
