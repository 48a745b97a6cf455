"""The process's connection to Redis, for locks and limits, and the Lua scripts that run there."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from conversations import runtime
from conversations.postgres.sql_files import lua

# Longest wait for an answer of Redis, in seconds. Longer: while Redis is slow, all lanes wait so
# long; shorter: a short stall already counts as a failure.
REDIS_SECONDS = 0.5
# Most connections of this client. Larger: less waiting between threads, and small Redis plans, which
# allow 20 clients, are full sooner. A script takes well under a millisecond.
REDIS_CONNECTIONS = 2


@runtime.kept
def client() -> redis.Redis:
    """Return the process's client for locks and limits.

    Short timeouts and no retries: without Redis the work goes on, and must not wait for it.
    """
    tls = settings.REDIS_TLS if settings.REDIS_URL.startswith("rediss://") else {}
    pool = redis.BlockingConnectionPool.from_url(
        settings.REDIS_URL,
        max_connections=REDIS_CONNECTIONS,
        timeout=REDIS_SECONDS,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=10,
        **tls,
    )
    return redis.Redis(connection_pool=pool)


def run_script(name: str, keys: Sequence[str], args: Sequence[str | int | float]) -> list[int] | int:
    """Run ``lua/<name>.lua`` and return its answer. Raises ``redis.RedisError``.

    Sent as a hash (EVALSHA); with its text only if Redis does not know the script, as after a
    restart.
    """
    return _script(name)(keys, args, client())


@functools.cache
def _script(name: str) -> Script:
    """Return the script with its hash, computed once; it belongs to no client."""
    return Script(None, lua(name).encode())  # type: ignore[arg-type]
