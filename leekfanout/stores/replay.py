"""Delivering dead letters once more: what is confirmed now is removed, all else stays as it is."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson

from leekfanout.configuration.config import Subscription
from leekfanout.delivery.batcher import join_documents
from leekfanout.delivery.outcome import Outcome, Verdict, is_ready, judge
from leekfanout.delivery.poster import Poster
from leekfanout.documents.events import CONTENT_TYPE, Documents, EventTally, decode
from leekfanout.errors import BadEventError
from leekfanout.stores.deadletters import DeadLetter, DeadLetters

FAILURES_TO_STOP: Final = 3
"""So many documents in a row that the API fails to take, each alone, and the replay is given up."""


class _Document(NamedTuple):
    letter_id: int
    document_id: str
    content: bytes


@dataclass(slots=True)
class Replayed:
    """How a replay went."""

    delivered: int = 0
    """Letters that were confirmed, and so removed."""
    staying: dict[int, str] = field(default_factory=dict)
    """Letters that stay, each with the reason."""
    stopped: str | None = None
    """Why the API was not asked any further; the letters that it wasn't asked about stay."""


class _StoppedError(Exception):
    """The API takes nothing at the moment; the message is the reason."""


def replay(letters: DeadLetters, subscription: Subscription, ids: Iterable[int]) -> Replayed:
    """Post the letters of ``ids`` to the subscription's API, in that order.

    Ids that don't exist (any more) are passed over. A letter of several documents is removed only if
    all of them are confirmed. Raises StoreError.
    """
    result = Replayed()
    poster = Poster(subscription)
    try:
        for batch in _batches(letters, subscription, ids, result):
            delivery = _Delivery(poster)
            try:
                delivery.post(batch)
            finally:  # what is confirmed must go, whatever happens to the rest
                _settle(letters, batch, delivery, result)
    except _StoppedError as reason:
        result.stopped = str(reason)
    finally:
        poster.close()
    return result


class _Delivery:
    """Posts one batch, cutting it down to the documents that the API refuses."""

    def __init__(self, poster: Poster) -> None:
        self._poster = poster
        self._failures = 0
        self.confirmed: list[_Document] = []
        self.refused: list[tuple[_Document, str]] = []

    def post(self, documents: Sequence[_Document]) -> None:
        """Raise _StoppedError once there is no use in asking on."""
        body = join_documents([document.content for document in documents])
        answer = self._poster.post(body.content)
        outcome = judge(answer)
        match outcome.verdict:
            case Verdict.CONFIRMED:
                self._failures = 0
                self.confirmed += documents
            case Verdict.REFUSED:
                self._failures = 0
                self._take_out(documents, outcome)
            case Verdict.SPLIT | Verdict.BISECT:
                self._failures = 0
                self._halve(documents, outcome.reason)
            case Verdict.RETRY | Verdict.PAUSE:
                # One document may be what the API stumbles over, or what a firewall takes offence
                # at. If not, the API would not say that it is ready.
                if answer.status is None or not is_ready(self._poster.probe()):
                    raise _StoppedError(outcome.reason)
                if len(documents) == 1:
                    self._failures += 1
                    if self._failures >= FAILURES_TO_STOP:
                        raise _StoppedError(outcome.reason)
                self._halve(documents, outcome.reason)

    def _take_out(self, documents: Sequence[_Document], outcome: Outcome) -> None:
        answers = {refusal.document_id: refusal.answer for refusal in outcome.refusals}
        named = [document for document in documents if document.document_id in answers]
        others = [document for document in documents if document.document_id not in answers]
        if not named:
            self._halve(documents, outcome.reason)
            return
        self.refused += [(document, answers[document.document_id]) for document in named]
        if outcome.names_all:
            self.confirmed += others
        elif others:
            self.post(others)

    def _halve(self, documents: Sequence[_Document], reason: str) -> None:
        if len(documents) == 1:
            self.refused.append((documents[0], reason))
            return
        middle = len(documents) // 2
        self.post(documents[:middle])
        self.post(documents[middle:])


def _settle(
    letters: DeadLetters, batch: Sequence[_Document], delivery: _Delivery, result: Replayed
) -> None:
    refused = {document.letter_id: answer for document, answer in delivery.refused}
    result.staying |= refused
    unconfirmed = {document.letter_id for document in set(batch) - set(delivery.confirmed)}
    confirmed = {document.letter_id for document in batch} - unconfirmed
    letters.remove(sorted(confirmed))
    result.delivered += len(confirmed)


def documents_of(letter: DeadLetter, app_env: str) -> list[bytes]:
    """Return the documents that a letter holds or makes now; BadEventError if it still makes none.

    An event is decoded anew, for a later version may know what this one refused. A message is decoded
    as what it was said to be; where that isn't known, as JSON.
    """
    if letter.kind == "document":
        return [letter.payload]
    documents = Documents(app_env, EventTally())
    said = CONTENT_TYPE if letter.content_type is None else letter.content_type
    for event in decode(letter.payload, said):
        documents.add(event)
    made = documents.close(int(time.time() * 1000))
    if not made:
        raise BadEventError("it holds nothing that Leek takes")
    return made


def _batches(
    letters: DeadLetters, subscription: Subscription, ids: Iterable[int], result: Replayed
) -> Iterator[list[_Document]]:
    """Give the documents in batches within the subscription's bounds.

    No batch has two documents of one id: an API that refuses one names it by that.
    """
    batch: list[_Document] = []
    size_bytes = 0
    for letter_id in ids:
        letter = letters.get(letter_id)
        if letter is None:
            continue
        try:
            documents = [
                _Document(letter_id, _id_of(content), content)
                for content in documents_of(letter, subscription.app_env)
            ]
        except BadEventError as error:
            result.staying[letter_id] = str(error)
            continue
        grown_bytes = sum(len(document.content) + 1 for document in documents)
        taken = {document.document_id for document in batch}
        if batch and (
            size_bytes + grown_bytes >= subscription.batch_max_size_bytes
            or len(batch) + len(documents) > subscription.batch_max_number_of_messages
            or any(document.document_id in taken for document in documents)
        ):
            yield batch
            batch, size_bytes = [], 0
        batch += documents
        size_bytes += grown_bytes
    if batch:
        yield batch


def _id_of(content: bytes) -> str:
    try:
        return str(orjson.loads(content)["id"])
    except (ValueError, KeyError, TypeError):
        raise BadEventError("its payload is no document") from None
