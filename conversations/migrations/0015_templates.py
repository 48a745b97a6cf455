"""Templates of channels' accounts, as they are fetched.

The version before it runs meanwhile, beside the new one, and does not know the table.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0014_phone_until")]

    operations = [
        migrations.CreateModel(
            "Template",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account", models.TextField()),
                ("name", models.TextField()),
                ("language", models.TextField()),
                ("status", models.TextField()),
                ("category", models.TextField(db_default="")),
                ("quality", models.TextField(db_default="")),
                ("shape", models.JSONField()),
                ("fetched_at", models.DateTimeField()),
                ("status_at", models.DateTimeField()),
                ("quality_at", models.DateTimeField()),
                ("changed_at", models.DateTimeField(null=True)),
                (
                    "channel",
                    models.ForeignKey(
                        "conversations.Channel",
                        on_delete=django.db.models.deletion.PROTECT,
                        db_constraint=False,
                        db_index=False,
                    ),
                ),
            ],
            options={"db_table": "template"},
        ),
        migrations.AddConstraint(
            "Template", models.UniqueConstraint(fields=["channel", "name", "language"], name="template_once")
        ),
    ]
