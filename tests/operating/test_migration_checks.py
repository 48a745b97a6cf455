"""A migration that would break or stop the version that runs meanwhile is refused, and `release` waits its turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import migrations, models
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models.functions import Now, Random

from conversations.operating import migration_checks
from conversations.operating.migration_checks import DROPS, READS, REFUSES, RENAMES, REWRITES

NAMED = [("id", models.BigAutoField(primary_key=True)), ("name", models.CharField(max_length=20, null=True))]


def refusals(*planted: Operation, **marks: str) -> list[str]:
    """Why ``planted`` is refused on a table that is in use."""
    state = ProjectState()
    migrations.CreateModel("Order", NAMED).state_forwards("shop", state)
    migrations.CreateModel("View", NAMED, {"managed": False}).state_forwards("shop", state)
    migration = type("Migration", (migrations.Migration,), {"operations": list(planted), **marks})("0002_x", "shop")
    return [why for _, why in migration_checks.refused(migration, state)]


def altered(field: models.Field[Any, Any]) -> migrations.AlterField:
    return migrations.AlterField("Order", "name", field)


def added(field: models.Field[Any, Any]) -> migrations.AddField:
    return migrations.AddField("Order", "more", field)


REFUSED: list[tuple[Operation, str]] = [
    (migrations.RenameField("Order", "name", "title"), RENAMES),
    (migrations.RenameModel("Order", "Purchase"), RENAMES),
    (migrations.AlterModelTable("Order", "orders"), RENAMES),
    (altered(models.CharField(max_length=20, null=True, db_column="title")), RENAMES),
    (migrations.RemoveField("Order", "name"), DROPS),
    (migrations.DeleteModel("Order"), DROPS),
    (altered(models.IntegerField(null=True)), REWRITES),
    (altered(models.CharField(max_length=10, null=True)), REWRITES),
    (altered(models.CharField(max_length=20, null=True, db_collation="C")), REWRITES),
    (altered(models.CharField(max_length=20)), READS),
    (altered(models.CharField(max_length=20, null=True, unique=True)), READS),
    (added(models.IntegerField(default=0)), REFUSES),
    (added(models.FloatField(db_default=Random())), REWRITES),
    (added(models.IntegerField(null=True, db_index=True)), READS),
    (migrations.AddIndex("Order", models.Index(fields=["name"], name="n")), READS),
    (migrations.AddConstraint("Order", models.CheckConstraint(condition=models.Q(id__gt=0), name="c")), READS),
    (migrations.RunSQL("DROP TABLE shop_order"), DROPS),
    (migrations.RunSQL("ALTER TABLE shop_order DROP name"), DROPS),
    (migrations.RunSQL("alter table shop_order\n  drop column if exists name"), DROPS),
    (migrations.RunSQL("DROP FUNCTION if exists number_lanes(int)"), DROPS),
    (migrations.RunSQL("TRUNCATE shop_order"), DROPS),
    (migrations.RunSQL("ALTER TABLE shop_order RENAME COLUMN name TO title"), RENAMES),
    (migrations.RunSQL("ALTER TABLE shop_order ALTER COLUMN name TYPE text"), REWRITES),
    (migrations.RunSQL(["SELECT 1", ("ALTER TABLE shop_order ALTER name SET DATA TYPE int", None)]), REWRITES),
    (migrations.RunSQL("SELECT 1; -- fine\nVACUUM FULL shop_order"), REWRITES),
    (migrations.RunSQL("ALTER TABLE shop_order ALTER name SET NOT NULL"), READS),
    (migrations.RunSQL("ALTER TABLE shop_order ADD more int NOT NULL"), REFUSES),
    (migrations.RunSQL("ALTER TABLE shop_order ADD CONSTRAINT c CHECK (id > 0)"), READS),
    (migrations.RunSQL("CREATE INDEX n ON shop_order (name)"), READS),
    (migrations.SeparateDatabaseAndState([migrations.RunSQL("DROP TABLE shop_order")]), DROPS),
]

ALLOWED: list[Operation] = [
    altered(models.CharField(max_length=40, null=True)),
    altered(models.TextField(null=True)),
    altered(models.CharField(max_length=20, null=True, choices=[("a", "A")])),
    added(models.IntegerField(null=True)),
    added(models.IntegerField(db_default=0)),
    added(models.DateTimeField(db_default=Now())),
    AddIndexConcurrently("Order", models.Index(fields=["name"], name="n")),
    AddConstraintNotValid("Order", models.CheckConstraint(condition=models.Q(id__gt=0), name="c")),
    migrations.RemoveIndex("Order", "n"),
    migrations.DeleteModel("View"),
    migrations.RunSQL("CREATE INDEX CONCURRENTLY n ON shop_order (name)"),
    migrations.RunSQL("ALTER TABLE shop_order ADD CONSTRAINT c CHECK (id > 0) NOT VALID"),
    migrations.RunSQL("ALTER TABLE shop_order ADD COLUMN more int NOT NULL DEFAULT 0"),
    migrations.RunSQL("ALTER TABLE shop_order DROP CONSTRAINT c; ALTER TABLE shop_order ALTER name DROP NOT NULL"),
    migrations.RunSQL("UPDATE shop_order SET name = 'DROP TABLE shop_order'"),
    migrations.RunSQL("CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$BEGIN DROP TABLE old; END$$"),
    migrations.SeparateDatabaseAndState(state_operations=[migrations.RemoveField("Order", "name")]),
]


def named(value: object) -> str:
    return getattr(value, "sql", None) or value.describe() if isinstance(value, Operation) else str(value)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("planted", "why"), REFUSED, ids=named)
def test_it_is_refused_on_a_table_in_use(planted: Operation, why: str) -> None:
    assert refusals(planted) == [why]


@pytest.mark.parametrize("planted", ALLOWED, ids=named)
def test_it_is_allowed_on_a_table_in_use(planted: Operation) -> None:
    assert refusals(planted) == []


@pytest.mark.parametrize("planted", [each for each, _ in REFUSED], ids=named)
def test_a_reason_in_the_migration_allows_it_and_an_empty_one_does_not(planted: Operation) -> None:
    assert refusals(planted, safe_because="nothing uses it since 1.4") == []
    assert len(refusals(planted, safe_because=" ")) == 1


def test_a_table_of_the_same_migration_is_not_in_use() -> None:
    make = migrations.CreateModel("Line", NAMED)
    index = migrations.AddIndex("Line", models.Index(fields=["name"], name="l"))
    assert refusals(make, index, migrations.RenameField("Line", "name", "title")) == []


# ---------------------------------------------------------------- the commands

FIRST = """
from django.db import migrations, models
class Migration(migrations.Migration):
    operations = [migrations.CreateModel("Order", [("id", models.BigAutoField(primary_key=True)),
                                                   ("name", models.TextField())])]
