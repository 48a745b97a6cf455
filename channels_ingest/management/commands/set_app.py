"""``set_app``: change the secrets of an app."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import app_setup, channel_setup
from channels_ingest.management.commands.add_channel import add_pairs, read_settings
from conversations.errors import WrongSetting


class Command(BaseCommand):
    help = "Change an app's secrets; an empty VALUE removes one. Its channels use them within two seconds."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("public_id")
        add_pairs(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            app = channel_setup.find_app(options["public_id"])
            verdict = app_setup.change(app, read_settings(options["set"]))
        except WrongSetting as error:
            raise CommandError(str(error)) from None
        self.stdout.write(json.dumps({"id": app.pk, "public_id": app.public_id, "result": verdict}))
