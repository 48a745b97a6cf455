"""`manage.py check`: Django's own, which also asks the database whenever it can be reached.

A channel with the name of a bot that does not exist is found without having to know of `--database`.
Other commands run their checks without it: they must be able to repair what is wrong there.
"""

from __future__ import annotations

from typing import Any

import psycopg
from django.conf import settings
from django.core.management.commands.check import Command as DjangoCheck

from conversations.operating import (  # noqa: F401  (each registers itself; only commands need the last two)
    checks,
    deploy_checks,
    migration_checks,
)


class Command(DjangoCheck):
    """Adds the checks of the database to those that were asked for, if it answers."""

    def handle(self, *app_labels: Any, **options: Any) -> None:
        if not options["databases"] and database_answers():
            options["databases"] = ["default"]
        super().handle(*app_labels, **options)


def database_answers() -> bool:
    """Return True if the database can be reached now.

    While it cannot, the other checks still run.
    """
    if not settings.DATABASE_URL:
        return False
    try:
        checks.connect().close()
    except psycopg.Error:
        return False
    return True
