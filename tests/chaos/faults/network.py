"""Between processes: slow, narrow, cut one way, an answer swallowed, names that cannot be found."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from tests.chaos.cluster import Part
from tests.chaos.faults.base import Scene, fault, no_private_mounts
from tests.chaos.proxy import UP, at

TO_POSTGRES = ("web-pg", "A-pg", "B-pg")
# Who speaks through which link; see the names of the committers.
STREAMS = {"web-pg": ("store",), "A-pg": ("handle", "send"), "B-pg": ("handle", "send")}
MOST_RESETS = 20  # in one fault: each costs its caller a new connection


def _commits_hurt(scene: Scene, name: str) -> Iterator[None]:
    """Of every stream: storing, handling, delivering."""
    how = {"every": scene.chance.randint(3, 6), "times": MOST_RESETS}
    pairs = [(link, stream) for link, streams in STREAMS.items() for stream in streams]
    triggers = {pair: scene.link(pair[0]).arm(name, application=pair[1], **how) for pair in pairs}
    yield
    scene.wait(lambda: all(trigger.hits for trigger in triggers.values()), 10)
    for link in STREAMS:
        scene.link(link).heal()
    for stream in ("store", "handle", "send"):
        hits = sum(trigger.hits for (_, of), trigger in triggers.items() if of == stream)
        scene.notes[f"{stream}_hits"] = hits
        scene.saw(f"{hits} commits of {stream} were hurt", hits)


fault("F23", "Postgres commits, and the answer is lost", bound=10, seconds=5, links=TO_POSTGRES,
      smoke=4)(functools.partial(_commits_hurt, name="commit_answer"))  # fmt: skip
fault("commit-lost", "A COMMIT gets lost on its way to Postgres", bound=10, seconds=5,
      links=TO_POSTGRES)(functools.partial(_commits_hurt, name="commit_request"))  # fmt: skip


@fault("F25", "Postgres is far away: 200 ms, then 2 s; then the line is narrow", bound=20, seconds=60, scaled=15,
       links=TO_POSTGRES)  # fmt: skip
def far_away(scene: Scene) -> Iterator[None]:
    links = [scene.link(name) for name in TO_POSTGRES]
    scene.seconds /= 3
    for link in links:
        link.delay(0.1)  # each way
    time.sleep(scene.seconds)
    for link in links:
        link.delay(1.0)
    time.sleep(scene.seconds)
    for link in links:
        link.delay(0.0)
        link.throttle(32_000)
    yield
    for link in links:
        scene.saw("what was said was slowed down", link.counts["delayed"])
        link.heal()


@fault("F26", "Postgres no longer hears a host of workers, which still hears it", bound=15, seconds=120, scaled=15,
       links=["A-pg"])  # fmt: skip
def half_open(scene: Scene) -> Iterator[None]:
    link, before = scene.link("A-pg"), scene.committed()
    pids = scene.cluster.pids("A")
    link.drop(UP)
    yield
    dead = scene.value("SELECT count(*) FROM worker WHERE pid = ANY(%s) AND dead", pids)
    scene.saw("what the host said was lost", link.counts["dropped"])
    scene.saw("it was taken for dead", dead)
    scene.saw("the other host handled messages meanwhile", scene.committed() > before)
    link.heal()


@fault("split", "A host of workers and Postgres do not hear each other", bound=15, seconds=60, scaled=12,
       links=["B-pg"])  # fmt: skip
def split(scene: Scene) -> Iterator[None]:
    link, before = scene.link("B-pg"), scene.committed()
    link.hold()
    yield
    scene.saw("what both said was held up", link.counts["held"])
    scene.saw("the other host handled messages meanwhile", scene.committed() > before)
    link.heal()


def _answers_lost(scene: Scene, names: Sequence[str], **how: Any) -> Iterator[None]:
    triggers = [scene.link(name).arm("http_answer", every=3, **how) for name in names]
    yield
    for name in names:
        scene.link(name).heal()
    scene.saw("answers were lost", sum(trigger.hits for trigger in triggers))


TO_PLATFORM, TO_WEB = ("sender-platform",), ("generator-web-0", "generator-web-1")
fault("answers-lost", "The platform takes a reply, and its answer is lost", bound=20, seconds=5,
      links=TO_PLATFORM)(functools.partial(_answers_lost, names=TO_PLATFORM, times=MOST_RESETS))  # fmt: skip
fault("webhook-answers-lost", "A webhook is stored, and the platform never hears it", bound=10, seconds=5,
      links=TO_WEB)(functools.partial(_answers_lost, names=TO_WEB, only="/webhooks/"))  # fmt: skip


# ---------------------------------------------------------------- names

NAMES = ("postgres.chaos.test", "redis.chaos.test")


@fault("F43", "The names of Postgres and Redis cannot be found", bound=30, seconds=30, scaled=15, links=["B-pg"],
       needs=no_private_mounts)  # fmt: skip
def names_lost(scene: Scene) -> Iterator[None]:
    """A host that has names instead of addresses, and an /etc/hosts of its own."""
    cluster, host, link = scene.cluster, scene.cluster.hosts["B"], scene.link("B-pg")
    hosts = cluster.folder / "hosts"
    shutil.copy("/etc/hosts", hosts)
    with hosts.open("a") as file:
        file.writelines(f"127.0.0.1 {name}\n" for name in NAMES)
    command, env = host.process.command, dict(host.process.env)
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    host.process.command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]
    for variable, name in zip(("DATABASE_URL", "REDIS_URL"), NAMES, strict=True):
        host.process.env[variable] = at(env[variable], urlsplit(env[variable]).port or 0, name)
    _restart(scene, host)
    scene.saw("the host works with names", scene.wait(cluster.complete, 30))
    hosts.write_text("127.0.0.1 localhost\n")
    link.reset()
    with scene.redis() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    accepted, before = link.counts["accepted"], scene.committed()
    yield
    scene.saw("it could not connect", link.counts["accepted"] == accepted)
    scene.saw("the other host handled messages meanwhile", scene.committed() > before)
    with hosts.open("a") as file:
        file.writelines(f"127.0.0.1 {name}\n" for name in NAMES)
    scene.saw("it connected again by itself", scene.wait(lambda: link.counts["accepted"] > accepted, 30))
    host.process.command, host.process.env = command, env
    host.kill()


def _restart(scene: Scene, host: Part) -> None:
    hit = host.kill()
    scene.wait(lambda: host.alive() and host.process.pid not in hit, 10)
