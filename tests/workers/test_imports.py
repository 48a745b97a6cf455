"""Workers have no pages: what only pages need is not in their memory."""

from __future__ import annotations

import signal

import pytest

from tests.kit import imported
from tests.kit.doubles import Double
from tests.kit.platforms import GENERIC_SECRET, generic_text
from tests.kit.shared import working
from tests.kit.stack import wait_until

ROLES = ("handle", "send", "sweep")
ONLY_PAGES = ("conversations.desk", "channels_ingest.webchat", "django.contrib.admin", "rest_framework")


@pytest.mark.slow
def test_no_worker_imports_what_only_pages_need() -> None:
    """All of them, after they handled a message and delivered its reply."""
    with Double() as double, working(env={"EXTRA_APPS": imported.APP}, forks=False) as stack:
        channel = stack.add_channel("generic", secret=GENERIC_SECRET, outbound_url=f"{double.url}/out")
        assert stack.post(channel, *generic_text(channel, "ann", "m1", "hello")) == 200
        wait_until(lambda: [line["text"] for line in double.accepted()] == ["hello"], 30, "the reply")
        for role in ROLES:
            stack.kill(role, signal.SIGTERM)
        for role in ROLES:
            path = imported.written(stack.folder, role)
            wait_until(path.exists, 30, f"what {role} imported")
            names = path.read_text().split()
            assert "conversations.workers.lifecycle" in names
            assert [name for name in names if name.startswith(ONLY_PAGES)] == []
