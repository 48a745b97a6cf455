"""A status keeps the key of the reply that it is about, where the platform says it.

The version before it runs meanwhile, beside the new one: its statuses have no key, and it finds replies
by the platform's id only.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0008_apps")]

    operations = [migrations.AddField("Status", "key", models.UUIDField(null=True))]
