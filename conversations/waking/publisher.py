"""Publishes Celery tasks that go by no bell in Redis: probes, checkouts, the upkeep; all with another broker.

One connection per process, short timeouts, no retries: whoever publishes must not wait for a broker
that is away.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import redis
import structlog
from amqp.exceptions import AMQPError
from celery import current_app
from kombu import Connection, Producer
from kombu.exceptions import KombuError

from conversations import runtime
from conversations.contracts import Work
from conversations.waking.queues import CHECKOUTS, MAINTENANCE, probe_queue

log = structlog.get_logger(__name__)

# Longest wait, in seconds, for the broker to connect or to answer. Longer: while the broker is
# slow, hints pile up; shorter: a short stall counts as a failure.
PUBLISH_SECONDS = 0.2
# Probes that wait in a queue at most. Larger: more memory while no worker runs; smaller: fewer pauses
# are probed at the same time.
PROBES = 32
# Checkouts that wait in their queue at most. Larger: more memory while no worker runs; smaller: a burst
# of payments fails. One that waits for 10 s is not answered.
WAITING_CHECKOUTS = 200
# The four timeouts of a connection: the first two names are Redis's, the others RabbitMQ's.
TIMEOUTS = ("socket_timeout", "socket_connect_timeout", "read_timeout", "write_timeout")
# The exceptions of a broker (Redis or RabbitMQ) that does not answer.
AWAY = (redis.RedisError, KombuError, AMQPError, OSError)


class Broker:
    """The process's connection to Celery's broker, for one thread at a time."""

    def __init__(self) -> None:
        self._using = threading.Lock()
        self._producer: Producer | None = None

    @contextlib.contextmanager
    def use(self) -> Iterator[Producer]:
        """Connect at the first use, and again after an error. Raises ``AWAY``."""
        with self._using:
            try:
                if self._producer is None:
                    self._producer = _open()
                yield self._producer
            except AWAY:
                broken: Any = self._producer
                self._producer = None
                with contextlib.suppress(Exception):  # whatever it says, the next use connects again
                    broken.connection.close()
                raise


_broker = runtime.kept(Broker)


def publish(task: str, queue: str, *args: Any, most: int, **options: Any) -> bool:
    """Publish a task. Return False if ``most`` wait in its queue already. Raises ``AWAY``.

    By the default exchange: a named one drops messages silently after FLUSHALL.
    """
    with _broker().use() as producer:
        if _length(producer, queue) >= most:
            return False
        options = {"ignore_result": True, **options}
        current_app.send_task(task, args, producer=producer, queue=queue, retry=False, **options)
        return True


def probe(kind: Work, conversation_ids: Sequence[int]) -> None:
    """Publish a task that tries these lanes although they are paused, unless many wait already."""
    publish(f"conversations.{kind}", probe_queue(kind), list(conversation_ids), True, most=PROBES)


def checkout(identity: str, tenant_id: int) -> None:
    """Publish a task that answers a checkout, unless many wait already."""
    if not publish("conversations.checkout", CHECKOUTS, identity, tenant_id, most=WAITING_CHECKOUTS):
        log.error("checkout not answered", tenant=tenant_id, error="too many wait for a worker")


def maintain() -> None:
    """Publish the task of the upkeep, whose result is kept, unless one waits already."""
    publish("conversations.maintain", MAINTENANCE, most=1, ignore_result=False)


def queue_length(queue: str) -> int:
    """Return how many tasks wait in a queue. RabbitMQ creates one that is missing. Raises ``AWAY``."""
    with _broker().use() as producer:
        return _length(producer, queue)


def _length(producer: Producer, queue: str) -> int:
    channel: Any = producer.channel
    arguments = current_app.amqp.queues[queue].queue_arguments
    return int(channel.queue_declare(queue=queue, durable=True, auto_delete=False, arguments=arguments).message_count)


def _open() -> Producer:
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
