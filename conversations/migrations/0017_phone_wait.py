"""A reply says how long the next one waits for its delivery, so that whoever learns that it was sent can wait.

The version before it runs meanwhile, beside the new one: its senders do not write the column. Of their
replies whose outcome is unknown, no delivery is waited for.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0016_media")]

    operations = [migrations.AddField("Reply", "phone_wait", models.FloatField(null=True))]
