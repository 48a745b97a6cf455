"""Staff, and wakes that are counted instead of published."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from conversations import crypto, database, installation, registry, wake
from conversations.models import Installation
from tests.conftest import Addresses
from tests.desk import scenes

# Rows that belong to the database itself, not to a test.
KEPT = {"django_migrations", "django_content_type", "auth_permission", "installation"}


@pytest.fixture
def transactional_db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Real commits, and afterwards what was written is deleted: far quicker than truncating 40 tables."""
    with django_db_blocker.unblock():
        yield
        delete_rows()


@pytest.fixture(autouse=True)
def _own_database(transactional_db: None, servers: Addresses, settings: Any) -> Iterator[None]:
    """Verbs are transactions of their own, on this worker's database."""
    settings.DATABASE_URL = servers.database_url
    values = {
        "identity_key": crypto.seal(secrets.token_hex(32), installation.PLACE),
        "public_url": settings.PUBLIC_URL,
        "credentials_fingerprint": crypto.fingerprint(),
    }
    Installation.objects.update_or_create(id=1, defaults=values)
    forget()
    yield
    forget()


def delete_rows() -> None:
    """As a replica does it: neither foreign keys nor the audit's rules are asked."""
    tables = [name for name in connection.introspection.table_names() if name not in KEPT]
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        for table in tables:
            cursor.execute(f'DELETE FROM "{table}"')
        cursor.execute("RESET session_replication_role")


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
