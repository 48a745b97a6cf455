"""The only place that publishes a hint: "these conversations have work". Steps wake the next one through here.

A wake may be lost, repeated or late: rows in Postgres decide, the sweeper finds what stayed behind.
Nobody waits for Redis: hints are published by one thread per process, with short timeouts and a breaker.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import structlog
from celery import current_app
from kombu import Connection, Producer

log = structlog.get_logger(__name__)

QUEUES = 16  # per kind; a tenant's wakes go to one of them, a consumer serves them in turns
WAITING = 32  # wakes in a queue beyond which nobody publishes: the rows are due
IDS = 64  # conversations per wake
EXPIRES_SECONDS = 30
UPKEEP_EXPIRES_SECONDS = 600
PUBLISH_SECONDS = 0.2
BREAKER_SECONDS = 1.0
TIMEOUTS = ("socket_timeout", "socket_connect_timeout", "read_timeout", "write_timeout")  # Redis's words, RabbitMQ's
HINTS = 10_000  # kept while the broker is slow; more are forgotten
LENGTH_SECONDS = 0.1  # how long a queue's measured length is believed
# After a wake, so long until the next, per id that it carried: alone nobody waits, and under load wakes grow.
SPACING_SECONDS, LONGEST_SPACING_SECONDS = 0.002, 0.03
# Where so many wakes wait already, the next one would only stand behind them: it grows here instead, until it is full
# or so old.
IN_LINE, GROWING_SECONDS, LOOK_SECONDS = 2, 0.2, 0.01

HANDLE, SEND, MAINTENANCE = "handle", "send", "maintenance"
TASKS = {HANDLE: "conversations.handle", SEND: "conversations.send", MAINTENANCE: "conversations.maintain"}


def handle(conversation_ids: Sequence[int], tenant_id: int) -> None:
    """Hint that these conversations have messages to handle."""
    _waker().put(HANDLE, conversation_ids, tenant_id)


def send(conversation_ids: Sequence[int], tenant_id: int) -> None:
    """Hint that these conversations have replies to deliver."""
    _waker().put(SEND, conversation_ids, tenant_id)


def queue_name(kind: str, tenant_id: int) -> str:
    return f"{kind}-{tenant_id % QUEUES}"


def queue_names(kind: str) -> list[str]:
    return [f"{kind}-{number}" for number in range(QUEUES)]


@functools.cache
def _waker() -> Waker:
    return Waker()


class Growing:
    """A wake that is not published yet."""

    __slots__ = ("ids", "until")

    def __init__(self) -> None:
        self.ids: dict[int, None] = {}
        self.until = time.monotonic() + GROWING_SECONDS

    def may_wait(self) -> bool:
        return len(self.ids) < IDS and time.monotonic() < self.until


class Waker:
    """One thread that publishes; what it cannot publish it forgets."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[str, int, Sequence[int]]] = queue.SimpleQueue()
        self._broken_until = 0.0
        self._producer: Producer | None = None
        self._lengths: dict[str, tuple[float, int]] = {}
        self._growing: dict[tuple[str, str], Growing] = {}
        threading.Thread(target=self._run, name="wake", daemon=True).start()

    def put(self, kind: str, conversation_ids: Sequence[int], tenant_id: int) -> None:
        if conversation_ids and self._queue.qsize() < HINTS:
            self._queue.put((kind, tenant_id, conversation_ids))

    def _run(self) -> None:
        while True:
            self._gather()
            published = sum(self._publish(*each) for each in list(self._growing))
            time.sleep(min(SPACING_SECONDS * published, LONGEST_SPACING_SECONDS) if published else LOOK_SECONDS)

    def _gather(self) -> None:
        """All that is there, per queue, each conversation once."""
        if not self._growing:
            self._grow(*self._queue.get())
        while not self._queue.empty():
            self._grow(*self._queue.get())

    def _grow(self, kind: str, tenant_id: int, conversation_ids: Sequence[int]) -> None:
        growing = self._growing.setdefault((queue_name(kind, tenant_id), kind), Growing())
        growing.ids.update(dict.fromkeys(conversation_ids))

    def _publish(self, name: str, kind: str) -> int:
        """How many ids were published. What cannot be is forgotten; what would only wait in line grows."""
        growing = self._growing[name, kind]
        if time.monotonic() < self._broken_until:
            del self._growing[name, kind]
            return 0
        try:
            if growing.may_wait() and WAITING - self.room(name) >= IN_LINE:
                return 0
            del self._growing[name, kind]
            return self._publish_all(name, kind, list(growing.ids))
        except Exception as error:  # whatever the broker says: the sweeper brings it
            self._growing.pop((name, kind), None)
            self._broken_until = time.monotonic() + BREAKER_SECONDS
            self._close()
            log.warning("wake not published", queue=name, error=type(error).__name__)
            return 0

    def _publish_all(self, name: str, kind: str, ids: list[int]) -> int:
        for start in range(0, len(ids), IDS):
            if self.room(name) <= 0:
                return start
            publish(self._open(), name, kind, ids[start : start + IDS])
            self._count(name)
        return len(ids)

    def room(self, name: str) -> int:
        """How many more wakes ``name`` may take."""
        measured = self._lengths.get(name)
        if measured is None or time.monotonic() - measured[0] > LENGTH_SECONDS:
            measured = (time.monotonic(), queue_length(self._open(), name))
            self._lengths[name] = measured
        return WAITING - measured[1]

    def _count(self, name: str) -> None:
        at, length = self._lengths[name]
        self._lengths[name] = (at, length + 1)

    def _open(self) -> Producer:
        if self._producer is None:
            self._producer = open_producer()
        return self._producer

    def _close(self) -> None:
        if self._producer is not None:
            connection: Any = self._producer.connection
            self._producer = None
            try:
                connection.close()
            except Exception as error:
                log.debug("closing a broken connection", error=type(error).__name__)


