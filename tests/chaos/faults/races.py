"""Races of this design that load alone meets too seldom, each made likely."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence

from tests.chaos.evidence import read_begun
from tests.chaos.faults.base import Scene, fault, frozen, gone, send, stopped
from tests.chaos.faults.people import HAND_BACK, TAKE_OVER, act
from tests.chaos.generator import BY_NAME, Message
from tests.kit.stack import every

IDLE_SECONDS = 3.0  # the server ends a transaction of ours that is idle for 2 s
SAID_429 = 3  # a stall of the machine may squeeze a bucket


def speak(scene: Scene, place: str, user: str, number: int, kind: str) -> Message:
    """One message of a person of our own, taken when this returns."""
    message = scene.generator.message(BY_NAME[place], user, number, kind)
    scene.generator.deliver(message).result()
    return message


def strangers(scene: Scene, place: str, count: int) -> list[str]:
    first = scene.chance.randrange(500, 800)
    return [scene.generator.name_user(BY_NAME[place], first + n) for n in range(count)]


@fault("sorry-behind", "A message is parked while what was said before still waits", bound=60, seconds=1)
def sorry_behind(scene: Scene) -> Iterator[None]:
    (user,) = strangers(scene, "plain", 1)
    scene.cluster.platform.script({"do": "500", "chat": user, "times": 0})
    speak(scene, "plain", user, 1, "double")
    speak(scene, "plain", user, 2, "poison")
    said = """SELECT bool_or(r.author = 'system') AND bool_or(r.author = 'bot' AND r.status <> 'sent')
                FROM reply r JOIN conversation c ON c.id = r.conversation_id WHERE c.user = %s"""
    behind = scene.wait(lambda: scene.value(said, user), 60)
    yield
    scene.saw("the sorry text was written behind two replies that were not sent", behind)
    scene.cluster.platform.clear()


@fault("late-to-a-window", "A message comes after its settle window, when later ones have their numbers", bound=10,
       seconds=2)  # fmt: skip
def late_to_a_window(scene: Scene) -> Iterator[None]:
    """It gets the next number, marked late; nobody's number moves."""
    users = strangers(scene, "window", 4)
    for user in users:
        for number in (1, 2, 4):
            speak(scene, "window", user, number, "plain")
    passed = """SELECT count(*) FROM conversation c WHERE c.user = ANY (%s) AND c.next_sequence = 4"""
    handled = scene.wait(lambda: scene.value(passed, users) == len(users))
    for user in users:
        speak(scene, "window", user, 3, "plain")
    yield
    scene.saw("later ones were handled before they came", handled)
    late = scene.value(SAID_ONCE + " AND m.late AND m.sequence = 4", users)
    scene.saw("they are marked late", scene.value(SAID_ONCE + " AND m.late", users) == len(users))
    scene.wrong(f"only {late} of {len(users)} have the next number", late < len(users))


@fault("burst", "Everybody of a slow channel writes at once", bound=60, seconds=20, scaled=12)
def burst(scene: Scene) -> Iterator[None]:
    """Our limiter, shared by all senders, must keep the platform from saying 429."""
    place = BY_NAME["slow"]
    for user in strangers(scene, place.name, 10):
        for number in range(1, 6):
            scene.generator.deliver(scene.generator.message(place, user, number, "triple"))
    yield
    calls = [call for call in scene.cluster.platform.calls() if call["account"] == place.account]
    calls = [call for call in calls if call["t_ns"] >= scene.began]
    scene.saw("there was more to say than the limit allows", len(calls) > place.limits["channel"] * scene.seconds / 2)
    refused = sum(call["decision"] == "429" for call in calls)
    scene.wrong(f"the platform had to say 429 {refused} times in {len(calls)} calls", refused > SAID_429)


@fault("long-turns", "The bot takes its time, while its people go on writing", bound=15, seconds=10)
def long_turns(scene: Scene) -> Iterator[None]:
    """A turn holds up nothing but its own lane's next turn: no webhook, no transaction."""
    idle = """SELECT coalesce(max(extract(epoch FROM now() - state_change)), 0)::float FROM pg_stat_activity
               WHERE state LIKE 'idle in transaction%%'"""
    longest = [0.0]
    users = strangers(scene, "keep", 4)
    for user in users:
        speak(scene, "keep", user, 1, "long")
    begun = "SELECT count(*) FROM conversation c WHERE c.user = ANY (%s) AND c.next_sequence = 1"
    with every(0.3, lambda: longest.append(scene.value(idle))):
        for number in (2, 3):
            for user in users:
                scene.generator.deliver(scene.generator.message(BY_NAME["keep"], user, number, "plain"))
        waiting = scene.value(begun, users)
        yield
    scene.saw("people wrote while their turns ran", waiting)
    scene.wrong(f"a transaction stood idle for {max(longest):.1f} s", max(longest) > IDLE_SECONDS)
    ends = [e for e in scene.generator.history.of("webhook") if e["k"] != "invoke" and e["u"] in set(users)]
    refused = [end["status"] for end in ends if not 200 <= end["status"] < 300]
    scene.wrong(f"their webhooks were answered {refused}", refused)


@fault("unwoken", "People speak once while Redis is away: nobody is ever woken for them", bound=15, seconds=3)
def unwoken(scene: Scene) -> Iterator[None]:
    """Who says more is rescued by the wake of his next message; these say nothing more."""
    scene.cluster.redis.stop()
    users = strangers(scene, "keep", 5)
    try:
        for user in users:
            speak(scene, "keep", user, 1, "plain")
        yield
    finally:
        scene.cluster.redis.start()
    scene.saw("all were stored", scene.value(SAID_ONCE + " AND m.sequence = 1", users) == len(users))


