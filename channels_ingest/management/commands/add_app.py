"""``add_app``: add an app, whose secrets and webhook several channels share."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import app_setup
from channels_ingest.management.commands.add_channel import add_pairs, read_settings
from conversations.errors import WrongSetting


class Command(BaseCommand):
    help = "Add an app for add_channel --app. Prints one JSON line: id, public_id."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("platform")
        parser.add_argument("--name", required=True)
        parser.add_argument("--tenant", help="only its channels may use the app; default: those of all tenants")
        add_pairs(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            given = read_settings(options["set"])
            app = app_setup.add(options["platform"], options["name"], tenant=options["tenant"], given=given)
        except WrongSetting as error:
            raise CommandError(str(error)) from None
        self.stdout.write(json.dumps({"id": app.pk, "public_id": app.public_id}))
