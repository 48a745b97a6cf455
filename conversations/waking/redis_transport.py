"""Kombu's transport for Redis, for wakes: hints that may be lost, and must not stand in each other's way.

**Nothing of a wake is kept in Redis once it is taken**, see ``ack_emulation`` in the settings. Rows are due, whoever
dies; and a wake that is done gives its place back, whether or not Redis is there.

**A process has two wakes of a queue in hand.** Kombu takes the next from whichever queue has one, so that a tenant with
a backlog has all places of a process, and another tenant's wake waits until one of them is done.

**One client a channel.** Kombu makes a new one for each use, and redis-py's takes longer to make than to use.
"""

from __future__ import annotations

import collections
import contextlib
from queue import Empty
from typing import Any

from kombu.transport import redis, virtual
from kombu.utils.scheduling import round_robin_cycle

PLACES = 2  # wakes of one queue in hand: with one, the next would wait for the last to be done, also where few come
LOOK_AGAIN_SECONDS = 0.03  # for queues that are left out of what is waited for


class QoS(virtual.QoS):
    """The wakes in hand; ``in_hand`` counts them by queue. For the one thread that takes wakes."""

    channel: Channel

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self.in_hand: collections.Counter[str] = collections.Counter()
        self._queues: dict[str, str] = {}

    def append(self, message: Any, delivery_tag: str) -> None:
        super().append(message, delivery_tag)
        queue = self._queues[delivery_tag] = message.delivery_info["routing_key"]
        self.in_hand[queue] += 1

    def ack(self, delivery_tag: str) -> None:
        super().ack(delivery_tag)
        self._put_down(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        finally:
            self.ack(delivery_tag)

    def _put_down(self, delivery_tag: str) -> None:
        queue = self._queues.pop(delivery_tag, "")
        self.in_hand[queue] -= 1
        self.channel.take_at_once(queue)


class Queues(round_robin_cycle):
    """Those of a channel in turns, without those of which it has enough in hand."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def consume(self, n: int) -> Any:
        in_hand = self._channel.in_hand
        return [queue for queue in super().consume(n) if in_hand[queue] < PLACES]


class Channel(redis.Channel):
    """A client is safe for threads, and holds nothing but its pool."""

    do_restore = False
    connection_errors: tuple[type[Exception], ...]
    _in_poll: Any  # the connection on which queues are waited for
    _client_of_pool: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.QoS: Any = QoS
        self._queue_cycle = Queues(self)
        self._left_out: set[str] = set()  # queues that are not waited for now
        self._taking = False

    @property
    def in_hand(self) -> collections.Counter[str]:
        qos: Any = self.qos
        return qos.in_hand

    def take_at_once(self, queue: str) -> None:
        """The next wake of a queue for which there is a place again, while the others are waited for without it.

        Not where nobody is waited for: all places were taken, and now it is everybody's turn.
        """
        if not self._in_poll or self._taking or queue not in self._left_out or not self._may_take(queue):
            return
        self._taking = True  # one that is refused at once does not take the next from within
        try:
            with contextlib.suppress(Empty, *self.connection_errors):  # the next look finds it
                wake = self._get(queue)
                self._queue_cycle.rotate(queue)
                self.connection._deliver(wake, queue)
        finally:
            self._taking = False

    def _may_take(self, queue: str) -> bool:
        return queue in self.active_queues and self.qos.can_consume()

    def _brpop_start(self, timeout: float | None = None) -> None:
        waited_for = self._queue_cycle.consume(len(self.active_queues))
        self._left_out = set(self.active_queues).difference(waited_for)
        super()._brpop_start(LOOK_AGAIN_SECONDS if self._left_out else timeout)  # type: ignore[misc]

    def _size(self, queue: str) -> int:
        with self.conn_or_acquire() as client:
            return int(client.llen(queue))  # there is one priority

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # made once by kombu itself
            return super()._create_client(asynchronous=True)  # type: ignore[misc]
        if self._client_of_pool is None or self._client_of_pool.connection_pool is not self.pool:
            self._client_of_pool = super()._create_client()  # type: ignore[misc]
        return self._client_of_pool


class Transport(redis.Transport):
    """For ``redis://`` and ``rediss://``; see ``CELERY_BROKER_TRANSPORT``."""

    Channel = Channel
