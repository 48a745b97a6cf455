"""The names of the queues. Settings import this too, so it needs neither Django nor Celery."""

from __future__ import annotations

from conversations.contracts import Work

# Queues per kind of wake. A tenant's wakes go to one of them, and a consumer serves the queues in
# turns. With more queues fewer tenants share one, and the sweeper measures more lengths per round.
QUEUES = 16
MAINTENANCE = "maintenance"


def queue_name(kind: str, tenant_id: int) -> str:
    return f"{kind}-{tenant_id % QUEUES}"


def queue_names(kind: str) -> list[str]:
    """All queues that a process of this kind consumes."""
    return [MAINTENANCE] if kind == Work.SWEEP else [f"{kind}-{number}" for number in range(QUEUES)]
