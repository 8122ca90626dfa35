"""XML-RPC without a transport: requests in, answers out, in Supervisor's dialect.

A method is a public method of a namespace's object. It returns its value at once, or is a generator
that yields while it has to wait and returns its value in the end, so that nothing blocks.
"""

import inspect
import xmlrpc.client
from collections.abc import Generator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final
from xml.parsers import expat

from leekfanout import logs

Reply = Generator[None, None, Any]
"""What a method that has to wait returns."""

MULTICALL_MAX: Final = 1_000
"""Calls in one ``system.multicall``."""

log = logs.get("control")


class Fault(IntEnum):
    """Supervisor's fault codes."""

    UNKNOWN_METHOD = 1
    INCORRECT_PARAMETERS = 2
    BAD_ARGUMENTS = 3
    SIGNATURE_UNSUPPORTED = 4
    SHUTDOWN_STATE = 6
    BAD_NAME = 10
    BAD_SIGNAL = 11
    NO_FILE = 20
    FAILED = 30
    ABNORMAL_TERMINATION = 40
    SPAWN_ERROR = 50
    ALREADY_STARTED = 60
    NOT_RUNNING = 70
    SUCCESS = 80
    ALREADY_ADDED = 90
    STILL_RUNNING = 91
    CANT_REREAD = 92


def fault(code: Fault, about: str = "") -> xmlrpc.client.Fault:
    """Return the exception that a method raises to answer with a fault: ``BAD_NAME: shop-prod``."""
    return xmlrpc.client.Fault(int(code), f"{code.name}: {about}" if about else code.name)


def _failure(method: str) -> xmlrpc.client.Fault:
    return fault(Fault.FAILED, f"{method} has failed; the agent's log has the reason")


class BadRequestError(Exception):
    """The body of a request is no XML-RPC call."""


class Rpc:
    """Answers calls of the methods in its namespaces, and of ``system``'s."""

    def __init__(self, namespaces: Mapping[str, object]) -> None:
        self._methods = {
            f"{namespace}.{name}": _Method(method)
            for namespace, owner in {**namespaces, "system": _System(self)}.items()
            for name, method in inspect.getmembers(owner, inspect.ismethod)
            if not name.startswith("_")
        }

    @property
    def methods(self) -> Mapping[str, str]:
        """What each method does, by its name."""
        return {name: method.help for name, method in sorted(self._methods.items())}

    def respond(self, body: bytes) -> Generator[None, None, bytes]:
        """Answer one request; yields while the answer has to wait. BadRequestError: it is none."""
        name, params = _parse(body)
        result: tuple[Any] | xmlrpc.client.Fault
        try:
            result = ((yield from self.call(name, params)),)
        except xmlrpc.client.Fault as error:
            result = error
        try:
            return _render(result)
        except Exception:  # a request must not be able to end the supervisor
            log.exception("control.failed", method=name)
            return _render(_failure(name))

    def call(self, name: str, params: Sequence[Any]) -> Reply:
        """Call a method; raises :class:`xmlrpc.client.Fault` where it can't do what was asked."""
        method = self._methods.get(name)
        if method is None:
            raise fault(Fault.UNKNOWN_METHOD, name)
        method.check(params)
        try:
            value = method.function(*params)
            if inspect.isgenerator(value):
                value = yield from value
        except xmlrpc.client.Fault:
            raise
        except Exception:
            log.exception("control.failed", method=name)
            raise _failure(name) from None
        return value


class _Method:
    def __init__(self, function: Any) -> None:
        self.function = function
        self.help = inspect.getdoc(function) or ""
        self._signature = inspect.signature(function)

    def check(self, params: Sequence[Any]) -> None:
        """Raise a fault unless the parameters fit in number and type."""
        try:
            bound = self._signature.bind(*params)
        except TypeError as error:
            raise fault(Fault.INCORRECT_PARAMETERS, str(error)) from None
        for name, value in bound.arguments.items():
            expected = self._signature.parameters[name].annotation
            # Supervisor's clients send 0 and 1 for booleans too.
            if expected is bool and type(value) in {bool, int}:
                continue
            if type(value) is not expected:
                raise fault(Fault.INCORRECT_PARAMETERS, f"{name} must be {expected.__name__}")


class _System:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    def listMethods(self) -> list[str]:
        """Return the names of all methods."""
        return list(self._rpc.methods)

    def methodHelp(self, name: str) -> str:
        """Return what a method does."""
        try:
            return self._rpc.methods[name]
        except KeyError:
            raise fault(Fault.SIGNATURE_UNSUPPORTED, name) from None

    def multicall(self, calls: list) -> Reply:  # type: ignore[type-arg]  # checked at run time
        """Make several calls, one after another; return for each its value or a fault's struct."""
        if len(calls) > MULTICALL_MAX:
            raise fault(Fault.INCORRECT_PARAMETERS, f"more than {MULTICALL_MAX} calls")
        results: list[Any] = []
        for call in calls:
            try:
                # Supervisor's own documents speak of ``[value]``, but its server sends the value,
                # and that is what its clients have learnt to read.
                results.append((yield from self._one(call)))
            except xmlrpc.client.Fault as error:
                results.append({"faultCode": error.faultCode, "faultString": error.faultString})
        return results

    def _one(self, call: Any) -> Reply:
        match call:
            case {"methodName": "system.multicall"}:
                raise fault(Fault.INCORRECT_PARAMETERS, "recursive system.multicall")
            case {"methodName": str(name), "params": list(params)}:
                return (yield from self._rpc.call(name, params))
            case {"methodName": str(name)}:
                return (yield from self._rpc.call(name, []))
        raise fault(Fault.INCORRECT_PARAMETERS, "no methodName")


def _parse(body: bytes) -> tuple[str, list[Any]]:
    target = xmlrpc.client.Unmarshaller(use_builtin_types=True)
    target.xml(None, None)  # type: ignore[arg-type]  # no encoding: expat decodes
    parser = expat.ParserCreate()
    parser.StartElementHandler = target.start
    parser.EndElementHandler = target.end
    parser.CharacterDataHandler = target.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(body, True)
        params, name = list(target.close()), target.getmethodname()
    except Exception as error:  # noqa: BLE001  # the unmarshaller raises what its input makes it
        raise BadRequestError(str(error)) from None
    if not isinstance(name, str) or not name:
        raise BadRequestError("no methodName")
    return name, params


def _refuse_doctype(*_: Any) -> None:
    # Entities that expand to gigabytes need a document type, and XML-RPC has none.
    raise BadRequestError("a document type")


def _render(result: tuple[Any] | xmlrpc.client.Fault) -> bytes:
    if isinstance(result, xmlrpc.client.Fault):
        result = xmlrpc.client.Fault(result.faultCode, _sendable(result.faultString))
    else:
        result = (_sendable(result[0]),)
    text = xmlrpc.client.dumps(result, methodresponse=True)
    return text.encode("ascii", "xmlcharrefreplace")


def _sendable(value: Any) -> Any:
    """Return a value that XML-RPC can carry: texts without what XML 1.0 forbids, small integers."""
    if isinstance(value, str):
        return value.translate(_UNSENDABLE).encode("utf-8", "replace").decode()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return max(xmlrpc.client.MININT, min(value, xmlrpc.client.MAXINT))
    if isinstance(value, Mapping):
        return {key: _sendable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sendable(inner) for inner in value]
    return value


_UNSENDABLE: Final = {code: "�" for code in range(32) if code not in {9, 10, 13}} | {
    0xFFFE: "�",
    0xFFFF: "�",
}
