"""``add_channel``: add a bot account on a platform."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import channel_setup
from conversations.errors import WrongSetting


def add_pairs(parser: CommandParser) -> None:
    """Add ``--set``, which ``read_settings`` reads."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="VALUE may be env:NAME, or - for standard input"
    )


def add_settings(parser: CommandParser) -> None:
    """Add the arguments that ``add_channel`` and ``set_channel`` share."""
    add_pairs(parser)
    parser.add_argument("--bot", help="the bot that answers; default: echo")
    parser.add_argument("--api-base", metavar="URL", help="URL for outbound calls instead of the platform's")
    parser.add_argument("--app", metavar="ID", help="public id of the app whose webhook and secrets it shares")


def read_settings(pairs: list[str]) -> dict[str, str]:
    """Read ``KEY=VALUE`` pairs. VALUE may be ``env:NAME`` or ``-``."""
    for pair in pairs:
        if "=" not in pair:
            raise WrongSetting(f"--set takes KEY=VALUE, not {pair!r}")
    return {name: channel_setup.read_value(value) for name, _, value in (pair.partition("=") for pair in pairs)}


class SettingCommand(BaseCommand):
    """Takes ``--set``, and prints what it wrote as a line of JSON.

    Raises ``CommandError`` for a wrong setting.
    """

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            written = self.write(read_settings(options["set"]), options)
        except WrongSetting as error:
            raise CommandError(str(error)) from None
        self.stdout.write(json.dumps(written))

    def write(self, given: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
        """Write the settings; return the line."""
        raise NotImplementedError


class Command(SettingCommand):
    help = "Add a channel. Prints one JSON line: id, public_id, webhook_path."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("platform")
        parser.add_argument("--name", required=True)
        parser.add_argument("--tenant", default="default")
        add_settings(parser)

    def write(self, given: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
        about = {name: options[name] for name in ("platform", "name", "tenant", "bot", "api_base", "app")}
        channel, _ = channel_setup.apply(**about, given=given, fresh=True)
        return {"id": channel.pk, "public_id": channel.public_id, "webhook_path": channel.webhook_path}
