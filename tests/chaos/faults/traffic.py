"""What people and platforms send: copies, disorder, messages that cannot be handled, a flood."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from tests.chaos.faults.base import Scene, fault
from tests.chaos.generator import BY_NAME, Message
from tests.kit.stack import every

# One host of workers may be full of the other tenant's turns, on a machine that is also the people and the platforms.
OTHERS_SECONDS = 10.0
COPIES = 5
POISON = ("crash", "endless", "poison")
OF_USERS = 'JOIN conversation c ON c.id = m.conversation_id WHERE c."user" = ANY(%s)'


@fault("F27", "The same webhook comes five times at once, again and again", bound=10, seconds=30, scaled=8)
def copies_at_once(scene: Scene) -> Iterator[None]:
    generator, place, said = scene.generator, BY_NAME["keep"], list[Message]()

    def say() -> None:
        message = generator.message(place, f"twin-{len(said)}", 1, "plain")
        said.append(message)
        generator.deliver(message, copies=COPIES)

    scene.began = time.monotonic_ns()
    with every(0.1, say):
        yield
    users = [message.user for message in said]
    taken = [event for event in generator.history.of("webhook") if event["k"] == "ok" and event["u"] in set(users)]
    scene.saw(f"{len(said)} messages came five times each", len(taken) >= COPIES * len(said) * 0.9)
    rows = scene.value(f"SELECT count(*) FROM message m {OF_USERS}", users)
    scene.wrong(f"{len(said)} messages are {rows} rows", rows > len(said))


@fault("F28", "Numbered messages come in disorder, one late, one never", bound=15, seconds=12)
def disorder(scene: Scene) -> Iterator[None]:
    generator, place = scene.generator, BY_NAME["numbered"]
    user = f"disorder-{scene.chance.getrandbits(24)}"

    def say(*numbers: int) -> None:
        for number in numbers:
            generator.deliver(generator.message(place, user, number, "plain", external=number), copies=1)

    say(1)
    time.sleep(0.5)
    others = [3, 4, 5, 6, 8, 9]
    scene.chance.shuffle(others)
    say(*others)  # 2 comes before its hole is closed, 7 never
    time.sleep(1.0)
    say(2)
    generator.history.add("gen", "event", "never", ch=place.name, u=user, m=7)
    yield
    order = scene.cluster.query(
        "SELECT m.external_sequence, m.status FROM message m JOIN conversation c ON c.id = m.conversation_id"
        ' WHERE c."user" = %s ORDER BY m.sequence', user)  # fmt: skip
    numbers = [number for number, status in order if status == "handled"]
    scene.notes["order"] = order
    scene.saw("they came", len(order) >= 8)
    scene.saw("a hole was closed", any(status == "missing" for _, status in order))
    scene.wrong(f"they were handled in the order {numbers}", numbers != sorted(numbers))


@fault("F38", "Messages that raise, that crash their process, that never end", bound=30, seconds=30, scaled=15,
       env={"TURN_SECONDS": "4"}, alone=True)  # fmt: skip
def poison(scene: Scene) -> Iterator[None]:
    said = [scene.generator.say("keep", kind) for kind in POISON for _ in range(2)]
    users = [message.user for message in said]
    before = scene.committed()
    yield
    tried = scene.value(f"SELECT count(*) FROM turn m {OF_USERS}", users)
    parked = f"SELECT count(*) FROM message m {OF_USERS} AND m.status = 'parked' AND m.note <> ''"
    scene.saw("they were tried", tried >= len(said))
    scene.saw("others were handled meanwhile", scene.committed() > before)
    scene.saw("all were parked, with a reason", scene.wait(lambda: scene.value(parked, users) == len(said), 120))


@fault("F40", "A thousand hints and a thousand tasks for one conversation", bound=10, seconds=5)
def flood_of_wakes(scene: Scene) -> Iterator[None]:
    lane = scene.value("SELECT max(id) FROM conversation")
    tenant = scene.value("SELECT n.tenant_id FROM conversation c JOIN channel n ON n.id = c.channel_id WHERE c.id = %s",
                         lane)  # fmt: skip
    code = f"""
from conversations.contracts import Work
from conversations.lanes import redis_client
from conversations.waking import doorbell
redis_client.REDIS_SECONDS = 5.0  # Redis is busy with the others' work
for kind in (Work.HANDLE, Work.SEND):
    for _ in range(1000):
        doorbell.ring(kind, {{{tenant}: [{lane}]}})
    redis_client.client().lpush(str(kind), *(doorbell.keys_and_task(kind)[1] for _ in range(1000)))
print("published")
"""
    published = scene.cluster.manage("shell", "-c", code)
    scene.began = time.monotonic_ns()
    before = scene.committed()
    yield
    scene.saw("they were published", "published" in published)
    with scene.redis() as client:

        def few_are_left() -> bool:
            return all(int(client.llen(kind)) <= 2 for kind in ("handle", "send"))

        scene.wrong("a thousand tasks are not gone in time", not scene.wait(few_are_left, 20))
    scene.saw("others were handled meanwhile", scene.committed() > before)


@fault("flooding-tenant", "One tenant floods, another goes on as ever", bound=60, seconds=20, scaled=12)
def flooding_tenant(scene: Scene) -> Iterator[None]:
    generator, done = scene.generator, threading.Event()

    def flood() -> None:
        while not done.is_set():
            generator.say("keep", "plain")
            time.sleep(0.004)

    since = scene.value("SELECT now()")
    flooding = threading.Thread(target=flood, name="flood", daemon=True)
    flooding.start()
    yield
    backlog = scene.value("SELECT count(*) FROM message WHERE status = 'pending'")
    done.set()
    flooding.join()
    flood_size = scene.value("SELECT count(*) FROM message m JOIN conversation c ON c.id = m.conversation_id"
                             " JOIN channel n ON n.id = c.channel_id WHERE n.name LIKE 'keep%%' AND m.received_at > %s",
                             since)  # fmt: skip
    waits = scene.cluster.query(
        "SELECT extract(epoch FROM coalesce(m.settled_at, now()) - m.received_at)::float FROM message m"
        " JOIN conversation c ON c.id = m.conversation_id JOIN channel n ON n.id = c.channel_id"
        " JOIN tenant t ON t.id = n.tenant_id WHERE t.name = 'bolt' AND m.received_at > %s", since)  # fmt: skip
    slowest = max((seconds for (seconds,) in waits), default=0.0)
    scene.notes.update(flood=flood_size, backlog=backlog, slowest_of_the_other_seconds=round(slowest, 2))
    scene.saw("one tenant flooded", flood_size > 50 * scene.seconds)
    scene.saw("the other one wrote meanwhile", waits)
    scene.wrong(f"the other one waited {slowest:.1f} s", slowest > OTHERS_SECONDS)
