"""A conversation's state names the reply whose choices the person may answer by typing.

The version before it runs meanwhile, beside the new one, and leaves the column as it is. So a question
may stay open that its turn has answered; what it said since closes the question all the same.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0010_status_key_indexes")]

    operations = [
        migrations.AddField("ConversationState", "offered", models.BigIntegerField(null=True)),
    ]
