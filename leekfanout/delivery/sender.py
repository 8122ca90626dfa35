"""The pool of sender threads: each takes a body, posts it, and does what the answer means.

What an answer means is decided in ``outcome``; here it is carried out: confirmed, retried, cut in two,
or dead-lettered.
"""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from leekfanout import logs
from leekfanout.configuration.config import Subscription
from leekfanout.delivery.batcher import Body, document_id, events_in, join_documents
from leekfanout.delivery.outbox import Outbox, Signal
from leekfanout.delivery.outcome import (
    Outcome,
    Verdict,
    failed_enough,
    is_ready,
    is_to_blame,
    judge,
    refused_enough,
    retry_delay_s,
)
from leekfanout.delivery.parcel import Parcel
from leekfanout.delivery.poster import Poster
from leekfanout.errors import StoreError
from leekfanout.status.stats import Stats
from leekfanout.stores.deadletters import DeadLetter, DeadLetters

log = logs.get("sender")

STORE_RETRY_S: Final = 10.0
"""After how long a dead letter that could not be kept is tried again."""
FAULT_RETRY_S: Final = 1.0
"""How long a body rests, at least, after an error of ours."""


COMPLAIN_EVERY_S: Final = 60.0
"""So an outage of an hour fills tens of lines of the log, whatever the API answers meanwhile."""