"""
SECOND = """
from django.db import migrations
class Migration(migrations.Migration):
    dependencies = [("planted_shop", "0001_first")]
    operations = [migrations.RemoveField("Order", "name")]
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Path]:
    """A team's app with two migrations, the second one bad."""
    folder = tmp_path / "planted_shop" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "0001_first.py").write_text(FIRST)
    (folder / "0002_second.py").write_text(SECOND)
    monkeypatch.syspath_prepend(tmp_path)
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "planted_shop"]
    yield folder
    for name in [name for name in sys.modules if name.startswith("planted_shop")]:
        del sys.modules[name]


def test_check_and_release_refuse_a_bad_migration_before_anything_is_changed(shop: Path, own_database: str) -> None:
    with pytest.raises(SystemCheckError, match=r"planted_shop\.0002_second drops what the running version uses"):
        call_command("check")
    with pytest.raises(SystemCheckError, match=r"Remove field name from Order"):
        call_command("release")
    with psycopg.connect(own_database) as connection:
        assert connection.execute("SELECT to_regclass('planted_shop_order')").fetchone() == (None,)
    (shop / "0002_second.py").write_text(SECOND + '    safe_because = "nothing has read it since 1.4"\n')
    del sys.modules["planted_shop.migrations.0002_second"]
    call_command("check")


def test_our_own_migrations_pass() -> None:
    assert migration_checks.migrations_leave_the_running_version_alone(None) == []
