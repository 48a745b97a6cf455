"""What is mended in Kombu's transport for Redis."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from celery import current_app
from celery.exceptions import WorkerShutdown
from celery.worker import state
from django.conf import settings
from kombu import Connection, Queue
from kombu.transport.virtual import Channel
from redis.exceptions import ConnectionError as RedisAway

from botproject.local.servers import Servers
from conversations.consumer import Consumer
from tests.stack import wait_until

PLACES = 2


@pytest.fixture
def channel(private_servers: Servers) -> Iterator[Channel]:
    """A consumer that has taken as many messages as it may."""
    with Connection(private_servers.redis_url, transport=settings.CELERY_BROKER_TRANSPORT) as connection:
        channel = connection.default_channel
        for _ in range(PLACES + 1):
            connection.SimpleQueue("q").put("a wake")
        channel.basic_qos(0, PLACES, False)
        with connection.Consumer(Queue("q"), channel=channel, callbacks=[lambda body, message: None]):
            while channel.qos.can_consume():
                connection.drain_events(timeout=5)
            yield channel


def taken(channel: Channel) -> list[str]:
    return list(channel.qos._delivered)


@pytest.mark.parametrize("answer", ["ack", "reject"])
def test_a_wake_that_cannot_be_acknowledged_gives_its_place_back(
    private_servers: Servers, channel: Channel, answer: str
) -> None:
    assert not channel.qos.can_consume()
    private_servers.valkey.stop()
    for left, tag in enumerate(taken(channel), 1):
        with pytest.raises(RedisAway):
            getattr(channel.qos, answer)(tag)
        assert channel.qos.can_consume(), f"{left} of {PLACES} places"
    assert len(channel.qos._delivered) - len(channel.qos._dirty) == 0
    private_servers.valkey.start()


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


def test_one_that_can_be_is_gone_from_redis_and_gives_its_place_back_once(channel: Channel) -> None:
    for tag in taken(channel):
        channel.basic_ack(tag)
    assert channel.client.hlen(channel.unacked_key) == 0
    assert len(channel.qos._delivered) - len(channel.qos._dirty) == 0
