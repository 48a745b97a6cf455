"""Kombu's transport for Redis, with one client a channel. Kombu makes a new one for each message that it takes and each
that it acknowledges, and redis-py's takes longer to make than to use (a third of what a wake costs)."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):
    """A client is safe for threads, and holds nothing but its pool."""

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
