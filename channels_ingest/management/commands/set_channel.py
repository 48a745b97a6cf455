"""``set_channel``: change the settings of a channel."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from channels_ingest import channel_setup
from channels_ingest.management.commands.add_channel import SettingCommand, add_settings
from conversations.models import Channel


def find_channel(public_id: str) -> Channel:
    """Return the channel with this public id. Raises ``CommandError``."""
    channel = Channel.objects.select_related("tenant").filter(public_id=public_id).first()
    if channel is None:
        raise CommandError(f"no channel has the public id {public_id!r}; see list_channels")
    return channel


class Command(SettingCommand):
    help = "Change a channel's credentials and options; an empty VALUE removes a setting, an empty ID the app."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("public_id")
        add_settings(parser)
        parser.add_argument("--active", choices=("yes", "no"), help="no: its messages are stored and wait")

    def write(self, given: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
        channel = find_channel(options["public_id"])
        active = None if options["active"] is None else options["active"] == "yes"
        about = {name: options[name] for name in ("bot", "api_base", "app")}
        verdict = channel_setup.change(channel, given, active=active, **about)
        return {"id": channel.pk, "public_id": channel.public_id, "result": verdict}
