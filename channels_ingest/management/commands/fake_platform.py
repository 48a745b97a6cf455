"""``fake_platform``: a double of the platforms on 127.0.0.1, with a page that shows people's phones."""

from __future__ import annotations

import contextlib
import threading
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import channel_setup
from channels_ingest.fake_platform import demo
from channels_ingest.fake_platform.phones import SAMPLES, Phones
from conversations.models import Channel


class Command(BaseCommand):
    help = "Serve a double of the platforms for the channels whose --api-base leads to it. It needs LOCAL."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8010)
        parser.add_argument("--demo", action="store_true", help="play a few conversations with the demo bot")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.LOCAL:
            raise CommandError("fake_platform is for `make demo` and development: LOCAL is not set")
        here = f"127.0.0.1:{options['port']}"
        rows = [row for row in Channel.objects.filter(active=True, platform__in=SAMPLES) if leads_to(row, here)]
        if not rows:
            raise CommandError(f"no channel leads here: set_channel <public id> --api-base http://{here}")
        try:
            phones = Phones([channel_setup.config(row) for row in rows], settings.PUBLIC_URL, options["port"])
        except OSError as error:
            raise CommandError(f"no listening on {here}: {error.strerror} (`make demo` runs a double too)") from None
        self.stdout.write(f"phones on {phones.url}/ for {', '.join(row.name for row in rows)}")
        if options["demo"]:
            threading.Thread(target=demo.play, args=(phones,), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            phones.serve()


def leads_to(channel: Channel, address: str) -> bool:
    """Return True if calls of the channel go to ``address``."""
    return urlsplit(channel.api_base).netloc == address
