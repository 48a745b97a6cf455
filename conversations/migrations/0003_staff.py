"""Who may see what, the names of the lists of staff, and what only staff search by (sql/desk_schema.sql)."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from conversations.postgres.sql_files import sql


class Migration(migrations.Migration):
    safe_because = "before the first release no table is in use"
    dependencies = [
        ('conversations', '0002_rules'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ParkedMessage',
            fields=[
            ],
            options={
                'proxy': True,
                'indexes': [],
                'constraints': [],
            },
            bases=('conversations.message',),
        ),
        migrations.CreateModel(
            name='ReplyForStaff',
            fields=[
            ],
            options={
                'verbose_name': 'reply for staff',
                'verbose_name_plural': 'replies for staff',
                'proxy': True,
                'indexes': [],
                'constraints': [],
            },
            bases=('conversations.reply',),
        ),
        migrations.CreateModel(
            name='StuckConversation',
            fields=[
            ],
            options={
                'verbose_name': 'stuck conversation',
                'proxy': True,
                'indexes': [],
                'constraints': [],
            },
            bases=('conversations.conversation',),
        ),
        migrations.CreateModel(
            name='TenantStaff',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('staff', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to=settings.AUTH_USER_MODEL)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='conversations.tenant')),
            ],
            options={
                'verbose_name': 'staff of tenants',
                'verbose_name_plural': 'staff of tenants',
                'db_table': 'tenant_staff',
                'constraints': [models.UniqueConstraint(fields=('staff', 'tenant'), name='tenant_staff_once')],
            },
        ),
        migrations.RunSQL(sql("desk_schema"), migrations.RunSQL.noop),
    ]
