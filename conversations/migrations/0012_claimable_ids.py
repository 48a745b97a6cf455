"""An id of a person, such as a phone number, says whether a lasting id may still claim it.

The version before it runs meanwhile, beside the new one, and takes every id for claimed.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0011_offered_choices")]

    operations = [migrations.AddField("Alias", "claimable", models.BooleanField(db_default=False))]
