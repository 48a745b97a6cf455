"""Files in memory, and wakes that are listed instead of published."""

from __future__ import annotations

from typing import Any

import pytest

from conversations.waking import wake
from tests.kit.stored_files import in_memory


@pytest.fixture
def woken(own_database: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The channels whose files were asked for."""
    settings.STORAGES = in_memory(settings)
    channels: list[int] = []
    monkeypatch.setattr(wake, "handle", lambda ids, tenant=None: None)
    monkeypatch.setattr(wake, "fetch", lambda ids, tenant=None: channels.extend(ids))
    return channels
