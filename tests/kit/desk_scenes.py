"""Lanes in the states that staff find them in, as short calls."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from conversations.desk import actions
from conversations.models import Channel, Contact, Conversation, Message, Reply, Tenant
from tests.kit.rows import add_lane, add_messages, add_replies

_numbers = itertools.count(1)


def make_staff(name: str = "anna", **fields: Any) -> User:
    return User.objects.create_user(name, is_staff=True, **fields)


def make_channel(tenant: str = "Shop", **fields: Any) -> Channel:
    owner, _ = Tenant.objects.get_or_create(name=tenant)
    defaults = {"platform": "generic", "name": f"{tenant} {next(_numbers)}"}
    return Channel.objects.create(tenant=owner, **{**defaults, **fields})


def make_lane(
    messages: str = "", replies: str = "", *, channel: Channel | None = None, name: str = "Ada", **fields: Any
) -> Conversation:
    """A lane with one message per word of ``messages`` (its status) and one reply per word of ``replies``.

    A reply's word is its status, ``person:`` or ``system:`` before it where the bot did not write it.
    """
    channel = channel or make_channel()
    user = f"u{next(_numbers)}"
    contact = Contact.objects.create(channel=channel, user=user, name=name)
    statuses, words = messages.split(), [word.rpartition(":") for word in replies.split()]
    made = add_lane(_ask, channel.pk, user, contact.pk)
    add_messages(_ask, made, [f"words {n}" for n in range(1, len(statuses) + 1)], statuses, due=False)
    authors = [author or "bot" for author, _, _ in words]
    texts = [f"reply {n}" for n in range(1, len(words) + 1)]
    add_replies(_ask, made, texts, [status for _, _, status in words], authors, due=False)
    Conversation.objects.filter(pk=made).update(**_counters(messages, replies, fields))
    return Conversation.objects.get(pk=made)


def _ask(statement: str, values: Mapping[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall()) if cursor.description else []


def _counters(messages: str, replies: str, fields: dict[str, Any]) -> dict[str, Any]:
    numbered = [status for status in messages.split() if status != "waiting"]
    words = [word.partition(":")[2] or word for word in replies.split()]
    unsettled = [place for place, status in enumerate(words, 1) if status in ("pending", "sending", "unknown")]
    pending = [place for place, status in enumerate(numbered, 1) if status == "pending"]
    counters = {"last_sequence": len(numbered), "next_sequence": pending[0] if pending else len(numbered) + 1,
                "last_reply_sequence": len(words),
                "next_reply_sequence": unsettled[0] if unsettled else len(words) + 1}  # fmt: skip
    return {**counters, **fields}


def make_message(lane: Conversation, sequence: int, status: str = "pending", **fields: Any) -> Message:
    identity = hashlib.blake2b(str(next(_numbers)).encode(), digest_size=16).digest()
    settled = None if status in ("waiting", "pending") else timezone.now()
    values = {"sequence": None if status == "waiting" else sequence, "identity": identity, "content_hash": identity,
              "text": f"words {sequence}", "settled_at": settled}  # fmt: skip
    return Message.objects.create(conversation=lane, status=status, **{**values, **fields})


def make_reply(lane: Conversation, sequence: int, word: str = "pending", **fields: Any) -> Reply:
    author, _, status = word.rpartition(":")
    claimed = "00000000-0000-0000-0000-000000000001" if status == "sending" else None
    values = {"author": author or "bot", "body": {"text": f"reply {sequence}"}, "claimed_by": claimed, **fields}
    return Reply.objects.create(conversation=lane, channel=lane.channel, sequence=sequence, status=status, **values)


def seen(lane: Conversation) -> actions.Seen:
    """What a page that shows ``lane`` now has seen."""
    lane.refresh_from_db()
    numbers = {"next_sequence": lane.next_sequence, "last_sequence": lane.last_sequence}
    return actions.Seen(conversation=lane.pk, epoch=lane.epoch, **numbers)


def messages(lane: Conversation) -> str:
    """Every message's status, in order: what ``make_lane`` took."""
    rows = Message.objects.filter(conversation=lane).order_by("sequence", "id")
    return " ".join(rows.values_list("status", flat=True))


def replies(lane: Conversation) -> str:
    return " ".join(Reply.objects.filter(conversation=lane).order_by("sequence").values_list("status", flat=True))
