"""Which bots a worker knows; which conversations or channels a pause is about.

The version before it runs meanwhile, beside the new one:

* It reads and writes none of these columns, and its rows get the defaults. A worker without ``bots``
  may know any bot, so no bot is reported as unknown while such a worker lives.
* It counts failed turns per bot, the new one per channel, and per bot over its channels. Each
  respects the pauses of both. Pauses of a bot end with the first success of a worker of either
  version, those of a channel with the first success of a new one, so that a pause may be longer or
  shorter meanwhile, and nothing else.
* In its rows it goes on writing ``first_conversation`` and ``several``, which the new one does not
  read. A later version drops them.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0004_roles")]

    operations = [
        migrations.AddField("Worker", "bots", models.JSONField(null=True)),
        migrations.AddField("Pause", "members", models.JSONField(db_default=[])),
        migrations.AddField("Pause", "theirs", models.JSONField(db_default=[])),
    ]
