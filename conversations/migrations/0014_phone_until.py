"""A lane says until when its next reply waits for the delivery of the one before it.

The version before it runs meanwhile, beside the new one: its senders and web processes do not look at the
column. So a reply may start before its time, and a wait ends by its time.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0013_gate")]

    operations = [migrations.AddField("Conversation", "phone_until", models.DateTimeField(null=True))]
