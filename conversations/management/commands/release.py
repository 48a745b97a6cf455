"""`manage.py release`: the Procfile's `release:`. Migrations that leave the running version alone, then the checks.

A migration waits two seconds at most for a lock: while it waits, everything behind it waits as
well. Needs a connection of its own: behind PgBouncer, one in session mode.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection

from conversations.failpoints import failpoint

LOCK_TIMEOUT = "2s"
TRIES = 20
PAUSE_SECONDS = 3.0


class Command(BaseCommand):
    help = "Migrate without holding up the running version, then check."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("check", tags=["migrations"])
        for number in range(1, TRIES + 1):
            if self.migrate():
                break
            self.stdout.write(f"A table is in use; trying again ({number} of {TRIES}).")
            time.sleep(PAUSE_SECONDS)
        else:
            raise CommandError("The migrations could not get their locks; nothing is half done. Try again.")
        call_command("check", databases=["default"], deploy=not settings.LOCAL)

    def migrate(self) -> bool:
        """Whether all are applied; False when one could not get its lock in time."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
        try:
            # Its checks would refuse a channel's wrong bot before the tables are there; `check` follows.
            with connection.execute_wrapper(_at_point):
                call_command("migrate", interactive=False, skip_checks=True, verbosity=1)
        except OperationalError as error:
            if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                return False
            raise
        finally:
            # The session with its timeout ends here.
            connection.close()
            connection.close_pool()  # type: ignore[attr-defined]
        return True


def _at_point(execute: Callable[..., Any], *arguments: Any) -> Any:
    """Around each statement of the migrations."""
    failpoint("M1")
    return execute(*arguments)
