"""The proxy does to real clients and servers what it says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest
import redis
import urllib3
from redis.backoff import NoBackoff
from redis.retry import Retry

from conversations.postgres import database
from conversations.postgres.sql_files import lua
from tests.chaos.proxy import DOWN, Link, at
from tests.conftest import Addresses


@pytest.fixture
def postgres(servers: Addresses) -> Iterator[Link]:
    with contextlib.closing(Link.to(servers.database_url)) as link:
        yield link


@pytest.fixture
def table(servers: Addresses) -> Iterator[str]:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS chaos_proxy (n int)")
        connection.execute("TRUNCATE chaos_proxy")
        yield "chaos_proxy"
        connection.execute("DROP TABLE chaos_proxy")


@pytest.fixture
def valkey(servers: Addresses) -> Iterator[Link]:
    with contextlib.closing(Link.to(servers.redis_url)) as link:
        yield link


@pytest.fixture
def cache(valkey: Link, servers: Addresses) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(at(servers.redis_url, valkey.port), socket_timeout=2, retry=Retry(NoBackoff(), 0))
    client.delete("chaos-queue")
    yield client
    client.close()


class Answers(BaseHTTPRequestHandler):
    served: list[str] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.served.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: Any) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Its connections are reset on purpose."""


@pytest.fixture
def http() -> Iterator[Link]:
    Answers.served = []
    server = Quiet(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    link = Link("127.0.0.1", server.server_address[1])
    yield link
    link.close()
    server.shutdown()
    server.server_close()


def connect(link: Link, servers: Addresses, **options: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(at(servers.database_url, link.port), autocommit=True, connect_timeout=3, **options)


def insert(connection: psycopg.Connection[Any], number: int) -> None:
    """As the product writes: BEGIN .. COMMIT in one pipeline."""
    database.transaction(connection, {"insert": ("INSERT INTO chaos_proxy VALUES (%(n)s)", {"n": number})})


def stored(servers: Addresses) -> list[int]:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM chaos_proxy ORDER BY n")]


def test_it_passes_what_both_sides_say(postgres: Link, servers: Addresses, cache: redis.Redis, valkey: Link) -> None:
    with connect(postgres, servers) as connection:
        row = connection.execute("SELECT repeat('x', 3000000)").fetchone()
        assert row is not None
        assert len(row[0]) == 3_000_000
    assert cache.ping()
    assert postgres.counts["accepted"] == 1
    assert valkey.counts["accepted"] == 1


@pytest.mark.parametrize("number", [1, 20], ids=["parsed", "prepared"])
@pytest.mark.parametrize(("what", "written"), [("commit_request", 0), ("commit_answer", 1)])
def test_what_was_to_be_committed_is_rolled_back_without_the_request_and_there_without_the_answer(
    postgres: Link, servers: Addresses, table: str, what: str, written: int, number: int
) -> None:
    with connect(postgres, servers) as connection:
        for n in range(1, number):
            insert(connection, n)
        trigger = postgres.arm(what, times=1)
        with pytest.raises(psycopg.OperationalError):
            insert(connection, number)
    assert trigger.hits == 1
    assert stored(servers) == list(range(1, number + written))


def test_a_commit_of_the_orm_is_found_as_well(postgres: Link, servers: Addresses, table: str) -> None:
    trigger = postgres.arm("commit_answer", times=1)
    connection = psycopg.connect(at(servers.database_url, postgres.port))
    connection.execute("INSERT INTO chaos_proxy VALUES (1)")
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert trigger.hits == 1
    assert stored(servers) == [1]


def test_a_trigger_keeps_to_its_application_and_to_every_nth(postgres: Link, servers: Addresses, table: str) -> None:
    trigger = postgres.arm("commit_answer", application="store", every=3)
    with connect(postgres, servers, application_name="send") as other:
        for n in range(6):
            insert(other, n)
    assert trigger.seen == 0
    with connect(postgres, servers, application_name="store") as connection:
        insert(connection, 6)
        insert(connection, 7)
        connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            insert(connection, 8)
    assert (trigger.seen, trigger.hits) == (3, 1)
    assert stored(servers) == list(range(9))


def test_it_refuses_and_comes_back_on_the_same_port(postgres: Link, servers: Addresses) -> None:
    connection = connect(postgres, servers)
    postgres.refuse()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(postgres, servers)
    postgres.heal()
    with connect(postgres, servers) as again:
        again.execute("SELECT 1")


def test_a_black_hole_accepts_and_says_nothing_and_what_was_said_passes_later(cache: redis.Redis, valkey: Link) -> None:
    cache.set("chaos-held", "0")
    valkey.hold()
    with pytest.raises(redis.TimeoutError):
        cache.incr("chaos-held")
    with socket.create_connection(("127.0.0.1", valkey.port), timeout=2):
        pass
    assert valkey.counts["held"] >= 1
    valkey.heal()
    assert cache.delete("chaos-held") == 1


def test_half_open_the_server_hears_and_is_not_heard(cache: redis.Redis, valkey: Link, servers: Addresses) -> None:
    cache.set("chaos-heard", "0")
    valkey.drop(DOWN)
    with pytest.raises(redis.TimeoutError):
        cache.incr("chaos-heard")
    with redis.Redis.from_url(servers.redis_url) as direct:
        assert direct.get("chaos-heard") == b"1"
    assert valkey.counts["dropped"] == 1
    valkey.heal()
    assert cache.delete("chaos-heard") == 1


def test_reset_delay_throttle_and_cut_hit_what_is_connected(cache: redis.Redis, valkey: Link) -> None:
    cache.set("chaos-big", "x" * 20_000)
    with socket.create_connection(("127.0.0.1", valkey.port), timeout=2) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100)
        assert valkey.reset() == 2
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    begun = time.monotonic()
    valkey.delay(0.3, DOWN)
    assert cache.ping()
    assert time.monotonic() - begun >= 0.3
    valkey.heal()
    begun = time.monotonic()
    valkey.throttle(40_000, DOWN)
    assert len(cache.get("chaos-big") or b"") == 20_000
    assert time.monotonic() - begun >= 0.4
    valkey.heal()
    valkey.cut_after(1_000, DOWN)
    with pytest.raises(redis.ConnectionError):
        cache.get("chaos-big")
    assert valkey.counts["cut"] == 1
    assert cache.delete("chaos-big") == 1


def test_a_task_that_redis_gave_away_is_lost(cache: redis.Redis, valkey: Link) -> None:
    trigger = valkey.arm("brpop_answer", times=1)
    assert cache.brpop(["chaos-queue"], timeout=1) is None
    assert trigger.hits == 0
    cache.lpush("chaos-queue", "task")
    with pytest.raises(redis.ConnectionError):
        cache.brpop(["chaos-queue"], timeout=1)
    assert trigger.hits == 1
    assert cache.llen("chaos-queue") == 0


def test_a_lock_is_taken_and_its_taker_does_not_know(cache: redis.Redis, valkey: Link, servers: Addresses) -> None:
    hold = cache.register_script(lua("hold"))
    hold(keys=["chaos-lock-0"], args=["me", 60_000])
    other = valkey.arm("script_answer", only="0" * 40)
    trigger = valkey.arm("script_answer", only=hold.sha, times=1)
    with pytest.raises(redis.ConnectionError):
        hold(keys=["chaos-lock"], args=["me", 60_000])
    assert (trigger.hits, other.hits) == (1, 0)
    with redis.Redis.from_url(servers.redis_url) as direct:
        assert direct.hget("chaos-lock", "o") == b"me"


def test_a_script_that_the_server_does_not_know_is_sent_again(cache: redis.Redis, valkey: Link) -> None:
    hold = cache.register_script(lua("hold"))
    trigger = valkey.arm("no_script", times=1)
    assert hold(keys=["chaos-lock-1"], args=["me", 1000]) == [1]
    assert trigger.hits == 1
    with pytest.raises(redis.exceptions.NoScriptError):
        cache.evalsha("0" * 40, 0)


def test_a_request_is_served_and_its_answer_lost(http: Link) -> None:
    pool = urllib3.PoolManager(retries=False)
    url = f"http://127.0.0.1:{http.port}"
    assert pool.request("POST", f"{url}/a", body=b"1").status == 200
    trigger = http.arm("http_answer", only="/b", times=1)
    assert pool.request("POST", f"{url}/a", body=b"2").status == 200
    with pytest.raises(urllib3.exceptions.ProtocolError):
        pool.request("POST", f"{url}/b", body=b"3")
    assert trigger.hits == 1
    assert Answers.served == ["/a", "/a", "/b"]
