"""What takes messages in while some are remembered from a connection that was lost."""

from leekfanout.delivery.batcher import Batcher
from leekfanout.delivery.ledger import Ledger
from leekfanout.status.stats import Stats


class Recogniser:
    """An inbox that doesn't take a message for new which is in a batch already; the main thread's."""

    def __init__(self, batcher: Batcher, ledger: Ledger, stats: Stats) -> None:
        self._batcher = batcher
        self._ledger = ledger
        self._stats = stats
        self.unusable = batcher.unusable

    def message(self, delivery_tag: int, body: bytes, content_type: str | None) -> None:
        """Take a message that may have come before."""
        if self._ledger.recognise(body):
            self._stats.add("redeliveries_recognised")
            self._batcher.recognised(delivery_tag, body)
        else:
            self._batcher.message(delivery_tag, body, content_type)
