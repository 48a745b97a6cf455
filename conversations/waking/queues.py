"""The names of the queues. Settings import this too, so it needs neither Django nor Celery."""

from __future__ import annotations

from conversations.contracts import Work

# The one queue for the task of the upkeep.
MAINTENANCE = "maintenance"
# The queue for checkouts, which must not wait behind hints that find no room.
CHECKOUTS = "checkouts"
# Queues per kind in releases before the doorbell. Workers serve them for one release more: the
# processes of the old release still publish there while a new one is rolled out.
OLD_QUEUES = 16
# The queue, and the kind of work, of the task that fetches files. Its hints are ids of channels, and
# sending processes serve it: they call platforms anyhow.
FETCH = "fetch"


def probe_queue(kind: Work) -> str:
    """Return the queue of the tasks that try lanes of something paused."""
    return f"{kind}-probes"


def queue_names(kind: Work) -> list[str]:
    """Return all queues that a process of this kind consumes. The first has the tasks of its bell."""
    if kind == Work.SWEEP:
        return [MAINTENANCE]
    own = [str(kind), probe_queue(kind), *([CHECKOUTS] if kind == Work.HANDLE else [FETCH])]
    return [*own, *(f"{kind}-{number}" for number in range(OLD_QUEUES))]
