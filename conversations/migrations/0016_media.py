"""Files that people send, each with where it comes from and what became of it; for how long a tenant keeps them.

The version before it runs meanwhile, beside the new one, and stores messages without their files: those
messages show what they always showed, and their files are never fetched.
"""

from django.db import migrations, models
from django.db.models import Q
from django.db.models.functions import Now

STATUSES = [("waiting", "Waiting"), ("stored", "Stored"), ("refused", "Refused"), ("deleted", "Deleted")]


class Migration(migrations.Migration):
    dependencies = [("conversations", "0015_templates")]

    operations = [
        migrations.AddField("Tenant", "media_days", models.IntegerField(null=True)),
        migrations.CreateModel(
            "Media",
            [
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("conversation_id", models.BigIntegerField(null=True)),
                ("message_id", models.BigIntegerField(null=True)),
                ("reference", models.JSONField(db_default={})),
                ("status", models.CharField(max_length=7, choices=STATUSES, db_default="waiting")),
                ("content_type", models.TextField(db_default="")),
                ("size", models.BigIntegerField(null=True)),
                ("attempts", models.SmallIntegerField(db_default=0)),
                ("claimed", models.BooleanField(db_default=False)),
                ("due_at", models.DateTimeField(null=True)),
                ("uploads", models.JSONField(db_default={})),
                ("error", models.TextField(db_default="")),
                ("created_at", models.DateTimeField(db_default=Now())),
                (
                    "channel",
                    models.ForeignKey(
                        "conversations.Channel", on_delete=models.PROTECT, db_constraint=False, db_index=False
                    ),
                ),
            ],
            {
                "db_table": "media",
                "verbose_name_plural": "media",
                "constraints": [
                    models.CheckConstraint(
                        condition=Q(status="waiting", due_at__isnull=False)
                        | (~Q(status="waiting") & Q(due_at__isnull=True)),
                        name="media_due_while_waiting",
                    ),
                ],
                "indexes": [
                    models.Index(fields=["channel", "due_at"], condition=Q(due_at__isnull=False), name="media_due"),
                    models.Index(fields=["channel", "created_at"], condition=Q(status="stored"), name="media_kept"),
                    models.Index(fields=["conversation_id", "created_at"], name="media_of_conversation"),
                ],
            },
        ),
    ]
