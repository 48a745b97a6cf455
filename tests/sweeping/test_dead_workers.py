"""Who takes a dead process's place need not wait until its beat is missed."""

from __future__ import annotations

import json
import os
import signal
import uuid
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from conversations import runtime
from conversations.contracts import Work
from conversations.lanes import lock, redis_client
from conversations.models import Conversation
from conversations.postgres import committer
from conversations.postgres.sql_files import sql
from conversations.sweeping import dead_workers
from tests.kit.desk_scenes import make_channel, make_lane
from tests.kit.lanes import BOTS, Lanes
from tests.kit.shared import working
from tests.kit.stack import wait_until


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_process_in_a_dead_ones_place_buries_it_without_any_sweeper() -> None:
    with working(roles="handle", env=BOTS) as stack:
        lanes = Lanes(stack)
        lane = lanes.say(lanes.channel(), "u", "wait 60")
        lanes.begun(lane)
        [before] = stack.pids("handle")
        assert stack.value("SELECT running FROM worker WHERE pid = %s", before) == [lane]
        os.kill(before, signal.SIGKILL)
        dead = "SELECT count(*) FROM worker WHERE pid = %s AND dead"
        wait_until(lambda: stack.value(dead, before) == 1, 30, "the dead process buried by the one in its place")
        suspect, due_now = lanes.lane(lane, "suspect, due_at <= now()")
        assert suspect, "its next turn runs in a process of its own"
        assert due_now
        [after] = stack.pids("handle")
        assert after != before


def test_lanes_that_a_sender_took_since_its_last_beat_are_free_and_due_when_it_is_buried(own_database: str) -> None:
    dead, living = uuid.uuid4(), uuid.uuid4()
    told, taken, others, nobodys = (make_lane(replies="pending", send_due_at=soon()).id for _ in range(4))
    in_doubt = make_lane(replies="unknown", send_due_at=None).id  # its reply waits for staff
    hold(dead, told, taken, in_doubt)
    hold(living, others)
    bury(dead, told, in_doubt)
    locked = {lane for lane in (told, taken, others, nobodys, in_doubt) if is_locked(lane)}
    due = set(Conversation.objects.filter(send_due_at__lte=timezone.now()).values_list("id", flat=True))
    assert (locked, due) == ({others}, {told, taken})


def test_lanes_of_a_dead_sender_are_found_behind_held_or_many_replies(
    own_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_workers, "PER_CHANNEL", 2)
    monkeypatch.setattr(dead_workers, "ALL_IN", 5)
    paused, crowded = make_channel(), make_channel()
    for _ in range(6):
        make_lane(replies="pending", channel=paused, send_due_at=timezone.now() - timedelta(minutes=5))
        make_lane(replies="pending", channel=crowded, send_due_at=soon())
    dead = uuid.uuid4()
    taken = make_lane(replies="pending", send_due_at=soon()).id
    hold(dead, taken)
    bury(dead)
    assert not is_locked(taken)


def soon() -> datetime:
    """A sweeper came when the lane was locked, and comes again then."""
    return timezone.now() + timedelta(seconds=9)


def bury(dead: uuid.UUID, *told: int) -> None:
    worker = {"kind": Work.SEND, "host": "here", "pid": 1, "version": "", "bots": None, "incarnation": dead}
    runtime.execute(sql("beat"), {**worker, "running": json.dumps(told)})
    [(beat,)] = runtime.read("SELECT beat FROM worker WHERE incarnation = %(id)s", {"id": dead})
    writer = committer.Committer("test")
    dead_workers.recover(writer, dead, beat)
    writer.stop()


def hold(incarnation: uuid.UUID, *lanes: int) -> None:
    keys = [lock.key(Work.SEND, lane) for lane in lanes]
    assert redis_client.run_script("hold", keys, [str(incarnation), int(lock.TTL_SECONDS * 1000)]) == [1] * len(lanes)


def is_locked(lane: int) -> bool:
    return bool(redis_client.client().exists(lock.key(Work.SEND, lane)))
