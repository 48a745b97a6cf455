"""Celery's consumer, which reconnects to a broker within two seconds of its return.

Celery's own delay grows to half a minute: after an outage a worker would take no wake meanwhile.
"""

from __future__ import annotations

import functools
from typing import Any

from celery.worker.consumer import Consumer as CelerysConsumer

# Longest delay between attempts to connect. Longer: later wakes, less load on a sick broker.
RECONNECT_SECONDS = 2.0


class Consumer(CelerysConsumer):
    """The consumer of our workers (``CELERY_WORKER_CONSUMER`` in the settings)."""

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = functools.partial(conn.ensure_connection, interval_max=RECONNECT_SECONDS)
        return super().ensure_connected(conn)
