"""The ORM of bots: when a connection goes back to the pool, and whose failure it is if none is free."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import DataError, connections, transaction
from psycopg_pool import PoolTimeout

from conversations import turns
from conversations.postgres.bot_connections.base import DatabaseWrapper
from tests.handling.test_async_turns import TASK
from tests.kit.stack import wait_until

IsFree = Callable[[], bool]


@pytest.fixture(autouse=True)
def own_pool(own_database: str) -> Iterator[None]:
    """A database "bots": the same one, with a pool of one connection, which all threads share."""
    pool = {"min_size": 0, "max_size": 1, "timeout": 0.1}
    values = {"ENGINE": "conversations.postgres.bot_connections", "OPTIONS": {"pool": pool}}
    connections.settings["bots"] = {**connections["default"].settings_dict, **values}
    wait_until(is_somebody_served, 10, "the first connection, which may take longer than the timeout")
    yield
    connections["bots"].close()
    cast(DatabaseWrapper, connections["bots"]).close_pool()
    del connections["bots"]
    del connections.settings["bots"]


@pytest.fixture
def is_free() -> IsFree:
    """Whether somebody else gets the connection."""
    return is_somebody_served


def is_somebody_served() -> bool:
    other = DatabaseWrapper(connections.settings["bots"], "bots")
    with contextlib.suppress(Exception), other.cursor() as cursor:
        cursor.execute("SELECT 1")
        return True
    return False


def types() -> Any:
    return ContentType.objects.using("bots")


def test_a_query_outside_a_transaction_leaves_its_connection_to_others(is_free: IsFree) -> None:
    assert types().count() > 0
    assert is_free()
    assert types().first() is not None
    assert is_free()


def test_a_transaction_keeps_its_connection_until_it_ends(is_free: IsFree) -> None:
    ran: list[bool] = []
    with transaction.atomic("bots"):
        assert types().count() > 0
        with transaction.atomic("bots"), contextlib.suppress(ZeroDivisionError), transaction.atomic("bots"):
            assert not is_free()
            raise ZeroDivisionError
        transaction.on_commit(lambda: ran.append(types().exists()), "bots")
        transaction.on_commit(lambda: ran.append(types().exists()), "bots")
        assert not is_free()
    assert ran == [True, True]
    assert is_free()
    with contextlib.suppress(ZeroDivisionError), transaction.atomic("bots"):
        types().count()
        raise ZeroDivisionError
    assert is_free()
    transaction.on_commit(lambda: ran.append(True), "bots")  # at once, and without a connection
    assert len(ran) == 3
    assert is_free()


@pytest.mark.parametrize("server_side", [False, True])
def test_rows_can_be_read_one_by_one(is_free: IsFree, server_side: bool) -> None:
    connections["bots"].settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = not server_side
    rows = types().iterator(chunk_size=2)
    first = next(rows)
    assert is_free() is not server_side, "without a server-side cursor, Django has read all rows"
    assert types().count() == 1 + len(list(rows))
    assert first is not None
    assert is_free()
    next(types().iterator(chunk_size=2))  # given up in the middle
    assert is_free()


def test_a_cursor_keeps_its_connection_until_it_is_closed(is_free: IsFree) -> None:
    with connections["bots"].cursor() as cursor:
        cursor.execute("SET application_name = 'mine'")
        assert not is_free()
        cursor.execute("SHOW application_name")
        assert cursor.fetchall() == [("mine",)]
    assert is_free()
    connections["bots"].set_autocommit(False)
    types().count()
    assert not is_free()
    connections["bots"].rollback()
    connections["bots"].set_autocommit(True)
    assert is_free()


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_transaction_that_sql_began_keeps_its_connection_until_it_ends(is_free: IsFree, end: str) -> None:
    """Else its later statements would run outside of it, on another connection."""

    def run(query: str) -> list[Any]:
        with connections["bots"].cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall() if query.startswith("SHOW") else []

    run("BEGIN")
    assert not is_free()
    run("SET LOCAL application_name = 'mine'")
    assert types().count() > 0
    assert run("SHOW application_name") == [("mine",)]
    with contextlib.suppress(DataError):
        run("SELECT 1 / 0")
    assert not is_free(), "the transaction failed, and has not ended"
    run(end)
    assert is_free()


def test_a_list_of_queries_for_debugging_changes_nothing(is_free: IsFree) -> None:
    connections["bots"].force_debug_cursor = True
    types().count()
    assert is_free()
    assert len(connections["bots"].queries) == 1


def test_a_bot_that_leaves_atomic_open_harms_no_later_turn_of_its_thread() -> None:
    def bot(turn: turns.Turn) -> None:
        transaction.atomic("bots").__enter__()
        turn.reply(str(types().count() > 0))

    assert [turns.run(bot, TASK).error_type for _ in range(3)] == ["", "", ""]


def test_a_lack_of_connections_is_not_the_bots_failure() -> None:
    def bot(turn: turns.Turn) -> None:
        try:
            types().count()
        except Exception as error:
            raise RuntimeError("the shop is closed") from error

    def other_pool(turn: turns.Turn) -> None:
        raise PoolTimeout("the shop's own database is down")

    def isolated() -> None:
        outputs.extend(turns.run(function, TASK) for function in (bot, lambda turn: 1 / 0, other_pool))

    outputs: list[turns.Output] = []
    with transaction.atomic("bots"):
        types().count()
        thread = threading.Thread(target=isolated)
        thread.start()
        thread.join()
    assert [(output.error_type, output.is_shortage) for output in outputs] == [
        ("RuntimeError", True),
        ("ZeroDivisionError", False),
        ("psycopg_pool.PoolTimeout", False),
    ]
