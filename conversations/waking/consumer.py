"""Celery's consumer, which reconnects to a broker within two seconds of its return.

Celery's own delay grows to half a minute: after an outage a worker would take no wake meanwhile.
"""

from __future__ import annotations

import functools
from typing import Any

from celery.worker.consumer import Consumer as CelerysConsumer

# Longest delay between two attempts to connect, in seconds. Longer: less load on a sick broker;
# shorter: wakes are taken sooner after an outage.
RECONNECT_SECONDS = 2.0


class Consumer(CelerysConsumer):
    """The consumer of our workers (``CELERY_WORKER_CONSUMER`` in the settings)."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect as Celery does, with delays of at most ``RECONNECT_SECONDS``."""
        conn.ensure_connection = functools.partial(conn.ensure_connection, interval_max=RECONNECT_SECONDS)
        return super().ensure_connected(conn)
