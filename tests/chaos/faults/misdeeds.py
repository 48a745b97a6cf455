"""What somebody's bot does to the others in its process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.bots import LEFT
from tests.chaos.faults.base import Scene, fault, gone
from tests.chaos.faults.neighbours import PENDING
from tests.chaos.faults.traffic import OF_USERS
from tests.kit.stack import every, state

SILENT_SECONDS = 3.0  # of a heartbeat that is written every 2 s
MOST = 6  # messages, until each host has had one
PEOPLE = 30  # at once, whose bot asks the database


@fault("bot-holds-the-interpreter", "A regular expression that never ends holds a process of each host", bound=60,
       seconds=30, scaled=15, env={"TURN_SECONDS": "4"}, alone=True)  # fmt: skip
def bot_holds_the_interpreter(scene: Scene) -> Iterator[None]:
    held: dict[int, str] = {}

    def look() -> bool:
        before = len(held)
        held.update(_silent(scene))
        return len(held) > before

    said = []
    while set(held.values()) < set(scene.cluster.hosts) and len(said) < MOST:
        said.append(scene.generator.say("keep", "regex"))
        scene.wait(look, 6)
    hosts = sorted(set(held.values()))
    scene.saw(f"a process of {' and of '.join(hosts)} ran and had no heartbeat", len(hosts) == len(scene.cluster.hosts))
    scene.began, before = time.monotonic_ns(), scene.committed()
    yield
    scene.wrong("nobody was handled meanwhile", scene.committed() == before)
    scene.wrong("they still hold the interpreter", not scene.wait(lambda: all(map(gone, held))))
    parked = f"SELECT count(*) FROM message m {OF_USERS} AND m.status = 'parked' AND m.note <> ''"
    users = [message.user for message in said]
    scene.saw("all were parked, with a reason", scene.wait(lambda: scene.value(parked, users) == len(said), 120))


def _silent(scene: Scene) -> dict[int, str]:
    """Return the handle processes that use the processor and write no heartbeat, with their hosts."""
    silent = "SELECT pid FROM worker WHERE kind = 'handle' AND beat_at < now() - %s * interval '1 s'"
    pids = {pid for (pid,) in scene.cluster.query(silent, SILENT_SECONDS) if _runs(pid)}
    return {pid: host for host in scene.cluster.hosts for pid in scene.cluster.pids(host, "handle") if pid in pids}


def _runs(pid: int) -> bool:
    """Return True if one of its threads uses the processor."""
    return any(state(int(task.name)) == "R" for task in Path(f"/proc/{pid}/task").glob("*"))


@fault("loop-ends", "A task of an async bot ends the event loop, some time after its turn", bound=20, seconds=20,
       scaled=12)  # fmt: skip
def loop_ends(scene: Scene) -> Iterator[None]:
    scene.generator.open("async")
    left = scene.cluster.folder / LEFT.name

    def ended() -> set[int]:
        return set(map(int, left.read_text().split())) if left.exists() else set()

    before = ended()
    with every(0.2, lambda: scene.generator.say("async", "plain")):
        for number, kind in enumerate(("exits", "stops"), 1):
            scene.generator.say("async", kind)
            scene.wait(lambda number=number: len(ended() - before) >= number, 4)
        scene.began = time.monotonic_ns()
        yield
    loops = ended() - before
    scene.saw(f"{len(loops)} event loops were ended by a bot", len(loops) == 2)
    scene.wait(lambda: not scene.value(PENDING, "async"), 30)
    waits = scene.value(PENDING, "async")
    scene.wrong(f"{waits} messages to async bots are not handled", waits)


@fault("pool-exhausted", "The bot of thirty people makes one query and then waits for eight seconds", bound=20,
       seconds=20)  # fmt: skip
def pool_exhausted(scene: Scene) -> Iterator[None]:
    users = [scene.generator.say("keep", "query").user for _ in range(PEOPLE)]
    in_hand = """SELECT count(*) FROM conversation c WHERE c."user" = ANY(%s)
                    AND EXISTS (SELECT FROM worker w WHERE NOT w.dead AND w.running @> to_jsonb(c.id))"""
    most = 0

    def together() -> bool:
        nonlocal most
        most = max(most, scene.value(in_hand, users))
        return most == PEOPLE

    scene.wait(together, 7)
    scene.began = time.monotonic_ns()
    yield
    scene.saw(f"{most} of these turns were in hand at once", most == PEOPLE)
    handled = scene.value(f"SELECT count(*) FROM message m {OF_USERS} AND m.status = 'handled'", users)
    failed = scene.value(f"SELECT count(*) FROM turn m {OF_USERS} AND m.outcome = 'failed'", users)
    scene.notes.update(handled=handled, failed_turns=failed)
    scene.wrong(f"{PEOPLE - handled} of {PEOPLE} were not handled", handled < PEOPLE)
    scene.wrong(f"{failed} turns of theirs failed", failed)
