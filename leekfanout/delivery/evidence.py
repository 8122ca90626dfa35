"""What the fates of POSTs tell: of the API, and of a body that fails again and again. Pure.

An API that is away and an API that fails on one document answer alike: which it is shows in what became
of other POSTs meanwhile.
"""

import math

from leekfanout.delivery.outcome import Others
from leekfanout.delivery.parcel import Parcel


class Evidence:
    """Counts of POSTs by their fates. Written under the outbox's lock, read by any thread."""

    def __init__(self) -> None:
        self.confirmed = 0
        """Parcels of which the API has confirmed something, so far."""
        self.failures_in_a_row = 0
        """POSTs that failed since the API took something, or a body was cut without a proof."""
        self.failure_reason = ""
        """Why the API took nothing when it was asked last, in plain words; the senders write it."""
        self._failures = 0
        """POSTs that failed for reasons of the API, so far. A single document's count once it is
        confirmed: until then they may be its own."""
        self._confirmed_at = -math.inf

    def took(self, now: float) -> None:
        """Note that the API has confirmed something."""
        self.confirmed += 1
        self._confirmed_at = now

    def acquit(self, parcel: Parcel) -> None:
        """Note that all failures of ``parcel``, which is confirmed now, weren't its own."""
        if len(parcel.body) == 1:
            self._failures += parcel.attempts - 1

    def answered(self) -> None:
        """Note that the API gave an answer that speaks of what was posted."""
        self.failures_in_a_row = 0

    def failed(self, parcel: Parcel, *, blamed: bool) -> None:
        """Note a POST that failed; ``blamed`` if that is taken for the document's fault."""
        self._failures += len(parcel.body) > 1
        self.failures_in_a_row += not blamed

    def cut_unproven(self) -> None:
        """Note that a body was cut: so many failures again must come before another is."""
        self.failures_in_a_row = 0

    def is_taking(self, now: float, within_s: float) -> bool:
        """Whether the API has confirmed something in the last ``within_s``."""
        return now - self._confirmed_at <= within_s

    def count_from_here(self, parcel: Parcel) -> None:
        """Begin to compare ``parcel`` with others: it has failed first, or was cut out."""
        parcel.confirmed_before = self.confirmed
        parcel.failures_before = self._failures

    def others_since_first_failure(self, parcel: Parcel) -> Others:
        """Return how other parcels fared since ``parcel``, now failing again, failed first.

        Nothing where it fails for the first time. Of a suspect it is counted since it was cut out.
        """
        if parcel.attempts == 1 and not parcel.suspect:
            return Others(0, 0)
        own = parcel.attempts - 1 if len(parcel.body) > 1 else 0
        return Others(
            self.confirmed - parcel.confirmed_before,
            max(0, self._failures - parcel.failures_before - own),
        )

    def failures_against(self, parcel: Parcel) -> int:
        """Return how many failures speak for cutting ``parcel``, which is failing now.

        That is its own; but if it was the trial after the API's GET had said ready, all in a row, of
        whatever body: an API that takes nothing although it is ready is asked about all alike.
        """
        if parcel.trial and len(parcel.body) > 1:
            return max(parcel.attempts, self.failures_in_a_row + 1)
        return parcel.attempts
