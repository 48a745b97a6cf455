"""The only place that publishes a hint: "these conversations have work". Steps wake the next one through here.

A wake may be lost, repeated or late: rows in Postgres decide, the sweeper finds what stayed behind.
Nobody waits for Redis: hints are published by one thread per process, with short timeouts and a breaker.
"""

from __future__ import annotations

import datetime as dt
import functools
import queue
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from celery import current_app
from kombu import Connection, Producer

from conversations.contracts import Work
from conversations.waking.queues import MAINTENANCE, queue_name

log = structlog.get_logger(__name__)

WAITING = 32  # wakes in a queue beyond which nobody publishes: the rows are due
IDS = 64  # conversations per wake
EXPIRES_SECONDS = 30
UPKEEP_EXPIRES_SECONDS = 600
PUBLISH_SECONDS = 0.2
BREAKER_SECONDS = 1.0
TIMEOUTS = ("socket_timeout", "socket_connect_timeout", "read_timeout", "write_timeout")  # Redis's words, RabbitMQ's
HINTS = 10_000  # kept while the broker is slow; more are forgotten
# After a wake the next one of its queue grows for so many times as long as publishing it kept the processor busy: alone
# nobody waits, and where a wake costs much here, it costs more where it goes.
RESTS, LONGEST_REST_SECONDS = 150, 0.05
# Where so many wakes wait already, the next one would only stand behind them: it grows here instead, until it is full
# or so old. A queue's measured length is believed for a while; one that says to wait until the next look.
IN_LINE, GROWING_SECONDS = 2, 0.2
LENGTH_SECONDS, LOOK_SECONDS = 0.1, 0.01

TASKS = {Work.HANDLE: "conversations.handle", Work.SEND: "conversations.send", Work.SWEEP: "conversations.maintain"}


def handle(conversation_ids: Sequence[int], tenant_id: int) -> None:
    """Hint that these conversations have messages to handle."""
    _waker().put(Work.HANDLE, conversation_ids, tenant_id)


def send(conversation_ids: Sequence[int], tenant_id: int) -> None:
    """Hint that these conversations have replies to deliver."""
    _waker().put(Work.SEND, conversation_ids, tenant_id)


@functools.cache
def _waker() -> Waker:
    return Waker()


class Growing:
    """A wake that is not published yet; not before ``at``."""

    __slots__ = ("at", "ids", "until")

    def __init__(self, at: float) -> None:
        self.ids: dict[int, None] = {}
        self.at, self.until = at, time.monotonic() + GROWING_SECONDS

    def may_wait(self) -> bool:
        return len(self.ids) < IDS and time.monotonic() < self.until


