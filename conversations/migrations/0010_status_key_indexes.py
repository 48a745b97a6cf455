"""Finds statuses by the key of their reply, and replies of unknown outcome by their key.

The version before it runs meanwhile: the indexes are made beside it.
"""

from django.db import migrations, models

from conversations.models.sql import index


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("conversations", "0009_status_keys")]

    operations = [
        index(
            "Status",
            models.Index(fields=["channel", "key"], condition=models.Q(key__isnull=False), name="status_key"),
            "ON status (channel_id, key) WHERE key IS NOT NULL",
        ),
        index(
            "Reply",
            models.Index(
                fields=["channel", "key"],
                condition=models.Q(settled_at__isnull=True, claimed_by__isnull=True, intent_at__isnull=False),
                name="reply_in_doubt_key",
            ),
            "ON reply (channel_id, key) WHERE settled_at IS NULL AND claimed_by IS NULL AND intent_at IS NOT NULL",
        ),
    ]
