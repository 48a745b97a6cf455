"""Files of people in the database and in a storage."""

from __future__ import annotations

import io
import uuid
from typing import Any

from conversations import runtime
from conversations.media import files
from conversations.media.fetching import Claimed
from conversations.media.files import Kept
from conversations.models import Media
from conversations.postgres.sql_files import sql

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
OGG = b"OggS\x00\x02" + bytes(22) + b"\x01\x13OpusHead\x01\x01" + bytes(40)


def in_memory(settings: Any) -> dict[str, Any]:
    """The storages of a test, without a folder."""
    return {**settings.STORAGES, "media": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}


def put(channel_id: int, content: bytes = PNG, **fields: Any) -> Media:
    """A file that was fetched."""
    values = {"id": uuid.uuid4(), "status": "stored", "content_type": "image/png", "size": len(content), **fields}
    row = Media.objects.create(channel_id=channel_id, **values)
    files.keep(Kept(row.pk, channel_id, row.attempts), io.BytesIO(content))
    return row


def claim(*channel_ids: int) -> list[Claimed]:
    """One file of each channel, as a process claims it."""
    values = {"channels": list(channel_ids), "all_in": 10, "seconds": 60.0}
    return [Claimed(*row) for row in runtime.execute(sql("claim_files"), values)]


def content(row: Media) -> bytes:
    with files.open_kept(Kept(row.pk, row.channel_id, row.attempts)) as file:
        return bytes(file.read())
