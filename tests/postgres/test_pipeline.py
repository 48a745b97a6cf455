"""Statements that travel together: what comes back, what an error leaves alone, and what a lost connection means."""

from __future__ import annotations

import datetime as dt
import gc
import subprocess
import sys
import uuid
import weakref
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from conversations.postgres import database, pipeline
from conversations.postgres.pipeline import Statement


@pytest.fixture(params=[True, False], ids=["prepared", "unprepared"])
def connection(request: pytest.FixtureRequest, own_database: str, settings: Any) -> Iterator[psycopg.Connection[Any]]:
    """With prepared statements, and as behind an old pooler."""
    settings.PREPARED_STATEMENTS = request.param
    with database.connect("test") as made:
        yield made


def rows(connection: psycopg.Connection[Any], *statements: Statement) -> list[list[tuple[Any, ...]]]:
    return [answer.rows for answer in pipeline.run_together(connection, statements)]


@pytest.mark.parametrize(("type_", "value"), [
    ("text", 'a "word", with \\ and %s and ünïcode 🙂'),
    ("text", ""),
    ("bigint", 2**62),
    ("bigint", None),
    ("float8", 1.5e-7),
    ("boolean", False),
    ("bytea", b"\x00\xff'\\"),
    ("bytea", b""),
    ("uuid", uuid.UUID(int=7)),
    ("timestamptz", dt.datetime(2026, 11, 29, 12, 0, 0, 123456, tzinfo=dt.UTC)),
    ("bigint[]", [1, 2, 2**40]),
    ("bigint[]", []),
    ("text[]", ['quoted "words"', "back\\slash", "comma, brace}", "", "NULL"]),
    ("bytea[]", [b"", b"\x00\x01", b"x" * 100_000]),
    ("bytea[]", []),
])  # fmt: skip
def test_values_arrive_as_they_are(connection: psycopg.Connection[Any], type_: str, value: Any) -> None:
    for _ in range(2):  # the second time it is prepared already
        assert rows(connection, (f"SELECT %(value)s::{type_}", {"value": value})) == [[(value,)]]


def test_places_by_name_and_by_order_and_percent_signs(connection: psycopg.Connection[Any]) -> None:
    named = ("SELECT %(a)s::int - %(b)s::int, %(a)s::int %% 4, '%%'", {"b": 3, "a": 10})
    ordered = ("SELECT %s::int - %s::int", (10, 3))
    assert rows(connection, named, ordered, ("SELECT 1", ())) == [[(7, 2, "%")], [(7,)], [(1,)]]


def test_what_cannot_be_sent_is_refused_before_anything_is(connection: psycopg.Connection[Any]) -> None:
    """At a NUL libpq would end the text, in silence."""
    connection.execute("CREATE TEMP TABLE heard (words text)")
    insert = "INSERT INTO heard VALUES (%(words)s)"
    unknown = ("a\0b", {}, set(), memoryview(b"x"), [{}], object(), Decimal(1), dt.date(2026, 11, 29))
    no_values = [(value, psycopg.DataError) for value in unknown]
    for words, error in [("half \ud800", UnicodeError), *no_values]:
        with pytest.raises(error):
            pipeline.run_together(connection, [(insert, {"words": "fine"}), (insert, {"words": words})])
    assert rows(connection, ("SELECT count(*) FROM heard", ())) == [[(0,)]]


