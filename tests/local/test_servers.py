"""The local servers: up, down, killed, found again, apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from botproject.local.places import remove_room
from botproject.local.processes import Server
from botproject.local.servers import AlreadyRunning, Servers, local_servers, only_run

HOWS = ("stop", "stop_immediately", "kill")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A directory for servers; what root had to put elsewhere goes with it."""
    yield tmp_path
    for name in ("postgres", "valkey"):
        remove_room(tmp_path / name)


def test_postgres_keeps_the_promise_and_listens_here_only(private_servers: Servers) -> None:
    wanted = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
              "listen_addresses": "127.0.0.1", "server_encoding": "UTF8"}  # fmt: skip
    with psycopg.connect(private_servers.database_url) as connection:
        found = {name: setting(connection, name) for name in wanted}
    assert found == wanted


def test_valkey_keeps_what_it_is_told_and_never_evicts(private_servers: Servers) -> None:
    client = redis.Redis.from_url(private_servers.redis_url, decode_responses=True)
    names = ("appendonly", "appendfsync", "save", "maxmemory-policy", "bind")
    values = [client.config_get(name)[name] for name in names]
    assert values == ["yes", "everysec", "", "noeviction", "127.0.0.1"]


def test_other_users_of_the_machine_read_neither_logs_nor_data(private_servers: Servers) -> None:
    redis.Redis.from_url(private_servers.redis_url).set("a", "b")  # writes the append-only file
    for server in (private_servers.postgres, private_servers.valkey):
        assert server
        readable = [path for path in (server.log, *server.data.rglob("*")) if path.stat().st_mode & 0o077]
        assert [path for path in readable if not hidden(path, server.data)] == []


def hidden(path: Path, top: Path) -> bool:
    """Return True if a folder on the way keeps others out."""
    return any(not folder.stat().st_mode & 0o001 for folder in path.parents if folder.is_relative_to(top))


def test_both_ask_for_a_password(private_servers: Servers) -> None:
    assert private_servers.postgres
    assert private_servers.valkey
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(private_servers.database_url.replace(private_servers.postgres.password, "x"))
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=private_servers.valkey.port).ping()


@pytest.mark.parametrize("how", HOWS)
def test_a_server_comes_back_on_its_port_with_its_data(private_servers: Servers, how: str) -> None:
    write(private_servers, "kept")
    before = [server.port for server in private_servers.started]
    for server in private_servers.started:
        getattr(server, how)()
        assert not server.alive()
        server.start()
    assert [server.port for server in private_servers.started] == before
    assert read(private_servers) == ("kept", "kept")


def test_servers_left_by_a_killed_run_are_found(home: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from botproject.local.servers import local_servers
with local_servers(Path({str(home)!r})) as servers:
    print(*[server.pid for server in servers.started], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with local_servers(home) as servers:
        assert [server.pid for server in servers.started] == [int(pid) for pid in killed.stdout.split()]
    assert not any(server.alive() for server in servers.started)


def test_a_stale_pid_file_of_a_living_stranger_is_no_obstacle(home: Path) -> None:
    with local_servers(home) as servers:
        files = [server.pid_file for server in servers.started]
        texts = [file.read_text() for file in files]
    for file, text in zip(files, texts, strict=True):
        file.write_text("\n".join([str(os.getpid()), *text.split("\n")[1:]]))
    with local_servers(home) as servers:
        assert all(server.answers() for server in servers.started)


def test_another_major_versions_data_is_left_alone(home: Path) -> None:
    with local_servers(home) as servers:
        assert servers.postgres
        older = servers.postgres.room / "9"
        older.mkdir()
        (older / "PG_VERSION").write_text("9\n")
        assert servers.postgres.data_of_other_versions() == [older]
        servers.postgres.restart()
    assert list(older.iterdir()) == [older / "PG_VERSION"]


def test_two_runs_do_not_share_a_directory(home: Path) -> None:
    with local_servers(home), pytest.raises(AlreadyRunning), local_servers(home):
        pass


def test_given_urls_start_nothing(home: Path) -> None:
    with local_servers(home, database_url="postgresql://a/b", redis_url="redis://c/0") as servers:
        assert servers.started == []
        assert servers.database_url == "postgresql://a/b"


def test_addresses_and_passwords_are_private(home: Path) -> None:
    with local_servers(home) as servers:
        rooms = [server.room / "password" for server in servers.started]
        files = [home / "servers.json", *rooms]
        assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3


def test_what_dies_is_started_again(private_servers: Servers) -> None:
    said: list[str] = []
    private_servers.watch(said.append)
    for server in private_servers.started:
        pid = server.pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        wait_for_other_pid(server, pid)
    assert len(said) == 2


def wait_for_other_pid(server: Server, pid: int) -> None:
    deadline = time.monotonic() + 30
    while server.pid in (None, pid) or not server.answers():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def setting(connection: psycopg.Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row
    return str(row[0])


def write(servers: Servers, text: str) -> None:
    with psycopg.connect(servers.database_url) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [text])
    client = redis.Redis.from_url(servers.redis_url)
    client.set("kept", text)
    client.execute_command("WAITAOF", 1, 0, 2000)


def read(servers: Servers) -> tuple[str, str]:
    with psycopg.connect(servers.database_url) as connection:
        row = connection.execute("SELECT word FROM kept").fetchone()
    assert row
    return str(row[0]), redis.Redis.from_url(servers.redis_url).get("kept").decode()


def test_a_second_run_says_that_it_waits(tmp_path: Path) -> None:
    said: list[str] = []
    with only_run(tmp_path, 0.0), pytest.raises(AlreadyRunning), only_run(tmp_path, 0.3, said.append):
        pass
    assert said == [f"another run uses {tmp_path}; waiting up to 0 s for it to stop"]


def test_a_first_run_says_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    with only_run(tmp_path, 30.0, said.append):
        assert said == []
