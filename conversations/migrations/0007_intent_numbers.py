"""Each intent to send a reply gets a number that never comes again.

The version before it runs meanwhile, beside the new one: its senders leave the number as it is. A sender
writes a result only where the row names it and has that number, and a sender of the new version raises
the number with each of its intents, so that no two intents of it look alike.
"""

from django.db import migrations, models

from conversations.postgres.sql_files import sql


class Migration(migrations.Migration):
    dependencies = [("conversations", "0006_audit_only_grows")]

    operations = [
        migrations.AddField("Reply", "intent_number", models.IntegerField(db_default=0)),
        migrations.RunSQL(sql("intent_numbers"), migrations.RunSQL.noop),
    ]
