"""Once a second, while a run goes on: what waits, connections, memory, dead rows. For curves, and for what was most."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping

import psutil
import psycopg

from tests.chaos.cluster import Cluster

EVERY_SECONDS = 1.0
SAMPLE = """
SELECT (SELECT count(*) FROM message WHERE status IN ('waiting', 'pending')) AS messages_waiting,
       (SELECT count(*) FROM reply WHERE status IN ('pending', 'sending')) AS replies_waiting,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       (SELECT sum(n_dead_tup) FROM pg_stat_user_tables)::bigint AS dead_rows"""

Sample = Mapping[str, float]


class Samples:
    """``taken``: one a second, ``at`` in seconds after the first; without the database's part while it is away."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.taken: list[Sample] = []
        self._stopping = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name="samples", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def most(self) -> Sample:
        """The highest of each, over the run."""
        names = {name: 0.0 for sample in self.taken for name in sample if name != "at"}
        return {name: max(sample.get(name, 0.0) for sample in self.taken) for name in names}

    def _loop(self) -> None:
        while not self._stopping.wait(EVERY_SECONDS):
            sample = {"at": round(time.monotonic() - self._began, 1), "memory_mb": memory_mb(self.cluster)}
            with contextlib.suppress(psycopg.OperationalError):
                sample |= self._in_the_database()
            self.taken.append(sample)

    def _in_the_database(self) -> Sample:
        with psycopg.connect(self.cluster.servers.database_url, connect_timeout=2) as pg:
            pg.execute("SET statement_timeout = '2s'")
            cursor = pg.execute(SAMPLE)
            row = cursor.fetchone()
            assert row is not None
            assert cursor.description is not None
            return {column.name: value for column, value in zip(cursor.description, row, strict=True)}


def memory_mb(cluster: Cluster) -> float:
    """Of all processes of ours together (RSS)."""
    total = 0
    for part in cluster.parts():
        for pid in part.process.tree():
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss
    return round(total / 1e6)
