"""The main loop of a subscription's process: it joins source, batcher, custody and outbox.

Only this loop's thread touches the broker. It sleeps until the socket, a sender, a signal or a timer
has something for it; what is due is done in the order in which an event travels.
"""

import math
import random
import select
import time
from enum import Enum, auto
from typing import Final

from leekfanout import logs
from leekfanout.configuration.config import BYTES_PER_MB, Settings, Subscription
from leekfanout.delivery.batcher import Batch, Batcher, ClosedBy
from leekfanout.delivery.custody import BrokerCustody, Custody, DiskCustody
from leekfanout.delivery.hand_backs import HandBacks
from leekfanout.delivery.link import Link, LinkState
from leekfanout.delivery.outbox import Outbox
from leekfanout.delivery.outcome import Breaker, BreakerState
from leekfanout.delivery.pacing import Pacing
from leekfanout.delivery.recogniser import Recogniser
from leekfanout.delivery.report import Report
from leekfanout.delivery.sender import Complaints, Sender
from leekfanout.delivery.unkept import Unkept
from leekfanout.delivery.wake import Wake
from leekfanout.documents.events import EventTally
from leekfanout.errors import SourceError, SourceRefusedError, SourceStandbyError
from leekfanout.sources import Inbox, Source
from leekfanout.status.stats import Condition, Stats
from leekfanout.stores.deadletters import FILE_NAME as DEAD_LETTERS_FILE
from leekfanout.stores.deadletters import DeadLetters
from leekfanout.stores.spool import Spool

log = logs.get("pipeline")

READ_MAX_MESSAGES: Final = 500
"""Messages taken in one turn of the loop, so that acks and timers get their turn under load."""
DEPTH_EVERY_S: Final = 15.0
GOODBYE_S: Final = 1.0
"""What the end takes after the last delivery: acks arrive, the spool is written."""


class Phase(Enum):
    """From starting to the end."""

    RUNNING = auto()
    DRAINING = auto()
    ENDED = auto()


