"""`manage.py adopt_database`: take over a database that belonged to another installation.

Until then sending and timers are held, so that a copy of production writes to nobody. With
`--new-keys` the copy needs none of production's keys: its credentials are deleted, and
de-duplication starts from nothing.
"""

from __future__ import annotations

import secrets
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models.functions import Now

from conversations import crypto, installation, runtime
from conversations.errors import WrongKeys
from conversations.models import App, Audit, Channel, Installation


class Command(BaseCommand):
    help = "Take over a database that belongs to another PUBLIC_URL or credentials key."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument(
            "--new-keys",
            action="store_true",
            help="its keys are lost: delete all credentials and make a new identity key",
        )

    def handle(self, *args: Any, yes: bool, new_keys: bool, **options: Any) -> None:
        row = Installation.objects.get()
        why = installation.reason(row.public_url, row.credentials_fingerprint)
        if not why and not new_keys:
            self.stdout.write("This database is ours already; nothing to do.")
            return
        require_readable(new_keys)
        self.tell(row, new_keys)
        if not yes and not agreed():
            raise CommandError("Nothing was changed.")
        adopt(row, why, new_keys)
        self.stdout.write(self.style.SUCCESS("Taken over. Sending begins within a few seconds."))

    def tell(self, row: Installation, new_keys: bool) -> None:
        """Show what the take-over changes, before a person agrees to it."""
        self.stdout.write(f"was   {row.public_url}   key {row.credentials_fingerprint[:8]}")
        self.stdout.write(f"is    {settings.PUBLIC_URL}   key {crypto.fingerprint()[:8]}")
        self.stdout.write("All pending replies will be sent to people.")
        if new_keys:
            self.stdout.write(
                "All credentials of channels and apps will be deleted. De-duplication starts from nothing."
            )


def agreed() -> bool:
    """Ask a person. Without a terminal the answer is no."""
    try:
        return input("Take it over? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # no terminal
        return False


def require_readable(new_keys: bool) -> None:
    """Refuse if no key opens the database: its webhooks would fail after the take-over.

    With ``new_keys`` they get new ones instead.
    """
    if new_keys:
        return
    try:
        installation.identity_key()
    except WrongKeys as error:
        raise CommandError(f"{error}. Add the old key to CREDENTIALS_KEYS, or use --new-keys.") from None


@transaction.atomic
def adopt(row: Installation, why: str, new_keys: bool) -> None:
    """Make this installation the owner, and audit it.

    With ``new_keys`` nothing that the lost keys sealed can be opened, so it is deleted.
    """
    if new_keys:
        row.identity_key = crypto.seal(secrets.token_hex(32), installation.PLACE)
        Channel.objects.update(sealed={})
        App.objects.update(sealed={})
    row.public_url, row.credentials_fingerprint, row.adopted_at = settings.PUBLIC_URL, crypto.fingerprint(), Now()
    row.save()
    Audit.objects.create(verb="adopt_database", subject=settings.PUBLIC_URL, reason=why or "new keys")
    runtime.begin()
