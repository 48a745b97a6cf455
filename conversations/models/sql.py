"""Database functions that Django has no name for."""

from django.db import models


class RandomUUID(models.Func):
    """A random UUID made by the database (core since PostgreSQL 13)."""

    function = "gen_random_uuid"
    template = "%(function)s()"
    output_field = models.UUIDField()
