"""The process's connection to Redis, for locks and limits, and the Lua scripts that run there."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from conversations.postgres.sql_files import lua

# Longest wait for an answer of Redis. Longer: a slow Redis is waited for, and every lane with it.
REDIS_SECONDS = 0.5


@functools.cache
def client() -> redis.Redis:
    """Return the process's client for locks and limits: short timeouts and no retries."""
    tls = settings.REDIS_TLS if settings.REDIS_URL.startswith("rediss://") else {}
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=10,
        **tls,
    )


def run_script(name: str, keys: Sequence[str], args: Sequence[str | int | float]) -> list[int] | int:
    """Run ``lua/<name>.lua``; by EVALSHA, and by EVAL if Redis does not know it.

    Raises ``redis.RedisError``.
    """
    return _script(name)(keys=keys, args=args)


@functools.cache
def _script(name: str) -> redis.commands.core.Script:
    return client().register_script(lua(name))
