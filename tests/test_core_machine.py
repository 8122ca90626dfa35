"""The delivery core under random interleavings of everything that can happen to it, without I/O.

Batcher, custody, ledger, outbox, breaker and senders are the real ones; broker, API and time are
models. The promises are invariants: nothing is lost, nothing is acked before it is settled, nothing is
there twice unless an answer was lost or the process ended.
"""

import itertools
import json
import os
import random
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from leekfanout.delivery.batcher import Batch, Batcher, ClosedBy
from leekfanout.delivery.custody import BrokerCustody
from leekfanout.delivery.outbox import Outbox, Signal
from leekfanout.delivery.outcome import Breaker, BreakerState
from leekfanout.delivery.parcel import Parcel
from leekfanout.delivery.recogniser import Recogniser
from leekfanout.delivery.sender import Complaints, Sender
from leekfanout.documents.events import EventTally
from leekfanout.errors import SourceError
from leekfanout.status.stats import Stats
from tests.core_model import STATES, Accounts, Event, ModelApi, ModelBroker, ModelDeadLetters
from tests.core_steps import SENDERS, STEPS, Step
from tests.sending import SUBSCRIPTION

PREFETCH = 8
MAX_EVENTS = 4
MAX_BYTES = 700


class Core:
    """The parts of one process, joined as the main loop joins them."""

    def __init__(
        self, broker: ModelBroker, api: ModelApi, accounts: Accounts, machine: "CoreMachine"
    ) -> None:
        self.broker = broker
        self.stats = Stats()
        self.breaker = Breaker(random.Random(1))
        self.outbox = Outbox(SENDERS, self.breaker, lambda: None, lambda: machine.now)
        self.custody = BrokerCustody(
            broker, self.outbox, self.stats, prefetch_count=PREFETCH, in_flight_max_bytes=20_000
        )
        self.dead_letters = ModelDeadLetters(accounts)
        self.batcher = Batcher(
            app_env="qa",
            max_events=MAX_EVENTS,
            max_bytes=MAX_BYTES,
            keep_messages=True,
            emit=self._take,
            wall_clock=lambda: machine.now,
            tally=EventTally(),
        )
        self._bad = ModelDeadLetters(accounts)
        self._recogniser = Recogniser(self.batcher, self.custody.ledger, self.stats)
        self.senders = [
            Sender(
                number,
                SUBSCRIPTION,
                self.outbox,
                self.dead_letters,
                self.stats,
                complaints=Complaints(),
            )
            for number in range(SENDERS)
        ]
        for sender in self.senders:
            sender._poster = api
            sender._random = random.Random(2)

    def _take(self, batch: Batch) -> None:
        self._bad.put(batch.dead_letters)
        self.custody.take(batch)

    @property
    def ledger(self):
        return self.custody.ledger

    @property
    def may_read(self) -> bool:
        return self.custody.may_read(self.batcher.last_tag, self.batcher.raw_bytes)

    def read(self, limit: int) -> None:
        inbox = self._recogniser if self.ledger.remembers else self.batcher
        self.broker.receive(inbox, limit)

    def settle(self, now: float) -> None:
        self.custody.done(self.outbox.take_done(), now)

    def connected(self) -> None:
        self.batcher.tags_begin_again()
        self.custody.connection_begun()

    def lost(self, now: float) -> None:
        self.batcher.close(ClosedBy.DRAIN)
        self.custody.connection_lost(now)

    def hand_back(self, now: float) -> None:
        if self.ledger.open_batch_is_tied:
            self.batcher.close(ClosedBy.DRAIN)
        else:
            self.batcher.discard()
        self.custody.hand_back(now)


class CoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.numbers = itertools.count()
        self.accounts = Accounts()
        self.api = ModelApi(self.accounts)
        self.broker = ModelBroker(self.accounts, PREFETCH)
        self.merged: list[Event] = []
        self.connected = False
        self._begin()
        self._connect()

    def _begin(self) -> None:
        """Begin a process."""
        self.core = Core(self.broker, self.api, self.accounts, self)
        self.in_hand: list[tuple[Sender, Parcel | Signal]] = []
        self.idle = list(self.core.senders)

    # One rule, or hypothesis would leave out some of several, and each is needed to get anywhere

    @rule(step=STEPS)
    def something_happens(self, step: Step) -> None:
        getattr(self, step.name)(*step.arguments)

    def workers_publish(self, messages: list[list[str]]) -> None:
        for kinds in messages:
            events = [self._event(kind) for kind in kinds]
            payloads = [payload for payload, _ in events]
            body = json.dumps(payloads[0] if len(payloads) == 1 else payloads).encode()
            self.broker.publish(body, [key for _, key in events])

    def _event(self, kind: str) -> tuple[dict[str, object], Event]:
        number = next(self.numbers)
        uuid, event_type = f"{kind}-{number}", "task-sent"
        if kind == "merged":
            uuid = f"merged-{number // 12}-{number % 4}"
            event_type = list(STATES)[number // 4 % 3]
        if kind == "useless":
            event_type = "task-cancelled"
        event: dict[str, object] = {
            "type": event_type,
            "uuid": uuid,
            "hostname": "h",
            "timestamp": number,
            "utcoffset": 0,
            "pid": 1,
            "clock": number if kind != "bad" else None,
        }
        key = (uuid, event_type) if kind == "bad" else (uuid, STATES.get(event_type, event_type))
        if kind == "useless":
            self.accounts.ignored.add(key)
        return event, key

    def much_happens(
        self, turns: int, limit: int, close: bool, answers: int, broker_works: bool
    ) -> None:
        """Turns of everything, so that long ways are gone in few steps."""
        self._connect()
        for _ in range(turns):
            self._read(limit)
            if close:
                self.core.batcher.close(ClosedBy.WINDOW)
            for _ in range(len(self.idle)):
                self._take()
            for _ in range(answers):
                self._answer(0)
            self._settle()
            self._turn_custody()
            if broker_works:
                self.broker.work()
            self.now += 0.5

    def little_happens(self, what: str, count: int) -> None:
        """One thing out of turn."""
        match what:
            case "read":
                self._read(count)
            case "close":
                self.core.batcher.close(ClosedBy.WINDOW)
            case "settle":
                self._settle()
            case "turn":
                self._turn_custody()
            case "take":
                self._take()
            case "answer":
                self._answer(count)
            case "broker":
                self.broker.work(count)
            case "connect":
                self._connect()
            case "time":
                self.now += [0.01, 0.3, 1.0, 20.0][count % 4]

    def api_and_disk_change(self, mood: str, ready: bool, disk_is_full: bool) -> None:
        self.api.mood, self.api.ready = mood, ready
        self.core.dead_letters.full = disk_is_full

    def trouble_comes(self, kind: str, arrived: int) -> None:
        """``arrived`` of what is under way to the broker gets there."""
        if kind == "end":
            self._end(arrived % 2 == 0, arrived)
        if not self.connected:
            return
        match kind:
            case "cut":
                self.broker.cut(arrived)
                self._lost()
            case "cut at the next use":
                self.broker.breaks_in = arrived
            case "hand back":
                self._settle()
                if self.connected:
                    self._broker_does(lambda: self.core.hand_back(self.now))
                    self.connected = False

    def _read(self, limit: int) -> None:
        if self.connected and self.core.may_read:
            self._broker_does(lambda: self.core.read(limit))

    def _settle(self) -> None:
        self._broker_does(lambda: self.core.settle(self.now))

    def _turn_custody(self) -> None:
        self._broker_does(lambda: self.core.custody.turn(self.now))

    def _take(self) -> None:
        if self.idle and (work := self.core.outbox.take_now()) is not None:
            self.in_hand.append((self.idle.pop(), work))

    def _answer(self, index: int) -> None:
        if self.in_hand:
            sender, work = self.in_hand.pop(index % len(self.in_hand))
            sender.handle(work)
            self.idle.append(sender)

    def _connect(self) -> None:
        if not self.connected:
            self.broker.breaks_in = None
            self.core.connected()
            self.connected = True

    def _broker_does(self, action: Callable[[], object]) -> None:
        try:
            action()
        except SourceError:
            self._lost()

    def _lost(self) -> None:
        self.core.lost(self.now)
        self.connected = False

    def _end(self, gracefully: bool, arrived: int) -> None:
        """End the process, and begin another one."""
        if gracefully and self.connected:
            self._broker_does(self._drain)
        self.broker.cut(10**6 if gracefully else arrived)
        self.connected = False
        # What the API has of messages that come again is there twice: nobody remembers it.
        for _, events in self.broker.queue:
            self.accounts.excused.update(
                event
                for event in events
                if self.accounts.indexed[event] or self.accounts.dead[event]
            )
        self._begin()
        self._connect()

    def _drain(self) -> None:
        self.core.batcher.close(ClosedBy.DRAIN)
        while self.in_hand:
            self._answer(0)
        self.core.settle(self.now)
        self.core.custody.leave(self.now)

    # The promises

    @invariant()
    def every_event_is_settled_or_at_the_broker(self) -> None:
        kept = {
            event
            for _, events in (*self.broker.queue, *self.broker.unacked.values())
            for event in events
        }
        lost = [event for event in self.accounts.sent - kept if not self.accounts.settled(event)]
        assert not lost

    @invariant()
    def nothing_is_there_twice_without_an_excuse(self) -> None:
        self.accounts.check_duplicates()

    @invariant()
    def only_what_is_bad_is_dead_lettered(self) -> None:
        for uuid, state in self.accounts.dead:
            assert uuid.startswith(("bad", "refused")) or (uuid, state) in self.api.doubted

    @invariant()
    def what_is_outstanding_is_known(self) -> None:
        if self.connected and self.broker.breaks_in is None:
            outstanding = self.core.ledger.outstanding(self.core.batcher.last_tag)
            assert outstanding == len(self.broker.tags_not_acked) <= PREFETCH

    @invariant()
    def bytes_are_counted_right(self) -> None:
        ledger, outbox = self.core.ledger, self.core.outbox
        assert 0 <= ledger.unacked_bytes <= ledger.bytes_held
        assert ledger.unbarred_bytes >= 0
        assert outbox.bytes_held >= 0
        if not outbox.batches_held:
            assert outbox.bytes_held == 0

    @invariant()
    def one_probe_and_no_more_posts_than_senders(self) -> None:
        probes = sum(work is Signal.PROBE for _, work in self.in_hand)
        assert probes == self.core.breaker.probing <= 1
        assert self.core.outbox.posts_under_way == len(self.in_hand) - probes

    def teardown(self) -> None:
        """Let everything heal; then all is delivered, and nothing is left anywhere."""
        self.api.mood, self.api.ready = "good", True
        self.core.dead_letters.full = False
        if self.broker.breaks_in is not None:
            self.broker.cut(self.broker.breaks_in)
            self._lost()
        self._connect()
        for _ in range(3000):
            if self._everything_is_delivered():
                break
            self._turn()
        else:
            raise AssertionError("It doesn't end.")
        for event in self.accounts.sent:
            assert self.accounts.settled(event)
        self.accounts.check_duplicates()
        assert self.core.breaker.state is not BreakerState.OPEN
        assert self.core.outbox.bytes_held == 0
        # The broker has the acks; once it has said so, nothing is in memory.
        for _ in range(3):
            self.now += 5
            self._turn()
        assert self.core.ledger.bytes_held == self.core.ledger.unacked_bytes == 0

    def _turn(self) -> None:
        core = self.core
        self.now += 0.5
        core.settle(self.now)
        self._read(20)
        core.batcher.close(ClosedBy.WINDOW)
        for _ in range(len(self.idle)):
            self._take()
        while self.in_hand:
            self._answer(0)
        core.settle(self.now)
        core.custody.turn(self.now)
        self.broker.work()

    def _everything_is_delivered(self) -> bool:
        return not (self.broker.queue or self.broker.unacked or self.core.outbox.batches_held)


TestCoreMachine = CoreMachine.TestCase
TestCoreMachine.settings = settings(
    max_examples=int(os.environ.get("CORE_MACHINE_EXAMPLES", "80")),
    stateful_step_count=int(os.environ.get("CORE_MACHINE_STEPS", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