class Waker:
    """One thread that publishes; what it cannot publish it forgets."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Work, int, Sequence[int]]] = queue.SimpleQueue()
        self._broken_until = 0.0
        self._producer: Producer | None = None
        self._lengths: dict[str, tuple[float, int]] = {}
        self._growing: dict[tuple[str, Work], Growing] = {}
        self._next_at: dict[str, float] = {}  # by queue
        threading.Thread(target=self._run, name="wake", daemon=True).start()

    def put(self, kind: Work, conversation_ids: Sequence[int], tenant_id: int) -> None:
        if conversation_ids and self._queue.qsize() < HINTS:
            self._queue.put((kind, tenant_id, conversation_ids))

    def _run(self) -> None:
        while True:
            self._gather()
            now = time.monotonic()
            for (name, kind), growing in list(self._growing.items()):
                if growing.at <= now:
                    self._publish(name, kind, growing)

    def _gather(self) -> None:
        """All that is there, per queue, each conversation once; waits for something, or until a wake may go."""
        until = min((growing.at for growing in self._growing.values()), default=None)
        try:
            self._grow(*self._queue.get(timeout=None if until is None else max(0.0, until - time.monotonic())))
            while True:
                self._grow(*self._queue.get_nowait())
        except queue.Empty:
            pass

    def _grow(self, kind: Work, tenant_id: int, conversation_ids: Sequence[int]) -> None:
        name = queue_name(kind, tenant_id)
        growing = self._growing.get((name, kind))
        if growing is None:
            growing = self._growing[name, kind] = Growing(self._next_at.get(name, 0.0))
        growing.ids.update(dict.fromkeys(conversation_ids))

    def _publish(self, name: str, kind: Work, growing: Growing) -> None:
        """What cannot be published is forgotten; what would only wait in line grows."""
        now = time.monotonic()
        if now < self._broken_until:
            del self._growing[name, kind]
            return
        try:
            if growing.may_wait() and WAITING - self.room(name) >= IN_LINE:
                looked = time.monotonic()
                growing.at = looked + max(LOOK_SECONDS, looked - now)  # looking takes half of the time, at most
                return
            del self._growing[name, kind]
            began = time.thread_time()
            self._publish_all(name, kind, list(growing.ids))
            rest = min(RESTS * (time.thread_time() - began), LONGEST_REST_SECONDS)
            self._next_at[name] = time.monotonic() + rest
        except Exception as error:  # whatever the broker says: the sweeper brings it
            self._growing.pop((name, kind), None)
            self._broken_until = time.monotonic() + BREAKER_SECONDS
            self._close()
            log.warning("wake not published", queue=name, error=type(error).__name__)

    def _publish_all(self, name: str, kind: Work, ids: list[int]) -> None:
        for start in range(0, len(ids), IDS):
            if self.room(name) <= 0:
                return
            publish(self._open(), name, kind, ids[start : start + IDS])
            self._count(name)

    def room(self, name: str) -> int:
        """How many more wakes ``name`` may take."""
        at, length = self._lengths.get(name, (-LENGTH_SECONDS, 0))
        believed = LOOK_SECONDS if IN_LINE <= length < WAITING else LENGTH_SECONDS
        if time.monotonic() - at >= believed:
            at, length = time.monotonic(), queue_length(self._open(), name)
            self._lengths[name] = at, length
        return WAITING - length

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


def publish(producer: Producer, name: str, kind: Work, ids: Sequence[int], **options: bool) -> None:
    """One wake, to a queue by its name: a named exchange drops in silence after FLUSHALL."""
    _publish(producer, name, TASKS[kind], (list(ids),), options, EXPIRES_SECONDS, ignored=True)


def maintain(producer: Producer) -> None:
    """Ask for upkeep; its result is kept."""
    _publish(producer, MAINTENANCE, TASKS[Work.SWEEP], (), {}, UPKEEP_EXPIRES_SECONDS, ignored=False)


def _publish(
    producer: Producer, name: str, task: str, args: tuple[Any, ...], kwargs: dict[str, Any], seconds: int, ignored: bool
) -> None:
    headers, properties, embed = _form(task, ignored)
    id_ = str(uuid.uuid4())
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    producer.publish(
        msgspec.json.encode((args, kwargs, embed)).decode(),
        exchange="",
        routing_key=name,
        headers={**headers, "id": id_, "root_id": id_, "expires": expires.isoformat()},
        content_type="application/json",
        content_encoding="utf-8",
        retry=False,
        **properties,
        correlation_id=id_,
    )


@functools.cache
def _form(task: str, ignored: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What all wakes of a task have in common, as Celery writes it: headers, properties, the end of the body.

    Made once: Celery would look up its settings and write the ids out in words for each.
    """
    message = current_app.amqp.as_task_v2("", task, args=(), kwargs={}, ignore_result=ignored)
    properties = {name: value for name, value in message.properties.items() if name != "correlation_id"}
    return {**message.headers, "argsrepr": "...", "kwargsrepr": "..."}, properties, message.body[2]


def queue_length(producer: Producer, name: str) -> int:
    """Wakes that wait in ``name``; 0 for a queue that is not there, which is made (RabbitMQ)."""
    channel: Any = producer.channel
    arguments = current_app.amqp.queues[name].queue_arguments
    declared = channel.queue_declare(queue=name, durable=True, auto_delete=False, arguments=arguments)
    return int(declared.message_count)
