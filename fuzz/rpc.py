"""A request's body to an XML-RPC answer that a client can read, or a BadRequestError."""

import xmlrpc.client

from fuzz.api import methods
from leekfanout.control.rpc import BadRequestError

TURNS_MAX = 10
"""Nothing waits for an agent that has nothing to do."""

RPC = methods()


def one_input(body: bytes) -> None:
    """Raise if a body is answered with something else, or with nothing."""
    reply = RPC.respond(body)
    try:
        for _ in range(TURNS_MAX):
            next(reply)
    except StopIteration as end:
        check_answer(end.value)
    except BadRequestError:
        return
    else:
        raise AssertionError("It waits.")


def check_answer(answer: bytes) -> None:
    """A client reads it as a value or as a fault, and not as one that nobody foresaw."""
    try:
        xmlrpc.client.loads(answer.decode("ascii"), use_builtin_types=True)
    except xmlrpc.client.Fault as error:
        check_fault(error.faultString)


def check_fault(text: str) -> None:
    assert "the agent's log has the reason" not in text, text
