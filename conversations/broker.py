"""Kombu's transport for Redis, mended in two places.

**One client a channel.** Kombu makes a new one for each message that it takes and each that it acknowledges, and
redis-py's takes longer to make than to use (a third of what a wake costs).

**A wake that cannot be acknowledged gives its place back.** Kombu keeps the place for ever where Redis is away at that
moment. A worker whose places are all taken then listens to no socket, so it does not hear of the lost connection
either: it would take no wake again until it is started anew.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    """Who has taken how many. What stays in Redis unacknowledged is a hint that has expired when it comes back."""

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except Exception:
            virtual.QoS.ack(self, delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        except Exception:
            virtual.QoS.ack(self, delivery_tag)
            raise


class Channel(redis.Channel):
    """A client is safe for threads, and holds nothing but its pool."""

    QoS = QoS
    _client_of_pool: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # made once by kombu itself
            return super()._create_client(asynchronous=True)  # type: ignore[misc]
        if self._client_of_pool is None or self._client_of_pool.connection_pool is not self.pool:
            self._client_of_pool = super()._create_client()  # type: ignore[misc]
        return self._client_of_pool


class Transport(redis.Transport):
    """For ``redis://`` and ``rediss://``; see ``CELERY_BROKER_TRANSPORT``."""

    Channel = Channel
