"""The only place that publishes a wake: the hint "these conversations have work". Steps wake the
next one through here.

A wake may be lost, repeated or late: rows in Postgres decide, and the sweeper finds what was left
behind. No caller waits for the broker: one thread per process publishes, with short timeouts and a
circuit breaker.

The pattern is adaptive batching with a bounded in-flight per queue:

    put(ids) -> one pending wake per queue collects ids -> publish -> queue in Redis -> Celery
                grows for REST_PER_CPU x the CPU time that      at most WAITING; from ENOUGH_WAITING on
                the last publish of this queue took             the pending wake grows instead

A quiet queue publishes at once. A busy one publishes fewer, larger wakes: consuming a wake costs
about ten times what publishing it does. ``redis_transport`` bounds the other end: a process takes
two wakes of a queue at a time.

A wake never expires. Celery would compare the publisher's clock with the consumer's, and drop every
wake where they differ. The length of a queue is bounded instead.
"""

from __future__ import annotations

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

# Wakes that wait in one queue at most; beyond them nobody publishes, and the sweeper brings the
# rows later. Larger: a burst is consumed without the sweeper's help; smaller: a new wake stands
# behind fewer old ones.
WAITING = 32
# Conversations per wake at most. Larger: fewer tasks, each of which holds one of Celery's threads
# for longer; smaller: more tasks.
IDS = 64
# Longest wait, in seconds, for the broker to connect or to answer. Longer: while the broker is
# slow, hints pile up here; shorter: a short stall counts as a failure.
PUBLISH_SECONDS = 0.2
# Seconds after a failure in which nothing is published and hints are dropped. Longer: less load on
# a sick broker, and more conversations wait for the sweeper; shorter: the reverse.
BREAKER_SECONDS = 1.0
# The four timeouts of a connection: the first two names are Redis's, the others RabbitMQ's.
TIMEOUTS = ("socket_timeout", "socket_connect_timeout", "read_timeout", "write_timeout")
# Hints kept for the publishing thread; further ones are dropped. Larger: a longer stall of the
# broker costs no hint, but memory; smaller: more conversations wait for the sweeper.
HINTS = 10_000

# After a publish the queue's next wake collects ids for this many times the CPU time that
# publishing took: CPU time shows how busy this process is. Larger: fewer, larger wakes under load,
# and a longer wait for each.
REST_PER_CPU = 150
# Longest such rest, in seconds. Longer: fewer wakes under load; shorter: conversations wait less.
LONGEST_REST_SECONDS = 0.05
# With this many unread wakes in a Celery queue, one more would only wait behind them: the pending
# wake stays in this process and collects more ids, until it is full or GROWING_SECONDS old. Larger:
# more small wakes wait in the queue; smaller: the queue may run empty.
ENOUGH_WAITING = 2
# Seconds after which a pending wake is published in any case, unless WAITING wakes wait. Longer:
# larger wakes behind a slow consumer; shorter: more wakes in the queue.
GROWING_SECONDS = 0.2
# Seconds for which a measured queue length is used again. Longer: fewer round trips, and a length
# that is further from the truth; shorter: the reverse.
LENGTH_SECONDS = 0.1
# The same for a length that makes a wake grow. Longer: a queue that has run empty waits longer for
# the next wake; shorter: more round trips.
LOOK_SECONDS = 0.01

# The names of the Celery tasks, by kind of work.
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


class PendingWake:
    """A wake that collects ids, published not before ``at``. Owned by the publishing thread."""

    __slots__ = ("at", "ids", "until")

    def __init__(self, at: float) -> None:
        self.ids: dict[int, None] = {}
        self.at, self.until = at, time.monotonic() + GROWING_SECONDS

    def may_wait(self) -> bool:
        """Return True if it is neither full nor too old to grow further."""
        return len(self.ids) < IDS and time.monotonic() < self.until


