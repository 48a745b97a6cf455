"""What one bot may do to the others, kind by kind: nothing. All of it happens at once, among 20 people who behave.

Whoever fails pays with the attempts of their own message, until it is parked; nobody else does, and everybody else is
answered. What does no harm is handled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from tests.kit.lanes import BOTS, Lanes
from tests.kit.shared import working
from tests.kit.stack import SLACK

pytestmark = [pytest.mark.xdist_group("misbehaviour"), pytest.mark.timeout(400)]

TURN_SECONDS = "3"
PARKED, HANDLED = "parked", "handled"
RAISED = ("an-error", "exit", "an-interrupt", "generator-exit", "a-base-exception", "cancelled", "memory-error",
          "an-unspeakable-error")  # fmt: skip

# Bots of tests.bots_app.misdeeds, and what becomes of a message to each.
IN_THEIR_TURN = {
    "says-101-replies": PARKED,
    "says-2-megabytes": PARKED,
    "says-60-megabytes": PARKED,
    "says-a-nul": PARKED,
    "says-a-surrogate": PARKED,
    "says-nothing": HANDLED,
    "says-odd-unicode": HANDLED,
    "logs-and-hands-over-a-nul": HANDLED,
    "asks-for-all-history": HANDLED,
    "remembers-too-much": PARKED,
    "remembers-an-object": PARKED,
    "remembers-itself": PARKED,
    "remembers-a-deep-tree": PARKED,
    "remembers-a-surrogate": PARKED,
    "remembers-nan": HANDLED,
    "remembers-a-list": PARKED,
    "breaks-its-turn": PARKED,
    "goes-on-after-its-turn": HANDLED,
    **{f"raises-{name}": PARKED for name in RAISED},
    **{f"async-raises-{name}": PARKED for name in RAISED},
    "recurses": PARKED,
    "cancels-itself": PARKED,
    "forks": HANDLED,
    "starts-200-threads": HANDLED,
    "prints-a-megabyte": HANDLED,
    "sets-a-signal-handler": PARKED,
    "leaves-the-folder": HANDLED,
    "kills-its-connection": PARKED,
    "locks-its-lane": HANDLED,
    "leaves-a-transaction-open": HANDLED,
    "leaves-atomic-open": HANDLED,
    "lacks-a-connection-at-first": HANDLED,
}
HOLDER = "holds-the-interpreter"  # and so stops all threads of its process, which is replaced and killed
# These hold a thread, the processor or the event loop for ever: their process is replaced.
FOR_EVER = {
    "sleeps-for-ever": PARKED, "spins-for-ever": PARKED, "waits-for-ever": PARKED, "blocks-the-loop": PARKED,
}  # fmt: skip
# These end their process, or would block one after the other.
IN_THEIR_PROCESS = {
    "exits-at-once": PARKED,
    "crashes": PARKED,
    "kills-itself": PARKED,
    "closes-every-descriptor": PARKED,
    "stops-its-process": HANDLED,
    "exits-after-its-turn": HANDLED,
    "exits-in-a-callback": PARKED,
    "stops-the-loop": PARKED,
    "closes-the-loop": HANDLED,
    "blocks-the-loop-in-a-child-task": PARKED,
    "blocks-the-loop-in-a-callback": PARKED,
}
ALL = {HOLDER: PARKED, **IN_THEIR_TURN, **FOR_EVER, **IN_THEIR_PROCESS}
INNOCENT = 20


class Scene:
    """One stack, a conversation with each misbehaving bot, and 20 people who write all the time."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        bots = ["obedient", "obedient_async"]
        self._channels = {name: lanes.channel(name, parked_policy="skip") for name in bots}
        self.innocent = [self._innocent(number) for number in range(INNOCENT)]
        self.culprits: dict[str, int] = {}
        self._rounds = 0

    def _innocent(self, number: int) -> int:
        bot = ("obedient", "obedient_async")[number % 2]
        return self.lanes.say(self._channels[bot], f"innocent-{number}", "count")

    def misbehave(self, names: Iterable[str]) -> None:
        """A message to each of these bots, all at once."""
        channels = {name: self.lanes.channel(name, parked_policy="skip") for name in names}
        lanes = {name: self.lanes.say(channel, "culprit", "go", woken=False) for name, channel in channels.items()}
        self.culprits |= lanes
        self.lanes.wake(*lanes.values())

    def go_on(self, until: Callable[[], object]) -> None:
        """The innocent write one after the other; culprits fail without the waits between attempts."""
        end = time.monotonic() + 60 * SLACK
        while not until():
            assert time.monotonic() < end, self._unsettled()
            self._innocent(self._rounds % INNOCENT)
            self._rounds += 1
            self._hurry()
            time.sleep(0.1)

    def all_settled(self) -> bool:
        return not self._unsettled()

    def _unsettled(self) -> list[str]:
        pending = "SELECT conversation_id FROM message WHERE status = 'pending' AND conversation_id = ANY (%s)"
        left = {lane for (lane,) in self.lanes.stack.query(pending, list(self.culprits.values()))}
        return [name for name, lane in self.culprits.items() if lane in left]

    def _hurry(self) -> None:
        hurry = """UPDATE conversation SET not_before = NULL, due_at = now()
                    WHERE id = ANY (%s) AND not_before > now() RETURNING id"""
        if hurried := self.lanes.stack.query(hurry, list(self.culprits.values())):
            self.lanes.wake(*(lane for (lane,) in hurried))


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with working(roles="handle,sweep", env={**BOTS, "TURN_SECONDS": TURN_SECONDS}) as stack:
        scene = Scene(Lanes(stack))
        scene.misbehave([HOLDER])  # alone: one that ends the process would end its hold
        scene.go_on(lambda: scene.lanes.lane(scene.culprits[HOLDER], "suspect"))
        scene.misbehave(IN_THEIR_TURN)
        scene.go_on(scene.all_settled)
        scene.misbehave(FOR_EVER)
        scene.go_on(lambda: scene.lanes.turns(scene.culprits["blocks-the-loop"]))
        scene.misbehave(IN_THEIR_PROCESS)
        scene.go_on(scene.all_settled)
        scene.lanes.settled(*scene.innocent)
        yield scene


@pytest.mark.parametrize(("bot", "status"), [pytest.param(*row, id=row[0]) for row in ALL.items()])
def test_what_misbehaves_is_parked_after_its_attempts_or_does_no_harm(scene: Scene, bot: str, status: str) -> None:
    lane = scene.culprits[bot]
    assert scene.lanes.messages(lane) == [status]
    assert scene.lanes.turns(lane) == (["failed"] * 5 if status == PARKED else ["committed"])


def test_a_process_that_stands_still_leaves_its_stacks_and_is_killed(scene: Scene) -> None:
    _, begun, stacks = scene.lanes.stack.logs().partition(" stands still; its threads:")
    assert begun
    assert "in holds_the_interpreter" in stacks
    assert "and is killed" in stacks


def test_meanwhile_20_people_are_answered_in_order_and_nobody_is_blamed(scene: Scene) -> None:
    for lane in scene.innocent:
        assert set(scene.lanes.messages(lane)) == {"handled"}
        assert set(scene.lanes.turns(lane)) == {"committed"}
        said = [int(text.partition(":")[0]) for text in scene.lanes.replies(lane)]
        assert said == list(range(1, len(said) + 1))
        assert len(said) == scene.lanes.lane(lane, "last_sequence")
    assert scene.lanes.stack.value("SELECT count(*) FROM pause WHERE since IS NOT NULL") == 0
