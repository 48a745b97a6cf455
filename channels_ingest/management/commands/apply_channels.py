"""``apply_channels``: create or change channels as a TOML file says. A second run changes nothing.

    [[channel]]
    tenant = "acme"            # default: "default"; tenant and name say which channel it is
    name = "support"
    platform = "telegram"
    bot = "orders"             # default: echo, or as it is
    active = true
    api_base = ""
    app = ""                   # public id of its app
    [channel.set]              # as --set; keep secrets out of the file: env:NAME
    token = "env:TELEGRAM_TOKEN"
    settle_ms = 0

Channels that the file does not name stay as they are.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import channel_setup

# All members of a channel in the file. Another one, perhaps misspelt, is refused.
KNOWN = frozenset({"tenant", "name", "platform", "bot", "active", "api_base", "app", "set"})


class Command(BaseCommand):
    help = "Create or change channels as a TOML file says."

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
        """Create or change one channel; print its result as a line of JSON."""
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
            app=wanted.get("app"),
        )
        line = {
            "name": channel.name,
            "public_id": channel.public_id,
            "webhook_path": channel.webhook_path,
            "result": verdict,
        }
        self.stdout.write(json.dumps(line, ensure_ascii=False))
