"""What is mended in Kombu's transport for Redis."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import current_app
from celery.exceptions import WorkerShutdown
from celery.worker import state
from django.conf import settings
from kombu import Connection, Queue
from kombu.transport import redis

from botproject.local.servers import Servers
from conversations.waking import redis_transport
from conversations.waking.consumer import Consumer
from tests.kit.stack import wait_until

# What redis_transport overrides although it is private, and the source that it was written against.
KNOWN = "c42518699709f2df"


@pytest.fixture
def channel(private_servers: Servers) -> Iterator[Any]:
    """A consumer of two queues."""
    options = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    with Connection(
        private_servers.redis_url, transport=settings.CELERY_BROKER_TRANSPORT, transport_options=options
    ) as connection:
        channel: Any = connection.default_channel
        with connection.Consumer([Queue("one"), Queue("two")], channel=channel, callbacks=[lambda body, message: None]):
            yield channel


def test_what_is_private_in_kombu_is_what_the_transport_was_written_against() -> None:
    """Written against kombu 5.7.0."""
    found = hashlib.sha256(inspect.getsource(redis.Channel._brpop_read).encode()).hexdigest()[:16]
    assert found == KNOWN, (
        "kombu's _brpop_read has changed. Read its new source beside conversations/waking/redis_transport.py, which "
        f"overrides it: is an item that is no task still dropped? If so, write {found} here, and kombu's version into "
        "the docstring of redis_transport.py."
    )


NO_WAKES = [b"\xff\x80", b"{", b"[]", b"7", b'"x"', b"{}", b'{"properties": 1}', b"[" * 100_000,
            b'{"properties": {"delivery_tag": "1"}}', b'{"__type__": "decimal", "__value__": "x"}']  # fmt: skip


def test_what_is_no_task_is_dropped_and_the_next_one_is_taken(channel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(redis_transport, "log", SimpleNamespace(warning=lambda event, **words: said.append(event)))
    connection = channel.connection.client
    with channel.conn_or_acquire() as client:
        client.lpush("one", *NO_WAKES)
    connection.SimpleQueue("one").put("a task behind them")
    while channel.qos.taken < 2:
        connection.drain_events(timeout=5)
    assert channel.dropped == len(NO_WAKES) - 1, "kombu makes a message of the one that has a tag"
    assert said == ["an item of a queue is no task: dropped"] * channel.dropped


def test_an_error_of_whoever_takes_a_task_is_not_the_items(channel: Any) -> None:
    connection = channel.connection.client

    def fail(body: object, message: object) -> None:
        raise ValueError("a fault of ours")

    with connection.Consumer(Queue("three"), channel=channel, callbacks=[fail]):
        connection.SimpleQueue("three").put("a task")
        with pytest.raises(ValueError, match="a fault of ours"):
            connection.drain_events(timeout=5)


def test_nothing_of_a_task_is_kept_in_redis_once_it_is_taken(channel: Any) -> None:
    connection = channel.connection.client
    connection.SimpleQueue("two").put("a task")
    connection.drain_events(timeout=5)
    with channel.conn_or_acquire() as client:
        assert [key for key in client.keys("*") if not key.startswith(b"_kombu.binding")] == []


def test_a_worker_looks_soon_again_for_a_broker_that_is_away(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's waits are 2, 4, 6, ... 30 seconds."""
    consumer = Consumer.__new__(Consumer)  # a whole one would begin a worker's life here
    consumer.app, consumer.first_connection_attempt, consumer.broker_connection_retry_attempt = current_app, False, 0
    nobody = current_app.connection_for_read("redis://127.0.0.1:1/0")
    monkeypatch.setattr(state, "should_stop", None)

    def look() -> None:
        with contextlib.suppress(WorkerShutdown):
            consumer.ensure_connected(nobody)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        wait_until(lambda: len(said(caplog)) >= 3, 10, "it looks again")
    finally:
        state.should_stop = 0
        looking.join()
    assert {words.partition("Trying again ")[2].partition("...")[0] for words in said(caplog)} == {"in 2.00 seconds"}


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "Trying again" in record.getMessage()]
