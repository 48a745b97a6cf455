"""`manage.py setup_demo`: create what `make run` and `make demo` show: channels with the demo bot, and an admin.

It needs LOCAL.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import channel_setup
from channels_ingest.fake_platform import demo
from conversations import runtime
from conversations.models import Channel, Installation

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Command(BaseCommand):
    help = "Create the demo's tenant, channel and admin account where they are missing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--phones", default="", metavar="URL", help="also channels at this double")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.LOCAL:
            raise CommandError("setup_demo is for `make run`: LOCAL is not set")
        follow_port()
        if not Channel.objects.filter(platform="web").exists():
            channel_setup.apply("web", "Demo", tenant="Demo", given={}, bot="demo")
        if options["phones"]:
            demo.set_up(options["phones"])
        make_admin()


def follow_port() -> None:
    """Keep the installation's URL right when `make run` changes its port.

    Otherwise the database would count as a copy, and nothing would be sent. A URL that leads to
    another host is left alone.
    """
    row = Installation.objects.get()
    if row.public_url != settings.PUBLIC_URL and is_here(row.public_url) and is_here(settings.PUBLIC_URL):
        Installation.objects.update(public_url=settings.PUBLIC_URL)
        runtime.begin()


def is_here(url: str) -> bool:
    """Return True if a URL leads to this machine."""
    return urlsplit(url).hostname in LOOPBACK


def make_admin() -> None:
    """Create the account ``admin`` if there is none.

    ADMIN_PASSWORD, if set, becomes its password at each run. Without it, a new account gets a
    generated password, kept in DATA_DIR/admin_password.
    """
    rights = {"is_staff": True, "is_superuser": True}
    admin, created = get_user_model().objects.get_or_create(username="admin", defaults=rights)
    given = os.environ.get("ADMIN_PASSWORD", "")
    if created or (given and not admin.check_password(given)):
        admin.set_password(given or kept_password(settings.DATA_DIR / "admin_password"))
        admin.save()


def kept_password(path: Path) -> str:
    """Read the password from its file, which only its owner may read. Create the file first."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(12) + "\n")
    return path.read_text().strip()
