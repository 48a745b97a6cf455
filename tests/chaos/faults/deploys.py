"""Versions: all processes at once, three deploys in one long turn, a release that raises, clocks that differ."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psycopg

from channels_ingest.formats.signatures import WINDOW_SECONDS
from tests.chaos import clock, versions
from tests.chaos.bots import BEGUN
from tests.chaos.cluster import Part
from tests.chaos.faults.base import FIND_SECONDS, Scene, fault, frozen, gone
from tests.kit.stack import ROOT, Process

PATIENCE_SECONDS = 30.0  # of a host, before SIGKILL


def deploy(
    scene: Scene,
    parts: Sequence[Part] = (),
    *,
    patience: float = PATIENCE_SECONDS,
    env: Mapping[str, str] | None = None,
    code: Path | None = None,
) -> list[str]:
    """As Heroku does it: SIGTERM to all processes at once, the new ones begin beside them. Who had to be killed."""
    old = []
    for part in parts or scene.cluster.parts():
        process = part.process
        old.append(process)
        new_env = {**process.env, **(env or {})}
        part.process = Process(process.name, process.command, new_env, process.log, code or process.code)
        process.signal(signal.SIGTERM)
        part.start()
    return end_in_time(old, patience)


def end_in_time(old: Sequence[Process], patience: float) -> list[str]:
    """Wait for them; whoever takes longer is killed. The names of those."""
    end, late = time.monotonic() + patience, []
    for process in old:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.end()
            late.append(process.name)
    return late


@fault("F33", "A deploy: all processes are told to stop at once, the new ones begin beside them", bound=20, seconds=1)
def deployed(scene: Scene) -> Iterator[None]:
    pids = [pid for part in scene.cluster.parts() for pid in part.process.tree()]
    begun = time.monotonic()
    late = deploy(scene, env={"VERSION": "chaos-2"})
    scene.notes["seconds_to_stop"] = round(time.monotonic() - begun, 1)
    scene.wrong(f"{', '.join(late)} had to be killed", late)
    yield
    scene.saw("all old processes are gone", all(map(gone, pids)))
    scene.saw("the new version is there", scene.wait(lambda: _versions(scene) == {"chaos-2"}, 30))


def _versions(scene: Scene) -> set[str]:
    return {version for (version,) in scene.cluster.query("SELECT version FROM worker WHERE NOT dead")}


@fault("three-deploys", "Three deploys during one long turn, by an impatient host", bound=40, seconds=1)
def three_deploys(scene: Scene) -> Iterator[None]:
    """A turn that our own shutdown cut is no attempt of its message."""
    message = scene.generator.say("keep", "long")
    lane = 'SELECT c.id FROM conversation c WHERE c."user" = %s'
    assert scene.wait(lambda: scene.cluster.query(lane, message.user), 20), "the message was not taken"
    lane_id = scene.value(lane, message.user)
    for number in range(1, 4):
        begun = scene.wait(lambda number=number: _begun(scene, lane_id) >= number, 40)
        scene.saw(f"its turn began for the {number}. time", begun)
        time.sleep(scene.chance.uniform(0.5, 2.0))
        deploy(scene, list(scene.cluster.hosts.values()), patience=2.0)
    yield
    handled = "SELECT count(*) FROM message WHERE conversation_id = %s AND status = 'handled'"
    scene.saw("it was handled in the end", scene.wait(lambda: scene.value(handled, lane_id), 60))
    attempts = scene.value("SELECT max(attempt) FROM turn WHERE conversation_id = %s", lane_id)
    scene.notes["attempts"] = attempts
    scene.wrong(f"its attempts are {attempts}", attempts != 1)


def _begun(scene: Scene, lane: int) -> int:
    """How often a bot was given a message of this lane."""
    lines = (scene.cluster.folder / BEGUN.name).read_text().splitlines()
    return sum(line.split()[2] == str(lane) for line in lines)


@fault("bad-release", "A release that raises on everything; the next one is good", bound=45, seconds=60, scaled=12)
def bad_release(scene: Scene) -> Iterator[None]:
    """Nobody's attempts are spent."""
    hosts = list(scene.cluster.hosts.values())
    paused = "SELECT count(*) FROM pause WHERE stops = 'handling' AND since IS NOT NULL"
    deploy(scene, hosts, env={"CHAOS_BROKEN": "1"})
    scene.began = time.monotonic_ns()
    scene.saw("the bot was paused", scene.wait(lambda: scene.value(paused) > 0, 30))
    yield
    parked = scene.value("SELECT count(*) FROM message m JOIN turn t ON t.message_id = m.id"
                         " WHERE m.status = 'parked' AND t.error_type LIKE '%%RuntimeError'")  # fmt: skip
    scene.wrong(f"{parked} messages were parked for it", parked)
    deploy(scene, hosts, env={"CHAOS_BROKEN": ""})
    scene.saw("the pause ended by itself", scene.wait(lambda: not scene.value(paused), 45))


