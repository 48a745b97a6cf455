"""What fails together is paused together, and nothing else."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from conversations import registry, runtime
from conversations.handling.handler import Handler
from conversations.lanes import pauses
from conversations.models import Channel, Conversation, Message, Pause, Turn
from conversations.postgres.sql_files import sql
from conversations.sweeping.sweeper import Sweeper
from tests.kit.desk_scenes import make_channel, make_lane
from tests.kit.stack import wait_until


class World:
    """Channels with one bot, which fails in the conversations that are ``broken``, and the sweeper's probes."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.broken: set[int] = set()
        self.sweeper = Sweeper(handler.writer, None)  # type: ignore[arg-type]
        self.sweeper._publish_probe = self._publish  # type: ignore[method-assign]
        self.probed: list[int] = []

    def bot(self, turn: Any) -> None:
        if turn.conversation_id in self.broken:
            raise RuntimeError("poison")

    def channel(self, tenant: str = "Shop") -> Channel:
        return make_channel(tenant, bot="orders")

    def lanes(self, channel: Channel, count: int, *, broken: bool = False) -> list[int]:
        made = [make_lane("pending", channel=channel, due_at=timezone.now()).pk for _ in range(count)]
        self.broken |= set(made) if broken else set()
        return made

    def handle(self, *lanes: int, probe: bool = False) -> None:
        """Handle the heads of these lanes without the waits between attempts."""
        Conversation.objects.filter(pk__in=lanes).update(not_before=None)
        self.handler.handle(lanes, probe=probe)
        wait_until(lambda: not self.handler.locks.running(), 10, "every lane released")

    def stop(self, channel: Channel, lanes: int = 4) -> list[int]:
        """Let ``lanes`` conversations of a channel fail until it is stopped, also if its bot is stopped before."""
        failing = self.lanes(channel, lanes, broken=True)
        for _ in range(-(-pauses.FAILURES // lanes)):
            self.handle(*failing, probe=True)
        assert channel.pk in stopped()
        return failing

    def sweep(self, *, due: bool = False) -> list[int]:
        """Do a sweeper's probes and handle what they try; return it. ``due``: the time for probes has come."""
        if due:
            Pause.objects.update(probe_at=timezone.now() - dt.timedelta(seconds=1))
        runtime.begin()
        self.probed = []
        self.sweeper._probe(runtime.read(sql("find_due")))
        for lane in self.probed:
            self.handle(lane, probe=True)
        return self.probed

    def _publish(self, kind: Any, found: Any) -> None:
        self.probed += [lane for lane, _ in found]


@pytest.fixture
def world(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(handler)
    registry.load_bots()
    monkeypatch.setitem(registry._bots, "orders", world.bot)
    return world


def stopped(scope: str = "channel") -> list[Any]:
    rows = Pause.objects.filter(scope=scope, since__isnull=False).order_by("id")
    return [int(row.target) if scope == "channel" else row.target for row in rows]


def handled(lanes: list[int]) -> int:
    return Message.objects.filter(conversation__in=lanes, status="handled").count()


def attempts(lanes: list[int]) -> list[int]:
    return list(Conversation.objects.filter(pk__in=lanes).order_by("id").values_list("attempts", flat=True))


# ---------------------------------------------------------------- channels and bots


def test_a_channels_own_service_that_is_down_stops_no_other_channel(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_by_channel", {"orders"})
    down, also_down, neighbour = world.channel("A"), world.channel("B"), world.channel("C")
    failing = world.stop(down) + world.stop(also_down)
    world.handle(*failing, probe=True)
    fine = world.lanes(neighbour, 5)
    world.handle(*fine)
    assert handled(fine) == 5
    assert stopped() == [down.pk, also_down.pk]
    assert Pause.objects.count() == 2


def test_a_bot_that_fails_in_two_channels_is_stopped_by_name_and_its_first_success_releases_all(world: World) -> None:
    one, two, third = world.channel("A"), world.channel("B"), world.channel("C")
    failing = world.stop(one)
    failing += world.stop(two)
    assert stopped("bot") == ["orders"]
    spent = attempts(failing)
    waiting = world.lanes(third, 1, broken=True)
    world.handle(*waiting)
    assert not Turn.objects.filter(conversation__in=waiting).exists(), "a bot that is stopped begins no turn"
    world.sweep(due=True)
    assert attempts(failing) == spent
    assert attempts(waiting) == [0], "a probe spends no attempt"
    world.broken.clear()
    world.sweep(due=True)
    assert not Pause.objects.exists()
    world.handle(*failing, *waiting)
    assert handled(failing + waiting) == 9


def test_a_bot_that_fails_for_one_person_in_each_of_its_channels_is_stopped_by_name(world: World) -> None:
    failing = [lane for n in range(10) for lane in world.lanes(world.channel(f"T{n}"), 1, broken=True)]
    world.handle(*failing)
    assert (stopped("bot"), stopped()) == (["orders"], [])
    for _ in range(10):
        world.handle(*failing, probe=True)
    assert max(attempts(failing)) == 1, "nobody pays for it"


def test_a_success_in_a_third_channel_keeps_the_bot_going(world: World) -> None:
    one, two, third = world.channel("A"), world.channel("B"), world.channel("C")
    world.stop(one)
    fine = world.lanes(third, 2)
    world.handle(fine[0])
    world.stop(two)
    world.handle(fine[1])
    assert (stopped("bot"), handled(fine)) == ([], 2)
    assert stopped() == [one.pk, two.pk], "the success was of another channel"


def test_a_bot_that_is_stopped_by_name_tries_a_third_channel_at_once_and_learns_whose_fault_it_is(world: World) -> None:
    one, two, third = world.channel("A"), world.channel("B"), world.channel("C")
    failing = world.stop(one)
    failing += world.stop(two)
    world.sweep(due=True)  # nothing is due from here on for 30 s
    [fine] = world.lanes(third, 1)
    assert world.sweep() == [fine]
    assert (stopped("bot"), stopped(), handled([fine])) == ([], [one.pk, two.pk], 1)
    world.sweep(due=True)
    world.sweep(due=True)
    assert stopped("bot") == [], "what only these two fail at is theirs"


# ---------------------------------------------------------------- conversations


def test_a_third_person_is_answered_at_once_though_two_have_paused_the_channel(world: World) -> None:
    channel = world.channel()
    bad = world.stop(channel, lanes=2)
    world.sweep(due=True)  # the probe for the next 30 s tries one of the two
    [good] = world.lanes(channel, 1)
    assert world.sweep() == [good]
    assert (handled([good]), stopped()) == (1, [])
    for _ in range(8):
        Conversation.objects.filter(pk__in=bad).update(attempts=0)  # they say it again and again
        world.handle(*bad)
    assert stopped() == [], "what only these two fail at is theirs"
    world.broken.clear()
    world.handle(*bad)
    assert not Pause.objects.exists(), "one of them succeeded"


def test_others_who_fail_pause_the_channel_although_two_are_known_to(world: World) -> None:
    channel = world.channel()
    world.stop(channel, lanes=2)
    [good] = world.lanes(channel, 1)
    world.sweep()
    assert (handled([good]), stopped()) == (1, [])
    world.stop(channel, lanes=3)
    Pause.objects.update(since=None, failures=0, updated_at=timezone.now() - dt.timedelta(hours=2))
    world.sweep()
    assert not Pause.objects.filter(scope="channel").exists(), "after an hour it is forgotten whose fault it was"


def test_a_probe_takes_of_each_channel_who_has_not_failed_else_who_was_tried_longest_ago(world: World) -> None:
    one, two = world.channel("A"), world.channel("B")
    failing = world.stop(one)
    world.stop(two)
    assert stopped("bot") == ["orders"]
    Pause.objects.filter(scope="channel").delete()  # the bot's probes alone
    [new] = world.lanes(one, 1, broken=True)
    assert set(world.sweep(due=True)) == {new, *world.probed[1:]}
    assert len(world.probed) == 2, "one of each channel"
    early = dt.timedelta(minutes=5)
    Conversation.objects.filter(pk=failing[2]).update(due_at=timezone.now() - early)
    assert failing[2] in world.sweep(due=True)
    assert new not in world.probed


# ---------------------------------------------------------------- who knows a bot


def test_a_lane_whose_bot_this_process_does_not_know_waits_without_blame(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = [make_lane("pending", channel=make_channel(bot="not-yet"), due_at=timezone.now()).pk for _ in range(10)]
    world.handle(*lanes)
    world.handle(*lanes, probe=True)
    assert not Turn.objects.exists()
    assert not Pause.objects.exists()
    assert set(attempts(lanes)) == {0}
    monkeypatch.setitem(registry._bots, "not-yet", world.bot)
    world.handle(*lanes)
    assert handled(lanes) == 10
