"""The core's own connections on this worker's database."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from conversations import crypto, database, health, installation, intake, registry
from conversations.models import Installation
from tests.conftest import Addresses


@pytest.fixture
def own_database(transactional_db: None, servers: Addresses, settings: Any) -> Iterator[str]:
    """A flushed database has lost the row that its first migrate made."""
    settings.DATABASE_URL = servers.database_url
    Installation.objects.get_or_create(
        id=1,
        defaults={
            "identity_key": crypto.seal(secrets.token_hex(32), installation.PLACE),
            "public_url": settings.PUBLIC_URL,
            "credentials_fingerprint": crypto.fingerprint(),
        },
    )
    forget()
    yield settings.DATABASE_URL
    forget()


def forget() -> None:
    """What a process remembers of its database."""
    if intake.writer.cache_info().currsize:
        intake.writer().stop(timeout=0.5)
    intake.writer.cache_clear()
    database.read_through(database._reader.read)
    installation.forget()
    registry.forget_channels()
    database._reader.close()
    for look in (health._storing, health._redis, health._lanes):
        look._asked_at = float("-inf")
