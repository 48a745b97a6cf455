"""The names of the queues. Settings read them too, so this imports nothing that needs Django's."""

from __future__ import annotations

from conversations.contracts import Work

# Queues per kind of wake. A tenant's wakes go to one of them, and a consumer serves the queues in turns: with more,
# fewer tenants share a queue, and the sweeper measures the length of more queues in each round.
QUEUES = 16
MAINTENANCE = "maintenance"


def queue_name(kind: str, tenant_id: int) -> str:
    return f"{kind}-{tenant_id % QUEUES}"


def queue_names(kind: str) -> list[str]:
    """All queues that a process of this kind consumes."""
    return [MAINTENANCE] if kind == Work.SWEEP else [f"{kind}-{number}" for number in range(QUEUES)]
