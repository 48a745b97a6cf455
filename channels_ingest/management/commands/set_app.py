"""``set_app``: change the secrets of an app."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from channels_ingest import app_setup, channel_setup
from channels_ingest.management.commands.add_channel import SettingCommand, add_pairs


class Command(SettingCommand):
    help = "Change an app's secrets; an empty VALUE removes one. Its channels use them within two seconds."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("public_id")
        add_pairs(parser)

    def write(self, given: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
        app = channel_setup.find_app(options["public_id"])
        return {"id": app.pk, "public_id": app.public_id, "result": app_setup.change(app, given)}
