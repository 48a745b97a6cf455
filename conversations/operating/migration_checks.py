"""Refuses migrations that would break or stop the running version, which serves while they run.

On a table in use, a migration may not rename, drop or rewrite anything, make the running version's
INSERTs fail, or lock out writers while it reads the whole table. Such a change takes two releases: add
the new and stop using the old, then drop the old. A migration that is safe all the same says why, in
its class: ``safe_because = "no version that runs reads this column since 1.4"``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently
from django.core.checks import CheckMessage, Error, register
from django.db import connection, models
from django.db.migrations import Migration, operations
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import Field
from django.db.models.functions import Now

HINT = "in two releases: add, stop using, then drop with `safe_because = ...`; see docs/deploy.md"

# Why an operation is refused.
RENAMES = "renames what the running version uses"
DROPS = "drops what the running version uses"
REWRITES = "rewrites the table, and nobody can use it meanwhile"
READS = "reads the whole table, and nobody can write meanwhile"
REFUSES = "refuses rows of the running version, which does not know the column"

# Patterns of refused statements in RunSQL, and why. What ``NOT_SQL`` matches is removed first.
SQL = (
    (r"\bRENAME\b", RENAMES),
    (r"^\s*(DROP (TABLE|VIEW|MATERIALIZED|FUNCTION|PROCEDURE|SEQUENCE|TYPE|SCHEMA)|TRUNCATE)\b", DROPS),
    (r"^\s*ALTER TABLE\b.*\bDROP (?!CONSTRAINT\b|DEFAULT\b|NOT NULL\b|EXPRESSION\b|IDENTITY\b)", DROPS),
    (r"^\s*ALTER TABLE\b.*\b(TYPE|SET TABLESPACE|SET LOGGED|SET UNLOGGED)\b", REWRITES),
    (r"^\s*(CLUSTER|VACUUM FULL|VACUUM \([^)]*FULL)\b", REWRITES),
    (r"^\s*ALTER TABLE\b.*\bADD (COLUMN )?(?!CONSTRAINT\b)(?!.*\bDEFAULT\b).*\bNOT NULL\b", REFUSES),
    (r"\bSET NOT NULL\b", READS),
    (r"^\s*ALTER TABLE\b.*\bADD (CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN)\b(?!.*\b(NOT VALID|USING INDEX)\b)", READS),
    (r"^\s*(CREATE (UNIQUE )?INDEX|REINDEX)\b(?!.*\bCONCURRENTLY\b)", READS),
)
# Function bodies, string constants and comments: words in them are no statements.
NOT_SQL = re.compile(r"(\$\w*\$).*?\1|'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)


@register("migrations")
def migrations_leave_the_running_version_alone(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check all migrations of the project, applied or not, without those of installed packages."""
    if not settings.DATABASE_URL:
        return []
    return [
        Error(f"migration {migration} {why}: {what}", hint=HINT, id="conversations.E012")
        for migration, state in _our_migrations()
        for what, why in refused(migration, state)
    ]


def refused(migration: Migration, state: ProjectState) -> Iterator[tuple[str, str]]:
    """Yield each refused operation of ``migration`` and the reason.

    Applies the migration to ``state``, which holds the models as they were before.
    """
    allowed = bool(getattr(migration, "safe_because", "").strip())
    fresh: set[str] = set()  # tables of this migration itself: no version uses them yet
    for operation in migration.operations:
        before = state.clone()
        operation.state_forwards(migration.app_label, state)
        for part in _database_operations(operation):
            if isinstance(part, operations.CreateModel):
                fresh.add(part.name_lower)
            elif not allowed and _model_of(part) not in fresh and (why := _refusal(part, migration.app_label, before)):
                yield part.describe(), why


def _our_migrations() -> Iterator[tuple[Migration, ProjectState]]:
    """Yield each migration of the project once, in order, with the models as they are before it.

    ``refused`` needs these models to judge what an operation changes.
    """
    loader = MigrationLoader(None)
    state = ProjectState(real_apps=loader.unmigrated_apps)
    seen: set[tuple[str, str]] = set()
    for leaf in loader.graph.leaf_nodes():
        for key in loader.graph.forwards_plan(leaf):
            if key in seen:
                continue
            seen.add(key)
            migration = loader.graph.nodes[key]
            if _is_ours(migration.app_label):
                yield migration, state.clone()
            state = migration.mutate_state(state, preserve=False)


def _is_ours(app_label: str) -> bool:
    """Return True if the app is part of this project and not an installed package."""
    folders = Path(apps.get_app_config(app_label).path).parts
    return "site-packages" not in folders and "dist-packages" not in folders


