"""``fetch_templates``: read the templates of channels from their platform."""

from __future__ import annotations

import json
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import channel_setup
from channels_ingest.adapters.base import NotListed
from channels_ingest.management.commands.set_channel import find_channel
from conversations import registry
from conversations.models import Channel
from conversations.reports import templates
from conversations.template_shapes import ListedTemplate


class Command(BaseCommand):
    help = (
        "Fetch the templates of channels from their platform: bots can send those that were fetched. Webhooks keep"
        " their status and quality up to date; run it again for new and changed ones, hourly for example."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("public_id", nargs="+", help="public id of a channel, see list_channels")

    def handle(self, *args: Any, **options: Any) -> None:
        for public_id in options["public_id"]:
            self.stdout.write(json.dumps({"public_id": public_id, **self._fetch(find_channel(public_id))}))

    def _fetch(self, channel: Channel) -> dict[str, int]:
        """Fetch the templates of one channel. Return how many there are, are approved, and are gone."""
        adapter: Any = registry.adapter(channel.platform)
        began, listed = time.time(), dict[tuple[str, str], ListedTemplate]()
        try:
            for page in adapter.list_templates(channel_setup.config(channel)):
                listed |= {(template.name, template.language): template for template in page}
                self.stderr.write(f"{channel}: {len(listed)} templates read", str)
        except NotListed as error:
            raise CommandError(f"{channel}: {error}. Nothing was changed") from None
        account = str(channel.options[adapter.template_option])
        kept, gone = templates.keep(channel.pk, account, listed.values(), began)
        approved = sum(template.status == "approved" for template in listed.values())
        return {"templates": kept, "approved": approved, "deleted": gone}
