"""Checks what is stored of channels, and what the web processes need of the system.

What is missing in a channel is a warning only: one channel that is being set up must not hold up a deploy.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence
from typing import Any

from cryptography.fernet import InvalidToken
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError

from channels_ingest import channel_setup
from channels_ingest.formats.signatures import WHSEC, can_sign
from channels_ingest.webhooks import body_limits
from conversations.models import Channel

# Threads of a web process besides those of its connections, its main process included. Larger:
# fewer connections fit. Smaller: the last thread of a full process may be refused.
OTHER_THREADS = 40


@register(Tags.database)
def channels_are_complete(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Find active channels with missing settings."""
    active = (channel for channel in _stored(databases) if channel.active)
    return [_warning(channel, lacks) for channel in active if (lacks := channel_setup.missing(channel))]


@register(Tags.database)
def keys_can_sign(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Find stored ``whsec_`` secrets that sign nothing: what they signed until now would be answered 401."""
    return [error for channel in _stored(databases) for error in _key_errors(channel)]


@register(Tags.security, deploy=True)
def threads_suffice(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that a web process may have a thread for each connection.

    Where the system refuses one, the process ends: a stranger could end it again and again.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)  # -1: no limit
    needed = int(os.environ.get("WEB_CONCURRENCY") or 1) * (body_limits.CONNECTIONS + OTHER_THREADS)
    text = f"the web processes take up to {needed} threads, of {most} that `ulimit -u` allows: lower WEB_CONNECTIONS"
    return [Error(text, hint="see docs/deploy.md", id="channels_ingest.E101")] if 0 <= most < needed else []


def _stored(databases: Sequence[str] | None) -> list[Channel]:
    """Return all channels; none before the first migrate."""
    try:
        return list(Channel.objects.order_by("id")) if databases else []
    except DatabaseError:
        return []


def _key_errors(channel: Channel) -> Iterator[CheckMessage]:
    """Yield an error for each. None where CREDENTIALS_KEYS do not open them, or are no keys."""
    with contextlib.suppress(InvalidToken, RuntimeError, ValueError):
        for name, value in channel.open_credentials().items():
            if value.startswith(WHSEC) and not can_sign(value):
                hint = f"manage.py set_channel {channel.public_id} --set {name}=... (an empty value removes it)"
                text = f"channel {channel.name!r}: {name} signs and verifies nothing: not base64 of 16 bytes or more"
                yield Error(text, hint=hint, id="channels_ingest.E001")


def _warning(channel: Channel, lacks: Sequence[str]) -> CheckMessage:
    hint = " ".join(["manage.py set_channel", channel.public_id, *(f"--set {name}=..." for name in lacks)])
    return Warning(f"channel {channel.name!r} lacks {', '.join(lacks)}", hint=hint, id="channels_ingest.W001")
