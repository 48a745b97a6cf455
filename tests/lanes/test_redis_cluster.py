"""On a Redis Cluster a script may touch one hash slot only: all its keys share a tag."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.test import override_settings

from botproject.local.places import remove_room
from botproject.local.processes import free_port
from botproject.local.valkey import Valkey
from conversations import runtime
from conversations.contracts import ChannelConfig, Limit, Work
from conversations.delivering import limiter
from conversations.delivering.limiter import Limiter, Request
from conversations.lanes import lock, redis_client
from conversations.postgres.sql_files import LUA
from conversations.waking import doorbell
from tests.kit.stack import wait_until


class ClusterNode(Valkey):
    """A cluster of one node, which has all slots and refuses a script across two of them."""

    def _write_configuration(self) -> Path:
        path = super()._write_configuration()
        with path.open("a") as file:
            file.write(f"cluster-enabled yes\ncluster-port {free_port()}\n")
        return path

    def answers(self) -> bool:
        try:
            with self._client() as client:
                return client.config_get("dir") == {"dir": str(self.data)}
        except redis.RedisError:
            return False

    def take_all_slots(self) -> None:
        with self._client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: client.cluster("INFO")["cluster_state"] == "ok", 20, "the cluster is complete")


@pytest.fixture
def client(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """The process's own client of such a cluster."""
    node = ClusterNode(tmp_path)
    node.start()
    try:
        node.take_all_slots()
        settings.REDIS_URL = node.url
        for name in ("read", "execute"):
            monkeypatch.setattr(limiter.runtime, name, lambda *_: [])
        runtime.begin()
        yield redis_client.client()
    finally:
        runtime.begin()
        node.kill()
        remove_room(tmp_path / Valkey.name)


def locks_of(kind: str, token: str) -> lock.Locks:
    """Without the thread that would renew them."""
    locks = lock.Locks(kind, token)
    locks.stop()
    return locks


def send(chat: str, *, is_group: bool = False) -> Request:
    channel = ChannelConfig(id=int(chat) % 3, public_id="p", platform="telegram", tenant_id=1)
    limits = tuple(Limit(bucket=bucket, count=100, seconds=1) for bucket in limiter.BUCKETS)
    return Request(channel=channel, chat=chat, is_group=is_group, limits=limits)


def test_the_cluster_refuses_keys_of_two_slots(client: redis.Redis) -> None:
    client.eval("return 1", 2, "{lanes}:a", "{lanes}:b")
    with pytest.raises(redis.ResponseError, match=r"(?i)same slot"):
        client.eval("return 1", 2, "a", "b")


def test_every_script_runs_on_a_cluster(client: redis.Redis) -> None:
    lanes = list(range(1, 200))
    for kind in (Work.HANDLE, Work.SEND):
        locks = locks_of(kind, "me")
        assert locks.hold(lanes) == lanes
        locks._renew()
        assert locks.running() == lanes
        assert locks_of(kind, "another").hold(lanes) == []
        assert locks.release(lanes) == lanes, "word was left"
        lock.free(kind, "me", lanes)
        assert locks_of(kind, "another").hold(lanes) == lanes
    senders = Limiter()
    many = [send(str(chat), is_group=chat % 2 == 0) for chat in range(1, 50)]
    senders.admit(many)
    senders.block(many[0], "chat", 3.0, "wait")
    assert senders._away_until == 0.0, "Redis refused"
    with override_settings(CELERY_BROKER_URL="amqp://elsewhere"):  # Celery itself cannot use a cluster
        keys, task = doorbell.keys_and_task(Work.HANDLE)
    assert redis_client.run_script("ring", keys, [doorbell.BELL_MS, task, doorbell.HINTS, 5, 2, 7, 8]) == 1
    assert redis_client.run_script("take", keys, [doorbell.BELL_MS, task, 1, 1]) == [1, 7]
    known = client.script_exists(*(hashlib.sha1(text.encode()).hexdigest() for text in LUA.values()))
    assert all(known), [name for name, ran in zip(LUA, known, strict=True) if not ran]
