"""The process's client for locks and limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from conversations.lanes.redis_client import REDIS_CONNECTIONS, client


def test_threads_share_a_few_connections_and_none_is_refused() -> None:
    with ThreadPoolExecutor(20) as threads:
        seen = set(threads.map(lambda _: client().client_id(), range(400)))
    assert 1 <= len(seen) <= REDIS_CONNECTIONS
