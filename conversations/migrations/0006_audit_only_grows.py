"""The audit is append-only: UPDATE, DELETE and TRUNCATE raise.

The version before it runs meanwhile: it only inserts.
"""

from django.db import migrations

from conversations.postgres.sql_files import sql


class Migration(migrations.Migration):
    dependencies = [
        ('conversations', '0005_pauses_by_channel'),
    ]

    operations = [
        migrations.RunSQL(sql("audit_only_grows"), migrations.RunSQL.noop),
    ]
