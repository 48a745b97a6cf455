"""What is gathered for the judgement: the database's truth, the platform's log, Redis, processes, logs.

Rows are dicts. A lane is called by its channel's name and the person's id, a message by (channel, user, number).
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis
from psycopg.rows import dict_row

from tests.chaos.bots import BEGUN
from tests.chaos.cluster import Cluster
from tests.chaos.history import Event, Moment

Row = dict[str, Any]
Key = tuple[str, str, int]  # channel, user, number

DUMP = {
    "lanes": """SELECT c.id, n.name AS ch, c.user AS u, c.mode, c.last_sequence, c.next_sequence, c.last_reply_sequence,
                       c.next_reply_sequence, c.epoch, c.blocked, c.suspect, s.state
                  FROM conversation c JOIN channel n ON n.id = c.channel_id
                  LEFT JOIN conversation_state s ON s.conversation_id = c.id""",
    "messages": """SELECT m.id, m.conversation_id AS lane, n.name AS ch, c.user AS u, m.sequence, m.status, m.kind,
                          m.text, m.platform_id, m.external_sequence, m.order_key, m.late, m.note, m.receipt_id,
                          m.replay_of, extract(epoch FROM m.received_at)::float AS received,
                          extract(epoch FROM m.settled_at)::float AS settled
                     FROM message m JOIN conversation c ON c.id = m.conversation_id
                     JOIN channel n ON n.id = c.channel_id
                    ORDER BY m.conversation_id, m.sequence, m.id""",
    "replies": """SELECT r.id, r.conversation_id AS lane, n.name AS ch, c.user AS u, r.sequence, r.message_id, r.author,
                         r.status, r.attempts, r.body ->> 'text' AS text, r.error, r.delivered,
                         extract(epoch FROM r.created_at)::float AS created,
                         extract(epoch FROM r.settled_at)::float AS settled
                    FROM reply r JOIN conversation c ON c.id = r.conversation_id JOIN channel n ON n.id = c.channel_id
                   ORDER BY r.conversation_id, r.sequence""",
    "turns": """SELECT id, conversation_id AS lane, message_id, attempt, worker::text, outcome, error_type,
                       state_before ->> 'hash' AS hash_before, extract(epoch FROM started_at)::float AS started,
                       extract(epoch FROM ended_at)::float AS ended FROM turn ORDER BY id""",
    "receipts": """SELECT id, stored, duplicates, noted, quarantined,
                          extract(epoch FROM pg_xact_commit_timestamp(xmin))::float AS committed FROM receipt""",
    "bodies": "SELECT receipt_id, encode(sha256(body), 'hex') AS hash FROM receipt_body",
    "quarantine": "SELECT id, reason, seen FROM quarantine",
    "workers": "SELECT incarnation::text, kind, pid, dead FROM worker",
    "pauses": "SELECT * FROM pause",
    "audits": """SELECT conversation_id AS lane, verb, extract(epoch FROM at)::float AS at FROM audit
                  WHERE verb IN ('take_over', 'hand_back') ORDER BY id""",
    "connections": """SELECT pid, application_name, state, extract(epoch FROM now() - state_change)::float AS seconds
                        FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()""",
}
# What was stored before a moment and is not done, in the lanes whose speed says something.
LEFT_BEHIND = """
WITH lanes AS (SELECT c.id FROM conversation c JOIN channel n ON n.id = c.channel_id
                WHERE n.name = ANY (%(places)s) AND c.user <> ALL (%(but)s))
