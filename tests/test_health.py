"""Checks run side by side, within bounds, and none takes the others with it."""

import errno
import socket
import ssl
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.health.check import REFUSALS, Check, Kind, combined, trouble
from leekfanout.health.concurrent import run_checks
from leekfanout.health.network import network_trouble

WELL = Check(Kind.OK, "a is well.")


def test_results_come_in_the_order_of_the_checks() -> None:
    checks = [lambda number=number: Check(Kind.OK, str(number)) for number in range(50)]
    assert [check.words for check in run_checks(checks, threads=8)] == [str(n) for n in range(50)]
    assert run_checks([]) == []


def test_no_more_than_the_bound_run_at_once() -> None:
    lock = threading.Lock()
    running = most = 0

    def check() -> Check:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return WELL

    assert len(run_checks([check] * 100, threads=3)) == 100
    assert most <= 3


def test_a_check_that_never_ends_is_a_timeout_and_the_others_are_told() -> None:
    never = threading.Event()

    def hang() -> Check:
        never.wait(60)
        return WELL

    hung, well = run_checks([hang, lambda: WELL], deadline_s=0.2)
    never.set()
    assert hung.kind is Kind.TIMEOUT
    assert well is WELL


def test_a_check_that_breaks_tells_no_secret() -> None:
    def broken() -> Check:
        raise RuntimeError("amqp://u:secret@h")

    (check,) = run_checks([broken])
    assert check.kind is Kind.UNEXPECTED
    assert "secret" not in str(check)


@given(st.lists(st.sampled_from(Kind), min_size=1))
def test_of_several_addresses_one_that_is_well_suffices_and_each_is_named(
    kinds: list[Kind],
) -> None:
    result = combined([trouble(kind, f"<{index}>") for index, kind in enumerate(kinds)])
    assert result.ok == (Kind.OK in kinds)
    assert result.refused == (not result.ok and bool(REFUSALS & set(kinds)))
    for index, kind in enumerate(kinds):
        assert f"<{index}>" in str(result) or (kind is Kind.OK and result.ok)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), Kind.UNREACHABLE),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), Kind.UNREACHABLE),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), Kind.CONNECTION_REFUSED),
        (ConnectionResetError(errno.ECONNRESET, "x"), Kind.PROTOCOL),
        (TimeoutError(), Kind.TIMEOUT),
        (socket.gaierror(-2, "Name or service not known"), Kind.HOST_UNKNOWN),
        (UnicodeError("label too long"), Kind.HOST_UNKNOWN),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), Kind.TLS),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), Kind.TLS),
    ],
)
def test_a_cause_is_found_wherever_a_library_hides_it(error: Exception, kind: Kind) -> None:
    wrapped = RuntimeError("outer")
    wrapped.__context__ = RuntimeError(RuntimeError(error))
    for each in (error, wrapped, RuntimeError(error)):
        check = network_trouble(each, "amqp://h:1")
        assert check is not None
        assert check.kind is kind
    assert network_trouble(RuntimeError("something else"), "amqp://h:1") is None


def test_the_search_for_causes_ends() -> None:
    error = RuntimeError("loop")
    error.__context__ = error
    error.args = (error,)
    assert network_trouble(error, "amqp://h:1") is None