class Waker:
    """The thread that publishes wakes. It drops what it cannot: the sweeper finds the rows."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Work, int, Sequence[int]]] = queue.SimpleQueue()
        self._broken_until = 0.0  # monotonic end of the time in which nothing is published
        self._producer: Producer | None = None
        self._lengths: dict[str, tuple[float, int]] = {}  # by queue: monotonic time of the measure; length
        self._pending: dict[tuple[str, Work], PendingWake] = {}  # by queue and kind: not published yet
        self._next_at: dict[str, float] = {}  # by queue: when its next wake may be published
        threading.Thread(target=self._run, name="wake", daemon=True).start()

    def put(self, kind: Work, conversation_ids: Sequence[int], tenant_id: int) -> None:
        """Queue a hint for the publishing thread and return at once; drop it if too many wait."""
        if conversation_ids and self._queue.qsize() < HINTS:
            self._queue.put((kind, tenant_id, conversation_ids))

    def _run(self) -> None:
        """Collect hints, and publish each pending wake when its time has come."""
        while True:
            self._gather()
            now = time.monotonic()
            for (name, kind), pending in list(self._pending.items()):
                if pending.at <= now:
                    self._publish(name, kind, pending)

    def _gather(self) -> None:
        """Wait for a hint or for a pending wake to be due; then add all hints to pending wakes."""
        until = min((pending.at for pending in self._pending.values()), default=None)
        try:
            self._add(*self._queue.get(timeout=None if until is None else max(0.0, until - time.monotonic())))
            while True:
                self._add(*self._queue.get_nowait())
        except queue.Empty:
            pass

    def _add(self, kind: Work, tenant_id: int, conversation_ids: Sequence[int]) -> None:
        """Add a hint's ids to the pending wake of the tenant's queue."""
        name = queue_name(kind, tenant_id)
        pending = self._pending.get((name, kind))
        if pending is None:
            pending = self._pending[name, kind] = PendingWake(self._next_at.get(name, 0.0))
        pending.ids.update(dict.fromkeys(conversation_ids))

    def _publish(self, name: str, kind: Work, pending: PendingWake) -> None:
        """Publish a pending wake, or let it collect more ids while enough wakes wait in the queue.

        While Redis fails it is dropped: the sweeper finds the rows. After a publish the queue's
        next wake rests in proportion to the CPU time spent: the busier the process, the fewer and
        larger its wakes.
        """
        now = time.monotonic()
        if now < self._broken_until:
            del self._pending[name, kind]
            return
        try:
            if pending.may_wait() and WAITING - self.room(name) >= ENOUGH_WAITING:
                measured_at = time.monotonic()
                # Asking for the length may be slow: wait as long as the answer took, so that
                # asking takes half of this thread's time at most.
                pending.at = measured_at + max(LOOK_SECONDS, measured_at - now)
                return
            del self._pending[name, kind]
            cpu_before = time.thread_time()
            self._publish_all(name, kind, list(pending.ids))
            rest = min(REST_PER_CPU * (time.thread_time() - cpu_before), LONGEST_REST_SECONDS)
            self._next_at[name] = time.monotonic() + rest
        except Exception as error:  # whatever the broker answers: the sweeper finds the rows
            self._pending.pop((name, kind), None)
            self._broken_until = time.monotonic() + BREAKER_SECONDS
            self._close()
            log.warning("wake not published", queue=name, error=type(error).__name__)

    def _publish_all(self, name: str, kind: Work, ids: list[int]) -> None:
        """Publish ids in wakes of ``IDS`` each; when the queue is full, drop the rest.

        The sweeper finds the rows of those dropped.
        """
        for start in range(0, len(ids), IDS):
            if self.room(name) <= 0:
                return
            publish(self._open(), name, kind, ids[start : start + IDS])
            self._count(name)

    def room(self, name: str) -> int:
        """Return how many more wakes the queue may take, as last measured (``LENGTH_SECONDS``)."""
        at, length = self._lengths.get(name, (-LENGTH_SECONDS, 0))
        believed = LOOK_SECONDS if ENOUGH_WAITING <= length < WAITING else LENGTH_SECONDS
        if time.monotonic() - at >= believed:
            at, length = time.monotonic(), queue_length(self._open(), name)
            self._lengths[name] = at, length
        return WAITING - length

    def _count(self, name: str) -> None:
        """Add a published wake to the queue's length as last measured."""
        at, length = self._lengths[name]
        self._lengths[name] = (at, length + 1)

    def _open(self) -> Producer:
        """Return the producer; connect if there is none."""
        if self._producer is None:
            self._producer = open_producer()
        return self._producer

    def _close(self) -> None:
        """Close the connection after an error; the next publish connects again."""
        if self._producer is not None:
            connection: Any = self._producer.connection
            self._producer = None
            try:
                connection.close()
            except Exception as error:
                log.debug("closing a broken connection", error=type(error).__name__)


