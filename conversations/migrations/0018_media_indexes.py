"""Finds files that are kept no longer, those that were cut off among them, and uploads that nobody sent.

The version before it runs meanwhile: the indexes are made beside it, and serve it, too.
"""

from django.db import migrations, models
from django.db.models import Q

from conversations.models.sql import index


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("conversations", "0017_phone_wait")]

    operations = [
        index(
            "Media",
            models.Index(
                fields=["channel", "created_at"], condition=Q(status__in=["stored", "refused"]), name="media_old"
            ),
            "ON media (channel_id, created_at) WHERE status IN ('stored', 'refused')",
        ),
        index(
            "Media",
            models.Index(fields=["created_at"], condition=Q(conversation_id__isnull=True), name="media_unsent"),
            "ON media (created_at) WHERE conversation_id IS NULL",
        ),
        migrations.RemoveIndex("Media", "media_kept"),
    ]
