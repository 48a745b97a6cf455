"""Staff, and wakes that are counted instead of published."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User

from conversations import crypto, database, installation, registry, wake
from conversations.models import Installation
from tests.conftest import Addresses
from tests.desk import scenes


@pytest.fixture(autouse=True)
def _own_database(transactional_db: None, servers: Addresses, settings: Any) -> Iterator[None]:
    """Verbs are transactions of their own; a flushed database has lost the row that its first migrate made."""
    settings.DATABASE_URL = servers.database_url
    values = {
        "identity_key": crypto.seal(secrets.token_hex(32), installation.PLACE),
        "public_url": settings.PUBLIC_URL,
        "credentials_fingerprint": crypto.fingerprint(),
    }
    Installation.objects.get_or_create(id=1, defaults=values)
    forget()
    yield
    forget()


def forget() -> None:
    """What a process remembers of its database."""
    installation.forget()
    registry.forget_channels()
    database._reader.close()


@pytest.fixture
def anna() -> User:
    return scenes.make_staff("anna")


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Every wake, as (kind, ids); the queue itself is not the matter here."""
    calls: list[tuple[str, Any]] = []
    monkeypatch.setattr(wake, "handle", lambda ids, tenant=None: calls.append(("handle", ids)))
    monkeypatch.setattr(wake, "send", lambda ids, tenant=None: calls.append(("send", ids)))
    return calls
