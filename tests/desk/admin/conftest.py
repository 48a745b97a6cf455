"""Two tenants with one of everything, and the people who may see them."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from conversations.models import (
    App,
    Audit,
    Channel,
    Conversation,
    Media,
    Message,
    Pause,
    Quarantine,
    Reply,
    Template,
    TenantStaff,
    Turn,
    Worker,
)
from tests.kit import desk_scenes, stored_files


@dataclasses.dataclass
class Scene:
    """One of everything of one tenant."""

    app: App
    channel: Channel
    lane: Conversation
    message: Message
    reply: Reply
    quarantine: Quarantine
    pause: Pause
    audit: Audit
    worker: Worker
    template: Template
    file: Media

    def rows(self) -> dict[str, Any]:
        """A row for the page of every list, by the name of its model."""
        return {"conversation": self.lane, "stuckconversation": self.lane, "message": self.message,
                "parkedmessage": self.message, "reply": self.reply, "replyforstaff": self.reply,
                "quarantine": self.quarantine, "contact": self.lane.contact, "channel": self.channel, "app": self.app,
                "pause": self.pause, "tenant": self.channel.tenant, "audit": self.audit,
                "template": self.template}  # fmt: skip


def make_scene(tenant: str, words: str = "words") -> Scene:
    channel = desk_scenes.make_channel(tenant, bot=f"bot of {tenant}", name=f"{words} channel")
    channel.set_credentials({"secret": f"clear-{tenant}"})
    channel.save()
    app = App.objects.create(tenant=channel.tenant, platform="generic", name=f"{words} app")
    app.set_credentials({"secret": f"clear-{tenant}"})
    app.save()
    numbers = {"next_sequence": 1, "last_sequence": 2, "last_reply_sequence": 2}
    lane = desk_scenes.make_lane("", "", channel=channel, name=words, **numbers)
    parked = desk_scenes.make_message(lane, 1, "parked", text=words, note=words, sender={"name": words})
    desk_scenes.make_message(lane, 2, "pending", text=words)
    Conversation.objects.filter(pk=lane.pk).update(blocked=True, next_reply_sequence=1)
    reply = desk_scenes.make_reply(lane, 1, "unknown", body={"text": words}, error=words, message_id=parked.pk)
    body = {"text": words, "choices": [{"id": "1", "title": words}]}
    desk_scenes.make_reply(lane, 2, "parked", body=body, error=words)
    Turn.objects.create(
        conversation=lane, message_id=parked.pk, worker=uuid.uuid4(), outcome="failed", started_at=timezone.now(),
        bot=words, error_type=words, error_place=words, error_text=words,
    )  # fmt: skip
    item = Quarantine.objects.create(channel=channel, reason=words, body=words.encode(), fingerprint=words.encode())
    of = {"scope": "channel", "target": str(channel.pk), "stops": "sending"}
    pause = Pause.objects.create(**of, reason=words, since=timezone.now())
    audit = Audit.objects.create(verb="skip", conversation_id=lane.pk, subject=words, reason=words)
    lane.refresh_from_db()
    worker = Worker.objects.create(incarnation=uuid.uuid4(), kind="handle", host="one")
    file = stored_files.put(channel.pk, conversation_id=lane.pk, reference={"kind": "image", "name": f"{words}.png"})
    return Scene(app, channel, lane, parked, reply, item, pause, audit, worker, make_template(channel, words), file)


def make_template(channel: Channel, words: str) -> Template:
    button = {"kind": "url", "text": words, "leads": words, "takes": True, "must": True}
    shape = {"body": f"*{words}* {{{{1}}}}", "header": words, "footer": words, "media": words, "buttons": [button]}
    now = timezone.now()
    return Template.objects.create(
        channel=channel, account=words, name=words, language=words, status=words, category=words, quality=words,
        shape=shape, fetched_at=now, status_at=now, quality_at=now,
    )  # fmt: skip


@pytest.fixture
def shop() -> Scene:
    return make_scene("Shop")


@pytest.fixture
def chief() -> Client:
    """A superuser's browser."""
    return entered(User.objects.create_superuser("chief"))


@pytest.fixture
def anna_of_shop(anna: User, shop: Scene) -> Client:
    """Anna is an agent of the shop, and nothing else."""
    TenantStaff.objects.create(tenant=shop.channel.tenant, staff=anna)
    return entered(anna)


def entered(person: User) -> Client:
    client = Client()
    client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    return client
