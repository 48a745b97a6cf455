"""The statements of the flow, run as the product runs them, and the plans that the server made for them.

One transaction that is never committed holds a world of its own: tables, rows and statistics. The server's
``auto_explain`` tells the plan of everything that runs in it, also inside functions and behind foreign keys.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import psycopg

from channels_ingest.webchat import timeline as webchat
from conversations.delivering import early_retry, results
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.sweeping import sweeper, timers

HOT = ["contact", "alias", "conversation", "conversation_state", "timer", "receipt", "receipt_body", "message", "turn",
       "once", "reply", "status", "media"]  # fmt: skip
FEW = ["tenant", "channel", "bucket", "pause", "worker", "quarantine", "desk"]
# A look-up names every column of its index. What it need not name, and why:
ENOUGH: dict[tuple[str, str], set[str]] = {
    ("add_aliases", "conversation_once"): {"channel_id", "chat"},  # whether a chat has any lane
    ("move_ids", "conversation_once"): {"channel_id", "chat"},  # likewise
    ("commit_sends", "status_once"): {"channel_id", "platform_id"},  # the few words about one reply
    ("LEFT_OVER", "reply_claimed"): set(),  # a partial index: what is in flight
    ("lock_status_lanes", "reply_claimed"): set(),  # likewise, for a failure only
    ("apply_statuses", "reply_claimed"): set(),
}
WAITING = {"message_waiting": {"conversation_id"}}  # a partial index: what waits in one lane
# Read in their order, up to a LIMIT or the first row.
IN_ORDER: dict[str, set[str]] = {
    "conversation_due": {"channel_id"},
    "conversation_send_due": {"channel_id"},
    "message_sequence_once": {"conversation_id"},
    "reply_sequence_once": {"conversation_id"},
    "turn_of_conversation": {"conversation_id"},
    "media_of_conversation": {"conversation_id"},
}
NEWEST = {("read_times", "turn_pkey"), ("read_times", "reply_pkey")}  # likewise, without any key
ONLY_IN_ORDER = {"conversation_due", "conversation_send_due"}  # a backlog is in them
STREAMS = {"Limit", "LockRows", "Nested Loop", "Subquery Scan", "Result", "Append"}

Node = Mapping[str, Any]


class Plan(NamedTuple):
    """What the server did for one statement, or for one inside it."""

    name: str
    root: Node


# ---------------------------------------------------------------- judging


def faults(plan: Plan, keys: Mapping[str, set[str]]) -> list[str]:
    """Everything in ``plan`` that would read a hot table, or much of it. ``keys``: the columns of every index."""
    return [f"{plan.name}: {fault}" for fault in _faults(plan.name, plan.root, keys, limited=False)]


def _faults(name: str, node: Node, keys: Mapping[str, set[str]], limited: bool) -> Iterator[str]:
    """``limited``: no more rows are taken from this node than a LIMIT above it needs, or a look for the first."""
    kind, table, index = node["Node Type"], str(node.get("Relation Name", "")), node.get("Index Name", "")
    limited = limited or node.get("Parent Relationship") == "SubPlan"
    if kind.startswith("Gather"):
        yield "parallel workers"
    if kind == "Seq Scan" and _is_hot(table):
        yield f"sequential scan of {table}"
    if index in keys:
        condition = node.get("Index Cond", "")
        named = {column for column in keys[index] if _names(condition, column)}
        if not named >= _needed(name, index, keys[index], limited):
            yield f"{kind} of {index} by {condition or 'no condition'}"
        if index in ONLY_IN_ORDER and not limited:
            yield f"{kind} of {index}: all that is due"
    limited = kind == "Limit" or (limited and kind in STREAMS)
    for child in node.get("Plans", ()):
        yield from _faults(name, child, keys, limited)


def _needed(name: str, index: str, columns: set[str], limited: bool) -> set[str]:
    if limited and (name, index) in NEWEST:
        return set()
    return ENOUGH.get((name, index), WAITING.get(index, IN_ORDER.get(index, columns) if limited else columns))


def _is_hot(table: str) -> bool:
    return table in HOT or table.startswith("receipt_body_")


def _names(condition: str, column: str) -> bool:
    """Columns of the index itself stand without a table in its condition."""
    return re.search(rf'(?<![\w.])"?{column}"?(?!\w)', condition) is not None


def keys(connection: psycopg.Connection[Any]) -> dict[str, set[str]]:
    """The columns of every index of a hot table."""
    rows = connection.execute(
        """SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text, array_agg(a.attname::text)
             FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
            GROUP BY 1, 2"""
    )
    return {index: set(columns) for index, table, columns in rows if _is_hot(table)}


# ---------------------------------------------------------------- watching


class Watched:
    """A connection of the product's own, in a transaction that is never committed, whose plans are heard."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.plans: list[Plan] = []
        self._names: dict[str, str] = {}
        connection.add_notice_handler(self._hear)

    def listen(self) -> None:
        for setting in (
            "log_min_duration = 0",
            "log_nested_statements = on",
            "log_format = json",
            "log_level = notice",
        ):
            self.connection.execute(f"SET LOCAL auto_explain.{setting}")

    def _hear(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        _, told, plan = (diagnostic.message_primary or "").partition("plan:\n")
        if told:  # some come with the answer to the next statement
            found = json.loads(plan)
            text = found["Query Text"]
            name = self._names.get(_beginning(text), "inside: " + " ".join(text.split()))
            self.plans.append(Plan(name, found["Plan"]))

    @property
    def names(self) -> set[str]:
        """Of all that was run."""
        return set(self._names.values())

    def run(self, name: str, query: str, params: Any = None) -> list[Any]:
        self._names[_beginning(query)] = name
        cursor = self.connection.execute(query, params or None, prepare=bool(params))
        return cursor.fetchall() if cursor.description else []

    def file(self, name: str, **params: Any) -> list[Any]:
        return self.run(name, sql(name), params)


def _beginning(text: str) -> str:
    """What tells a statement from the others, before its first parameter."""
    return text[:45]


@contextlib.contextmanager
def watched() -> Iterator[Watched]:
    connection = database.connect("plans")
    try:
        connection.execute("LOAD 'auto_explain'")
        connection.execute("BEGIN")
        yield Watched(connection)
    finally:
        connection.close()


# ---------------------------------------------------------------- worlds


def make_empty(connection: psycopg.Connection[Any]) -> None:
    """As after `migrate`: no row, no page, nothing known."""
    connection.execute(f"TRUNCATE {', '.join(HOT + FEW)} RESTART IDENTITY CASCADE")
    connection.execute("DELETE FROM pg_statistic WHERE starelid = ANY (%s::regclass[])", [HOT + FEW])
    connection.execute("INSERT INTO tenant (name) VALUES ('Shop')")
    connection.execute(
        """INSERT INTO channel (tenant_id, platform, name, public_id, bot)
           SELECT (SELECT id FROM tenant), 'generic', 'c' || n, 'p' || n, 'echo' FROM generate_series(1, 4) n"""
    )


def fill(connection: psycopg.Connection[Any], people: int) -> None:
    """Lanes with three answered messages each; one in a hundred has a fourth that waits for its turn or its reply."""
    connection.execute("SET LOCAL session_replication_role = replica")
    for statement in ROWS:
        connection.execute(statement, {"people": people, "channels": [1, 2, 3, 4]})
    connection.execute("SET LOCAL session_replication_role = origin")


def analyze(connection: psycopg.Connection[Any]) -> None:
    connection.execute(f"ANALYZE {', '.join(HOT + FEW)}")


def pretend(connection: psycopg.Connection[Any], times: int) -> None:
    """Tables and their indexes are believed to hold ``times`` as many rows."""
    connection.execute(
        """UPDATE pg_class SET reltuples = reltuples * %(times)s
            WHERE reltuples > 0 AND (oid = ANY (%(tables)s::regclass[])
               OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = ANY (%(tables)s::regclass[])))""",
        {"times": times, "tables": HOT},
    )


ROWS = (
    """INSERT INTO contact (channel_id, "user", name)
       SELECT (%(channels)s::bigint[])[1 + n %% 4], 'u' || n, 'Name ' || n FROM generate_series(1, %(people)s) n""",
    """INSERT INTO conversation (channel_id, chat, "user", contact_id, last_sequence, next_sequence,
                                 last_reply_sequence, next_reply_sequence, due_at, send_due_at)
       SELECT channel_id, "user", "user", id, 3 + (id %% 100 = 0)::int, 4, 3 + (id %% 100 = 1)::int, 4,
              CASE WHEN id %% 100 = 0 THEN now() END, CASE WHEN id %% 100 = 1 THEN now() END FROM contact""",
    """INSERT INTO conversation_state (conversation_id, state) SELECT id, '{"seen": 1}' FROM conversation""",
    """INSERT INTO receipt (channel_id, stored) SELECT channel_id, 1 FROM conversation, generate_series(1, 3)""",
    """INSERT INTO receipt_body (receipt_id, body) SELECT id, 'the body' FROM receipt""",
    """INSERT INTO message (conversation_id, sequence, identity, content_hash, text, platform_id, status, settled_at)
       SELECT c.id, n, decode(md5(c.id || ':' || n), 'hex'), '', 'text', 'p:' || c.id || ':' || n,
              CASE WHEN n < 4 THEN 'handled' ELSE 'pending' END, CASE WHEN n < 4 THEN now() END
         FROM conversation c, generate_series(1, c.last_sequence) n""",
    """INSERT INTO turn (conversation_id, message_id, worker, outcome, started_at)
       SELECT conversation_id, id, gen_random_uuid(), 'committed', now() FROM message WHERE status = 'handled'""",
    """INSERT INTO reply (conversation_id, channel_id, sequence, body, platform_id, status, settled_at)
       SELECT c.id, c.channel_id, n, '{"text": "text"}', CASE WHEN n < 4 THEN 'r:' || c.id || ':' || n ELSE '' END,
              CASE WHEN n < 4 THEN 'sent' ELSE 'pending' END, CASE WHEN n < 4 THEN now() END
         FROM conversation c, generate_series(1, c.last_reply_sequence) n""",
    """INSERT INTO status (channel_id, platform_id, status)
       SELECT channel_id, platform_id, s FROM reply, unnest('{delivered,read}'::text[]) s WHERE status = 'sent'""",
    """INSERT INTO alias (channel_id, of, value, known_as)
       SELECT channel_id, 'user', 'old:' || "user", "user" FROM contact WHERE id %% 20 = 0""",
    """INSERT INTO timer (conversation_id, name, due_at)
       SELECT id, 't', now() + interval '1 day' FROM conversation WHERE id %% 50 = 0""",
    """INSERT INTO media (id, channel_id, conversation_id, message_id, status)
       SELECT gen_random_uuid(), c.channel_id, c.id, m.id, 'stored'
         FROM message m JOIN conversation c ON c.id = m.conversation_id WHERE m.sequence = 1""",
)


# ---------------------------------------------------------------- the flow


CLAIM, OTHER, FILE = uuid.UUID(int=1), uuid.UUID(int=2), str(uuid.UUID(int=3))


def run_flow(watched: Watched) -> None:
    """Every statement of the flow, in its order: two people write, are answered; and what may happen besides."""
    watched.listen()
    lanes = _store(watched)
    messages = _handle(watched, lanes)
    _deliver(watched, lanes)
    _late(watched, messages[0])
    _sweep(watched, lanes)
    _fetch(watched)
    _poll(watched)
    watched.connection.execute("SELECT 1")  # what is still to be told


def _store(run: Watched) -> list[int]:
    sources = [{"identity": word * 16, "receipt_id": 9_000_000 + n, "entry": 0} for n, word in ((1, "aa"), (2, "bb"))]
    new = {"channel_id": 1, "name": "New"}
    people = json.dumps([{**new, "sender_user": f"n{n}", **source} for n, source in enumerate(sources, 1)])
    lanes = json.dumps([{"channel_id": 1, "chat": user, "user": user} for user in ("n1", "n2")])
    common = {"channel_id": 1, "kind": "message", "starts_turn": True, "content_hash": "00" * 16}
    items = [
        {**common, "ord": 0, "chat": "n1", "user": "n1", "identity": "aa" * 16, "receipt_id": 9_000_001,
         "payload": {"attachments": [{"kind": "image", "file_id": "f", "media": FILE}]}},
        {**common, "ord": 1, "chat": "n1", "user": "n1", "identity": "aa" * 16, "receipt_id": 9_000_001},
        {**common, "ord": 2, "chat": "n2", "user": "n2", "identity": "bb" * 16, "external_sequence": 1,
         "receipt_id": 9_000_002},
    ]  # fmt: skip
    alias = {"channel_id": 1, "value": "m1", "known_as": "n1", "identities": ["aa" * 16]}
    receipts = [{"id": number, "channel_id": 1, "noted": 0, "quarantined": 0} for number in (9_000_001, 9_000_002)]
    for of in ("user", "chat"):
        run.file("add_aliases", items=json.dumps([{**alias, "of": of}]))
        run.file("move_ids", channel_id=1, of=of, ids=["n1", "m2"], claimable=True, identity="aa" * 16)
    run.file("add_contacts", items=people)
    run.file("add_conversations", items=lanes)
    run.file("lock_lanes", items=lanes)
    bodies = {"ids": [9_000_001], "headers": "[{}]", "bodies": [b"body"]}
    rows = run.file("store_messages", items=json.dumps(items), receipts=json.dumps(receipts), **bodies)
    assert sorted(str(verdict) for _, verdict, _ in rows) == ["", "duplicate", "stored", "stored"]
    wish = {"ord": 0, "identity": "aa" * 16, "receipt_id": 9_000_001, "entry": 0, "wish": "no_marketing"}
    run.file("apply_wishes", items=json.dumps([wish]))
    assert len(run.file("release_lanes", ids=None)) == 1
    run.file("update_contacts", items=people.replace("New", "Newer"))
    report = {"channel": 1, "app": 0, "account": "1", "name": "n", "language": "de", "at": 1.0}
    run.file("keep_templates", channel=1, account="1", began=1.0, items="[]")
    run.run("update_templates", sql("update_templates"), {**report, "status": "paused", "quality": ""})
    aside = {"channel_id": 1, "receipt_id": 9_000_001, "entry": 0, "reason": "x", "body": b"x", "fingerprint": b"x"}
    run.file("quarantine", **aside)
    return sorted({lane for _, verdict, lane in rows if verdict == "stored"})


def _handle(run: Watched, lanes: list[int]) -> list[int]:
    heads = run.file("fetch_heads", ids=lanes)
    run.file("fetch_history", id=lanes[0], before=1, n=20)
    assert run.file("read_checkout", identity=bytes.fromhex("aa" * 16)) == [], "it is no checkout"
    run.file("lock_ids", ids=lanes)
    turn = {"worker": str(CLAIM), "outcome": "committed", "seconds": 0.1}
    replies = [{"author": author, "body": {"text": "hello"}} for author in ("bot", "system")]
    verdicts = [
        {"ord": place, "id": head[0], "channel_id": head[1], "message_id": head[14], "sequence": 1, "epoch": 0,
         "attempts": 0, "expect": "pending", "status": "handled", "advance": 1, "attempts_after": 0, "state": {},
         "asked": 1,
         "replies": replies, "turn": turn}
        for place, head in enumerate(heads)
    ]  # fmt: skip
    rows = run.file("commit_turns", items=json.dumps(verdicts))
    assert [row[1] for row in rows] == ["committed", "committed"]
    pause = {"scope": "bot", "target": "echo", "stops": "handling"}
    run.file("count_failure", **pause, reason="", member=lanes[0], limit=8, at_once=True)
    run.file("end_pause", **pause, member=lanes[0])
    return [head[14] for head in heads]


def _deliver(run: Watched, lanes: list[int]) -> None:
    rows = run.file("fetch_replies", ids=lanes)
    _send(run, [row for row in rows if row[10] == 1], more=True)
    _send(run, [row for row in rows if row[10] == 2], more=False)
    said = [{"ord": 0, "channel_id": 1, "platform_id": "new:1:0", "status": "read", "error": ""}]
    run.file("lock_status_lanes", items=json.dumps(said))
    assert run.file("apply_statuses", items=json.dumps(said)) == [(0, "joined", None)]
    stops = [{"reply_id": rows[0][9], "scope": "conversation"},
             {"channel_id": 1, "platform_id": "new:1:0", "scope": "window", "window_s": 60.0}]  # fmt: skip
    run.file("stop_lanes", items=json.dumps(stops))
    run.connection.execute("UPDATE conversation SET opted_out_at = now() WHERE id = ANY (%s)", [lanes])
    run.file("fetch_replies", ids=lanes)
    run.file("skip_settled", id=lanes[0], sequence=2)
    run.file("end_waits", channel=1, before=early_retry.NEVER, tried=10.0, lanes=1_000)


def _send(run: Watched, replies: list[Any], *, more: bool) -> None:
    """``more``: whether their lanes have others behind them."""
    intents = [
        {"ord": place, "id": row[0], "intent_claim": str(CLAIM), "intent_id": row[9], "intent_sequence": row[10],
         "intent_number": 0}
        for place, row in enumerate(replies)
    ]  # fmt: skip
    run.file("lock_ids", ids=[row[0] for row in replies])
    assert [row[2] for row in run.file("commit_sends", items=json.dumps(intents))] == [True, True]
    assert len(run.file("find_claimed", claim=CLAIM)) == 2
    ends = [
        {"ord": place, "id": row[0], "claim": str(CLAIM), "reply_id": row[9], "sequence": row[10], "expect": "sending",
         "number": 1, "status": "sent", "platform_id": f"new:{row[10]}:{place}"}
        for place, row in enumerate(replies)
    ]  # fmt: skip
    written = run.file("commit_sends", items=json.dumps(ends))
    assert [(row[1], row[5]) for row in written] == [(True, more)] * 2


def _late(run: Watched, message: int) -> None:
    body = {"text": "late", "choices": [{"id": "y", "title": "Yes"}]}
    items = [{"ord": 0, "channel_id": 1, "message_id": message, "parts": [{"key": "k", "body": body}]}]
    run.file("lock_late_replies", items=json.dumps(items))
    assert run.file("store_late_replies", items=json.dumps(items))[0][1] == "stored"


def _sweep(run: Watched, lanes: list[int]) -> None:
    for incarnation in (CLAIM, OTHER):
        worker = {"incarnation": incarnation, "kind": "send", "host": "", "pid": 1, "version": ""}
        worker["bots"] = None
        run.file("beat", **worker, running=json.dumps(lanes))
    run.file("find_due")
    for name in ("claim_due", "claim_send_due"):
        run.file(name, channels=[1, 2, 3, 4], per_channel=10, all_in=20)
    run.file("claim_probes")
    for sending in (True, False):
        since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        run.file("find_probe", channels=[1, 2], since=since, sending=sending, untried=False, many=8)
    run.file("revive_lanes", ids=lanes)
    run.file("revive_sending", ids=lanes)
    run.file("mark_dead", incarnation=OTHER, beat=1)
    run.file("find_delivering", per_channel=500, all_in=5_000)
    run.run("LEFT_OVER", sweeper.LEFT_OVER)
    run.file("lock_claimed", claim=OTHER)
    waits = {"reporting": ["whatsapp"], "status_wait": results.STATUS_SECONDS}
    run.file("settle_claimed", claim=OTHER, key_life="{}", attempts=results.ATTEMPTS, **waits)
    run.run("timer", "INSERT INTO timer (conversation_id, name, due_at) VALUES (%s, 'now', now())", [lanes[0]])
    ((timer,),) = run.run("TIMERS_DUE", timers.TIMERS_DUE)
    run.file("lock_timer", id=timer)
    assert run.file("fire_timer", id=timer) == [(lanes[0],)]
    run.file("keep_bucket", channel_id=1, key="channel", seconds=5.0, words="")
    run.file("read_buckets")
    run.file("read_health")
    run.file("read_times")


def _fetch(run: Watched) -> None:
    assert run.file("ask_for_file", id=FILE) == [(1, 1)]
    run.file("find_files_due")
    claimed = run.file("claim_files", channels=[1, 2], all_in=8, seconds=60.0)
    assert [(str(row[0]), row[2]) for row in claimed] == [(FILE, 1)]
    run.file("move_claims", ids=[FILE], attempts=[1], seconds=60.0)
    ending = {"status": "stored", "delay": None, "content_type": "image/png", "size": 1, "error": ""}
    assert run.file("settle_file", id=FILE, attempt=1, counted=1, **ending)
    run.file("mark_old_files", days=30, most=500, all_in=2_000)
    run.file("mark_orphans", place=uuid.UUID(int=2**127), most=5_000)


def _poll(run: Watched) -> None:
    """Web chat polls through the same connections."""
    run.run("read_timeline", webchat._query(), (0, 0, webchat.MOST, webchat.BYTES, 1, "n1", "n1"))
    run.run("read_timeline", webchat._query(), (1, 1, webchat.MOST, webchat.BYTES, 1, "n1", "n1"))
    run.run("OFFERED", webchat.OFFERED, (1, "new:0", "n1", "n1"))


def run_desk(watched: Watched) -> None:
    """What an open page of a conversation asks for, again and again, and the page itself."""
    watched.listen()
    ask = "SELECT id FROM conversation WHERE channel_id = 1 AND chat = 'u4' AND \"user\" = 'u4'"
    ((lane,),) = watched.run("a lane", ask)
    assert watched.file("read_version", conversation=lane)
    assert len(watched.file("read_turns", conversation=lane, limit=300)) == 3
    assert len(watched.file("read_facts", ids=[lane])) == 1
    watched.connection.execute("SELECT 1")
