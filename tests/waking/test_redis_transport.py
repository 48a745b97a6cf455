"""What is mended in Kombu's transport for Redis."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import current_app
from celery.exceptions import WorkerShutdown
from celery.worker import state
from django.conf import settings
from kombu import Connection, Message, Queue
from kombu.transport import redis, virtual
from kombu.utils.scheduling import round_robin_cycle
from redis.exceptions import ConnectionError as RedisAway

from botproject.local.servers import Servers
from conversations.waking import redis_transport
from conversations.waking.consumer import Consumer
from tests.kit.stack import wait_until

PLACES = 3  # of the whole consumer

# What redis_transport overrides or calls although it is private, and the source that it was written against.
PRIVATE = {
    "_brpop_start": (redis.Channel._brpop_start, "06723d707ddf2240"),
    "_brpop_read": (redis.Channel._brpop_read, "c42518699709f2df"),  # sets _in_poll, turns _queue_cycle
    "_create_client": (redis.Channel._create_client, "dae92bc4075dafb9"),
    "_get": (redis.Channel._get, "be26a9f1eb4cf8da"),
    "_size": (redis.Channel._size, "7cc839b42fdc5e3b"),
    "_update_queue_cycle": (redis.Channel._update_queue_cycle, "25de35faeae043a7"),
    "_deliver": (virtual.Transport._deliver, "799e242f3ec53863"),
    "QoS": (virtual.QoS, "f884d8db8d6405e1"),
    "round_robin_cycle": (round_robin_cycle, "99510a5cb38a5090"),
}


@pytest.fixture(autouse=True)
def one_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wakes of a queue in hand."""
    monkeypatch.setattr(redis_transport, "PLACES", 1)


@pytest.fixture
def channel(private_servers: Servers) -> Iterator[Any]:
    """A consumer of three queues, one with a backlog and one with nothing; it has taken what it takes."""
    options = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    with Connection(
        private_servers.redis_url, transport=settings.CELERY_BROKER_TRANSPORT, transport_options=options
    ) as connection:
        channel: Any = connection.default_channel
        for name in ("backlog", "backlog", "backlog", "backlog", "other"):
            connection.SimpleQueue(name).put(f"a wake of {name}")
        channel.basic_qos(0, PLACES, False)
        queues = [Queue("backlog"), Queue("other"), Queue("quiet")]
        with connection.Consumer(queues, channel=channel, callbacks=[lambda body, message: None]):
            with contextlib.suppress(TimeoutError):
                while True:
                    connection.drain_events(timeout=1)
            yield channel


def taken(channel: Any) -> dict[str, str]:
    """Queues of the wakes in hand, by their tag."""
    qos = channel.qos
    return {
        tag: message.delivery_info["routing_key"] for tag, message in qos._delivered.items() if tag not in qos._dirty
    }


@pytest.mark.parametrize("name", PRIVATE)
def test_what_is_private_in_kombu_is_what_the_transport_was_written_against(name: str) -> None:
    """Written against kombu 5.7.0."""
    private, known = PRIVATE[name]
    found = hashlib.sha256(inspect.getsource(private).encode()).hexdigest()[:16]
    assert found == known, (
        f"kombu's {name} has changed. Read its new source beside conversations/waking/redis_transport.py, which "
        f"overrides or calls it: are queues still left out, one client kept, and a freed queue's next wake taken? "
        f"If so, write {found} here, and kombu's version into the docstring of redis_transport.py."
    )


def listen(channel: Any) -> None:
    """As a worker does between two wakes."""
    channel.connection.cycle.on_poll_start()


def test_a_backlog_leaves_places_for_other_queues(channel: Any) -> None:
    assert sorted(taken(channel).values()) == ["backlog", "other"]
    assert channel.qos.can_consume()


def test_when_a_wake_is_done_the_next_of_its_queue_is_taken_at_once(channel: Any) -> None:
    for left in (2, 1, 0):
        listen(channel)
        [tag] = [tag for tag, queue in taken(channel).items() if queue == "backlog"]
        channel.basic_ack(tag)
        assert sorted(taken(channel).values()) == ["backlog", "other"]
        assert tag not in taken(channel)
        assert channel._create_client().llen("backlog") == left
    [tag] = [tag for tag, queue in taken(channel).items() if queue == "backlog"]
    channel.basic_ack(tag)
    assert list(taken(channel).values()) == ["other"]


