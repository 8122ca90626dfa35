"""The parts of the benchmarks that decide something: their load, their rate and their verdict."""

import time

import amqp
import amqp.method_framing
import orjson
import pytest
import requests
from amqp.basic_message import Message as AmqpMessage

from bench import used_today
from bench.agent import steady_rate
from bench.amqp_load import frames
from bench.api_stub import ApiStub
from bench.load import LIST_EVENTS, SHAPES, Message, messages
from bench.plan import compare
from bench.results import Found, Results
from bench.verdict import verdict


def ids_of(message: Message) -> set[str]:
    parsed = orjson.loads(message.body)
    events = parsed if isinstance(parsed, list) else [parsed]
    return {event["uuid"] for event in events if "uuid" in event}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_load_holds_as_many_events_as_were_asked_for(shape: str) -> None:
    load = list(messages(shape, 1_000))
    bodies = [orjson.loads(message.body) for message in load]
    counted = [len(body) if isinstance(body, list) else 1 for body in bodies]
    assert sum(counted) == 1_000
    assert counted == [message.events for message in load]
    assert set(counted) == ({LIST_EVENTS} if shape == "lists of ten" else {1})


def test_each_copy_of_the_captured_events_is_of_other_tasks() -> None:
    captured = len(SHAPES["single"]())
    load = list(messages("single", 2 * captured))
    first, second = (set().union(*map(ids_of, part)) for part in (load[:captured], load[captured:]))
    assert len(first) == len(second) > 50
    assert not first & second


def test_frames_say_what_py_amqp_reads() -> None:
    written = frames(Message("task.sent", b'{"type": "task-sent"}', 1), "celeryev")
    kinds, payloads = [], []
    while written:
        size = int.from_bytes(written[3:7], "big")
        assert written[1:3] == b"\x00\x01"
        assert written[7 + size] == 0xCE
        kinds.append(written[0])
        payloads.append(written[7 : 7 + size])
        written = written[8 + size :]
    assert kinds == [1, 2, 3]
    read = amqp.serialization.loads("Bssb", payloads[0], 4)[0]
    assert read[1:] == ["celeryev", "task.sent", False]
    message = AmqpMessage()
    message.inbound_header(payloads[1])
    assert message.body_size == len(payloads[2])
    assert message.properties == {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "application_headers": {"hostname": "celery@vm"},
        "delivery_mode": 1,
        "priority": 0,
    }


@pytest.mark.parametrize(
    ("points", "rate"),
    [
        ([(1.0, 100.0), (2.0, 200.0), (3.0, 300.0)], 100.0),
        ([(1.0, 100.0), (2.0, 290.0), (9.0, 300.0)], 190.0),  # the rest waited for the window
        ([(1.0, 300.0)], 0.0),
        ([], 0.0),
    ],
)
def test_the_rate_is_that_between_the_first_delivery_and_nearly_the_last(
    points: list[tuple[float, float]], rate: float
) -> None:
    assert steady_rate(points, 300) == rate


def test_the_api_stub_tells_the_longest_time_between_two_posts() -> None:
    with ApiStub() as stub, requests.Session() as session:
        for pause_s in (0.0, 0.3, 0.0):
            time.sleep(pause_s)
            session.post(stub.url, data=b"[]", timeout=10)
        told = stub.longest_silence_s
        assert told >= 0.3
        time.sleep(2 * told)
        session.get(stub.url, timeout=10)  # asks how it is, and delivers nothing
        assert stub.longest_silence_s == told
        assert stub.posts == 3


def test_a_target_is_judged_against_what_was_measured_in_the_same_run() -> None:
    def found(name: str, cpu_us: float, rate: float) -> Found:
        return Found("amqp", name, {}, [{"cpu_us": cpu_us, "rate": rate}])

    results = Results({}, [found("plain 1000", 20.0, 30_000), found("agent 1000", 16.0, 29_000)])
    cpu, rate, *others = verdict(results)
    assert (cpu.measured, cpu.met) == ("0.80 times (16.0 to 20.0 µs)", True)
    assert (rate.measured, rate.met) == ("0.97 times (29,000 to 30,000/s)", False)
    assert {line.met for line in others} == {None}


def test_the_readme_shows_what_a_run_has_measured_beside_what_is_known() -> None:
    rounds = [{"cpu_us": 12.25, "rate": 39_182.4}]
    results = Results({}, [Found("compare", "agent, single", {}, rounds)])
    rows = used_today.table(results).rows
    assert rows[0] == ("CPU per event, RabbitMQ, one per message", "74 µs", "12.2 µs")
    assert rows[3] == ("Events per second, RabbitMQ, one per message", "11,800", "39,182")
    assert {row[2] for row in (*rows[1:3], *rows[4:])} == {"not measured"}
    cases = {case.name for case in compare(quick=False).cases}
    assert {line.case for line in used_today.MEASURED} <= cases


def test_a_case_is_told_by_the_median_of_its_rounds() -> None:
    rounds = [{"rate": 9.0}, {"rate": 1.0}, {"rate": 5.0}]
    assert Found("amqp", "plain", {}, rounds).figures == {"rate": 5.0}
