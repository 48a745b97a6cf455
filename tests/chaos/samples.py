"""Once a second, while a run goes on: what waits, connections, memory, dead rows. For curves, and for what was most."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row

from tests.chaos.cluster import Cluster

EVERY_SECONDS = 1.0
SAMPLE = """
SELECT sum(last_sequence - next_sequence + 1)::bigint AS messages_waiting,
       sum(last_reply_sequence - next_reply_sequence + 1)::bigint AS replies_waiting,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       (SELECT sum(n_dead_tup) FROM pg_stat_user_tables)::bigint AS dead_rows
  FROM conversation"""

Sample = Mapping[str, float]


class Samples:
    """``taken``: one a second, ``at`` in seconds after the first; without the database's part while it is away.

    One connection, kept: where all are taken by a fault, none gets free because of us.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.taken: list[Sample] = []
        self.troubles: list[str] = []
        self._connection: psycopg.Connection[Any] | None = None
        self._stopping = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def most(self) -> Sample:
        """The highest of each, over the run."""
        names = {name for sample in self.taken for name in sample if name != "at"}
        return {name: max(sample.get(name, 0.0) for sample in self.taken) for name in sorted(names)}

    def _run(self) -> None:
        try:
            while not self._stopping.wait(EVERY_SECONDS):
                self.taken.append(self._sample())
        except Exception as error:
            self.troubles.append(f"nobody looked any more, once a second: {type(error).__name__}: {error}")
        finally:
            self._close()

    def _sample(self) -> Sample:
        sample = {"at": round(time.monotonic() - self._began, 1), "memory_mb": memory_mb(self.cluster)}
        try:
            return {**sample, **self._in_the_database()}
        except psycopg.Error:
            self._close()
            return sample

    def _in_the_database(self) -> Sample:
        if self._connection is None:
            url = self.cluster.servers.database_url
            self._connection = psycopg.connect(url, connect_timeout=2, autocommit=True, row_factory=dict_row)
            self._connection.execute("SET statement_timeout = '2s'")
        row: Sample | None = self._connection.execute(SAMPLE).fetchone()
        assert row is not None
        return row

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def memory_mb(cluster: Cluster) -> float:
    """Of all processes of ours together (RSS)."""
    total = 0
    for part in cluster.parts():
        for pid in part.process.tree():
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss
    return round(total / 1e6)