def test_with_more_backlogs_than_places_all_queues_have_their_turns(private_servers: Servers) -> None:
    names = [f"backlog-{number}" for number in range(2 * PLACES + 1)]
    seen: collections.Counter[str] = collections.Counter()
    with Connection(
        private_servers.redis_url,
        transport=settings.CELERY_BROKER_TRANSPORT,
        transport_options=settings.CELERY_BROKER_TRANSPORT_OPTIONS,
    ) as connection:
        channel: Any = connection.default_channel
        for name in names:
            channel._create_client().delete(name)
            queue = connection.SimpleQueue(name)
            for _ in range(40):
                queue.put("a wake")
        channel.basic_qos(0, PLACES, False)
        queues = [Queue(name) for name in names]
        with connection.Consumer(queues, channel=channel, callbacks=[lambda body, message: None]):
            for _ in range(10 * len(names)):
                while channel.qos.can_consume():
                    connection.drain_events(timeout=5)
                tag, name = next(iter(taken(channel).items()))
                seen[name] += 1
                channel.basic_ack(tag)
    assert set(seen) == set(names)
    assert max(seen.values()) - min(seen.values()) <= 2, seen


def test_wakes_that_are_refused_at_once_do_not_take_each_other(channel: Any) -> None:
    """As Celery does with what it does not know: from within the taking."""
    known: list[Message] = []
    depths: list[int] = []

    def refuse(body: object, message: Message) -> None:
        if not known:
            known.append(message)
            return
        depths.append(len(inspect.stack(0)))
        message.reject()

    connection = channel.connection.client
    channel.basic_qos(0, PLACES + 2, False)  # others are still waited for
    for _ in range(41):
        connection.SimpleQueue("refused").put("unknown")
    with connection.Consumer(Queue("refused"), channel=channel, callbacks=[refuse]):
        while not known:
            connection.drain_events(timeout=5)
        listen(channel)
        known[0].ack()
        assert len(depths) == 1
        while len(depths) < 40:
            connection.drain_events(timeout=5)
    assert max(depths) - min(depths) < 30


def test_a_wake_that_arrives_while_its_queue_is_left_out_is_found_later(channel: Any) -> None:
    listen(channel)
    [tag] = [tag for tag, queue in taken(channel).items() if queue == "other"]
    channel.basic_ack(tag)
    assert list(taken(channel).values()) == ["backlog"]
    connection = channel.connection.client
    connection.SimpleQueue("other", channel=connection.channel()).put("one more")
    connection.drain_events(timeout=5)
    assert sorted(taken(channel).values()) == ["backlog", "other"]


NO_WAKES = [b"\xff\x80", b"{", b"[]", b"7", b'"x"', b"{}", b'{"properties": 1}', b"[" * 100_000,
            b'{"properties": {"delivery_tag": "1"}}', b'{"__type__": "decimal", "__value__": "x"}']  # fmt: skip


def test_what_is_no_wake_is_dropped_and_the_next_wake_is_taken(channel: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Both by BRPOP and, where a backlog is left out, as one of its wakes is done."""
    channel._create_client().lpush("other", *NO_WAKES)
    channel.connection.client.SimpleQueue("other").put("a wake behind them")
    channel._create_client().rpush("backlog", NO_WAKES[0])
    listen(channel)
    for queue in ("backlog", "other"):
        [tag] = [tag for tag, name in taken(channel).items() if name == queue]
        channel.basic_ack(tag)
    while len(taken(channel)) < 2:
        channel.connection.client.drain_events(timeout=5)
    assert sorted(taken(channel).values()) == ["backlog", "other"]
    assert channel.dropped == len(NO_WAKES) + 1
    assert channel.in_hand.total() == 2
    assert "is no wake" in caplog.text


def requeue(channel: Any, tag: str) -> None:
    with contextlib.suppress(RedisAway):
        channel.qos.reject(tag, requeue=True)


@pytest.mark.parametrize(
    "answer",
    [lambda channel, tag: channel.qos.ack(tag), lambda channel, tag: channel.qos.reject(tag), requeue],
    ids=["done", "refused", "given back"],
)
def test_a_wake_gives_its_place_back_whatever_becomes_of_redis(
    private_servers: Servers, channel: Any, answer: Callable[[Any, str], None]
) -> None:
    channel.basic_qos(0, 2, False)
    assert not channel.qos.can_consume()
    private_servers.valkey.stop()
    try:
        for tag in taken(channel):
            answer(channel, tag)
            assert channel.qos.can_consume()
        assert taken(channel) == {}
    finally:
        private_servers.valkey.start()


def test_nothing_of_a_wake_is_kept_in_redis_once_it_is_taken(channel: Any) -> None:
    assert [key for key in channel._create_client().keys("*") if not key.startswith(b"_kombu.binding")] == [b"backlog"]
    assert channel._create_client().llen("backlog") == 3


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
