"""`manage.py release`: the Procfile's `release:`. It checks, migrates beside the running version, checks.

The first checks need no database, so that a mistake in the settings leaves the database as it was.
Warnings of security fail the release, too, except those in ACCEPTED.

A migration waits for a lock for two seconds at most, because every later query on that table waits
behind it. The command needs a connection of its own: behind PgBouncer, one in session mode.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
from django.conf import settings
from django.core.checks import WARNING, Tags, run_checks
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection

from conversations.failpoints import failpoint
from conversations.operating.checks import refuse_to_start

# Longest wait for a lock. Longer: the running version stands still longer. Shorter: more tries on a
# busy table.
LOCK_TIMEOUT = "2s"
# Attempts to get the locks. Larger: a release on a busy table takes longer before it fails.
TRIES = 20
# Seconds between two attempts. Smaller: less time for the running version to catch up.
PAUSE_SECONDS = 3.0
# Warnings of security that do not fail a release: REDIS_CERTS itself is the decision behind W101; a
# private network may do without TLS, and Heroku's DATABASE_URL does not ask for it (W102).
ACCEPTED = ("conversations.W101", "conversations.W102")


class Command(BaseCommand):
    help = "Migrate without holding up the running version, then check."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_to_start()
        call_command("check", tags=["migrations"])
        for number in range(1, TRIES + 1):
            if self.migrate():
                break
            self.stdout.write(f"A table is in use; trying again ({number} of {TRIES}).")
            time.sleep(PAUSE_SECONDS)
        else:
            raise CommandError("The migrations could not get their locks. Nothing was changed. Try again later.")
        call_command("check", databases=["default"], deploy=not settings.LOCAL)
        if not settings.LOCAL:
            refuse_warnings()

    def migrate(self) -> bool:
        """Return True if all migrations are applied, False if one did not get its lock in time."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
        try:
            # Checks of `migrate` would read channels before the table exists; ours follow later.
            with connection.execute_wrapper(_with_failpoint):
                call_command("migrate", interactive=False, skip_checks=True, verbosity=1)
        except OperationalError as error:
            if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                return False
            raise
        finally:
            # End the session: its lock timeout must not outlive the migrations.
            connection.close()
            connection.close_pool()  # type: ignore[attr-defined]
        return True


def refuse_warnings() -> None:
    """Raise ``CommandError`` for warnings of security that nobody has accepted."""
    found = run_checks(tags=[Tags.security], include_deployment_checks=True)
    warnings = [each for each in found if each.level >= WARNING and not each.is_silenced()]
    open_ones = [str(each) for each in warnings if each.id not in ACCEPTED]
    if open_ones:
        raise CommandError("This release is refused because of warnings:\n" + "\n".join(open_ones))


def _with_failpoint(execute: Callable[..., Any], *arguments: Any) -> Any:
    """Run one statement of a migration. Tests let the process die before it, at failpoint M1."""
    failpoint("M1")
    return execute(*arguments)
