"""`manage.py rotate_credentials`: seal all credentials again, under the newest of CREDENTIALS_KEYS.

Put the new key first, deploy, run this command, then remove the old key. It may run again at any time.
"""

from __future__ import annotations

from typing import Any

from cryptography.fernet import InvalidToken
from django.core.management.base import BaseCommand, CommandError
from django.db import models, transaction

from conversations import crypto, runtime
from conversations.models import App, Channel, Installation

STEP = 100  # rows between two lines of progress; larger: fewer lines, smaller: more


class Command(BaseCommand):
    help = "Re-seal the secrets of every channel, app and the installation under the newest credentials key."

    def handle(self, *args: Any, **options: Any) -> None:
        rotate_installation()
        unreadable = [*self.rotate_all(App), *self.rotate_all(Channel)]
        if unreadable:
            raise CommandError(f"no key of CREDENTIALS_KEYS opens {', '.join(unreadable)}; keep the old keys")
        self.stdout.write(self.style.SUCCESS("All credentials are under the newest key. You may remove older keys."))

    def rotate_all(self, model: type[App] | type[Channel]) -> list[str]:
        """Seal the credentials of all rows again. Return the rows that no key opens."""
        ids = list(model.objects.order_by("pk").values_list("pk", flat=True))
        unreadable = []
        for number, pk in enumerate(ids, 1):
            unreadable += rotate_row(model, pk)
            if number % STEP == 0 or number == len(ids):
                self.stdout.write(f"{model._meta.verbose_name_plural}: {number} of {len(ids)}")
        return unreadable


@transaction.atomic
def rotate_installation() -> None:
    """Seal the identity key with the newest key, and note that key's fingerprint."""
    row = Installation.objects.select_for_update().get()
    try:
        row.identity_key = crypto.rotate(row.identity_key)
    except InvalidToken:
        raise CommandError("no key of CREDENTIALS_KEYS opens the installation's identity key") from None
    # With the old key's fingerprint the database would seem another installation's, once that key
    # is removed.
    if row.credentials_fingerprint in crypto.fingerprints():
        row.credentials_fingerprint = crypto.fingerprint()
    row.save()
    runtime.begin()


@transaction.atomic
def rotate_row(model: type[models.Model], pk: int) -> list[str]:
    """Seal a row's credentials again; return its name if no key opens them.

    The row is locked, so that credentials that staff write meanwhile are not overwritten.
    """
    row: Any = model._default_manager.select_for_update().filter(pk=pk).first()
    if row is None:
        return []
    try:
        row.set_credentials(row.open_credentials())
    except InvalidToken:
        return [row.place()]
    row.save(update_fields=["sealed"])
    return []
