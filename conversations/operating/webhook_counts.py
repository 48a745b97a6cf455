"""Counts, for each channel, the webhooks that were refused and those that an old secret signed.

A process adds up in memory and sends its sums to Redis when somebody reads the counts or asks for
health: a stranger's requests cost no write each. FLUSHALL begins at zero, as a counter may.
"""

from __future__ import annotations

import collections
import enum
import threading

import redis

from conversations import runtime
from conversations.lanes import redis_client

KEY = "webhook_counts"  # a hash in Redis: channel id and what was counted -> how often


class Counted(enum.StrEnum):
    """What is counted. Only known channels are: strangers cannot make more of them."""

    REFUSED = "refused"  # no signature, or a wrong one
    STALE = "stale"  # a signature, not looked at, with a time that is too far from ours
    PREVIOUS = "previous_secret"  # accepted, signed with the secret that is being replaced


_lock = threading.Lock()


@runtime.kept
def _unsent() -> collections.Counter[str]:
    return collections.Counter()


def count(channel_id: int, what: Counted) -> None:
    """Count one request of a channel."""
    with _lock:
        _unsent()[f"{channel_id}:{what}"] += 1


def send() -> None:
    """Send this process's sums to Redis. Raises ``redis.RedisError``; the sums are kept then."""
    with _lock:
        sums = dict(_unsent())
        _unsent().clear()
    if not sums:
        return
    try:
        with redis_client.client().pipeline() as pipeline:
            for name, number in sums.items():
                pipeline.hincrby(KEY, name, number)
            pipeline.execute()
    except redis.RedisError:
        with _lock:
            _unsent().update(sums)
        raise


def read() -> dict[tuple[str, str], int]:
    """Return the counts of all processes by channel id and name; {} while Redis is away."""
    try:
        send()
        found = redis_client.client().hgetall(KEY)
    except redis.RedisError:
        return {}
    pairs = ((name.decode().split(":", 1), int(number)) for name, number in found.items())  # type: ignore[union-attr]
    return {(channel, what): number for (channel, what), number in pairs}
