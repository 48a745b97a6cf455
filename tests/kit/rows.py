"""The one way to write a lane with its messages and replies past the steps that write them.

    lane = add_lane(ask, channel, "ada")
    add_messages(ask, lane, ["one", "two", "three"])
    add_replies(ask, lane, ["hello"])

``ask`` runs a statement with named values and returns its rows: on a stack, or in Django's transaction.
What storing itself does is tested through ``tests.kit.entries``; ``tests.kit.plans`` fills tables with thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Ask = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]

ADD_LANE = """
INSERT INTO conversation AS c (channel_id, chat, "user", address, contact_id)
VALUES (%(channel)s, %(user)s, %(user)s, '{}', %(contact)s)
    ON CONFLICT (channel_id, chat, "user") DO UPDATE SET chat = c.chat RETURNING id"""
# A message that waits has no number yet.
ADD_MESSAGES = """
WITH said AS (
  SELECT t.*, CASE WHEN t.status <> 'waiting'
                   THEN count(*) FILTER (WHERE t.status <> 'waiting') OVER (ORDER BY t.place) END AS n
    FROM unnest(%(texts)s::text[], %(statuses)s::text[]) WITH ORDINALITY AS t(text, status, place)),
lane AS (
  UPDATE conversation c
     SET last_sequence = c.last_sequence + given.n,
         due_at = CASE WHEN NOT %(due)s OR c.next_sequence <= c.last_sequence THEN c.due_at
                  ELSE lane_due_at(c.mode, c.paused_at, c.blocked, c.next_sequence, c.last_sequence + given.n,
                                   c.not_before, c.wait_until, now() + interval '3 s') END
    FROM (SELECT coalesce(max(n), 0) AS n FROM said) given
   WHERE c.id = %(lane)s RETURNING c.last_sequence - given.n AS before)
INSERT INTO message (conversation_id, sequence, identity, content_hash, kind, starts_turn, text, status, settled_at)
SELECT %(lane)s, before + said.n, decode(md5(gen_random_uuid()::text), 'hex'), '', %(kind)s, %(starts_turn)s, said.text,
       said.status, CASE WHEN said.status NOT IN ('pending', 'waiting') THEN now() END
  FROM lane, said ORDER BY said.place"""
ADD_REPLIES = """
WITH lane AS (
  UPDATE conversation
     SET last_reply_sequence = last_reply_sequence + cardinality(%(texts)s::text[]),
         send_due_at = CASE WHEN %(due)s THEN now() ELSE send_due_at END
   WHERE id = %(lane)s RETURNING id, channel_id, last_reply_sequence - cardinality(%(texts)s::text[]) AS before)
INSERT INTO reply (conversation_id, channel_id, sequence, author, status, body, claimed_by)
SELECT lane.id, channel_id, before + t.place, t.author, t.status, jsonb_build_object('text', t.text),
       CASE WHEN t.status = 'sending' THEN '00000000-0000-0000-0000-000000000001'::uuid END
  FROM lane, unnest(%(texts)s::text[], %(statuses)s::text[], %(authors)s::text[])
             WITH ORDINALITY AS t(text, status, author, place)"""


def add_lane(ask: Ask, channel: int, user: str, contact: int | None = None) -> int:
    """The lane of this person, with or without messages; a new one where there is none."""
    return int(ask(ADD_LANE, {"channel": channel, "user": user, "contact": contact})[0][0])


def add_messages(
    ask: Ask,
    lane: int,
    texts: Sequence[str],
    statuses: Sequence[str] = (),
    *,
    kind: str = "message",
    starts_turn: bool = True,
    due: bool = True,
) -> None:
    """Messages at the tail of a lane, pending if ``statuses`` does not say more. ``due``: the sweeper finds them."""
    statuses = statuses or ["pending"] * len(texts)
    values = {"lane": lane, "texts": list(texts), "statuses": list(statuses), "due": due}
    ask(ADD_MESSAGES, {**values, "kind": kind, "starts_turn": starts_turn})


def add_replies(
    ask: Ask,
    lane: int,
    texts: Sequence[str],
    statuses: Sequence[str] = (),
    authors: Sequence[str] = (),
    *,
    due: bool = True,
) -> None:
    """Replies at the tail of a lane, pending and of the bot if ``statuses`` and ``authors`` do not say more."""
    statuses, authors = statuses or ["pending"] * len(texts), authors or ["bot"] * len(texts)
    values = {"lane": lane, "texts": list(texts), "statuses": list(statuses), "authors": list(authors)}
    ask(ADD_REPLIES, {**values, "due": due})
