"""What an answer of the API means, how long to wait, and when to stop asking.

All of it is decided here and nothing is done: no sockets, no threads, no clocks (time is passed in).
The table of answers is the contract's section 1 and the design's promise that one bad document hurts
only itself.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final, NamedTuple

import orjson

RETRY_DELAY_BASE_S: Final = 0.5
RETRY_DELAY_MAX_S: Final = 60.0
RETRY_AFTER_MAX_S: Final = 3600.0
"""A Retry-After beyond an hour is taken as an hour: a wrong date must not silence us for days."""

REFUSALS_BEFORE_BISECT: Final = 3
"""How often a document may be refused, where that may pass or names none, until it is given up."""
FAILURES_BEFORE_BISECT: Final = 20
"""How often a document may fail by itself, while others are confirmed, until it is given up; and how
often a body of several may meet an overload until it is cut."""
CONFLICTS_BEFORE_HALVING: Final = 2
"""How often a body of several documents may meet a conflict, which may pass, until it is cut."""
FAILURES_BEFORE_HALVING: Final = 4
"""How often a body of several documents may fail until it is cut. More than the three in a row that
open the breaker, so that an outage which the API's GET tells of as well cuts nothing."""
PAUSES_BEFORE_HALVING: Final = 2
"""How often a body of several documents may be forbidden until it is cut: once, and once more after
the API's GET, which knows the application as well, has said that it is ready."""

PROOF_LASTS_S: Final = 30.0
"""For how long a confirmed POST shows that the API is not away."""

OVERLOAD_STATUSES: Final = frozenset({408, 425, 429})
APPLICATION_STATUSES: Final = frozenset({401, 402, 403, 404, 405, 407, 410, 421, 426, 431})
"""They speak of the key, the URL, the headers, the connection or a proxy's password (RFC 9110, 15.5;
RFC 6585), not of what was posted: every batch would be answered so."""


