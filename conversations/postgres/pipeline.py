"""Statements with values: prepared once per connection, sent together, answered together. On psycopg's ``pq`` alone.

A cursor is made for one statement at a time: for each it makes objects, looks at what came meanwhile, and sends a
packet that wakes the server. A batch of ours is always the same few statements, so they are written into libpq's
pipeline one behind the other, sent at once, and read at once.

Values travel as text, and Postgres gives them the types that their places ask for; bytes travel as they are.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import re
import select
import struct
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
from psycopg import errors, pq
from psycopg.adapt import Transformer

Row = tuple[Any, ...]
Params = Sequence[Any] | Mapping[str, Any]
Statement = tuple[str, Params]

# What is prepared is not what it was: somebody dropped it, or a table that it reads has other columns now. It was not
# run, and asked again it is prepared anew.
STALE = (errors.InvalidSqlStatementName, errors.FeatureNotSupported)

TEXT, BINARY = 0, 1
BYTEA = 17  # its oid
_PLACE = re.compile(r"%(?:\((\w+)\)s|(s)|(%))")
_numbers = itertools.count(1)


class _Text(NamedTuple):
    """A statement as Postgres wants it: ``$1`` for the first of ``names``. Its name is the same on all connections."""

    name: bytes
    text: bytes
    names: tuple[str, ...]
    by_place: bool

    def values(self, params: Params) -> Sequence[Any]:
        if self.by_place:
            assert not isinstance(params, Mapping)
            return params
        assert isinstance(params, Mapping) or not self.names
        return [params[name] for name in self.names]  # type: ignore[call-overload]


@functools.lru_cache(maxsize=1024)
def _compiled(query: str) -> _Text:
    """``%(name)s`` or ``%s`` become numbered places; ``%%`` a percent sign."""
    names: dict[str, int] = {}
    places = itertools.count(1)

    def place(match: re.Match[str]) -> str:
        name, positional, _ = match.groups()
        if positional:
            return f"${next(places)}"
        return f"${names.setdefault(name, len(names) + 1)}" if name else "%"

    text = _PLACE.sub(place, query)
    return _Text(b"s%d" % next(_numbers), text.encode(), tuple(names), next(places) > 1)


class _Session:
    """What is known of a connection: which statements it has prepared, how its answers are read."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.prepares = False
        self.prepared: set[bytes] = set()
        self.asked: set[bytes] = set()  # and those on their way
        self.forgotten = 0
        self.transformer = Transformer(connection)
        self.readable = select.poll()
        self.readable.register(connection.pgconn.socket, select.POLLIN)
        self.both = select.poll()
        self.both.register(connection.pgconn.socket, select.POLLIN | select.POLLOUT)


def allow(connection: psycopg.Connection[Any]) -> None:
    """Statements may be prepared on ``connection``. psycopg's own are not: it drops all of a session's together."""
    connection.prepare_threshold = None
    _session(connection).prepares = True


def _session(connection: psycopg.Connection[Any]) -> _Session:
    """Kept on the connection itself, so that it goes with it."""
    known = vars(connection)
    session: _Session | None = known.get("statements")
    if session is None:
        session = known["statements"] = _Session(connection)
    return session


class Answer(NamedTuple):
    """What a statement returned. ``word``: the server's command tag."""

    word: str
    rows: list[Row]


def run(
    connection: psycopg.Connection[Any], groups: Iterable[Sequence[Statement]]
) -> list[list[Answer] | psycopg.Error]:
    """Send all statements in one go; what each of a group returned, or the group's first error.

    A group ends where the server commits what is not in a transaction, and where it goes on after an error.
    Raises ``psycopg.OperationalError`` when the connection breaks: it is closed then, and what was done is unknown.
    Raises what a value's encoding raises, before anything is sent.
    """
    encoded = [[_encoded(*statement) for statement in group] for group in groups]
    session, pgconn = _session(connection), connection.pgconn
    try:
        pgconn.enter_pipeline_mode()
        expected = [_send(pgconn, session, group) for group in encoded]
        _flush(pgconn, session)
        results = [_results(pgconn, session, statements) for statements in expected]
        pgconn.exit_pipeline_mode()
    except BaseException:
        connection.close()  # something may still come that nobody would know
        raise
    if session.prepares and any(isinstance(result, STALE) for result in results):
        session.prepared.clear()  # whoever asks again has them anew, under other names
        session.forgotten += 1
    session.asked = set(session.prepared)
    return [_answers(session, its) for its in results]


def run_together(connection: psycopg.Connection[Any], statements: Sequence[Statement]) -> list[Answer]:
    """One group. Raises its first error."""
    (answers,) = run(connection, [statements])
    if isinstance(answers, psycopg.Error):
        raise answers
    return answers


# ---------------------------------------------------------------- sending

_Encoded = tuple[_Text, list[bytes | None], list[int]]


def _encoded(query: str, params: Params) -> _Encoded:
    compiled = _compiled(query)
    values: list[bytes | None] = []
    formats: list[int] = []
    for value in compiled.values(params):
        encoded, format_ = _encode(value)
        values.append(encoded)
        formats.append(format_)
    return compiled, values, formats


