"""/metrics/ is for those with the token, and says how far behind we are."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from conversations import runtime
from conversations.lanes import redis_client
from conversations.models import Message, Turn
from conversations.operating import webhook_counts
from tests.kit import desk_scenes


@pytest.fixture(autouse=True)
def _token(settings: Any) -> None:
    settings.METRICS_TOKEN = "t0ken"


def get(authorization: str = "Bearer t0ken") -> Any:
    return Client().get("/metrics/", headers={"Authorization": authorization})


def test_without_a_token_there_is_no_page(settings: Any) -> None:
    settings.METRICS_TOKEN = ""
    assert get("Bearer ").status_code == 404


@pytest.mark.parametrize("wrong", ["", "Bearer x", "Bearer é", "t0ken"])
def test_with_a_wrong_token_it_is_401(wrong: str) -> None:
    assert get(wrong).status_code == 401


def test_says_how_far_behind_we_are(own_database: str) -> None:
    lane = desk_scenes.make_lane(messages="pending", due_at=timezone.now())
    Message.objects.filter(conversation=lane).update(received_at=timezone.now() - dt.timedelta(seconds=90))
    text = get().content.decode()
    assert "conversations_database_up 1.0" in text
    assert 'conversations_workers{kind="handle"} 0.0' in text
    (line,) = [line for line in text.splitlines() if line.startswith("conversations_oldest_due_seconds")]
    assert 85 < float(line.split()[1]) < 120


def test_counts_of_all_processes_are_added_up_by_channel(own_database: str) -> None:
    redis_client.client().delete(webhook_counts.KEY)
    for _ in range(2):  # another process, or this one at the next look
        webhook_counts.count(7, webhook_counts.Counted.REFUSED)
        text = get().content.decode()
    assert 'conversations_webhooks_total{channel="7",what="refused"} 2.0' in text


def test_counts_wait_for_redis(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    redis_client.client().delete(webhook_counts.KEY)
    webhook_counts.count(7, webhook_counts.Counted.STALE)
    with monkeypatch.context() as patch:
        patch.setattr(redis_client, "client", lambda: redis.Redis(port=1))
        assert "conversations_webhooks_total{" not in get().content.decode()
    assert 'conversations_webhooks_total{channel="7",what="stale"} 1.0' in get().content.decode()


def test_says_where_the_time_of_the_newest_messages_went(own_database: str) -> None:
    lane = desk_scenes.make_lane()
    now = timezone.now()
    at = [now - dt.timedelta(seconds=seconds) for seconds in range(31)]
    first = desk_scenes.make_message(lane, 1, "handled", received_at=at[30])
    second = desk_scenes.make_message(lane, 2, "handled", received_at=at[28])
    took_turn(first, at[27], at[26])  # 3 s for a worker, 1 s of the bot
    took_turn(second, at[25], at[22])  # 2 s behind the first, 1 s for a worker, 3 s of the bot
    desk_scenes.make_reply(lane, 1, "sent", created_at=at[26], intent_at=at[20], settled_at=at[19], attempts=1)
    desk_scenes.make_reply(lane, 2, "sent", created_at=at[22], intent_at=at[17], settled_at=at[12], attempts=1)
    said = parts(get().content.decode())
    assert said == {"lane": 1.0, "worker": 2.0, "bot": 2.0, "sender": 4.0, "platform": 3.0}
    assert Client().get("/healthz/").json()["part_seconds"] == said


def test_a_reply_that_waits_counts_with_its_wait_so_far_and_one_behind_it_does_not(own_database: str) -> None:
    lane = desk_scenes.make_lane()
    at = timezone.now() - dt.timedelta(seconds=100)
    desk_scenes.make_reply(lane, 1, "pending", created_at=at)
    desk_scenes.make_reply(lane, 2, "pending", created_at=at - dt.timedelta(seconds=100))
    said = parts(get().content.decode())
    assert list(said) == ["sender"]
    assert 100 <= said["sender"] < 130


def took_turn(message: Message, began: dt.datetime, ended: dt.datetime) -> None:
    Turn.objects.create(
        conversation_id=message.conversation_id, message_id=message.pk, worker=uuid.uuid4(), outcome="committed",
        started_at=began, ended_at=ended,
    )  # fmt: skip


def parts(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line.startswith("conversations_part_seconds{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def test_with_the_database_away_it_says_so(own_database: str, settings: Any) -> None:
    settings.DATABASE_URL = "postgresql://nobody@127.0.0.1:1/none"
    runtime.begin()
    assert "conversations_database_up 0.0" in get().content.decode()
