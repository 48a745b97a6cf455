"""Warns of channels that lack settings without which they cannot work.

A warning only: one channel that is being set up must not hold up a deploy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import DatabaseError

from channels_ingest import channel_setup
from conversations.models import Channel


@register(Tags.database)
def channels_are_complete(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Find active channels with missing settings. None before the first migrate."""
    try:
        active = list(Channel.objects.filter(active=True).order_by("id")) if databases else []
    except DatabaseError:
        return []
    return [_warning(channel, lacks) for channel in active if (lacks := channel_setup.missing(channel))]


def _warning(channel: Channel, lacks: Sequence[str]) -> CheckMessage:
    hint = " ".join(["manage.py set_channel", channel.public_id, *(f"--set {name}=..." for name in lacks)])
    return Warning(f"channel {channel.name!r} lacks {', '.join(lacks)}", hint=hint, id="channels_ingest.W001")
