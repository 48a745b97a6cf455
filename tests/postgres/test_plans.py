"""No statement of the flow may read a whole table, whatever the server believes of the tables.

A plan is made once per connection and kept until the next analyze: on a fresh installation that is a plan for empty
tables, later one for statistics that are older than the last burst.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conversations.postgres.sql_files import CORE, sql
from tests.kit import plans
from tests.kit.plans import Watched

DOCS = Path(__file__).parents[2] / "docs" / "statements.md"

pytestmark = pytest.mark.usefixtures("own_database")


@pytest.fixture
def watched() -> Iterator[Watched]:
    with plans.watched() as running:
        plans.make_empty(running.connection)
        yield running


def never_analyzed(run: Watched) -> None:
    """A fresh installation."""


def analyzed_while_empty(run: Watched) -> None:
    """Autovacuum looked, and found nothing."""
    plans.analyze(run.connection)


def filled_since(run: Watched) -> None:
    """The first burst after that."""
    plans.analyze(run.connection)
    plans.fill(run.connection, 1_000)


def small(run: Watched) -> None:
    plans.fill(run.connection, 200)
    plans.analyze(run.connection)


def grown(run: Watched) -> None:
    plans.fill(run.connection, 3_000)
    plans.analyze(run.connection)


def huge(run: Watched) -> None:
    """Sixty million lanes, 180 million messages."""
    grown(run)
    plans.pretend(run.connection, 20_000)


STATISTICS = [never_analyzed, analyzed_while_empty, filled_since, small, grown, huge]


@pytest.mark.parametrize("statistics", STATISTICS)
def test_every_access_of_the_flow_is_a_look_up_by_key(watched: Watched, statistics: Callable[[Watched], None]) -> None:
    statistics(watched)
    plans.run_flow(watched)
    assert not _faults(watched)
    assert not _planned_again(watched), "a plan was made for one set of values"


def test_behind_a_pooler_where_each_statement_is_planned_alone_large_tables_are_looked_up_too(settings: Any) -> None:
    settings.PREPARED_STATEMENTS = False
    with plans.watched() as running:
        plans.make_empty(running.connection)
        huge(running)
        plans.run_flow(running)
        assert not _faults(running)


@pytest.mark.parametrize("statistics", [grown, huge])
def test_what_an_open_page_of_staff_polls_is_looked_up_in_large_tables(
    settings: Any, statistics: Callable[[Watched], None]
) -> None:
    settings.PREPARED_STATEMENTS = False  # as Django's own connections do
    with plans.watched() as running:
        plans.make_empty(running.connection)
        statistics(running)
        plans.run_desk(running)
        assert not _faults(running)


def test_every_statement_of_the_flow_was_looked_at(watched: Watched) -> None:
    plans.run_flow(watched)
    elsewhere = ("desk", "migrations")
    files = {path.stem for path in CORE.glob("*/sql/*.sql") if path.parent.parent.name not in elsewhere}
    assert len(files) > 35
    assert files <= watched.names
    assert {plan.name for plan in watched.plans} >= watched.names


def test_every_index_of_a_hot_table_is_justified_in_the_docs(watched: Watched) -> None:
    of = "FROM pg_index WHERE indrelid = ANY (%s::regclass[])"
    rows = watched.connection.execute(f"SELECT indexrelid::regclass::text {of}", [plans.HOT])
    justified = re.findall(r"^\| `(\w+)` \|", DOCS.read_text().partition("## Every index")[2], re.MULTILINE)
    assert sorted(justified) == sorted(name for (name,) in rows)


PLANTED = {
    "a search in all messages": ("SELECT id FROM message WHERE text = %(x)s", {"x": "hello"}),
    "a key that is not the first of its index": ("SELECT id FROM reply WHERE platform_id = %(x)s", {"x": "p"}),
    "a lane's whole history": ("SELECT max(text) FROM message WHERE conversation_id = %(x)s", {"x": 1}),
    "all that is due": ("SELECT count(*) FROM conversation WHERE channel_id = %(x)s AND due_at <= now()", {"x": 1}),
    "a plain join": ("""SELECT m.id FROM json_to_recordset(%(x)s::json) AS i(id bigint)
             JOIN message m ON m.conversation_id = i.id JOIN conversation c ON c.id = m.conversation_id""",
                     {"x": "[]"}),
    "a fence is gone": (sql("release_lanes").replace(" OFFSET 0", "").replace("release_waiting(l.id)", "1"),
                        {"ids": [1, 2]}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_statement_that_reads_much_is_found(watched: Watched, name: str) -> None:
    grown(watched)
    watched.listen()
    watched.run(name, *PLANTED[name])
    watched.connection.execute("SELECT 1")
    assert _faults(watched)


def test_what_a_function_reads_is_found(watched: Watched) -> None:
    grown(watched)
    watched.connection.execute(
        """CREATE FUNCTION reads_all() RETURNS bigint LANGUAGE plpgsql AS $$
           BEGIN RETURN (SELECT count(*) FROM message WHERE text = 'hello'); END $$"""
    )
    watched.listen()
    watched.run("a call", "SELECT reads_all() + %(x)s", {"x": 1})
    watched.connection.execute("SELECT 1")
    assert _faults(watched)


def _faults(run: Watched) -> list[str]:
    keys = plans.keys(run.connection)
    return sorted({fault for plan in run.plans for fault in plans.faults(plan, keys)})


def _planned_again(run: Watched) -> list[Any]:
    return run.connection.execute("SELECT statement FROM pg_prepared_statements WHERE custom_plans > 0").fetchall()
