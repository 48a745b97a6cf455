"""The names of the queues. Settings import this too, so it needs neither Django nor Celery."""

from __future__ import annotations

from conversations.contracts import Work

# Queues per kind of wake. A tenant's wakes all go to one of them, and a consumer serves the queues
# in turns. Larger: fewer tenants share a queue, and the sweeper measures more lengths per round.
QUEUES = 16
# The one queue for the task of the upkeep.
MAINTENANCE = "maintenance"


def queue_name(kind: str, tenant_id: int) -> str:
    """Return the queue for a tenant's wakes: always the same, to keep a backlog in one queue."""
    return f"{kind}-{tenant_id % QUEUES}"


def queue_names(kind: str) -> list[str]:
    """Return all queues that a process of this kind consumes."""
    return [MAINTENANCE] if kind == Work.SWEEP else [f"{kind}-{number}" for number in range(QUEUES)]
