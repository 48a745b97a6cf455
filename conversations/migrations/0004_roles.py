"""A role per person and tenant; the audit says in which tenant, and what changed.

The version before it runs meanwhile: it reads none of the columns, and its rows get the defaults (an agent, no changes).
"""

from django.conf import settings
from django.db import migrations, models

from conversations.postgres.sql_files import sql


class Migration(migrations.Migration):
    dependencies = [
        ('conversations', '0003_staff'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField('TenantStaff', 'role', models.CharField(max_length=20, db_default='agent')),
        migrations.AddField('Audit', 'tenant_id', models.BigIntegerField(null=True)),
        migrations.AddField('Audit', 'changes', models.JSONField(null=True)),
        migrations.RunSQL(sql("staff_roles"), migrations.RunSQL.noop),
    ]
