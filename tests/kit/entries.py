"""Entries stored as the webhook view stores them, and the lanes that come of it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from conversations import registry, runtime
from conversations.contracts import ChannelConfig, Entry, Kind, Parsed, Sender, WebhookRequest
from conversations.models import Channel, Tenant
from conversations.storing import intake

_numbers = itertools.count(1)


def make_channel(platform: str = "generic", tenant_name: str = "Shop", **options: Any) -> ChannelConfig:
    tenant, _ = Tenant.objects.get_or_create(name=tenant_name)
    row = Channel.objects.create(tenant=tenant, platform=platform, name=f"c{next(_numbers)}", options=options)
    config = registry.channel(row.pk)
    assert config is not None
    return config


def new_user() -> str:
    return f"u{next(_numbers)}"


def entry(user: str, text: str, *, key: str = "", sender: dict[str, Any] | None = None, **fields: Any) -> Entry:
    """A message of ``user`` in the chat of the same name; the same ``text`` again is the same message."""
    values = {"kind": Kind.MESSAGE, "chat": user, "starts_turn": True, **fields}
    return Entry(text=text, key=key or f"m:{user}:{text}", sender=Sender(**{"user": user, **(sender or {})}), **values)


def accept(channel: ChannelConfig, *parsed: Parsed, body: bytes = b"the body") -> None:
    request = WebhookRequest(method="POST", url="https://x", headers={"user-agent": "test"}, query={}, body=body)
    intake.accept(channel, parsed, request)


@dataclasses.dataclass(frozen=True)
class Told:
    """One message of a lane as it is stored."""

    sequence: int | None
    text: str
    status: str
    late: bool
    note: str


def told(user: str) -> list[Told]:
    """All of a person's messages, numbered ones first, in order."""
    rows = runtime.read("""SELECT m.sequence, m.text, m.status, m.late, m.note
             FROM message m JOIN conversation c ON c.id = m.conversation_id
            WHERE c.chat = %(user)s ORDER BY m.sequence NULLS LAST, m.id""", {"user": user})  # fmt: skip
    return [Told(*row) for row in rows]


def texts(user: str) -> list[str]:
    """What has a number, in order; a hole is ``-``."""
    return [message.text or "-" for message in told(user) if message.sequence is not None]


def numbers(user: str) -> list[int | None]:
    return [message.sequence for message in told(user) if message.sequence is not None]


def lane(user: str, *columns: str) -> Any:
    """Columns of a person's one lane."""
    rows = runtime.read(f"SELECT {', '.join(columns)} FROM conversation WHERE chat = %(user)s", {"user": user})
    assert len(rows) == 1
    return rows[0] if len(columns) > 1 else rows[0][0]


def later(user: str, seconds: float) -> None:
    """Time goes by for what waits in the lane: windows and gaps began ``seconds`` earlier."""
    values = {"user": user, "ago": f"{seconds} s"}
    runtime.execute(
        """UPDATE message m
              SET release_at = release_at - %(ago)s::interval, received_at = received_at - %(ago)s::interval
             FROM conversation c WHERE c.id = m.conversation_id AND c.chat = %(user)s AND m.status = 'waiting'""",
        values,
    )
    runtime.execute("UPDATE conversation SET gap_since = gap_since - %(ago)s::interval WHERE chat = %(user)s", values)


def release(user: str) -> int:
    """What the holder of the lane and the sweeper's wake do; how many got their number."""
    release = "SELECT release_waiting(id) FROM conversation WHERE chat = %(user)s"
    rows: Sequence[Any] = runtime.execute(release, {"user": user})
    return int(rows[0][0])