@fault("dead-release", "A release whose workers do not even start; the next one is good", bound=20, seconds=30,
       scaled=10)  # fmt: skip
def dead_release(scene: Scene) -> Iterator[None]:
    hosts = list(scene.cluster.hosts.values())
    key, stored = scene.cluster.env["SECRET_KEY"], scene.stored()
    deploy(scene, hosts, env={"SECRET_KEY": ""})
    handled = scene.committed()
    yield
    scene.saw("messages were stored meanwhile", scene.stored() > stored)
    scene.saw("nobody handled any", scene.committed() == handled)
    deploy(scene, hosts, env={"SECRET_KEY": key})
    scene.saw("workers are there again", scene.wait(scene.cluster.complete, 40))


def _wrong_clocks(scene: Scene, seconds: int) -> Iterator[None]:
    """Each role in turn is ahead of those that wake it, by a shim (clock.py): the machine's clock is everybody's.

    The web's clock stays within the window of signed requests: it rightly refuses those outside.
    """
    wrong = {role: min(seconds, WINDOW_SECONDS - 60) if role == "web" else seconds for role in clock.ROLES}
    for ahead in (("web", "sweep"), ("send",), ("handle",)):
        clocks = [f"{role}={by if role in ahead else -by}" for role, by in wrong.items()]
        deploy(scene, env={"CHAOS_CLOCK": ",".join(clocks)})
        scene.saw("everybody is there", scene.wait(scene.cluster.complete, 40))
        before = scene.committed()
        handled = scene.wait(lambda before=before: scene.committed() > before)
        scene.wrong(f"nothing was handled in {FIND_SECONDS:g} s with {' and '.join(ahead)} ahead", not handled)
    with frozen(scene.cluster.redis.server.pid):
        time.sleep(2)
    before = scene.committed()
    yield
    scene.saw("messages were handled meanwhile", scene.committed() > before)
    said = {tuple(line.split()[:2]) for line in (scene.cluster.folder / "clocks.txt").read_text().splitlines()}
    wanted = {(str(sign * by), role) for sign in (1, -1) for role, by in wrong.items()}
    scene.saw("each role was ahead and behind", wanted <= said)
    deploy(scene, env={"CHAOS_CLOCK": ""})


fault("F35", "The clocks of the hosts are twenty minutes apart, and Redis stands still", bound=15, seconds=20,
      scaled=10)(functools.partial(_wrong_clocks, seconds=600))  # fmt: skip
fault("clock-60s", "The clocks of the roles are two minutes apart, and Redis stands still", bound=15, seconds=20,
      scaled=10)(functools.partial(_wrong_clocks, seconds=60))  # fmt: skip


# ---------------------------------------------------------------- two versions

