"""/healthz/ says `late` while a message or a reply that should be moving does not, and only then."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from django.utils import timezone

from conversations import registry
from conversations.delivering.limiter import Limiter, Request
from conversations.models import Message, Pause, Reply, Worker
from conversations.operating import health
from tests.kit import desk_scenes, stuck
from tests.kit.lanes import BOTS, Lanes
from tests.kit.shared import shared
from tests.kit.stack import wait_until

OLD_SECONDS = 25


def ago(seconds: float) -> dt.datetime:
    return timezone.now() - dt.timedelta(seconds=seconds)


@pytest.fixture
def _workers(own_database: str) -> None:
    for kind in ("handle", "send", "sweep"):
        Worker.objects.create(incarnation=uuid.uuid4(), kind=kind, beat_at=timezone.now())


def words() -> dict[str, str]:
    return health.in_words({"storing": "ok", "redis": "ok", **health.ask_lanes()})


def make_old(**fields: Any) -> Any:
    """A lane with a message and a reply that should be moving, as the sweeper leaves it when it wakes in vain."""
    fields = {"due_at": ago(-9), "send_due_at": ago(-9), **fields}
    lane = desk_scenes.make_lane("handled pending", "sent pending", **fields)
    Message.objects.filter(conversation=lane).update(received_at=ago(OLD_SECONDS))
    Message.objects.filter(conversation=lane, status="handled").update(settled_at=ago(OLD_SECONDS))
    Reply.objects.filter(conversation=lane).update(created_at=ago(OLD_SECONDS))
    Reply.objects.filter(conversation=lane, status="sent").update(settled_at=ago(OLD_SECONDS))
    return lane


@pytest.mark.usefixtures("_workers")
def test_what_the_sweeper_claims_in_vain_is_late() -> None:
    assert words()["status"] == "ok"
    make_old()
    said = words()
    assert (said["handling"], said["sending"], said["sweeping"], said["status"]) == ("late", "late", "ok", "degraded")


WAITING_FOR_GOOD_REASON: dict[str, Any] = {
    "nothing is due": lambda: make_old(due_at=None, send_due_at=None),
    "the channel is off": lambda: make_old(channel=desk_scenes.make_channel(active=False)),
    "a retry": lambda: retried(make_old(due_at=ago(-200), send_due_at=ago(-200), not_before=ago(-200))),
    "a retry that is near": lambda: retried(make_old(not_before=ago(-5))),
    "behind one that was settled now": lambda: settled_now(make_old()),
    "a pause": lambda: pause(make_old()),
    "the platform's Retry-After": lambda: block(make_old(due_at=None)),
    "a window of the platform's order": lambda: wait_for_order(),
    "a call in flight": lambda: send(make_old(due_at=None)),
}


def retried(lane: Any) -> None:
    Reply.objects.filter(conversation=lane, status="pending").update(not_before=lane.not_before)


def wait_for_order() -> None:
    lane = desk_scenes.make_lane("handled waiting", due_at=ago(-9), wait_until=ago(-9))
    Message.objects.filter(conversation=lane).update(received_at=ago(OLD_SECONDS))


def settled_now(lane: Any) -> None:
    Message.objects.filter(conversation=lane, status="handled").update(settled_at=timezone.now())
    Reply.objects.filter(conversation=lane, status="sent").update(settled_at=timezone.now())


def pause(lane: Any) -> None:
    Pause.objects.create(scope="bot", target=lane.channel.bot, stops="handling", since=timezone.now())
    Pause.objects.create(scope="channel", target=str(lane.channel_id), stops="sending", since=timezone.now())


def block(lane: Any) -> None:
    channel = registry.channel(lane.channel_id)
    assert channel
    Limiter().block(Request(channel=channel, chat=lane.chat, is_group=False, limits=()), "chat", 30.0, "slow down")


def send(lane: Any) -> None:
    sending = {"status": "sending", "claimed_by": uuid.uuid4(), "intent_at": ago(20)}
    Reply.objects.filter(conversation=lane, status="pending").update(**sending)


@pytest.mark.usefixtures("_workers")
@pytest.mark.parametrize("wait", WAITING_FOR_GOOD_REASON.values(), ids=WAITING_FOR_GOOD_REASON.keys())
def test_what_waits_for_good_reason_is_not_late(wait: Any) -> None:
    wait()
    assert words()["status"] == "ok"


@pytest.mark.usefixtures("_workers")
def test_a_retry_whose_time_came_and_a_call_beyond_its_deadline_are_late() -> None:
    lane = make_old(not_before=ago(OLD_SECONDS), send_due_at=ago(-9))
    sending = {"status": "sending", "claimed_by": uuid.uuid4(), "intent_at": ago(33 + OLD_SECONDS)}
    Reply.objects.filter(conversation=lane, status="pending").update(**sending)
    assert (words()["handling"], words()["sending"]) == ("late", "late")


# ---------------------------------------------------------------- real workers with a planted bug


lanes = shared(Lanes, roles="sweep", env=BOTS)


@pytest.mark.slow
@pytest.mark.parametrize("way", stuck.WAYS)
def test_a_worker_that_handles_nothing_is_seen(lanes: Lanes, way: str) -> None:
    """The sweeper runs, and moves the lane's due time on and on; the message is as old as after 25 seconds."""
    with lanes.workers("", EXTRA_APPS=f"tests.bots_app,{stuck.APP}", STUCK=way):
        lane = lanes.say(lanes.channel("obedient_async" if way == "loop-ended" else "obedient"), "u", "hello")
        lanes.stack.query("UPDATE conversation SET due_at = now() WHERE id = %s", lane)
        claimed = "SELECT due_at > now() + interval '4 s' FROM conversation WHERE id = %s"
        wait_until(lambda: lanes.stack.value(claimed, lane), 10, "a claim of the sweeper")
        wait_until(lambda: handling(lanes) == "ok", 5, "no word of an earlier test, which is kept for a second")
        older = "UPDATE message SET received_at = received_at - interval '25 s' WHERE conversation_id = %s"
        lanes.stack.query(older, lane)
        wait_until(lambda: handling(lanes) == "late", 5, "the word")
        assert lanes.messages(lane) == ["pending"]
    lanes.stack.query("UPDATE conversation SET paused_at = now(), due_at = NULL WHERE id = %s", lane)


def handling(lanes: Lanes) -> Any:
    return lanes.stack.http.request("GET", f"http://127.0.0.1:{lanes.stack.ports[0]}/healthz/").json()["handling"]
