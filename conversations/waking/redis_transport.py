"""Kombu's transport for Redis, changed for hints.

**An item that is no task is dropped.** Kombu would raise, and Celery would end the process.

**No event loop.** Celery takes the next task by a call that waits for it. Its event loop, made for
pools of processes, took six sevenths of the interpreter's time of a process that handles 100 messages
a second.

A task that was taken is deleted from Redis at once: no acknowledgement is kept there
(``ack_emulation`` in the settings). Rows in Postgres are due whoever dies.

It overrides a private name of kombu 5.7.0, ``Channel._brpop_read``. The version is pinned, and
tests/waking/test_redis_transport.py fails when its source changes.
"""

from __future__ import annotations

from queue import Empty
from typing import Any

import structlog
from kombu.transport import redis, virtual

log = structlog.get_logger(__name__)

# What reading raises of an item that is no JSON, or JSON of another shape than a task's.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class QoS(virtual.QoS):
    """The tasks in hand, and how many were taken in all."""

    taken = 0

    def append(self, message: Any, delivery_tag: str) -> None:
        super().append(message, delivery_tag)
        self.taken += 1


class Channel(redis.Channel):
    """Takes tasks."""

    do_restore = False
    dropped = 0  # items that were no tasks

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.QoS: Any = QoS

    def _brpop_read(self, **options: Any) -> Any:
        """Deliver the item that was taken; one that cannot be read is logged without its content.

        An error after it was counted as taken is not the item's, and is raised.
        """
        qos: Any = self.qos
        taken = qos.taken
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except UNREADABLE as error:
            if qos.taken > taken:
                raise
            self.dropped += 1
            log.warning("an item of a queue is no task: dropped", error=type(error).__name__, dropped=self.dropped)
            raise Empty from error


class Transport(redis.Transport):
    """For ``redis://`` and ``rediss://`` (``CELERY_BROKER_TRANSPORT`` in the settings)."""

    Channel = Channel
    implements = redis.Transport.implements.extend(asynchronous=False)
