"""Makes a large database once, in SQL, and keeps it under ``.data/bench/growth``.

A million conversations with ten messages each, all handled and answered: contact, lane, state, receipts, messages,
turns, replies. Rows are written in the order of time, so that those of a conversation lie far apart, as in production.
Raw bodies are left out, since they are dropped after a month.
"""

from __future__ import annotations

from bench.runs import Scale
from bench.stack import SECRET, Channel, Ours
from bench.world import People

LANES = 1_000_000
MESSAGES = 10  # per conversation
CHUNK = 50_000
FIRST = 500_000_000  # the first person's id
NAME = "growth"

# The rows satisfy all constraints; without this, the triggers of foreign keys would look up each row.
SETTINGS = "SET session_replication_role = replica; SET synchronous_commit = off"
PEOPLE = """
WITH person AS (
  INSERT INTO contact (channel_id, "user", name, language)
  SELECT %(channel)s, n::text, 'User ' || n, 'en' FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
  RETURNING id, "user"),
lane AS (
  INSERT INTO conversation (channel_id, chat, "user", contact_id, last_sequence, next_sequence, last_reply_sequence,
                            next_reply_sequence, last_sent_at, address)
  SELECT %(channel)s, "user", "user", id, %(messages)s, %(messages)s + 1, %(messages)s, %(messages)s + 1,
         now() - interval '1 day', '{}'
    FROM person ORDER BY id
  RETURNING id)
INSERT INTO conversation_state (conversation_id, state, bot)
SELECT id, jsonb_build_object('seen', %(messages)s), 'echo' FROM lane
"""
TALK = """
WITH lane AS (
  SELECT id, chat, now() - interval '1 day' * (%(messages)s - %(number)s) AS at
    FROM conversation WHERE channel_id = %(channel)s AND id BETWEEN %(first)s AND %(last)s),
receipt AS (
  INSERT INTO receipt (id, channel_id, received_at, stored)
  SELECT %(number)s * 10000000::bigint + id, %(channel)s, at, 1 FROM lane),
said AS (
  INSERT INTO message (conversation_id, sequence, identity, content_hash, status, text, platform_id, delivery_id,
                       receipt_id, received_at, settled_at)
  SELECT id, %(number)s, decode(md5(chat || ':' || %(number)s), 'hex'), decode(md5('text' || id), 'hex'), 'handled',
         'message ' || %(number)s || ' of ' || chat, %(number)s::text, (id * 10 + %(number)s)::text,
         %(number)s * 10000000::bigint + id, at, at
    FROM lane ORDER BY id
  RETURNING id, conversation_id, text, received_at),
turn AS (
  INSERT INTO turn (conversation_id, message_id, worker, outcome, started_at, ended_at, bot)
  SELECT conversation_id, id, '00000000-0000-4000-8000-000000000000', 'committed', received_at, received_at, 'echo'
    FROM said)
INSERT INTO reply (conversation_id, channel_id, sequence, message_id, body, status, attempts, platform_id, created_at,
                   intent_at, settled_at)
SELECT conversation_id, %(channel)s, %(number)s, id, jsonb_build_object('text', text), 'sent', 1, id::text, received_at,
       received_at, received_at
  FROM said ORDER BY said.id
"""


def grow(ours: Ours, api: str, scale: Scale) -> People:
    """Add the missing rows; return people, spread over the whole database, who write again."""
    lanes = max(scale.users, int(LANES * scale.growth))
    channel = the_channel(ours, api)
    if ours.value("SELECT count(*) FROM message WHERE sequence = %s", MESSAGES) < lanes:
        ours.query("TRUNCATE contact, conversation, conversation_state, receipt, message, turn, reply CASCADE")
        ours.query(SETTINGS)
        write(ours, channel, lanes)
    return People(path=channel.webhook_path, secret=SECRET, first=FIRST, count=scale.users, step=lanes // scale.users)


def the_channel(ours: Ours, api: str) -> Channel:
    found = ours.query("SELECT id, public_id FROM channel WHERE name = %s", NAME)
    if not found:
        return ours.add_channel(api, name=NAME)
    ((number, public_id),) = found
    ours.run("manage.py", "adopt_database", "--yes")  # it was made at another address, and a copy sends nothing
    ours.run("manage.py", "set_channel", public_id, "--api-base", api)
    return Channel(id=number, public_id=public_id, webhook_path=f"/webhooks/telegram/{public_id}/")


def write(ours: Ours, channel: Channel, lanes: int) -> None:
    for start in range(0, lanes, CHUNK):
        last = min(start + CHUNK, lanes) - 1
        ours.query_with(PEOPLE, channel=channel.id, messages=MESSAGES, first=FIRST + start, last=FIRST + last)
        print(f"\r\x1b[K  growing: {last + 1:,} conversations", end="", flush=True)
    lowest, highest = ours.query("SELECT min(id), max(id) FROM conversation")[0]
    for number in range(1, MESSAGES + 1):
        for first in range(lowest, highest + 1, CHUNK):
            last = min(first + CHUNK - 1, highest)
            ours.query_with(TALK, channel=channel.id, messages=MESSAGES, number=number, first=first, last=last)
        print(f"\r\x1b[K  growing: {number * lanes:,} messages", end="", flush=True)
    ours.query("SELECT setval('receipt_block', %s)", (MESSAGES + 1) * 10_000_000)
    print("\r\x1b[K  growing: VACUUM", end="", flush=True)
    ours.query("VACUUM (ANALYZE)")
    print("\r\x1b[K", end="", flush=True)
