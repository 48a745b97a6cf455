"""``apply_channels``: channels as a file under version control. Doing it twice changes nothing.

    [[channel]]
    tenant = "acme"            # default: "default"; tenant and name say which channel it is
    name = "support"
    platform = "telegram"
    bot = "orders"             # default: echo, or as it is
    active = true
    api_base = ""
    [channel.set]              # as --set; keep secrets out of the file: env:NAME
    token = "env:TELEGRAM_TOKEN"
    settle_ms = 0

A channel that the file does not name is left as it is.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import channel_setup

KNOWN = frozenset({"tenant", "name", "platform", "bot", "active", "api_base", "set"})


class Command(BaseCommand):
    help = "Make the channels of a TOML file be there, as it says."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            wanted = tomllib.loads(options["file"].read_text()).get("channel", [])
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise CommandError(f"{options['file']}: {error}") from None
        for number, each in enumerate(wanted, start=1):
            try:
                self._apply(each)
            except (channel_setup.WrongSetting, KeyError) as error:
                raise CommandError(f"channel {number} ({each.get('name', 'no name')}): {error}") from None

    def _apply(self, wanted: dict[str, Any]) -> None:
        unknown = wanted.keys() - KNOWN
        if unknown:
            raise channel_setup.WrongSetting(f"unknown: {', '.join(sorted(unknown))}")
        channel, verdict = channel_setup.apply(
            wanted["platform"],
            wanted["name"],
            tenant=wanted.get("tenant", "default"),
            given={name: channel_setup.read_value(str(value)) for name, value in wanted.get("set", {}).items()},
            bot=wanted.get("bot"),
            api_base=wanted.get("api_base"),
            active=wanted.get("active"),
        )
        line = {
            "name": channel.name,
            "public_id": channel.public_id,
            "webhook_path": channel.webhook_path,
            "result": verdict,
        }
        self.stdout.write(json.dumps(line, ensure_ascii=False))
