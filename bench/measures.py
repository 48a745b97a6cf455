"""What a period of work cost: CPU by part, and the counters of Postgres."""

from __future__ import annotations

import functools
import os
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.stack import System
from botproject.local.processes import RUN_MARK
from conversations.postgres.sql_files import SQL

TICK = os.sysconf("SC_CLK_TCK")
_NOT_WORDS = re.compile(r"--[^\n]*|/\*.*?\*/|%\(\w+\)s|'[^']*'|\$\d+")
_WORDS = re.compile(r"[A-Za-z_]{2,}")
_CONSTANTS = {"true", "false", "null", "interval", "epoch"}  # Postgres may write $1 for them
PARTS = ("web", "handle", "send", "sweep", "worker", "postgres", "valkey", "world")


class Snapshot:
    """Read all counters now."""

    def __init__(self, system: System) -> None:
        self.at = time.monotonic()
        self.cpu = cpu(system)
        self.machine = machine_seconds()
        self.wal = dict(zip(("records", "full_pages", "bytes"), system.query(
            "SELECT wal_records, wal_fpi, wal_bytes FROM pg_stat_wal")[0], strict=True))  # fmt: skip
        self.database = dict(zip(("commits", "rollbacks", "inserted", "updated", "deleted"), system.query(
            "SELECT xact_commit, xact_rollback, tup_inserted, tup_updated, tup_deleted FROM pg_stat_database"
            " WHERE datname = current_database()")[0], strict=True))  # fmt: skip
        self.tables = {name: (updated, hot) for name, updated, hot in system.query(
            "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE n_tup_upd > 0")}  # fmt: skip
        self.statements = statements(system)


class Cost:
    """The difference of two snapshots, per message."""

    def __init__(self, before: Snapshot, after: Snapshot, messages: int) -> None:
        self.messages = messages
        per = 1 / max(1, messages)
        self.cpu_us = {part: (after.cpu[part] - before.cpu.get(part, 0.0)) * per * 1e6
                       for part in PARTS if part in after.cpu}  # fmt: skip
        seconds = after.at - before.at
        mine = sum(after.cpu[part] - before.cpu.get(part, 0.0) for part in after.cpu)
        self.busy = mine / seconds  # cores
        self.others = max(0.0, (after.machine - before.machine - mine) / seconds)
        self.processor_share = (after.machine - before.machine) / seconds / (os.cpu_count() or 1)  # of the machine
        self.wal_bytes = float(after.wal["bytes"] - before.wal["bytes"]) * per
        self.wal_full_pages = float(after.wal["full_pages"] - before.wal["full_pages"]) * per
        self.rows = {name: (after.database[name] - before.database[name]) * per
                     for name in ("inserted", "updated", "deleted")}  # fmt: skip
        self.commits = (after.database["commits"] - before.database["commits"]) * per
        self.hot = {}
        for name, (updated, hot) in after.tables.items():
            old = before.tables.get(name, (0, 0))
            if updated - old[0] > messages * 0.05:
                self.hot[name] = (hot - old[1]) / (updated - old[0])
        self.statements = {}
        for name, (calls, milliseconds, rows) in after.statements.items():
            old_calls, old_milliseconds, old_rows = before.statements.get(name, (0, 0.0, 0))
            if calls > old_calls:
                self.statements[name] = (calls - old_calls, milliseconds - old_milliseconds, rows - old_rows)

    def as_dict(self) -> dict[str, Any]:
        named = {
            name: {
                "calls": calls,
                "rows_per_call": round(rows / calls, 2),
                "us_per_message": round(milliseconds * 1000 / max(1, self.messages), 2),
            }
            for name, (calls, milliseconds, rows) in sorted(self.statements.items(), key=lambda item: -item[1][1])
        }
        calls = sum(calls for calls, _, _ in self.statements.values())
        return {
            "messages": self.messages,
            "cpu_us_per_message": {part: round(us, 1) for part, us in self.cpu_us.items()},
            "cpu_us_total": round(sum(self.cpu_us.values()), 1),
            "cores_used": round(self.busy, 2),
            "cores_used_by_others": round(self.others, 2),
            "commits_per_message": round(self.commits, 4),
            "statements_per_message": round(calls / max(1, self.messages), 3),
            "rows_per_message": {name: round(count, 3) for name, count in self.rows.items()},
            "wal_bytes_per_message": round(self.wal_bytes),
            "wal_full_pages_per_message": round(self.wal_full_pages, 4),
            "hot_share": {name: round(share, 3) for name, share in self.hot.items()},
            "statements": dict(list(named.items())[:20]),
        }


# ---------------------------------------------------------------- statements


def statements(system: System) -> dict[str, tuple[int, float, int]]:
    """Calls, milliseconds and rows by name: the statement's file, or else its first words."""
    found: dict[str, tuple[int, float, int]] = defaultdict(lambda: (0, 0.0, 0))
    for query, calls, milliseconds, rows in system.query(
        "SELECT query, calls, total_exec_time, rows FROM pg_stat_statements s"
        " JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()"
    ):
        name = name_of(query)
        before = found[name]
        found[name] = (before[0] + calls, before[1] + milliseconds, before[2] + rows)
    return dict(found)


def name_of(query: str) -> str:
    """The file of the statement with the same words, without constants and comments."""
    return _files().get(words_of(query)) or flat(query)[:60]


def words_of(query: str) -> tuple[str, ...]:
    return tuple(word for word in _WORDS.findall(_NOT_WORDS.sub(" ", query)) if word.lower() not in _CONSTANTS)


@functools.cache
def _files() -> dict[tuple[str, ...], str]:
    return {words_of(text): name for name, text in SQL.items()}


def flat(text: str) -> str:
    return " ".join(text.split())


# ---------------------------------------------------------------- processes


def parts(system: System) -> dict[str, list[int]]:
    """Process ids by part of the system. A process is found by the system's folder in its environment."""
    mark = f"{RUN_MARK}={system.folder}".encode()
    sessions = {process.pid: name for name, process in system.running.items()}
    servers = {server.pid: server.name for server in system.servers.started}
    found: dict[str, list[int]] = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            parent, session = parent_and_session(pid)
            if pid in servers or parent in servers:
                found[servers.get(pid) or servers[parent]].append(pid)
            elif mark in (variables := (entry / "environ").read_bytes().split(b"\0")):
                role = next((each[12:].decode() for each in variables if each.startswith(b"WORKER_ROLE=")), "")
                found[role or sessions.get(session, "worker")].append(pid)
        except OSError:
            continue
    return dict(found)


def parent_and_session(pid: int) -> tuple[int, int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), int(fields[3])


def machine_seconds() -> float:
    """CPU seconds that all processes of this machine used."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _wait, interrupts, soft, stolen = fields
    return (user + nice + system + interrupts + soft + stolen) / TICK


def cpu(system: System) -> dict[str, float]:
    """CPU seconds so far, by part; ``world`` is this process."""
    seconds = {"world": sum(os.times()[:2])}
    for part, pids in parts(system).items():
        seconds[part] = sum(map(cpu_seconds, pids))
    return seconds


def cpu_seconds(pid: int) -> float:
    """CPU seconds of the process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICK


def memory(system: System) -> dict[str, float]:
    """PSS in MB, by part: shared pages count once over all."""
    return {part: sum(map(pss, pids)) / 1024 for part, pids in parts(system).items()}


def pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0