def _database_operations(operation: Operation) -> list[Operation]:
    """Return what of an operation changes the database, and not only Django's models."""
    if isinstance(operation, operations.SeparateDatabaseAndState):
        return list(operation.database_operations)
    return [operation]


def _model_of(operation: Operation) -> str:
    """Return the model that an operation changes, in lower case, by its name before; '' for none."""
    name = getattr(operation, "model_name", None) or getattr(operation, "name", None) or ""
    return str(getattr(operation, "old_name", name) if isinstance(operation, operations.RenameModel) else name).lower()


def _refusal(operation: Operation, app_label: str, before: ProjectState) -> str | None:
    """Return why an operation is refused, or None.

    Proxies and unmanaged models have no table of Django's.
    """
    known = before.models.get((app_label, _model_of(operation)))
    if known is not None and (known.options.get("proxy") or not known.options.get("managed", True)):
        return None
    for kind, judge in JUDGES:
        if isinstance(operation, kind):
            return judge(operation, app_label, before)
    return None


def _added_field(operation: operations.AddField, app_label: str, before: ProjectState) -> str | None:
    """Refuse a new column that rewrites the table, that old INSERTs leave empty, or has an index."""
    field = operation.field
    if field.many_to_many:
        return None
    default = field.db_default
    if isinstance(field, models.GeneratedField) or (hasattr(default, "resolve_expression") and not _is_steady(default)):
        return REWRITES
    if not field.null and default is models.NOT_PROVIDED:
        return REFUSES
    return READS if _has_index(field) else None


def _is_steady(default: Any) -> bool:
    """Return True if all rows get the same value, which Postgres stores once and not in each row."""
    return isinstance(default, Now | models.Value)


def _altered_field(operation: operations.AlterField, app_label: str, before: ProjectState) -> str | None:
    """Refuse a change that renames the column, rewrites the table, or reads all of it."""
    after = before.clone()
    operation.state_forwards(app_label, after)
    old, new = (
        state.apps.get_model(app_label, operation.model_name)._meta.get_field(operation.name)
        for state in (before, after)
    )
    assert isinstance(old, Field)
    assert isinstance(new, Field)
    if old.column != new.column:
        return RENAMES
    if not _same_on_disk(old.db_parameters(connection), new.db_parameters(connection)):
        return REWRITES
    if old.null and not new.null:
        return READS
    return READS if _has_index(new) and not _has_index(old) else None


def _has_index(field: Field[Any, Any]) -> bool:
    return field.unique or bool(getattr(field, "db_index", False))


def _same_on_disk(old: Any, new: Any) -> bool:
    """Return True if no row must be written again: the type stays, or a text column gets longer."""
    if old.get("collation") != new.get("collation"):
        return False
    lengths = [re.fullmatch(r"varchar\((\d+)\)", each["type"] or "") for each in (old, new)]
    if lengths[0] and lengths[1]:
        return int(lengths[1][1]) >= int(lengths[0][1])
    return old["type"] == new["type"] or bool(lengths[0] and new["type"] in ("text", "varchar"))


def _run_sql(operation: operations.RunSQL, app_label: str, before: ProjectState) -> str | None:
    """Refuse a RunSQL that contains one of the patterns in ``SQL``."""
    for statement in _statements(operation.sql):
        for pattern, why in SQL:
            if re.search(pattern, statement, re.IGNORECASE):
                return why
    return None


def _statements(sql: Any) -> Iterator[str]:
    """Yield the single statements of a RunSQL, each on one line, without comments and constants."""
    pieces = [sql] if isinstance(sql, str) else [part if isinstance(part, str) else part[0] for part in sql]
    for piece in pieces:
        for statement in NOT_SQL.sub(" ", piece).split(";"):
            yield " ".join(statement.split())


def _always(why: str) -> Callable[[Any, str, ProjectState], str | None]:
    """Return a judge that refuses every operation of its kind for the same reason."""
    return lambda operation, app_label, before: why


Judge = Callable[[Any, str, ProjectState], str | None]
# Kind of operation -> the function that says why it is refused. The first that fits decides.
JUDGES: tuple[tuple[type[Operation] | tuple[type[Operation], ...], Judge], ...] = (
    ((operations.RenameModel, operations.RenameField, operations.AlterModelTable), _always(RENAMES)),
    ((operations.DeleteModel, operations.RemoveField), _always(DROPS)),
    ((AddIndexConcurrently, AddConstraintNotValid), lambda *_: None),
    ((operations.AddIndex, operations.AddConstraint), _always(READS)),
    ((operations.AlterUniqueTogether, operations.AlterIndexTogether), _always(READS)),
    (operations.AddField, _added_field),
    (operations.AlterField, _altered_field),
    (operations.RunSQL, _run_sql),
)
