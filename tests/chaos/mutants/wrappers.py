"""Functions with a bug, each in place of one of the product's, which it gets as ``original``, with its parameters."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import psycopg

from conversations import runtime
from conversations.contracts import Sent, Unknown, Work
from conversations.handling.verdicts import Finished
from conversations.lanes import pauses
from conversations.lanes.redis_client import client
from conversations.postgres import database, storable_text
from conversations.postgres.stream import as_json
from conversations.storing import intake
from conversations.storing.rows import StoreItem
from conversations.waking import doorbell, publisher
from tests.chaos.mutants.edits import script

Original = Callable[..., Any]

# ---------------------------------------------------------------- storing


def answer_before_commit(original: Original, stream: Any, items: Any, seconds: float, size: int = 0) -> list[Any]:
    """For ``intake._write``: queue the items, and answer as if they were stored."""
    deadline = time.monotonic() + seconds
    intake.writer().submit(stream, items, lambda tickets: None, deadline=deadline, size=size)
    return [("stored", 0, 0)] * len(items)


def only_those_not_in_table(original: Original, request: Any) -> list[Any]:
    """For ``rows.make_items``: leave out what a SELECT finds."""
    ask = "SELECT 1 FROM message WHERE identity = decode(%s, 'hex')"
    return _only(original(request), lambda identity: not runtime.read(ask, (identity,)))


def only_those_not_in_redis(original: Original, request: Any) -> list[Any]:
    """For ``rows.make_items``: leave out what Redis has seen."""
    return _only(original(request), lambda identity: bool(client().set(f"seen:{identity}", 1, nx=True, ex=600)))


def _only(items: list[Any], is_new: Callable[[str], bool]) -> list[Any]:
    new = [item for item in items if item.row is None or is_new(item.row.identity)]
    return new or [StoreItem(items[0].receipt)]


def without_locking_lanes(original: Original, self: Any, items: Any, firsts: Any, twins: Any) -> dict[str, Any]:
    """For ``StoreStream._statements``."""
    return {name: statement for name, statement in original(self, items, firsts, twins).items() if name != "lock"}


def locked_counts_as_stored(original: Original, self: Any, item: Any, found: Any) -> Any:
    """For ``StoreStream._result``: what waits for a lane is taken for what is there already."""
    return original(self, item, ("duplicate", found[1]) if found and found[0] == "busy" else found)


def cut_at_nul(original: Original, text: str, limit: int | None = None) -> str:
    """For ``storable_text.clean_text``."""
    return str(original(storable_text._UNSTORABLE.split(text)[0], limit))


# ---------------------------------------------------------------- handling

REPLIES = script("replies_afterwards")
LOCK = "SELECT id FROM conversation WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR NO KEY UPDATE"
APART_SECONDS = 0.1  # a slow database between the two


def replies_afterwards(original: Original, self: Any, connection: psycopg.Connection[Any], items: Any) -> list[Any]:
    """For ``TurnStream.write``: write the replies of the turns that were committed in a transaction of their own."""
    bare = [msgspec.structs.replace(item.verdict, replies=None) for item in items]
    rows = original(self, connection, [Finished(one, item.head, item.channel) for one, item in zip(bare, items)])
    time.sleep(APART_SECONDS)
    committed = [item.verdict for item, row in zip(items, rows) if isinstance(row, tuple) and row[0] == "committed"]
    _write_replies(connection, [verdict for verdict in committed if verdict.replies])
    speaks = {verdict.id for verdict in committed if verdict.replies}
    return [(*row[:2], item.verdict.id in speaks) if isinstance(row, tuple) else row for item, row in zip(items, rows)]


def _write_replies(connection: psycopg.Connection[Any], verdicts: Sequence[Any]) -> None:
    names = ("id", "channel_id", "message_id", "replies")
    items = [{name: getattr(one, name) for name in names} for one in verdicts]
    lock, replies = (LOCK, {"ids": [item["id"] for item in items]}), (REPLIES, {"items": as_json(items)})
    written = not items
    while not written:
        with contextlib.suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            database.transaction(connection, {"lock": lock, "replies": replies})
            written = True


def swallow_exceptions(original: Original, self: Any, head: Any, channel: Any, output: Any, seconds: float) -> Any:
    """For ``Handler._judge``: a turn that failed counts as one that said nothing."""
    return original(self, head, channel, msgspec.structs.replace(output, error_type=""), seconds)


def blame_the_message(original: Original, key: pauses.Key, member: int, reason: str, *, at_once: bool = False) -> bool:
    """For ``pauses.count_failure``: a bot's failure is never everybody's."""
    return key.stops != Work.HANDLE.activity and bool(original(key, member, reason, at_once=at_once))


def in_a_transaction(original: Original, function: Any, task: Any) -> Any:
    """For ``turns.run``: run a turn with its lane's row locked in an open transaction."""
    with database.connect("turn") as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT id FROM conversation WHERE id = %s FOR NO KEY UPDATE", (task.conversation_id,))
        try:
            return original(function, task)
        finally:
            connection.execute("ROLLBACK")


# ---------------------------------------------------------------- delivering, sweeping, waking


def new_key(original: Original, reply: Any) -> Any:
    """For ``results.outbound``: an idempotency key of its own for every attempt."""
    return msgspec.structs.replace(original(reply), key=str(uuid.uuid4()))


def unknown_is_sent(
    original: Original, reply: Any, claim: Any, channel: Any, outcome: Any, paused: bool, took: float = 0.0
) -> Any:
    """For ``results.judge``."""
    return original(reply, claim, channel, Sent() if isinstance(outcome, Unknown) else outcome, paused, took)


def block_nobody(original: Original, self: Any, request: Any, bucket: str, seconds: float, words: str) -> None:
    """For ``Limiter.block``."""


def ask_nobody(original: Original, self: Any, groups: Any) -> Any:
    """For ``Limiter._ask``: as if Redis were away, and this were the only sender."""
    self._senders = lambda: 1
    return self._admit_alone(groups)


def sweep_nothing(original: Original, self: Any) -> bool:
    """For ``Sweeper.sweep``."""
    return False


def take_and_drop(original: Original, kind: Work, has_room: Callable[[], bool], work: Callable[..., object]) -> None:
    """For ``doorbell.answer``."""
    original(kind, has_room, lambda ids: None)


def ring_at_once(original: Original, self: Any, kind: Work, ids: Sequence[int], tenant_id: int) -> None:
    """For ``Waker.put``: ring in the thread that committed, however long Redis takes."""
    if ids:
        with contextlib.suppress(*publisher.AWAY):
            doorbell.ring(kind, {tenant_id: list(ids)})
