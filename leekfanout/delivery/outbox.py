"""The bounded queue between the batcher and the senders, with what is due for another attempt.

It hands out what serves delivery best: a probe when the breaker asks for one, else a body whose retry
is due, else the next fresh one. Only as the trial that shows whether the API is back it hands out what
that most likely takes. A body that waits for its retry holds up nobody.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from leekfanout.delivery.batcher import Batch, Body
from leekfanout.delivery.evidence import Evidence
from leekfanout.delivery.outcome import PROOF_LASTS_S, Breaker, BreakerState
from leekfanout.delivery.parcel import Parcel
from leekfanout.delivery.retries import BLAMED_REST_S, Retries

BACK_WITHIN_S: Final = 2.0
"""How long a body that failed in an outage goes on waiting, at most, once the API takes others."""


@dataclass(slots=True)
class _Held:
    parcels: dict[Parcel, None]
    """Those that are neither confirmed nor dead-lettered, in order."""
    size_bytes: int
    put_at: float
    """Epoch seconds, for people."""
    under_way: int = 0
    """Those that are being posted."""
    thinned_to: int = -1
    """How many documents were left of it when that was noted last."""


class Signal(Enum):
    """What a sender may be told instead of being given a parcel."""

    PROBE = auto()
    STOP = auto()


class Outbox:
    """Parcels for a pool of senders. Any thread may call any method.

    ``notify`` is called when the main thread should look: a batch is done, a sender has become idle,
    or the breaker has moved. It must do no more than wake that thread. ``clock`` gives monotonic
    seconds.
    """

    def __init__(
        self,
        capacity: int,
        breaker: Breaker,
        notify: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = capacity
        self._breaker = breaker
        self._notify = notify
        self._clock = clock
        # Guards everything below and the breaker.
        self._changed = threading.Condition()
        self._fresh: deque[Parcel] = deque()
        self._retries = Retries()
        self._held: dict[Batch, _Held] = {}
        """Batches that aren't done, in the order they came."""
        self._done: deque[Batch] = deque()
        self._thinned: dict[Batch, None] = {}
        self._idle = 0
        self._stopping = False
        self.evidence = Evidence()
        self.posts_under_way = 0
        self.bytes_held = 0

    # The main thread's side

    def put(self, batch: Batch) -> None:
        """Queue all bodies of a batch; one without any is done at once."""
        with self._changed:
            if batch.bodies:
                parcels = [Parcel(batch, body) for body in batch.bodies]
                self._held[batch] = _Held(dict.fromkeys(parcels), batch.size_bytes, time.time())
                self.bytes_held += batch.size_bytes
                self._fresh.extend(parcels)
                self._changed.notify(len(batch.bodies))
                return
            self._done.append(batch)
        self._notify()

    def take_done(self) -> list[Batch]:
        """Return the batches that are done since the last call."""
        with self._changed:
            done = list(self._done)
            self._done.clear()
        return done

    def take_thinned(self) -> dict[Batch, list[Body]]:
        """Return what is left of batches that are done in part, the rest having failed by itself.

        Each is returned again only once less is left of it.
        """
        if not self._thinned:
            return {}
        with self._changed:
            thinned = {
                batch: [parcel.body for parcel in self._held[batch].parcels]
                for batch in self._thinned
            }
            self._thinned.clear()
        return thinned

    def withdraw(self, batches: Sequence[Batch]) -> bool:
        """Forget batches, since their messages are handed back.

        False, and nothing is forgotten, if it is too late: the API has a part of one of them, or may
        be getting it right now.
        """
        with self._changed:
            held = [self._held.get(batch) for batch in batches]
            if any(each is None or each.under_way for each in held) or any(
                batch.begun for batch in batches
            ):
                return False
            for batch in batches:
                self._drop(batch)
            self._fresh = deque(p for p in self._fresh if p.batch in self._held)
            self._retries.keep(lambda parcel: parcel.batch in self._held)
        return True

    def drain(self) -> dict[Batch, list[Body]]:
        """Return the batches that aren't done, in the order they came, and forget them.

        With each goes what is left of it: the bodies that are neither confirmed nor dead-lettered.
        """
        with self._changed:
            left = {
                batch: [parcel.body for parcel in held.parcels]
                for batch, held in self._held.items()
            }
            for batch in left:
                self._drop(batch)
            self._fresh.clear()
            self._retries = Retries()
        return left

    @property
    def is_full(self) -> bool:
        """Whether as many fresh parcels wait as it has room for."""
        return len(self._fresh) >= self._capacity

    @property
    def has_idle_sender(self) -> bool:
        """Whether a batch that is put now would be posted now."""
        return self._idle > len(self._fresh) and self._breaker.state is not BreakerState.OPEN

    @property
    def batches_held(self) -> int:
        """Batches that were put and aren't done."""
        return len(self._held)

    @property
    def oldest_put_at(self) -> float:
        """When the batch that has waited longest was put, in epoch seconds; 0: there is none."""
        with self._changed:
            return next((held.put_at for held in self._held.values()), 0.0)

    @property
    def api_takes_others(self) -> bool:
        """Whether the API has confirmed something of late, so that it isn't away."""
        return self.evidence.is_taking(self._clock(), PROOF_LASTS_S)

    @property
    def breaker_state(self) -> BreakerState:
        """Whether POSTs may be tried."""
        return self._breaker.state

    @property
    def breaker_opened_at(self) -> float | None:
        """When the breaker opened (monotonic seconds), unless it is closed."""
        return self._breaker.opened_at

    def stop(self) -> None:
        """Tell the senders to end; a POST that is under way is finished first."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    # The senders' side

    def take(self) -> Parcel | Signal:
        """Wait for something to do. What is taken must be given back to one of the methods below."""
        told = False
        with self._changed:
            while (work := self.take_now()) is None:
                self._idle += 1
                if not told:
                    told = True
                    self._notify()
                self._changed.wait(self._wait_s(self._clock()))
                self._idle -= 1
        return work

    def take_now(self) -> Parcel | Signal | None:
        """As :meth:`take`, but None where that would wait."""
        with self._changed:
            if self._stopping:
                return Signal.STOP
            now = self._clock()
            if self._breaker.may_probe(now):
                return Signal.PROBE
            trial = self._breaker.state is BreakerState.HALF_OPEN
            parcel = self._next_parcel(now, trial)
            if parcel is not None:
                parcel.trial = trial
                parcel.attempts += 1
                parcel.begun_at = now
                parcel.under_way = True
                self._held[parcel.batch].under_way += 1
                self.posts_under_way += 1
            return parcel

    def _next_parcel(self, now: float, trial: bool) -> Parcel | None:
        if not self._breaker.may_post():
            return None
        fresh = self._fresh[0] if self._fresh else None
        retries = self._retries
        parcel = retries.take_trial(now, fresh) if trial else retries.take(now) or fresh
        if parcel is not None:
            self._breaker.post_begun()
            if parcel is fresh:
                self._fresh.popleft()
        return parcel

    def _wait_s(self, now: float) -> float | None:
        """Return how long until there may be something to do without anybody saying so."""
        if self._breaker.state is BreakerState.OPEN:
            return None if self._breaker.probing else max(0.0, self._breaker.next_probe_at - now)
        due = self._retries.next_due(now)
        return None if due is None else due - now

    def probed(self, ready: bool) -> None:
        """Give the result of a probe."""
        with self._changed:
            now = self._clock()
            self._breaker.probed(ready, now)
            if self._breaker.state is BreakerState.HALF_OPEN:
                if not self._fresh:
                    # Something must be tried, or it would stay half-open until a backoff is over.
                    self._retries.hasten(now)
                # The trial had better be something else, which the main thread may have in hand.
                self._retries.rest_blamed(now + BLAMED_REST_S)
            self._changed.notify_all()
        self._notify()

    def settled(self, parcel: Parcel, *, confirmed: bool, refused_events: int = 0) -> None:
        """Give back a parcel that is through: confirmed, or dead-lettered.

        ``refused_events`` of its batch's events were dead-lettered.
        """
        with self._changed:
            self._answered(parcel, confirmed)
            if confirmed:
                self.evidence.acquit(parcel)
            parcel.batch.events -= refused_events
            parcel.batch.begun = True
            if held := self._held.get(parcel.batch):
                del held.parcels[parcel]
                if not held.parcels:
                    self._drop(parcel.batch)
                    self._done.append(parcel.batch)
            self._note_if_thinned(parcel.batch)
        self._notify()

    def replaced(
        self,
        parcel: Parcel,
        bodies: list[Body],
        *,
        confirmed: bool = False,
        suspect: bool = False,
        delay_s: float = 0.0,
        refused_events: int = 0,
        breaks: bool = False,
    ) -> None:
        """Give back a parcel of which ``bodies`` are left, each to be posted after ``delay_s``.

        ``confirmed``: the API has taken all others of its documents; ``suspect`` as in
        :class:`Parcel`; ``refused_events`` as in :meth:`settled`; ``breaks`` as in :meth:`failed`.
        """
        with self._changed:
            if breaks:
                self._given_back(parcel)
                self.evidence.cut_unproven()
                self._breaker.failed(
                    self._clock(), begun_at=parcel.begun_at, at_once=False, retry_after_s=None
                )
                self._changed.notify_all()
            else:
                self._answered(parcel, confirmed)
            parcel.batch.events -= refused_events
            parcel.batch.begun |= sum(map(len, bodies)) < len(parcel.body)
            if held := self._held.get(parcel.batch):
                del held.parcels[parcel]
                for body in bodies:
                    refusals = 0 if suspect else parcel.refusals
                    left = Parcel(parcel.batch, body, refusals=refusals, suspect=suspect)
                    self.evidence.count_from_here(left)
                    held.parcels[left] = None
                    self._retries.add(left, self._clock() + delay_s)
            self._note_if_thinned(parcel.batch)
        self._notify()

    def failed(
        self,
        parcel: Parcel,
        delay_s: float,
        *,
        breaks: bool,
        blamed: bool = False,
        at_once: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        """Give back a parcel to be posted again, the same bytes, after ``delay_s``.

        ``breaks``: it failed, rather than that the API refused it, so the breaker is told; ``blamed``:
        the failure is taken for its own. ``at_once`` and ``retry_after_s`` as in
        :meth:`Breaker.failed`.
        """
        with self._changed:
            now = self._clock()
            self._given_back(parcel)
            if parcel.attempts == 1 and not parcel.suspect:
                self.evidence.count_from_here(parcel)
            parcel.blamed |= blamed
            if breaks:
                self.evidence.failed(parcel, blamed=blamed)
                self._breaker.failed(
                    now,
                    begun_at=parcel.begun_at,
                    at_once=at_once,
                    retry_after_s=retry_after_s,
                    counts=not blamed,
                )
                parcel.not_before = math.inf if blamed else now + (retry_after_s or 0.0)
            else:
                self._api_answers()
                parcel.not_before = math.inf
            if parcel.batch in self._held:
                self._retries.add(parcel, now + delay_s)
            self._note_if_thinned(parcel.batch)
            self._changed.notify_all()
        self._notify()

    def _note_if_thinned(self, batch: Batch) -> None:
        held = self._held.get(batch)
        if held is None or not batch.begun:
            return
        # While a part of it hasn't been tried yet, or is under way, more of it may be done soon.
        if all(not p.under_way and (p.attempts or p.refusals) for p in held.parcels):
            left = sum(len(parcel.body) for parcel in held.parcels)
            if left != held.thinned_to:
                held.thinned_to = left
                self._thinned[batch] = None

    def _given_back(self, parcel: Parcel) -> None:
        parcel.under_way = False
        self.posts_under_way -= 1
        if held := self._held.get(parcel.batch):
            held.under_way -= 1
        if parcel.blamed:
            now = self._clock()
            self._retries.rest_blamed(now + max(BLAMED_REST_S, now - parcel.begun_at))

    def _answered(self, parcel: Parcel, confirmed: bool) -> None:
        self._given_back(parcel)
        self._api_answers()
        if confirmed:
            now = self._clock()
            self.evidence.took(now)
            if parcel.blamed:
                self._retries.rest_blamed(now)  # what the API takes needs no pause
        self._changed.notify_all()

    def _api_answers(self) -> None:
        was_closed = self._breaker.state is BreakerState.CLOSED
        self._breaker.succeeded()
        self.evidence.answered()
        if not was_closed:
            self._retries.hasten(self._clock() + BACK_WITHIN_S)

    def _drop(self, batch: Batch) -> None:
        held = self._held.pop(batch, None)
        self._thinned.pop(batch, None)
        if held is not None:
            self.bytes_held -= held.size_bytes