def open_producer() -> Producer:
    """A producer that gives up after ``PUBLISH_SECONDS`` and never retries."""
    options = {
        **current_app.conf.broker_transport_options,
        **dict.fromkeys(TIMEOUTS, PUBLISH_SECONDS),
        "retry_on_timeout": False,
        "max_retries": 0,  # kombu connects again after 2 s by itself
    }
    connection = Connection(
        current_app.conf.broker_write_url,
        transport=current_app.conf.broker_transport,
        ssl=current_app.conf.broker_use_ssl,
        connect_timeout=PUBLISH_SECONDS,
        transport_options=options,
    )
    return Producer(connection.default_channel, serializer="json")  # channel() would try twice


def publish(producer: Producer, name: str, kind: str, ids: Sequence[int], **options: bool) -> None:
    """One wake, to a queue by its name: a named exchange drops in silence after FLUSHALL."""
    _publish(
        producer, name, TASKS[kind], args=(list(ids),), kwargs=options, expires=EXPIRES_SECONDS, ignore_result=True
    )


def maintain(producer: Producer) -> None:
    """Ask for upkeep; its result is kept."""
    _publish(producer, MAINTENANCE, TASKS[MAINTENANCE], args=(), expires=UPKEEP_EXPIRES_SECONDS, ignore_result=False)


def _publish(producer: Producer, name: str, task: str, **fields: Any) -> None:
    message = current_app.amqp.as_task_v2(str(uuid.uuid4()), task, **fields)
    producer.publish(
        message.body, exchange="", routing_key=name, headers=message.headers, retry=False, **message.properties
    )


def queue_length(producer: Producer, name: str) -> int:
    """Wakes that wait in ``name``; 0 for a queue that is not there, which is made (RabbitMQ)."""
    channel: Any = producer.channel
    arguments = current_app.amqp.queues[name].queue_arguments
    declared = channel.queue_declare(queue=name, durable=True, auto_delete=False, arguments=arguments)
    return int(declared.message_count)