class Verdict(Enum):
    """What is to be done with the batch that was answered."""

    CONFIRMED = "confirmed"
    """The API has it: ack."""
    RETRY = "retry"
    """Overload or no answer: the same bytes again, later."""
    PAUSE = "pause"
    """The application is wrong, the events are fine: keep everything, probe until it is ready."""
    SPLIT = "split"
    """Too large: two halves; a single document is dead-lettered."""
    REFUSED = "refused"
    """Some documents are refused: those that are named are dead-lettered, all others are indexed."""
    BISECT = "bisect"
    """Refused without saying which: retry a few times, then halve until it stands alone."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, or the lack of one (``status`` None, then ``error`` tells why)."""

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One document that the API refuses."""

    document_id: str
    answer: str
    """What the API says of it, as JSON."""
    tries: int
    """How often it is posted, at most: more than once if two updates may have met, and more often
    if the search backend was busy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict with its reason in plain words."""

    verdict: Verdict
    reason: str
    retry_after_s: float | None = None
    refusals: tuple[Refusal, ...] = ()
    """The documents that the API refuses, with REFUSED only."""
    names_all: bool = True
    """Whether ``refusals`` are as many as the API says it has refused."""
    may_pass: bool = False
    """Whether it speaks of the moment more than of a document: a conflict, or an overload."""


def judge(answer: Answer, now: datetime | None = None) -> Outcome:
    """Return what the answer to a POST means. ``now`` (UTC) resolves a Retry-After that is a date."""
    status = answer.status
    if status is None:
        return Outcome(Verdict.RETRY, answer.error or "no answer from the API")
    reason = _reason(answer)
    if status == 201:
        return Outcome(Verdict.CONFIRMED, reason)
    if status < 400 or status >= 500 or status in OVERLOAD_STATUSES:
        wait_s = retry_after_s(answer.headers, now)
        overloaded = status < 400 or status in OVERLOAD_STATUSES or status == 503
        return Outcome(Verdict.RETRY, reason, wait_s, may_pass=overloaded or wait_s is not None)
    if status in APPLICATION_STATUSES:
        return Outcome(Verdict.PAUSE, reason)
    if status == 413:
        return Outcome(Verdict.SPLIT, reason)
    if status == 400:
        return _judge_bad_request(answer, reason)
    return Outcome(Verdict.BISECT, reason, may_pass=status == 409)


def _judge_bad_request(answer: Answer, reason: str) -> Outcome:
    """Tell the three kinds of 400 apart: documents refused, headers missing, anything else."""
    body = _json(answer.body)
    if isinstance(body, dict):
        errors = body.get("errors")
        if isinstance(errors, list) and (refusals := tuple(_refusals(errors))):
            named = len({refusal.document_id for refusal in refusals})
            failed = body.get("failed")
            # An entry that can't be read, or a name that comes twice, leaves somebody unnamed.
            names_all = max(failed if isinstance(failed, int) else 0, len(errors)) <= named
            return Outcome(Verdict.REFUSED, reason, refusals=refusals, names_all=names_all)
        if isinstance(body.get("error"), dict):
            return Outcome(Verdict.PAUSE, reason)
    return Outcome(Verdict.BISECT, reason)


def _refusals(errors: list[Any]) -> Iterator[Refusal]:
    for entry in errors:
        # {"update": {"_id": …, "status": …, "error": {…}}}; the operation's name doesn't matter.
        details = next(iter(entry.values()), None) if isinstance(entry, dict) else None
        if isinstance(details, dict) and isinstance(details.get("_id"), str):
            tries = _tries(details.get("status"))
            yield Refusal(details["_id"], orjson.dumps(details).decode(), tries)


def _tries(status: object) -> int:
    """Return how often a document is posted that the search backend refuses with ``status``."""
    if not isinstance(status, int):
        return 1
    if status == 429 or status >= 500:
        return FAILURES_BEFORE_BISECT
    return REFUSALS_BEFORE_BISECT if status == 409 else 1


def refused_enough(outcome: Outcome, *, documents: int, refusals: int, suspect: bool) -> bool:
    """Whether a body is to be cut, or its one document given up, that was refused so many times.

    Cutting loses nothing, and the documents that are not to blame needn't wait: so it is done soon,
    and at once with a ``suspect``, a part of a body that was cut. What is decided of a single document
    is final, so that it is given all its chances alone.
    """
    if documents == 1:
        return refusals >= REFUSALS_BEFORE_BISECT
    return suspect or refusals >= (CONFLICTS_BEFORE_HALVING if outcome.may_pass else 1)


class Others(NamedTuple):
    """What became of other POSTs since a body failed first."""

    confirmed: int
    failed: int


def failed_enough(
    outcome: Outcome, *, documents: int, failures: int, others: Others, suspect: bool
) -> bool:
    """Whether a body is to be cut, or its one document given up, that has failed so many times.

    A web application firewall may answer 403 to a document that looks like an attack, and an API may
    crash on one document. That it is a document's fault is only known while others are confirmed, as
    often as it fails and as others fail: so a single one is given up only then. (An API that fails
    every other time, at random, makes us take a good document for a bad one once in two million.)

    But the rest of its body may be all that the broker lets us have (``prefetch_count``): so a body is
    cut without that proof, which loses nothing. While the API is away there is one POST for each probe
    that says ready, and a cut for some of them, so that cutting can't run wild.
    """
    if documents == 1:
        return failures > FAILURES_BEFORE_BISECT and others.confirmed >= max(
            failures, others.failed
        )
    if suspect and others.confirmed:
        return True
    if outcome.verdict is Verdict.PAUSE:
        return failures >= PAUSES_BEFORE_HALVING
    return failures >= (FAILURES_BEFORE_BISECT if outcome.may_pass else FAILURES_BEFORE_HALVING)


def is_to_blame(
    outcome: Outcome, *, documents: int, others: Others, api_takes_others: bool
) -> bool:
    """Whether a failure is taken for the single document's own, so that it says nothing of the API.

    It is if others were confirmed since it failed first, and some of late. A server that names a time
    speaks for all, though.
    """
    return (
        documents == 1 and others.confirmed > 0 and api_takes_others and not outcome.retry_after_s
    )


def is_ready(answer: Answer) -> bool:
    """Whether the answer to a GET says that this application's documents will be taken."""
    return answer.status == 200


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3), or None."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, OverflowError):  # rubbish, or numbers beyond what C takes
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S)


def retry_delay_s(attempt: int, randomness: random.Random) -> float:
    """Return the wait before another attempt, the ``attempt``-th having failed (1, 2, …).

    Exponential with full jitter: anything between nothing and the cap, so that agents that failed
    together do not come back together.
    """
    cap = min(RETRY_DELAY_MAX_S, RETRY_DELAY_BASE_S * 2.0 ** min(attempt - 1, 16))
    return randomness.uniform(0.0, cap)


class BreakerState(Enum):
    """Whether POSTs may be tried."""

    CLOSED = "closed"
    OPEN = "open"
    """No POST at all; one probe at a time asks whether the API is ready."""
    HALF_OPEN = "half-open"
    """The API said it is ready: one POST shows whether it is."""


PROBE_DELAY_MIN_S: Final = 1.0
PROBE_DELAY_MAX_S: Final = 8.0
"""With the probe's own timeout, an API that is back is noticed within 15 seconds."""
FAILURES_TO_OPEN: Final = 3


