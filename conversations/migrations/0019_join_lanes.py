"""A lane whose person turns out to be another lane's goes on there.

The version before it runs meanwhile, beside the new one, and joins nothing.
"""

from django.db import migrations

from conversations.postgres.sql_files import sql


class Migration(migrations.Migration):
    dependencies = [("conversations", "0018_media_indexes")]

    operations = [migrations.RunSQL(sql("join_lanes"), migrations.RunSQL.noop)]
