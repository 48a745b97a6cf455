"""A lane says until when free text may go out, and what the person does not want any more.

The version before it runs meanwhile, beside the new one. Its senders do not look at the new columns, and its
web processes do not write them: what it stores neither opens a window nor opts anybody out, and what it sends
may be refused by the platform. The audit has its changes, too.
"""

from django.db import migrations, models

from conversations.postgres.sql_files import sql


class Migration(migrations.Migration):
    dependencies = [("conversations", "0012_claimable_ids")]

    operations = [
        migrations.AddField("Conversation", "window_until", models.DateTimeField(null=True)),
        migrations.AddField("Conversation", "opted_out_at", models.DateTimeField(null=True)),
        migrations.AddField("Conversation", "no_marketing_since", models.DateTimeField(null=True)),
        migrations.RunSQL(sql("gate"), migrations.RunSQL.noop),
    ]
