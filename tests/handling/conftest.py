"""The handler of a process, in the test's own process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from conversations import runtime
from conversations.contracts import Work
from conversations.handling.handler import Handler
from conversations.lanes import lock
from conversations.postgres import committer


@pytest.fixture
def handler(own_database: str) -> Iterator[Handler]:
    writer = committer.Committer("test")
    handler = Handler(writer, lock.Locks(Work.HANDLE, str(uuid.uuid4())), lambda ask: runtime.read(*ask))
    yield handler
    handler.stop(0.0)
    handler.locks.stop()
    writer.stop()
