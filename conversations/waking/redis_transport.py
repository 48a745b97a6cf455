"""Kombu's transport for Redis, changed for wakes: hints that may be lost and must not block others.

**A wake that was taken is deleted from Redis.** No acknowledgement is kept there (``ack_emulation``
in the settings): rows in Postgres are due whoever dies, and a wake that is done frees its slot even
while Redis is away.

**A process takes at most ``PLACES`` wakes of one queue.** Kombu takes the next wake from any queue
that has one. A tenant with a backlog would fill all of a process's slots, and another tenant's wake
would wait for one of them.

**One client per channel.** Kombu creates one for each use, which takes longer than the use itself.

**An item that is no wake is dropped.** Kombu would raise, and Celery would end the process.

It overrides private names of kombu 5.7.0: ``Channel._brpop_start``, ``_brpop_read``,
``_create_client``, ``_size``, ``_queue_cycle`` and ``_in_poll``, and calls ``Channel._get`` and
``Transport._deliver``. No public name gives fairness
between tenants. The version is pinned, and tests/waking/test_redis_transport.py fails when the
source of one of them changes.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from queue import Empty
from typing import Any

import structlog
from kombu.transport import redis, virtual
from kombu.utils.scheduling import round_robin_cycle

log = structlog.get_logger(__name__)

# Wakes of one queue that a process has in hand at most. Larger: a tenant's backlog holds more of
# the process's slots. At 1 the next wake waits until the last is done, even where nothing else
# waits.
PLACES = 2
# Timeout of BRPOP, in seconds, while it leaves out queues that have PLACES wakes in hand. Longer:
# fewer round trips, and such a queue waits longer if ``take_next`` missed it.
LOOK_AGAIN_SECONDS = 0.03
# What reading raises of an item that is no JSON, or JSON of another shape than a wake's.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class QoS(virtual.QoS):
    """The wakes in hand. ``in_hand`` counts them by queue. Used by one thread."""

    channel: Channel

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self.in_hand: collections.Counter[str] = collections.Counter()
        self._queues: dict[str, str] = {}  # delivery tag of a wake in hand -> its queue

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a wake that was taken. Raises, with nothing counted, where it names no queue."""
        queue = message.delivery_info["routing_key"]
        super().append(message, delivery_tag)
        self._queues[delivery_tag] = queue
        self.in_hand[queue] += 1

    def ack(self, delivery_tag: str) -> None:
        """Free the slot of a wake that is done."""
        super().ack(delivery_tag)
        self._free_slot(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Free the slot of a wake that was rejected, even if putting it back fails."""
        try:
            super().reject(delivery_tag, requeue)
        finally:
            self.ack(delivery_tag)

    def _free_slot(self, delivery_tag: str) -> None:
        """Count the wake no longer, and take the next one of its queue at once."""
        queue = self._queues.pop(delivery_tag, "")
        self.in_hand[queue] -= 1
        self.channel.take_next(queue)


class Queues(round_robin_cycle):
    """The queues of a channel, round-robin, without those that have ``PLACES`` wakes in hand."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def consume(self, n: int) -> Any:
        """Return the queues that the next BRPOP waits for, in turn."""
        in_hand = self._channel.in_hand
        return [queue for queue in super().consume(n) if in_hand[queue] < PLACES]


class Channel(redis.Channel):
    """Takes wakes. Its one client is thread-safe: it holds nothing but a connection pool."""

    do_restore = False
    connection_errors: tuple[type[Exception], ...]
    _in_poll: Any  # the connection on which BRPOP waits; None: it does not
    _shared_client: Any = None
    dropped = 0  # items that were no wakes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.QoS: Any = QoS
        self._queue_cycle = Queues(self)
        self._skipped: set[str] = set()  # queues that the running BRPOP leaves out
        self._taking = False  # True while ``take_next`` runs

    @property
    def in_hand(self) -> collections.Counter[str]:
        """The number of wakes in hand, by queue."""
        qos: Any = self.qos
        return qos.in_hand

    def take_next(self, queue: str) -> None:
        """Take the next wake of a queue that BRPOP leaves out, as one of its wakes is done.

        Do nothing if no BRPOP runs: then all slots were taken, and every queue has its turn in the
        next one.
        """
        if not self._in_poll or self._taking or queue not in self._skipped or not self._may_take(queue):
            return
        self._taking = True  # a wake that is rejected at once ends up here again
        try:
            # The next BRPOP takes it.
            with contextlib.suppress(Empty, *self.connection_errors), self._dropping_what_is_no_wake():
                wake = self._get(queue)
                self._queue_cycle.rotate(queue)
                self.connection._deliver(wake, queue)
        finally:
            self._taking = False

    def _may_take(self, queue: str) -> bool:
        """Return True if this process consumes the queue and has a slot for a wake."""
        return queue in self.active_queues and self.qos.can_consume()

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Start BRPOP on the queues with a free place; briefly if it leaves some out."""
        waited_for = self._queue_cycle.consume(len(self.active_queues))
        self._skipped = set(self.active_queues).difference(waited_for)
        super()._brpop_start(LOOK_AGAIN_SECONDS if self._skipped else timeout)  # type: ignore[misc]

    def _brpop_read(self, **options: Any) -> Any:
        with self._dropping_what_is_no_wake():
            return super()._brpop_read(**options)  # type: ignore[misc]

    @contextlib.contextmanager
    def _dropping_what_is_no_wake(self) -> Iterator[None]:
        """Drop an item that cannot be read as a wake: log it without its content, raise ``Empty``.

        An error after its slot was taken is not the item's, and is raised.
        """
        in_hand = self.in_hand.total()
        try:
            yield
        except UNREADABLE as error:
            if self.in_hand.total() > in_hand:
                raise
            self.dropped += 1
            log.warning("an item of a queue is no wake: dropped", error=type(error).__name__, dropped=self.dropped)
            raise Empty from error

    def _size(self, queue: str) -> int:
        """Return the queue's length. Kombu would ask for the length of each priority, too."""
        with self.conn_or_acquire() as client:
            return int(client.llen(queue))  # we use one priority only

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Return the channel's one client; a new one if kombu replaced the connection pool."""
        if asynchronous:  # kombu creates it once
            return super()._create_client(asynchronous=True)  # type: ignore[misc]
        if self._shared_client is None or self._shared_client.connection_pool is not self.pool:
            self._shared_client = super()._create_client()  # type: ignore[misc]
        return self._shared_client


class Transport(redis.Transport):
    """For ``redis://`` and ``rediss://`` (``CELERY_BROKER_TRANSPORT`` in the settings)."""

    Channel = Channel
