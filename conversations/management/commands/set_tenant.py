"""`manage.py set_tenant`: for how many days a tenant's files are kept."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.models import Audit, Tenant

MOST_DAYS = 36_500  # larger: the database cannot tell the time so long ago


class Command(BaseCommand):
    help = "Change for how many days the files of a tenant's people are kept. 0: they go at the next upkeep."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--media-days", required=True, help="a number, or 'default' for MEDIA_DAYS")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant, text = Tenant.objects.filter(name=options["name"]).first(), options["media_days"]
        if tenant is None:
            raise CommandError(f"there is no tenant {options['name']!r}")
        if text != "default" and not (text.isascii() and text.isdigit() and int(text[:9]) <= MOST_DAYS):
            raise CommandError(f"--media-days takes 0 to {MOST_DAYS}, or 'default'; not {text!r}")
        before, tenant.media_days = tenant.media_days, None if text == "default" else int(text)
        tenant.save(update_fields=["media_days"])
        changes = {"media_days": [before, tenant.media_days]}
        Audit.objects.create(verb="set_tenant", tenant_id=tenant.pk, subject=f"tenant {tenant.name}", changes=changes)
        self.stdout.write(f"{tenant.name}: files are kept for {'MEDIA_DAYS' if text == 'default' else text} days")
