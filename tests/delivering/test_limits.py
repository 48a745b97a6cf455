"""The platforms' limits, measured where they count: at the double, in sliding windows, across two senders."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis

from botproject.local.servers import Servers
from conversations import runtime
from conversations.contracts import ChannelConfig, Limit
from conversations.delivering import limiter
from conversations.delivering.limiter import Limiter, Request, limits_of
from conversations.lanes import redis_client
from tests.kit.doubles import Double
from tests.kit.entries import make_channel
from tests.kit.replies import Scene
from tests.kit.stack import Stack, every, wait_until

pytestmark = [pytest.mark.xdist_group("limits"), pytest.mark.timeout(400)]

JITTER = 0.1  # of a window: between a call's start here and its arrival there, on a busy machine


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(roles="send,sweep") as stack:
        stack.start_workers("send")
        wait_until(lambda: len(stack.pids("send")) == 2, 40, "two senders")
        yield stack


def most(times: Sequence[float], seconds: float) -> int:
    """The fullest window of ``seconds``."""
    ordered = sorted(times)
    return max((sum(1 for at in ordered if start <= at < start + seconds) for start in ordered), default=0)


def seen(double: Double, chat: str | None = None) -> list[float]:
    return [line["t_ns"] / 1e9 for line in double.calls() if chat in (None, line["chat"])]


# ---------------------------------------------------------------- at the platform


@pytest.mark.slow
def test_two_senders_keep_a_channel_and_its_chats_within_limits_while_redis_is_flushed(scene: Scene) -> None:
    channel = scene.telegram(limits="channel:20/1s,chat:1/1s,group:1000/1s")
    for n in range(40):
        scene.say(channel, 100 + n, "one", "two")
    with every(0.7, scene.stack.flush_redis) as flushes:
        scene.settled(channel, seconds=60)
    assert len(flushes) >= 3
    times = seen(scene.double)
    assert len(times) == 80
    assert max(times) - min(times) >= 80 / 20 - 1
    assert most(times, 1 - JITTER) <= 2 * 20  # a process that stands still for a second squeezes two windows into one
    assert all(most(seen(scene.double, str(100 + n)), 1 - JITTER) == 1 for n in range(40))
    assert all(scene.shown(100 + n) == ["one", "two"] for n in range(40))


@pytest.mark.slow
def test_without_redis_senders_share_the_rate_and_afterwards_too(scene: Scene) -> None:
    channel = scene.telegram(limits="channel:20/1s,chat:1/1s,group:1000/1s")
    scene.stack.query("UPDATE channel SET active = false WHERE id = %s", channel.id)
    for n in range(50):
        scene.say(channel, 200 + n, "one")
    scene.stack.query("UPDATE channel SET active = true WHERE id = %s", channel.id)
    wait_until(lambda: len(seen(scene.double)) >= 10, 20, "it began")
    scene.stack.servers.valkey.stop()
    try:
        before = len(seen(scene.double))
        wait_until(lambda: len(seen(scene.double)) >= before + 15, 40, "deliveries go on without Redis")
    finally:
        scene.stack.servers.valkey.start()
    scene.settled(channel, seconds=60)
    assert most(seen(scene.double), 1 - JITTER) <= 2 * 20
    assert len(scene.double.accepted()) == 50


def test_a_wait_of_the_platform_is_shared_by_two_senders_and_kept_over_flushall(scene: Scene) -> None:
    channel = scene.telegram(limits="channel:1000/1s,chat:100/1s,group:1000/1s")
    scene.double.script({"do": "429", "retry_after": 5, "chat": "-300"})
    lanes = [scene.say(channel, -300, "first")]
    wait_until(lambda: len(seen(scene.double)) == 1, 20, "the platform said wait")
    told = seen(scene.double)[0]
    for n in range(6):  # other people's lanes in the same chat
        rows = scene.stack.query(
            """INSERT INTO conversation (channel_id, chat, "user", is_group, last_reply_sequence, send_due_at)
               VALUES (%s, '-300', %s, true, 1, now()) RETURNING id""",
            channel.id, f"u{n}",
        )  # fmt: skip
        lanes.append(rows[0][0])
        scene.stack.query(
            "INSERT INTO reply (conversation_id, channel_id, sequence, author, body) VALUES (%s, %s, 1, 'bot', %s)",
            rows[0][0], channel.id, f'{{"text": "u{n}"}}',
        )  # fmt: skip
    with every(0.5, scene.stack.flush_redis):
        scene.settled(channel, seconds=40)
    later = [at - told for at in seen(scene.double)[1:]]
    assert min(later) >= 4.9, later
    assert {attempts for lane in lanes for attempts in scene.replies(lane, "attempts")} == {1}
    assert len(scene.double.accepted()) == 7


def test_a_wait_since_a_send_that_only_the_lane_knows_of_ends(scene: Scene) -> None:
    """Redis lost the bucket, and whoever sent last is gone: what the lane says grows older while its reply waits."""
    channel = scene.telegram(limits="channel:1000/1s,chat:1/3s,group:1000/1s")
    lane = scene.say(channel, 400)
    scene.stack.query("UPDATE conversation SET last_sent_at = now() WHERE id = %s", lane)
    scene.say(channel, 400, "one")
    scene.settled(channel, seconds=20)
    assert scene.shown(400) == ["one"]


# ---------------------------------------------------------------- the limiter alone


@pytest.fixture
def alone(private_servers: Servers, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """Limiters of this process, on a Redis of their own; nothing is blocked."""
    settings.REDIS_URL = private_servers.redis_url
    monkeypatch.setattr(limiter.runtime, "read", lambda *_: [])
    runtime.begin()
    yield private_servers
    runtime.begin()


def request(bucket: str, count: int, seconds: float, *, chat: str = "1", ago: float | None = None) -> Request:
    channel = ChannelConfig(id=1, public_id="p", platform="telegram", tenant_id=1)
    limit = Limit(bucket=bucket, count=count, seconds=seconds)
    return Request(channel=channel, chat=chat, is_group=bucket == "group", limits=(limit,), seconds_ago=ago)


def admitted(limiters: Sequence[Limiter], asking: Request, seconds: float) -> list[float]:
    """Each limiter asks again and again as a sender does; when each was admitted."""
    times: list[float] = []
    end = time.monotonic() + seconds

    def ask(one: Limiter) -> None:
        while time.monotonic() < end:
            wait = one.admit([asking])[0]
            if wait <= 0:
                times.append(time.monotonic())
            time.sleep(min(max(wait, 0.001), max(end - time.monotonic(), 0)))

    threads = [threading.Thread(target=ask, args=(one,)) for one in limiters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def flush(servers: Servers) -> None:
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushall()


def test_a_bucket_that_is_lost_again_and_again_is_waited_for_once(alone: Servers) -> None:
    with every(0.3, lambda: flush(alone)):
        times = admitted([Limiter()], request("group", 4, 4.0), 5)
    assert 3 <= len(times) <= 6
    assert most(times, 4.0) <= 4


def test_no_burst_after_a_loss_also_where_another_process_sent_last(alone: Servers) -> None:
    idle, busy = Limiter(), Limiter()
    asking = request("channel", 40, 1.0)
    admitted([idle], asking, 0.2)
    with every(1.2, lambda: flush(alone)) as flushes:
        times = admitted([busy], asking, 1.0)
        while not flushes:
            time.sleep(0.001)
        times += admitted([idle, busy], asking, 2.5)
    assert most(times, 1.0) <= 40


def test_without_redis_each_sender_takes_its_share_evenly_also_the_second_time(alone: Servers) -> None:
    senders = [Limiter(lambda: 2), Limiter(lambda: 2)]
    asking = request("channel", 20, 1.0)
    times = admitted(senders, asking, 1.0)
    for _ in range(2):
        alone.valkey.stop()
        times += admitted(senders, asking, 1.2)
        alone.valkey.start()
        times += admitted(senders, asking, 1.2)
    assert len(times) > 40
    assert most(times, 1.0 - JITTER) <= 20


def test_those_that_wait_for_one_bucket_are_told_apart(alone: Servers) -> None:
    one = Limiter()
    asking = [request("channel", 10, 1.0) for _ in range(30)]
    for down in (False, True):
        if down:
            alone.valkey.stop()
        waits = one.admit(asking)
        waiting = [wait for wait in waits if wait > 0]
        assert len(set(waiting)) == len(waiting)
        assert max(waiting) > 2


def test_words_that_say_no_limit_hold_up_nobody() -> None:
    default = (Limit(bucket="chat", count=1, seconds=1),)
    assert limits_of("channel:1234567/1s", default) == default
    assert limits_of("chat:0/1s", default) == default
    assert limits_of("off", default) == ()


def test_redis_is_told_no_chat_and_a_wait_is_known_by_its_chat_in_postgres(own_database: str, settings: Any) -> None:
    settings.REDIS_URL = os.environ["REDIS_URL"]
    runtime.begin()
    phone, limits = "490171234567", tuple(Limit(bucket=name, count=10, seconds=60) for name in limiter.BUCKETS)
    channel = make_channel()
    asking = Request(channel=channel, chat=phone, is_group=True, limits=limits)
    Limiter().admit([asking])
    Limiter().block(asking, "group", 30.0, "Too Many Requests")
    keys = [key.decode() for key in redis_client.client().scan_iter(f"{{lanes}}:limit:{channel.id}*")]
    assert len(keys) == 3
    assert not [key for key in keys if phone in key]
    assert runtime.read("SELECT key FROM bucket") == [(f"group:{phone}",)]
    assert 25 < Limiter().blocked(asking) <= 30, "another sender learns it from Postgres"
    runtime.begin()