SELECT (SELECT count(*) FROM message WHERE status = 'pending' AND received_at < to_timestamp(%(at)s)
           AND conversation_id IN (SELECT id FROM lanes))
     + (SELECT count(*) FROM reply WHERE status IN ('pending', 'sending') AND created_at < to_timestamp(%(at)s)
           AND conversation_id IN (SELECT id FROM lanes))"""


@dataclass
class Evidence:
    """All that an invariant may look at."""

    run: str
    began: Moment
    events: list[Event]
    rows: dict[str, list[Row]]
    calls: list[Row]  # the platform's log
    begun: list[Row] = field(default_factory=list)  # turns that a bot began: t, pid, lane, sequence
    redis_keys: list[Row] = field(default_factory=list)
    lock_faults: list[str] = field(default_factory=list)  # seen by MONITOR
    monitored: int = 0  # releases of locks that MONITOR saw
    leaks: dict[str, int] = field(default_factory=dict)  # where words or secrets were found -> how often
    processes: tuple[dict[int, Row], dict[int, Row]] = ({}, {})  # before and after, by pid
    connections_before: int = 0
    faults: list[Row] = field(default_factory=list)
    drained_seconds: float | None = None  # after the last message was taken; None: not drained
    drain_bound: float = 60.0

    # ------------------------------------------------------------ by name

    @functools.cached_property
    def sent(self) -> dict[Key, Event]:
        """What people said."""
        return {key_of(event): event for event in self.events if event["f"] == "message"}

    @functools.cached_property
    def attempts(self) -> dict[Key, list[tuple[Event, Event | None]]]:
        """Per message its requests: the line before, the line after."""
        ends = {e["a"]: e for e in self.events if e["f"] == "webhook" and e["k"] != "invoke"}
        found: dict[Key, list[tuple[Event, Event | None]]] = defaultdict(list)
        for event in self.events:
            if event["f"] == "webhook" and event["k"] == "invoke":
                found[key_of(event)].append((event, ends.get(event["a"])))
        return found

    @functools.cached_property
    def said_of_replies(self) -> dict[str, dict[str, float]]:
        """Per message of the platform each word that was said of it, and when it was first answered 2xx; if ever."""
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for event in self.events:
            if event["f"] == "status":
                at = event["t"] if event["k"] == "ok" else float("inf")
                found[event["reply"]][event["word"]] = min(at, found[event["reply"]].get(event["word"], at))
        return found

    @functools.cached_property
    def acked(self) -> dict[Key, Event]:
        """Per message that was answered 2xx its first such answer."""
        found: dict[Key, Event] = {}
        for key, attempts in self.attempts.items():
            oks = [end for _, end in attempts if end and end["k"] == "ok"]
            if oks:
                found[key] = min(oks, key=lambda end: end["t"])
        return found

    @functools.cached_property
    def stored(self) -> dict[Key, list[Row]]:
        """Message rows of people, by the platform's own id."""
        found: dict[Key, list[Row]] = defaultdict(list)
        for row in self.rows["messages"]:
            if row["status"] != "missing" and row["replay_of"] is None:
                found[(row["ch"], row["u"], number_of(row["platform_id"]))].append(row)
        return found

    @functools.cached_property
    def key_by_id(self) -> dict[int, Key]:
        return {row["id"]: key for key, rows in self.stored.items() for row in rows}

    @functools.cached_property
    def lanes(self) -> dict[int, Row]:
        return {lane["id"]: lane for lane in self.rows["lanes"]}

    @functools.cached_property
    def messages_of(self) -> dict[int, list[Row]]:
        return _grouped(self.rows["messages"], "lane")

    @functools.cached_property
    def replies_of(self) -> dict[int, list[Row]]:
        return _grouped(self.rows["replies"], "lane")

    @functools.cached_property
    def turns_of(self) -> dict[int, list[Row]]:
        """By message."""
        return _grouped(self.rows["turns"], "message_id")

    @functools.cached_property
    def called(self) -> dict[tuple[str, str], list[Row]]:
        """Every call with words, by account and chat."""
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for call in filter(lambda call: call["text"], self.calls):
            found[(call["account"], call["chat"])].append(call)
        return found

    @functools.cached_property
    def shown(self) -> dict[tuple[str, str], list[Row]]:
        """What people saw, in order, by account and chat."""
        return {who: [call for call in calls if call["accepted"]] for who, calls in self.called.items()}


def key_of(event: Event) -> Key:
    return event["ch"], event["u"], event["m"]


def number_of(platform_id: str) -> int:
    digits = platform_id.rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1


def _grouped(rows: Sequence[Row], name: str) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[name]].append(row)
    return found


# ---------------------------------------------------------------- gathering


