"""``register_webhook``: tell the platform where to post."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import channel_setup
from channels_ingest.adapters.base import NotRegistered
from channels_ingest.management.commands.set_channel import find_channel
from conversations import installation, registry


class Command(BaseCommand):
    help = "Register a channel's webhook with its platform, under PUBLIC_URL. Prints what the platform then reports."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("public_id")
        parser.add_argument(
            "--although-held", action="store_true", help="on a copy of production too: its bot then posts here"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if (why := installation.held()) and not options["although_held"]:
            raise CommandError(f"{why}. The original would get no more webhooks; --although-held does it all the same")
        channel = find_channel(options["public_id"])
        adapter: Any = registry.adapter(channel.platform)
        try:
            said = adapter.register(channel_setup.config(channel), settings.PUBLIC_URL + channel.webhook_path)
        except NotRegistered as error:
            raise CommandError(str(error)) from None
        channel_setup.change(channel, {name: value for name, value in said.get("options", {}).items() if value})
        self.stdout.write(json.dumps(said["webhook"], indent=2, ensure_ascii=False))
