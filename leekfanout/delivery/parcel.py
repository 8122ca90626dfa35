"""One body on its way to the API, with what has happened to it."""

import math
from dataclasses import dataclass

from leekfanout.delivery.batcher import Batch, Body


@dataclass(slots=True, eq=False)
class Parcel:
    """A body of a batch, until it is confirmed or dead-lettered; held by one thread at a time."""

    batch: Batch
    body: Body
    attempts: int = 0
    begun_at: float = 0.0
    """When its latest POST began."""
    under_way: bool = False
    """Whether a sender has it."""
    refusals: int = 0
    """Answers that refuse it without naming a document."""
    confirmed_before: int = 0
    """What the outbox's ``confirmed`` was when it failed first, or was cut out as a suspect."""
    failures_before: int = 0
    """What the outbox's ``failures`` was then."""
    trial: bool = False
    """Whether its latest POST was the half-open breaker's one trial."""
    suspect: bool = False
    """Whether it was cut out of a body that is refused: then it is cut again at the next refusal."""
    blamed: bool = False
    """Whether it is a single document that failed while the API took others."""
    not_before: float = math.inf
    """Until when it waits even if the API is back: as long as that has asked for. Infinite if what it
    waits for isn't the API."""
