"""Hints and bells in Redis: which conversations have work, and whether a task is on its way.

    ring(ids) -> hints of each tenant -> bell silent: set it, push one Celery task
    task      -> room in this process -> take a batch of hints, the tenants in turn
                                         hints left: push the next task; none left: silence the bell

Each arrow is one script. While everybody is busy hints gather and batches grow; while somebody is
idle nothing waits. Nothing here is needed: rows in Postgres are due, and the sweeper finds what a
lost hint, bell or task leaves behind. A bell whose task was lost expires.

A script pushes the task only if this Redis is also Celery's broker. With another broker it asks its
caller to publish one.
"""

from __future__ import annotations

import functools
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from celery import current_app
from django.conf import settings

from conversations import processor
from conversations.failpoints import failpoint
from conversations.lanes import redis_client
from conversations.waking import publisher

# Milliseconds after which a bell is silent again by itself. Longer: after a task was lost, a lane
# waits longer for the next hint to ring; shorter: more tasks that find nothing while all are busy.
BELL_MS = 1000
# Tasks of a kind that wait in the broker at most; ring.lua and take.lua count them, too. Larger: more
# tasks that find nothing; smaller: after one was lost, the next is published later.
TASKS = 2
# Most hints of one tenant. Larger: more memory while no worker runs; smaller: more of a backlog
# waits for the sweeper.
HINTS = 1000
# Conversations of a batch at most. Larger: fewer tasks, and the first lane of a batch waits longer for
# the rest; smaller: more tasks.
BATCH = 64
# Conversations of one tenant in a batch while several tenants have hints. Larger: a tenant with a
# backlog keeps others waiting for longer; smaller: its batches, and so its rate, shrink.
SHARE = 16
# Conversations that one call of Redis takes at most. Larger: fewer calls, each of which blocks Redis
# for longer.
IDS_PER_CALL = 500

_ID = "@ID@"  # in the template of a task: where its own id goes


def ring(kind: str, hints: Mapping[int, Sequence[int]]) -> None:
    """Leave hints (by tenant: conversation ids) and ring.

    Raises ``redis.RedisError``, or what the broker raises (``publisher.AWAY``).
    """
    for part in parts(hints):
        _ring(kind, part)


def _ring(kind: str, part: Sequence[int] = ()) -> None:
    keys, task = keys_and_task(kind)
    if redis_client.run_script("ring", keys, [BELL_MS, task, HINTS, *part]):
        publisher.publish(task_name(kind), str(kind), most=TASKS)


def answer(kind: str, has_room: Callable[[], bool], work: Callable[[Sequence[int]], object]) -> None:
    """Answer the bell: take one batch of hints and give their conversations to ``work``.

    Without room in this process, pass the task on and take nothing. Raises as ``ring`` does.
    """
    failpoint("T0")
    many = BATCH if has_room() else 0
    time.sleep(processor.rest_seconds())  # a larger batch costs less; while a processor is idle, nothing rests
    keys, task = keys_and_task(kind)
    answers = redis_client.run_script("take", keys, [BELL_MS, task, many, SHARE])
    assert isinstance(answers, list)
    publishes, *ids = answers
    try:
        if publishes:
            publisher.publish(task_name(kind), str(kind), most=TASKS)
    finally:  # also if that broker is away: nobody else has these hints
        if ids:
            work(ids)


def rooms(kind: str, tenants: Sequence[int]) -> dict[int, int]:
    """Return how many more hints each tenant may leave. Raises as ``ring`` does, also where only
    the broker is away.

    Rings where hints are left: their task may be lost, and perhaps nobody else rings. A tenant that
    may leave none gets its turn again, should that have been lost.
    """
    if not _is_broker():
        publisher.queue_length(str(kind))
    with redis_client.client().pipeline(transaction=False) as pipeline:
        pipeline.exists(_tenants_key(kind))
        for tenant in tenants:
            pipeline.zcard(f"{_tenants_key(kind)}:{tenant}")
        are_left, *held = pipeline.execute()
    full = [tenant for tenant, many in zip(tenants, held, strict=True) if many >= HINTS]
    if are_left or full:
        _ring(kind, [number for tenant in full for number in (tenant, 0)])
    return {tenant: HINTS - many for tenant, many in zip(tenants, held, strict=True)}


def task_name(kind: str) -> str:
    """Return the name of the Celery task that answers the bell of a kind of work."""
    return f"conversations.answer_{kind}"


def parts(hints: Mapping[int, Sequence[int]]) -> Iterable[list[int]]:
    """Yield the arguments of ``ring.lua`` for all hints, ``IDS_PER_CALL`` of them at most."""
    part: list[int] = []
    for tenant, ids in hints.items():
        for start in range(0, len(ids), IDS_PER_CALL):
            some = ids[start : start + IDS_PER_CALL]
            if len(part) + len(some) > IDS_PER_CALL:
                yield part
                part = []
            part += [tenant, len(some), *some]
    yield part


def _is_broker() -> bool:
    return bool(settings.CELERY_BROKER_URL == settings.REDIS_URL)


def _tenants_key(kind: str) -> str:
    return f"{{lanes}}:hints:{kind}"


def keys_and_task(kind: str) -> tuple[list[str], str]:
    """Return the keys of the scripts and, if Redis is the broker, a task as Celery reads it."""
    keys = [f"{{lanes}}:bell:{kind}", _tenants_key(kind)]
    if not _is_broker():
        return keys, ""
    return [*keys, str(kind)], _template(kind).replace(_ID, str(uuid.uuid4()))


@functools.cache
def _template(kind: str) -> str:
    """Return a task without arguments as kombu writes it into a queue in Redis.

    Made once: for each task Celery would look up settings and format the same words. A test compares
    it with what Celery itself publishes.
    """
    message = current_app.amqp.as_task_v2(_ID, task_name(kind), args=(), kwargs={}, ignore_result=True)
    properties = {
        **message.properties,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": str(kind)},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": _ID,
    }
    envelope = {
        "body": b64encode(msgspec.json.encode(message.body)).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": message.headers,
        "properties": properties,
    }
    return msgspec.json.encode(envelope).decode()
