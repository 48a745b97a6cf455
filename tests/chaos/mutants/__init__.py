"""Planted bugs: the proof that the checker sees what it says it looks for.

    planted    the bugs, each as a few edits
    edits      the kinds of edit, each through a seam that has a name
    wrappers   functions with a bug, in place of the product's
    sql_parts  parts of a statement, found by what they are
    lua, sql   scripts, functions and parts of statements with a bug
    hunt       runs each bug where it must be found, and says which were

A process plants the bug that ``CHAOS_MUTANT`` names when Django starts (``tests.chaos.apps``). The product
knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from tests.chaos.mutants.edits import Edit


def apply(name: str) -> None:
    """Plant the bug ``name`` in this process and, when it migrates, in the database. Raises ``NotApplied``."""
    from django.apps import apps
    from django.db import connections
    from django.db.models.signals import post_migrate

    edits = _edits(name)
    for edit in edits:
        edit.apply()

    def plant(using: str, **kwargs: Any) -> None:
        plant_in_database(name, connections[using])

    # The signal comes after every app's migrations, once for each app.
    post_migrate.connect(plant, sender=apps.get_app_config("conversations"), weak=False)


def plant_in_database(name: str, connection: BaseDatabaseWrapper) -> None:
    """Once in a database, however often it is migrated."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS planted (name text PRIMARY KEY)")
        cursor.execute("INSERT INTO planted VALUES (%s) ON CONFLICT DO NOTHING RETURNING 1", [name])
        if cursor.fetchone():
            for edit in _edits(name):
                edit.migrate(connection)


def _edits(name: str) -> Sequence[Edit]:
    from tests.chaos.mutants.edits import NotApplied
    from tests.chaos.mutants.planted import MUTANTS

    if name not in MUTANTS:
        raise NotApplied(f"no such mutant: {name}")
    return MUTANTS[name].edits
