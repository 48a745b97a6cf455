"""Celery's consumer of wakes, which looks soon again for a broker that is away.

Celery's own waits grow to half a minute, so that after an outage of minutes a worker would take no wake for as long.
"""

from __future__ import annotations

import functools
from typing import Any

from celery.worker.consumer import Consumer as CelerysConsumer

LOOK_AGAIN_SECONDS = 2.0


class Consumer(CelerysConsumer):
    """See ``CELERY_WORKER_CONSUMER``."""

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = functools.partial(conn.ensure_connection, interval_max=LOOK_AGAIN_SECONDS)
        return super().ensure_connected(conn)