def open_producer() -> Producer:
    """Return a producer that gives up after ``PUBLISH_SECONDS`` and never retries."""
    options = {
        **current_app.conf.broker_transport_options,
        **dict.fromkeys(TIMEOUTS, PUBLISH_SECONDS),
        "retry_on_timeout": False,
        "max_retries": 0,  # else kombu waits 2 s and connects again
    }
    connection = Connection(
        current_app.conf.broker_write_url,
        transport=current_app.conf.broker_transport,
        ssl=current_app.conf.broker_use_ssl,
        connect_timeout=PUBLISH_SECONDS,
        transport_options=options,
    )
    return Producer(connection.default_channel, serializer="json")  # channel() would connect twice


def publish(producer: Producer, name: str, kind: Work, ids: Sequence[int], **options: bool) -> None:
    """Publish one wake to the queue ``name``.

    By the default exchange: a named one drops messages silently after FLUSHALL.
    """
    _publish(producer, name, TASKS[kind], (list(ids),), options, ignored=True)


def maintain(producer: Producer) -> None:
    """Publish the task of the upkeep, whose result is kept, unless one waits already."""
    if not queue_length(producer, MAINTENANCE):
        _publish(producer, MAINTENANCE, TASKS[Work.SWEEP], (), {}, ignored=False)


def _publish(
    producer: Producer, name: str, task: str, args: tuple[Any, ...], kwargs: dict[str, Any], ignored: bool
) -> None:
    """Publish a task as Celery's ``apply_async`` would, from a template (see ``_template``).

    ``ignored``: Celery keeps no result.
    """
    headers, properties, embed = _template(task, ignored)
    id_ = str(uuid.uuid4())
    producer.publish(
        msgspec.json.encode((args, kwargs, embed)).decode(),
        exchange="",
        routing_key=name,
        headers={**headers, "id": id_, "root_id": id_},
        content_type="application/json",
        content_encoding="utf-8",
        retry=False,
        **properties,
        correlation_id=id_,
    )


@functools.cache
def _template(task: str, ignored: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return what all wakes of a task share: headers, properties, the last part of the body.

    Celery makes them, once: for each call it would look up settings and format the ids (940 us a
    wake instead of 275 us). A test compares a wake with Celery's own message, field by field.
    """
    message = current_app.amqp.as_task_v2("", task, args=(), kwargs={}, ignore_result=ignored)
    properties = {name: value for name, value in message.properties.items() if name != "correlation_id"}
    return {**message.headers, "argsrepr": "...", "kwargsrepr": "..."}, properties, message.body[2]


def queue_length(producer: Producer, name: str) -> int:
    """Return how many wakes wait in a queue. RabbitMQ creates a queue that is missing."""
    channel: Any = producer.channel
    arguments = current_app.amqp.queues[name].queue_arguments
    declared = channel.queue_declare(queue=name, durable=True, auto_delete=False, arguments=arguments)
    return int(declared.message_count)