class Pipeline:
    """One subscription's events, from its source to its API, until :meth:`stop`.

    ``source`` decides whose custody the events are in (see ``custody``). :meth:`run` belongs to the
    main thread; :meth:`stop` may be called from anywhere, signal handlers included.
    """

    def __init__(
        self,
        subscription: Subscription,
        settings: Settings,
        stats: Stats,
        *,
        source: Source,
        wake: Wake,
        lifeline_fd: int,
    ) -> None:
        folder = settings.state_dir / subscription.name
        self._subscription = subscription
        self._drain_timeout_s = settings.drain_timeout_s
        self._stats = stats
        self._source = source
        self._wake = wake
        self._lifeline_fd = lifeline_fd
        breaker = Breaker(random.Random())  # noqa: S311
        self._outbox = Outbox(subscription.concurrency_pool_size, breaker, wake.set)
        self._dead_letters = DeadLetters(
            folder / DEAD_LETTERS_FILE,
            subscription.name,
            int(settings.dead_letters_max_mb * BYTES_PER_MB),
        )
        self._unkept = Unkept(self._dead_letters, stats)
        self._batcher = Batcher(
            app_env=subscription.app_env,
            max_events=subscription.batch_max_number_of_messages,
            max_bytes=subscription.batch_max_size_bytes,
            keep_messages=source.acks,
            emit=self._take,
            wall_clock=time.time,
            tally=EventTally(),
        )
        self._spool: Spool | None = None
        self._broker: BrokerCustody | None = None
        self._inbox: Inbox = self._batcher
        self._custody: Custody
        if source.acks:
            self._custody = self._broker = BrokerCustody(
                source,
                self._outbox,
                stats,
                prefetch_count=subscription.prefetch_count,
                in_flight_max_bytes=subscription.in_flight_max_bytes,
            )
            self._recogniser: Inbox = Recogniser(self._batcher, self._broker.ledger, stats)
        else:
            self._spool = Spool(folder / "spool.sqlite3", int(settings.spool_max_mb * BYTES_PER_MB))
            self._custody = DiskCustody(
                self._outbox,
                self._spool,
                stats,
                memory_max_bytes=int(settings.spool_memory_max_mb * BYTES_PER_MB),
            )
        self._link = Link(source, len(subscription.broker), wake.set)
        self._pacing = Pacing()
        self._report = Report(stats, self._batcher, self._outbox, self._dead_letters, self._spool)
        complaints = Complaints()
        self._senders = [
            Sender(
                number,
                subscription,
                self._outbox,
                self._dead_letters,
                stats,
                complaints=complaints,
            )
            for number in range(1, subscription.concurrency_pool_size + 1)
        ]
        self._phase = Phase.RUNNING
        self._stop_requests = 0
        self._window_due = math.inf
        self._drain_due = math.inf
        self._tick_due = math.inf
        self._depth_due = 0.0
        self._depth_told: int | None = None
        self._hand_backs = HandBacks()
        self._lost_at: float | None = None
        self._log_down = logs.RateLimits(60.0)
        self._poll = select.poll()
        self._polled_fd = -1

    def stop(self) -> None:
        """Drain: deliver what is in hand, then end. Called again: end at once, keeping what can be."""
        self._stop_requests += 1
        self._wake.set()

    def run(self) -> None:
        """Deliver until stopped. Returns once everything is delivered or in somebody's keeping."""
        self._poll.register(self._wake.fd, select.POLLIN)
        self._poll.register(self._lifeline_fd, select.POLLIN)
        for sender in self._senders:
            sender.start()
        while self._phase is not Phase.ENDED:
            now = time.monotonic()
            try:
                due = self._turn(now)
            except SourceError as error:
                self._connection_lost(now, error)
                due = now
            self._wait(due)
        self._end()

    def _turn(self, now: float) -> float:
        """Do what is due, and return when there is more to do if nothing happens until then."""
        self._stats.set("turned_at", now)
        self._heed_stop(now)
        self._settle(now)
        due = self._keep_link(now)
        more = self._read(now)
        if self._pacing.due > now:
            due = min(due, self._pacing.due)
        self._close_if_due(now)
        due = min(due, self._custody.turn(now), self._unkept.due, self._drain_due)
        if self._phase is Phase.DRAINING:
            self._end_if_drained(now)
        due = min(due, self._report.turn(now, self._condition(), *self._in_flight()))
        if self._phase is Phase.ENDED or more:
            return now
        # A due window that waits for an idle sender is no reason to turn: the sender wakes us.
        return min(due, self._window_due if self._window_due > now else math.inf)

    def _wait(self, due: float) -> None:
        timeout_ms = max(0.0, due - time.monotonic()) * 1000
        for fd, _ in self._poll.poll(math.ceil(min(timeout_ms, 30_000))):
            if fd == self._wake.fd:
                self._wake.clear()
            elif fd == self._lifeline_fd:
                # End of file: the supervisor is gone, so nobody would restart or stop us.
                self._poll.unregister(fd)
                log.warning("supervisor.gone")
                self._stop_requests = max(self._stop_requests, 1)

    # Messages in

    def _read(self, now: float) -> bool:
        """Take in what has arrived; True if there may be more."""
        # While messages are handed back, or prefetch is used up, none comes, but answers do (how
        # many messages wait), and the end of the connection.
        wanted = self._link.state is LinkState.HANDED_BACK or (
            self._link.state is LinkState.UP
            and (
                now >= self._pacing.due
                if self._phase is Phase.RUNNING
                else self._source.still_arriving
            )
            and (self._may_read() or self._custody.all_have_come(self._batcher.last_tag))
        )
        self._listen(wanted)
        if not wanted:
            return False
        inbox = self._inbox
        if self._broker is not None and self._broker.ledger.remembers:
            inbox = self._recogniser
        taken = self._batcher.messages_taken
        more = self._source.receive(inbox, READ_MAX_MESSAGES)
        self._tell_depth()
        self._pacing.took(now, self._batcher.messages_taken - taken, more=more)
        if self._pacing.due > now:
            self._listen(False)
        if self._batcher.opened:
            self._batcher.opened = False
            self._window_due = now + self._subscription.batch_max_window_in_seconds
        return more

    def _may_read(self) -> bool:
        if self._custody.may_read(self._batcher.last_tag, self._batcher.raw_bytes):
            return True
        self._pacing.held_up()
        return False

    def _listen(self, wanted: bool) -> None:
        """Wake up when something arrives from the broker, or don't."""
        fd = self._source.fileno() if wanted else -1
        if fd == self._polled_fd:
            return
        if self._polled_fd >= 0:
            self._poll.unregister(self._polled_fd)
        if fd >= 0:
            self._poll.register(fd, select.POLLIN)
        self._polled_fd = fd

    def _close_if_due(self, now: float) -> None:
        """Close the open batch when its window is over or nothing more can come into it.

        While every sender is busy it stays open and goes on filling up to its bounds: then batches
        are large and few when the API is slow.
        """
        batcher = self._batcher
        if batcher.is_empty:
            return
        if batcher.has_documents and not self._outbox.has_idle_sender:
            return
        if now >= self._window_due:
            batcher.close(ClosedBy.WINDOW)
        elif self._link.state is LinkState.UP and not self._may_read():
            batcher.close(ClosedBy.PREFETCH)

    def _take(self, batch: Batch) -> None:
        """Take a batch that the batcher has closed: its dead letters to the disk, the rest onwards."""
        self._stats.add(f"batches_closed_by_{batch.closed_by.value}")
        self._window_due = math.inf
        if batch.dead_letters:
            self._stats.add("events_bad", len(batch.dead_letters))
            self._report.bad_events(batch.dead_letters)
            self._unkept.keep(batch)
        self._custody.take(batch)

    # Batches that are done

    def _settle(self, now: float) -> None:
        done = self._outbox.take_done()
        if self._unkept.waiting:
            done = self._unkept.settle(done, now)
        if done:
            self._custody.done(done, now)

    # The link to the broker

    def _keep_link(self, now: float) -> float:
        """Connect, send heartbeats, hand back and resume as needed; return when to look again."""
        link = self._link
        if self._acks_are_over:
            return math.inf
        if link.state is LinkState.DOWN and self._phase is Phase.RUNNING:
            if now < link.due:
                return link.due
            link.connect()
        if link.state is LinkState.CONNECTING:
            if not self._finish_connecting(now):
                return link.due
            self._tick_due = now
        if link.state in {LinkState.UP, LinkState.HANDED_BACK}:
            if now >= self._tick_due:
                self._tick_due = self._source.tick(now)
            return min(self._tick_due, self._hand_back_or_resume(now), self._ask_depth(now))
        return math.inf

    def _finish_connecting(self, now: float) -> bool:
        try:
            if not self._link.connected(now):
                return False
        except SourceError as error:
            self._report_down(error)
            return False
        log.info("broker.connected", address=self._source.address)
        if self._phase is not Phase.RUNNING:  # told to stop meanwhile
            self._source.stop_consuming()
        self._tags_begin_again(now)
        self._stats.set("connected_at", time.time())
        if self._lost_at is not None:
            self._stats.add("reconnects")
            if self._broker is None:
                gap_s = now - self._lost_at
                self._stats.add("gap_seconds", gap_s)
                log.warning("broker.gap", seconds=gap_s, reason="PUB/SUB keeps nothing meanwhile")
        self._lost_at = None
        return True

    def _tags_begin_again(self, now: float) -> None:
        self._batcher.tags_begin_again()
        self._pacing.connected(now)
        self._custody.connection_begun()

    def _connection_lost(self, now: float, error: SourceError) -> None:
        self._report_down(error)
        if not isinstance(error, SourceStandbyError):  # then another agent hears what we don't
            self._lost_at = now - error.silent_s
        self._stats.set("connected_at", 0)
        self._depth_told = None
        self._stats.set("broker_backlog", -1)
        self._listen(False)
        # Nothing more comes into the open batch, whose tags belong to this connection.
        self._batcher.close(ClosedBy.DRAIN)
        if self._broker is not None:
            self._broker.connection_lost(now)
        self._link.lost(now)

    def _report_down(self, error: SourceError) -> None:
        if isinstance(error, SourceStandbyError):
            self._report_standby(error.holder)
            return
        self._report.standing_by = False
        refused = isinstance(error, SourceRefusedError)
        advice = (
            "Correct the configuration or the permissions; the agent tries again by itself."
            if refused
            else "The agent tries again by itself; if it lasts, look at the broker and the network."
        )
        self._stats.problem(str(error), advice)
        self._report.refused = refused
        if (held_back := self._log_down.allow(str(error))) is not None:
            log.warning("broker.down", reason=error, held_back=held_back)

    def _report_standby(self, holder: str) -> None:
        if not self._report.standing_by or self._stats.read_text("lease_holder") != holder:
            log.info("lease.standby", holder=holder)
        self._stats.text("lease_holder", holder)
        self._report.standing_by, self._report.refused = True, False
        self._lost_at = None

    def _hand_back_or_resume(self, now: float) -> float:
        """Hand messages back while the API is away, and consume again when it is ready."""
        broker, link = self._broker, self._link
        if broker is None or self._phase is not Phase.RUNNING:
            return math.inf
        opened_at = self._outbox.breaker_opened_at
        if link.state is LinkState.HANDED_BACK:
            if self._outbox.breaker_state is not BreakerState.OPEN:
                self._source.resume()
                self._tags_begin_again(now)
                link.state = LinkState.UP
                self._hand_backs.resumed(now)
                log.info("messages.resumed")
            return math.inf
        if opened_at is None:
            self._hand_backs.api_is_back()
            return math.inf
        if self._outbox.breaker_state is not BreakerState.OPEN:
            return math.inf  # half-open: messages are needed for a trial
        due = self._hand_backs.due(opened_at)
        if now < due:
            return due
        if self._outbox.posts_under_way == 0:
            self._hand_back(now, broker)
        return math.inf

    def _hand_back(self, now: float, broker: BrokerCustody) -> None:
        if broker.ledger.open_batch_is_tied:
            self._batcher.close(ClosedBy.DRAIN)
        else:
            self._batcher.discard()
        self._window_due = math.inf
        dropped = set(broker.hand_back(now))
        self._unkept.forget(dropped)
        self._hand_backs.handed_back()
        self._link.state = LinkState.HANDED_BACK
        self._stats.add("hand_backs")
        log.warning("messages.handed_back", batches=len(dropped), reason="the API is away")

    def _ask_depth(self, now: float) -> float:
        if now >= self._depth_due:
            self._depth_due = now + DEPTH_EVERY_S
            self._source.ask_depth()
            self._tell_depth()
        return self._depth_due

    def _tell_depth(self) -> None:
        depth = self._source.depth
        if depth != self._depth_told:
            self._depth_told = depth
            self._stats.set("broker_backlog", -1 if depth is None else depth)

    # The end

    def _heed_stop(self, now: float) -> None:
        if self._stop_requests and self._phase is Phase.RUNNING:
            log.info("drain.begun", batches=self._outbox.batches_held)
            self._phase = Phase.DRAINING
            self._drain_due = now + max(0.0, self._drain_timeout_s - GOODBYE_S)
            if self._link.state is LinkState.UP:
                self._source.stop_consuming()
                self._tick_due = now
        elif self._stop_requests > 1:
            self._drain_due = now

    @property
    def _acks_are_over(self) -> bool:
        """Whether all tags are void and there won't be others, since we are to end."""
        return (
            self._broker is not None
            and self._phase is not Phase.RUNNING
            and self._link.state is not LinkState.UP
        )

    def _end_if_drained(self, now: float) -> None:
        outbox = self._outbox
        arriving = self._link.state is LinkState.UP and self._source.still_arriving
        if arriving and now < self._drain_due:
            return
        no_posts = outbox.breaker_state is BreakerState.OPEN
        if self._acks_are_over:
            # What were posted now, the broker would deliver again to whoever comes next.
            outbox.stop()
            no_posts = True
        self._batcher.close(ClosedBy.DRAIN)
        # While nothing is posted, what is in hand is in good keeping.
        hopeless = no_posts and not outbox.posts_under_way
        if outbox.batches_held == 0 or hopeless or now >= self._drain_due:
            self._phase = Phase.ENDED

    def _end(self) -> None:
        now = time.monotonic()
        self._outbox.stop()
        left = self._outbox.batches_held
        try:
            self._leave(now)
            if self._link.state is LinkState.UP:
                self._source.close(wait_s=GOODBYE_S)
        except SourceError as error:
            log.warning("drain.acks_unsure", reason=error)
        self._dead_letters.close()
        self._report.end(*self._in_flight())
        log.info("drain.ended", batches_left=left)

    def _leave(self, now: float) -> None:
        """Put everything in hand where it is kept, the dead letters that still wait included."""
        self._unkept.due = now
        if self._broker is not None:
            self._settle(now)
            self._custody.leave(now)
            return
        # The events first: the disk may let the letters wait for seconds, which we may not have.
        self._custody.leave(now)
        self._settle(now)
        self._custody.done(self._unkept.drop(), now)

    # What is told

    def _in_flight(self) -> tuple[int, int]:
        """Return the messages, and the bytes, that are in hand."""
        return (
            self._custody.messages_in_flight(self._batcher.last_tag),
            self._custody.bytes_in_flight + self._batcher.raw_bytes,
        )

    def _condition(self) -> Condition:
        if self._phase is not Phase.RUNNING:
            return Condition.DRAINING
        if self._link.state in {LinkState.DOWN, LinkState.CONNECTING}:
            if self._report.standing_by:
                return Condition.STANDING_BY
            return Condition.REFUSED if self._report.refused else Condition.CONNECTING
        if self._outbox.breaker_state is BreakerState.OPEN:
            return Condition.WAITING_FOR_API
        return Condition.DELIVERING
