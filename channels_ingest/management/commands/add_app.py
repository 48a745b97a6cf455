"""``add_app``: add an app, whose secrets and webhook several channels share."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from channels_ingest import app_setup
from channels_ingest.management.commands.add_channel import SettingCommand, add_pairs


class Command(SettingCommand):
    help = "Add an app for add_channel --app. Prints one JSON line: id, public_id."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("platform")
        parser.add_argument("--name", required=True)
        parser.add_argument("--tenant", help="only its channels may use the app; default: those of all tenants")
        add_pairs(parser)

    def write(self, given: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
        app = app_setup.add(options["platform"], options["name"], tenant=options["tenant"], given=given)
        return {"id": app.pk, "public_id": app.public_id}
