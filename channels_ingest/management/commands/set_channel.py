"""``set_channel``: change the settings of a channel."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import channel_setup
from channels_ingest.management.commands.add_channel import add_settings, read_settings
from conversations.models import Channel


def find_channel(public_id: str) -> Channel:
    """Return the channel with this public id. Raises ``CommandError``."""
    channel = Channel.objects.select_related("tenant").filter(public_id=public_id).first()
    if channel is None:
        raise CommandError(f"no channel has the public id {public_id!r}; see list_channels")
    return channel


class Command(BaseCommand):
    help = "Change a channel's credentials and options; an empty VALUE removes a setting, an empty ID the app."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("public_id")
        add_settings(parser)
        parser.add_argument("--active", choices=("yes", "no"), help="no: its messages are stored and wait")

    def handle(self, *args: Any, **options: Any) -> None:
        channel = find_channel(options["public_id"])
        active = None if options["active"] is None else options["active"] == "yes"
        try:
            given = read_settings(options["set"])
            verdict = channel_setup.change(
                channel, given, bot=options["bot"], api_base=options["api_base"], active=active, app=options["app"]
            )
        except channel_setup.WrongSetting as error:
            raise CommandError(str(error)) from None
        self.stdout.write(json.dumps({"id": channel.pk, "public_id": channel.public_id, "result": verdict}))