def test_an_error_undoes_its_own_group_and_no_other(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TEMP TABLE counted (n int)")
    insert, broken = ("INSERT INTO counted VALUES (%(n)s)", {"n": 1}), ("SELECT 1 / %(zero)s::int", {"zero": 0})
    first, second, third = pipeline.run(connection, [[insert], [insert, broken, insert], [insert]])
    assert isinstance(second, psycopg.errors.DivisionByZero)
    assert not isinstance(first, psycopg.Error)
    assert not isinstance(third, psycopg.Error)
    assert first[0].word == third[0].word == "INSERT 0 1"
    assert rows(connection, ("SELECT count(*) FROM counted", ())) == [[(2,)]]


def test_a_statement_that_cannot_be_prepared_is_prepared_once_it_can(connection: psycopg.Connection[Any]) -> None:
    ask = ("SELECT n FROM not_there_yet WHERE n = %(n)s", {"n": 1})
    other = ("SELECT %(n)s::int + 1", {"n": 1})
    with pytest.raises(psycopg.errors.UndefinedTable):
        pipeline.run_together(connection, [other, ask])
    connection.execute("CREATE TEMP TABLE not_there_yet AS SELECT 1 AS n")
    assert rows(connection, ask, other) == [[(1,)], [(2,)]]


def test_a_statement_first_used_behind_an_error_is_no_error_elsewhere(connection: psycopg.Connection[Any]) -> None:
    new, broken = ("SELECT %(n)s::int AS unheard_of", {"n": 5}), ("SELECT 1 / %(zero)s::int", {"zero": 0})
    for _ in range(2):
        first, second = pipeline.run(connection, [[broken, new], [new, new]])
        assert isinstance(first, psycopg.errors.DivisionByZero)
        assert not isinstance(second, psycopg.Error)
        assert [answer.rows for answer in second] == [[(5,)], [(5,)]]


def names(connection: psycopg.Connection[Any]) -> set[str]:
    """Of what is prepared there."""
    return {name for (name,) in connection.execute("SELECT name FROM pg_prepared_statements").fetchall()}


def test_what_is_prepared_stays_through_errors_and_what_is_run_beside_it(own_database: str) -> None:
    """psycopg drops all prepared statements of a session, ours too, at a ROLLBACK or DROP once it has one itself."""
    ask = ("SELECT 1 / %(n)s::int", {"n": 1})
    with database.connect("test") as connection:
        database.each(connection, [ask])
        before = names(connection)
        assert len(before) == 1
        for _ in range(10):
            database.each(connection, [("SELECT 1", ())])
        connection.execute("CREATE TEMP TABLE gone (n int)")
        database.each(connection, [("DROP TABLE gone", ())])
        with pytest.raises(psycopg.errors.DivisionByZero):
            database.transaction(connection, {"bad": (ask[0], {"n": 0})})
        assert before <= names(connection)
        assert database.each(connection, [ask]) == [[(1,)]]


def test_deallocated_statements_are_prepared_again(own_database: str) -> None:
    ask, other = ("SELECT %(n)s::int", {"n": 1}), ("SELECT 1 + %(n)s::int", {"n": 1})
    with database.connect("test") as connection:
        database.each(connection, [ask, other])
        connection.execute("DEALLOCATE ALL")
        for _ in range(2):
            assert database.each(connection, [ask, other]) == [[(1,)], [(2,)]]
        connection.execute("DEALLOCATE ALL")
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            database.transaction(connection, {"ask": ask})  # whoever wrote it writes it again
        assert database.transaction(connection, {"ask": ask, "other": other}) == {"ask": [(1,)], "other": [(2,)]}


@pytest.mark.parametrize("prepares", [True, False])
def test_a_column_that_a_release_widens_is_read_on(own_database: str, settings: Any, prepares: bool) -> None:
    """Postgres refuses a prepared statement whose rows would look otherwise than when it was prepared."""
    settings.PREPARED_STATEMENTS = prepares
    ask, other = ("SELECT name FROM widened WHERE n = %(n)s", {"n": 1}), ("SELECT %(n)s::int", {"n": 2})
    with database.connect("test") as connection, database.connect("release") as release:
        release.execute("CREATE TABLE widened AS SELECT 1 AS n, 'it'::varchar(5) AS name")
        try:
            for length in (10, 20):
                database.each(connection, [ask])
                release.execute(f"ALTER TABLE widened ALTER name TYPE varchar({length})")
                assert database.each(connection, [ask, other, ask]) == [[("it",)], [(2,)], [("it",)]]
            release.execute("ALTER TABLE widened ALTER name TYPE varchar(25)")
            assert database.each(connection, [ask, ("SELECT 3", ())]) == [[("it",)], [(3,)]]
            release.execute("ALTER TABLE widened ALTER name TYPE varchar(30)")
            if prepares:
                with pytest.raises(psycopg.errors.FeatureNotSupported):
                    database.transaction(connection, {"ask": ask})
            assert database.transaction(connection, {"ask": ask}) == {"ask": [("it",)]}
        finally:
            release.execute("DROP TABLE widened")


def test_an_error_in_a_transaction_leaves_the_connection_usable(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TEMP TABLE kept (n int CHECK (n > 0))")
    insert = "INSERT INTO kept VALUES (%(n)s)"
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        database.transaction(connection, {"good": (insert, {"n": 1}), "bad": (insert, {"n": -1})})
    assert refused.value.sqlstate == "23514"
    database.transaction(connection, {"good": (insert, {"n": 2})})
    assert rows(connection, ("SELECT n FROM kept", ())) == [[(2,)]]


def test_a_commit_that_is_refused_is_an_error(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TEMP TABLE alone (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    insert = ("INSERT INTO alone VALUES (%(n)s)", {"n": 1})
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.transaction(connection, {"one": insert, "two": insert})
    assert rows(connection, ("SELECT count(*) FROM alone", ())) == [[(0,)]]


def test_a_statement_that_is_refused_when_it_is_committed_is_the_only_one(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TEMP TABLE alone (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    insert, other = ("INSERT INTO alone VALUES (%(n)s)", {"n": 1}), ("SELECT %(n)s::int", {"n": 3})
    first, second, third = database.each(connection, [insert, insert, other])
    assert (first, third) == ([], [(3,)])
    assert isinstance(second, psycopg.errors.UniqueViolation)


def test_rows_that_python_cannot_hold_are_an_error_of_their_statement(connection: psycopg.Connection[Any]) -> None:
    far, near = ("SELECT %(day)s::date", {"day": "10000-01-01"}), ("SELECT %(day)s::date", {"day": "2026-11-29"})
    first, second = database.each(connection, [far, near])
    assert isinstance(first, psycopg.DataError)
    assert second == [(dt.date(2026, 11, 29),)]


def test_text_is_the_same_whatever_encoding_a_role_chose(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with database.connect("test") as connection:
        ask = ("SELECT %(words)s::text, length(%(words)s::text)", {"words": "Grüße 🙂"})
        assert database.each(connection, [ask]) == [[("Grüße 🙂", 7)]]


def test_nothing_of_a_connection_that_is_gone_is_kept(own_database: str) -> None:
    with database.connect("test") as connection:
        database.each(connection, [("SELECT %(n)s::int", {"n": 1})])
    gone = weakref.ref(connection)
    del connection
    gc.collect()
    assert gone() is None


def test_more_than_a_socket_takes_goes_both_ways(connection: psycopg.Connection[Any]) -> None:
    """While the server writes what nobody reads yet, it reads nothing: neither side may wait for the other."""
    large = "x" * 3_000_000
    answers = rows(connection, *[("SELECT %(words)s::text", {"words": large})] * 4)
    assert [len(words) for ((words,),) in answers] == [len(large)] * 4


def test_a_lost_connection_is_closed_and_nothing_is_known(connection: psycopg.Connection[Any]) -> None:
    (pid,) = rows(connection, ("SELECT pg_backend_pid()", ()))[0][0]
    with database.connect("other") as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
    with pytest.raises(psycopg.OperationalError):
        pipeline.run_together(connection, [("SELECT pg_sleep(5), %(n)s::int", {"n": 1})])
    assert connection.closed


def test_a_name_never_means_another_statement() -> None:
    """Behind an old PgBouncer a session may hold what another process prepared under the same name."""
    pipeline._compile("SELECT 3")  # so that numbers, if names were numbers, would differ
    code = "from conversations.postgres.pipeline import _compile as c; print(*(c(f'SELECT {n}').name for n in (2, 1)))"
    elsewhere = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert elsewhere == [str(pipeline._compile(f"SELECT {number}").name) for number in (2, 1)]
    assert elsewhere[0] != elsewhere[1]
