"""What planted bugs need that the product does not have."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from conversations.handling.verdicts import Verdict
from conversations.lanes.redis_client import client
from conversations.postgres import database
from conversations.postgres.stream import as_json
from conversations.storing.intake import Item

# The second half of commit_turns.sql, for lanes that the transaction holds.
REPLIES = """
WITH items AS MATERIALIZED (
  SELECT i.*, c.last_reply_sequence FROM json_to_recordset(%(items)s::json) AS i(
         id bigint, channel_id bigint, message_id bigint, replies json) JOIN conversation c ON c.id = i.id),
said AS MATERIALIZED (
  SELECT i.id, i.channel_id, i.message_id, r.value ->> 'author' AS author, (r.value -> 'body')::jsonb AS body,
         i.last_reply_sequence + row_number() OVER (PARTITION BY i.id ORDER BY r.ordinality) AS sequence
    FROM items i CROSS JOIN LATERAL json_array_elements(i.replies) WITH ORDINALITY AS r),
replies AS (
  INSERT INTO reply (conversation_id, channel_id, sequence, message_id, author, body)
  SELECT id, channel_id, sequence, message_id, author, body FROM said ORDER BY id, sequence)
UPDATE conversation c
   SET last_reply_sequence = c.last_reply_sequence + s.added,
       send_due_at = lane_send_due_at(c.next_reply_sequence, c.last_reply_sequence, c.send_due_at,
                                      now() + interval '3 s')
  FROM (SELECT id, count(*) AS added FROM said GROUP BY id) s WHERE c.id = s.id"""
LOCK = "SELECT id FROM conversation WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR NO KEY UPDATE"
APART_SECONDS = 0.1  # a slow database between the two


def write_replies(connection: psycopg.Connection[Any], verdicts: Sequence[Verdict], rows: Sequence[Any]) -> list[Any]:
    """Replies of the turns that ``rows`` calls committed, in a transaction of their own; the rows with their number."""
    committed = {place for place, word, *_ in rows if word == "committed"}
    items = [
        {"id": one.id, "channel_id": one.channel_id, "message_id": one.message_id, "replies": one.replies}
        for place, one in enumerate(verdicts)
        if place in committed and one.replies
    ]
    time.sleep(APART_SECONDS)
    while items:
        lock = (LOCK, {"ids": [item["id"] for item in items]})
        try:
            database.transaction(connection, {"lock": lock, "replies": (REPLIES, {"items": as_json(items)})})
            break
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            continue
    said = {item["id"]: len(item["replies"]) for item in items}
    return [(place, word, behind, said.get(verdicts[place].id, 0)) for place, word, behind, _ in rows]


def in_transaction(lane: int, run: Callable[..., Any], *arguments: Any) -> Any:
    """Run a turn with the lane's row locked in an open transaction."""
    with database.connect("turn") as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT id FROM conversation WHERE id = %s FOR NO KEY UPDATE", (lane,))
        try:
            return run(*arguments)
        finally:
            connection.execute("ROLLBACK")


def not_in_table(items: Sequence[Item]) -> list[Item]:
    """Those that a SELECT does not find."""
    ask = "SELECT 1 FROM message WHERE identity = decode(%s, 'hex')"
    return [item for item in items if item.row is None or not database.read(ask, (item.row.identity,))]


def not_in_redis(items: Sequence[Item]) -> list[Item]:
    """Those that Redis has not seen."""
    return [item for item in items if item.row is None or client().set(f"seen:{item.row.identity}", 1, nx=True, ex=600)]
