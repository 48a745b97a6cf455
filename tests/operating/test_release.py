"""A release while the version before it serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from conversations.management.commands import release
from tests.kit.platforms import telegram_text
from tests.kit.stack import ROOT, Stack, every, wait_until

pytestmark = pytest.mark.timeout(150)

MIGRATION = """
from django.db import migrations
class Migration(migrations.Migration):
    dependencies = [("conversations", "0002_rules")]
    operations = [migrations.RunSQL("ALTER TABLE message ADD COLUMN planted int")]
"""


@pytest.fixture
def next_version(tmp_path: Path) -> dict[str, str]:
    """Variables of a version with one migration more, of a table in use."""
    folder = tmp_path / "planted_release" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "0001_first.py").write_text(MIGRATION)
    return {"EXTRA_APPS": "planted_release", "PYTHONPATH": f"{tmp_path}:{ROOT}"}


@pytest.mark.slow
def test_a_release_that_waits_for_a_table_in_use_refuses_no_webhook(next_version: dict[str, str]) -> None:
    """A long read holds the table, the migration waits behind it, and the webhooks behind both: two seconds at most."""
    with Stack(roles="") as stack:
        channel = stack.add_channel("telegram", secret_token="s3cret-Token-0123456789", token="1:a")
        answers: list[int] = []

        def post() -> None:
            answers.append(stack.post(channel, *telegram_text(channel, 1, len(answers) + 1, "hello")))

        with psycopg.connect(stack.servers.database_url) as reading:
            reading.execute("SELECT count(*) FROM message")  # and its transaction goes on
            command = [sys.executable, "manage.py", "release"]
            env = {**stack.env, **next_version}
            releasing = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
            with every(0.02, post):
                wait_until(lambda: waiting(stack) > 0, 30, "the migration waits for its lock")
                wait_until(lambda: waiting(stack) == 0, 30, "it stops waiting")
                wait_until(lambda: waiting(stack) > 0, 30, "it tries again")
                reading.rollback()
                said, _ = releasing.communicate(timeout=60)
        assert releasing.returncode == 0, said
        assert said.count("A table is in use; trying again") >= 1
        assert set(answers) == {200}
        assert stack.value("SELECT count(planted) FROM message") == 0
        assert stack.value("SELECT count(*) FROM message") == len(answers)
        assert release.TRIES * release.PAUSE_SECONDS >= 60


def waiting(stack: Stack) -> int:
    """Migrations that wait for a lock."""
    waits = "wait_event_type = 'Lock' AND query LIKE '%%planted%%'"
    return int(stack.value(f"SELECT count(*) FROM pg_stat_activity WHERE {waits}"))
