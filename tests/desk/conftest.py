"""Staff, and wakes that are counted instead of published."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from conversations.waking import wake
from tests.kit import desk_scenes
from tests.kit.stored_files import in_memory


@pytest.fixture(autouse=True)
def _own_database(own_database: str, settings: Any) -> None:
    """Verbs are transactions of their own, on this worker's database. Files are in memory."""
    settings.STORAGES = in_memory(settings)


@pytest.fixture
def anna() -> User:
    return desk_scenes.make_staff("anna")


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Every wake, as (kind, ids); the queue itself is not the matter here."""
    calls: list[tuple[str, Any]] = []
    monkeypatch.setattr(wake, "handle", lambda ids, tenant=None: calls.append(("handle", ids)))
    monkeypatch.setattr(wake, "send", lambda ids, tenant=None: calls.append(("send", ids)))
    return calls
