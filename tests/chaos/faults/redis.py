"""Redis flushed, killed, full, slow, away: it costs latency, never a message and never order."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Iterator
from typing import Any

from redis import RedisError

from conversations.postgres.sql_files import lua
from tests.chaos.faults.base import Scene, fault
from tests.kit.stack import every

HOLD, TAKE = (hashlib.sha1(lua(name).encode()).hexdigest() for name in ("hold", "take"))
# Nine of ten webhooks may wait so much longer while Redis is silent than in the seconds before it.
LONGER_SECONDS, BEFORE_SECONDS = 0.2, 4.0


@fault("F15", "Redis is flushed, scripts included, once a second", bound=15, seconds=60, scaled=10, smoke=5)
def flushed(scene: Scene) -> Iterator[None]:
    """Also the promise that a minute of it costs latency only."""
    with scene.redis() as client:

        def flush() -> None:
            with contextlib.suppress(RedisError):
                client.flushall()
                client.script_flush()

        flush()
        before = scene.committed()
        with every(1.0, flush) as done:
            yield
        scene.notes["flushes"] = len(done)
        scene.saw("it was flushed again and again", len(done) >= scene.seconds / 2)
        scene.saw("messages were handled meanwhile", scene.committed() > before)


@fault("F16", "Redis is killed, and comes back, with its file or empty", bound=15, seconds=5)
def killed(scene: Scene) -> Iterator[None]:
    empty = scene.chance.random() < 0.5
    scene.cluster.redis.kill()
    yield
    scene.healed = time.monotonic_ns()
    scene.cluster.redis.start(empty=empty)
    scene.notes["empty"] = empty
    scene.saw("it is a new process", _info(scene, "server", "uptime_in_seconds") < 5)
    scene.saw("workers really take tasks again", _tasks_are_taken(scene))


@fault("F17", "Redis is full: it refuses to write, then forgets keys", bound=15, seconds=20, scaled=10)
def full(scene: Scene) -> Iterator[None]:
    with scene.redis() as client:
        client.config_set("maxmemory", "1mb")
        scene.seconds /= 2
        time.sleep(scene.seconds)
        refused = _info(scene, "errorstats", "errorstat_OOM")
        client.config_set("maxmemory-policy", "allkeys-lru")
        yield
        forgotten = _info(scene, "stats", "evicted_keys")
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")
        scene.notes.update(refused=str(refused), forgotten=forgotten)
        scene.saw("it refused to write, or forgot keys", refused or forgotten)


@fault("F18", "Redis is down for ten minutes", bound=15, seconds=600, scaled=20)
def down(scene: Scene) -> Iterator[None]:
    scene.cluster.redis.stop()
    scene.began = time.monotonic_ns()
    stored, handled = scene.stored(), scene.committed()
    yield
    stored, handled = scene.stored() - stored, scene.committed() - handled
    answers = [status for status, *_ in scene.attempts(time.monotonic_ns())]
    scene.notes.update(stored=stored, handled=handled, refused=sum(status == 503 for status in answers))
    scene.wrong("webhooks were refused without Redis", any(status == 503 for status in answers))
    scene.saw("messages were stored without Redis", stored)
    scene.saw("bots went on answering", handled > stored / 2)
    scene.healed = time.monotonic_ns()
    scene.cluster.redis.start()
    scene.saw("workers really take tasks again", _tasks_are_taken(scene))


@fault("F19", "Redis accepts and never answers", bound=15, seconds=120, scaled=12, links=["app-redis"])
def black_hole(scene: Scene) -> Iterator[None]:
    link, before, usual = scene.link("app-redis"), scene.committed(), _most_wait(scene, BEFORE_SECONDS)
    link.hold()
    scene.began = time.monotonic_ns()
    yield
    answers = list(scene.attempts(time.monotonic_ns()))
    scene.saw("what was said to it was held", link.counts["held"])
    scene.saw("messages were handled meanwhile", scene.committed() > before)
    scene.wrong("webhooks were refused", any(status == 503 for status, *_ in answers))
    wait = _most_wait(scene, scene.seconds)
    scene.notes |= {"most_answers_seconds": wait, "before_seconds": usual}
    scene.notes["slowest_answer_seconds"] = round(max((seconds for _, seconds, _ in answers), default=0.0), 2)
    scene.wrong(f"webhooks waited {wait} s, {usual} s before", wait > usual + LONGER_SECONDS)
    link.heal()


def _most_wait(scene: Scene, seconds: float) -> float:
    """In how many seconds nine of ten webhooks were answered, of those that came in the last ``seconds``."""
    now = time.monotonic_ns()
    last = [wait for status, wait, at in scene.attempts(now) if status == 200 and at > now - seconds * 1e9]
    return round(sorted(last)[len(last) * 9 // 10], 2) if last else 0.0


@fault("F20", "Tasks that Redis has given away get lost, and hints that a task took", bound=15, seconds=10,
       links=["app-redis"])  # fmt: skip
def hints_lost(scene: Scene) -> Iterator[None]:
    link = scene.link("app-redis")
    triggers = [link.arm("brpop_answer", every=2), link.arm("script_answer", only=TAKE, every=3)]
    yield
    scene.notes["hits"] = [trigger.hits for trigger in triggers]
    scene.saw("tasks were lost", triggers[0].hits)
    scene.saw("hints were lost", triggers[1].hits)
    link.heal()


@fault("F21", "Redis takes no more clients, and ours are thrown out", bound=15, seconds=15)
def no_clients(scene: Scene) -> Iterator[None]:
    with scene.redis() as client:
        most = int(client.config_get("maxclients")["maxclients"] or 10_000)
        before = _info(scene, "stats", "rejected_connections")
        client.config_set("maxclients", 10)
        client.client_kill_filter(_type="normal", skipme=True)
        yield
        refused = int(client.info("stats")["rejected_connections"]) - before
        client.config_set("maxclients", most)
        scene.notes["refused"] = refused
        scene.saw("clients of ours were refused", refused)


def _armed(scene: Scene, name: str, **how: Any) -> Iterator[None]:
    link = scene.link("app-redis")
    trigger = link.arm(name, **how)
    yield
    scene.notes["hits"] = trigger.hits
    scene.saw(f"{name} was hit", trigger.hits)
    link.heal()


fault("F22", "A lock is taken, and its taker never hears it", bound=15, seconds=10,
      links=["app-redis"])(functools.partial(_armed, name="script_answer", only=HOLD, every=3))  # fmt: skip
fault("no-script", "Redis does not know our scripts", bound=10, seconds=5,
      links=["app-redis"])(functools.partial(_armed, name="no_script", every=2))  # fmt: skip


def _info(scene: Scene, section: str, name: str) -> int:
    """A count of Redis; those of errors come as a dict."""
    with scene.redis() as client:
        found = client.info(section).get(name, 0)
    return int(found["count"] if isinstance(found, dict) else found)


def _tasks_are_taken(scene: Scene) -> bool:
    """Somebody waits for tasks, in every process that should."""
    wanted = len(scene.cluster.hosts) * 2  # handle and send of every host

    def waiting() -> int:
        with scene.redis() as client:
            return sum(line["cmd"] == "brpop" for line in client.client_list())

    return scene.wait(lambda: waiting() >= wanted, 20)
