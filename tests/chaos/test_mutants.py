"""Every planted bug can still be planted: the seams that it needs are still there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest
from django.db import connection, transaction

from conversations.postgres import sql_files
from tests.chaos import mutants
from tests.chaos.mutants.edits import Constant, Ddl, Function, Lua, NotApplied, Sql, Wrapped
from tests.chaos.mutants.planted import MUTANTS
from tests.chaos.mutants.sql_parts import (
    MAIN,
    Assigned,
    Condition,
    Cte,
    NewCte,
    NotFound,
    Ordered,
    Output,
    Part,
    changed,
)
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


WRAP = """
import django
django.setup()
from conversations.postgres.storable_text import clean_text
from tests.chaos import mutants
mutants.apply("text_cut_at_nul")
from conversations.postgres import storable_text
print(clean_text("a\\0b"), storable_text.clean_text("a\\0b"))
"""
PLAIN = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.chaos.settings", "CHAOS_MUTANT": "", "PYTHONPATH": str(ROOT)}


def test_every_bug_can_be_planted_in_a_process() -> None:
    done = subprocess.run([sys.executable, "-c", PLANT_ALL], cwd=ROOT, env=PLAIN, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.django_db
@pytest.mark.parametrize("name", [n for n, m in MUTANTS.items() if any(isinstance(e, Function | Ddl) for e in m.edits)])
def test_a_bug_of_the_database_can_be_planted_once_however_often_it_is_migrated(name: str) -> None:
    with transaction.atomic():
        mutants.plant_in_database(name, connection)
        mutants.plant_in_database(name, connection)
        transaction.set_rollback(True)


@pytest.mark.django_db
@pytest.mark.parametrize("name", [n for n, m in MUTANTS.items() if any(isinstance(e, Sql) for e in m.edits)])
def test_postgres_reads_the_statements_of_a_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that is a syntax error proves nothing either."""
    monkeypatch.setattr(sql_files, "SQL", dict(sql_files.SQL))  # undone afterwards
    statements = [edit for edit in MUTANTS[name].edits if isinstance(edit, Sql)]
    for edit in statements:
        edit.apply()
    with transaction.atomic(), connection.cursor() as cursor:
        mutants.plant_in_database(name, connection)
        cursor.execute("SELECT set_config('app.locked', '1', true)")
        for statement in {edit.name for edit in statements}:
            text = re.sub(r"%\(\w+\)s", "NULL", sql_files.sql(statement)).replace("%%", "%")
            cursor.execute(f"EXPLAIN {text}")
        transaction.set_rollback(True)


STATEMENT = """-- A comment: a.x = 1 AND b.y = 2
WITH one AS MATERIALIZED (
  SELECT a.x, count(*) AS many, coalesce(a.y, 0) + 1 AS more FROM a
   WHERE a.x = %(x)s AND (a.y IS NOT DISTINCT FROM %(y)s OR a.z > 0) ORDER BY a.x, a.y LIMIT 1),
two AS (
  UPDATE b SET x = coalesce(b.x, 'SET x = 1, ('), y = 2 FROM one WHERE b.x = one.x AND b.y = one.y RETURNING b.x)
SELECT x FROM two WHERE CASE WHEN x > 1 THEN true END ORDER BY x"""


@pytest.mark.parametrize(("part", "was"), [
    (Condition("one", "a.x", "%(x)s"), "a.x = %(x)s"),
    (Condition("one", "a.y"), "a.y IS NOT DISTINCT FROM %(y)s"),
    (Condition("one", "a.z"), "a.z > 0"),
    (Condition("two", "b.y"), "b.y = one.y"),
    (Condition(MAIN, "x"), "x > 1"),
    (Assigned("two", "x"), "coalesce(b.x, 'SET x = 1, (')"),
    (Assigned("two", "y"), "2"),
    (Output("one", "many"), "count(*)"),
    (Output("one", "more"), "coalesce(a.y, 0) + 1"),
    (Ordered("a.x", "a.y"), "a.x, a.y"),
    (Ordered("x"), "x"),
])  # fmt: skip
def test_a_part_of_a_statement_is_found_in_any_layout(part: Part, was: str) -> None:
    one_line = " ".join(STATEMENT.partition("\n")[2].split())
    for text in (STATEMENT, one_line):
        assert f"<{was}>" in changed(text, part, "<{}>")
        assert changed(text, part, "{}") == text


def test_a_cte_is_replaced_or_added_as_a_whole() -> None:
    assert "two AS (\n  DELETE FROM b)\nSELECT" in changed(STATEMENT, Cte("two"), "DELETE FROM b")
    assert "RETURNING b.x), three AS (SELECT 1)\nSELECT" in changed(STATEMENT, NewCte("three"), "SELECT 1")


@pytest.mark.parametrize(
    "part", [Condition("one", "a.w"), Condition("three", "a.x"), Assigned("one", "x"), Output("two", "x"), Ordered("y")]
)
def test_a_part_that_is_not_there_once_is_not_found(part: Part) -> None:
    with pytest.raises(NotFound):
        changed(STATEMENT, part, "true")


@pytest.mark.parametrize("edit", [
    Wrapped("conversations.delivering.limiter:no_such_function", "block_nobody"),
    Wrapped("conversations.delivering.limiter:parse_limits", "block_nobody"),
    Constant("conversations.delivering.limiter:NO_SUCH_CONSTANT", 1),
    Sql("claim_due", Cte("no_such_cte"), "SELECT 1"),
    Sql("no_such_statement", Cte("lanes"), "SELECT 1"),
    Lua("no_such_script", ""),
])  # fmt: skip
def test_a_missing_seam_is_refused(edit: Any) -> None:
    with pytest.raises(NotApplied):
        edit.apply()


def test_an_unknown_mutant_is_refused() -> None:
    with pytest.raises(NotApplied, match="no such mutant"):
        mutants.apply("none")


def test_a_wrapped_function_has_the_bug_for_all_who_imported_it() -> None:
    """In a process of its own, which is thrown away."""
    done = subprocess.run([sys.executable, "-c", WRAP], cwd=ROOT, env=PLAIN, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["a", "a"]), done.stderr


def test_the_product_knows_nothing_of_planted_bugs() -> None:
    words = ("CHAOS_MUTANT", "tests.chaos", "mutant")
    folders = ("conversations", "channels_ingest", "botproject")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in files for word in words if word in path.read_text()]