def dump(url: str) -> dict[str, list[Row]]:
    """Everything of one moment."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return {name: connection.execute(sql).fetchall() for name, sql in DUMP.items()}


def read_begun(folder: Path) -> list[Row]:
    path = folder / BEGUN.name
    names = ("t", "pid", "lane", "sequence")
    lines = path.read_text().splitlines() if path.exists() else []
    return [dict(zip(names, map(int, line.split()), strict=True)) for line in lines]


def redis_keys(client: redis.Redis) -> list[Row]:
    return [{"key": key, "ttl": client.ttl(key), "type": client.type(key)} for key in client.scan_iter(count=1000)]


def look_at_processes(cluster: Cluster) -> dict[int, Row]:
    """Memory, files and threads of every process of ours."""
    found = {}
    for part in cluster.parts():
        for pid in part.process.tree():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                found[pid] = {"part": part.name, "rss": process.memory_info().rss, "files": process.num_fds(),
                              "threads": process.num_threads(), "began": process.create_time()}  # fmt: skip
    return found


def find_leaks(cluster: Cluster, canaries: Sequence[str]) -> dict[str, int]:
    """Words of people and secrets, where only the database may have them: all logs, the servers' own too, and Redis."""
    found = {}
    for path in [*cluster.folder.glob("*.log"), cluster.redis.server.log, cluster.postgres.server.log]:
        raw = path.read_bytes()
        for canary in canaries:
            if count := raw.count(canary.encode()):
                found[f"{path.name}: {canary[:12]}..."] = count
    with contextlib.suppress(redis.RedisError), cluster.redis.client() as client:
        raw_client = redis.Redis.from_url(cluster.redis.server.url)
        for key in client.scan_iter(count=1000):
            value = raw_client.dump(key) or b""
            for canary in canaries:
                if canary.encode() in value or canary in key:
                    found[f"Redis {key}: {canary[:12]}..."] = 1
    return found


CLOSE_SECONDS = 0.2  # to the end of a lock: Valkey looks at its clock when it likes


class LockMonitor:
    """Watches MONITOR: nobody's lock is removed or taken by another. ``faults`` says what it saw."""

    LOCK = re.compile(r"\{lanes\}:(?:handling|sending):\d+")
    WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')

    def __init__(self, url: str) -> None:
        self.url = url
        self.faults: list[str] = []
        self.releases = 0
        self._owners: dict[str, str] = {}
        self._ends: dict[str, float] = {}  # when it expires if nobody renews it
        self._caller: tuple[str, ...] = ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(3)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                with redis.Redis.from_url(self.url, socket_timeout=1, decode_responses=True) as client:
                    self._watch(client)
            except (redis.RedisError, OSError):
                self._owners.clear()  # what happened meanwhile was not seen
                time.sleep(0.2)

    def _watch(self, client: redis.Redis) -> None:
        connection = client.connection_pool.get_connection()
        connection.send_command("MONITOR")
        connection.read_response()
        while not self._stopping.is_set():
            with contextlib.suppress(redis.TimeoutError):
                self.see(str(connection.read_response(disconnect_on_error=False)))

    def see(self, line: str) -> None:
        """One line of MONITOR: ``1700.1 [0 127.0.0.1:5] "EVALSHA" ...`` or ``1700.1 [0 lua] "HGET" ...``."""
        inside = " lua] " in line
        if not inside and "EVAL" not in line and "lanes}" not in line and "FLUSH" not in line:
            return
        words = tuple(self.WORD.findall(line.partition("] ")[2]))
        command = words[0].upper() if words else ""
        if command in ("FLUSHALL", "FLUSHDB"):
            self._owners.clear()
        elif not inside and command in ("EVALSHA", "EVAL"):
            self._caller = words
        elif command == "HSET" and words[2] == "o" and self.LOCK.fullmatch(words[1]):
            self._held(words[1], words[3], float(line.split()[0]))
        elif command == "PEXPIRE" and self.LOCK.fullmatch(words[1]):
            self._ends[words[1]] = float(line.split()[0]) + int(words[2]) / 1000
        elif command in ("DEL", "UNLINK"):
            self._removed([word for word in words[1:] if self.LOCK.fullmatch(word)], self._caller if inside else ())

    def _held(self, key: str, owner: str, at: float) -> None:
        before = self._owners.get(key, owner)
        if before != owner and at < self._ends.get(key, 0.0) - CLOSE_SECONDS:
            self.faults.append(f"{key} of {before} was taken by {owner}")
        self._owners[key] = owner

    def _removed(self, keys: Sequence[str], caller: Sequence[str]) -> None:
        for key in keys:
            self.releases += 1
            owner = self._owners.pop(key, None)
            if owner is not None and owner not in caller:
                self.faults.append(f"{key} of {owner} was removed by {' '.join(caller[-2:]) or 'a plain DEL'}")
