"""leekfanout: Leek's agent, rebuilt. Celery events in, Leek documents out, nothing lost.

The way of an event, file by file: ``sources`` (messages in, acks back), ``events`` (Celery event to
Leek document), ``batcher`` (bounds and closing), ``outbox`` and ``sender`` (the POSTs), ``outcome``
(what an answer means), ``ledger`` (which delivery tags may be acked). ``subscription`` joins them in
a process of its own, and ``supervisor`` forks one such process per subscription.
"""

from leekfanout.version import VERSION

__all__ = ["VERSION"]
