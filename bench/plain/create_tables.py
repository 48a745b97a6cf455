"""``python -m bench.plain.create_tables``: creates the tables that migrations would create."""

from __future__ import annotations

from django.db import connection

from bench.plain import tasks  # noqa: F401  (sets Django up)
from bench.plain.models import Conversation, Message, Reply

with connection.schema_editor() as editor:
    for model in (Conversation, Message, Reply):
        editor.create_model(model)