class Complaints:
    """How often the senders of a pool, taken together, may say what goes wrong."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.retry = logs.RateLimit(COMPLAIN_EVERY_S, clock)
        self.refused = logs.RateLimit(COMPLAIN_EVERY_S, clock)
        self.fault = logs.RateLimit(COMPLAIN_EVERY_S, clock)


class Sender(threading.Thread):
    """One POST at a time, on a connection of its own, until the outbox says stop."""

    def __init__(
        self,
        number: int,
        subscription: Subscription,
        outbox: Outbox,
        dead_letters: DeadLetters,
        stats: Stats,
        *,
        complaints: Complaints,
    ) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self._poster = Poster(subscription)
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._stats = stats
        # Seeded by the system: agents that were forked together must not retry together.
        self._random = random.Random()  # noqa: S311
        self._complaints = complaints

    def run(self) -> None:
        while (work := self._outbox.take()) is not Signal.STOP:
            self.handle(work)
        self._poster.close()

    def handle(self, work: Parcel | Signal) -> None:
        """Do one piece of work, and give it back to the outbox whatever happens."""
        try:
            if isinstance(work, Parcel):
                self._deliver(work)
            else:
                self._probe()
        except Exception as error:  # no memory, or a mistake of ours: neither may cost an event
            if (held_back := self._complaints.fault.allow()) is not None:
                log.exception("sender.fault", held_back=held_back)
            self._stats.problem(
                f"A sender met an unexpected error ({type(error).__name__}).",
                "See the log; what it was about is tried again.",
            )
            if work is Signal.PROBE:
                self._outbox.probed(False)
            elif isinstance(work, Parcel) and work.under_way:
                delay_s = FAULT_RETRY_S + retry_delay_s(work.attempts, self._random)
                self._outbox.failed(work, delay_s, breaks=False)

    def _probe(self) -> None:
        answer = self._poster.probe()
        ready = is_ready(answer)
        if not ready:
            reason = self._outbox.evidence.failure_reason = judge(answer).reason
            self._stats.problem(f"The API is not ready: {reason}.", _advice(answer.status))
        log.debug("api.probed", ready=ready, status=answer.status)
        self._outbox.probed(ready)

    def _deliver(self, parcel: Parcel) -> None:
        started = time.monotonic()
        answer = self._poster.post(parcel.body.content)
        seconds = time.monotonic() - started
        outcome = judge(answer)
        self._stats.add("posts")
        self._stats.observe_post(seconds, answer.status)
        try:
            self._act(parcel, outcome, answer.status)
        except StoreError as error:
            # A document is refused and can't be kept here: it stays where it is for now.
            self._complain(error)
            self._outbox.failed(parcel, STORE_RETRY_S, breaks=False)

    def _complain(self, error: StoreError) -> None:
        self._stats.problem(str(error), "Make room in the state directory, or make it writable.")

    def _act(self, parcel: Parcel, outcome: Outcome, status: int | None) -> None:
        match outcome.verdict:
            case Verdict.CONFIRMED:
                self._confirmed(parcel)
            case Verdict.SPLIT:
                self._halve(parcel, outcome.reason, suspect=False)
            case Verdict.REFUSED:
                self._take_out(parcel, outcome)
            case Verdict.BISECT:
                self._bisect(parcel, outcome)
            case Verdict.RETRY | Verdict.PAUSE:
                self._retry(parcel, outcome, status)

    def _confirmed(self, parcel: Parcel) -> None:
        stats = self._stats
        stats.add("posts_confirmed")
        stats.add("documents_delivered", len(parcel.body))
        stats.add("bytes_delivered", len(parcel.body.content))
        stats.set("last_delivery_at", time.time())
        self._outbox.settled(parcel, confirmed=True)

    def _retry(self, parcel: Parcel, outcome: Outcome, status: int | None) -> None:
        self._stats.add("posts_retried")
        others = self._outbox.evidence.others_since_first_failure(parcel)
        if failed_enough(
            outcome,
            documents=len(parcel.body),
            failures=self._outbox.evidence.failures_against(parcel),
            others=others,
            suspect=parcel.suspect,
        ):
            self._cut_failing(parcel, outcome.reason, proven=others.confirmed > 0)
            return
        blamed = is_to_blame(
            outcome,
            documents=len(parcel.body),
            others=others,
            api_takes_others=self._outbox.api_takes_others,
        )
        if not blamed:
            self._outbox.evidence.failure_reason = outcome.reason
        self._stats.problem(f"A batch could not be posted: {outcome.reason}.", _advice(status))
        delay_s = max(retry_delay_s(parcel.attempts, self._random), outcome.retry_after_s or 0.0)
        if (held_back := self._complaints.retry.allow()) is not None:
            log.warning(
                "post.retry",
                reason=outcome.reason,
                documents=len(parcel.body),
                attempt=parcel.attempts,
                delay_s=delay_s,
                held_back=held_back,
            )
        self._outbox.failed(
            parcel,
            delay_s,
            breaks=True,
            blamed=blamed,
            # An application that is wrong, or a server that names a time, speaks for all batches;
            # but not one that is wrong for this body, or a part of it, alone.
            at_once=bool(outcome.retry_after_s)
            or (outcome.verdict is Verdict.PAUSE and not (parcel.suspect or others.confirmed)),
            retry_after_s=outcome.retry_after_s,
        )

    def _cut_failing(self, parcel: Parcel, reason: str, *, proven: bool) -> None:
        """Cut a body that fails: in two if others are confirmed, which is the proof that it is its own.

        Without that it may be the API. Then a single document is cut off: if few are to blame, most
        likely this one is not, and once it is confirmed, the rest is cut without any more waiting.
        """
        body = parcel.body
        if proven or len(body) == 1:
            self._halve(parcel, reason, suspect=True)
            return
        self._outbox.evidence.failure_reason = reason
        parts = [cut(body, range(1)), cut(body, range(1, len(body)))]
        self._outbox.replaced(parcel, parts, suspect=True, breaks=True)

    def _bisect(self, parcel: Parcel, outcome: Outcome) -> None:
        parcel.refusals += 1
        if refused_enough(
            outcome,
            documents=len(parcel.body),
            refusals=parcel.refusals,
            suspect=parcel.suspect,
        ):
            self._halve(parcel, outcome.reason, suspect=True)
            return
        self._stats.add("posts_retried")
        delay_s = retry_delay_s(parcel.refusals, self._random)
        self._outbox.failed(parcel, delay_s, breaks=False)

    def _halve(self, parcel: Parcel, reason: str, *, suspect: bool) -> None:
        """Cut the body in two; a single document is refused for good."""
        body = parcel.body
        if len(body) == 1:
            events = self._dead_letter([(body.document(0), reason)], reason)
            self._outbox.settled(parcel, confirmed=False, refused_events=events)
            return
        middle = len(body) // 2
        halves = [cut(body, range(middle)), cut(body, range(middle, len(body)))]
        self._outbox.replaced(parcel, halves, suspect=suspect)

    def _take_out(self, parcel: Parcel, outcome: Outcome) -> None:
        """Dead-letter the documents that the API names; it has all others (contract, section 1)."""
        body = parcel.body
        sorted_out = sort_out(body, outcome, parcel.refusals)
        refused, retry = sorted_out.refused, sorted_out.retry
        if not refused and not retry:
            self._bisect(parcel, outcome)  # it names none of ours
            return
        parcel.refusals += 1
        events, delay_s = 0, retry_delay_s(parcel.refusals, self._random)
        if refused:
            try:
                events = self._dead_letter(
                    [(body.document(index), answer) for index, answer in refused], outcome.reason
                )
            except StoreError as error:
                # Only these are posted again, to be refused again: all others are indexed.
                self._complain(error)
                delay_s = STORE_RETRY_S
                retry += (index for index, _ in refused)
        self._stats.add("documents_delivered", sorted_out.indexed)
        confirmed = sorted_out.indexed > 0
        if confirmed:
            self._stats.set("last_delivery_at", time.time())
        if retry:
            self._stats.add("posts_retried")
            left = [cut(body, sorted(retry))]
            self._outbox.replaced(
                parcel, left, confirmed=confirmed, delay_s=delay_s, refused_events=events
            )
        else:
            self._outbox.settled(parcel, confirmed=confirmed, refused_events=events)

    def _dead_letter(self, documents: list[tuple[bytes, str]], reason: str) -> int:
        """Keep refused documents, and return how many events they hold.

        Raises StoreError where they can't be kept.
        """
        now = time.time()
        evicted = self._dead_letters.put(
            [
                DeadLetter("document", reason, answer, document, now)
                for document, answer in documents
            ]
        )
        self._stats.add("documents_refused", len(documents))
        self._stats.add("dead_letters_evicted", evicted)
        self._stats.problem(
            f"The API refused {_counted(len(documents))}: {reason}.",
            "See its dead letters (`leekfanout deadletters list`).",
        )
        if (held_back := self._complaints.refused.allow()) is not None:
            log.warning(
                "documents.refused",
                documents=len(documents),
                reason=reason,
                answer=documents[0][1],
                held_back=held_back,
            )
        return sum(events_in(document) for document, _ in documents)


def _counted(documents: int) -> str:
    return "a document" if documents == 1 else f"{documents:,} documents"


def _advice(status: int | None) -> str:
    """Say what to do about an answer."""
    match status:
        case None:
            return "Check that the API at `api_url` is up and can be reached from here."
        case 401:
            return "Check `app_key`: the API says that it is wrong."
        case 403:
            return "Something in front of the API forbids it: check the proxy or firewall there."
        case 404:
            return "Check `org_name`, `app_name` and `api_url`: the API knows no such application."
        case 405 | 410 | 421:
            return "Check `api_url`: what is there is no Leek API."
        case 407:
            return "Check the user and the password of the proxy that the environment names."
        case 400:
            return "Check `org_name`, `app_name`, `app_env` and `app_key`."
        case 429 | 503:
            return "The API or its search backend is overloaded; delivery goes on when it recovers."
        case _:
            return "See the API's log; delivery goes on when it recovers."


class SortedOut(NamedTuple):
    """What a refusal by name means for each document of a body, by its index there."""

    refused: list[tuple[int, str]]
    """For good, each with what the API says of it."""
    retry: list[int]
    indexed: int
    """How many others there are, which the API has."""


def sort_out(body: Body, outcome: Outcome, refusals: int) -> SortedOut:
    """Sort a body's documents by an answer that refuses some; ``refusals`` were there before it.

    Those that may be taken later are tried again by themselves. Where the API has refused more than
    it names of ours, nobody knows which, so all that it didn't name are tried again.
    """
    by_id = defaultdict[str, list[int]](list)  # a task and a worker may share an id
    for index in range(len(body)):
        by_id[document_id(body.document(index))].append(index)
    refused: list[tuple[int, str]] = []
    retry: list[int] = []
    names_all = outcome.names_all
    for refusal in outcome.refusals:
        indices = by_id.pop(refusal.document_id, [])
        names_all &= bool(indices)
        if refusals + 1 < refusal.tries:
            retry += indices
        else:
            refused += ((index, refusal.answer) for index in indices)
    others = [index for indices in by_id.values() for index in indices]
    if names_all or not (refused or retry):
        return SortedOut(refused, retry, len(others))
    return SortedOut(refused, retry + others, 0)


def cut(body: Body, indices: Iterable[int]) -> Body:
    """Return a body of some of ``body``'s documents, byte for byte."""
    return join_documents([body.document(index) for index in indices])
