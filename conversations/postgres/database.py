"""The core's own connections: plain psycopg, autocommit, one owner each. Django's ORM has its small pool beside them.

The three batched streams write through ``conversations.postgres.committer``; ``read`` is the process's one reader.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec
import psycopg
from django.conf import settings
from psycopg.types.json import set_json_dumps, set_json_loads

from conversations.failpoints import failpoint
from conversations.postgres import connection_budget, durability, pipeline
from conversations.postgres.pipeline import Params, Row, Statement

CONNECT_SECONDS = 3
# What a frozen or lost client may hold up, at most (milliseconds); SET LOCAL, which PgBouncer allows. The last one,
# where the server has it, is for a client that freezes while it still sends: it is not idle in its transaction.
LIMITS = (
    "SELECT set_config('lock_timeout', '500', true), set_config('statement_timeout', '2000', true),"
    " set_config('idle_in_transaction_session_timeout', '2000', true)"
)
TRANSACTION_LIMIT = ", set_config('transaction_timeout', '5000', true)"
TRANSACTION_LIMIT_SINCE = 170_000
# Statements are prepared once, perhaps while tables are empty: their plans must not be those of empty tables, nor be
# made anew each time. They look rows up by key, a few at a time: in sql/, LIMIT 1 in a LATERAL, OFFSET 0 in an EXISTS
# and `id = ANY (ARRAY(...))` beside a join leave the planner no other way; see tests/postgres/test_plans.py.
# Behind PgBouncer the client knows another process id than the session has: it is handed on, and keeps nothing.
PLANS = """SELECT set_config(name, value, pg_backend_pid() <> %s)
             FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'), ('enable_seqscan', 'off'),
                          ('enable_bitmapscan', 'off')) AS ours(name, value)"""

set_json_dumps(lambda value: msgspec.json.encode(value).decode())
set_json_loads(msgspec.json.decode)


def connect(name: str) -> psycopg.Connection[Row]:
    """A new autocommit connection. Raises ``psycopg.OperationalError`` within a few seconds."""
    connection = psycopg.connect(
        settings.DATABASE_URL,
        autocommit=True,
        client_encoding="utf8",  # whatever a role or the environment says: ``prepared`` writes nothing else
        application_name=connection_budget.named(name),
        connect_timeout=CONNECT_SECONDS,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=15_000,
    )
    durability.verify_once(connection)
    if settings.PREPARED_STATEMENTS:  # not behind a PgBouncer that is older
        connection.execute(PLANS, (connection.info.backend_pid,))
        pipeline.allow(connection)
    else:
        connection.prepare_threshold = None
    return connection


def transaction(
    connection: psycopg.Connection[Row], statements: Mapping[str, Statement], point: str = ""
) -> dict[str, list[Row]]:
    """Run ``statements`` in their order as one transaction; the rows of each, by name.

    BEGIN, the limits, the statements and COMMIT travel together, so that no client round trip lies
    between the first row lock and the commit. Raises the first error; then nothing was written, or,
    when the connection broke, it is unknown. ``point``: the failpoint before COMMIT.
    """
    waiting = [("BEGIN", ()), (_limits(connection), ()), *statements.values()]
    answers: list[pipeline.Answer] = []

    def send() -> None:
        answers.extend(pipeline.run_together(connection, waiting))
        waiting.clear()

    try:
        failpoint(point, first=send)
        waiting.append(("COMMIT", ()))
        send()
    except BaseException:
        if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.rollback()
        raise
    if answers[-1].word != "COMMIT":
        raise psycopg.OperationalError(f"the server answered {answers[-1].word} to COMMIT")
    return dict(zip(statements, (answer.rows for answer in answers[2:-1]), strict=True))


def each(connection: psycopg.Connection[Row], statements: Sequence[Statement]) -> list[list[Row] | psycopg.Error]:
    """Each of ``statements`` in a transaction of its own, all in one trip: its rows, or its error."""
    if not all(params for _, params in statements):
        return [_alone(connection, *statement) for statement in statements]
    outcomes = pipeline.run(connection, [[statement] for statement in statements])
    if stale := [place for place, outcome in enumerate(outcomes) if isinstance(outcome, pipeline.STALE)]:
        anew = pipeline.run(connection, [[statements[place]] for place in stale])  # those did nothing
        outcomes = [*outcomes]
        for place, outcome in zip(stale, anew, strict=True):
            outcomes[place] = outcome
    return [outcome if isinstance(outcome, psycopg.Error) else outcome[0].rows for outcome in outcomes]


def _alone(connection: psycopg.Connection[Row], query: str, params: Params) -> list[Row] | psycopg.Error:
    """Without values it may be several, separated by semicolons."""
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
    return LIMITS + TRANSACTION_LIMIT if connection.info.server_version >= TRANSACTION_LIMIT_SINCE else LIMITS


class Reader:
    """One connection for reads, shared by a process's threads; opened on demand, replaced when it breaks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Row] | None = None

    def read(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """The rows of each; tried once more on a new connection when the old one turns out broken."""
        with self._lock:
            for last in (False, True):
                try:
                    if self._connection is None or self._connection.closed:
                        self._connection = connect(self.name)
                    return rows_of(each(self._connection, statements))
                except psycopg.OperationalError:
                    self.close()
                    if last:
                        raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def rows_of(outcomes: Sequence[list[Row] | psycopg.Error]) -> list[list[Row]]:
    """Raises the first error."""
    rows = []
    for outcome in outcomes:
        if isinstance(outcome, psycopg.Error):
            raise outcome
        rows.append(outcome)
    return rows


Run = Callable[[Sequence[Statement]], list[list[Row]]]

_reader = Reader("reader")
_run: Run = _reader.read


def read(query: str, params: Params = ()) -> list[Row]:
    """Rows of one statement, through the process's one reader. Raises ``psycopg.Error``."""
    return _run([(query, params)])[0]


def execute(query: str, params: Params = ()) -> list[Row]:
    """One statement in a transaction of its own, by the same way."""
    return _run([(query, params)])[0]


def execute_all(statements: Sequence[Statement]) -> list[list[Row]]:
    """Each in a transaction of its own, one after the other, in one trip; raises the first error."""
    return _run(statements)


def _always_asked() -> None:
    """A connection of one's own is not shared by waiting threads."""


_refuse_if_silent: Callable[[], None] = _always_asked


def refuse_if_silent() -> None:
    """Raises ``NotStored`` where somebody waits already for a database that does not answer, as far as is known."""
    _refuse_if_silent()


def read_through(run: Run, refuse_if_silent: Callable[[], None] = _always_asked) -> None:
    """Let this process read through ``run`` (its committer) instead of a connection of its own."""
    global _run, _refuse_if_silent
    _run, _refuse_if_silent = run, refuse_if_silent
