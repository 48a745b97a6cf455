"""``list_channels``: list all channels, without values of secrets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandParser

from channels_ingest import channel_setup
from conversations import registry
from conversations.models import Channel


class Listing(BaseCommand):
    """Prints ``rows`` as a table of ``columns``, or whole as JSON."""

    columns: ClassVar[Sequence[str]]

    def rows(self) -> Iterable[dict[str, Any]]:
        raise NotImplementedError

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON line for each")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = list(self.rows())
        if options["json"]:
            for row in rows:
                self.stdout.write(json.dumps(row, ensure_ascii=False))
            return
        table = [self.columns, *([_cell(row[column]) for column in self.columns] for row in rows)]
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        for line in table:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def describe(channel: Channel) -> dict[str, Any]:
    """Return a channel as a row of the list, with the names of its credentials only."""
    return {
        "id": channel.pk,
        "public_id": channel.public_id,
        "tenant": channel.tenant.name,
        "name": channel.name,
        "platform": channel.platform,
        "app": channel.app.public_id if channel.app else "",
        "bot": channel.bot,
        "active": channel.active,
        "webhook_path": channel.webhook_path,
        "api_base": channel.api_base,
        "options": channel.options,
        "credentials": sorted(channel.sealed),
        "inherited": sorted(registry.inherited(channel.sealed, channel.app.sealed)) if channel.app else [],
        "missing": channel_setup.missing(channel),
    }


class Command(Listing):
    help = "List channels."
    columns = ("id", "tenant", "name", "platform", "app", "bot", "active", "missing", "webhook_path")

    def rows(self) -> Iterable[dict[str, Any]]:
        return map(describe, Channel.objects.select_related("tenant", "app").order_by("tenant__name", "id"))


def _cell(value: Any) -> str:
    """Return a value as text of the table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)
