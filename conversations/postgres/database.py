"""The core's own connections: plain psycopg, autocommit, one owner each. The ORM has its own pool.

Batches are written through ``conversations.postgres.committer``. What a process reads goes through
``conversations.runtime``.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import psycopg
from django.conf import settings
from psycopg.types.json import set_json_dumps, set_json_loads

from conversations.failpoints import failpoint
from conversations.postgres import durability, pipeline
from conversations.postgres.pipeline import Params, Row, Statement

# Seconds to open a connection, at most. Larger: a caller waits longer for a database that is away.
# Smaller: a busy server, or a distant one, cannot be reached.
CONNECT_SECONDS = 3
# Limits of a transaction in milliseconds: of a wait for a lock, of a statement, and of the time
# between two statements. They bound how long a frozen or lost client keeps rows locked. Larger:
# others wait longer for these rows. Smaller: slow statements fail. They are set inside the
# transaction (the ``true`` of set_config), because PgBouncer may give each one another session. jit
# is off for the same reason: a plan that Postgres compiles first takes longer than these limits.
LIMITS = (
    "SELECT set_config('lock_timeout', '500', true), set_config('statement_timeout', '2000', true),"
    " set_config('idle_in_transaction_session_timeout', '2000', true), set_config('jit', 'off', true)"
)
# Limit of the whole transaction in milliseconds, for a client that freezes while it sends: the
# limits above do not see it. Larger: its rows stay locked for longer. Smaller: large batches fail.
# Postgres has this setting since version 17.
TRANSACTION_LIMIT = ", set_config('transaction_timeout', '5000', true)"
TRANSACTION_LIMIT_SINCE = 170_000
# Settings for the plans of prepared statements. A statement is prepared once, perhaps while its
# tables are empty, and keeps its generic plan. Every statement looks up a few rows by key; scans
# are off so that no plan scans a table that grows later. In the statements, LIMIT 1 in a LATERAL,
# OFFSET 0 in an EXISTS and `id = ANY (ARRAY(...))` beside a join leave the planner no other way;
# tests/postgres/test_plans.py looks at every plan. Behind PgBouncer (the process id that the client
# knows is not the session's) the settings end with this statement: others use the session, too.
#
# The lock_timeout in milliseconds is for statements outside ``transaction``, which has its own. A
# read that waited for a locked table would keep the heartbeat, which shares its connection, waiting
# as well: a living worker was taken for dead, and its replies in flight were sent again.
SESSION = """SELECT set_config(name, value, pg_backend_pid() <> %s)
             FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'), ('enable_seqscan', 'off'),
                          ('enable_bitmapscan', 'off'), ('lock_timeout', '500')) AS ours(name, value)"""
# The hosts from which web processes store, read from the names of their connections. Behind a
# PgBouncer, a session has the name of the client that used it last.
WEB_HOSTS = """SELECT DISTINCT split_part(application_name, '@', 2) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name LIKE 'store@_%%'"""
NAME_BYTES = 63  # Postgres cuts a longer application_name; we cut alike, to recognise our own

set_json_dumps(lambda value: msgspec.json.encode(value).decode())
set_json_loads(msgspec.json.decode)


def named(name: str) -> str:
    """Return the application name of a connection: its purpose and its host."""
    return f"{name}@{platform.node()}".encode("ascii", "replace")[:NAME_BYTES].decode()


def other_hosts(rows: Iterable[tuple[str]]) -> list[str]:
    """Return the hosts in the rows of ``WEB_HOSTS`` without this one."""
    return sorted(host for (host,) in rows if named("store") != f"store@{host}")


def connect(name: str) -> psycopg.Connection[Row]:
    """Open an autocommit connection. Raises ``psycopg.OperationalError`` within seconds."""
    connection = psycopg.connect(
        settings.DATABASE_URL,
        autocommit=True,
        client_encoding="utf8",  # whatever a role or the environment says: ``pipeline`` writes UTF-8
        application_name=named(name),
        connect_timeout=CONNECT_SECONDS,
        # A lost server is given up after 25 s without traffic, or 15 s after an unanswered packet.
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=15_000,
    )
    durability.verify_once(connection)
    if settings.PREPARED_STATEMENTS:  # off behind a PgBouncer older than 1.22
        connection.execute(SESSION, (connection.info.backend_pid,))
        pipeline.allow_preparing(connection)
    else:
        connection.prepare_threshold = None
    return connection


def transaction(
    connection: psycopg.Connection[Row], statements: Mapping[str, Statement], point: str = ""
) -> dict[str, list[Row]]:
    """Run ``statements`` in their order as one transaction. Return the rows of each, by name.

    BEGIN, the limits, the statements and COMMIT travel together, so that no client round trip lies
    between the first row lock and the commit. Raises the first error; then nothing was written, or,
    when the connection broke, that is unknown. ``point``: the failpoint before COMMIT.
    """
    unsent = [("BEGIN", ()), (_limits(connection), ()), *statements.values()]
    answers: list[pipeline.Answer] = []

    def send() -> None:
        answers.extend(pipeline.run_together(connection, unsent))
        unsent.clear()

    try:
        failpoint(point, first=send)
        unsent.append(("COMMIT", ()))
        send()
    except BaseException:
        if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.rollback()
        raise
    if answers[-1].word != "COMMIT":
        raise psycopg.OperationalError(f"the server answered {answers[-1].word} to COMMIT")
    return dict(zip(statements, (answer.rows for answer in answers[2:-1]), strict=True))


def each(connection: psycopg.Connection[Row], statements: Sequence[Statement]) -> list[list[Row] | psycopg.Error]:
    """Run each statement in its own transaction, all in one round trip.

    Return the rows or the error of each. A prepared statement that turned out stale is sent again.
    """
    if not all(params for _, params in statements):
        return [_alone(connection, *statement) for statement in statements]
    outcomes = pipeline.run(connection, [[statement] for statement in statements])
    if stale := [index for index, outcome in enumerate(outcomes) if isinstance(outcome, pipeline.STALE)]:
        repeated = pipeline.run(connection, [[statements[index]] for index in stale])  # they did not run
        for index, outcome in zip(stale, repeated, strict=True):
            outcomes[index] = outcome
    return [outcome if isinstance(outcome, psycopg.Error) else outcome[0].rows for outcome in outcomes]


def _alone(connection: psycopg.Connection[Row], query: str, params: Params) -> list[Row] | psycopg.Error:
    """Run one statement. Without values it may hold several, separated by semicolons.

    A pipeline cannot send such a text, so it goes through a cursor of psycopg.
    """
    try:
        if params:
            return each(connection, [(query, params)])[0]
        cursor = connection.execute(query)
        result = cursor.pgresult
        return cursor.fetchall() if result is not None and result.status == psycopg.pq.ExecStatus.TUPLES_OK else []
    except psycopg.Error as error:
        if connection.closed:
            raise
        return error


def _limits(connection: psycopg.Connection[Row]) -> str:
    """Return the statement that sets the limits which this server knows."""
    return LIMITS + TRANSACTION_LIMIT if connection.info.server_version >= TRANSACTION_LIMIT_SINCE else LIMITS


class Reader:
    """One connection for reads, shared by threads; opened on demand, replaced when it breaks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Row] | None = None

    def read(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """Return the rows of each statement. If the connection breaks, try again on a new one."""
        with self._lock:
            for is_last_try in (False, True):
                try:
                    if self._connection is None or self._connection.closed:
                        self._connection = connect(self.name)
                    return rows_of(each(self._connection, statements))
                except psycopg.OperationalError:
                    self.close()
                    if is_last_try:
                        raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def rows_of(outcomes: Sequence[list[Row] | psycopg.Error]) -> list[list[Row]]:
    """Return the rows of each outcome of ``each``. Raises the first error."""
    rows = []
    for outcome in outcomes:
        if isinstance(outcome, psycopg.Error):
            raise outcome
        rows.append(outcome)
    return rows
