"""`manage.py rotate_credentials`: everything sealed, under the newest of CREDENTIALS_KEYS.

Put the new key first, deploy, run this, then drop the old one. It may be run again at any time.
"""

from __future__ import annotations

from typing import Any

from cryptography.fernet import InvalidToken
from django.core.management.base import BaseCommand, CommandError
from django.db import models, transaction

from conversations import crypto, installation
from conversations.models import App, Channel, Installation

STEP = 100


class Command(BaseCommand):
    help = "Re-seal the secrets of every channel, app and the installation under the newest credentials key."

    def handle(self, *args: Any, **options: Any) -> None:
        rotate_installation()
        unreadable = [*self.rotate_all(App), *self.rotate_all(Channel)]
        if unreadable:
            raise CommandError(f"no key of CREDENTIALS_KEYS opens {', '.join(unreadable)}; keep the old keys")
        self.stdout.write(self.style.SUCCESS("All under the newest key; older ones may go."))

    def rotate_all(self, model: type[App] | type[Channel]) -> list[str]:
        """The places of rows that no key opens."""
        ids = list(model.objects.order_by("pk").values_list("pk", flat=True))
        unreadable = []
        for number, pk in enumerate(ids, 1):
            unreadable += rotate_row(model, pk)
            if number % STEP == 0 or number == len(ids):
                self.stdout.write(f"{model._meta.verbose_name_plural}: {number} of {len(ids)}")
        return unreadable


@transaction.atomic
def rotate_installation() -> None:
    row = Installation.objects.select_for_update().get()
    try:
        row.identity_key = crypto.rotate(row.identity_key)
    except InvalidToken:
        raise CommandError("no key of CREDENTIALS_KEYS opens the installation's identity key") from None
    # Otherwise the installation would seem to be another one as soon as the old key is dropped.
    if row.credentials_fingerprint in crypto.fingerprints():
        row.credentials_fingerprint = crypto.fingerprint()
    row.save()
    installation.forget()


@transaction.atomic
def rotate_row(model: type[models.Model], pk: int) -> list[str]:
    """Locked, so that credentials set meanwhile are not overwritten with old ones."""
    row: Any = model._default_manager.select_for_update().filter(pk=pk).first()
    if row is None:
        return []
    try:
        row.sealed = {name: crypto.rotate(token) for name, token in row.sealed.items()}
    except InvalidToken:
        return [row.place()]
    row.save(update_fields=["sealed"])
    return []
