"""A file as WhatsApp's JSON, in a message and in a template's header. Pure."""

from __future__ import annotations

from typing import Any

from channels_ingest.adapters.base import Unsendable
from conversations.contracts import Attachment


def media_object(media: Attachment, kind: str) -> dict[str, Any]:
    """Return a file by its id at WhatsApp, or by its link. Raises ``Unsendable`` without both."""
    if not media.file_id and not media.url:
        raise Unsendable("media has neither file id nor URL")
    source = {"id": media.file_id} if media.file_id else {"link": media.url}
    return {**source, **({"filename": media.name} if kind == "document" and media.name else {})}


def location_object(place: Attachment) -> dict[str, str]:
    """Return a place; its name may be left out."""
    named = {"name": place.name} if place.name else {}
    return {"latitude": str(place.latitude), "longitude": str(place.longitude), **named}