@fault("killed-with-strangers", "A worker is killed with people in hand who speak once", bound=10, seconds=1)
def killed_with_strangers(scene: Scene) -> Iterator[None]:
    users = strangers(scene, "keep", 6)
    for user in users:
        scene.generator.deliver(scene.generator.message(BY_NAME["keep"], user, 1, "long"))
    began = scene.wait(lambda: scene.value(SAID_ONCE, users) == len(begun_of(scene, users)) == len(users))
    hit = set(begun_of(scene, users))
    send(signal.SIGKILL, *hit)
    yield
    scene.saw("all turns had begun", began)
    scene.saw(f"{len(hit)} workers were killed in the middle of them", hit and all(map(gone, hit)))


@fault("frozen-in-a-turn", "A worker freezes in a turn, and wakes while another has it in hand", bound=20, seconds=11,
       smoke=10)  # fmt: skip
def frozen_in_a_turn(scene: Scene) -> Iterator[None]:
    """Its lock is another's by then, and so is the turn."""
    (user,) = strangers(scene, "keep", 1)
    speak(scene, "keep", user, 1, "long")
    assert scene.wait(lambda: begun_of(scene, [user])), "the turn did not begin"
    pid = begun_of(scene, [user])[0]
    with frozen(pid):
        scene.began = time.monotonic_ns()
        yield
        scene.saw("it stood still", stopped(pid))
        scene.saw("another process began the same turn meanwhile", set(begun_of(scene, [user])) - {pid})


@fault("sender-frozen-in-a-call",
       "A sender freezes in a call, and wakes with a refusal while another sends the same reply", bound=20,
       seconds=11)  # fmt: skip
def sender_frozen_in_a_call(scene: Scene) -> Iterator[None]:
    """What became of the first call says nothing of the second."""
    (user,) = strangers(scene, "keep", 1)
    again = [{"do": "400", "after": 3, "chat": user}, {"do": "ok", "after": 8, "chat": user}]
    scene.cluster.platform.script(*again)
    speak(scene, "keep", user, 1, "double")
    assert scene.wait(lambda: senders_of(scene, [user])), "no call began"
    (pid,) = senders_of(scene, [user])
    with frozen(pid):
        scene.began = time.monotonic_ns()
        yield
        scene.saw("it stood still", stopped(pid))
        scene.saw("another sender was in the same call meanwhile", set(senders_of(scene, [user])) - {pid})
    scene.cluster.platform.clear()


@fault("taken-over-meanwhile", "People take over in the middle of turns and of calls that fail", bound=20, seconds=12)
def taken_over_meanwhile(scene: Scene) -> Iterator[None]:
    """What was begun before is void, and does not begin again."""
    users = strangers(scene, "keep", 4)
    turning, calling = users[:2], users[2:]
    scene.cluster.platform.script(*({"do": "500", "after": 8, "chat": user} for user in calling))
    for user in calling:
        speak(scene, "keep", user, 1, "double")
    for user in turning:
        speak(scene, "keep", user, 1, "long")
    scene.saw("calls were on their way", scene.wait(lambda: len(senders_of(scene, calling)) == len(calling)))
    taken = _act(scene, users, TAKE_OVER)
    calls = len(senders_of(scene, calling))
    yield
    scene.saw("lanes were taken over, in the middle of calls", taken == len(users) and calls)
    scene.saw("all were handed back", _act(scene, users, HAND_BACK) == len(users))


SAID_ONCE = "SELECT count(*) FROM message m JOIN conversation c ON c.id = m.conversation_id WHERE c.user = ANY (%s)"


def begun_of(scene: Scene, users: Sequence[str]) -> list[int]:
    """Who began turns of theirs, a pid for each."""
    asked = "SELECT id FROM conversation c WHERE c.user = ANY (%s)"
    lanes = {lane for (lane,) in scene.cluster.query(asked, list(users))}
    return [line["pid"] for line in read_begun(scene.cluster.folder) if line["lane"] in lanes]


def senders_of(scene: Scene, users: Sequence[str]) -> list[int]:
    """Who is sending a reply of theirs now, a pid for each."""
    asked = """SELECT w.pid FROM reply r JOIN conversation c ON c.id = r.conversation_id
                 JOIN worker w ON w.incarnation = r.claimed_by
                WHERE c.user = ANY (%s) AND r.status = 'sending'"""
    return [pid for (pid,) in scene.cluster.query(asked, list(users))]


@fault("hand-back", "People hand back on a page that is older than the newest messages", bound=20, seconds=2)
def handed_back(scene: Scene) -> Iterator[None]:
    """What the page showed is answered by the person; what came after it is the bot's."""
    users = strangers(scene, "keep", 4)
    for user in users:
        speak(scene, "keep", user, 1, "plain")
    taken = _act(scene, users, TAKE_OVER)
    for user in users:
        for number in (2, 3, 4):
            speak(scene, "keep", user, number, "plain")
    yield
    answered = _act(scene, users, "desk.answer(seen, anna, 'answered by a person')", 2)
    back = _act(scene, users, "desk.hand_back(seen, anna, skip_answered=True)", 2)
    states = """SELECT count(*) FROM message m JOIN conversation c ON c.id = m.conversation_id
                 WHERE c.user = ANY (%s) AND m.status = 'skipped' AND """
    scene.saw("lanes were taken over and handed back", taken == answered == back == len(users))
    scene.saw("what the page showed was skipped", scene.value(states + "m.sequence = 2", users) == len(users))
    unseen = scene.value(states + "m.sequence > 2", users)
    scene.wrong(f"{unseen} messages that nobody saw were skipped", unseen)


def _act(scene: Scene, users: Sequence[str], verb: str, last: int = 1) -> int:
    return act(scene, f"filter(user__in={list(users)!r})", verb, str(last))