def _send(pgconn: pq.abc.PGconn, session: _Session, group: Sequence[_Encoded]) -> list[Callable[[], object] | None]:
    """Into libpq's buffer. What is to be done once each of these is answered well; None: its answer is wanted."""
    expected: list[Callable[[], object] | None] = []
    here: set[bytes] = set()  # prepared on the way: what comes before it in its group was answered well, or neither is
    for compiled, values, formats in group:
        name = b"%b_%d" % (compiled.name, session.forgotten)
        if session.prepares and name not in session.asked:
            pgconn.send_prepare(name, compiled.text)
            expected.append(functools.partial(session.prepared.add, name))
            session.asked.add(name)
            here.add(name)
        if name in session.prepared or name in here:
            pgconn.send_query_prepared(name, values, formats)
        else:  # nobody prepares here, or another group does, and it is not known yet whether it can
            pgconn.send_query_params(compiled.text, values, param_formats=formats)
        expected.append(None)
    pgconn.pipeline_sync()
    return expected


def _flush(pgconn: pq.abc.PGconn, session: _Session) -> None:
    while pgconn.flush():
        for _, event in session.both.poll():
            if event & ~select.POLLOUT:
                pgconn.consume_input()


# ---------------------------------------------------------------- reading


def _results(
    pgconn: pq.abc.PGconn, session: _Session, expected: Sequence[Callable[[], object] | None]
) -> list[pq.abc.PGresult] | psycopg.Error:
    """What came back for a group, up to where it ends."""
    results: list[pq.abc.PGresult] = []
    error: psycopg.Error | None = None
    for done in expected:
        result = _next(pgconn, session)
        if result is None or _next(pgconn, session) is not None:
            raise psycopg.OperationalError("an answer that was not expected")
        match result.status:
            case pq.ExecStatus.TUPLES_OK | pq.ExecStatus.COMMAND_OK:
                if done is not None:
                    done()
                else:
                    results.append(result)
            case pq.ExecStatus.PIPELINE_ABORTED:
                pass  # what came behind the error
            case _:
                error = error or errors.error_from_result(result)
    end = _next(pgconn, session)
    if end is not None and end.status == pq.ExecStatus.FATAL_ERROR:  # at the commit: what is checked only there
        error = error or errors.error_from_result(end)
        if _next(pgconn, session) is None:
            end = _next(pgconn, session)
    if end is None or end.status != pq.ExecStatus.PIPELINE_SYNC:
        raise psycopg.OperationalError("an answer that was not expected")
    return results if error is None else error


def _next(pgconn: pq.abc.PGconn, session: _Session) -> pq.abc.PGresult | None:
    while pgconn.is_busy():
        session.readable.poll()
        pgconn.consume_input()
    return pgconn.get_result()


def _answers(session: _Session, results: list[pq.abc.PGresult] | psycopg.Error) -> list[Answer] | psycopg.Error:
    """Rows that Python cannot hold (a date of the year 10000) are their group's error, and nobody else's."""
    if isinstance(results, psycopg.Error):
        return results
    try:
        return [Answer((result.command_status or b"").decode(), _rows(session, result)) for result in results]
    except psycopg.DataError as error:
        return error
    finally:
        session.transformer.set_pgresult(None)


def _rows(session: _Session, result: pq.abc.PGresult) -> list[Row]:
    count = result.ntuples
    if not count:
        return []
    session.transformer.set_pgresult(result)
    return session.transformer.load_rows(0, count, tuple)


# ---------------------------------------------------------------- values


def _encode(value: Any) -> tuple[bytes | None, int]:
    match value:
        case None:
            return None, TEXT
        case str():
            return _text(value), TEXT
        case bytes():
            return value, BINARY
        case list() | tuple():
            if value and isinstance(value[0], bytes):
                return _byte_strings(value), BINARY
            return _text("{" + ",".join(map(_element, value)) + "}"), TEXT
        case bool():
            return (b"t" if value else b"f"), TEXT
        case _:
            return _written(value).encode(), TEXT


def _text(value: str) -> bytes:
    """Raises ``psycopg.DataError`` for a NUL, where libpq would end, and ``UnicodeError`` for half a pair."""
    if "\0" in value:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return value.encode()


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if not isinstance(value, str):
        return _written(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _written(value: Any) -> str:
    """Where Postgres reads what Python writes."""
    if not isinstance(value, int | float | Decimal | uuid.UUID | dt.date):
        raise psycopg.DataError(f"a {type(value).__name__} is no value of a statement")
    return str(value)


def _byte_strings(values: Sequence[bytes]) -> bytes:
    """A ``bytea[]`` as Postgres sends one: dimensions, whether one is null, oid; length, lowest index; the elements."""
    head = struct.pack("!iiIii", 1, 0, BYTEA, len(values), 1)
    return head + b"".join(struct.pack("!i", len(value)) + value for value in values)
