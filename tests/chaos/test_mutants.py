"""Every planted bug can still be planted: the words that it replaces are still there."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from django.db import connection, transaction

from conversations.postgres import sql_files
from tests.chaos import mutants
from tests.chaos.mutants.edits import Code, Ddl, Function, NotApplied, Sql
from tests.chaos.mutants.planted import MUTANTS
from tests.kit.stack import ROOT

# Each in a fork: what one plants the next must not have.
PLANT_ALL = """
import os, django
django.setup()
from tests.chaos import mutants
from tests.chaos.mutants.planted import MUTANTS
for name in MUTANTS:
    child = os.fork()
    if not child:
        try:
            mutants.apply(name)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def _is_statement(edit: object) -> bool:
    return isinstance(edit, Sql) and edit.loader == "sql"


def test_every_bug_can_be_planted_in_a_process() -> None:
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.chaos.settings", "CHAOS_MUTANT": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PLANT_ALL], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.django_db
@pytest.mark.parametrize("name", [n for n, m in MUTANTS.items() if any(isinstance(e, Function | Ddl) for e in m.edits)])
def test_a_bug_of_the_database_can_be_planted_once_however_often_it_is_migrated(name: str) -> None:
    with transaction.atomic():
        mutants.plant_in_database(name, connection)
        mutants.plant_in_database(name, connection)
        transaction.set_rollback(True)


@pytest.mark.django_db
@pytest.mark.parametrize("name", [n for n, m in MUTANTS.items() if any(_is_statement(e) for e in m.edits)])
def test_postgres_reads_the_statements_of_a_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that is a syntax error proves nothing either."""
    monkeypatch.setattr(sql_files, "SQL", dict(sql_files.SQL))  # undone afterwards
    statements = [edit for edit in MUTANTS[name].edits if _is_statement(edit)]
    for edit in statements:
        edit.apply()
    with transaction.atomic(), connection.cursor() as cursor:
        mutants.plant_in_database(name, connection)
        cursor.execute("SELECT set_config('app.locked', '1', true)")
        for statement in {edit.name for edit in statements}:
            text = re.sub(r"%\(\w+\)s", "NULL", sql_files.sql(statement)).replace("%%", "%")
            cursor.execute(f"EXPLAIN {text}")
        transaction.set_rollback(True)


def test_words_that_are_not_there_are_said() -> None:
    with pytest.raises(NotApplied, match="0 times"):
        Code("conversations.delivering.limiter:parse_limits", "no such words", "").apply()
    with pytest.raises(NotApplied):
        Code("conversations.delivering.limiter:no_such_function", "a", "b").apply()
    with pytest.raises(NotApplied, match="times"):
        Sql("claim_due", "no such words", "").apply()
    with pytest.raises(NotApplied, match="no such mutant"):
        mutants.apply("none")


def test_the_product_knows_nothing_of_planted_bugs() -> None:
    words = ("CHAOS_MUTANT", "tests.chaos", "mutant")
    files = [
        path for folder in ("conversations", "channels_ingest", "botproject") for path in (ROOT / folder).rglob("*.py")
    ]
    assert not [path for path in files for word in words if word in path.read_text()]
