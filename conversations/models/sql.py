"""Database functions, and a migration's operation, that Django has no name for."""

from django.db import migrations, models


def index(model: str, made: models.Index, sql: str) -> migrations.SeparateDatabaseAndState:
    """Make an index that holds up nobody; ``sql``: what stands after its name.

    One that was left half made, because a lock did not come in time, is made again.
    """
    again = f"DROP INDEX CONCURRENTLY IF EXISTS {made.name}"
    make = migrations.RunSQL(
        [again, f"CREATE INDEX CONCURRENTLY {made.name} {sql}"], f"DROP INDEX IF EXISTS {made.name}"
    )
    return migrations.SeparateDatabaseAndState([make], [migrations.AddIndex(model, made)])


class RandomUUID(models.Func):
    """A random UUID made by the database (core since PostgreSQL 13)."""

    function = "gen_random_uuid"
    template = "%(function)s()"
    output_field = models.UUIDField()
