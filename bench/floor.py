"""``python -m bench.floor <platform> <rate>``: what no pipeline can leave out, each step alone; prints medians in ms.

One process, one step after the other, ``rate`` rounds a second: a message that comes alone finds cold caches and a
processor asleep, which made each step four times as slow at 10 a second as at 100 on a virtual machine. A commit is
that of a pipeline that keeps order: lock the person, number the message, insert it, flush. Run it with the environment
of the measured processes.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import psycopg
import redis
import urllib3

ROUNDS, SECONDS = 300, 6.0  # at most
PERSON = 1
TEXT = "a message of the usual length"
# How often a message needs each step: stored, then handled with its reply; read; woken twice; sent.
STEPS = {"commit": 2, "read": 1, "redis": 2, "call": 1}
TABLES = """
DROP TABLE IF EXISTS floor_person, floor_message;
CREATE TABLE floor_person (id int PRIMARY KEY, last int NOT NULL);
CREATE TABLE floor_message (person int, number int, body text, PRIMARY KEY (person, number));
INSERT INTO floor_person VALUES (1, 0)
"""


def main(platform: str, rate: float) -> None:
    database = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=0)
    database.execute(TABLES, prepare=False)
    steps = ways(database, redis.Redis.from_url(os.environ["REDIS_URL"]), platform)
    took: dict[str, list[float]] = {name: [] for name in steps}
    began = time.monotonic()
    for number in range(min(ROUNDS, round(SECONDS * rate))):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        for name, step in steps.items():
            before = time.perf_counter()
            step()
            took[name].append((time.perf_counter() - before) * 1000)
    database.execute("DROP TABLE floor_person, floor_message", prepare=False)
    medians = {name: statistics.median(values) for name, values in took.items()}
    print(json.dumps(medians | {"all": sum(medians[name] * times for name, times in STEPS.items())}))


def ways(database: psycopg.Connection, valkey: redis.Redis, platform: str) -> dict[str, Callable[[], object]]:
    """Each step as a function; all run in each round."""
    http = urllib3.PoolManager()
    numbers = itertools.count(1)

    def commit() -> None:
        with database.pipeline(), database.transaction():
            database.execute("SELECT last FROM floor_person WHERE id = %s FOR UPDATE", (PERSON,))
            database.execute(
                "WITH next AS (UPDATE floor_person SET last = last + 1 WHERE id = %s RETURNING id, last)"
                " INSERT INTO floor_message SELECT id, last, %s FROM next",
                (PERSON, TEXT),
            )

    def read() -> object:
        return database.execute(
            "SELECT body FROM floor_message JOIN floor_person ON id = person AND number = last WHERE id = %s", (PERSON,)
        ).fetchone()

    def trip() -> object:
        return valkey.set("floor", TEXT, nx=True, px=1)

    def call() -> None:
        reply = {"chat_id": PERSON, "text": f"floor-{os.getpid()}:{next(numbers)}"}  # as the world checks: 1, 2, 3
        http.request("POST", f"{platform}/bot1:floor/sendMessage", json=reply)

    return {"commit": commit, "read": read, "redis": trip, "call": call}


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
