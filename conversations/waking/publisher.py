"""Publishes Celery tasks that go by no bell in Redis: probes, the upkeep, and all with another broker.

One connection per process, short timeouts, no retries: whoever publishes must not wait for a broker
that is away.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import redis
import structlog
from amqp.exceptions import AMQPError
from celery import current_app
from kombu import Connection, Producer
from kombu.exceptions import KombuError

from conversations.contracts import Work
from conversations.waking.queues import MAINTENANCE, probe_queue

log = structlog.get_logger(__name__)

# Longest wait, in seconds, for the broker to connect or to answer. Longer: while the broker is
# slow, hints pile up; shorter: a short stall counts as a failure.
PUBLISH_SECONDS = 0.2
# Probes that wait in a queue at most. Larger: more memory while no worker runs; smaller: fewer pauses
# are probed at the same time.
PROBES = 32
# The four timeouts of a connection: the first two names are Redis's, the others RabbitMQ's.
TIMEOUTS = ("socket_timeout", "socket_connect_timeout", "read_timeout", "write_timeout")
# The exceptions of a broker (Redis or RabbitMQ) that does not answer.
AWAY = (redis.RedisError, KombuError, AMQPError, OSError)

_using = threading.Lock()  # a connection serves one thread at a time


def publish(task: str, queue: str, *args: Any, **options: Any) -> None:
    """Publish a task. Raises ``AWAY``.

    By the default exchange: a named one drops messages silently after FLUSHALL.
    """
    with _using:
        try:
            options = {"ignore_result": True, **options}
            current_app.send_task(task, args, producer=_producer(), queue=queue, retry=False, **options)
        except AWAY:
            _close()
            raise


def probe(kind: Work, conversation_ids: Sequence[int]) -> None:
    """Publish a task that tries these lanes although they are paused, unless many wait already."""
    queue = probe_queue(kind)
    if queue_length(queue) < PROBES:
        publish(f"conversations.{kind}", queue, list(conversation_ids), True)


def maintain() -> None:
    """Publish the task of the upkeep, whose result is kept, unless one waits already."""
    if not queue_length(MAINTENANCE):
        publish("conversations.maintain", MAINTENANCE, ignore_result=False)


def queue_length(queue: str) -> int:
    """Return how many tasks wait in a queue. RabbitMQ creates one that is missing. Raises ``AWAY``."""
    with _using:
        try:
            channel: Any = _producer().channel
            arguments = current_app.amqp.queues[queue].queue_arguments
            declared = channel.queue_declare(queue=queue, durable=True, auto_delete=False, arguments=arguments)
            return int(declared.message_count)
        except AWAY:
            _close()
            raise


@functools.cache
def _producer() -> Producer:
    """Return the process's producer, which gives up after ``PUBLISH_SECONDS`` and never retries."""
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


def _close() -> None:
    """Close the connection after an error; the next call connects again."""
    if _producer.cache_info().currsize:
        connection: Any = _producer().connection
        _producer.cache_clear()
        try:
            connection.close()
        except Exception as error:
            log.debug("closing a broken connection", error=type(error).__name__)
