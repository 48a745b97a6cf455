"""The chat platforms refuse, are slow, take and fall silent, or no longer know our token."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from tests.chaos.faults.base import Scene, fault
from tests.kit.doubles import Rule


@fault("F29", "The platforms say 429 again and again, each with its time", bound=20, seconds=30, scaled=10, smoke=5)
def storm_of_429(scene: Scene) -> Iterator[None]:
    """Calls before the time that was said are judged from the platform's log."""
    rules: list[Rule] = [{"do": "429", "retry_after": n, "times": 0, "probability": 0.15} for n in (1, 2, 4)]
    yield from _mood(scene, rules, {"429"})


@fault("F30", "The platforms answer 500 or not at all", bound=60, seconds=600, scaled=12)
def platform_broken(scene: Scene) -> Iterator[None]:
    """Attempts grow with time, not with load: between two of one reply there is a wait."""
    rules: list[Rule] = [{"do": "500", "times": 0, "probability": 0.4}, {"do": "502", "times": 0, "probability": 0.2},
                         {"do": "hang", "seconds": 4, "times": 0, "probability": 0.1},
                         {"do": "hang_then_accept", "seconds": 4, "times": 0, "probability": 0.1}]  # fmt: skip
    since = time.monotonic_ns()
    yield from _mood(scene, rules, {"500", "502", "hang", "hang_then_accept"})
    tries = Counter((call["chat"], call["text"]) for call in scene.cluster.platform.calls() if call["t_ns"] >= since)
    most = max(tries.values(), default=0)
    scene.notes["most_attempts_of_a_reply"] = most
    scene.wrong(f"a reply was tried {most} times", most > 10)


@fault("F31", "The platforms take a reply and reset the connection", bound=20, seconds=10, smoke=5)
def taken_and_reset(scene: Scene) -> Iterator[None]:
    rules: list[Rule] = [{"do": do, "times": 0, "probability": 0.12} for do in DOUBTS]
    yield from _mood(scene, rules, set(DOUBTS))


DOUBTS = ("accept_then_reset", "accept_then_500", "accept_then_cut", "accept_then_nonsense")


@fault("F32", "The platforms refuse some messages for good", bound=10, seconds=5, allows=["parks replies"])
def refused_for_good(scene: Scene) -> Iterator[None]:
    rules: list[Rule] = [{"do": "400", "times": 3}, {"do": "403", "times": 2}]
    before = scene.value("SELECT count(*) FROM reply WHERE status = 'parked'")
    yield from _mood(scene, rules, {"400", "403"})
    parked = "SELECT count(*) FROM reply WHERE status = 'parked' AND error <> ''"
    scene.saw("replies were parked, with the reason", scene.wait(lambda: scene.value(parked) > before))


@fault("platform-gone", "The platforms cannot be reached", bound=60, seconds=60, scaled=12)
def platform_gone(scene: Scene) -> Iterator[None]:
    """Its keys live with it: it freezes, and takes no connection at all."""
    before = scene.value("SELECT count(*) FROM reply WHERE status = 'sent'")
    scene.cluster.platform.stop()
    handled = scene.committed()
    yield
    sent = scene.value("SELECT count(*) FROM reply WHERE status = 'sent'") - before
    scene.saw("messages were handled meanwhile", scene.committed() > handled)
    scene.notes["sent_meanwhile"] = sent
    scene.saw("next to nothing was sent", sent < 40)  # calls in flight, of which the answer was on its way
    scene.cluster.platform.cont()


@fault("token-revoked", "A platform no longer knows our token; later there is a new one", bound=45, seconds=10)
def token_revoked(scene: Scene) -> Iterator[None]:
    """Nothing is parked, the cause is one row, and a new token releases all, in order."""
    channel = scene.generator.channels["plain"]
    token = channel.secrets["token"]
    scene.cluster.platform.script({"do": "401", "token": token, "times": 0})
    paused = "SELECT count(*) FROM pause WHERE scope = 'channel' AND target = %s AND since IS NOT NULL"
    parked = scene.value("SELECT count(*) FROM reply WHERE status = 'parked'")
    yield
    scene.saw("the channel was paused, in one row", scene.value(paused, str(channel.id)) == 1)
    scene.saw("calls were refused", _decided(scene, {"401"}))
    now = scene.value("SELECT count(*) FROM reply WHERE status = 'parked'")
    scene.wrong("a reply was parked for it", now > parked)
    # The fake platform knows accounts by their tokens: the old one is taken for good again, as a new one would be.
    scene.cluster.platform.clear()
    scene.healed = time.monotonic_ns()
    scene.cluster.manage("set_channel", channel.public_id, "--set", f"token={token}")
    scene.saw("the pause ended", scene.wait(lambda: not scene.value(paused, str(channel.id)), 45))


def _mood(scene: Scene, rules: list[Rule], decisions: set[str]) -> Iterator[None]:
    scene.began = time.monotonic_ns()
    scene.cluster.platform.script(*rules)
    yield
    scene.cluster.platform.clear()
    hits = _decided(scene, decisions)
    scene.notes["decisions"] = dict(hits)
    scene.saw(f"the platforms said {', '.join(sorted(hits)) or 'nothing of it'}", hits.total())


def _decided(scene: Scene, decisions: set[str]) -> Counter[str]:
    calls = scene.cluster.platform.calls()
    return Counter(call["decision"] for call in calls if call["decision"] in decisions and call["t_ns"] >= scene.began)
