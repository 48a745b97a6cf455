"""Apps: secrets that several channels share, of one tenant or of all.

The version before it runs meanwhile, beside the new one. It neither makes nor reads apps, and its channels
get no ``external_id``: no entry of an app's webhook finds them until the new version writes them.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0007_intent_numbers")]
    safe_because = "app is empty, and channel has a row per bot account: both indexes are made in milliseconds"

    operations = [
        migrations.AlterField(
            "App",
            "tenant",
            models.ForeignKey("conversations.Tenant", on_delete=models.PROTECT, null=True, blank=True),
        ),
        migrations.AddConstraint(
            "App", models.UniqueConstraint(fields=["tenant", "name"], name="app_name_once_per_tenant")
        ),
        migrations.AddConstraint(
            "App",
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(tenant__isnull=True), name="app_name_once_without_tenant"
            ),
        ),
        migrations.AddField(
            "Channel", "external_id", models.CharField(max_length=100, blank=True, default="", db_default="")
        ),
        migrations.AddConstraint(
            "Channel",
            models.UniqueConstraint(
                fields=["app", "external_id"],
                condition=models.Q(app__isnull=False) & ~models.Q(external_id=""),
                name="channel_once_per_app",
            ),
        ),
    ]
