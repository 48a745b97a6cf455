"""Functions, triggers and partitions (sql/schema.sql), and the installation's one key.

``sql/schema.sql`` belongs to this migration: after the first release a change is a migration of its own.
"""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.db import migrations

from conversations import crypto
from conversations.postgres.sql_files import sql


def make_installation(apps: Any, schema_editor: Any) -> None:
    """The identity key is made once and never changed: another would re-open de-duplication."""
    apps.get_model("conversations", "Installation").objects.get_or_create(
        id=1,
        defaults={
            "identity_key": crypto.seal(secrets.token_hex(32), "installation"),
            "public_url": settings.PUBLIC_URL,
            "credentials_fingerprint": crypto.fingerprint(),
        },
    )


class Migration(migrations.Migration):
    safe_because = "before the first release no table is in use"
    dependencies = [("conversations", "0001_initial")]
    operations = [
        migrations.RunSQL(sql("schema"), migrations.RunSQL.noop),
        migrations.RunPython(make_installation, migrations.RunPython.noop),
    ]