PLANTED = '''
from django.db import migrations


class Migration(migrations.Migration):
    """What a next version may do to tables in use, again where it was cut off."""

    atomic = False
    dependencies = [("conversations", "0003_staff")]
    operations = [
        migrations.RunSQL("ALTER TABLE conversation ADD COLUMN IF NOT EXISTS planted int NOT NULL DEFAULT 7"),
        migrations.RunSQL("ALTER TABLE message ADD COLUMN IF NOT EXISTS planted text"),
        migrations.RunSQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS planted_message ON message (planted)"),
        migrations.RunSQL(
            "ALTER TABLE reply DROP CONSTRAINT IF EXISTS planted, ADD CONSTRAINT planted CHECK (sequence > 0) NOT VALID"
        ),
    ]
'''


@fault("two-versions", "The next version migrates and starts while this one serves", bound=20, seconds=5)
def two_versions(scene: Scene) -> Iterator[None]:
    """Its migrations are planted; a long read stands in their way. ``two-commits`` does it with two real versions."""
    cluster = scene.cluster
    package = f"planted_{scene.chance.getrandbits(24)}"
    folder = cluster.folder / package / "migrations"
    folder.mkdir(parents=True)
    for path in (folder.parent, folder):
        (path / "__init__.py").write_text("")
    (folder / "0001_first.py").write_text(PLANTED.replace("planted", package))
    env = {"EXTRA_APPS": package, "PYTHONPATH": f"{cluster.folder}:{ROOT}", "VERSION": package}
    scene.began = time.monotonic_ns()
    said = released(scene, {**cluster.env, **env})
    scene.saw("it waited for its turn", "A table is in use; trying again" in said)
    column = "SELECT count(*) FROM information_schema.columns WHERE column_name = %s"
    scene.saw("the tables are the next version's", scene.value(column, package) == 2)
    yield from _newer(scene, env)


@fault("two-commits", "The version before the newest migration serves while the new one migrates and starts", bound=20,
       seconds=5, alone=True, needs=versions.none_before, serves=versions.before)  # fmt: skip
def two_commits(scene: Scene) -> Iterator[None]:
    """Every process began with the older code (``serves``), on its tables."""
    cluster = scene.cluster
    scene.saw("the older version serves", all(part.process.code != ROOT for part in cluster.parts()))
    env = {"PYTHONPATH": str(ROOT), "VERSION": "newest"}
    plan = subprocess.run([sys.executable, "manage.py", "migrate", "--check"], cwd=ROOT, env={**cluster.env, **env})
    scene.saw("there is something to migrate", plan.returncode)
    scene.began = time.monotonic_ns()
    released(scene, {**cluster.env, **env})
    yield from _newer(scene, env, ROOT)


def _newer(scene: Scene, env: Mapping[str, str], code: Path | None = None) -> Iterator[None]:
    late = deploy(scene, env=env, code=code)
    scene.wrong(f"{', '.join(late)} had to be killed", late)
    yield
    refused = sum(status == 503 for status, *_ in scene.attempts(time.monotonic_ns()))
    scene.notes["refused"] = refused
    scene.wrong(f"{refused} webhooks were refused", refused)
    scene.saw("the new version is there", scene.wait(lambda: _versions(scene) == {env["VERSION"][:40]}, 30))


def released(scene: Scene, env: Mapping[str, str], folder: Path = ROOT) -> str:
    """The release command, as the Procfile has it, with a long read in its way for a while; what it said."""
    command = next(line for line in (folder / "Procfile").read_text().splitlines() if line.startswith("release:"))
    words = [sys.executable, *command.partition("python ")[2].split()]
    with psycopg.connect(scene.cluster.servers.database_url) as reading:
        for table in ("conversation", "message", "reply"):
            reading.execute(f"SELECT count(*) FROM {table}")
        running = subprocess.Popen(words, cwd=folder, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True)  # fmt: skip
        waited = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE 'ALTER TABLE%%'"
        scene.wait(lambda: running.poll() is not None or scene.value(waited), 40)
        time.sleep(3.0)  # longer than it waits
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 0, f"the release failed: {said[-2000:]}"
    return said