class Breaker:
    """A subscription's circuit breaker: counts failures, and says who may ask the API when.

    Not thread-safe: its owner guards it. ``now`` is monotonic seconds everywhere.
    """

    def __init__(self, randomness: random.Random) -> None:
        self._random = randomness
        self._failures_in_a_row = 0
        self._probes_failed = 0
        self._trial_under_way = False
        self._half_open_since = 0.0
        self.probing = False
        """Whether a probe is under way."""
        self.state = BreakerState.CLOSED
        self.opened_at: float | None = None
        """When it opened first since it was last closed; a short try in between doesn't reset it."""
        self.next_probe_at = 0.0
        self._asked_to_wait_until = 0.0

    def may_post(self) -> bool:
        """Whether a POST may start now; in the half-open state only one may, the trial."""
        if self.state is BreakerState.HALF_OPEN:
            return not self._trial_under_way
        return self.state is BreakerState.CLOSED

    def post_begun(self) -> None:
        """Take note of a POST that starts; it must be allowed."""
        self._trial_under_way = self.state is BreakerState.HALF_OPEN

    def may_probe(self, now: float) -> bool:
        """Whether to send a probe now; if so it is under way until :meth:`probed`."""
        if self.state is BreakerState.OPEN and not self.probing and now >= self.next_probe_at:
            self.probing = True
            return True
        return False

    def probed(self, ready: bool, now: float) -> None:
        """Take a probe's result: the API is ready for a trial, or the next probe is due later."""
        self.probing = False
        if self.state is not BreakerState.OPEN:
            return
        if ready and now < self._asked_to_wait_until:
            self.next_probe_at = self._asked_to_wait_until  # it was asked for during the probe
        elif ready:
            self.state = BreakerState.HALF_OPEN
            self._half_open_since = now
            self._trial_under_way = False
        else:
            self._probes_failed += 1
            self._schedule_probe(now)

    def succeeded(self) -> None:
        """Take a POST that the API answered for good (confirmed, or refused in so many words)."""
        self._failures_in_a_row = 0
        self._probes_failed = 0
        self._trial_under_way = False
        self._asked_to_wait_until = 0.0
        self.state = BreakerState.CLOSED
        self.opened_at = None

    def failed(
        self,
        now: float,
        *,
        begun_at: float,
        at_once: bool,
        retry_after_s: float | None,
        counts: bool = True,
    ) -> None:
        """Take a POST that failed; ``at_once`` where one failure is proof enough.

        One that was begun (at ``begun_at``) before the breaker opened says nothing new, unless the
        API asks for time: while the breaker is half-open, only the trial's failure counts. That opens
        it again even if it ``counts`` for nothing else, being the posted document's own.
        """
        self._failures_in_a_row += counts
        asked_until = now + (retry_after_s or 0.0)
        if asked_until > now and self.state is not BreakerState.CLOSED:
            self._asked_to_wait_until = max(self._asked_to_wait_until, asked_until)
        if self.state is BreakerState.OPEN:
            self.next_probe_at = max(self.next_probe_at, self._asked_to_wait_until)
            return
        if self.state is BreakerState.HALF_OPEN:
            if begun_at >= self._half_open_since:
                self._probes_failed += 1
            elif asked_until == now:
                return
        elif not counts or not (at_once or self._failures_in_a_row >= FAILURES_TO_OPEN):
            return
        self.state = BreakerState.OPEN
        self._trial_under_way = False
        if self.opened_at is None:
            self.opened_at = now
        self._asked_to_wait_until = max(self._asked_to_wait_until, asked_until)
        self._schedule_probe(now)

    def _schedule_probe(self, now: float) -> None:
        cap = min(PROBE_DELAY_MAX_S, PROBE_DELAY_MIN_S * 2.0 ** min(self._probes_failed, 8))
        # Half of the delay is fixed: a probe soon after a failed one would tell nothing new.
        delay_s = self._random.uniform(cap / 2, cap)
        self.next_probe_at = max(now + delay_s, self._asked_to_wait_until)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


REASON_MAX_CHARACTERS: Final = 300


def _reason(answer: Answer) -> str:
    """Say what the API answered, shortly: the status and whatever explanation came with it."""
    body = _json(answer.body)
    text = ""
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        error = body["error"]
        text = str(error.get("reason") or error.get("message") or "")
    elif isinstance(body, str):
        text = body
    elif isinstance(body, dict) and "failed" in body:
        text = f"(documents refused: {body['failed']})"
    return f"HTTP {answer.status} {text}".strip()[:REASON_MAX_CHARACTERS]
