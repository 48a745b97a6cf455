"""A deploy as Heroku does it: the Procfile's lines with the variables of app.json, on Debian's Postgres and Redis.

The processes run as an unprivileged user, from a copy of the code, without LOCAL. Two versions overlap in each deploy,
and a router sends the webhooks to the web process of one of them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
import urllib3

from botproject.local import postgres, valkey
from botproject.local.__main__ import procfile
from botproject.local.binaries import Binary, debian_order, major_version
from botproject.local.places import UNPRIVILEGED
from botproject.local.servers import private_servers
from conversations.operating import deploy_checks
from tests.kit.doubles import Double
from tests.kit.people import LOOSE, Crowd
from tests.kit.platforms import telegram_text
from tests.kit.stack import ROOT, Channel, Process, Stack, free_port, wait_until

POSTGRES = [folder / "postgres" for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=debian_order)]
REDIS = Path("/usr/bin/redis-server")
pytestmark = [
    pytest.mark.skipif(
        not (POSTGRES and REDIS.exists()), reason="no Debian servers: `apt-get install postgresql redis-server`"
    ),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

DOMAIN = "bots-0a1b2c.herokuapp.test"
PLAN = 20  # connections of the smallest database plan
ROUTED = {"Host": DOMAIN, "X-Forwarded-Proto": "https"}  # what Heroku's router tells a web process
CODE = ("manage.py", "Procfile", "app.json", "botproject", "conversations", "channels_ingest")
MESSAGES = 500


def copy_python(target: Path) -> None:
    """Copy this interpreter with its library, as an app's slug holds its own: ours may lie below /root."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    unneeded = shutil.ignore_patterns("__pycache__", "site-packages", "test", "idlelib", "config-*")
    shutil.copytree(Path(os.__file__).parent, target / "lib" / version, ignore=unneeded)
    for library in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython*.so*"):
        shutil.copy(library, target / "lib")
    (target / "bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), target / "bin" / "python")


def unprivileged() -> list[str]:
    """The beginning of a command that runs as nobody, if we are root."""
    if os.geteuid():
        return []
    return ["setpriv", f"--reuid={UNPRIVILEGED}", "--regid=nogroup", "--clear-groups"]


class App(Stack):
    """An app on a platform that runs the Procfile. ``deploy`` starts a version, then stops the one before."""

    def __init__(self) -> None:
        super().__init__(roles="", webs=0)
        self._version: list[Process] = []
        self._routed = threading.Condition()
        self._in_flight = 0

    def _start(self) -> None:
        self._prepare()
        self.folder.chmod(0o755)
        self.code = self.folder / "app"
        for name in CODE:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            self.code.mkdir(exist_ok=True)
            copy(ROOT / name, self.code / name)
        copy_python(self.folder / "python")
        self.servers = self._stack.enter_context(debian_servers())
        self.env = self._environment()
        self.deploy()

    def _environment(self) -> dict[str, str]:
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        buildpack = {
            "PATH": f"{self.folder}/python/bin:/usr/local/bin:/usr/bin:/bin",
            "LD_LIBRARY_PATH": f"{self.folder}/python/lib",
            "PYTHONHOME": f"{self.folder}/python",
            "HOME": str(self.code),
            "LANG": "en_US.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": f"{self.code}:{packages}",
            "WEB_CONCURRENCY": "2",  # for 512 MB, unless the app sets it
            "DYNO": "web.1",
            "HEROKU_APP_DEFAULT_DOMAIN_NAME": DOMAIN,
        }
        wanted = json.loads((self.code / "app.json").read_text())["env"]
        config = {name: each.get("value") or secrets.token_hex(32) for name, each in wanted.items()
                  if "value" in each or "generator" in each}  # fmt: skip
        return {**buildpack, **config, "DATABASE_URL": self.role_url, "REDIS_URL": self.servers.redis_url}

    @property
    def role_url(self) -> str:
        """The address that a database plan gives: a role that owns one database and may open 20 connections."""
        with psycopg.connect(self.servers.database_url, autocommit=True) as connection:
            connection.execute(f"ALTER ROLE app PASSWORD 'app' CONNECTION LIMIT {PLAN}")  # type: ignore[arg-type]
        return f"postgresql://app:app@{self.servers.database_url.rpartition('@')[2]}"

    def dyno(self, name: str, env: Mapping[str, str]) -> Process:
        """A line of the Procfile. It may call this machine, as no app may: the platform here is a double."""
        command = [*unprivileged(), "/bin/sh", "-c", f"exec {procfile()[name]}"]
        return Process(name, command, {**self.env, **env}, self.folder / f"{name}-{len(self._workers)}.log", self.code)

    def deploy(self) -> None:
        released = self.one_off(procfile()["release"])
        assert released.returncode == 0, released.stdout + released.stderr
        before, port = self._version, free_port()
        test_only = {"ALLOW_PRIVATE_OUTBOUND": "1", "BIND": "127.0.0.1"}
        self._version = [self._begin(self.dyno("web", {**test_only, "PORT": str(port)})),
                         self._begin(self.dyno("worker", test_only))]  # fmt: skip
        wait_until(lambda: self.healthy(port), 30, "the web process answers")
        with self._routed:
            self.ports = [port]
            assert self._routed.wait_for(lambda: not self._in_flight, 30), "a request that is never answered"
        for process in before:
            process.signal(signal.SIGTERM)
        for process in before:
            process.wait(60)

    @contextmanager
    def route(self) -> Iterator[int]:
        """The port of the version that takes requests; an old version is stopped when it has answered."""
        with self._routed:
            port = self.ports[0]
            self._in_flight += 1
        try:
            yield port
        finally:
            with self._routed:
                self._in_flight -= 1
                self._routed.notify_all()

    def healthy(self, port: int) -> bool:
        try:
            return self.http.request("GET", f"http://127.0.0.1:{port}/healthz/", headers=ROUTED).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def one_off(self, command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        words = [*unprivileged(), "/bin/sh", "-c", f"exec {command}"]
        return subprocess.run(words, cwd=self.code, env={**self.env, **(env or {})}, capture_output=True, text=True)

    def manage(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        done = self.one_off(f"python manage.py {' '.join(arguments)}", {"ALLOW_PRIVATE_OUTBOUND": "1"})
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout


@contextmanager
def debian_servers() -> Iterator[postgres.Postgres]:
    """Postgres with a role and a database of an app, and Redis, both as Debian packages them."""
    with pytest.MonkeyPatch.context() as patch:
        for module, finder, path in ((postgres, "find_postgres", POSTGRES[0]), (valkey, "find_valkey", REDIS)):
            version = major_version(path)
            assert version, path
            patch.setattr(module, finder, lambda path=path, version=version: Binary(path=path, version=version))
        with private_servers() as servers:
            with psycopg.connect(servers.database_url, autocommit=True) as connection:
                connection.execute("CREATE ROLE app LOGIN")
                connection.execute("CREATE DATABASE app OWNER app")
            url = urlsplit(servers.database_url)._replace(path="/app").geturl()
            yield dataclasses.replace(servers, database_url=url)


class Customers(Crowd):
    """A crowd behind the router. Nobody repeats a message that was refused."""

    stack: App

    def _post(self, user: int, number: int, attempt: int) -> int:
        body, headers = telegram_text(self.channel, user, number, str(number))
        with self.stack.route() as port:
            url = f"http://127.0.0.1:{port}{self.channel.webhook_path}"
            try:
                status = urllib3.request("POST", url, body=body, headers={**headers, **ROUTED}, retries=False).status
            except urllib3.exceptions.HTTPError:
                status = 0
        self.answers[status] += 1
        return status


def test_two_deploys_under_load_lose_refuse_double_and_reorder_nothing() -> None:
    with Double() as double, App() as app:
        channel: Channel = app.add_channel("telegram", bot="echo", api_base=double.url, limits=LOOSE, token="1:abc",
                                           secret_token=secrets.token_hex(16))  # fmt: skip
        crowd = Customers(app, channel, range(1, 21), again=False, pause=0.2)
        connections: list[tuple[int, int]] = []
        with crowd.writing():
            for _ in range(2):
                app.deploy()
                connections.append(counted(app))
            wait_until(lambda: crowd.total() >= MESSAGES, 60, "the crowd is heard")
        wait_until(app.drained, 60, "all is handled and delivered")
        assert set(crowd.answers) == {200}
        assert crowd.stored() == crowd.accepted
        shown = {user: [line["text"] for line in double.accepted("sendMessage") if line["chat"] == str(user)]
                 for user in crowd.accepted}  # fmt: skip
        assert shown == crowd.accepted
        most_redis = sum(deploy_checks.REDIS_CONNECTIONS.values())
        assert all(database <= PLAN and redis <= most_redis + 1 for database, redis in connections), connections


def counted(app: App) -> tuple[int, int]:
    """Connections of the app to Postgres and to Redis; one more is ours."""
    with redis.Redis.from_url(app.servers.redis_url) as client:
        return app.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"), len(client.client_list())
